/** Time constant of the peak EWMA, ms (Finagle's default): half of a peak is forgotten after 6.9 s of silence. */
export const DECAY_MS = 10_000
/**
 * What a failure counts as, ms, when it took less: failing fast must not look like being fast. 1 s is far above any
 * healthy answer worth balancing by latency.
 */
export const FAILURE_MS = 1_000
/**
 * Without another failure, that is taken back after so long, ms: by decay alone one failure of a 5 ms backend would keep
 * traffic away for 53 s, which no single failure deserves.
 */
export const FORGIVE_MS = 5_000
/** Steps of `PeakEwma.cost` per power of two: 0.3 % of latency each, far below its noise. */
export const COST_STEPS = 256
/** The cost of who has never answered: below any that occurs. */
export const UNKNOWN_COST: number = -(2 ** 30)
/** Below this, latencies are noise of the event loop, ms; it also keeps the logarithm finite. */
const FLOOR_MS = 0.01

/** What pickers compare. It is kept with its backend: among thousands, to fetch one more object of each takes longer than all else. */
interface Costed {
  /**
   * `score` less log2 of the backend's weight, in steps of 1 / COST_STEPS; UNKNOWN_COST until the first observation. A whole number
   * stands in the object itself, a fraction somewhere else in memory. It stays small for a year and a half of uptime; beyond that
   * it is still right.
   */
  cost: number
}

/**
 * Peak EWMA: jumps to a slower answer at once, and forgets it exponentially. Reads are pure; only results write.
 * `score` is its value in the log domain with the common factor e^(-now/decay) left out:
 * log2(value * e^(stamp/decay)). Two scores compare as the decayed values do, without a clock and without an exp.
 */
export class PeakEwma {
  /** False until the first observation. */
  known = false
  score = 0
  readonly #costed: Costed
  #logWeight = 0
  #value = 0
  #stampMs = 0

  constructor(costed: Costed = { cost: UNKNOWN_COST }) {
    this.#costed = costed
  }

  get cost(): number {
    return this.#costed.cost
  }

  observe(ms: number, nowMs: number): void {
    const sample = Math.max(ms, FLOOR_MS)
    const keep = this.known ? Math.exp(-Math.max(0, nowMs - this.#stampMs) / DECAY_MS) : 0
    this.#value = sample > this.#value ? sample : sample * (1 - keep) + this.#value * keep
    this.#stampMs = Math.max(nowMs, this.#stampMs)
    this.score = Math.log2(this.#value) + (this.#stampMs / DECAY_MS) * Math.LOG2E
    this.known = true
    this.weigh(this.#logWeight)
  }

  /** The backend's weight changed. */
  weigh(logWeight: number): void {
    this.#logWeight = logWeight
    this.#costed.cost = this.known ? Math.round((this.score - logWeight) * COST_STEPS) : UNKNOWN_COST
  }

  /** The decayed value, ms; NaN while unknown. */
  read(nowMs: number): number {
    return this.known ? this.#value * Math.exp(-Math.max(0, nowMs - this.#stampMs) / DECAY_MS) : NaN
  }

  /** Forgets everything and starts at `ms`; NaN = unknown again. */
  reset(ms: number, nowMs: number): void {
    this.known = false
    this.#value = 0
    this.weigh(this.#logWeight)
    if (ms >= 0) this.observe(ms, nowMs)
  }
}

/** Relative error of every quantile (DDSketch's alpha). */
const ALPHA = 0.01
const LOG_GAMMA = Math.log((1 + ALPHA) / (1 - ALPHA))
/** Quantiles look back at one to one and a half times this, ms. */
const WINDOW_MS = 40_000
const SLICES = 3
/** Bins are added this many at a time: a backend's latencies span few powers of ten. */
const GROW = 64

/** One slice of a DDSketch: counts of bins [first, first + counts.length). */
class Slice {
  counts: Uint32Array = new Uint32Array(0)
  first = 0
  total = 0
  number = -1

  add(bin: number): void {
    if (this.counts.length === 0) {
      this.first = bin - GROW / 2
      this.counts = new Uint32Array(GROW)
    } else if (bin < this.first) this.#grow(Math.ceil((this.first - bin) / GROW) * GROW, 0)
    else if (bin >= this.first + this.counts.length) {
      this.#grow(0, Math.ceil((bin - this.first - this.counts.length + 1) / GROW) * GROW)
    }
    this.counts[bin - this.first]!++
    this.total++
  }

  #grow(below: number, above: number): void {
    const counts = new Uint32Array(below + this.counts.length + above)
    counts.set(this.counts, below)
    this.counts = counts
    this.first -= below
  }
}

/**
 * Latency quantiles of about the last minute, each within 1 % of a true sample (DDSketch, alpha 0.01, Masson et al.
 * 2019), in three slices of 20 s that are thrown away whole.
 */
export class Quantiles {
  readonly #slices: readonly Slice[] = Array.from({ length: SLICES }, () => new Slice())

  observe(ms: number, nowMs: number): void {
    const slice = this.#slice(nowMs)
    slice.add(Math.ceil(Math.log(Math.max(ms, FLOOR_MS)) / LOG_GAMMA))
  }

  /** The q-quantile (0..1) in ms; NaN without samples. */
  read(q: number, nowMs: number): number {
    return this.readAll([q], nowMs)[0]!
  }

  /** Several quantiles in one go, in ascending order. */
  readAll(qs: readonly number[], nowMs: number): readonly number[] {
    const oldest = Math.floor(nowMs / (WINDOW_MS / (SLICES - 1))) - SLICES + 1
    const slices = this.#slices.filter((slice) => slice.number >= oldest && slice.total > 0)
    const total = slices.reduce((sum, slice) => sum + slice.total, 0)
    const found: number[] = []
    let bin = Math.min(...slices.map((slice) => slice.first))
    let seen = 0
    for (const q of qs) {
      const rank = Math.min(Math.floor(q * total), total - 1)
      while (seen <= rank) {
        for (const slice of slices) seen += slice.counts[bin - slice.first] ?? 0
        bin++
      }
      found.push(total === 0 ? NaN : (2 * Math.exp((bin - 1) * LOG_GAMMA)) / (1 + Math.exp(LOG_GAMMA)))
    }
    return found
  }

  #slice(nowMs: number): Slice {
    const number = Math.floor(nowMs / (WINDOW_MS / (SLICES - 1)))
    const slice = this.#slices[number % SLICES]!
    if (slice.number !== number) {
      slice.number = number
      slice.total = 0
      slice.counts.fill(0)
    }
    return slice
  }
}
