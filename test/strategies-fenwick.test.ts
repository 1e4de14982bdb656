import { weightedRandom } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { drawByWeight } from '../src/strategies/alias.ts'
import { Fenwick } from '../src/strategies/fenwick.ts'
import { backends, CHI_5, chiSquare, counts, reweigh, started } from './support/picking.ts'
import { endpoint, bench as poolBench } from './support/pool-bench.ts'

const WEIGHTS = [1, 2, 3, 4, 0, 10, 0.5]

function drawn(draw: () => number, n: number, times: number): number[] {
  const out = Array<number>(n).fill(0)
  for (let i = 0; i < times; i++) out[draw()]!++
  return out
}

/** Without those of weight 0, which must never come. */
function misfit(observed: readonly number[], weights: readonly number[]): number {
  for (const [i, n] of observed.entries()) if (weights[i] === 0) expect(n).toBe(0)
  const above = weights.flatMap((weight, i) => (weight > 0 ? [i] : []))
  return chiSquare(
    above.map((i) => observed[i]!),
    above.map((i) => weights[i]!),
  )
}

describe('a Fenwick tree', () => {
  test('draws weights 1, 2, 3, 4, 0, 10 and 0.5: chi-square over 1 000 000 draws, 0 never, seeds 1 to 3', () => {
    for (const seed of [1, 2, 3]) {
      const random = seededRandom(seed)
      const tree = new Fenwick(WEIGHTS)
      expect(
        misfit(
          drawn(() => tree.draw(random), 7, 1_000_000),
          WEIGHTS,
        ),
      ).toBeLessThan(CHI_5)
    }
  })

  test('draws by the new weights after live edits, to 0 and from 0 too', () => {
    const random = seededRandom(5)
    const tree = new Fenwick(WEIGHTS)
    const edited = [1, 0, 3, 4, 2, 10, 0.5]
    for (const [i, weight] of edited.entries()) tree.set(i, weight)
    expect(
      misfit(
        drawn(() => tree.draw(random), 7, 1_000_000),
        edited,
      ),
    ).toBeLessThan(CHI_5)
  })

  test('does not drift: after 300 000 edits back and forth, 0 is still never drawn, at the ends of chance', () => {
    const random = seededRandom(6)
    const weights = [0.1, 0.2, 0.3, 0.7]
    const tree = new Fenwick(weights)
    for (let i = 0; i < 300_000; i++) tree.set(random(4), weights[random(4)]! * (1 + random(9)))
    for (let i = 0; i < 3; i++) tree.set(i, 0)
    tree.set(3, 0.7)
    expect(tree.draw(() => 0)).toBe(3)
    expect(tree.draw((below) => below - 1)).toBe(3)
    tree.set(0, 0.3)
    tree.set(3, 0)
    expect(tree.draw(() => 0)).toBe(0)
    expect(tree.draw((below) => below - 1)).toBe(0)
  })

  test('gives each index exactly its part of the line, whatever the weights', () => {
    const weights = fc.array(fc.integer({ min: 0, max: 1_000 }), { minLength: 1, maxLength: 40 })
    fc.assert(
      fc.property(weights, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (given, at) => {
        const total = given.reduce((sum, weight) => sum + weight, 0)
        fc.pre(total > 0)
        // The two draws of 26 and 27 bits that make up `at`.
        const high = Math.floor(at * 2 ** 26)
        const low = Math.floor((at * 2 ** 26 - high) * 2 ** 27)
        const i = new Fenwick(given).draw((below) => (below === 2 ** 26 ? high : low))
        const before = given.slice(0, i).reduce((sum, weight) => sum + weight, 0)
        expect(given[i]).toBeGreaterThan(0)
        expect(at * total).toBeGreaterThanOrEqual(before - 1e-3)
        expect(at * total).toBeLessThanOrEqual(before + given[i]! + 1e-3)
      }),
      { numRuns: 2_000, seed: 2 },
    )
  })
})

describe('an alias table', () => {
  test('adds up to each share of the weights within 2^-30 a column: its draws are whole numbers of 30 bits', () => {
    const list = backends([1, 2, 3, 4, 10, 0.5])
    const n = list.length
    const share = Array<number>(n).fill(0)
    for (let column = 0; column < n; column++) {
      let own = 0 // the least second draw that goes to the alias, found by halving
      let over = 2 ** 30
      let alias = column
      while (own < over) {
        const middle = (own + over) >> 1
        const draws = [column, middle]
        const picked = drawByWeight(list, () => draws.shift()!)()
        if (picked === column) own = middle + 1
        else {
          over = middle
          alias = picked
        }
      }
      share[column]! += own / 2 ** 30 / n
      share[alias]! += 1 / n - own / 2 ** 30 / n
    }
    for (const [i, { weight }] of list.entries()) expect(Math.abs(share[i]! - weight / 20.5)).toBeLessThan(n * 2 ** -30)
  })
})

