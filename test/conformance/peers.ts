/** Other people's proxies, each with its defaults, as its README mounts it, in front of the first backend. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener, type Server, ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import fastifyHttpProxy from '@fastify/http-proxy'
import replyFrom from '@fastify/reply-from'
import express from 'express'
import fastProxy from 'fast-proxy'
import fastify, { type FastifyInstance } from 'fastify'
import httpProxy from 'http-proxy'
import { createProxyServer as createProxyServer3 } from 'http-proxy-3'
import { createProxyMiddleware } from 'http-proxy-middleware'
import { createProxyServer as createHttpxy } from 'httpxy'
import { onTestFinished } from 'vitest'
import type { Upstream } from '../support/upstreams.ts'
import type { Subject } from './row.ts'

export interface Peer extends Subject {
  readonly version: string
  /** Rows about what it does not set out to do. */
  readonly lacks: readonly number[]
}

/** A row that gives options of ours is none a peer can be asked. */
export class Unasked extends Error {}

type OnUpgrade = (request: IncomingMessage, socket: Socket, head: Buffer) => void
interface Mounted {
  readonly server: Server
  close?(): unknown
}

/** Rows about upgrades. */
const UPGRADES = [58, 59, 60, 61, 68] as const

export const PEERS: readonly Peer[] = [
  peer('http-proxy', (target) => {
    const proxy = httpProxy.createProxyServer({ target })
    proxy.on('error', (_error, _request, response) => sayWrong(response))
    return listening(
      (request, response) => proxy.web(request, response),
      (request, socket, head) => proxy.ws(request, socket, head),
    )
  }),
  peer('http-proxy-3', (target) => {
    const proxy = createProxyServer3({ target })
    proxy.on('error', (_error, _request, response) => sayWrong(response))
    return listening(
      (request, response) => proxy.web(request, response),
      (request, socket, head) => proxy.ws(request, socket, head),
    )
  }),
  peer('httpxy', (target) => {
    const proxy = createHttpxy({ target, ws: true })
    return listening(
      async (request, response) => {
        try {
          await proxy.web(request, response)
        } catch {
          sayWrong(response)
        }
      },
      (request, socket, head) => void proxy.ws(request, socket, { target }, head).catch(() => socket.destroy()),
    )
  }),
  peer('http-proxy-middleware', (target) => {
    const app = express()
    const proxy = createProxyMiddleware({ target })
    app.use(proxy)
    return listening(app, proxy.upgrade)
  }),
  peer(
    '@fastify/reply-from',
    (target) => {
      const { origin, pathname } = new URL(target)
      const base = pathname.replace(/\/$/, '')
      return plugged((app) => {
        // Bodies of every type, as they are: what @fastify/http-proxy does around it.
        app.removeAllContentTypeParsers()
        app.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
        app.register(replyFrom, { base: origin })
        app.all('/*', (request, reply) => reply.from(base + request.raw.url))
      })
    },
    UPGRADES,
  ),
  peer('@fastify/http-proxy', (target) => {
    const { origin, pathname } = new URL(target)
    // Paths of `upstream` are ignored, its README says: a prefix does their work.
    const rewritePrefix = pathname === '/' ? '' : pathname
    return plugged((app) => app.register(fastifyHttpProxy, { upstream: origin, rewritePrefix, websocket: true }))
  }),
  peer(
    'fast-proxy',
    (target) => {
      const { origin, pathname } = new URL(target)
      const base = pathname.replace(/\/$/, '')
      const { proxy, close } = fastProxy({ base: origin })
      const mounted = listening((request, response) => proxy(request, response, base + request.url, {}))
      return { ...mounted, close }
    },
    UPGRADES,
  ),
]

function peer(
  name: string,
  mount: (target: string) => Mounted | Promise<Mounted>,
  lacks: readonly number[] = [],
): Peer {
  const path = new URL(`../../node_modules/${name}/package.json`, import.meta.url)
  const { version } = JSON.parse(readFileSync(path, 'utf8')) as { readonly version: string }
  return {
    name,
    version,
    isOurs: false,
    lacks,
    async front([backend], options = {}) {
      if (Object.values(options).some((option) => option !== undefined)) throw new Unasked('options are ours')
      const made = await served(await mount(typeof backend === 'string' ? backend : backend!.url))
      return {
        ...made,
        get balancer(): never {
          throw new Unasked('so is the balancer')
        },
      }
    },
  }
}

function listening(onRequest: RequestListener, onUpgrade?: OnUpgrade): Mounted {
  const server = createServer(onRequest)
  if (onUpgrade !== undefined) server.on('upgrade', onUpgrade)
  return { server }
}

async function plugged(register: (app: FastifyInstance) => unknown): Promise<Mounted> {
  const app = fastify({ forceCloseConnections: true })
  register(app)
  await app.ready()
  return { server: app.server, close: () => app.close() }
}

/** Listens until its test ends; then every connection is cut, whatever became of it. */
async function served({ server, close }: Mounted): Promise<Upstream> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await close?.()
  })
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, port }
}

/** What README files of this family show for errors. Of upgrades and of answers that have begun they say nothing: those are cut. */
function sayWrong(response: ServerResponse | Duplex): void {
  if (!(response instanceof ServerResponse) || response.headersSent) return void response.destroy()
  response.writeHead(500, { 'Content-Type': 'text/plain' }).end('Something went wrong.')
}
