import type { Backend, Prefer, Strategy } from '../../src/core/contracts.ts'
import { auto } from '../../src/strategies/auto.ts'
import { least } from '../../src/strategies/least.ts'
import { maglev } from '../../src/strategies/maglev.ts'
import { p2c } from '../../src/strategies/p2c.ts'
import { byInflight, byPeakEwma } from '../../src/strategies/prefer.ts'
import { prequal } from '../../src/strategies/prequal.ts'
import { random } from '../../src/strategies/random.ts'
import { roundRobin } from '../../src/strategies/round-robin.ts'
import { smart } from '../../src/strategies/smart.ts'
import { thompson } from '../../src/strategies/thompson.ts'
import type { Row } from './scenarios.ts'
import type { Server } from './server.ts'

/** A name, what makes one, one for each client, and the rows of the table it stands in; none said: all. */
type Entry = readonly [name: string, make: () => Strategy, isIn?: (row: Row) => boolean]

const FEW_ROWS = ['A', 'B', 'D', 'E', 'E shipped', 'F', 'R shipped']

/** For families that are no rivals of the others in the tail: enough to tell what they do. */
function inFew({ name, clients }: Row): boolean {
  return clients === 1 && FEW_ROWS.includes(name)
}

/** A single client knows as much as its servers. */
function ofMany({ clients }: Row): boolean {
  return clients > 1
}

/** The columns of the table. A new strategy is one more line. */
export const STRATEGIES: readonly Entry[] = [
  ['auto', auto],
  ['random', random],
  ['round-robin', roundRobin],
  ['p2c', () => p2c(byInflight)],
  ['least', () => least(byInflight)],
  ['peak-ewma', () => p2c(byPeakEwma)],
  ['prequal', prequal],
  ['srv-p2c', () => p2c(byTrueLoad), ofMany],
  ['maglev', () => maglev(BY_CALL), inFew],
  ['smart', smart, inFew],
  ['thompson', thompson, inFew],
]

/** Nobody gets more than a quarter above its share of what is in flight. */
const BY_CALL = { key: 'call', bound: 1.25 } as const

/** What nobody outside a simulation can know: how many requests a server has at this very moment, from all clients. */
function byTrueLoad(a: Backend, b: Backend): Backend {
  return trueLoadOf(b) < trueLoadOf(a) ? b : a
}

function trueLoadOf({ endpoint }: Backend): number {
  return (endpoint.meta as { readonly server: Server }).server.load.inflight
}

const byLatency: Prefer = (a, b) => (b.latency.cost < a.latency.cost ? b : a)

/** What the library's own must never become, or is compared with in statements only. */
export const WARNINGS: readonly Entry[] = [
  ['rif', () => prequal({ rifQuantile: 0 })],
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
