import { CircuitState, ConsecutiveBreaker, CountBreaker } from 'cockatiel'
import type { BreakerSettings } from '../core/options.ts'

/** Decides when a closed breaker opens. It learns one outcome at a time, in the order of their ends. */
export interface TripRule {
  success(nowMs: number): void
  /** Why it trips now, in words; undefined = it does not. */
  failure(nowMs: number): string | undefined
  /** What it remembers. */
  export(nowMs: number): TripState
}

/** What a trip rule remembers: plain data. */
export type TripState =
  | {
      readonly trip: 'consecutive'
      /** In a row, up to now. */
      readonly failures: number
    }
  | {
      readonly trip: 'count'
      /** Oldest first; true = success. */
      readonly outcomes: readonly boolean[]
    }
  | { readonly trip: 'window'; readonly buckets: readonly TripBucket[] }

/** Outcomes of a part of the window. */
export interface TripBucket {
  /** Since its first outcome, ms. */
  readonly ageMs: number
  readonly successes: number
  readonly failures: number
}

/** A window has at least so many buckets, and none is longer than a second: what expires, expires in small parts. */
const LEAST_BUCKETS = 5
const LONGEST_BUCKET_MS = 1_000

/** A fresh rule, or one that goes on from what another of its kind remembered. */
export function tripRule(settings: BreakerSettings, nowMs: number, seen?: TripState): TripRule {
  switch (settings.trip) {
    case 'consecutive':
      return inARow(settings, seen)
    case 'count':
      return ofTheLast(settings, seen)
    case 'window':
      return new TimeWindow(settings, nowMs, seen)
  }
}

function inARow({ consecutive }: BreakerSettings, seen: TripState | undefined): TripRule {
  const breaker = new ConsecutiveBreaker(consecutive)
  if (seen?.trip === 'consecutive') breaker.state = seen.failures
  return {
    success: () => breaker.success(),
    failure: () => (breaker.failure() ? `${breaker.state} failures in a row` : undefined),
    export: () => ({ trip: 'consecutive', failures: breaker.state }),
  }
}

/** What `CountBreaker` says of itself; its type is `unknown`. */
interface CountState {
  readonly samples: readonly (boolean | null)[]
  /** Index of the oldest sample. */
  readonly currentSample: number
  readonly failures: number
}

function ofTheLast({ threshold, size }: BreakerSettings, seen: TripState | undefined): TripRule {
  const breaker = new CountBreaker({ threshold, size })
  const success = (): void => breaker.success(CircuitState.Closed)
  const failure = (): boolean => breaker.failure(CircuitState.Closed)
  if (seen?.trip === 'count') for (const good of seen.outcomes) good ? success() : failure()
  const state = (): CountState => breaker.state as CountState
  return {
    success,
    failure: () => (failure() ? `${state().failures} of the last ${size} requests failed` : undefined),
    export() {
      const { samples, currentSample } = state()
      const inOrder = [...samples.slice(currentSample), ...samples.slice(0, currentSample)]
      return { trip: 'count', outcomes: inOrder.filter((it) => it !== null) }
    },
  }
}

interface Bucket {
  readonly startMs: number
  successes: number
  failures: number
}

/**
 * A share of the outcomes of the last `windowMs`. A bucket goes as a whole when its first outcome is that old, whether or not
 * anything came since: nothing older ever counts. Only times with outcomes have buckets, and each is added and dropped once.
 */
class TimeWindow implements TripRule {
  readonly #settings: BreakerSettings
  readonly #bucketMs: number
  #buckets: Bucket[] = []
  #successes = 0
  #failures = 0

  constructor(settings: BreakerSettings, nowMs: number, seen: TripState | undefined) {
    const { windowMs } = settings
    this.#settings = settings
    this.#bucketMs = windowMs / Math.max(LEAST_BUCKETS, Math.ceil(windowMs / LONGEST_BUCKET_MS))
    if (seen?.trip !== 'window') return
    for (const { ageMs, successes, failures } of seen.buckets) {
      this.#buckets.push({ startMs: nowMs - ageMs, successes, failures })
      this.#successes += successes
      this.#failures += failures
    }
    this.#buckets.sort((a, b) => a.startMs - b.startMs)
  }

  success(nowMs: number): void {
    this.#at(nowMs).successes++
    this.#successes++
  }

  failure(nowMs: number): string | undefined {
    this.#at(nowMs).failures++
    this.#failures++
    const { threshold, minRequests, windowMs } = this.#settings
    const total = this.#successes + this.#failures
    if (total < minRequests || this.#failures <= threshold * total) return undefined
    return `${this.#failures} of ${total} requests failed within ${windowMs} ms`
  }

  export(nowMs: number): TripState {
    this.#expire(nowMs)
    const buckets = this.#buckets.map(({ startMs, ...counts }) => ({ ageMs: Math.max(0, nowMs - startMs), ...counts }))
    return { trip: 'window', buckets }
  }

  #at(nowMs: number): Bucket {
    this.#expire(nowMs)
    const last = this.#buckets.at(-1)
    if (last !== undefined && nowMs - last.startMs < this.#bucketMs) return last
    const next = { startMs: nowMs, successes: 0, failures: 0 }
    this.#buckets.push(next)
    return next
  }

  #expire(nowMs: number): void {
    while (this.#buckets.length > 0 && nowMs - this.#buckets[0]!.startMs >= this.#settings.windowMs) {
      const { successes, failures } = this.#buckets.shift()!
      this.#successes -= successes
      this.#failures -= failures
    }
  }
}
