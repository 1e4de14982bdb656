/**
 * node --expose-gc test/support/garbage-child.ts <strategy> <picks>
 * Counts the garbage collections of so many picks, in a process of its own, and prints one line of JSON.
 */
import { PerformanceObserver } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import type { BackendRecord } from '../../src/core/backend.ts'
import type { Attempt, Call, Picker, Strategy } from '../../src/core/contracts.ts'
import { systemRandom } from '../../src/core/random.ts'
import { auto } from '../../src/strategies/auto.ts'
import { edf } from '../../src/strategies/edf.ts'
import { failover } from '../../src/strategies/failover.ts'
import { least } from '../../src/strategies/least.ts'
import { locality, zoneWeights } from '../../src/strategies/locality.ts'
import { orca } from '../../src/strategies/orca.ts'
import { p2c } from '../../src/strategies/p2c.ts'
import { byExpectedDelay, byInflight, byPeakEwma } from '../../src/strategies/prefer.ts'
import { random, weightedRandom } from '../../src/strategies/random.ts'
import { smart } from '../../src/strategies/smart.ts'
import { subset } from '../../src/strategies/subset.ts'
import { weightedFailover } from '../../src/strategies/weighted-failover.ts'
import { weightedRoundRobin } from '../../src/strategies/weighted-round-robin.ts'
import { backendsOf, callOf, coreOf, membersOf } from '../../src/testing/kit.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'

/** Which strategy, and what is done to it before. */
const SUBJECTS: Readonly<Record<string, () => Strategy>> = {
  auto: () => auto(),
  random: () => random(),
  'weighted round robin': () => weightedRoundRobin(),
  edf: () => edf(),
  'edf with bias': () => edf({ bias: 1 }),
  orca: () => reporting(orca({ blackoutMs: 0, updateMs: 100 })),
  'weighted random': () => weightedRandom(),
  'weighted random in a restless pool': () => restless(weightedRandom()),
  least: () => least(byInflight),
  'p2c by expected delay': () => p2c(byExpectedDelay),
  'p2c of three': () => p2c(byInflight, { choices: 3 }),
  failover: () => scattered(failover(p2c(byPeakEwma))),
  'failover with keys': () => keyed(scattered(failover(p2c(byPeakEwma)))),
  'weighted failover': () => scattered(weightedFailover()),
  locality: () => scattered(locality(p2c(byPeakEwma), { zone: 'z0' })),
  'zone weights': () => scattered(zoneWeights(p2c(byPeakEwma), { weights: { z0: 2 } })),
  'subset by rendezvous': () => subset(p2c(byPeakEwma)),
  'subset by index': () => subset(p2c(byPeakEwma), { by: { index: 3, clients: 7 } }),
  smart: () => smart({ cost: ({ weight }) => weight }),
}
const BACKENDS = 64
/** Entries about collections are delivered this late, ms. */
const GC_NEWS_MS = 20
const WARM_UP = 500_000
const STEP = 10_000

/** Every backend reports something before the picks begin; the weights then change while they run. */
function reporting(strategy: Strategy): Strategy {
  return {
    name: strategy.name,
    start(core) {
      const chooser = strategy.start(core)
      return {
        build(members) {
          chooser.build(members)
          for (const [i, backend] of members.eligible.entries()) {
            const headers = ['endpoint-load-metrics', `TEXT cpu_utilization=0.5,rps_fractional=${10 + i}`]
            chooser.head!({ backend, headers, headMs: core.clock.now() } as unknown as Attempt)
          }
          return chooser.build(members)
        },
      }
    },
  }
}

/** Over four zones and two priorities, with half of the first zone and of the first priority lost. */
function scattered(strategy: Strategy): Strategy {
  return {
    name: strategy.name,
    start(core) {
      const chooser = strategy.start(core)
      return {
        build({ all }) {
          for (const [i, record] of (all as readonly BackendRecord[]).entries()) {
            record.endpoint = { ...record.endpoint, zone: `z${(i >> 1) % 4}`, priority: i % 2 }
          }
          return chooser.build(
            membersOf(
              all,
              all.filter((_, i) => i % 4 > 0),
            ),
          )
        },
      }
    },
  }
}

/** Asked with a key. */
function keyed(strategy: Strategy): Strategy {
  return {
    name: strategy.name,
    start(core) {
      const chooser = strategy.start(core)
      return {
        build(members) {
          const pick = chooser.build(members)
          const withKey = callOf(0, 'some key, long enough to be more than one stripe')
          return () => pick(withKey)
        },
      }
    },
  }
}

/** So many changes without a pick that they are no exception. */
function restless(strategy: Strategy): Strategy {
  return {
    name: strategy.name,
    start(core) {
      const chooser = strategy.start(core)
      return {
        build(members) {
          for (let i = 0; i < 20; i++) chooser.build(members)
          return chooser.build(members)
        },
      }
    },
  }
}

/** Over records of unequal weights, with some requests in flight. */
function pickerOf(strategy: Strategy): Picker {
  const chance = systemRandom()
  const list = backendsOf(
    Array.from({ length: BACKENDS }, (_, i) => ({ url: `http://10.0.0.${i}`, weight: 1 + (i % 4) / 3 })),
  )
  const members = membersOf(list)
  const pick = strategy.start(coreOf(manualClock(), chance, () => members)).build(members)
  for (const record of list) record.inflight = chance(8)
  return pick
}

const [subject = '', picks = '5000000'] = process.argv.slice(2)
const make = SUBJECTS[subject]
if (make === undefined) throw new Error(`expected ${Object.keys(SUBJECTS).join(', ')}, got '${subject}'`)
const pick = pickerOf(make())
const call = callOf(0) as { -readonly [Key in keyof Call]: Call[Key] }
let sum = 0

/** Time goes by, 10 ms in `STEP` picks, so that what follows the time does so. */
function run(times: number): void {
  for (let i = 0; i < times; i++) {
    if (i % STEP === 0) call.nowMs += 10
    sum = (sum + pick(call)!.inflight) | 0
  }
}

run(WARM_UP)
let gcs = 0
const observer = new PerformanceObserver((list) => {
  gcs += list.getEntries().length
})
globalThis.gc?.()
run(WARM_UP) // a collection may cost a picker its compiled code, and on a busy machine that is long in coming back
await delay(GC_NEWS_MS) // that one is told of later, and not ours
run(WARM_UP)
await delay(GC_NEWS_MS)
observer.observe({ entryTypes: ['gc'] })
run(Number(picks))
await delay(GC_NEWS_MS)
observer.disconnect()
if (!Number.isFinite(sum)) throw new Error('nothing was picked')
console.log(JSON.stringify({ subject, picks: Number(picks), gcs }))
