import {
  type Backend,
  type BalancerError,
  byInflight,
  createBalancer,
  memory,
  p2c,
  roundRobin,
  type Strategy,
  weightedRandom,
} from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { failover } from '../src/strategies/failover.ts'
import { locality } from '../src/strategies/locality.ts'
import { weightedFailover } from '../src/strategies/weighted-failover.ts'
import { endpoint, hard, bench as poolBench, soft } from './support/pool-bench.ts'
import { callAt, several, strategyBench, tries } from './support/strategy-bench.ts'

/** Always the first: draws nothing, so that the draws of the tiers can be counted out. */
const first: Strategy = {
  name: 'first',
  start: () => ({
    build:
      ({ eligible }) =>
      () =>
        eligible[0],
  }),
}

/** Each number below in turn: so many picks as there are numbers meet every one of them once. */
function inTurn(): (below: number) => number {
  let turn = 0
  return (below) => turn++ % below
}

const tierOf = ({ endpoint: { priority } }: Backend): string => `p${priority}`

/** One backend for each percent of each tier. */
function tiers(sizes: readonly number[]) {
  return sizes.flatMap((size, priority) => several(`p${priority}-`, size, { priority }))
}

/** Sizes and healthy of tiers at work, and what each got of one whole turn of draws. */
function loadsAt(healthy: readonly number[], sizes: readonly number[], panicBelow = 0.5): number[] {
  const it = strategyBench(failover(first), tiers(sizes), { random: inTurn(), panicBelow })
  for (const [i, count] of healthy.entries()) it.block(`p${i}-`, sizes[i]! - count)
  const total = sizes.reduce((sum, size) => sum + size)
  const shares = it.shares(100 * total, tierOf)
  return sizes.map((_, i) => Number((shares[`p${i}`] ?? 0).toFixed(2)))
}

