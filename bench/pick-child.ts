/**
 * node --expose-gc bench/pick-child.ts <strategy> <backends> <picks> [weighted]
 * Measures one strategy in a process of its own and prints one line of JSON. `strategy` is one of `SUBJECTS`;
 * `garbage` picks like round robin and allocates each time: the proof that garbage is seen.
 */
import { PerformanceObserver } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { LiveCall } from '../src/core/call.ts'
import { systemClock } from '../src/core/clock.ts'
import type { Attempt, Backend, Chooser, Clock, Picker, Strategy } from '../src/core/contracts.ts'
import { Deadlines } from '../src/core/deadlines.ts'
import { LATENCY_HEADER, RIF_HEADER } from '../src/core/load.ts'
import { CLASSES } from '../src/core/outcome.ts'
import { Pool } from '../src/core/pool.ts'
import { systemRandom } from '../src/core/random.ts'
import { interleave, ratioOf, type Spread, spreadOf } from './rounds.ts'
import { SUBJECTS } from './subjects-of-picks.ts'

export interface PickResult {
  readonly strategy: string
  readonly backends: number
  readonly picks: number
  /** ns per pick and per bare pick, like for like: both are pickers behind a call that V8 cannot inline. Medians of rounds. */
  readonly ns: number
  readonly bareNs: number
  /** ns / bareNs, round by round. */
  readonly ratio: number
  readonly nsSpread: Spread
  readonly ratioSpread: Spread
  /** The same with the bare read written into its loop, and a loop of its own for the picker, so that V8 may inline it. */
  readonly inlineNs: number
  readonly inlineBareNs: number
  readonly inlineRatio: number
  /** Garbage collections in `picks` picks. */
  readonly gcs: number
  /** The same for whole `Pool.pick` calls: clock, picker and admission. */
  readonly poolNs: number
  readonly poolGcs: number
}

/** Marsaglia's. */
const SEED = 2_463_534_242 | 0
const ROUNDS = 11
const WARM_UP = 2
/** A round is some milliseconds long: so many picks at the most, fewer of a slow strategy. */
const ROUND_PICKS = 500_000
const ROUND_MS = 4
/** Picks that say how slow it is. */
const TRIAL_PICKS = 500
/** Keys of calls, asked in turn. */
const KEYS = Array.from({ length: 256 }, (_, i) => `user ${i}`)
/** Entries about collections are delivered this late, ms. */
const GC_NEWS_MS = 20

/** Runs it all in this process: garbage and timings are only its own if nothing else runs here. */
export async function measurePicks(
  strategy: string,
  backends: number,
  picks: number,
  weighted = false,
): Promise<PickResult> {
  const { make, keyed = false, reported = false } = SUBJECTS[strategy]!
  const { pool, picker, call } = await poolOf(keyed ? withKeys(make()) : make(), backends, { weighted, reported })
  const list = [...pool.members.eligible] // a plain array: V8 reads frozen ones several ns slower
  const bare = bareOf(list)
  const perMs = 1e6 / nsPerPick((times) => runPicker(picker, call, times), TRIAL_PICKS)
  const round = Math.max(10, Math.min(ROUND_PICKS, Math.round(ROUND_MS * perMs)))
  const loops: readonly (readonly [run: (picks: number) => void, picks: number])[] = [
    [(times) => runCalled(picker, call, times), round],
    [(times) => runCalled(bare, call, times), ROUND_PICKS],
    [(times) => runPicker(picker, call, times), round],
    [(times) => runBare(list, times), ROUND_PICKS],
    [(times) => runPool(pool, call, times), round],
  ]
  await interleave(
    loops.map(
      ([run, times]) =>
        () =>
          run(times),
    ),
    WARM_UP,
  )
  const measured = await interleave(
    loops.map(
      ([run, times]) =>
        () =>
          nsPerPick(run, times),
    ),
    ROUNDS,
  )
  const [own, base, inline, inlineBase, whole] = measured as [number[], number[], number[], number[], number[]]
  const nsSpread = spreadOf(own)
  const ratioSpread = ratioOf(own, base)
  const result: PickResult = {
    strategy,
    backends,
    picks,
    ns: nsSpread.median,
    bareNs: spreadOf(base).median,
    ratio: ratioSpread.median,
    nsSpread,
    ratioSpread,
    inlineNs: spreadOf(inline).median,
    inlineBareNs: spreadOf(inlineBase).median,
    inlineRatio: ratioOf(inline, inlineBase).median,
    gcs: await countGcs(() => runPicker(picker, call, picks)),
    poolNs: spreadOf(whole).median,
    poolGcs: await countGcs(() => runPool(pool, call, picks)),
  }
  pool.close()
  return result
}

export interface PickBench {
  readonly pool: Pool
  readonly picker: Picker
  readonly call: LiveCall
  /** Endpoints of so many backends, as they were given. */
  readonly apply: (backends: number) => void
  /** Resolves when nothing is left to be done off the request path: tables of hash strategies are made. */
  readonly settled: () => Promise<void>
}

interface PoolOptions {
  readonly weighted?: boolean
  /** Every backend has said what its load is, with an answer. */
  readonly reported?: boolean
  /** Called after each piece of work off the request path. */
  readonly ran?: (ms: number) => void
}

