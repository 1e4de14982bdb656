// A proxy that runs by a TOML file: it follows the file, has its metrics on a port of their own, logs lines of JSON, goes back to
// the configuration before on SIGUSR2, and ends in order on SIGTERM and Ctrl-C. From a checkout, in two terminals:
//
//   node --import ./scripts/from-source.mjs examples/service/upstreams.ts 3001 3002 3003   # something to balance
//   node --import ./scripts/from-source.mjs examples/service/service.ts
//
//   curl http://127.0.0.1:8080/hello       # the proxy; PORT=… moves it
//   curl http://127.0.0.1:9464/metrics     # for Prometheus; ADMIN_PORT=… moves it
//   curl http://127.0.0.1:9464/revisions   # each configuration that was in force, and what it has changed
//   kill -USR2 …                           # back to the one before; the number is the `pid` in the log
//
// Then change service.toml and look at the log. A file of your own: its path goes behind service.ts.
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { createBalancer } from 'evenkeel'
import { type Config, issueText, loadConfig, watchConfig } from 'evenkeel/config'
import { createProxy } from 'evenkeel/node'
import { collect, metricsHandler } from 'evenkeel/prometheus'
import { pino } from 'pino'
import { register } from 'prom-client'

/** For those who are still being answered when the service is told to end. */
const DRAIN_MS = 10_000

const { PORT = '8080', ADMIN_PORT = '9464' } = process.env
const file = process.argv[2] ?? fileURLToPath(new URL('service.toml', import.meta.url))
const logger = pino()

const { options } = await loadConfig(file).catch(refuse)
const balancer = createBalancer({ ...options, logger })
balancer.follow(watchConfig(file, { load })) // each reload is a line of the log, and so is each that failed

collect(balancer, { registry: register })
const metrics = metricsHandler(register, { onError: (error) => logger.error(error, 'metrics cannot be read') })

const passOn = createProxy(balancer)
const proxy = createServer((request, response) => {
  if (!proxy.listening) response.setHeader('connection', 'close') // it is ending: the next one goes elsewhere
  passOn(request, response)
})
const admin = createServer((request, response) => {
  if (request.url === '/metrics') return void metrics(request, response)
  if (request.url !== '/revisions') return void response.writeHead(404).end()
  response.setHeader('content-type', 'application/json')
  response.end(`${JSON.stringify(balancer.revisions(), undefined, 2)}\n`)
})
const [proxyUrl, adminUrl] = await Promise.all([listen(proxy, PORT), listen(admin, ADMIN_PORT)]).catch(refuse)

process.on('SIGUSR2', () => void rollBack().catch((error) => logger.error(error, 'cannot go back')))
const ENDINGS = ['SIGTERM', 'SIGINT'] as const
for (const signal of ENDINGS) process.on(signal, end)
logger.info({ proxy: proxyUrl, admin: adminUrl, file }, 'service is up')

/** Of every configuration that comes, the one it starts with included. */
async function load(path: string): Promise<Config> {
  const config = await loadConfig(path)
  for (const warning of config.warnings) logger.warn(issueText(warning, path))
  return config
}

/** One step further back each time. The file stays followed: its next change replaces what was brought back. */
async function rollBack(): Promise<void> {
  const revisions = balancer.revisions()
  const { number, restores = number } = revisions.at(-1)!
  const before = revisions.findLast((revision) => revision.number < restores)
  if (before === undefined) logger.warn('there is no configuration to go back to')
  else await balancer.rollback(before.restores ?? before.number)
}

/** The order that cuts nobody off: take no more connections, let those that are there finish, then the balancer. */
async function end(): Promise<void> {
  for (const signal of ENDINGS) process.off(signal, end) // the next one, of either, ends it at once
  proxy.close()
  proxy.keepAliveTimeout = 1 // ms: a client that has its answer is not waited for
  setTimeout(() => proxy.closeAllConnections(), DRAIN_MS).unref()
  await once(proxy, 'close')
  await balancer.close()
  admin.close()
  admin.closeAllConnections()
}

/** On this machine only; a real service may want its proxy elsewhere, but not its metrics. */
async function listen(server: Server, port: string): Promise<string> {
  await once(server.listen(Number(port), '127.0.0.1'), 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function refuse(error: Error): never {
  logger.fatal(error.message)
  process.exit(1)
}
