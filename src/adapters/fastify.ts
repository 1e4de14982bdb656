import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { appError } from './app-error.ts'
import { Gateway, type ProxyHost } from './gateway.ts'
import { type Incoming, inOriginForm } from './incoming.ts'
import { incomingOf } from './node-wire.ts'
import { bodyLeft } from './parsed-body.ts'
import type { ProxyOptions } from './proxy-options.ts'
import { serve } from './serve.ts'
import { attachUpgrades } from './upgrade.ts'

export type { AffinityOptions } from './affinity.ts'
export type { AppError } from './app-error.ts'
export type { ProxyHost } from './gateway.ts'
export type { ProxyLimits } from './guard.ts'
export type { HeaderChanges, HeaderList } from './header-list.ts'
export type { BodyInterception, ProxyAnswer, ProxyOptions, ProxyRequest } from './proxy-options.ts'
export type { CookieOptions, PathOptions } from './rewrite.ts'

/** What is used of Fastify's request. */
export interface FastifyRequestLike {
  readonly raw: IncomingMessage
  readonly body: unknown
}

/** What is used of Fastify's reply. */
export interface FastifyReplyLike {
  readonly raw: ServerResponse
  readonly sent: boolean
  getHeaders(): Readonly<Record<string, number | string | string[] | undefined>>
  hijack(): unknown
  send(payload: unknown): unknown
}

/** A handler for a route of Fastify. */
export type FastifyHandler<Request extends FastifyRequestLike = FastifyRequestLike> = (
  request: Request,
  reply: FastifyReplyLike,
) => void

/** What is used of a Fastify app, or of a scope of it. */
export interface FastifyLike {
  /** Of the scope, those around it included. */
  readonly prefix: string
  readonly server: Server
  readonly supportedMethods: readonly string[]
  addContentTypeParser(
    type: '*',
    parser: (request: unknown, payload: IncomingMessage, done: (error: Error | null, body?: unknown) => void) => void,
  ): unknown
  addHook(name: 'onClose' | 'preClose', hook: () => Promise<void>): unknown
  removeAllContentTypeParsers(): unknown
  route(options: {
    readonly method: string[]
    readonly url: string
    readonly exposeHeadRoute: boolean
    readonly handler: FastifyHandler
  }): unknown
}

/** A balancer that ends with the app it serves. */
export interface FastifyProxyHost extends ProxyHost {
  close?(): Promise<void>
}

export interface ForwardOptions<Request extends FastifyRequestLike = FastifyRequestLike> extends ProxyOptions<Request> {
  /**
   * Who tells the client when a call has failed: 'app' = the app's error handler, which gets an `AppError`; 'proxy' = the proxy, by a
   * problem body, as it always does when the request itself is wrong. Default 'app'.
   */
  readonly errors?: 'app' | 'proxy'
}

export interface FastifyProxyOptions<Request extends FastifyRequestLike = FastifyRequestLike>
  extends ForwardOptions<Request> {
  readonly balancer: FastifyProxyHost
  /** Where it is mounted, as in '/api' or '/:tenant/api': backends see paths without it. Fastify's own. */
  readonly prefix?: string
  /** Whether the balancer is closed with the app, after the last request; default true. false: for one that serves others too. */
  readonly close?: boolean
  /**
   * Whether WebSockets, and what else `upgrades` names, become tunnels, by the same hooks as other requests; they are asked to end when the
   * app closes. Default false.
   */
  readonly websocket?: boolean
}

/**
 * A plugin: everything under its prefix goes to the backends. It is encapsulated: its scope takes bodies unread, the app around keeps its
 * parsers. Hooks of the app run before it, up to `preHandler` and `onResponse`, but not `onSend`: answers are not Fastify's.
 *
 * @example
 * app.register(fastifyProxy, { prefix: '/api', balancer })
 */
export function fastifyProxy<Request extends FastifyRequestLike>(
  app: FastifyLike,
  {
    balancer,
    prefix: _prefix,
    close = true,
    errors = 'app',
    websocket = false,
    ...options
  }: FastifyProxyOptions<Request>,
  done: (error?: Error) => void,
): void {
  const prefix = app.prefix.replace(/\/$/, '')
  const hasParameters = /[:*]/.test(prefix)
  const strip = hasParameters ? options.path?.strip : prefix + (options.path?.strip ?? '')
  // A prefix that is always the same is known to what turns paths of answers back.
  const path = { ...options.path, ...(strip && { strip }) }
  const gateway = new Gateway<Request>(balancer, { ...options, path })
  const mounted = hasParameters ? prefix.split('/').length - 1 : 0
  const handler = handlerOf(gateway, errors, mounted) as FastifyHandler
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, payload, taken) => taken(null, payload))
  for (const url of ['/', '/*']) app.route({ method: [...app.supportedMethods], url, exposeHeadRoute: false, handler })
  if (websocket) {
    // For where others listen, too: what stands before the first parameter.
    const detach = attachUpgrades(app.server, gateway, prefix.replace(/\/?[:*].*$/, ''))
    app.addHook('preClose', async () => {
      detach()
      gateway.tunnels.drain()
    })
  }
  if (close) app.addHook('onClose', async () => balancer.close?.())
  done()
}

/**
 * A handler for single routes: `app.get('/users/:id', forward(balancer))`. Backends see the whole path. A body that the app's JSON or
 * text parser has read is written again.
 */
export function forward<Request extends FastifyRequestLike>(
  balancer: ProxyHost,
  { errors = 'app', ...options }: ForwardOptions<Request> = {},
): FastifyHandler<Request> {
  return handlerOf(new Gateway<Request>(balancer, options), errors, 0)
}

/** `mounted` = how many segments backends do not see. */
function handlerOf<Request extends FastifyRequestLike>(
  gateway: Gateway<Request>,
  errors: 'app' | 'proxy',
  mounted: number,
): FastifyHandler<Request> {
  return (request, reply) => {
    const { raw, body } = request
    serve(gateway, raw, reply.raw, request, {
      incoming: within(incomingOf(raw), mounted),
      body: body instanceof Readable && body !== raw ? null : bodyLeft(raw, body),
      head() {
        if (reply.sent) return
        // Only now it is certain that no error is left for the app to answer.
        reply.hijack()
        // Of hooks, as of CORS.
        for (const [name, value] of Object.entries(reply.getHeaders())) {
          if (value !== undefined) reply.raw.setHeader(name, value)
        }
      },
      fail(error, problem) {
        if (reply.sent || errors === 'proxy') return false
        reply.send(appError(error, problem))
        return true
      },
    })
  }
}

/** A request without the first segments of its path, whatever stands in them. */
function within(incoming: Incoming, segments: number): Incoming {
  const whole = inOriginForm(incoming)
  if (segments === 0) return incoming
  const rest = whole.target.replace(new RegExp(`^(?:/+[^/?]*){${segments}}`), '')
  return { ...whole, target: rest.startsWith('/') ? rest : `/${rest}` }
}
