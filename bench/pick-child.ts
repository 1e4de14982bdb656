/**
 * node --expose-gc bench/pick-child.ts <strategy> <backends> <picks> [weighted]
 * Measures one strategy in a process of its own and prints one line of JSON. `strategy` is round-robin, p2c or peak-ewma;
 * `garbage` picks like round robin and allocates each time: the proof that garbage is seen.
 */
import { PerformanceObserver } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { LiveCall } from '../src/core/call.ts'
import { systemClock } from '../src/core/clock.ts'
import type { Backend, Picker, Strategy } from '../src/core/contracts.ts'
import { Deadlines } from '../src/core/deadlines.ts'
import { Pool } from '../src/core/pool.ts'
import { systemRandom } from '../src/core/random.ts'
import { p2c } from '../src/strategies/p2c.ts'
import { byInflight, byPeakEwma } from '../src/strategies/prefer.ts'
import { roundRobin } from '../src/strategies/round-robin.ts'
import { interleave, ratioOf, type Spread, spreadOf } from './rounds.ts'

export type PickSubject = 'round-robin' | 'p2c' | 'peak-ewma' | 'garbage'

export interface PickResult {
  readonly strategy: PickSubject
  readonly backends: number
  readonly picks: number
  /** Per pick, medians of interleaved rounds. */
  readonly ns: number
  readonly bareNs: number
  /** ns / bareNs, round by round. */
  readonly ratio: number
  readonly nsSpread: Spread
  readonly ratioSpread: Spread
  /** Garbage collections in `picks` picks by the strategy's picker. */
  readonly gcs: number
  /** The same for whole `Pool.pick` calls: clock, picker and admission. */
  readonly poolGcs: number
  readonly poolNs: number
}

const SUBJECTS: Readonly<Record<PickSubject, () => Strategy>> = {
  'round-robin': roundRobin,
  p2c: () => p2c(byInflight),
  'peak-ewma': () => p2c(byPeakEwma),
  garbage,
}
const ROUNDS = 15
/** Picks per round and in each of the two turns that warm up: a round is some milliseconds. */
const ROUND_PICKS = 500_000

/** Runs it all in this process: garbage and timings are only its own if nothing else runs here. */
export async function measurePicks(strategy: PickSubject, backends: number, picks: number, weighted = false): Promise<PickResult> {
  const { pool, picker, list, call } = poolOf(SUBJECTS[strategy](), backends, weighted)
  const bare = bareOf(list)
  const both = await interleave(
    [picker, bare].map((pick) => () => nsPerPick(pick, call, ROUND_PICKS)),
    ROUNDS,
  )
  const [own, base] = [both[0]!, both[1]!]
  const gcs = await countGcs(() => run(picker, call, picks))
  const whole: Picker = (it) => pool.pick(it as LiveCall)
  nsPerPick(whole, call, ROUND_PICKS)
  const poolNs = nsPerPick(whole, call, ROUND_PICKS)
  const poolGcs = await countGcs(() => runPool(pool, call, picks))
  pool.close()
  const ratioSpread = ratioOf(own, base)
  const nsSpread = spreadOf(own)
  const { median: ns } = nsSpread
  const { median: ratio } = ratioSpread
  const bareNs = spreadOf(base).median
  return { strategy, backends, picks, ns, bareNs, ratio, nsSpread, ratioSpread, gcs, poolGcs, poolNs }
}

/** The real pool with real records that have been in use: every backend known, some requests in flight. */
function poolOf(strategy: Strategy, backends: number, weighted: boolean) {
  const clock = systemClock
  const random = systemRandom()
  let picker: Picker = () => undefined
  const spy: Strategy = {
    name: strategy.name,
    start(core) {
      const chooser = strategy.start(core)
      return {
        build(members) {
          picker = chooser.build(members)
          return picker
        },
      }
    },
  }
  const host = { clock, random, deadlines: new Deadlines(clock), emit: () => {}, over: () => {} }
  const transport = { name: 'none', send: () => Promise.reject(new Error('nothing is sent here')) }
  const budget = { share: 0.2, perSecond: 10, windowMs: 10_000 }
  const parts = { strategy: spy, transport, policies: [], watchers: [], sinks: [], panicBelow: 0.5, budget }
  const endpoints = Array.from({ length: backends }, (_, i) => ({
    url: `http://10.0.${i >> 8}.${i & 255}:8080`,
    weight: weighted ? 1 + (i % 4) : 1,
  }))
  const pool = new Pool('bench', parts, endpoints, host)
  for (const record of pool.records) {
    record.inflight = random(8)
    for (let i = 0; i < 10; i++) record.latency.observe(1 + random(50_000) / 1000, clock.now())
  }
  const list: readonly Backend[] = pool.members.eligible
  return { pool, picker, list, call: new LiveCall('bench', 'GET', {}, 0, clock.now()) }
}

/** What a pick cannot cost less than: one xorshift32 (Marsaglia) and one array read. */
function bareOf(list: readonly Backend[]): Picker {
  const scale = list.length / 4_294_967_296
  let x = 2_463_534_242 | 0
  return () => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return list[((x >>> 0) * scale) | 0]
  }
}

function garbage(): Strategy {
  return {
    name: 'garbage',
    start: ({ random }) => ({
      build: ({ eligible }) => {
        const kept: unknown[] = [undefined]
        return () => {
          kept[0] = { at: random(eligible.length), text: kept }
          return eligible[random(eligible.length)]
        }
      },
    }),
  }
}

function nsPerPick(pick: Picker, call: LiveCall, picks: number): number {
  const start = process.hrtime.bigint()
  run(pick, call, picks)
  return Number(process.hrtime.bigint() - start) / picks
}

/** Keeps what the loops compute alive, so that no pick can be optimised away. */
let used = 0

function run(pick: Picker, call: LiveCall, picks: number): void {
  let sum = 0
  for (let i = 0; i < picks; i++) sum = (sum + pick(call)!.inflight) | 0
  used += sum
}

function runPool(pool: Pool, call: LiveCall, picks: number): void {
  let sum = 0
  for (let i = 0; i < picks; i++) sum = (sum + pool.pick(call)!.inflight) | 0
  used += sum
}

async function countGcs(work: () => void): Promise<number> {
  globalThis.gc?.()
  const observer = new PerformanceObserver(() => {})
  let gcs = 0
  await delay(20) // the collection above is told of later, and not ours
  observer.observe({ entryTypes: ['gc'] })
  work()
  await delay(20)
  gcs = observer.takeRecords().length
  observer.disconnect()
  return gcs
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [strategy = '', backends = '4', picks = '5000000', weights] = process.argv.slice(2)
  if (!(strategy in SUBJECTS)) throw new Error(`strategy: expected ${Object.keys(SUBJECTS).join(', ')}, got '${strategy}'`)
  const result = await measurePicks(strategy as PickSubject, Number(backends), Number(picks), weights === 'weighted')
  if (!Number.isFinite(used)) throw new Error('nothing was picked')
  console.log(JSON.stringify(result))
}
