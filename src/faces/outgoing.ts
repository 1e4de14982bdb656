import { type CallOptions, type FaceHost, REQUEST_ID, type Sending } from '../core/call.ts'
import type { BalancerRequest, Call, RequestBody } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { header } from '../core/headers.ts'
import { ReplayBody } from '../core/replay.ts'

/** Paths that mean the same to every parser need no URL object. */
const PLAIN_PATH = /^\/[\w\-./~!$&'()*+,;=:@?]*$/
const encoder = new TextEncoder()

/** Starts a call that follows a signal and lets its body's source go when it is over, unless that `isKept` for another call. */
export function start(
  host: FaceHost,
  request: BalancerRequest,
  options: CallOptions,
  signal: AbortSignal | null | undefined,
  isKept = false,
): Sending {
  const sending = host.send(identified(request, options.requestId), options)
  const { body } = request
  if (body instanceof ReplayBody && !isKept) sending.call.onEnd(() => body.close())
  if (signal != null) follow(signal, sending.call)
  return sending
}

/** With the caller's id among its headers, unless one is there. */
function identified(request: BalancerRequest, id: string | undefined): BalancerRequest {
  if (id === undefined || header(request.headers, REQUEST_ID) !== undefined) return request
  return { ...request, headers: [...request.headers, REQUEST_ID, id] }
}

/** The path of a relative or absolute URL; the authority of an absolute one only has to be allowed. */
export function pathOf(input: string | URL | Request, host: FaceHost): string {
  if (typeof input === 'string' && input.charCodeAt(0) === 47) {
    if (PLAIN_PATH.test(input) && !input.includes('/.')) return input
    // Not resolved against a base: '//host/x' is a path of the chosen backend, never another host.
    const url = new URL(`http://backend${input}`)
    return url.pathname + url.search
  }
  const text = String(input)
  let url: URL
  try {
    url = new URL(text)
  } catch {
    // Not the platform's error: it holds what it could not parse, query and all.
    const relative = /^[a-z][a-z0-9+.-]*:/i.test(text) ? null : URL.parse(text, 'http://backend/')
    if (relative === null) throw new TypeError('Failed to parse URL')
    return relative.pathname + relative.search
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw new TypeError(`unknown scheme ${url.protocol}`)
  host.checkOrigin(url.origin)
  return url.pathname + url.search
}

/** The origin of an absolute URL; undefined for a relative one. */
export function originOf(input: string | URL): string | undefined {
  const text = String(input)
  return /^[a-z][a-z0-9+.-]*:/i.test(text) ? new URL(text).origin : undefined
}

/** Headers that belong to one connection or are the transport's to write; `fetch` forbids most of them. */
export const DROPPED: ReadonlySet<string> = new Set([
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/**
 * The body and the content type it brings along. Bytes are sent again for free; streams are kept up to the limit. `told` is the
 * length of one that knows none.
 */
export function bodyOf(body: unknown, bufferBytes: number, told?: number): { body: RequestBody; type: string | null } {
  if (body === null) return { body: null, type: null }
  if (typeof body === 'string') return { body: encoder.encode(body), type: 'text/plain;charset=UTF-8' }
  if (body instanceof URLSearchParams) {
    return { body: encoder.encode(body.toString()), type: 'application/x-www-form-urlencoded;charset=UTF-8' }
  }
  // Copied: what its owner writes into it later is not part of this request.
  if (body instanceof ArrayBuffer) return { body: new Uint8Array(body.slice(0)), type: null }
  if (ArrayBuffer.isView(body)) {
    return { body: new Uint8Array(body.buffer, body.byteOffset, body.byteLength).slice(), type: null }
  }
  if (body instanceof ReadableStream) new Response(body) // throws its TypeError if the stream was used
  if (body instanceof Blob || body instanceof FormData) {
    // The platform writes multipart bodies and their boundary; a Blob's length is known.
    const written = new Response(body)
    const length = body instanceof Blob ? body.size : undefined
    const stream = written.body as AsyncIterable<Uint8Array> | null
    if (stream === null) return { body: new Uint8Array(0), type: null }
    return { body: new ReplayBody(stream, length, bufferBytes), type: written.headers.get('content-type') }
  }
  if (typeof body === 'object' && body !== null && Symbol.asyncIterator in body) {
    return { body: new ReplayBody(asBytes(body as AsyncIterable<unknown>), told, bufferBytes), type: null }
  }
  return { body: encoder.encode(String(body)), type: 'text/plain;charset=UTF-8' }
}

/** Node's streams have more than an iterator. */
type Source = AsyncIterable<unknown> & { destroy?(): unknown; on?(event: 'error', listener: () => void): unknown }

/** Not a generator: `return` of one that was never started would not reach its source. */
function asBytes(source: Source): AsyncIterable<Uint8Array> {
  source.on?.('error', () => {}) // a stream that fails before it is read would end the process; its reader hears of it
  const chunks = source instanceof ReadableStream ? readOf(source) : source[Symbol.asyncIterator]()
  const iterator: AsyncIterator<Uint8Array> = {
    async next() {
      const { done, value } = await chunks.next()
      return done === true ? { done, value: undefined } : { done: false, value: bytesOf(value) }
    },
    async return() {
      source.destroy?.() // Node's streams iterate by a generator: its return would wait for the chunk that is being read
      await chunks.return?.()
      return { done: true, value: undefined }
    },
  }
  return { [Symbol.asyncIterator]: () => iterator }
}

/** Not the stream's own iterator, whose return waits as well. */
function readOf(stream: ReadableStream<unknown>): { next(): Promise<Read>; return(): Promise<void> } {
  const reader = stream.getReader()
  return { next: () => reader.read(), return: () => reader.cancel() }
}

type Read = { readonly done: boolean; readonly value?: unknown }

function bytesOf(chunk: unknown): Uint8Array {
  if (typeof chunk === 'string') return encoder.encode(chunk)
  if (chunk instanceof Uint8Array) return chunk
  throw new BalancerError('PROTOCOL', `a request body may yield bytes or strings, not ${typeof chunk}`)
}

function follow(signal: AbortSignal, call: Call): void {
  if (signal.aborted) return call.cancel(signal.reason) // by what runs at the start of a call, such as a route
  const abort = (): void => call.cancel(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  call.onEnd(() => signal.removeEventListener('abort', abort))
}