describe('failover', () => {
  test.each([
    [
      [100, 100],
      [100, 0],
    ],
    [
      [72, 72],
      [100, 0],
    ],
    [
      [71, 100],
      [99, 1],
    ],
    [
      [71, 71],
      [99, 1],
    ],
    [
      [50, 100],
      [70, 30],
    ],
    [
      [50, 60],
      [70, 30],
    ],
    [
      [25, 100],
      [35, 65],
    ],
    [
      [25, 25],
      [50, 50],
    ],
    [
      [5, 65],
      [8, 92],
    ],
    [
      [25, 25, 100],
      [35, 35, 30],
    ],
    [
      [0, 100],
      [0, 100],
    ],
  ])('with %j percent healthy shares out %j percent, as Envoy does', (healthy, loads) => {
    const sizes = healthy.map(() => 100)
    expect(loadsAt(healthy, sizes)).toEqual(loads)
  })

  test.each([
    [
      [25, 25, 20],
      [37, 35, 28],
    ],
    [
      [20, 20, 10],
      [40, 40, 20],
    ],
  ])(
    'with %j percent healthy and panic off shares out %j percent: what rounding leaves is the first one’s',
    (healthy, loads) => {
      expect(loadsAt(healthy, [100, 100, 100], 0)).toEqual(loads)
    },
  )

  test('with all priorities in panic shares out by how many they are', () => {
    expect(loadsAt([25, 25, 20], [100, 100, 100])).toEqual([33.33, 33.33, 33.33])
    expect(loadsAt([5, 10], [20, 60])).toEqual([25, 75])
    expect(loadsAt([0, 0], [30, 10])).toEqual([75, 25])
  })

  test.each([
    ['enough healthy in the second: nobody blocked is used', [25, 100], 125, false],
    ['half healthy in the first, 60 in the second: no panic', [50, 60], 110, false],
    ['both too few: everybody', [25, 25], 200, true],
    ['the first too few, and the second cannot carry the rest: all of the first', [5, 65], 165, true],
    ['nobody in the first, the second enough for itself alone: not the first, which gets nothing', [0, 60], 60, false],
    ['nobody in the first, too few in the second: all of the second', [0, 40], 200, true],
  ])('panics by the rule of all priorities together: %s', (_, healthy, usable, panic) => {
    const { pool, backend } = poolBench(
      tiers([100, 100]).map((it) => endpoint(it.id!, it)),
      { strategy: failover(first) },
    )
    for (const [i, count] of healthy.entries()) {
      for (let j = count; j < 100; j++) pool.block(backend(`p${i}-${j}`), soft('probe'))
    }
    expect([pool.members.eligible.length, pool.panic]).toEqual([usable, panic])
  })

  test('without panic finds nobody where nobody is healthy', () => {
    const { pool, backend, met } = poolBench([endpoint('a'), endpoint('b', { priority: 1 })], {
      strategy: failover(roundRobin()),
      panicBelow: 0,
    })
    for (const id of ['a', 'b']) pool.block(backend(id), soft('probe'))
    expect([pool.panic, met()]).toEqual([false, 'nobody'])
  })

  test('leaves drained and hard blocked ones out of both sums', async () => {
    const { pool, backend, met, clock } = poolBench(
      [...several('a', 4), { id: 'b', priority: 1 }].map((it) => endpoint(it.id!, it)),
      { strategy: failover(roundRobin()) },
    )
    pool.block(backend('a0'), hard('operator'))
    pool.block(backend('a1'), hard('drain'))
    pool.weigh(backend('a2'), 'operator', 0)
    await clock.advance(100) // weights are published that often
    expect([pool.panic, met()]).toEqual([false, 'a3'])
    pool.block(backend('a3'), soft('probe'))
    expect(met()).toBe('b')
  })

  test('counts health by weight', () => {
    const it = strategyBench(
      failover(first),
      [{ id: 'big', weight: 3 }, { id: 'small' }, { id: 'spare', priority: 1 }],
      { random: inTurn() },
    )
    it.block('big', 1)
    expect(it.shares(100)).toEqual({ small: 35, spare: 65 })
    it.block('big', 0)
    it.block('small', 1)
    expect(it.shares(100)).toEqual({ big: 100 })
  })

  test('takes overprovisioning 1 for every loss, and Infinity for none but all', () => {
    const halved = (overprovisioning: number) => {
      const it = strategyBench(failover(first, { overprovisioning }), tiers([10, 10]), { random: inTurn() })
      it.block('p0', 5)
      return it.shares(100, tierOf)
    }
    expect(halved(1)).toEqual({ p0: 50, p1: 50 })
    expect(halved(Infinity)).toEqual({ p0: 100 })
    const lost = strategyBench(failover(first, { overprovisioning: Infinity }), tiers([10, 10]))
    lost.block('p0', 10)
    expect(lost.shares(100, tierOf)).toEqual({ p1: 100 })
  })

  test('keeps a key in the priority it hashes to, and shares keys out like calls: within 1.5 of 70 percent of 10 000 keys', () => {
    const it = strategyBench(failover(first), tiers([100, 100]))
    it.block('p0', 50)
    const picker = it.build()
    let above = 0
    for (let i = 0; i < 10_000; i++) {
      const call = callAt(it.clock, { key: `key ${i}` })
      const picked = picker(call)!
      expect(picker(call)).toBe(picked)
      if (tierOf(picked) === 'p0') above++
    }
    expect(Math.abs(above / 100 - 70)).toBeLessThan(1.5)
  })

  test('lets a call that has tried all of its priority go on to the next ones, in their order', () => {
    const it = strategyBench(failover(p2c(byInflight)), tiers([2, 2, 1]))
    for (let run = 0; run < 100; run++) {
      const call = callAt(it.clock)
      const picker = it.build()
      const order: number[] = []
      while (order.length < 5) {
        const picked = picker(call)!
        if (call.tried(picked)) continue // the pool would ask again
        order.push(picked.endpoint.priority!)
        tries(call, picked)
      }
      expect(order).toEqual([0, 0, 1, 1, 2])
    }
  })

  test('lets a call go on to the next priority when its own is full, or has not its tags', () => {
    const { pool, backend, met } = poolBench(
      [endpoint('a', { maxInflight: 1 }), endpoint('b', { priority: 1 }), endpoint('c', { priority: 2, tags: ['x'] })],
      { strategy: failover(roundRobin()) },
    )
    expect([met(), met({ tags: ['x'] })]).toEqual(['a', 'c'])
    backend('a').inflight = 1
    expect(met()).toBe('b')
    backend('a').inflight = 0
    pool.block(backend('a'), soft('probe'))
    expect(met()).toBe('b')
    expect(met({ prefer: 'c' })).toBe('c')
  })

  test('gives each priority a chooser of its own: turns go on where they were', () => {
    const it = strategyBench(failover(roundRobin()), tiers([3, 3]))
    it.block('p0', 2) // 46 % above, the others below
    const order: Record<string, string[]> = { p0: [], p1: [] }
    for (let i = 0; i < 300; i++) {
      const picked = it.build()(callAt(it.clock))!
      order[tierOf(picked)]!.push(picked.id)
    }
    expect(new Set(order.p0)).toEqual(new Set(['p0-2']))
    const turn = order.p1!.slice(0, 3)
    expect(new Set(turn).size).toBe(3)
    expect(order.p1!.every((id, i) => id === turn[i % 3])).toBe(true)
  })

  test('tells the chooser of a backend of its attempts, also after that backend has left', () => {
    const told: string[] = []
    const listening: Strategy = {
      name: 'listening',
      start() {
        let name = ''
        return {
          build: ({ eligible }) => {
            if (eligible.length > 0) name = tierOf(eligible[0]!)
            return () => eligible[0]
          },
          settle: ({ backend }) => void told.push(`${name} end ${backend.id}`),
        }
      },
    }
    const it = strategyBench(failover(listening), tiers([1, 1]))
    it.build()
    for (const backend of it.all) it.settle(backend, 'ok')
    expect(told.splice(0)).toEqual(['p0 end p0-0', 'p1 end p1-0'])
    it.build(it.all.slice(0, 1))
    for (const backend of it.all) it.settle(backend, 'ok')
    expect(told).toEqual(['p0 end p0-0', 'p1 end p1-0'])
  })

  test('serves a whole balancer: the spare takes over as the first fails, and hands back', async () => {
    const transport = memory({ a: {}, b: {}, spare: {} })
    const balancer = createBalancer({
      backends: [
        { url: 'http://a.test', id: 'a' },
        { url: 'http://b.test', id: 'b' },
        { url: 'http://spare.test', id: 'spare', priority: 1 },
      ],
      strategy: failover(roundRobin()),
      transport,
      random: seededRandom(3),
    })
    const shareOfSpare = async (): Promise<number> => {
      const before = transport.requests.length
      for (let i = 0; i < 1_000; i++) await balancer.request('/')
      return transport.requests.slice(before).filter(({ backend }) => backend === 'spare').length / 10
    }
    expect(await shareOfSpare()).toBe(0)
    balancer.disable('a') // an operator's word leaves both sums
    expect(await shareOfSpare()).toBe(0)
    balancer.disable('b')
    expect(await shareOfSpare()).toBe(100)
    balancer.enable('a')
    balancer.enable('b')
    expect(await shareOfSpare()).toBe(0)
    expect(balancer.stats().pools.default!.strategy).toBe('failover(round-robin)')
    await balancer.close()
  })

  test('retries in the next priority when its own is all tried', async () => {
    const transport = memory({ a: { status: 503 }, spare: { body: 'saved' } })
    const balancer = createBalancer({
      backends: [
        { url: 'http://a.test', id: 'a' },
        { url: 'http://spare.test', id: 'spare', priority: 1 },
      ],
      strategy: failover(roundRobin()),
      transport,
    })
    expect(await (await balancer.fetch('/')).text()).toBe('saved')
    expect(transport.requests.map(({ backend }) => backend)).toEqual(['a', 'spare'])
    await balancer.close()
  })

  test.each([
    ['overprovisioning: expected a number >= 1, got 0.5', () => failover(first, { overprovisioning: 0.5 })],
    ['overprovisioning: expected a number >= 1, got NaN', () => weightedFailover({ overprovisioning: NaN })],
    ['inner: expected a strategy without priorities of its own', () => failover(failover(first))],
    ['inner: expected a strategy without priorities of its own', () => locality(failover(first), { zone: 'a' })],
  ])('refuses what cannot be: %s', (message, make) => {
    expect(make).toThrow(expect.objectContaining({ code: 'CONFIG', message: expect.stringContaining(message) }))
    expect(refusalOf(make).name).toBe('BalancerError')
  })
})

