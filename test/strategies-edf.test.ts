import assert from 'node:assert/strict'
import { type Backend, BalancerError, weightedRoundRobin } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { BackendRecord } from '../src/core/backend.ts'
import { edf } from '../src/strategies/edf.ts'
import { backends, CHI_5, chiSquare, counts, highest, picks, reweigh, started, supermarket } from './support/picking.ts'
import { endpoint, bench as poolBench } from './support/pool-bench.ts'

const weight = fc.integer({ min: 1, max: 20 })

/** The furthest each was from its share after any of n picks, in picks. */
function lags(pick: () => Backend, list: readonly BackendRecord[], n: number): number[] {
  const total = list.reduce((sum, it) => sum + it.weight, 0)
  const served = new Map<Backend, number>()
  const worst = list.map(() => 0)
  for (let i = 1; i <= n; i++) {
    const picked = pick()
    served.set(picked, (served.get(picked) ?? 0) + 1)
    for (const [at, backend] of list.entries()) {
      worst[at] = Math.max(worst[at]!, Math.abs((served.get(backend) ?? 0) - (i * backend.weight) / total))
    }
  }
  return worst
}

/** A turn of its own, and at most one of each other's in proportion: what a random start may cost. */
function bounds(list: readonly BackendRecord[]): number[] {
  const total = list.reduce((sum, it) => sum + it.weight, 0)
  return list.map((it) => 1 + (list.length * it.weight) / total + 1e-9)
}

