/**
 * node test/support/canary-child.ts <file>
 * A careless program: it prints all it has and all it hears, and catches nothing. Secrets come by the file and the environment.
 */
import { loadConfig } from '../../src/config/index.ts'
import { type BalancerEvents, createBalancer } from '../../src/index.ts'

const [file = ''] = process.argv.slice(2)
const config = await loadConfig(file)
const balancer = createBalancer({ ...config.options, logger: console, log: { requests: true } })
const names: readonly (keyof BalancerEvents)[] = ['attempt', 'retry', 'exhausted', 'blocked', 'warning']
for (const name of names) balancer.on(name, (...details: unknown[]) => console.log('%s %o %s', name, details, details))
const authorization = `Bearer ${process.env.CALLER}`
const init = { headers: { authorization, cookie: `sid=${process.env.CALLER}` }, balancer: { pool: 'm' } }
console.dir(config, { depth: null, showHidden: true })
console.dir(balancer, { depth: null, showHidden: true })
console.error(config.users, config.users.map(String), JSON.stringify(config))
for (const path of ['/garbage', '/reset', '/401']) {
  const answer = await balancer.fetch(path, init).catch((error: unknown) => error)
  console.error(answer instanceof Error ? answer : 'an answer', balancer.explain(answer))
  if (answer instanceof Error) process.emitWarning(answer)
}
balancer.acquire({ timeoutMs: 1 })
const alive = setInterval(() => {}, 1_000) // what nobody ends keeps no process alive
await new Promise((resolve) => balancer.once('warning', resolve))
clearInterval(alive)
console.table(balancer.stats().pools)
void balancer.fetch('/closed', init) // nobody catches it
