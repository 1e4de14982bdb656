/** Between undici's words and ours. It imports nothing of undici. */
import type { BalancerRequest, RawHeaders } from '../core/contracts.ts'
import { header, wireHeaders } from '../core/headers.ts'
import { breach } from './answer-head.ts'

/** Headers as undici hands them over. */
export type Parsed = Readonly<Record<string, string | string[] | undefined>>

/** What undici lets be done with a request on its way. */
export interface Controller {
  readonly paused: boolean
  pause(): void
  resume(): void
  abort(reason: Error): void
}

/** undici has parsed the headers already: names in lower case, repeats in order. Using that is cheaper than its raw bytes. */
export function rawOf(parsed: Parsed): RawHeaders {
  const raw: string[] = []
  for (const name in parsed) {
    const value = parsed[name]!
    if (typeof value === 'string') raw.push(name, value)
    else for (const one of value) raw.push(name, one)
  }
  return raw
}

/**
 * As undici takes them; the length of an opened body, where it is known, must be said: undici would send it chunked. A length without a
 * body, and over HTTP/2 a field that has no place there or stands there in two cases, would cost it the connection.
 */
export function headersOf({ headers, body }: BalancerRequest, h2: boolean): string[] {
  const empty = body === null || (body instanceof Uint8Array && body.length === 0)
  const given = wireHeaders(headers)
  const strays = empty && header(headers, 'content-length') !== undefined
  const out = h2 || strays ? cleared(given, h2, empty) : given
  if (body === null || body instanceof Uint8Array || body.length === undefined) return out
  if (header(headers, 'content-length') === undefined) out.push('content-length', String(body.length))
  return out
}

/** Fields of one connection that undici lets through, and Node's HTTP/2 does not. */
const NOT_IN_H2 = new Set(['http2-settings', 'proxy-connection'])

function cleared(headers: readonly string[], h2: boolean, empty: boolean): string[] {
  const out: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!
    const value = headers[i + 1]!
    const lower = name.toLowerCase()
    if (empty && lower === 'content-length') continue
    if (h2 && (NOT_IN_H2.has(lower) || (lower === 'te' && value.trim().toLowerCase() !== 'trailers'))) continue
    out.push(h2 ? lower : name, value)
  }
  return out
}

const CONTRADICTION = 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH'
/** By undici's code or words. */
const HEAD_FAULTS: ReadonlyMap<string, readonly [code: string, message: string]> = new Map([
  [CONTRADICTION, ['HPE_INVALID_CONTENT_LENGTH', 'a Content-Length that contradicts itself']],
  ['bad response', ['HPE_UNEXPECTED_100', 'a 100 Continue that nobody asked for']],
  ['bad upgrade', ['HPE_UNEXPECTED_101', 'a change of protocol that nobody asked for']],
])

/** What undici says of an answer's head in a few words, said clearly and with a code. */
export function explained(error: Error): Error {
  const told = HEAD_FAULTS.get(codeOf(error) === CONTRADICTION ? CONTRADICTION : error.message)
  return told === undefined ? error : breach(told[0], told[1])
}

const REFUSED_STREAM = 7

/** HTTP/2: the backend says that it did nothing with the request (RFC 9113 8.7). */
export function isUnprocessed(error: Error): boolean {
  if ('http2ErrorCode' in error) return error.http2ErrorCode === REFUSED_STREAM
  return error.message.startsWith('HTTP/2: "GOAWAY" frame received')
}

/** HTTP/2: it is about one stream, not about its connection. */
export function isOfStream(error: Error): boolean {
  return codeOf(error) === 'ERR_HTTP2_STREAM_ERROR'
}

/** The code of what undici or Node failed with; '' if it has none. */
export function codeOf(error: Error): string {
  const code = 'code' in error ? error.code : undefined
  if (typeof code === 'string') return code
  if (error.name === 'HTTPParserError') return 'HPE_INVALID' // undici loses llhttp's own code
  // Several addresses were tried, each with its own failure (Node's happy eyeballs).
  if (error instanceof AggregateError && error.errors[0] instanceof Error) return codeOf(error.errors[0])
  return ''
}

/** Parsers leave what they could not read in their errors, undici's as `data`, Node's as `rawPacket`: it may repeat what was sent. */
export function withoutData(error: Error): Error {
  if (error.name === 'HTTPParserError' && 'data' in error) delete error.data
  if ('rawPacket' in error) delete error.rawPacket
  return error
}
