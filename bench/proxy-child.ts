/** bench/proxy-child.ts evenkeel|thinnest <origin>...: one proxy in a process of its own; started by bench/subjects.ts. */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy } from '../src/adapters/node.ts'
import { createBalancer } from '../src/create-balancer.ts'
import { cpuUs, serveParent } from './children.ts'
import { Meter, type Used } from './meter.ts'
import { createThinnest } from './thinnest.ts'

export type ProxyKind = 'evenkeel' | 'thinnest'
/** CPU time so far; start metering allocations; what was metered. */
export type ProxyQuestion = 'cpu' | 'meter' | 'used'

const [kind, ...origins] = process.argv.slice(2)

/** evenkeel as it comes (ejection, retry and stats are on by default), with probes. */
async function evenkeel(): Promise<RequestListener> {
  const active = { type: 'http', path: '/', intervalMs: 1_000 } as const
  const balancer = createBalancer({ backends: origins, health: { active } })
  await balancer.ready()
  return createProxy(balancer)
}

let meter: Meter | undefined

function answer(question: ProxyQuestion): number | Used | '' {
  if (question === 'cpu') return cpuUs()
  if (question === 'used') return meter!.stop()
  meter = new Meter()
  return ''
}

const server = createServer(kind === 'thinnest' ? createThinnest(origins) : await evenkeel())
server.keepAliveTimeout = 120_000 // the load's connections outlast the other proxy's rounds
server.listen(0, '127.0.0.1', () =>
  serveParent((server.address() as AddressInfo).port, (question) => answer(question as ProxyQuestion)),
)
