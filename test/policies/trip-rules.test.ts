import type { TripState } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BREAKER_DEFAULTS, type BreakerSettings } from '../../src/core/options.ts'
import { type TripRule, tripRule } from '../../src/policies/trip-rules.ts'

const HOUR_MS = 3_600_000

function rule(settings: Partial<BreakerSettings>, seen?: TripState, nowMs = 0): TripRule {
  return tripRule({ ...BREAKER_DEFAULTS, ...settings }, nowMs, seen)
}

/** One outcome; whether it tripped. */
function feed(it: TripRule, good: boolean, nowMs = 0): boolean {
  if (!good) return it.failure(nowMs) !== undefined
  it.success(nowMs)
  return false
}

/** By sfc32 under a seed: true so often. */
function coin(seed: number): (share: number) => boolean {
  const random = seededRandom(seed)
  return (share) => random(1_000_000) < share * 1_000_000
}

function countsOf(it: TripRule, nowMs: number): { successes: number; failures: number; buckets: number } {
  const state = it.export(nowMs)
  if (state.trip !== 'window') throw new Error('no window')
  const sum = (key: 'successes' | 'failures'): number => state.buckets.reduce((total, bucket) => total + bucket[key], 0)
  return { successes: sum('successes'), failures: sum('failures'), buckets: state.buckets.length }
}

describe('failures in a row', () => {
  test('trip at the last of them, and a success starts the row anew', () => {
    const it = rule({ trip: 'consecutive', consecutive: 3 })
    for (const good of [false, false, true, false, false]) expect(feed(it, good)).toBe(false)
    expect(it.failure(0)).toBe('3 failures in a row')
  })

  // The mean time to a row of n failures of probability p is (p^-n - 1) / (1 - p).
  test.each([
    { share: 0.5, mean: 62, rows: 20_000, bound: 0.03 },
    { share: 0.3, mean: 586, rows: 3_000, bound: 0.08 },
    { share: 0.1, mean: 111_110, rows: 100, bound: 0.4 },
  ])('of $share failures: a false trip every $mean requests, within four standard errors', (row) => {
    expect((row.share ** -5 - 1) / (1 - row.share)).toBeCloseTo(row.mean, -1)
    const heads = coin(7)
    let requests = 0
    for (let trips = 0; trips < row.rows; trips++) {
      const it = rule({ trip: 'consecutive', consecutive: 5 })
      do requests++
      while (!feed(it, !heads(row.share)))
    }
    expect(Math.abs(requests / row.rows / row.mean - 1)).toBeLessThan(row.bound)
  })
})

describe('a share of the last requests', () => {
  test('says nothing before there are enough of them, and trips above the threshold, not at it', () => {
    const it = rule({ trip: 'count', size: 20 })
    for (let i = 0; i < 19; i++) expect(feed(it, i >= 10)).toBe(false)
    expect(feed(it, false)).toBe(true) // 11 of 20
    const even = rule({ trip: 'count', size: 20 })
    for (let i = 0; i < 20; i++) expect(feed(even, i < 10)).toBe(false) // 10 of 20
    expect(feed(even, false)).toBe(true) // in the place of the oldest success: 11 of 20
  })

  test('forgets what is further back', () => {
    const it = rule({ trip: 'count', size: 20 })
    for (let i = 0; i < 10; i++) feed(it, false)
    for (let i = 0; i < 20; i++) feed(it, true)
    for (let i = 0; i < 10; i++) expect(feed(it, false)).toBe(false)
    expect(it.failure(0)).toBe('11 of the last 20 requests failed')
  })

  // Its successes first, so that a full window above the threshold trips at its last request. Bounds: four standard errors.
  test.each([
    { size: 20, share: 0.1, odds: 7e-7, windows: 100_000, bound: 1.1e-5 },
    { size: 20, share: 0.25, odds: 0.0039, windows: 100_000, bound: 0.0008 },
    { size: 20, share: 0.4, odds: 0.128, windows: 100_000, bound: 0.0043 },
    { size: 100, share: 0.25, odds: 2e-8, windows: 20_000, bound: 5e-5 },
    { size: 100, share: 0.4, odds: 0.0168, windows: 20_000, bound: 0.0037 },
  ])('of $size at $share failures trips with a probability of $odds', ({ size, share, odds, windows, bound }) => {
    const heads = coin(11)
    let trips = 0
    for (let i = 0; i < windows; i++) {
      const it = rule({ trip: 'count', size })
      let failures = 0
      for (let n = 0; n < size; n++) if (heads(share)) failures++
      for (let n = failures; n < size; n++) feed(it, true)
      for (let n = 0; n < failures; n++) if (feed(it, false)) trips++
    }
    expect(Math.abs(trips / windows - odds)).toBeLessThan(bound)
  })
})