function refusalOf(make: () => unknown): BalancerError {
  try {
    make()
  } catch (error) {
    return error as BalancerError
  }
  throw new Error('nothing was refused')
}

describe('weighted failover', () => {
  const weights = [
    { id: 'a', weight: 5 },
    { id: 'b', weight: 3 },
    { id: 'c', weight: 2 },
  ]

  test('tries backends of weights 5, 3 and 2 in the order of exponential keys: 400 000 calls, each order within 0.3 points', () => {
    const it = strategyBench(weightedFailover(), weights)
    const picker = it.build()
    const counts: Record<string, number> = {}
    for (let i = 0; i < 400_000; i++) {
      const call = callAt(it.clock)
      let order = ''
      for (let n = 0; n < 3; n++) {
        const picked = picker(call)!
        order += picked.id
        tries(call, picked)
      }
      counts[order] = (counts[order] ?? 0) + 1
    }
    for (const [order, percent] of Object.entries({ abc: 30, acb: 20, bac: 21.43, bca: 8.57, cab: 12.5, cba: 7.5 })) {
      expect(Math.abs(counts[order]! / 4_000 - percent), order).toBeLessThan(0.3)
    }
  })

  test('with the heaviest one out shares 60 to 40 among weights 3 and 2: 200 000 picks, within 0.5 points', () => {
    const it = strategyBench(weightedFailover(), weights)
    it.block('a', 1)
    const shares = it.shares(200_000)
    expect(Math.abs(shares.b! - 60)).toBeLessThan(0.5)
    expect(shares.b! + shares.c!).toBeCloseTo(100)
  })

  test('with the heaviest one full shares the same way', () => {
    const it = strategyBench(weightedFailover(), [{ ...weights[0], maxInflight: 1 }, ...weights.slice(1)])
    it.backend('a').inflight = 1
    expect(Math.abs(it.shares(200_000).b! - 60)).toBeLessThan(0.5)
  })

  test('goes on to the next priority when everybody of the first was tried, and only then', () => {
    const it = strategyBench(weightedFailover(), [...weights, { id: 'x', weight: 100, priority: 1 }])
    const picker = it.build()
    for (let run = 0; run < 200; run++) {
      const call = callAt(it.clock)
      const order: string[] = []
      for (let n = 0; n < 4; n++) {
        const picked = picker(call)!
        order.push(picked.id)
        tries(call, picked)
      }
      expect(new Set(order).size).toBe(4)
      expect(order[3]).toBe('x')
      expect(weights.map(({ id }) => id)).toContain(picker(call)!.id) // all tried: the pool decides
    }
  })

  test('goes by the weight of the moment: one that is weighed down is tried later', async () => {
    const { pool, backend, callOf, clock } = poolBench([endpoint('a'), endpoint('b')], { strategy: weightedFailover() })
    pool.weigh(backend('b'), 'slow-start', 0.25)
    await clock.advance(100)
    let met = 0
    for (let i = 0; i < 20_000; i++) if (pool.pick(callOf())!.id === 'b') met++
    expect(Math.abs(met / 200 - 20)).toBeLessThan(1.5) // five standard deviations
  })

  test('is what a tier of plain weights is while nothing fails', () => {
    const plain = strategyBench(failover(weightedRandom()), weights).shares(100_000)
    const ordered = strategyBench(weightedFailover(), weights).shares(100_000)
    expect(ordered).toEqual(plain) // the same draws
  })
})
