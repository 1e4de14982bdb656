/** bench/proxy-child.ts <kind> <origin>...: one proxy in a process of its own; started by bench/subjects.ts and bench/metrics.ts. */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Registry } from 'prom-client'
import { createProxy } from '../src/adapters/node.ts'
import { createBalancer, type EvenkeelBalancer } from '../src/create-balancer.ts'
import { collect, metricsHandler } from '../src/telemetry/prometheus.ts'
import { cpuUs, serveParent } from './children.ts'
import { Meter, type Used } from './meter.ts'
import { createThinnest } from './thinnest.ts'

export type ProxyKind = 'evenkeel' | 'thinnest' | 'by turns' | 'of 200'
/** CPU time so far; start metering allocations; what was metered; for 'by turns' whether requests get ids from now on. */
export type ProxyQuestion = 'cpu' | 'meter' | 'used' | 'with ids' | 'without ids'

const [kind, ...origins] = process.argv.slice(2)

const LISTENERS: Readonly<Record<ProxyKind, () => RequestListener | Promise<RequestListener>>> = {
  thinnest: () => createThinnest(origins),
  evenkeel: async () => createProxy(await evenkeel()),
  async 'by turns'() {
    const balancer = await evenkeel()
    const withIds = createProxy(balancer)
    const withoutIds = createProxy(balancer, { requestId: false })
    return withMetrics(balancer, (request, response) => (hasIds ? withIds : withoutIds)(request, response))
  },
  /** As many backends, although few processes stand behind them. Round robin, so that all of them have something to tell. */
  'of 200'() {
    const backends = Array.from({ length: 200 }, (_, i) => ({ id: `b${i}`, url: origins[i % origins.length]! }))
    const balancer = createBalancer({ backends, strategy: 'round-robin' })
    return withMetrics(balancer, createProxy(balancer))
  },
}

/** evenkeel as it comes (ejection, retry and stats are on by default), with probes. */
async function evenkeel(): Promise<EvenkeelBalancer> {
  const active = { type: 'http', path: '/', intervalMs: 1_000 } as const
  const balancer = createBalancer({ backends: origins, health: { active } })
  await balancer.ready()
  return balancer
}

/** They cost what their scrapes do: who sends none has a proxy without metrics. */
function withMetrics(balancer: EvenkeelBalancer, proxy: RequestListener): RequestListener {
  const registry = new Registry()
  collect(balancer, { registry })
  const metrics = metricsHandler(registry)
  return (request, response) => (request.url === '/metrics' ? metrics : proxy)(request, response)
}

let hasIds = true
let meter: Meter | undefined

function answer(question: ProxyQuestion): number | Used | '' {
  if (question === 'cpu') return cpuUs()
  if (question === 'used') return meter!.stop()
  if (question === 'meter') meter = new Meter()
  else hasIds = question === 'with ids'
  return ''
}

const server = createServer(await LISTENERS[kind as ProxyKind]())
server.keepAliveTimeout = 120_000 // the load's connections outlast the other proxy's rounds
server.listen(0, '127.0.0.1', () =>
  serveParent((server.address() as AddressInfo).port, (question) => answer(question as ProxyQuestion)),
)
