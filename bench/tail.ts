/** One slow backend among quick ones, over real sockets: who keeps away from it. */
import type { StrategyWord } from '../src/core/strategy-options.ts'
import { createBalancer } from '../src/create-balancer.ts'
import { Children } from './children.ts'
import { integer, table } from './table.ts'

const STRATEGIES: readonly StrategyWord[] = ['round-robin', 'least', 'peak-ewma', 'auto']
/** When each backend answers, ms. */
const ANSWERS_MS = [5, 5, 5, 200]
const IN_FLIGHT = 64
/** Of each strategy, not counted. */
const WARM_UP_SECONDS = 2

export async function benchTail({
  seconds,
  rounds,
}: {
  readonly seconds: number
  readonly rounds: number
}): Promise<void> {
  const children = new Children()
  try {
    const { ready } = await children.start<string>('tail-child.ts', ANSWERS_MS.map(String))
    const counted = seconds * rounds
    console.log(
      `\ntail: ${IN_FLIGHT} in flight, backends that answer after ${ANSWERS_MS.join(', ')} ms; ${counted} s each, after ${WARM_UP_SECONDS} s`,
    )
    const rows: string[][] = []
    for (const strategy of STRATEGIES) rows.push(await tailOf(strategy, ready.split(' '), counted))
    table(['', 'p50 ms', 'p90 ms', 'p99 ms', 'req/s', 'to the slow one', 'failed'], rows)
  } finally {
    await children.stop()
  }
}

async function tailOf(strategy: StrategyWord, origins: readonly string[], seconds: number): Promise<string[]> {
  const balancer = createBalancer({ backends: origins, strategy })
  const slow = new URL(origins.at(-1)!).host
  const shares = (): readonly [slow: number, all: number] => {
    const { attempts, backends } = balancer.stats().pools.default!
    return [backends.find(({ id }) => id === slow)!.requests, attempts]
  }
  let failed = 0
  const load = async (forSeconds: number): Promise<readonly number[]> => {
    const times: number[] = []
    const untilMs = performance.now() + forSeconds * 1_000
    const lane = async (): Promise<void> => {
      while (performance.now() < untilMs) {
        const startMs = performance.now()
        try {
          const { statusCode, body } = await balancer.request('/')
          await body.dump()
          if (statusCode >= 500) failed++
          else times.push(performance.now() - startMs)
        } catch {
          failed++
        }
      }
    }
    await Promise.all(Array.from({ length: IN_FLIGHT }, lane))
    return times.sort((a, b) => a - b)
  }
  await load(WARM_UP_SECONDS)
  failed = 0
  const before = shares()
  const times = await load(seconds)
  const after = shares()
  await balancer.close()
  const quantiles = [0.5, 0.9, 0.99].map((q) => (times[Math.floor(times.length * q)] ?? NaN).toFixed(1))
  const share = (after[0] - before[0]) / (after[1] - before[1])
  return [strategy, ...quantiles, integer(times.length / seconds), `${(share * 100).toFixed(2)} %`, integer(failed)]
}
