import { type Backend, BalancerError, byInflight, least, p2c, random } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import type { BackendRecord } from '../src/core/backend.ts'
import { byExpectedDelay } from '../src/strategies/prefer.ts'
import { backends, CHI_5, CHI_9, chiSquare, counts, spying, started, supermarket } from './support/picking.ts'

describe('balls into bins', () => {
  const n = 65_536

  test.each([
    ['one choice', 6, 11, random],
    ['two choices', 3, 4, () => p2c(byInflight)],
    ['three choices', 3, 4, () => p2c(byInflight, { choices: 3 })],
  ])('%s: the fullest of 65 536 has from %d to %d balls, seeds 1 to 10', (_, fewest, most, make) => {
    const list = backends(Array(n).fill(1))
    for (let seed = 1; seed <= 10; seed++) {
      for (const backend of list) backend.inflight = 0
      const pick = started(make(), seededRandom(seed))(list)
      for (let i = 0; i < n; i++) (pick() as BackendRecord).inflight++
      const fullest = list.reduce((max, { inflight }) => Math.max(max, inflight), 0)
      expect(fullest).toBeGreaterThanOrEqual(fewest)
      expect(fullest).toBeLessThanOrEqual(most)
    }
  })
})

describe('the supermarket model at 90 % load: mean time within 2 % of what it should be, seed 1', () => {
  test.each([
    ['100 queues, two choices', 100, 2, 2.663],
    ['100 queues, three choices', 100, 3, 2.074],
    ['10 queues, two choices', 10, 2, 2.98],
  ])('%s', (_, n, choices, meant) => {
    const strategy = p2c(byInflight, { choices })
    const { meanTime } = supermarket(strategy, Array(n).fill(1), { load: 0.9, events: 4_000_000 })
    expect(Math.abs(meanTime / meant - 1)).toBeLessThan(0.02)
  })
})

describe('candidates drawn by weight', () => {
  // One of weight 1/2 among n - 1 of weight 1: how often it is one of two distinct candidates, relative to the others.
  test.each([
    [2, 1],
    [3, 0.609],
    [4, 0.559],
    [6, 0.531],
    [10, 0.516],
  ])('of %d backends the one of half the weight is a candidate %d times as often, to 2 in 100', (n, ratio) => {
    const list = backends([0.5, ...Array(n - 1).fill(1)])
    const seen = new Map<Backend, number>()
    const spy = spying((a, b) => {
      for (const backend of [a, b]) seen.set(backend, (seen.get(backend) ?? 0) + 1)
    })
    counts(started(p2c(spy), seededRandom(7))(list), list, 300_000)
    const others = list.slice(1).reduce((sum, backend) => sum + seen.get(backend)!, 0) / (n - 1)
    expect(Math.abs(seen.get(list[0]!)! / others / ratio - 1)).toBeLessThan(0.02)
  })
})

