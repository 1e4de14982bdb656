/**
 * node --expose-gc test/support/reload-child.ts <revisions> <updates>…
 * Prints the heap after so many updates in all, KiB, as a JSON list: configurations of files, with a pool that is another one each time.
 */
import { parseConfig } from '../../src/config/index.ts'
import { createBalancer } from '../../src/create-balancer.ts'
import type { BalancerOptions } from '../../src/index.ts'

const [revisions = '10', ...stops] = process.argv.slice(2)

function backendsOf(pool: string, weight: number): string {
  const one = (n: number): string => `[[pools.${pool}.backends]]\nurl = "http://10.0.0.${n}"\nweight = ${weight + n}\n`
  return [1, 2, 3, 4].map(one).join('')
}

async function optionsOf(n: number): Promise<BalancerOptions> {
  const { options } = await parseConfig(`settings.revisions = ${revisions}
${backendsOf('main', n % 5)}
[pools.pool${n}]
strategy = "p2c"
breaker = {}
undici.connections = ${1 + (n % 200)}
limits.queue = {}
limits.adaptive = {}
health.active.interval = "60s"
${backendsOf(`pool${n}`, 1)}`)
  return options
}

async function heapKib(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    globalThis.gc?.()
    await new Promise(setImmediate)
  }
  return Math.round(process.memoryUsage().heapUsed / 1_024)
}

const balancer = createBalancer(await optionsOf(0))
const heap: number[] = []
for (let n = 1; n <= Number(stops.at(-1)); n++) {
  await balancer.update(await optionsOf(n))
  if (stops.includes(String(n))) heap.push(await heapKib())
}
await balancer.close()
console.log(JSON.stringify(heap))