/** The real pool with real records that have been in use: every backend known, some requests in flight. */
export async function poolOf(
  strategy: Strategy,
  backends: number,
  { weighted = false, reported = false, ran = () => {} }: PoolOptions = {},
): Promise<PickBench> {
  let pending = 0
  const clock: Clock = {
    ...systemClock,
    after(ms, run, hold) {
      pending++
      let isOver = false
      const over = (): void => {
        if (!isOver) pending--
        isOver = true
      }
      const stop = systemClock.after(
        ms,
        () => {
          over()
          const startMs = performance.now()
          run()
          ran(performance.now() - startMs)
        },
        hold,
      )
      return () => {
        over()
        stop()
      }
    },
  }
  const random = systemRandom()
  let chooser: Chooser | undefined
  let picker: Picker = () => undefined
  const spy: Strategy = {
    name: strategy.name,
    start(core) {
      const own = strategy.start(core)
      chooser = own
      return {
        build(members) {
          const built = own.build(members)
          picker = reported ? withCalls(built, clock.now()) : built
          return picker
        },
      }
    },
  }
  const host = { clock, random, deadlines: new Deadlines(clock), emit: () => {}, over: () => {}, met: () => {} }
  const transport = { name: 'none', send: () => Promise.reject(new Error('nothing is sent here')) }
  const budget = { share: 0.2, perSecond: 10, windowMs: 10_000 }
  const judged = { classes: CLASSES, classify: undefined }
  const parts = { strategy: spy, transport, policies: [], watchers: [], sinks: [], panicBelow: 0.5, budget, ...judged }
  const endpoints = Array.from({ length: backends }, (_, i) => ({
    url: `http://10.0.${i >> 8}.${i & 255}:8080`,
    weight: weighted ? 1 + (i % 4) : 1,
  }))
  const pool = new Pool('bench', host)
  pool.prepare(parts, endpoints).commit()
  for (const record of pool.records) {
    record.inflight = random(8)
    for (let i = 0; i < 10; i++) record.latency.observe(1 + random(50_000) / 1000, clock.now())
  }
  const call = new LiveCall({ method: 'GET', headers: [] }, {}, clock.now()).route('bench', 0)
  if (reported) {
    const rule = CLASSES.ok
    for (const backend of pool.records) {
      const headers = [RIF_HEADER, String(random(8)), LATENCY_HEADER, String(1 + random(50))]
      chooser?.head?.({ backend, headers, headMs: clock.now(), rule } as unknown as Attempt)
    }
  }
  const settled = async (): Promise<void> => {
    picker(call) // what nobody asks is not made
    while (pending > 0) await delay(1)
  }
  await settled()
  return { pool, picker, call, settled, apply: (count) => pool.apply(endpoints.slice(0, count)) }
}

/** Each pick is for another call: prequal takes one that comes again, and was not sent, for a refusal, and drops that backend's report. */
function withCalls(picker: Picker, nowMs: number): Picker {
  const calls = [0, 1].map(() => new LiveCall({ method: 'GET', headers: [] }, {}, nowMs).route('bench', 0))
  let i = 0
  return () => picker(calls[i++ & 1]!)
}

/** Asked with another key each time, for the first time each time. */
function withKeys(strategy: Strategy): Strategy {
  return {
    name: strategy.name,
    start(core) {
      const chooser = strategy.start(core)
      return {
        build(members) {
          const picker = chooser.build(members)
          let i = 0
          return (call) => {
            const asked = call as LiveCall
            asked.key = KEYS[i++ & 255]
            asked.picks = 0
            return picker(call)
          }
        },
      }
    },
  }
}

/** The least picker: one xorshift32 (Marsaglia) and one array read. */
function bareOf(list: readonly Backend[]): Picker {
  const scale = list.length / 4_294_967_296
  let x = SEED
  return () => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return list[((x >>> 0) * scale) | 0]
  }
}

function nsPerPick(run: (picks: number) => void, picks: number): number {
  const start = process.hrtime.bigint()
  run(picks)
  return Number(process.hrtime.bigint() - start) / picks
}

/** Keeps what the loops compute alive, so that no pick can be optimised away. */
let used = 0

function runPicker(picker: Picker, call: LiveCall, picks: number): void {
  let sum = 0
  for (let i = 0; i < picks; i++) sum = (sum + picker(call)!.inflight) | 0
  used += sum
}

/** What a pick cannot cost less than: `bareOf` written into the loop. */
function runBare(list: readonly Backend[], picks: number): void {
  const scale = list.length / 4_294_967_296
  let x = SEED
  let sum = 0
  for (let i = 0; i < picks; i++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    sum = (sum + list[((x >>> 0) * scale) | 0]!.inflight) | 0
  }
  used += sum
}

/** Called with two different pickers, hence never inlined. */
function runCalled(picker: Picker, call: LiveCall, picks: number): void {
  let sum = 0
  for (let i = 0; i < picks; i++) sum = (sum + picker(call)!.inflight) | 0
  used += sum
}

function runPool(pool: Pool, call: LiveCall, picks: number): void {
  let sum = 0
  for (let i = 0; i < picks; i++) sum = (sum + pool.pick(call)!.inflight) | 0
  used += sum
}

async function countGcs(work: () => void): Promise<number> {
  let gcs = 0
  const observer = new PerformanceObserver((list) => {
    gcs += list.getEntries().length
  })
  globalThis.gc?.()
  await delay(GC_NEWS_MS) // that one is told of later, and not ours
  observer.observe({ entryTypes: ['gc'] })
  work()
  await delay(GC_NEWS_MS)
  observer.disconnect()
  return gcs
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [strategy = '', backends = '4', picks = '5000000', weights] = process.argv.slice(2)
  if (!(strategy in SUBJECTS))
    throw new Error(`strategy: expected ${Object.keys(SUBJECTS).join(', ')}, got '${strategy}'`)
  const result = await measurePicks(strategy, Number(backends), Number(picks), weights === 'weighted')
  if (!Number.isFinite(used)) throw new Error('nothing was picked')
  console.log(JSON.stringify(result))
}
