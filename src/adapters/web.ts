import { BalancerError } from '../core/errors.ts'
import { bodyStream, Unread } from '../faces/read.ts'
import type { Answered } from './exchange.ts'
import { Gateway, type ProxyHost } from './gateway.ts'
import type { Refusal } from './guard.ts'
import type { Incoming } from './incoming.ts'
import { type Reply, refusalReply } from './problem.ts'
import type { ProxyOptions } from './proxy-options.ts'

export type { AffinityOptions } from './affinity.ts'
export type { ProxyHost } from './gateway.ts'
export type { ProxyLimits } from './guard.ts'
export type { HeaderChanges, HeaderList } from './header-list.ts'
export type { BodyInterception, ProxyAnswer, ProxyOptions, ProxyRequest } from './proxy-options.ts'
export type { CookieOptions, PathOptions } from './rewrite.ts'

/** What only the server knows of a request. */
export interface RequestContext {
  /** Of the client's end of the connection. */
  readonly address?: string | undefined
}

/** Takes a request and resolves with its answer, errors included; it never rejects. */
export type WebHandler = (request: Request, context?: RequestContext) => Promise<Response>

const URL_PARTS = /^(https?):\/\/([^/?#]*)([^#]*)/i
/** Statuses a Response may have no body with (Fetch, "null body status"). */
const NO_BODY: ReadonlySet<number> = new Set([101, 103, 204, 205, 304])
const CONSUMED: Refusal = {
  status: 500,
  code: 'BODY_CONSUMED',
  detail: 'the body was read before the proxy: hand over a clone() of the request made before that',
  close: false,
}
/** Nobody sees it: the client is gone (as nginx counts them). */
const CLIENT_GONE = 499

/**
 * A streaming reverse proxy as a function from Request to Response, for Hono and every other server that speaks Fetch.
 *
 * @example
 * const proxy = createHandler(balancer)
 * app.all('/api/*', (context) => proxy(context.req.raw))
 */
export function createHandler(balancer: ProxyHost, options: ProxyOptions<Request> = {}): WebHandler {
  const gateway = new Gateway<Request>(balancer, options)
  const unread = new Unread()
  return async (request, context) => {
    const exchange = gateway.open(incomingOf(request, context?.address), request)
    const { signal } = request
    const answer = (reply: Reply): Response => {
      return signal.aborted ? new Response(null, { status: CLIENT_GONE }) : responseOf(reply, request)
    }
    if (exchange.reply !== undefined) return answer(exchange.reply)
    if (request.bodyUsed) return answer(refusalReply(CONSUMED, { id: exchange.id, redact: undefined, close: false }))
    const abort = (): void => exchange.cancel(signal.reason)
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort, { once: true })
    try {
      return passedOn(
        await exchange.answer(await exchange.send(bodyOf(request), { carrier: request })),
        request,
        unread,
      )
    } catch (error) {
      return answer(exchange.problem(error))
    }
  }
}

function incomingOf(request: Request, address: string | undefined): Incoming {
  const [, scheme = '', authority = '', rest = ''] = URL_PARTS.exec(request.url) ?? []
  // Of the URL: there may be no field, and where there is one, the server made the URL of it.
  const rawHeaders = ['host', authority]
  for (const [name, value] of request.headers) if (name !== 'host') rawHeaders.push(name, value)
  return {
    method: request.method,
    target: rest.startsWith('/') ? rest : `/${rest}`,
    version: '1.1',
    rawHeaders,
    address,
    isEncrypted: scheme.toLowerCase() === 'https',
  }
}

/** What is left unread is the server's: only it knows whether the connection can live on. */
function bodyOf({ body }: Request): AsyncIterable<Uint8Array> | null {
  return body?.values({ preventCancel: true }) ?? null
}

function passedOn({ status, headers, body, close }: Answered, { method }: Request, unread: Unread): Response {
  const isBare = NO_BODY.has(status) || method === 'HEAD'
  if (isBare) body.discard()
  const stream = isBare ? null : bodyStream(body, unread)
  try {
    return new Response(stream, { status, headers: headersOf(headers, close) })
  } catch (cause) {
    void stream?.cancel(cause)
    throw new BalancerError('PROTOCOL', 'the answer is none that a Response can be', { cause })
  }
}

function responseOf({ status, headers, body, close }: Reply, { method }: Request): Response {
  return new Response(method === 'HEAD' || body === '' ? null : body, { status, headers: headersOf(headers, close) })
}

/** Servers of HTTP/1.1 take `Connection` for a word to them; others have no use for it. */
function headersOf(raw: readonly string[], close: boolean): Headers {
  const headers = new Headers(close ? { connection: 'close' } : {})
  for (let i = 0; i < raw.length; i += 2) headers.append(raw[i]!, raw[i + 1]!)
  return headers
}
