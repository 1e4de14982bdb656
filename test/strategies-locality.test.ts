import { type Backend, byInflight, createBalancer, memory, p2c, random, roundRobin } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { failover } from '../src/strategies/failover.ts'
import { locality, zoneWeights } from '../src/strategies/locality.ts'
import { callAt, several, strategyBench, tries } from './support/strategy-bench.ts'

const PICKS = 100_000
/** Points of percent: above four standard deviations of any share of so many picks. */
const WITHIN = 0.65

const zoneOf = ({ endpoint: { zone } }: Backend): string => zone ?? 'none'
const inZone = (zone: string, count: number) => several(`${zone}-`, count, { zone })

function near(shares: Readonly<Record<string, number>>, percents: Readonly<Record<string, number>>): void {
  for (const [zone, percent] of Object.entries(percents)) {
    const share = shares[zone] ?? 0
    if (percent === 0 || percent === 100) expect(share, zone).toBe(percent)
    else expect(Math.abs(share - percent), `${zone}: ${share}, expected ${percent}`).toBeLessThan(WITHIN)
  }
}

describe('locality', () => {
  test.each([
    ['with all of the own zone', 0, 0, { a: 100, b: 0 }],
    ['with 75 percent of it', 25, 0, { a: 100, b: 0 }],
    ['with 50 percent of it', 50, 0, { a: 70, b: 30 }],
    ['with 50 percent of it and 60 of the others', 50, 40, { a: 70, b: 30 }],
    ['with 25 percent of it', 75, 0, { a: 35, b: 65 }],
    ['with 25 percent of both', 75, 75, { a: 50, b: 50 }],
    ['with none of it', 100, 0, { a: 0, b: 100 }],
  ])('prefers the caller’s zone and spills by capacity: %s', (_, outA, outB, percents) => {
    const it = strategyBench(locality(random(), { zone: 'a' }), [...inZone('a', 100), ...inZone('b', 100)], {
      panicBelow: 0,
    })
    it.block('a-', outA)
    it.block('b-', outB)
    near(it.shares(PICKS, zoneOf), percents)
  })

  test('takes all other zones as one, and those without a zone too', () => {
    const it = strategyBench(
      locality(random(), { zone: 'a' }),
      [...inZone('a', 4), ...inZone('b', 1), ...inZone('c', 2), { id: 'nowhere' }],
      { panicBelow: 0 },
    )
    it.block('a-', 2)
    near(it.shares(PICKS, zoneOf), { a: 70, b: 7.5, c: 15, none: 7.5 })
    it.block('a-', 4)
    near(it.shares(PICKS, zoneOf), { a: 0, b: 25, c: 50, none: 25 })
  })

  test('in a zone that has no backends, or that nobody has heard of, uses everybody', () => {
    const it = strategyBench(locality(random(), { zone: 'constructor' }), [...inZone('a', 1), ...inZone('b', 3)])
    near(it.shares(PICKS, zoneOf), { a: 25, b: 75 })
  })

  test('in a panic takes the own zone as it is: whoever is used is usable', () => {
    const it = strategyBench(locality(random(), { zone: 'a' }), [...inZone('a', 10), ...inZone('b', 10)])
    it.block('a-', 9)
    it.block('b-', 9)
    expect(it.shares(1_000, zoneOf)).toEqual({ a: 100 })
  })

  test('leaves the zone with a call that has tried all of it, or found it full', () => {
    const it = strategyBench(locality(p2c(byInflight), { zone: 'a' }), [
      ...several('a-', 2, { zone: 'a', maxInflight: 1 }),
      ...inZone('b', 2),
    ])
    const picker = it.build()
    const call = callAt(it.clock)
    tries(call, it.backend('a-0'))
    it.backend('a-1').inflight = 1
    for (let i = 0; i < 50; i++) expect(zoneOf(picker(call)!)).toBe('b')
  })

  test('within failover prefers the zone in each priority, and compares it with its own priority alone', () => {
    const it = strategyBench(
      failover(locality(random(), { zone: 'a' })),
      [
        ...several('near-', 2, { zone: 'a' }),
        ...several('far-', 8, { zone: 'b' }),
        ...several('spare-', 20, { zone: 'a', priority: 1 }),
      ],
      { panicBelow: 0 },
    )
    const group = ({ id }: Backend): string => id.split('-')[0]!
    expect(it.shares(1_000, group)).toEqual({ near: 100 })
    it.block('near-', 1)
    near(it.shares(PICKS, group), { near: 70, far: 30, spare: 0 })
    it.block('far-', 8) // one of ten is left above: 14 %
    near(it.shares(PICKS, group), { near: 14, spare: 86 })
  })

  test('keeps a key where it is: the same zone for the same key', () => {
    const it = strategyBench(locality(roundRobin(), { zone: 'a' }), [...inZone('a', 4), ...inZone('b', 4)], {
      panicBelow: 0,
    })
    it.block('a-', 2)
    const picker = it.build()
    let own = 0
    for (let i = 0; i < 10_000; i++) {
      const call = callAt(it.clock, { key: `user ${i}` })
      const zone = zoneOf(picker(call)!)
      for (let again = 0; again < 3; again++) expect(zoneOf(picker(call)!)).toBe(zone)
      if (zone === 'a') own++
    }
    expect(Math.abs(own / 100 - 70)).toBeLessThan(2) // four standard deviations
  })

  test('serves a whole balancer', async () => {
    const transport = memory({ near: {}, far: {} })
    const balancer = createBalancer({
      backends: [
        { url: 'http://near.test', id: 'near', zone: 'eu' },
        { url: 'http://far.test', id: 'far', zone: 'us' },
      ],
      strategy: locality(roundRobin(), { zone: 'eu' }),
      transport,
      random: seededRandom(1),
    })
    for (let i = 0; i < 100; i++) await balancer.request('/')
    expect(new Set(transport.requests.map(({ backend }) => backend))).toEqual(new Set(['near']))
    balancer.disable('near')
    await balancer.request('/')
    expect(transport.requests.at(-1)!.backend).toBe('far')
    await balancer.close()
  })
})

