import type { IncomingMessage, ServerResponse } from 'node:http'
import type { BodyControl, BodySink, RawHeaders } from '../core/contracts.ts'
import { announced, interimHeaders, trailersOf } from './fields.ts'
import { isHttp2 } from './node-wire.ts'

/** Takes a body in that nobody wants. */
export const NOTHING: BodySink = { chunk: () => true, end: () => {}, fail: () => {} }

/** Writes a body to a client: a small one that is already there goes out with its head, in one write. */
export class Relay implements BodySink {
  readonly #response: ServerResponse
  /** The first chunk waits for what comes in the same tick, so that head, body and end leave together. */
  #first: Uint8Array | undefined
  #control: BodyControl | undefined
  #over = false

  constructor(response: ServerResponse) {
    this.#response = response
  }

  start(control: BodyControl): void {
    if (this.#over) return
    this.#control = control
    const first = this.#first
    this.#first = undefined
    if (first !== undefined) this.#write(first)
    else if (this.#response.req.httpVersionMajor !== 1) this.#response.flushHeaders()
    else this.#response.write('', 'latin1') // flushHeaders writes UTF-8, which no header is
  }

  chunk(data: Uint8Array): boolean {
    if (this.#control !== undefined) return this.#write(data)
    if (this.#first !== undefined) this.#response.write(this.#first)
    this.#first = data
    return true
  }

  end(trailers?: RawHeaders): void {
    this.#over = true
    if (trailers !== undefined) {
      try {
        const passed = trailersOf(trailers)
        // That of node:http2 takes no list.
        this.#response.addTrailers(isHttp2(this.#response.req) ? byName(passed.flat()) : passed)
      } catch {
        return this.fail() // they are no HTTP
      }
    }
    if (this.#first === undefined) this.#response.end()
    else this.#response.end(this.#first)
  }

  #write(data: Uint8Array): boolean {
    if (this.#response.write(data)) return true
    this.#response.once('drain', () => this.#control?.resume())
    return false
  }

  /** Cut off is never a clean end: the client's connection is broken too. */
  fail(): void {
    this.#over = true
    const { req, socket } = this.#response
    // To HTTP/1.0 the end of the connection is the end of a body without a length: only a reset says otherwise.
    const isOld = req.httpVersionMajor === 1 && req.httpVersionMinor === 0
    if (isOld && socket !== null && !('encrypted' in socket)) socket.resetAndDestroy()
    // To HTTP/2 a stream that is closed without an error has ended.
    this.#response.destroy(isHttp2(req) ? new Error('the answer has broken off') : undefined)
  }
}

/** What passes 1xx on to a client that may get them: to HTTP/1.0 there are none (RFC 9110 15.2). */
export function interimTo(
  request: IncomingMessage,
  response: ServerResponse,
): ((status: number, headers: RawHeaders) => void) | undefined {
  if (request.httpVersionMajor !== 1 || request.httpVersionMinor === 0) return undefined
  return (status, raw) => {
    // While it waits behind another answer of its connection, Node would write them after the head.
    if (response.headersSent || response.socket === null) return
    const headers = interimHeaders(raw)
    try {
      // Older releases of Node know two of them by name.
      if (Reflect.has(response, 'writeInformation')) response.writeInformation(status, headers)
      else if (status === 103) response.writeEarlyHints(byName(headers))
      else if (status === 102) response.writeProcessing()
    } catch {} // it is no HTTP: nobody needs it
  }
}

/** name, value, name, value, ... as names in lower case, each with all its values. */
function byName(fields: readonly string[]): Record<string, string[]> {
  const named: Record<string, string[]> = Object.create(null)
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!.toLowerCase()
    named[name] = [...(named[name] ?? []), fields[i + 1]!]
  }
  return named
}

/** `Trailer` as this client may get it: where there are chunks, there can be trailers. */
export function trailerTo(
  { httpVersion, method }: IncomingMessage,
  status: number,
  raw: RawHeaders,
): string | undefined {
  if (httpVersion !== '1.1' || method === 'HEAD' || status === 204 || status === 304) return undefined
  return announced(raw)
}
