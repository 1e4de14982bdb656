import type { Strategy } from '../src/core/contracts.ts'
import { auto } from '../src/strategies/auto.ts'
import { edf } from '../src/strategies/edf.ts'
import { failover } from '../src/strategies/failover.ts'
import { jump } from '../src/strategies/jump.ts'
import { least } from '../src/strategies/least.ts'
import { maglev } from '../src/strategies/maglev.ts'
import { orca } from '../src/strategies/orca.ts'
import { p2c } from '../src/strategies/p2c.ts'
import { byInflight, byPeakEwma } from '../src/strategies/prefer.ts'
import { prequal } from '../src/strategies/prequal.ts'
import { random, weightedRandom } from '../src/strategies/random.ts'
import { rendezvous } from '../src/strategies/rendezvous.ts'
import { ringHash } from '../src/strategies/ring-hash.ts'
import { roundRobin } from '../src/strategies/round-robin.ts'
import { smart } from '../src/strategies/smart.ts'
import { thompson } from '../src/strategies/thompson.ts'
import { weightedFailover } from '../src/strategies/weighted-failover.ts'
import { weightedRoundRobin } from '../src/strategies/weighted-round-robin.ts'

export interface PickSubject {
  readonly make: () => Strategy
  /** How the cost of a pick grows with the backends; undefined: it is not to be judged. */
  readonly grows?: '1' | 'log n' | 'n' | 'reports'
  /** How many of the largest pool's backends a pick looks at, where they are more than two. */
  readonly looks?: number
  /** Calls have keys. */
  readonly keyed?: boolean
  /** Each backend has said what its load is. */
  readonly reported?: boolean
}

/** Calls bring their keys. */
const byCall = { key: 'call' } as const

/** What has been reported stays good, and hardly a probe goes out: so a pick takes in as many reports as it uses up. */
const steady = { maxAgeMs: 3_600_000, maxProbesPerSecond: 1 } as const

/** Every strategy that has a name. */
export const SUBJECTS: Readonly<Record<string, PickSubject>> = {
  'round-robin': { make: roundRobin, grows: '1' },
  random: { make: random, grows: '1' },
  'weighted-random': { make: weightedRandom, grows: '1' },
  p2c: { make: () => p2c(byInflight), grows: '1' },
  auto: { make: auto, grows: '1', looks: 16 },
  'peak-ewma': { make: () => p2c(byPeakEwma), grows: '1' },
  failover: { make: () => failover(p2c(byPeakEwma)), grows: '1' },
  'weighted-failover': { make: weightedFailover, grows: '1' },
  prequal: { make: () => prequal(steady), grows: 'reports', reported: true },
  maglev: { make: () => maglev(byCall), grows: '1', keyed: true },
  'ring-hash': { make: () => ringHash(byCall), grows: '1', keyed: true },
  jump: { make: () => jump(byCall), grows: 'log n', keyed: true },
  edf: { make: edf, grows: 'log n' },
  orca: { make: orca, grows: 'log n' },
  'weighted-round-robin': { make: weightedRoundRobin, grows: 'n' },
  least: { make: () => least(byInflight), grows: 'n' },
  rendezvous: { make: () => rendezvous(byCall), grows: 'n', keyed: true },
  smart: { make: smart, grows: 'n' },
  thompson: { make: thompson, grows: 'n' },
  garbage: { make: garbage },
}

function garbage(): Strategy {
  return {
    name: 'garbage',
    start: ({ random }) => ({
      build: ({ eligible }) => {
        const kept: unknown[] = [undefined]
        return () => {
          const at = random(eligible.length)
          kept[0] = { at }
          return eligible[at]
        }
      },
    }),
  }
}
