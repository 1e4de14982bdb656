import type { IncomingMessage } from 'node:http'
import type { CallOptions } from '../core/call.ts'
import type { Secret } from '../core/secret.ts'
import type { AffinityOptions } from './affinity.ts'
import type { ProxyLimits } from './guard.ts'
import type { HeaderChanges, HeaderList } from './header-list.ts'
import type { CookieOptions, PathOptions } from './rewrite.ts'

/** A request about to be sent. */
export interface ProxyRequest {
  readonly method: string
  /** Path and query, behind the path of the backend's URL; may be replaced. */
  path: string
  /** Without those of the client's connection; what the proxy writes itself comes afterwards. */
  readonly headers: HeaderList
}

/** The head of an answer about to be passed on. */
export interface ProxyAnswer {
  readonly status: number
  readonly headers: HeaderList
  /** Id of the backend that gave it. */
  readonly backend: string | undefined
}

export interface BodyInterception<Request> {
  /** Which answers; default: all. */
  readonly when?: (answer: ProxyAnswer, request: Request) => boolean
  /** Longest body that is taken in, bytes: above it 502; default 1 048 576. */
  readonly limitBytes?: number
  /** Makes the body that is sent instead; the answer's headers may be changed as well. */
  readonly change: (
    body: Uint8Array,
    answer: ProxyAnswer,
    request: Request,
  ) => string | Uint8Array | Promise<string | Uint8Array>
}

/** `Request` is what the server hands over: an `IncomingMessage`, or a `Request`. */
export interface ProxyOptions<Request = IncomingMessage> {
  /** Name in `Via`; never a host name by default; default 'evenkeel'. Requests that came by four times already get 508. */
  readonly via?: string
  /** Most of a request body kept for a repeat, bytes; default 65 536. */
  readonly bufferBytes?: number
  /** What the balancer should know about a request; default: nothing. */
  readonly call?: (request: Request) => CallOptions
  /** Keeps each client on one backend by a cookie, whatever the strategy; default: not. */
  readonly affinity?: AffinityOptions
  /** What is too long. */
  readonly limits?: ProxyLimits
  /** The only methods that are forwarded, as in ['GET', 'HEAD']: others get 405; default: all but CONNECT and TRACE. */
  readonly methods?: readonly string[]
  /**
   * Bodies of GET, HEAD, DELETE, OPTIONS and TRACE, which have no meaning (RFC 9110 9.3): 'forward' on a connection to the backend
   * that is not used again, or 'reject' with 400; default 'forward'.
   */
  readonly strayBodies?: 'forward' | 'reject'
  /** Longest silence of a client in the middle of its request's body, ms: then 408; 0 = no limit; default 60 000. */
  readonly clientIdleMs?: number
  /**
   * Proxies in front of this one, as addresses and networks ('10.0.0.0/8', '::1'): what they say in X-Forwarded-For, -Host, -Proto
   * and -Port is believed and added to. From others it is replaced. The client's address, which 'ip' strategies hash, is the first
   * one from the right that is none of them. Default: nobody.
   */
  readonly trustedProxies?: readonly string[]
  /**
   * true: `Forwarded` (RFC 7239) is sent as well; 'trusted': and it is what trusted proxies are believed in, instead of X-Forwarded-*
   * (they must write it, or drop what clients write there). Default false.
   */
  readonly forwarded?: boolean | 'trusted'
  /**
   * Whose `X-Request-Id` is kept, if it is one word of at most 128 letters, digits and ._-: everybody's ('keep'), that of trusted proxies
   * ('trusted'), or nobody's ('new'); who has none gets a new one, which is unique but no secret, and the answer carries it too. With false
   * none is made, and what either side says in it is passed on as it is. Default 'trusted' with `trustedProxies`, else 'keep'.
   */
  readonly requestId?: 'keep' | 'trusted' | 'new' | false
  /**
   * How paths differ on the backend. A request without the prefix `strip` is not for this proxy: it goes on to the next handler, or gets
   * 404 where there is none. Default: paths stay as they are.
   */
  readonly path?: PathOptions
  /** The `Host` that backends see: their own ('target'), the client's ('preserve'), or this one; default 'target'. */
  readonly host?: 'target' | 'preserve' | (string & {})
  /** Changes of what backends get, before `onRequest`. Values become secrets. */
  readonly requestHeaders?: HeaderChanges<string | Secret>
  /** Changes of what clients get, before `onResponse`. */
  readonly responseHeaders?: HeaderChanges
  /**
   * Called before a request is sent; a promise is waited for. What it throws is a 500. Connection headers of the client are gone by then,
   * and what the proxy itself says (X-Forwarded-*, Via, ...) comes afterwards.
   */
  readonly onRequest?: (sent: ProxyRequest, request: Request) => void | Promise<void>
  /** Called before an answer is passed on, with its status and headers; a promise is waited for. What it throws is a 500. */
  readonly onResponse?: (answer: ProxyAnswer, request: Request) => void | Promise<void>
  /**
   * Whether `Location`, `Content-Location` and `Refresh` that name the backend they come from are turned into paths of this proxy;
   * other hosts are left alone. Default false.
   */
  readonly locations?: boolean
  /** Changes of backends' Set-Cookie lines. */
  readonly cookies?: CookieOptions
  /**
   * Takes the whole body of an answer in and sends another one. Backends are asked for one that is not compressed; who compresses all the
   * same gets a 502. `Content-Length`, digests and trailers go, `ETag` becomes weak.
   */
  readonly interceptBody?: BodyInterception<Request>
  /** Protocols that requests may change to, in lower case; [] = none; default ['websocket']. */
  readonly upgrades?: readonly string[]
  /** Longest silence of a tunnel, both ways, ms; 0 = no limit; default 3 600 000. */
  readonly tunnelIdleMs?: number
  /** How long a tunnel may go on once its backend is drained or the balancer closed, ms; default 5 000. */
  readonly tunnelGraceMs?: number
  /** Whether problem bodies tell the error's text and the backend's id, without secrets; for development. Default false. */
  readonly exposeErrors?: boolean
}
