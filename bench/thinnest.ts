/**
 * The named baseline, frozen (the bench prints its SHA-256): the thinnest proxy undici allows. It dispatches to one Pool per
 * origin in turn, strips hop-by-hop headers both ways, writes each chunk, pauses for a slow client, and does nothing else.
 */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { type Dispatcher, Pool } from 'undici'

const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/** A listener for `http.createServer`: each request goes to the next origin. */
export function createThinnest(origins: readonly string[]): RequestListener {
  const pools = origins.map((origin) => new Pool(origin, { connections: 256, pipelining: 1, allowH2: false }))
  let next = 0
  return (request, response) => {
    const pool = pools[next]!
    next = next + 1 === pools.length ? 0 : next + 1
    const { method, url, rawHeaders } = request
    const headers = endToEnd(rawHeaders)
    const target = { path: url ?? '/', method: method as Dispatcher.HttpMethod, headers, body: bodyOf(request) }
    pool.dispatch(target, new Relay(response))
  }
}

class Relay implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse

  constructor(response: ServerResponse) {
    this.#response = response
  }

  onRequestStart(): void {}

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (status >= 200) this.#response.writeHead(status, endToEnd(controller.rawHeaders as Buffer[]))
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#response.write(chunk)) return
    controller.pause()
    this.#response.once('drain', () => controller.resume())
  }

  onResponseEnd(): void {
    this.#response.end()
  }

  onResponseError(): void {
    if (this.#response.headersSent) this.#response.destroy()
    else this.#response.writeHead(502).end()
  }
}

function endToEnd(raw: readonly (string | Buffer)[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = text(raw[i]!)
    if (!HOP_BY_HOP.has(name.toLowerCase())) kept.push(name, text(raw[i + 1]!))
  }
  return kept
}

/** GET and HEAD without a body must not look like a stream of unknown length. */
function bodyOf(request: IncomingMessage): IncomingMessage | null {
  const { headers } = request
  return headers['content-length'] === undefined && headers['transfer-encoding'] === undefined ? null : request
}

function text(raw: string | Buffer): string {
  return typeof raw === 'string' ? raw : raw.toString('latin1')
}
