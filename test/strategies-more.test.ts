import assert from 'node:assert/strict'
import {
  type Backend,
  byInflight,
  byPeakEwma,
  createBalancer,
  least,
  memory,
  type Prefer,
  random,
  type Strategy,
  type StrategyName,
  weightedRandom,
  weightedRoundRobin,
} from 'evenkeel'
import { manualClock, seededRandom, strategyContract } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { BackendRecord } from '../src/core/backend.ts'
import type { Picker, Random } from '../src/core/contracts.ts'
import { backendsOf, callOf, coreOf, membersOf } from '../src/testing/kit.ts'
import { CHI_5, chiSquare, counts as countsOf } from './support/picking.ts'
import { endpoint, bench as poolBench } from './support/pool-bench.ts'

const call = callOf(0)
/** Bounds of Pearson's statistic for p = 1e-4, by degrees of freedom. */
const CHI_2 = 18.4
const CHI_7 = 29.9

/** Backends named a, b, c, ... with the given weights. */
function backends(weights: readonly number[]): BackendRecord[] {
  return backendsOf(weights.map((weight, i) => ({ url: `http://host-${i}.test`, id: nameOf(i), weight })))
}

function nameOf(i: number): string {
  return String.fromCharCode(97 + i)
}

function reweigh(backend: BackendRecord, weight: number): void {
  backend.endpoint = { ...backend.endpoint, weight }
  backend.reweigh()
}

/** A strategy at work: give it who is eligible, get a picker. */
function started(strategy: Strategy, chance: Random = seededRandom(42)): (list: readonly Backend[]) => Picker {
  let members = membersOf([])
  const chooser = strategy.start(coreOf(manualClock(), chance, () => members))
  return (list) => {
    members = membersOf(list)
    return chooser.build(members)
  }
}

function picks(picker: Picker, n: number): string {
  return Array.from({ length: n }, () => picker(call)!.id).join('')
}

function counts(picker: Picker, list: readonly Backend[], n: number): number[] {
  return countsOf(() => picker(call)!, list, n)
}

/** The furthest anybody was from its share after any of n picks, in picks. */
function worstLag(picker: Picker, list: readonly BackendRecord[], n: number): number {
  const total = list.reduce((sum, { weight }) => sum + weight, 0)
  const served = new Map<Backend | undefined, number>()
  let worst = 0
  for (let i = 1; i <= n; i++) {
    const picked = picker(call)
    served.set(picked, (served.get(picked) ?? 0) + 1)
    for (const backend of list) {
      worst = Math.max(worst, Math.abs((served.get(backend) ?? 0) - (i * backend.weight) / total))
    }
  }
  return worst
}

/** Rounding of sums of thousands of fractions. */
const ROUNDING = 1e-9
const weight = fc.integer({ min: 1, max: 20 })

