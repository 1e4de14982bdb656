import type { Random } from '../core/contracts.ts'

/** Learns from each end of a request how many at once its backend does well with. */
export interface Limiter {
  /** A fraction of one counts for nothing yet. */
  readonly limit: number
  /** It took `rttMs` until its head; `inflight` counts it too. */
  sample(rttMs: number, inflight: number): void
  /** It was refused, or timed out. */
  drop(): void
}

export interface Bounds {
  readonly initial: number
  readonly min: number
  readonly max: number
}

/** Who uses less than half of its limit proves nothing about a higher one. */
function isUsed(limit: number, inflight: number): boolean {
  return 2 * inflight >= limit
}

function within({ min, max }: Bounds, limit: number): number {
  return Math.max(min, Math.min(max, limit))
}

/** As Netflix: slower than this counts as a drop, ms. */
const AIMD_SLOW_MS = 5_000
const AIMD_BACKOFF = 0.9

/** One more for each success that fills the limit, a tenth less for each drop (Netflix concurrency-limits). */
export class Aimd implements Limiter {
  readonly #bounds: Bounds
  limit: number

  constructor(bounds: Bounds) {
    this.#bounds = bounds
    this.limit = bounds.initial
  }

  sample(rttMs: number, inflight: number): void {
    if (rttMs > AIMD_SLOW_MS) return this.drop()
    if (isUsed(this.limit, inflight)) this.limit = within(this.#bounds, this.limit + 1)
  }

  drop(): void {
    this.limit = within(this.#bounds, Math.min(this.limit - 1, Math.floor(this.limit * AIMD_BACKOFF)))
  }
}

/** How much of a new limit is taken on at once: one slow window is luck (Netflix). */
const SMOOTHING = 0.2
/** What is normal is the mean of about so many samples (Netflix). */
const LONG_SAMPLES = 600
/** So many say for the first time what is normal: their plain mean (Netflix). */
const WARM_UP = 10
/** The limit is never halved faster than by SMOOTHING: a garbage collection must not close a backend (Netflix). */
const LEAST_GRADIENT = 0.5
/** Answers got so much faster than normal that normal is out of date, and forgotten by LONG_DECAY for each (Netflix). */
const LONG_STALE = 2
const LONG_DECAY = 0.9
/** At its limit for so many samples, normal has come to include the waiting there, and is measured anew: costs 1 % of them. */
const PROBE_EVERY = 100
/** At half the limit, what was in flight before is gone after two samples of a window each; the third counts. */
const PROBE_SAMPLES = 3

/**
 * Gradient2 (Netflix concurrency-limits): the limit shrinks as far as answers take longer than they normally do, and grows by
 * the queue it may cause. Theirs is 4; here it is the root of the limit by default, so that small backends queue little and
 * large ones are found soon. A drop counts as an answer that took twice as long, and earns no queue. Unlike theirs it does not
 * take an overload that lasts for normal: it looks now and then what half the limit is like.
 */
export class Gradient2 implements Limiter {
  readonly #bounds: Bounds
  readonly #queue: (limit: number) => number
  #limit: number
  #longMs = 0
  #samples = 0
  /** Samples at the limit since the last probe. */
  #atLimit = 0
  /** Samples of a probe still to come. */
  #probing = 0

  constructor(bounds: Bounds, queue: (limit: number) => number = Math.sqrt) {
    this.#bounds = bounds
    this.#queue = queue
    this.#limit = bounds.initial
  }

  get limit(): number {
    return this.#probing > 0 ? within(this.#bounds, this.#limit / 2) : this.#limit
  }

  sample(rttMs: number, inflight: number): void {
    if (this.#probing > 0) {
      if (--this.#probing === 0) this.#longMs = Math.min(this.#longMs, rttMs)
      return
    }
    this.#learn(rttMs)
    if (!isUsed(this.#limit, inflight)) return
    if (inflight >= Math.floor(this.#limit)) this.#atLimit++
    const gradient = Math.max(LEAST_GRADIENT, Math.min(1, this.#longMs / rttMs))
    this.#toward(gradient * this.#limit + this.#queue(this.#limit))
    if (this.#atLimit < PROBE_EVERY) return
    this.#atLimit = 0
    this.#probing = PROBE_SAMPLES
  }

  drop(): void {
    this.#toward(LEAST_GRADIENT * this.#limit)
  }

  #learn(rttMs: number): void {
    this.#samples++
    const share = this.#samples <= WARM_UP ? 1 / this.#samples : 2 / (LONG_SAMPLES + 1)
    this.#longMs += (rttMs - this.#longMs) * share
    if (this.#longMs > LONG_STALE * rttMs) this.#longMs *= LONG_DECAY
  }

  #toward(limit: number): void {
    this.#limit = within(this.#bounds, (1 - SMOOTHING) * this.#limit + SMOOTHING * limit)
  }
}

/** The least time is measured anew after so many samples for each place of the limit, times a half to one (Netflix). */
const LEAST_SAMPLES = 30
const JITTER_STEPS = 1_000

/**
 * TCP Vegas (Netflix concurrency-limits): how many of those in flight must be waiting is told by how much longer than the least
 * time it took; the limit is moved so that they are few.
 */
export class Vegas implements Limiter {
  readonly #bounds: Bounds
  readonly #random: Random
  #leastMs = Infinity
  #samples = 0
  #jitter: number
  limit: number

  constructor(bounds: Bounds, random: Random) {
    this.#bounds = bounds
    this.#random = random
    this.#jitter = this.#draw()
    this.limit = bounds.initial
  }

  sample(rttMs: number, inflight: number): void {
    if (++this.#samples >= this.#jitter * LEAST_SAMPLES * this.limit) {
      this.#samples = 0
      this.#jitter = this.#draw()
      this.#leastMs = Infinity
    }
    if (rttMs < this.#leastMs) {
      this.#leastMs = rttMs // measured: says nothing about waiting yet
      return
    }
    if (!isUsed(this.limit, inflight)) return
    const waiting = Math.ceil(this.limit * (1 - this.#leastMs / rttMs))
    const step = this.#step()
    if (waiting <= step) this.#move(6 * step)
    else if (waiting < 3 * step) this.#move(step)
    else if (waiting > 6 * step) this.#move(-step)
  }

  drop(): void {
    this.#move(-this.#step())
  }

  #step(): number {
    return Math.max(1, Math.floor(Math.log10(this.limit)))
  }

  #move(by: number): void {
    this.limit = within(this.#bounds, this.limit + by)
  }

  /** From a half to one. */
  #draw(): number {
    return (1 + this.#random(JITTER_STEPS + 1) / JITTER_STEPS) / 2
  }
}

/** Fewer requests make no window (Netflix). */
const WINDOW = 10

/**
 * Shows a limiter one mean for each window of as many requests as the limit allows, which is about one round trip (Netflix's
 * WindowedLimit). Request by request it would move the limit many times before it can see what the first move did, and would take
 * the spread of the answers for a trend. One drop or many in a window are one drop.
 */
export class Windowed implements Limiter {
  readonly #inner: Limiter
  #seen = 0
  #sumMs = 0
  #inflight = 0
  #dropped = false

  constructor(inner: Limiter) {
    this.#inner = inner
  }

  get limit(): number {
    return this.#inner.limit
  }

  sample(rttMs: number, inflight: number): void {
    this.#sumMs += rttMs
    this.#inflight = Math.max(this.#inflight, inflight)
    this.#count()
  }

  drop(): void {
    this.#dropped = true
    this.#count()
  }

  #count(): void {
    if (++this.#seen < Math.max(WINDOW, this.limit)) return
    if (this.#dropped) this.#inner.drop()
    else this.#inner.sample(this.#sumMs / this.#seen, this.#inflight)
    this.#seen = this.#sumMs = this.#inflight = 0
    this.#dropped = false
  }
}