describe('earliest deadline first', () => {
  test.each([
    [[5, 1, 1], 'aaaabca'],
    [[1, 2, 3], 'cbcabc'],
    [[1, 1, 1], 'abc'],
    [[0.5, 0.1, 0.1], 'aaaabca'],
  ])('serves weights %j as %s over and over, when everybody starts together', (weights, period) => {
    expect(picks(started(edf(), highest)(backends(weights)), 3 * period.length)).toBe(period.repeat(3))
  })

  test('gives weights 5, 1 and 1 exactly 5 000, 1 000 and 1 000 of 7 000 picks', () => {
    const list = backends([5, 1, 1])
    expect(counts(started(edf(), highest)(list), list, 7_000)).toEqual([5_000, 1_000, 1_000])
  })

  test('lags by less than 3 requests in 200 sets of weights, 500 picks each, seed 12, when everybody starts together', () => {
    const random = seededRandom(12)
    let worst = 0
    for (let set = 0; set < 200; set++) {
      const list = backends(Array.from({ length: 2 + random(7) }, () => 1 + random(10)))
      worst = Math.max(worst, ...lags(started(edf(), highest)(list), list, 500))
    }
    expect(worst).toBeLessThan(3)
    expect(worst).toBeGreaterThan(1) // burstier than smooth weighted round robin
  })

  test('is never further from its share than a turn of its own and one of each other, wherever it starts', () => {
    fc.assert(
      fc.property(fc.array(weight, { minLength: 2, maxLength: 12 }), fc.nat(), (weights, seed) => {
        const list = backends(weights)
        const worst = lags(started(edf(), seededRandom(seed))(list), list, 300)
        const most = bounds(list)
        for (const [i, lag] of worst.entries()) expect(lag).toBeLessThanOrEqual(most[i]!)
      }),
      { numRuns: 500, seed: 4 },
    )
  })

  test('keeps to the weights of 1 000 backends, fractions too', () => {
    const random = seededRandom(3)
    const list = backends(Array.from({ length: 1_000 }, () => (1 + random(1_000)) / 37))
    const total = list.reduce((sum, it) => sum + it.weight, 0)
    const picked = counts(started(edf())(list), list, 200_000)
    const most = bounds(list)
    for (const [i, n] of picked.entries()) {
      expect(Math.abs(n - (200_000 * list[i]!.weight) / total)).toBeLessThanOrEqual(most[i]!)
    }
  })

  test('keeps its order and its shares for as long as it runs: the millionth period is as the first', () => {
    const list = backends([2, 1])
    const pick = started(edf(), highest)(list)
    const first = picks(pick, 3)
    expect(counts(pick, list, 2_999_994)).toEqual([1_999_996, 999_998])
    expect(picks(pick, 3)).toBe(first)
  })

  test('starts anywhere: the first pick is uniform over 6 000 seeds, chi-square under the bound for p = 1e-4', () => {
    const list = backends(Array(6).fill(1))
    const first = list.map(() => 0)
    for (let seed = 1; seed <= 6_000; seed++)
      first[list.indexOf(started(edf(), seededRandom(seed))(list)() as never)]!++
    expect(chiSquare(first, Array(6).fill(1))).toBeLessThan(CHI_5)
  })

  test('goes on where it was when the same members are published again, between all picks', () => {
    const list = backends([5, 3, 1, 0.5])
    const build = started(edf(), seededRandom(8))
    const again = Array.from({ length: 200 }, () => build(list)().id).join('')
    expect(again).toBe(picks(started(edf(), seededRandom(8))(list), 200))
  })

  test.each([
    ['it', edf],
    ['weighted round robin', weightedRoundRobin],
  ])('%s forgets a change that was tried but not made', (_, make) => {
    const list = backends([5, 3, 1])
    const build = started(make(), seededRandom(8))
    const pick = build(list)
    const served = picks(pick, 5)
    build([...backends([1, 1]), list[0]!])
    const more = picks(pick, 5)
    const whole = picks(started(make(), seededRandom(8))(list), 40)
    expect(served + more + picks(build(list), 30)).toBe(whole)
  })

  test('an old picker goes on over its own members while a change is tried', () => {
    const list = backends([2, 1, 1])
    const build = started(edf())
    const pick = build(list)
    build(list.slice(0, 2))
    expect(counts(pick, list, 4_000)).toEqual([2_000, 1_000, 1_000])
  })

  test('a new weight holds at once: nobody waits out a turn that its old weight would have made long', () => {
    const list = backends([1, 1, 0.001])
    const build = started(edf(), highest)
    picks(build(list), 10)
    reweigh(list[2]!, 1)
    expect(counts(build(list), list, 9)).toEqual([3, 3, 3])
  })

  test('keeps to the shares after any changes of weights and members', () => {
    const change = fc.record({
      weights: fc.array(weight, { minLength: 5, maxLength: 5 }),
      in: fc.subarray([0, 1, 2, 3, 4], { minLength: 2 }),
      picks: fc.integer({ min: 0, max: 40 }),
    })
    fc.assert(
      fc.property(fc.array(change, { minLength: 2, maxLength: 8 }), fc.nat(), (changes, seed) => {
        const all = backends([1, 1, 1, 1, 1])
        const build = started(edf(), seededRandom(seed))
        for (const it of changes) {
          for (const [i, backend] of all.entries()) reweigh(backend, it.weights[i]!)
          const list = it.in.map((i) => all[i]!)
          const worst = lags(build(list), list, it.picks)
          const most = bounds(list)
          for (const [i, lag] of worst.entries()) expect(lag).toBeLessThanOrEqual(most[i]!)
        }
      }),
      { numRuns: 500, seed: 9 },
    )
  })

  test('a newcomer gets its share and no burst: 2 of 8 picks or one more or less, 200 seeds', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const list = backends([1, 1, 1, 1])
      const build = started(edf(), seededRandom(seed))
      picks(build(list.slice(0, 3)), 300)
      const newcomer = counts(build(list), list, 8)[3]!
      expect(Math.abs(newcomer - 2)).toBeLessThanOrEqual(1)
    }
  })

  test('bears weights of any size: the heaviest is served, the others as they may', () => {
    const list = backends([1e300, 5e299, 1e-300, Number.MIN_VALUE])
    expect(counts(started(edf(), highest)(list), list, 900_000)).toEqual([600_000, 300_000, 0, 0])
    const light = backends([2 * Number.MIN_VALUE, Number.MIN_VALUE])
    expect(counts(started(edf(), highest)(light), light, 300)).toEqual([200, 100])
  })

  test('serves nobody of weight 0 in a pool, from the start or weighed down later', async () => {
    const { pool, callOf, clock, backend } = poolBench(
      [endpoint('a', { weight: 0 }), endpoint('b', { weight: 2 }), endpoint('c')],
      { strategy: edf() },
    )
    const met = (): string => [...new Set(Array.from({ length: 200 }, () => pool.pick(callOf())!.id))].sort().join('')
    expect(met()).toBe('bc')
    pool.weigh(backend('c'), 'slow start', 0)
    await clock.advance(100)
    expect(met()).toBe('b')
  })

  test('needs no chance for a single one', () => {
    const list = backends([3])
    expect(started(edf(), () => assert.fail('a draw'))(list)()).toBe(list[0])
  })
})

