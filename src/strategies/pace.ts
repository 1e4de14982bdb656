import type { Attempt, Backend } from '../core/contracts.ts'
import { FORGIVE_MS } from '../core/latency.ts'

/** The usual answer is the mean of about so many, each counted by its logarithm: a slow one weighs no more than a quick one. */
const MEMORY = 64
/** How much times differ and how many attempts fail are means of so many: both need rare events. */
const LONG_MEMORY = 256
/** An answer that took this many times the usual time speaks against its backend, a quicker one for it. */
const TOLERANCE = Math.log(2.5)
/** Where costs differ more than that, so many standard deviations: below 1, or a slow half of the pool would hide itself. */
const DEVIATIONS = 0.8
/** One answer, one failure alone says no more: a long request is not yet a slow backend. */
const MOST_OF_ANSWER = Math.log(5)
const MOST_OF_FAILURE = 3
/** What an attempt says that was given up while another one of the call answered in less time: it would have taken longer still. */
const GIVEN_UP = 0.9
/** So much of it is needed: four very slow answers in a row, two failures where others hardly fail. */
const ENOUGH = 5
/** No more is kept, so that some seven usual answers take all of it back. */
const KEPT = 6
/** How many times slower a slow backend, a failing one and one that nobody knows are taken to be: whole, so that no number is boxed. */
const SLOW = 3
const FAILING = 64
const UNKNOWN = SLOW
/** One that was slow is left alone for so long, ms, before it may show whether it still is. */
const REST_MS = 3_000
/** Below this, times are noise of the event loop, ms. */
const FLOOR_MS = 0.1

/** What is thought of one backend. */
export class Pace {
  /** 1 = as quick as the others. */
  factor: number = UNKNOWN
  /** From then on it may show what it is, one request at a time. */
  restsUntilMs = 0
  /** It failed, and not by taking long: with nothing in flight it would draw everybody. */
  failsFast = false
  /** Against it, as cumulative sums (Page's CUSUM): what chance adds, chance takes back. */
  slowness = 0
  failures = 0

  /** Its load is what it has in flight, no more. `mostAreOdd`: being slow is then nothing special. */
  isPlain(mostAreOdd: boolean): boolean {
    return this.factor === 1 || (mostAreOdd && !this.failsFast)
  }

  /** The load of one that is not plain, as the picker compares it: the square of it, so that it never holds many. */
  load(inflight: number, nowMs: number): number {
    if (inflight === 0 && nowMs >= this.restsUntilMs) return 0
    return (inflight + 1) * (inflight + 1) * this.factor - 1
  }
}

/** Tells the slow and the failing from the others, by comparing their answers and failures with those of the whole pool. */
export class Paces {
  readonly #known = new WeakMap<Backend, Pace>()
  /** Logarithm of what an answer of the pool usually takes, in ms. */
  #usual = Number.NaN
  /** Variance of these logarithms. */
  #variance = 0
  /** Share of the attempts that fail. */
  #failing = 0
  /** How often something changed that pickers may keep. */
  changes = 0

  of(backend: Backend): Pace {
    const pace = this.#known.get(backend) ?? new Pace()
    this.#known.set(backend, pace)
    return pace
  }

  head({ backend, rule, startMs, headMs }: Attempt): void {
    if (rule?.latency === 'sample') this.#learn(this.of(backend), headMs - startMs, headMs)
  }

  settle(attempt: Attempt): void {
    const { backend, class: kind, rule, startMs, headMs, endMs } = attempt
    const pace = this.of(backend)
    if (rule!.latency === 'slow') this.#failed(pace, kind, endMs)
    else if (Number.isNaN(headMs)) {
      if (rule!.latency === 'sample')
        this.#learn(pace, endMs - startMs, endMs) // a lease
      else if (kind === 'cancelled') this.#gaveUp(pace, attempt)
    }
  }

  /** Nobody who could answer refuses a connection. All else may be the fault of requests, or of what all backends depend on. */
  #failed(pace: Pace, kind: Attempt['class'], nowMs: number): void {
    this.#failing += (1 - this.#failing) / LONG_MEMORY
    const against = Math.max(0, Math.min(Math.log(0.5 / this.#failing), MOST_OF_FAILURE))
    pace.failures = Math.min(KEPT, pace.failures + against)
    if (pace.failures < ENOUGH && kind !== 'connect' && kind !== 'tls') return
    pace.slowness = KEPT
    pace.restsUntilMs = nowMs + FORGIVE_MS
    this.#take(pace, FAILING, kind !== 'timeout')
  }

  #learn(pace: Pace, ms: number, nowMs: number): void {
    this.#failing -= this.#failing / LONG_MEMORY
    pace.failures = Math.max(0, pace.failures - Math.max(0, Math.log(2 * (1 - this.#failing))))
    const time = Math.log(Math.max(ms, FLOOR_MS))
    if (Number.isNaN(this.#usual)) this.#usual = time
    const longer = time - this.#usual
    this.#variance += (longer * longer - this.#variance) / LONG_MEMORY
    this.#judge(pace, Math.min(longer - this.#tolerance(), MOST_OF_ANSWER), nowMs)
    this.#usual += longer / MEMORY
  }

  /** Whoever was given up on, as the loser of a hedge is, would have taken longer still. */
  #gaveUp(pace: Pace, { call, startMs, endMs }: Attempt): void {
    const ms = endMs - startMs
    const longer = Math.log(Math.max(ms, FLOOR_MS)) - this.#usual - this.#tolerance()
    const isBeaten = call.attempts.some(
      ({ rule, startMs, headMs }) => rule?.latency === 'sample' && headMs - startMs < ms,
    )
    const against = Math.max(isBeaten ? GIVEN_UP : 0, Math.min(longer, MOST_OF_ANSWER))
    if (against > 0) this.#judge(pace, against, endMs)
  }

  #tolerance(): number {
    return Math.max(TOLERANCE, DEVIATIONS * Math.sqrt(this.#variance))
  }

  #judge(pace: Pace, against: number, nowMs: number): void {
    pace.slowness = Math.min(KEPT, Math.max(0, pace.slowness + against))
    if (pace.factor === FAILING && nowMs >= pace.restsUntilMs) this.#take(pace, SLOW) // it answers again
    if (pace.slowness === 0) this.#take(pace, 1)
    if (pace.slowness < ENOUGH || against <= 0) return
    pace.restsUntilMs = nowMs + REST_MS
    this.#take(pace, SLOW, false)
  }

  #take(pace: Pace, factor: number, failsFast: boolean = pace.failsFast): void {
    if (pace.factor !== factor || pace.failsFast !== failsFast) this.changes++
    pace.factor = factor
    pace.failsFast = failsFast
  }
}
