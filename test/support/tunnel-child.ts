// node --expose-gc --import ./scripts/from-source.mjs test/support/tunnel-child.ts ours|pipe <port of the backend>
// A proxy in a process of its own, so that its memory is that of nobody else. It is asked for it by any message.
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { createBalancer } from 'evenkeel'
import { createProxy } from 'evenkeel/node'

/** What a proxy says of itself. */
export interface Footprint {
  /** After collections, bytes: the heap, and what is outside it. */
  readonly heap: number
  readonly rss: number
  /** Connections, to both sides. */
  readonly sockets: number
  /** Attempts not ended. */
  readonly inflight: number
}

const [kind, port] = process.argv.slice(2)
const balancer = createBalancer({ backends: [`http://127.0.0.1:${port}`] })

function ours(): net.Server {
  const proxy = createProxy(balancer)
  const server = http.createServer(proxy)
  proxy.attach(server)
  return server
}

/** The least that can be between two sockets. */
function pipe(): net.Server {
  return net.createServer((client) => {
    const backend = net.connect(Number(port), '127.0.0.1')
    client.pipe(backend).pipe(client)
    client.on('error', () => backend.destroy()).on('close', () => backend.destroy())
    backend.on('error', () => client.destroy()).on('close', () => client.destroy())
  })
}

async function footprint(): Promise<Footprint> {
  for (let i = 0; i < 5; i++) {
    globalThis.gc!()
    await turn()
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  const sockets = process.getActiveResourcesInfo().filter((name) => /^(TCP|TCPSocketWrap)$/.test(name)).length
  return { heap: heapUsed + external, rss, sockets, inflight: balancer.stats().pools.default!.inflight }
}

const server = kind === 'ours' ? ours() : pipe()
server.listen(0, '127.0.0.1', () => process.send!((server.address() as AddressInfo).port))
process.on('message', async () => process.send!(await footprint()))
