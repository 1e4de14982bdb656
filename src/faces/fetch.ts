import { answeredBy, type CallOptions, type FaceHost } from '../core/call.ts'
import type { BalancerRequest, RawHeaders, RequestBody } from '../core/contracts.ts'
import { ReplayBody } from '../core/replay.ts'
import { isToken } from '../core/spelling.ts'
import { checkTarget } from '../core/target.ts'
import { bodyOf, DROPPED, pathOf, start } from './outgoing.ts'
import { followed } from './redirect.ts'
import { Responses } from './response.ts'

export interface BalancerFetchInit extends RequestInit {
  /** What the balancer should know about this call. */
  readonly balancer?: CallOptions
}

/** A drop-in for `fetch`: takes what it takes, relative paths too, and gives a real Response. */
export type BalancerFetch = (input: string | URL | Request, init?: BalancerFetchInit) => Promise<Response>

/** Methods that fetch writes in upper case whatever the caller wrote (Fetch, "normalize a method"). */
const NORMALIZED = new Set(['DELETE', 'GET', 'HEAD', 'OPTIONS', 'POST', 'PUT'])
const REDIRECTS: ReadonlySet<string> = new Set(['follow', 'manual', 'error'])
const FORBIDDEN = new Set(['CONNECT', 'TRACE', 'TRACK'])
const DEFAULT_HEADERS: RawHeaders = ['accept', '*/*', 'user-agent', 'evenkeel']
const NO_INIT: BalancerFetchInit = {}

/**
 * Absolute URLs have scheme and authority replaced by the backend's. Encoded bodies are decoded as they are read; unless the caller
 * says so, none is asked for. Redirects to the origin of the URL or of the backend that answered go through the balancer, each a call
 * of its own; those that lead elsewhere, or need a body that is gone, are returned as they are: nothing is ever sent to another
 * host. Rejects with the signal's own reason on abort, else with a BalancerError.
 */
export function createFetch(host: FaceHost): BalancerFetch {
  const responses = new Responses()
  return async (input, init = NO_INIT) => {
    const asked =
      input instanceof Request ? (init === NO_INIT ? input : unquoted(() => new Request(input, init))) : undefined
    const signal = init.signal ?? asked?.signal
    signal?.throwIfAborted()
    if (asked?.bodyUsed)
      throw new TypeError('Cannot construct a Request with a Request object that has already been used.')
    const method = asked?.method ?? methodOf(init.method)
    const path = pathOf(asked?.url ?? input, host)
    checkTarget(path, method)
    const redirect = init.redirect ?? asked?.redirect ?? 'follow'
    if (!REDIRECTS.has(redirect)) throw new TypeError(`'${redirect}' is no way to treat a redirect.`)
    const options = init.balancer ?? {}
    const { body, type } = bodyOf(asked?.body ?? init.body ?? null, host.bufferBytes(options.pool))
    if (body !== null && (method === 'GET' || method === 'HEAD')) {
      throw new TypeError('Request with GET/HEAD method cannot have body.')
    }
    const headers = asked !== undefined ? rawHeaders(asked.headers, type) : rawHeaders(init.headers, type)
    let request: BalancerRequest = { method, path, headers, body }
    for (let redirects = 0; ; redirects++) {
      const { call, response } = start(host, request, options, signal, redirect === 'follow')
      let kept: RequestBody = null
      try {
        const answer = await response
        const by = answeredBy(call, answer)
        const from = asked?.url ?? (input as string | URL)
        const next =
          answer.status < 300 ? undefined : followed(request, answer, call, by, { redirect, redirects, from })
        if (next === undefined) {
          const url = by === undefined ? '' : by.backend.origin + by.request.path
          return responses.make(answer, call, url, redirects > 0)
        }
        signal?.throwIfAborted() // the call that would have heard of it may be over
        kept = next.body
        request = next
      } finally {
        if (body instanceof ReplayBody && kept !== body) call.onEnd(() => body.close())
      }
    }
  }
}

function methodOf(method: string | undefined): string {
  if (method === undefined || method === 'GET') return 'GET'
  const upper = method.toUpperCase()
  if (NORMALIZED.has(upper)) return upper
  if (FORBIDDEN.has(upper) || !isToken(method)) throw new TypeError(`'${method}' is no method that fetch sends.`)
  return method
}

function rawHeaders(given: RequestInit['headers'], type: string | null): RawHeaders {
  if (given === undefined && type === null) return DEFAULT_HEADERS
  const headers = unquoted(() => new Headers(given))
  if (type !== null && !headers.has('content-type')) headers.set('content-type', type)
  const raw: string[] = []
  for (const [name, value] of headers) if (!DROPPED.has(name)) raw.push(name, value)
  if (!headers.has('accept')) raw.push('accept', '*/*')
  if (!headers.has('user-agent')) raw.push('user-agent', 'evenkeel')
  return raw
}

/** What the platform's errors about headers start with, and what they quote there: the header they refuse, which may be a key. */
const ABOUT_HEADERS = /^(Headers\b|\w+: (Key Symbol\(.*\) in )?\w+\.headers\b)/s
const QUOTED = /(["']).*\1|Symbol\(.*\)/s

/** Whatever else fails is told as it is. */
function unquoted<T>(make: () => T): T {
  try {
    return make()
  } catch (error) {
    if (!(error instanceof TypeError) || !ABOUT_HEADERS.test(error.message)) throw error
    throw new TypeError(error.message.replace(QUOTED, 'a header'))
  }
}
