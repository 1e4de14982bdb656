import type { Backend, Prefer, Strategy } from '../../src/core/contracts.ts'
import { least } from '../../src/strategies/least.ts'
import { p2c } from '../../src/strategies/p2c.ts'
import { byInflight, byPeakEwma } from '../../src/strategies/prefer.ts'
import { random } from '../../src/strategies/random.ts'
import { roundRobin } from '../../src/strategies/round-robin.ts'

/** A name, and what makes one: one for each client. */
type Entry = readonly [name: string, make: () => Strategy]

/** The columns of the table. A new strategy is one more line. */
export const STRATEGIES: readonly Entry[] = [
  ['random', random],
  ['round-robin', roundRobin],
  ['p2c', () => p2c(byInflight)],
  ['least', () => least(byInflight)],
  ['peak-ewma', () => p2c(byPeakEwma)],
]

const byLatency: Prefer = (a, b) => (b.latency.cost < a.latency.cost ? b : a)

/** What the library's own must never become. */
export const WARNINGS: readonly Entry[] = [
  ['least latency', () => least(byLatency)],
  ['least, first of equals', firstOfLeast],
]

/** Fewest in flight, and of equals always the first: every client begins with the same one. */
function firstOfLeast(): Strategy {
  return {
    name: 'least, first of equals',
    start: () => ({
      build:
        ({ eligible }) =>
        () =>
          eligible.reduce<Backend | undefined>(
            (best, other) => (best === undefined || other.inflight < best.inflight ? other : best),
            undefined,
          ),
    }),
  }
}

export function strategyOf(name: string): () => Strategy {
  const entry = [...STRATEGIES, ...WARNINGS].find(([other]) => other === name)
  if (entry === undefined) throw new Error(`no strategy is named ${name}`)
  return entry[1]
}
