/**
 * The named baseline, frozen: the thinnest proxy that undici allows. It dispatches to one Pool per origin in turn, strips
 * hop-by-hop headers both ways, writes chunk by chunk and pauses when the client is slow. No retries, no health, no timeouts,
 * no abort, no forwarding headers. The bench prints this file's SHA-256: a number measured against other bytes is no baseline.
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
    const path = url ?? '/'
    const headers = endToEnd(rawHeaders)
    pool.dispatch(
      { path, method: method as Dispatcher.HttpMethod, headers, body: bodyOf(request) },
      new Relay(response),
    )
  }
}

class Relay implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse

  constructor(response: ServerResponse) {
    this.#response = response
  }

  onRequestStart(): void {}

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    if (status >= 200) this.#response.writeHead(status, endToEnd((controller.rawHeaders as Buffer[]).map(text)))
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

function endToEnd(raw: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < raw.length; i += 2) if (!HOP_BY_HOP.has(raw[i]!.toLowerCase())) kept.push(raw[i]!, raw[i + 1]!)
  return kept
}

/** GET and HEAD without a body must not look like a stream of unknown length. */
function bodyOf(request: IncomingMessage): IncomingMessage | null {
  const { headers } = request
  return headers['content-length'] === undefined && headers['transfer-encoding'] === undefined ? null : request
}

function text(bytes: Buffer): string {
  return bytes.toString('latin1')
}