describe('a share of the last time', () => {
  test('needs its number of requests, and more than its share of failures', () => {
    const it = rule({ trip: 'window', minRequests: 20 })
    for (let i = 0; i < 19; i++) expect(feed(it, false, i)).toBe(false)
    expect(it.failure(19)).toBe('20 of 20 requests failed within 30000 ms')
    const even = rule({ trip: 'window', minRequests: 20 })
    for (let i = 0; i < 200; i++) expect(feed(even, i % 2 === 0, i)).toBe(false)
    expect(feed(even, false, 200)).toBe(true) // 101 of 201
  })

  test('a quiet hour empties it: failures from before never count', () => {
    const it = rule({ trip: 'window' })
    for (let i = 0; i < 300; i++) feed(it, false, i * 100)
    expect(countsOf(it, 30_000).failures).toBeGreaterThan(280)
    expect(countsOf(it, HOUR_MS - 1)).toEqual({ successes: 0, failures: 0, buckets: 0 })
    expect(feed(it, false, HOUR_MS)).toBe(false)
    expect(countsOf(it, HOUR_MS)).toEqual({ successes: 0, failures: 1, buckets: 1 })
    for (let i = 0; i < 18; i++) expect(feed(it, false, HOUR_MS + i)).toBe(false)
    expect(feed(it, false, HOUR_MS + 18)).toBe(true)
  })

  test('holds what happened within the window, and at most one bucket of it is gone early', () => {
    const outcome = fc.record({
      afterMs: fc.oneof(fc.nat(50), fc.nat(2_000), fc.nat(40_000)),
      good: fc.boolean(),
    })
    fc.assert(
      fc.property(
        fc.constantFrom(1, 100, 5_000, 30_000, 60_500),
        fc.array(outcome, { maxLength: 200 }),
        (windowMs, story) => {
          const it = rule({ trip: 'window', windowMs, minRequests: 5 })
          const parts = Math.max(5, Math.ceil(windowMs / 1_000))
          const all: { readonly atMs: number; readonly good: boolean }[] = []
          let nowMs = 0
          for (const { afterMs, good } of story) {
            nowMs += afterMs
            const tripped = feed(it, good, nowMs)
            all.push({ atMs: nowMs, good })
            const within = (ms: number, kind: boolean): number =>
              all.filter((past) => past.good === kind && nowMs - past.atMs < ms).length
            const { successes, failures, buckets } = countsOf(it, nowMs)
            const surelyMs = windowMs - windowMs / parts
            for (const [counted, kind] of [
              [successes, true],
              [failures, false],
            ] as const) {
              expect(counted).toBeGreaterThanOrEqual(within(surelyMs, kind))
              expect(counted).toBeLessThanOrEqual(within(windowMs, kind))
            }
            expect(buckets).toBeLessThanOrEqual(parts)
            const total = successes + failures
            expect(tripped).toBe(!good && total >= 5 && failures > total / 2)
          }
        },
      ),
      { numRuns: 200 },
    )
  })
})

test.each(['consecutive', 'count', 'window'] as const)(
  '%s goes on from its own state as if nothing had been',
  (trip) => {
    const outcome = fc.record({ afterMs: fc.nat(1_500), good: fc.boolean() })
    const story = fc.array(outcome, { maxLength: 60 })
    const settings = { trip, size: 7, consecutive: 3, windowMs: 10_000, minRequests: 6 }
    fc.assert(
      fc.property(story, story, (before, after) => {
        const first = rule(settings)
        let nowMs = 0
        for (const { afterMs, good } of before) {
          nowMs += afterMs
          feed(first, good, nowMs)
        }
        const seen = JSON.parse(JSON.stringify(first.export(nowMs))) as TripState
        const awayMs = 12_345 // another process's clock
        const second = rule(settings, seen, nowMs + awayMs)
        expect(second.export(nowMs + awayMs)).toEqual(first.export(nowMs))
        for (const { afterMs, good } of after) {
          nowMs += afterMs
          expect(feed(second, good, nowMs + awayMs)).toBe(feed(first, good, nowMs))
        }
      }),
    )
  },
)

test('a rule given the state of another begins anew', () => {
  const seen: TripState = { trip: 'consecutive', failures: 4 }
  expect(rule({ trip: 'window' }, seen).export(0)).toEqual({ trip: 'window', buckets: [] })
})
