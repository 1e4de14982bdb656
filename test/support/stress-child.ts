/** test/support/stress-child.ts <kind> <origin>...: one proxy in a process of its own that tells how it stands; see stress.ts. */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serveParent } from '../../bench/children.ts'
import { createThinnest } from '../../bench/thinnest.ts'
import { createProxy } from '../../src/adapters/node.ts'
import { createHandler } from '../../src/adapters/web.ts'
import { createBalancer } from '../../src/create-balancer.ts'
import { webListener } from './web-listener.ts'

export type StressKind = 'node' | 'express' | 'fastify' | 'web' | 'thinnest'
/** How it stands; begin to watch the memory; what it came to since; how it stands after a collection. */
export type StressQuestion = 'now' | 'watch' | 'watched' | 'collected'

export interface Standing {
  /** Attempts under way. */
  readonly inflight: number
  /** Open connections of clients. */
  readonly clients: number
  readonly rssBytes: number
  /** On the heap and outside of it, on V8's books. */
  readonly usedBytes: number
}

/** Most and least, bytes. */
export interface Watched {
  readonly fromBytes: number
  readonly mostBytes: number
}

const WATCH_MS = 25

const [kind, ...origins] = process.argv.slice(2)
// What a stream waits for may take its time, and a connection that nobody wants now is wanted later.
const balancer = createBalancer({
  backends: origins,
  strategy: 'round-robin',
  timeouts: { idleMs: 0 },
  undici: { keepAliveMs: 120_000 },
})

/** Each loads what it needs: the start of a process is most of a short test. */
const SERVERS: Readonly<Record<StressKind, () => RequestListener | Promise<RequestListener>>> = {
  node: () => createProxy(balancer),
  async express() {
    const { default: express } = await import('express')
    const { expressProxy } = await import('../../src/adapters/express.ts')
    return express().use(expressProxy(balancer)) as unknown as RequestListener
  },
  async fastify() {
    const { default: fastify } = await import('fastify')
    const { fastifyProxy } = await import('../../src/adapters/fastify.ts')
    let listener: RequestListener | undefined
    const app = fastify({
      serverFactory(handler) {
        listener = handler as RequestListener
        return createServer()
      },
    })
    app.register(fastifyProxy, { balancer })
    await app.ready()
    return listener!
  },
  web: () => webListener(createHandler(balancer)),
  thinnest: () => createThinnest(origins),
}

let watching: NodeJS.Timeout | undefined
let fromBytes = 0
let mostBytes = 0

/** What was let go of does not count: V8 collects buffers when there are 64 MiB of them. */
function look(): void {
  globalThis.gc!({ type: 'minor' })
  mostBytes = Math.max(mostBytes, process.memoryUsage.rss())
}

function standing(clients: number): Standing {
  const { rss, heapUsed, external } = process.memoryUsage()
  const inflight = Object.values(balancer.stats().pools).reduce((sum, pool) => sum + pool.inflight, 0)
  return { inflight, clients, rssBytes: rss, usedBytes: heapUsed + external }
}

function answer(question: StressQuestion): Promise<Standing> | Watched | '' {
  if (question === 'watch') {
    globalThis.gc!()
    fromBytes = process.memoryUsage.rss()
    mostBytes = fromBytes
    watching = setInterval(look, WATCH_MS)
    return ''
  }
  if (question === 'watched') {
    clearInterval(watching)
    look()
    return { fromBytes, mostBytes }
  }
  if (question === 'collected') for (let times = 0; times < 3; times++) globalThis.gc!()
  return new Promise((resolve) => server.getConnections((_, clients) => resolve(standing(clients))))
}

const server = createServer(await SERVERS[kind as StressKind]())
server.listen(0, '127.0.0.1', () =>
  serveParent((server.address() as AddressInfo).port, (question) => answer(question as StressQuestion)),
)