describe('weighted round robin', () => {
  test.each([
    [[5, 1, 1], 'aabacaa'],
    [[4, 2, 1], 'abacaba'],
    [[3, 2], 'ababa'],
    [[1, 2, 3], 'cbacbc'],
    [[1, 1, 1], 'abc'],
    [[1], 'a'],
  ])('serves weights %j as %s, over and over', (weights, period) => {
    expect(picks(started(weightedRoundRobin())(backends(weights)), 3 * period.length)).toBe(period.repeat(3))
  })

  test('gives exact shares in each period, whatever the weights', () => {
    fc.assert(
      fc.property(fc.array(weight, { minLength: 1, maxLength: 12 }), (weights) => {
        const list = backends(weights)
        const picker = started(weightedRoundRobin())(list)
        const total = weights.reduce((sum, one) => sum + one, 0)
        for (let period = 0; period < 3; period++) expect(counts(picker, list, total)).toEqual(weights)
      }),
      { numRuns: 300, seed: 7 },
    )
  })

  test('is never more than one request ahead of or behind its share', () => {
    fc.assert(
      fc.property(fc.array(weight, { minLength: 2, maxLength: 8 }), (weights) => {
        const list = backends(weights)
        const total = weights.reduce((sum, one) => sum + one, 0)
        expect(worstLag(started(weightedRoundRobin())(list), list, 2 * total)).toBeLessThanOrEqual(1 + ROUNDING)
      }),
      { numRuns: 1_000, seed: 8 },
    )
  })

  test('takes fractions as weights', () => {
    const list = backends([0.5, 10, 1, 0.1])
    const picker = started(weightedRoundRobin())(list)
    expect(counts(picker, list, 1_160)).toEqual([50, 1_000, 100, 10])
  })

  test('goes on where it was when the same members are published again, between all picks', () => {
    const list = backends([5, 1, 1])
    const build = started(weightedRoundRobin())
    expect(Array.from({ length: 14 }, () => build(list)(call)!.id).join('')).toBe('aabacaaaabacaa')
  })

  test('goes on from where it was after a change of a weight: nobody is served twice for what it had', () => {
    const list = backends([1, 1, 1])
    const build = started(weightedRoundRobin())
    expect(picks(build(list), 2)).toBe('ab')
    reweigh(list[0]!, 2)
    expect(picks(build(list), 1)).toBe('c') // its turn was next, and still is
  })

  test('keeps to the new shares after any changes of weights and members, within two requests', () => {
    const change = fc.record({
      weights: fc.array(weight, { minLength: 5, maxLength: 5 }),
      in: fc.subarray([0, 1, 2, 3, 4], { minLength: 1 }),
      picks: fc.integer({ min: 0, max: 40 }),
    })
    fc.assert(
      fc.property(fc.array(change, { minLength: 2, maxLength: 8 }), (changes) => {
        const all = backends([1, 1, 1, 1, 1])
        const build = started(weightedRoundRobin())
        for (const it of changes) {
          for (const [i, backend] of all.entries()) reweigh(backend, it.weights[i]!)
          const list = it.in.map((i) => all[i]!)
          expect(worstLag(build(list), list, it.picks)).toBeLessThanOrEqual(2 + ROUNDING)
        }
      }),
      { numRuns: 1_000, seed: 9 },
    )
  })

  test('owes and is owed nothing in sum, whatever changed: the first full period is exact within one, the rest repeats', () => {
    const list = backends([5, 1, 1])
    const build = started(weightedRoundRobin())
    picks(build(list), 3)
    reweigh(list[0]!, 3)
    reweigh(list[1]!, 7)
    const picker = build(list)
    const first = counts(picker, list, 11)
    for (const [i, served] of first.entries()) expect(Math.abs(served - [3, 7, 1][i]!)).toBeLessThanOrEqual(1)
    const second = picks(picker, 11)
    for (let i = 0; i < 5; i++) expect(picks(picker, 11)).toBe(second)
    expect([...second].sort().join('')).toBe('aaabbbbbbbc')
  })

  test('lets who comes in wait for its turn like the others: no burst for a newcomer', () => {
    const list = backends([1, 1, 1, 1])
    const build = started(weightedRoundRobin())
    picks(build(list.slice(0, 3)), 300)
    expect(counts(build(list), list, 8)).toEqual([2, 2, 2, 2])
  })

  test('starts with the first, needs no chance, and picks nobody from nobody', () => {
    const build = started(weightedRoundRobin(), () => assert.fail('a draw'))
    const list = backends([1, 1])
    expect(build(list)(call)).toBe(list[0])
    expect(build([])(call)).toBeUndefined()
  })
})

