import type { Attempt } from './contracts.ts'

/**
 * Upper bounds of the buckets durations are counted in, ms: those of Prometheus' own clients (5 ms to 10 s), so that panels and
 * alerts made for others fit, and on to five minutes, the longest silence `timeouts.idleMs` allows: language models stream so long.
 */
export const DURATION_BOUNDS_MS: readonly number[] = Object.freeze([
  ...[5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000],
  ...[30_000, 60_000, 120_000, 300_000],
])

/** How long things took, in buckets. */
export interface DurationStats {
  readonly count: number
  /** All of them together, ms. */
  readonly sumMs: number
  /** Upper bounds of the buckets, ms; one more bucket is for what took longer than the last. */
  readonly boundsMs: readonly number[]
  /** How many ended in each bucket; a bucket counts nothing of those before it. */
  readonly buckets: readonly number[]
}

/** Durations in buckets. All the numbers stand in one array from the start: observing allocates nothing. */
export class Durations {
  /** The buckets, then the sum. As doubles: 32 bits are full after five days of 10 000 requests a second. */
  readonly #numbers = new Float64Array(DURATION_BOUNDS_MS.length + 2)

  observe(ms: number): void {
    let bucket = 0
    while (bucket < DURATION_BOUNDS_MS.length && ms > DURATION_BOUNDS_MS[bucket]!) bucket++
    this.#numbers[bucket]!++
    this.#numbers[this.#numbers.length - 1]! += ms
  }

  read(): DurationStats {
    const buckets: number[] = []
    let count = 0
    for (let bucket = 0; bucket <= DURATION_BOUNDS_MS.length; bucket++)
      count += buckets[bucket] = this.#numbers[bucket]!
    return { count, sumMs: this.#numbers[DURATION_BOUNDS_MS.length + 1]!, boundsMs: DURATION_BOUNDS_MS, buckets }
  }
}

/** How long the attempts of a backend or of a pool took. */
export class Times {
  /** Each attempt from its pick to its end. */
  readonly whole: Durations = new Durations()
  /** From the pick to the first byte of the body; of an answer without any to the head. Failures before that are not in it. */
  readonly firstByte: Durations = new Durations()

  /** The attempt has ended. */
  add({ startMs, headMs, firstByteMs, endMs }: Attempt): void {
    this.whole.observe(endMs - startMs)
    const firstMs = firstByteMs >= 0 ? firstByteMs : headMs
    if (firstMs >= 0) this.firstByte.observe(firstMs - startMs)
  }
}