describe('weighted random for a call that tries one after the other', () => {
  test('orders 5, 3 and 2 as weighted sampling without replacement does: within 0.004 of each order, 200 000 calls, seed 9', () => {
    const list = backends([5, 3, 2])
    const pick = started(weightedRandom(), seededRandom(9))(list)
    const orders = new Map<string, number>()
    for (let i = 0; i < 200_000; i++) {
      const tried = new Set<string>()
      while (tried.size < 3) tried.add(pick().id)
      const order = [...tried].join('')
      orders.set(order, (orders.get(order) ?? 0) + 1)
    }
    const meant = { abc: 0.3, acb: 0.2, bac: 0.2143, bca: 0.0857, cab: 0.125, cba: 0.075 }
    for (const [order, share] of Object.entries(meant)) {
      expect(Math.abs(orders.get(order)! / 200_000 - share), order).toBeLessThan(0.004)
    }
  })
})

describe('weighted random in a restless pool', () => {
  const weights = [1, 2, 3, 4, 10, 0.5]

  /** Draws by chance that a tree and a table use differently: a tree draws 26 bits first. */
  function first(pick: () => unknown, seen: number[]): number {
    seen.length = 0
    pick()
    return seen[0]!
  }

  test('keeps an alias table while picks are more frequent than changes, a tree while they are not, and comes back', () => {
    const list = backends(weights)
    const seen: number[] = []
    const random = seededRandom(1)
    const build = started(weightedRandom(), (below) => {
      seen.push(below)
      return random(below)
    })
    expect(first(build(list), seen)).toBe(list.length)
    for (let i = 0; i < 10; i++) build(list)
    const pick = build(list)
    expect(first(pick, seen)).toBe(2 ** 26)
    for (let i = 0; i < list.length; i++) pick()
    expect(first(build(list), seen)).toBe(list.length)
  })

  test('keeps to the weights of each moment while they change all the time: chi-square, 1 000 000 picks, seed 42', () => {
    const list = backends([1, 1, 1, 1, 10, 1])
    const build = started(weightedRandom())
    for (let i = 0; i < 20; i++) {
      for (const [at, backend] of list.entries()) if (at !== 4) reweigh(backend, 1 + ((i + at) % 5))
      build(list)()
    }
    for (const [i, backend] of list.entries()) reweigh(backend, weights[i]!)
    expect(chiSquare(counts(build(list), list, 1_000_000), weights)).toBeLessThan(CHI_5)
  })

  test('keeps to them when everything changes: members, their order and the heaviest weight', () => {
    const list = backends(weights)
    const build = started(weightedRandom())
    for (let i = 0; i < 20; i++) build(list)
    for (const backend of list) reweigh(backend, backend.weight * 1e-9)
    expect(chiSquare(counts(build(list), list, 1_000_000), weights)).toBeLessThan(CHI_5)
    for (let i = 0; i < 20; i++) build(list)
    const turned = list.toReversed()
    expect(chiSquare(counts(build(turned), list, 5), weights)).toBeLessThan(1_000)
    for (let i = 0; i < 20; i++) build(list)
    expect(chiSquare(counts(build(turned), list, 1_000_000), weights)).toBeLessThan(CHI_5)
    for (let i = 0; i < 20; i++) build(list)
    const fewer = list.slice(1)
    expect(counts(build(fewer), list, 100_000)[0]).toBe(0)
  })

  test('an old picker goes on over its own members while a change is tried', () => {
    const list = backends(weights)
    const build = started(weightedRandom())
    for (let i = 0; i < 20; i++) build(list)
    const pick = build(list)
    build(list.slice(3))
    expect(chiSquare(counts(pick, list, 1_000_000), weights)).toBeLessThan(CHI_5)
  })

  test('never serves who was weighed down to 0 in between', async () => {
    const { pool, callOf, clock, backend } = poolBench(
      [endpoint('a', { weight: 3 }), endpoint('b', { weight: 2 }), 'c', 'd'],
      { strategy: weightedRandom() },
    )
    for (let i = 0; i < 30; i++) {
      pool.weigh(backend('c'), 'slow start', (i % 3) / 2)
      await clock.advance(100)
      const met = new Set(Array.from({ length: 3 }, () => pool.pick(callOf())!.id))
      if (i % 3 === 0) expect(met).not.toContain('c')
    }
    pool.weigh(backend('c'), 'slow start', 0)
    await clock.advance(100)
    expect(new Set(Array.from({ length: 5_000 }, () => pool.pick(callOf())!.id))).toEqual(new Set(['a', 'b', 'd']))
  })
})
