import type { Attempt, Backend } from '../core/contracts.ts'
import { FORGIVE_MS } from '../core/latency.ts'

/** The usual answer is the mean of about so many, each counted by its logarithm: a slow one weighs no more than a quick one. */
const MEMORY = 64
/** An answer that took this many times the usual time speaks against its backend, a quicker one for it. */
const TOLERANCE = Math.log(2.5)
/** One answer alone says no more than twelve times slower does: a long request is not yet a slow backend. */
const MOST = Math.log(12)
/** So much of it is needed: four such answers in a row, or some ten that take four times as long. */
const ENOUGH = 5
/** No more is kept, so that some five quick answers take all of it back. */
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
  /** Against it, as a cumulative sum (Page's CUSUM): what chance adds, chance takes back. */
  evidence = 0

  /** Its load as the picker compares it: what is in flight, but for one that is slow the square, so that it never holds many. */
  load(inflight: number, nowMs: number): number {
    if (this.factor === 1 || (inflight === 0 && nowMs >= this.restsUntilMs)) return inflight
    return (inflight + 1) * (inflight + 1) * this.factor - 1
  }
}

/** Tells the slow and the failing from the others, by how long their answers take compared with those of the whole pool. */
export class Paces {
  readonly #known = new WeakMap<Backend, Pace>()
  /** Logarithm of what an answer of the pool usually takes, in ms. */
  #usual = Number.NaN

  of(backend: Backend): Pace {
    const pace = this.#known.get(backend) ?? new Pace()
    this.#known.set(backend, pace)
    return pace
  }

  head({ backend, rule, startMs, headMs }: Attempt): void {
    if (rule?.latency === 'sample') this.#learn(this.of(backend), headMs - startMs, headMs)
  }

  settle({ backend, class: kind, rule, startMs, headMs, endMs }: Attempt): void {
    const pace = this.of(backend)
    if (rule!.latency === 'slow') {
      pace.factor = FAILING
      pace.restsUntilMs = endMs + FORGIVE_MS
      pace.evidence = KEPT
    } else if (Number.isNaN(headMs)) {
      if (rule!.latency === 'sample')
        this.#learn(pace, endMs - startMs, endMs) // a lease
      else if (kind === 'cancelled') this.#gaveUp(pace, endMs - startMs, endMs)
    }
  }

  #learn(pace: Pace, ms: number, nowMs: number): void {
    const time = Math.log(Math.max(ms, FLOOR_MS))
    if (Number.isNaN(this.#usual)) this.#usual = time
    this.#judge(pace, time, nowMs)
    this.#usual += (time - this.#usual) / MEMORY
  }

  /** Whoever was given up on, as the loser of a hedge is, would have taken longer still. */
  #gaveUp(pace: Pace, ms: number, nowMs: number): void {
    const time = Math.log(Math.max(ms, FLOOR_MS))
    if (time - this.#usual > TOLERANCE) this.#judge(pace, time, nowMs)
  }

  #judge(pace: Pace, time: number, nowMs: number): void {
    const against = Math.min(time - this.#usual, MOST) - TOLERANCE
    pace.evidence = Math.min(KEPT, Math.max(0, pace.evidence + against))
    if (pace.evidence === 0) pace.factor = 1
    if (pace.evidence < ENOUGH || against <= 0) return
    pace.factor = SLOW
    pace.restsUntilMs = nowMs + REST_MS
  }
}