describe('more than two choices', () => {
  test('are in the name', () => {
    expect(p2c(byInflight, { choices: 3 }).name).toBe('p2c(byInflight, 3)')
    expect(p2c(byInflight, { choices: 2 }).name).toBe('p2c(byInflight)')
  })

  test.each([1, 0, -2, 2.5, Number.NaN, Number.POSITIVE_INFINITY])('may not be %d', (choices) => {
    expect(() => p2c(byInflight, { choices })).toThrow(BalancerError)
    expect(() => p2c(byInflight, { choices })).toThrow(`p2c: choices: expected a whole number >= 2, got ${choices}`)
  })

  test('are distinct and each as likely while the weights are equal: chi-square over 200 000 picks, seed 2', () => {
    const list = backends(Array(5).fill(1))
    const sets = new Map<string, number>()
    let met: string[] = []
    const spy = spying((a, b) => {
      if (met.length === 0) met.push(a.id)
      met.push(b.id)
    })
    const pick = started(p2c(spy, { choices: 3 }), seededRandom(2))(list)
    for (let i = 0; i < 200_000; i++) {
      met = []
      pick()
      expect(new Set(met).size).toBe(3)
      const key = met.sort().join('')
      sets.set(key, (sets.get(key) ?? 0) + 1)
    }
    expect(sets.size).toBe(10)
    expect(chiSquare([...sets.values()], Array(10).fill(1))).toBeLessThan(CHI_9)
  })

  test('are everybody when there are no more: the best is never missed', () => {
    const list = backends(Array(6).fill(1))
    for (const [i, backend] of list.entries()) backend.inflight = 6 - i
    expect(counts(started(p2c(byInflight, { choices: 9 }))(list), list, 1_000)[5]).toBe(1_000)
  })

  test('keep to the weights while the pool is idle: chi-square over 1 000 000 picks, seed 42', () => {
    for (const weights of [
      [1, 2, 3, 4, 0.5, 10],
      [1, 1, 1, 1, 1, 1],
    ]) {
      const list = backends(weights)
      const picked = counts(started(p2c(byInflight, { choices: 3 }))(list), list, 1_000_000)
      expect(chiSquare(picked, weights), `weights ${weights}`).toBeLessThan(CHI_5)
    }
  })

  test('take one, or the better one of two, when there are no more', () => {
    const list = backends([1, 5])
    list[1]!.inflight = 100
    const build = started(p2c(byInflight, { choices: 4 }))
    expect(counts(build(list), list, 100)).toEqual([100, 0])
    expect(build(list.slice(1))()).toBe(list[1])
    expect(build([])()).toBeUndefined()
  })
})

describe('least with weights', () => {
  test('keeps to them while the pool is idle: chi-square over 1 000 000 picks, seeds 1 to 3', () => {
    for (const weights of [
      [1, 2, 3, 4, 0.5, 10],
      [10, 1, 1, 1, 1, 1],
    ]) {
      for (const seed of [1, 2, 3]) {
        const list = backends(weights)
        const picked = counts(started(least(byInflight), seededRandom(seed))(list), list, 1_000_000)
        expect(chiSquare(picked, weights), `weights ${weights}, seed ${seed}`).toBeLessThan(CHI_5)
      }
    }
  })

  test('keeps to them at every load, within 2 points for each, and beats p2c at 90 %, seed 1', () => {
    const weights = [1, 2, 3, 4, 1, 2, 3, 4]
    for (const load of [0.05, 0.5, 0.7, 0.9]) {
      const { shares } = supermarket(least(byInflight), weights, { load, events: 400_000 })
      for (const [i, share] of shares.entries()) expect(Math.abs(share - weights[i]! / 20)).toBeLessThan(0.02)
    }
    const measured = { load: 0.9, events: 400_000 }
    const best = supermarket(least(byInflight), weights, measured).meanTime
    expect(best / supermarket(p2c(byInflight), weights, measured).meanTime).toBeLessThan(0.85)
  })
})

describe('by expected delay', () => {
  test.each([
    [[0, 1], [0, 1], 0],
    [[0, 1], [0, 2], 1],
    [[0, 1], [1, 2], 0],
    [[0, 1], [2, 2], 0],
    [[0, 1], [0, 1.5], 1],
    [[4, 2], [2, 1], 0],
    [[3, 2], [1, 1], 0],
    [[3, 1], [2, 1], 1],
  ] as const)('in flight and weight %j or %j: the one at %d', (first, second, better) => {
    const [a, b] = backends([first[1], second[1]]) as [BackendRecord, BackendRecord]
    a.inflight = first[0]
    b.inflight = second[0]
    expect(byExpectedDelay(a, b)).toBe([a, b][better])
  })

  test('is quicker than by requests in flight at half load, by a tenth at least, and no quicker at 90 %, seed 1', () => {
    const weights = [1, 2, 3, 4, 1, 2, 3, 4]
    const ratio = (load: number): number => {
      const measured = { load, events: 400_000 }
      const own = supermarket(least(byExpectedDelay), weights, measured).meanTime
      return own / supermarket(least(byInflight), weights, measured).meanTime
    }
    expect(ratio(0.5)).toBeLessThan(0.9)
    expect(ratio(0.9)).toBeGreaterThan(1)
  })
})
