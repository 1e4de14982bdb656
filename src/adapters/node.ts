import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Stop } from '../core/contracts.ts'
import { Gateway, type ProxyHost } from './gateway.ts'
import { endWith, incomingOf, isHttp2, lingers, whenWritten } from './node-wire.ts'
import { unreadReply } from './problem.ts'
import type { ProxyOptions } from './proxy-options.ts'
import { answerReply, serve } from './serve.ts'
import { attachUpgrades, upgradeListener } from './upgrade.ts'

export type { AffinityOptions } from './affinity.ts'
export type { ProxyHost } from './gateway.ts'
export type { ProxyLimits } from './guard.ts'
export type { HeaderChanges, HeaderList } from './header-list.ts'
export type { BodyInterception, ProxyAnswer, ProxyOptions, ProxyRequest } from './proxy-options.ts'
export type { CookieOptions, PathOptions } from './rewrite.ts'

export interface AttachOptions {
  /**
   * Where other listeners for 'upgrade' share the server: the path of what is not theirs, as in '/api'; default: what has the prefix
   * `path.strip`, which without one is everything.
   */
  readonly path?: string | undefined
}

/** A handler for `http.createServer` and for `app.use` in Express. */
export interface NodeProxy {
  (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void): void
  /**
   * A listener for 'connect': CONNECT is answered 405, where a server without one closes the connection without a word. A server of
   * node:http2 hands over a response in place of the socket.
   */
  connect(request: IncomingMessage, to: Duplex | ServerResponse): void
  /** A listener for 'clientError': what is no HTTP is answered with a problem body, then the connection ends. */
  clientError(error: Error, socket: Duplex): void
  /**
   * A listener for 'upgrade', past any app around: WebSockets, and what else `upgrades` names, become tunnels. What has not its prefix
   * (`path.strip`) is left to other listeners. Requests for other protocols are answered as plain ones, the last ones on their connections.
   */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
  /**
   * Takes care of all that a server does not tell a handler: CONNECT, what is no HTTP, and, if no other handler is there,
   * `Expect: 100-continue`, so that a refusal comes before the body is sent. Also of requests, if nobody listens to them yet. Requests
   * for another protocol go the way of all others, through the app around and its checks, to become tunnels here. Returns its undoing.
   *
   * @example
   * const proxy = createProxy(balancer)
   * const server = http.createServer(proxy)
   * proxy.attach(server)
   */
  attach(server: Server, options?: AttachOptions): Stop
}

/** A streaming reverse proxy in front of a balancer: `http.createServer(createProxy(balancer))`. */
export function createProxy(balancer: ProxyHost, options: ProxyOptions = {}): NodeProxy {
  const gateway = new Gateway(balancer, options)
  const proxy = (request: IncomingMessage, response: ServerResponse, next?: () => void): void =>
    serve(gateway, request, response, request, { next })
  const connect = (request: IncomingMessage, to: Duplex | ServerResponse): void => {
    const reply = gateway.open(incomingOf(request), request).reply!
    if (isHttp2(request)) answerReply(reply, request, to as ServerResponse)
    // Read on meanwhile: only so it is seen that the client goes.
    else whenWritten((to as Duplex).resume(), () => endWith(to as Duplex, reply))
  }
  const attach = (server: Server, { path }: AttachOptions = {}): Stop => {
    const handlers = server.listeners('request')
    const listeners: Record<string, (...args: never[]) => void> = { connect, clientError }
    if (handlers.length === 0) listeners.request = proxy
    if (handlers.every((handler) => handler === proxy)) {
      listeners.checkContinue = (request: IncomingMessage, response: ServerResponse) => {
        const { shouldKeepAlive } = response
        // Without a 100 nobody knows whether the body comes.
        response.shouldKeepAlive = false
        const begin = (): void => {
          response.shouldKeepAlive = shouldKeepAlive
          response.writeContinue()
        }
        serve(gateway, request, response, request, { begin })
      }
    }
    for (const [event, listener] of Object.entries(listeners)) server.on(event, listener as () => void)
    const detach = attachUpgrades(server, gateway, path)
    return () => {
      detach()
      for (const [event, listener] of Object.entries(listeners)) server.off(event, listener as () => void)
    }
  }
  return Object.assign(proxy, { connect, clientError, attach, upgrade: upgradeListener(gateway) })
}

/** What is no HTTP. A connection that has begun an answer cannot say more. */
function clientError(error: Error & { readonly code?: string }, socket: Duplex): void {
  if (lingers(socket)) return // by another proxy of its server, or before what came since
  const { _httpMessage: begun } = socket as { _httpMessage?: ServerResponse }
  if (!socket.writable || begun?.headersSent === true) return void socket.destroy()
  endWith(socket, unreadReply(error.code))
}
