import type { IncomingMessage, ServerResponse } from 'node:http'
import { appError } from './app-error.ts'
import { Gateway, type ProxyHost } from './gateway.ts'
import { createProxy, type NodeProxy } from './node.ts'
import { incomingOf } from './node-wire.ts'
import { bodyLeft } from './parsed-body.ts'
import type { ProxyOptions } from './proxy-options.ts'
import { serve } from './serve.ts'

export type { AffinityOptions } from './affinity.ts'
export type { AppError } from './app-error.ts'
export type { ProxyHost } from './gateway.ts'
export type { ProxyLimits } from './guard.ts'
export type { HeaderChanges, HeaderList } from './header-list.ts'
export type { BodyInterception, ProxyAnswer, ProxyOptions, ProxyRequest } from './proxy-options.ts'
export type { CookieOptions, PathOptions } from './rewrite.ts'

/** What is used of Express's request. */
export interface ExpressRequest extends IncomingMessage {
  readonly originalUrl?: string
  /** What a body parser made of the body. */
  readonly body?: unknown
}

export interface ExpressProxyOptions<Request extends ExpressRequest = ExpressRequest> extends ProxyOptions<Request> {
  /** Whether backends see the path with the one that the proxy is mounted at; default false: without, as `request.url` is. */
  readonly originalUrl?: boolean
  /**
   * Who tells the client when a call has failed: 'app' = the app's error handler, which gets an `AppError`; 'proxy' = the proxy, by a
   * problem body, as it always does when the request itself is wrong. Default 'app'.
   */
  readonly errors?: 'app' | 'proxy'
}

/** A middleware of Express 4 and 5, and of what is like them. */
export interface ExpressProxy<Request extends ExpressRequest = ExpressRequest>
  extends Pick<NodeProxy, 'attach' | 'clientError' | 'connect' | 'upgrade'> {
  (request: Request, response: ServerResponse, next: (error?: unknown) => void): void
}

/**
 * A streaming reverse proxy at a path of an Express app: `app.use('/api', expressProxy(balancer))`. A body that a parser before it has
 * read is written again from `request.body`.
 */
export function expressProxy<Request extends ExpressRequest = ExpressRequest>(
  balancer: ProxyHost,
  { originalUrl = false, errors = 'app', ...options }: ExpressProxyOptions<Request> = {},
): ExpressProxy<Request> {
  const gateway = new Gateway<Request>(balancer, options)
  const proxy = (request: Request, response: ServerResponse, next: (error?: unknown) => void): void => {
    const incoming = incomingOf(request)
    const target = originalUrl ? (request.originalUrl ?? incoming.target) : incoming.target
    serve(gateway, request, response, request, {
      next,
      incoming: { ...incoming, target },
      body: bodyLeft(request, request.body),
      fail(error, reply) {
        if (errors === 'app') next(appError(error, reply))
        return errors === 'app'
      },
    })
  }
  // What a server tells past the app: to users' functions it is a request without what Express puts into it.
  const { attach, clientError, connect, upgrade } = createProxy(balancer, options as ProxyOptions)
  return Object.assign(proxy, { attach, clientError, connect, upgrade })
}
