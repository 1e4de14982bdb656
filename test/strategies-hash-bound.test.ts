import { seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { maglev } from '../src/strategies/maglev.ts'
import { ringHash } from '../src/strategies/ring-hash.ts'
import { addresses, hashBench, named, pickOf, STRATEGIES, TEN } from './support/hashing.ts'

describe('bounded loads', () => {
  test.each([
    [1.1, 11, 0.685],
    [1.25, 13, 0.836],
    [1.5, 15, 0.906],
    [2, 17, 0.971],
  ])(
    'with 1 000 in flight on 100 backends and a bound of %f nobody has more than %i, and %f are where they belong',
    (bound, most, home) => {
      const ids = addresses(100)
      const list = named(ids)
      const owner = hashBench(ringHash({ key: 'call', points: 100 })).build(list)
      const bounded = hashBench(ringHash({ key: 'call', points: 100, bound })).build(list)
      const random = seededRandom(5)
      let stayed = 0
      for (let i = 0; i < 1_000; i++) {
        const key = `${random(2 ** 30)}`
        const picked = pickOf(bounded, key)
        expect(picked.inflight).toBeLessThan(Math.ceil((bound * (i + 1)) / 100))
        if (picked === pickOf(owner, key)) stayed++
        picked.inflight++
      }
      // At 2 the bound is seldom reached.
      const highest = Math.max(...list.map(({ inflight }) => inflight))
      expect(highest).toBeLessThanOrEqual(Math.ceil(bound * 10))
      if (bound < 2) expect(highest).toBe(most)
      // One draw of keys and arcs: the mean of the law within 8 points.
      expect(Math.abs(stayed / 1_000 - home)).toBeLessThan(0.08)
    },
  )

  test.each(STRATEGIES)('%s never lets a backend over its share, with any weights and any load', (_, make) => {
    const weights = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 2, maxLength: 12 })
    fc.assert(
      fc.property(weights, fc.constantFrom(1.05, 1.25, 2), fc.nat(), (list, bound, seed) => {
        const backends = named(addresses(list.length), list)
        const picker = hashBench(make({ bound })).build(backends)
        const whole = list.reduce((sum, weight) => sum + weight, 0)
        const random = seededRandom(seed)
        for (let all = 0; all < 100; all++) {
          const picked = pickOf(picker, `${random(4)}`)
          expect(picked.inflight).toBeLessThan(Math.ceil((bound * (all + 1) * picked.weight) / whole))
          picked.inflight++
        }
      }),
      { seed: 3, numRuns: 40 },
    )
  })

  test('gives a key back as soon as its owner has room', () => {
    const list = named(TEN)
    const picker = hashBench(ringHash({ key: 'call', bound: 1.25 })).build(list)
    const owner = pickOf(picker, 'one')
    owner.inflight = 5
    const other = pickOf(picker, 'one')
    expect(other).not.toBe(owner)
    expect(pickOf(picker, 'one')).toBe(other)
    owner.inflight = 0
    expect(pickOf(picker, 'one')).toBe(owner)
  })

  test('lets a backend whose weight is cut for a while hold less', () => {
    const list = named(['a', 'b'])
    list[0]!.factors.set('slow-start', 0.1)
    list[0]!.reweigh()
    const picker = hashBench(maglev({ key: 'call', bound: 1.25 })).build(list)
    for (let i = 0; i < 100; i++) pickOf(picker, `${i}`).inflight++
    expect(list[0]!.inflight).toBeLessThanOrEqual(Math.ceil((1.25 * 100 * 0.1) / 1.1))
  })
})
