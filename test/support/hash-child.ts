/**
 * node --expose-gc test/support/hash-child.ts <strategy> <picks>
 * Counts the garbage collections of so many picks by key, in a process of its own, and prints one line of JSON.
 */
import { PerformanceObserver } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import type { Call, Strategy } from '../../src/core/contracts.ts'
import { systemRandom } from '../../src/core/random.ts'
import { jump } from '../../src/strategies/jump.ts'
import { maglev } from '../../src/strategies/maglev.ts'
import { rendezvous } from '../../src/strategies/rendezvous.ts'
import { ringHash } from '../../src/strategies/ring-hash.ts'
import { backendsOf, coreOf, membersOf } from '../../src/testing/kit.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'

const SUBJECTS: Readonly<Record<string, () => Strategy>> = {
  'ring-hash': () => ringHash({ key: 'call' }),
  'ring-hash bounded': () => ringHash({ key: 'call', bound: 1.25 }),
  'ring-hash like nginx': () => ringHash({ key: 'call', like: 'nginx' }),
  maglev: () => maglev({ key: 'call' }),
  'maglev bounded': () => maglev({ key: 'call', bound: 1.25 }),
  rendezvous: () => rendezvous({ key: 'call' }),
  'rendezvous bounded': () => rendezvous({ key: 'call', bound: 1.25 }),
  jump: () => jump({ key: 'call' }),
  'maglev alone': () => maglev({ key: 'call', whenOut: 'fail' }),
  'rendezvous alone': () => rendezvous({ key: 'call', whenOut: 'fail' }),
  'jump bounded': () => jump({ key: 'call', bound: 1.25 }),
}
const BACKENDS = 64
/** Entries about collections are delivered this late, ms. */
const GC_NEWS_MS = 20
const WARM_UP = 500_000

const [subject = '', picks = '5000000'] = process.argv.slice(2)
const make = SUBJECTS[subject]
if (make === undefined) throw new Error(`expected ${Object.keys(SUBJECTS).join(', ')}, got '${subject}'`)
const random = systemRandom()
const list = backendsOf(
  Array.from({ length: BACKENDS }, (_, i) => ({ url: `http://10.0.0.${i}:8080`, weight: 1 + (i % 4) / 3 })),
)
// Every fourth is down, and the others are as busy as it gets: picks walk, and calls come again.
const members = membersOf(
  list,
  list.filter((_, i) => i % 4 !== 0),
)
const pick = make()
  .start(coreOf(manualClock(), random, () => members))
  .build(members)
for (const record of list) record.inflight = random(8)
const keys = Array.from({ length: 256 }, (_, i) => `${'ключ 🔑 key '.repeat(i % 5)}${i}`)
const call = { picks: 0, key: undefined } as { -readonly [Key in keyof Call]: Call[Key] }
let sum = 0

function run(times: number): void {
  for (let i = 0; i < times; i++) {
    call.key = i % 16 === 0 ? undefined : keys[i & 255]
    call.picks = i % 8 === 0 ? 2 : 0
    sum = (sum + (pick(call)?.inflight ?? 0)) | 0
  }
}

run(WARM_UP)
let gcs = 0
const observer = new PerformanceObserver((entries) => {
  gcs += entries.getEntries().length
})
globalThis.gc?.()
await delay(GC_NEWS_MS) // that one is told of later, and not ours
observer.observe({ entryTypes: ['gc'] })
const startMs = performance.now()
run(Number(picks))
const ns = Math.round(((performance.now() - startMs) * 1e6) / Number(picks))
await delay(GC_NEWS_MS)
observer.disconnect()
if (!Number.isFinite(sum)) throw new Error('nothing was picked')
console.log(JSON.stringify({ subject, picks: Number(picks), gcs, ns }))