describe('locality that knows where the callers are', () => {
  const callers = { a: 40, b: 40, c: 20 }
  const backends = [...inZone('a', 5), ...inZone('b', 10), ...inZone('c', 5)]

  test('with callers 40/40/20 and backends 25/50/25 keeps 62.5 percent, and gives b two thirds of the rest', () => {
    const it = strategyBench(locality(random(), { zone: 'a', callers }), backends)
    near(it.shares(PICKS, zoneOf), { a: 62.5, b: 25, c: 12.5 })
  })

  test('keeps everything where the zone has at least its part of the backends', () => {
    for (const zone of ['b', 'c']) {
      const it = strategyBench(locality(random(), { zone, callers }), backends)
      expect(it.shares(1_000, zoneOf)).toEqual({ [zone]: 100 })
    }
  })

  test('fills all zones evenly when all callers do so: each backend gets its share within 4 percent of it', () => {
    const load: Record<string, number> = {}
    for (const [zone, weight] of Object.entries(callers)) {
      const it = strategyBench(locality(random(), { zone, callers }), backends)
      for (const [id, share] of Object.entries(it.shares(PICKS))) load[id] = (load[id] ?? 0) + (share * weight) / 100
    }
    for (const { id } of backends) expect(Math.abs(load[id!]! / 5 - 1), id).toBeLessThan(0.04)
  })

  test.each([
    ['with five usable backends', [...inZone('a', 1), ...inZone('b', 4)], callers],
    ['with nobody in the own zone', inZone('b', 8), callers],
    ['with all backends in one zone', inZone('a', 8), callers],
    ['with all callers in one zone', [...inZone('a', 2), ...inZone('b', 6)], { a: 7 }],
  ])('takes everybody alike %s', (_, list, said) => {
    const it = strategyBench(locality(random(), { zone: 'a', callers: said }), list)
    const shares = it.shares(PICKS)
    expect(Object.keys(shares)).toHaveLength(list.length)
    for (const share of Object.values(shares)) expect(Math.abs(share - 100 / list.length)).toBeLessThan(WITHIN)
  })

  test('looks at what is usable now', () => {
    const it = strategyBench(locality(random(), { zone: 'a', callers: { a: 1, b: 1 } }), [
      ...inZone('a', 6),
      ...inZone('b', 6),
    ])
    expect(it.shares(1_000, zoneOf)).toEqual({ a: 100 })
    it.block('a-', 3) // 3 of 9 are left, for half of the callers
    near(it.shares(PICKS, zoneOf), { a: 66.67, b: 33.33 })
  })
})

describe('weights of zones', () => {
  test.each([
    [0, { X: 33.33, Y: 66.67 }],
    [30, { X: 32.89, Y: 67.11 }],
    [50, { X: 25.93, Y: 74.07 }],
    [75, { X: 14.89, Y: 85.11 }],
    [100, { X: 0, Y: 100 }],
  ])('1 and 2, with %i percent of the first gone, share out %j', (out, percents) => {
    const it = strategyBench(
      zoneWeights(random(), { weights: { X: 1, Y: 2 } }),
      [...inZone('X', 100), ...inZone('Y', 100)],
      { panicBelow: 0 },
    )
    it.block('X-', out)
    near(it.shares(PICKS, zoneOf), percents)
  })

  test('say nothing of how many backends a zone has; a zone that is not named weighs 1, one of 0 is for need only', () => {
    const it = strategyBench(
      zoneWeights(random(), { weights: { X: 3, off: 0 } }),
      [...inZone('X', 1), ...inZone('constructor', 9), ...inZone('off', 2)],
      { panicBelow: 0 },
    )
    near(it.shares(PICKS, zoneOf), { X: 75, constructor: 25, off: 0 })
    it.block('X-', 1)
    it.block('constructor-', 9)
    expect(it.shares(1_000, zoneOf)).toEqual({ off: 100 })
  })
})

test.each([
  ['zone-weights: weights.a: expected a number >= 0, got -1', () => zoneWeights(random(), { weights: { a: -1 } })],
  [
    'locality: callers.a: expected a number >= 0, got NaN',
    () => locality(random(), { zone: 'a', callers: { a: NaN } }),
  ],
  [
    'callers.a: expected a number above 0, for the own zone',
    () => locality(random(), { zone: 'a', callers: { b: 1 } }),
  ],
  ['overprovisioning: expected a number >= 1, got 0', () => locality(random(), { zone: 'a', overprovisioning: 0 })],
])('refused is %s', (message, make) => {
  expect(make).toThrow(expect.objectContaining({ code: 'CONFIG', message: expect.stringContaining(message) }))
})