describe('earliest deadline first with a bias to the less loaded', () => {
  test.each([
    ['as in the example of Envoy: weight 2, 4 in flight, bias 1 make 0.4', 1, 0.4],
    ['with bias 2 the same make 0.08', 2, 0.08],
    ['with bias 0 they make 2', 0, 2],
    ['with bias 0.5 they make 2 / sqrt(5)', 0.5, 2 / Math.sqrt(5)],
  ])('%s', (_, bias, effective) => {
    const list = backends([2, 1])
    list[0]!.inflight = 4
    const picked = counts(started(edf({ bias }))(list), list, 100_000)
    expect(picked[0]! / picked[1]!).toBeCloseTo(effective, 3)
  })

  test('is named after its bias', () => {
    expect([edf().name, edf({ bias: 1 }).name]).toEqual(['edf', 'edf(1)'])
  })

  test('keeps to the weights while the pool is idle', () => {
    const list = backends([5, 1, 1])
    expect(counts(started(edf({ bias: 1 }), highest)(list), list, 7_000)).toEqual([5_000, 1_000, 1_000])
  })

  test('goes on where it was when the same members are published again, between all picks, under load', () => {
    const list = backends([5, 3, 1, 0.5])
    for (const [i, backend] of list.entries()) backend.inflight = i
    const build = started(edf({ bias: 1 }), seededRandom(8))
    const again = Array.from({ length: 200 }, () => build(list)().id).join('')
    expect(again).toBe(picks(started(edf({ bias: 1 }), seededRandom(8))(list), 200))
  })

  test('makes queues shorter than turns by weight alone: by a tenth at least at 70 % load, by a third at 90 %, seed 1', () => {
    const weights = [1, 2, 3, 4, 1, 2, 3, 4]
    for (const [load, most] of [
      [0.7, 0.9],
      [0.9, 0.67],
    ] as const) {
      const biased = supermarket(edf({ bias: 1 }), weights, { load, events: 300_000 })
      const plain = supermarket(weightedRoundRobin(), weights, { load, events: 300_000 })
      expect(biased.meanTime / plain.meanTime).toBeLessThan(most)
      for (const [i, share] of biased.shares.entries()) expect(Math.abs(share - weights[i]! / 20)).toBeLessThan(0.01)
    }
  })

  test('bears a bias and a load without measure', () => {
    const list = backends([1, 1, 1])
    list[0]!.inflight = 1e9
    const pick = started(edf({ bias: 1_000 }), highest)(list)
    expect(
      counts(pick, list, 1_000)
        .slice(1)
        .every((n) => n > 400),
    ).toBe(true)
  })

  test.each([-1, Number.NaN])('refuses a bias of %d', (bias) => {
    expect(() => edf({ bias })).toThrow(BalancerError)
    expect(() => edf({ bias })).toThrow(`edf: bias: expected a finite number >= 0, got ${bias}`)
  })
})