describe('weighted random', () => {
  const weights = [1, 2, 3, 4, 0.5, 10]

  test('keeps to weights 1, 2, 3, 4, 0.5 and 10: chi-square over 1 000 000 picks, and weight 0 is never met', () => {
    const list = backends([...weights, 0])
    for (const seed of [1, 2, 3]) {
      const picked = counts(started(weightedRandom(), seededRandom(seed))(list), list, 1_000_000)
      expect(picked.pop()).toBe(0)
      expect(chiSquare(picked, weights), `seed ${seed}`).toBeLessThan(CHI_5)
    }
  })

  test.each([
    [[1, 1, 1, 1, 1, 1]],
    [[1, 1, 1, 1, 1, 0.01]],
    [[1e6, 1e6, 1e6, 1e3, 1e6, 1e6]],
    [[0.001, 0.002, 0.003, 0.004, 0.005, 0.006]],
  ])('keeps to weights %j', (others) => {
    const list = backends(others)
    const picked = counts(started(weightedRandom())(list), list, 1_000_000)
    expect(chiSquare(picked, others)).toBeLessThan(CHI_5)
  })

  test('keeps to the new weights after a change', () => {
    const list = backends([1, 1, 1, 1, 1, 1])
    const build = started(weightedRandom())
    picks(build(list), 100)
    for (const [i, backend] of list.entries()) reweigh(backend, weights[i]!)
    expect(chiSquare(counts(build(list), list, 1_000_000), weights)).toBeLessThan(CHI_5)
  })

  test('serves nobody of weight 0 in a pool, from the start or weighed down later', async () => {
    const { pool, callOf, clock, backend } = poolBench(
      [endpoint('a', { weight: 0 }), endpoint('b', { weight: 2 }), endpoint('c')],
      { strategy: weightedRandom() },
    )
    const met = (): string => [...new Set(Array.from({ length: 2_000 }, () => pool.pick(callOf())!.id))].sort().join('')
    expect(met()).toBe('bc')
    pool.weigh(backend('c'), 'slow start', 0)
    await clock.advance(100)
    expect(met()).toBe('b')
  })

  test('needs no chance for a single one', () => {
    const list = backends([3])
    expect(started(weightedRandom(), () => assert.fail('a draw'))(list)(call)).toBe(list[0])
  })
})

describe('random', () => {
  test('is uniform, whatever the weights: chi-square over 1 000 000 picks', () => {
    const list = backends([1, 2, 3, 4, 0.5, 10])
    for (const seed of [1, 2, 3]) {
      const picked = counts(started(random(), seededRandom(seed))(list), list, 1_000_000)
      expect(chiSquare(picked, Array(6).fill(1)), `seed ${seed}`).toBeLessThan(CHI_5)
    }
  })

  test('does not remember: who comes next has nothing to do with who came last', () => {
    const list = backends([1, 1, 1])
    const picker = started(random())(list)
    const after = Array<number>(9).fill(0)
    let last = 0
    for (let i = 0; i < 900_000; i++) {
      const next = list.indexOf(picker(call) as BackendRecord)
      after[3 * last + next]!++
      last = next
    }
    for (let i = 0; i < 9; i += 3) expect(chiSquare(after.slice(i, i + 3), [1, 1, 1])).toBeLessThan(CHI_2)
  })

  test('draws once a pick, and not at all for a single one', () => {
    let draws = 0
    const build = started(random(), (below) => {
      draws++
      return below - 1
    })
    const [a, b, c] = backends([1, 1, 1])
    expect(build([a!, b!, c!])(call)).toBe(c)
    expect(draws).toBe(1)
    expect(build([a!])(call)).toBe(a)
    expect(draws).toBe(1)
  })
})

