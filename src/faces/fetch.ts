import type { CallOptions, LiveCall } from '../core/call.ts'
import type { BalancerRequest, BalancerResponse, RawHeaders, RequestBody } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { ReplayBody } from '../core/replay.ts'
import { checkTarget } from '../core/target.ts'
import { Responses } from './response.ts'

export interface BalancerFetchInit extends RequestInit {
  /** What the balancer should know about this call. */
  readonly balancer?: CallOptions
}

/** A drop-in for `fetch`: takes what it takes, relative paths too, and gives a real Response. */
export type BalancerFetch = (input: string | URL | Request, init?: BalancerFetchInit) => Promise<Response>

/** What the face needs of the balancer. */
export interface FetchHost {
  send(
    request: BalancerRequest,
    options?: CallOptions,
  ): { readonly call: LiveCall; readonly response: Promise<BalancerResponse> }
  bufferBytes(pool: string | undefined): number
  checkOrigin(origin: string): void
}

/** Methods that fetch writes in upper case whatever the caller wrote (Fetch, "normalize a method"). */
const NORMALIZED = new Set(['DELETE', 'GET', 'HEAD', 'OPTIONS', 'POST', 'PUT'])
const DEFAULT_HEADERS: RawHeaders = ['accept', '*/*', 'user-agent', 'evenkeel']
/** Paths that mean the same to every parser need no URL object. */
const PLAIN_PATH = /^\/[\w\-./~!$&'()*+,;=:@?]*$/
const NO_INIT: BalancerFetchInit = {}
const encoder = new TextEncoder()

/**
 * Absolute URLs have scheme and authority replaced by the backend's. A 3xx is returned as it is and nothing is decompressed.
 * Rejects with the signal's own reason on abort, else with a BalancerError.
 */
export function createFetch(host: FetchHost): BalancerFetch {
  const responses = new Responses()
  return async (input, init = NO_INIT) => {
    const asked = input instanceof Request ? (init === NO_INIT ? input : new Request(input, init)) : undefined
    const signal = init.signal ?? asked?.signal
    signal?.throwIfAborted()
    const method = asked?.method ?? methodOf(init.method)
    const path = pathOf(asked?.url ?? input, host)
    checkTarget(path, method)
    const options = init.balancer ?? {}
    const { body, type } = bodyOf(asked?.body ?? init.body ?? null, host.bufferBytes(options.pool))
    if (body !== null && (method === 'GET' || method === 'HEAD')) {
      throw new TypeError('Request with GET/HEAD method cannot have body.')
    }
    const headers = asked !== undefined ? rawHeaders(asked.headers, type) : rawHeaders(init.headers, type)
    const { call, response } = host.send({ method, path, headers, body }, options)
    if (body instanceof ReplayBody) call.onEnd(() => body.close())
    if (signal != null) follow(signal, call)
    const answer = await response
    const origin = call.attempts.at(-1)?.backend.origin ?? ''
    return responses.make(answer, method, origin + path)
  }
}

function methodOf(method: string | undefined): string {
  if (method === undefined) return 'GET'
  const upper = method.toUpperCase()
  return NORMALIZED.has(upper) ? upper : method
}

function pathOf(input: string | URL | Request, host: FetchHost): string {
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
    if (/^[a-z][a-z0-9+.-]*:/i.test(text)) throw new TypeError('Failed to parse URL')
    url = new URL(text, 'http://backend/')
    return url.pathname + url.search
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw new TypeError(`unknown scheme ${url.protocol}`)
  host.checkOrigin(url.origin)
  return url.pathname + url.search
}

function rawHeaders(given: RequestInit['headers'], type: string | null): RawHeaders {
  if (given === undefined && type === null) return DEFAULT_HEADERS
  const headers = new Headers(given)
  if (type !== null && !headers.has('content-type')) headers.set('content-type', type)
  const raw: string[] = []
  for (const [name, value] of headers) if (!DROPPED.has(name)) raw.push(name, value)
  if (!headers.has('accept')) raw.push('accept', '*/*')
  if (!headers.has('user-agent')) raw.push('user-agent', 'evenkeel')
  return raw
}

/** Headers that belong to one connection or are the transport's to write; `fetch` forbids most of them. */
const DROPPED = new Set([
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

/** The body and the content type it brings along. Bytes are sent again for free; streams are kept up to the limit. */
function bodyOf(body: unknown, bufferBytes: number): { body: RequestBody; type: string | null } {
  if (body === null) return { body: null, type: null }
  if (typeof body === 'string') return { body: encoder.encode(body), type: 'text/plain;charset=UTF-8' }
  if (body instanceof URLSearchParams) {
    return { body: encoder.encode(body.toString()), type: 'application/x-www-form-urlencoded;charset=UTF-8' }
  }
  if (body instanceof ArrayBuffer) return { body: new Uint8Array(body), type: null }
  if (ArrayBuffer.isView(body))
    return { body: new Uint8Array(body.buffer, body.byteOffset, body.byteLength), type: null }
  if (body instanceof Blob || body instanceof FormData) {
    // The platform writes multipart bodies and their boundary; a Blob's length is known.
    const written = new Response(body)
    const length = body instanceof Blob ? body.size : undefined
    const stream = written.body as AsyncIterable<Uint8Array> | null
    if (stream === null) return { body: new Uint8Array(0), type: null }
    return { body: new ReplayBody(stream, length, bufferBytes), type: written.headers.get('content-type') }
  }
  if (typeof body === 'object' && body !== null && Symbol.asyncIterator in body) {
    return { body: new ReplayBody(asBytes(body as AsyncIterable<unknown>), undefined, bufferBytes), type: null }
  }
  return { body: encoder.encode(String(body)), type: 'text/plain;charset=UTF-8' }
}

async function* asBytes(source: AsyncIterable<unknown>): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const chunk of source) {
    if (typeof chunk === 'string') yield encoder.encode(chunk)
    else if (chunk instanceof Uint8Array) yield chunk
    else throw new BalancerError('PROTOCOL', `a request body may yield bytes or strings, not ${typeof chunk}`)
  }
}

function follow(signal: AbortSignal, call: LiveCall): void {
  const abort = (): void => call.cancel(signal.reason)
  if (signal.aborted) return abort()
  signal.addEventListener('abort', abort, { once: true })
  call.onEnd(() => signal.removeEventListener('abort', abort))
}
