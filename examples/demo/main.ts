// npm start: the proxy on 127.0.0.1:8080 over four backends in this process, traffic through it, one backend killed and
// brought back. npm start -- --help says what else it can do.
import { createServer } from 'node:http'
import { createBalancer } from 'evenkeel'
import { createProxy } from 'evenkeel/node'
import { type DemoOptions, HELP, parseOptions } from './options.ts'
import { planOutage } from './outage.ts'
import { startReport, summary } from './report.ts'
import { startTraffic } from './traffic.ts'
import { listen, startUpstream } from './upstreams.ts'

const FOREVER = { killMs: 5_000, backMs: 9_000, everyMs: 20_000 }
const ONCE = { killMs: 4_000, backMs: 8_000, everyMs: 0 }
const ONCE_ENDS_MS = 15_000

async function demo({ port: wantedPort, once }: DemoOptions): Promise<number> {
  const upstreams = await Promise.all([
    startUpstream({ id: 'fast', delayMs: 2 }),
    startUpstream({ id: 'steady', delayMs: 5 }),
    startUpstream({ id: 'slow', delayMs: 20 }),
    startUpstream({ id: 'flaky', delayMs: 10, failShare: 0.02 }),
  ])
  const balancer = createBalancer({
    backends: upstreams.map(({ id, url }) => ({ id, url })),
    // Hardly anything is sent to a backend that refuses, so it takes checks to say soon that it is out, and that it is back.
    health: { active: { type: 'tcp', intervalMs: 500, fastIntervalMs: 250 } },
  })
  const server = createServer(createProxy(balancer))
  const closeAll = async (): Promise<void> => {
    server.close() // nobody new; who is being answered has a second to get the rest
    await balancer.close({ drainMs: 1_000 })
    server.closeAllConnections()
    await Promise.all(upstreams.map((upstream) => upstream.kill()))
  }

  let port: number
  try {
    port = await listen(server, wantedPort)
  } catch (error) {
    await closeAll()
    return complain(cannotListen(wantedPort, error))
  }
  console.log('evenkeel demo: one balancer, four backends in this process, about 500 requests a second of its own')
  console.log(`the proxy listens on http://127.0.0.1:${port}  Try: curl -i http://127.0.0.1:${port}/hello`)
  console.log(once ? 'it ends by itself after 15 s' : 'Ctrl-C ends it')

  const traffic = startTraffic(port)
  const report = startReport(balancer, traffic)
  const outage = planOutage(upstreams[0]!, balancer, report, once ? ONCE : FOREVER)
  const finished = await end(once ? ONCE_ENDS_MS : undefined)

  outage.stop()
  report.stop()
  await traffic.stop()
  console.log(`\n${summary(balancer, traffic)}\noutage    ${outage.describe()}`)
  await closeAll()
  return finished && (traffic.failed > 0 || !outage.recovered) ? 1 : 0
}

/** Resolves with true after `ms`, if that is given, and with false when a signal or a reader that left ends it before. */
function end(ms: number | undefined): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = ms === undefined ? undefined : setTimeout(resolve, ms, true)
    const stop = (): void => {
      clearTimeout(timer)
      resolve(false)
    }
    // Not `once`: under npm a Ctrl-C may arrive twice, from the terminal and from npm.
    process.on('SIGINT', stop)
    process.on('SIGTERM', stop)
    process.stdout.on('error', stop)
  })
}

function cannotListen(port: number, error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  if (code !== 'EADDRINUSE') return `cannot listen on 127.0.0.1:${port}: ${message}`
  return `port ${port} on 127.0.0.1 is taken; stop what uses it, or choose another: npm start -- --port ${port === 65_535 ? 8080 : port + 1}`
}

function complain(message: string): number {
  console.error(`evenkeel demo: ${message}`)
  return 1
}

async function main(): Promise<number> {
  let options: DemoOptions
  try {
    options = parseOptions(process.argv.slice(2))
  } catch (error) {
    return complain(`${(error as Error).message.split('. ')[0]}; npm start -- --help lists the options`)
  }
  if (!options.help) return demo(options)
  console.log(HELP)
  return 0
}

process.exitCode = await main()