describe('least', () => {
  test('always takes the one with the fewest in flight per weight', () => {
    const one = fc.record({ inflight: fc.nat({ max: 50 }), weight: fc.integer({ min: 1, max: 5 }) })
    fc.assert(
      fc.property(fc.array(one, { minLength: 1, maxLength: 20 }), fc.nat(), (loads, seed) => {
        const list = backends(loads.map((load) => load.weight))
        for (const [i, { inflight }] of loads.entries()) list[i]!.inflight = inflight
        const load = (backend: Backend): number => backend.inflight / backend.weight
        const picked = started(least(byInflight), seededRandom(seed))(list)(call)!
        expect(load(picked)).toBeCloseTo(Math.min(...list.map(load)), 12)
      }),
      { numRuns: 2_000, seed: 3 },
    )
  })

  test('never misses an idle one, though it be one of a thousand', () => {
    const list = backends(Array(1_000).fill(1))
    for (const backend of list) backend.inflight = 1
    list[617]!.inflight = 0
    const picker = started(least(byInflight))(list)
    for (let i = 0; i < 100; i++) expect(picker(call)).toBe(list[617])
  })

  test.each([
    ['all of them', [0, 1, 2, 3, 4, 5, 6, 7], CHI_7],
    ['the three best among others', [1, 4, 6], CHI_2],
    ['the first and the last', [0, 3, 7], CHI_2],
  ])('draws lots among equals, each as likely: %s', (_, equals, bound) => {
    const list = backends(Array(8).fill(1))
    for (const [i, backend] of list.entries()) backend.inflight = equals.includes(i) ? 1 : 2 + (i % 3)
    const picker = started(least(byInflight))(list)
    const best = equals.map((i) => list[i]!)
    const picked = counts(picker, best, 200_000)
    expect(picked.reduce((sum, n) => sum + n)).toBe(200_000)
    expect(
      chiSquare(
        picked,
        equals.map(() => 1),
      ),
    ).toBeLessThan(bound)
  })

  test('draws no lots where one is best', () => {
    const list = backends([1, 1, 1])
    for (const [i, backend] of list.entries()) backend.inflight = 3 - i
    expect(started(least(byInflight), () => assert.fail('a draw'))(list)(call)).toBe(list[2])
  })

  test('keeps everybody within one of everybody else while nothing ends', () => {
    const list = backends(Array(7).fill(1))
    const picker = started(least(byInflight))(list)
    for (let i = 0; i < 700; i++) {
      const backend = picker(call) as BackendRecord
      backend.inflight++
      const loads = list.map(({ inflight }) => inflight)
      expect(Math.max(...loads) - Math.min(...loads)).toBeLessThanOrEqual(1)
    }
  })

  test('fills up to the weights', () => {
    const list = backends([1, 2, 5])
    const picker = started(least(byInflight))(list)
    for (let i = 0; i < 800; i++) (picker(call) as BackendRecord).inflight++
    expect(list.map(({ inflight }) => inflight)).toEqual([100, 200, 500])
  })

  test('takes any way of preferring, and is named after it', () => {
    const byName: Prefer = (a, b) => (b.id > a.id ? b : a)
    const list = backends([1, 1, 1])
    const strategy = least(byName)
    expect(strategy.name).toBe('least(byName)')
    expect(picks(started(strategy)(list), 3)).toBe('ccc')
  })
})

describe('by name', () => {
  test.each<[StrategyName, string, (served: string) => void]>([
    ['weighted-round-robin', 'weighted-round-robin', (served) => expect(served).toMatch(/^(aab|aba|baa)+$/)],
    ['weighted-random', 'weighted-random', (served) => expect(countOf(served, 'a')).toBeGreaterThan(500)],
    ['random', 'random', (served) => expect(Math.abs(countOf(served, 'a') - 450)).toBeLessThan(75)],
    ['least', 'least(byInflight)', (served) => expect(new Set(served).size).toBe(2)],
  ])('%s is at hand', async (strategy, name, holds) => {
    const transport = memory({ a: {}, b: {} })
    const balancer = createBalancer({
      backends: [
        { url: 'http://a.test', id: 'a', weight: 2 },
        { url: 'http://b.test', id: 'b' },
      ],
      strategy,
      transport,
      random: seededRandom(1),
    })
    for (let i = 0; i < 900; i++) await balancer.request('/')
    expect(balancer.stats().pools.default!.strategy).toBe(name)
    holds(transport.requests.map(({ backend }) => backend).join(''))
    await balancer.close()
  })

  function countOf(text: string, letter: string): number {
    return text.split(letter).length - 1
  }
})

describe('the contract', () => {
  for (const make of [random, weightedRandom, weightedRoundRobin, () => least(byInflight), () => least(byPeakEwma)]) {
    for (const { name, run } of strategyContract(make)) test(name, run)
  }
})
