import {
  auto,
  byInflight,
  createBalancer,
  edf,
  failover,
  locality,
  maglev,
  memory,
  orca,
  p2c,
  prequal,
  ringHash,
  smart,
  subset,
  thompson,
  weightedFailover,
  zoneWeights,
} from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import { expect, test } from 'vitest'
import { backends, started } from './support/picking.ts'

type Loose = (...args: readonly unknown[]) => unknown

test.each<[string, Loose, readonly unknown[], string]>([
  ['failover', failover as Loose, [], 'failover: inner: expected a strategy, such as auto(), got undefined'],
  ['failover', failover as Loose, ['auto'], 'failover: inner: expected a strategy, such as auto(), got auto'],
  [
    'failover',
    failover as Loose,
    [{ name: 'auto' }],
    'failover: inner: expected a strategy, such as auto(), got an object',
  ],
  ['failover', failover as Loose, [auto], 'failover: inner: expected a strategy, such as auto(), got a function'],
  ['failover', failover as Loose, [auto(), null], 'failover: expected an object of options, got null'],
  ['weightedFailover', weightedFailover as Loose, [null], 'failover: expected an object of options, got null'],
  ['subset', subset as Loose, [], 'subset: inner: expected a strategy, such as auto(), got undefined'],
  ['subset', subset as Loose, [auto(), 5], 'subset: expected an object of options, got 5'],
  ['locality', locality as Loose, [auto()], 'locality: expected an object of options, got undefined'],
  [
    'locality',
    locality as Loose,
    [undefined, { zone: 'a' }],
    'locality: inner: expected a strategy, such as auto(), got undefined',
  ],
  ['zoneWeights', zoneWeights as Loose, [auto()], 'zone-weights: expected an object of options, got undefined'],
  [
    'zoneWeights',
    zoneWeights as Loose,
    [auto(), {}],
    'zone-weights: weights: expected an object of numbers by zone, got undefined',
  ],
  ['p2c', p2c as Loose, [], 'p2c: prefer: expected a function of two backends, as byInflight, got undefined'],
  ['p2c', p2c as Loose, [byInflight, null], 'p2c: expected an object of options, got null'],
  ['smart', smart as Loose, [null], 'smart: expected an object of options, got null'],
  ['orca', orca as Loose, [null], 'orca: expected an object of options, got null'],
  ['edf', edf as Loose, [null], 'edf: expected an object of options, got null'],
  ['thompson', thompson as Loose, ['trusted'], 'thompson: expected an object of options, got trusted'],
  ['prequal', prequal as Loose, [null], 'prequal: expected an object of options, got null'],
  ['maglev', maglev as Loose, ['call'], 'maglev: expected an object of options, got call'],
  [
    'ringHash',
    ringHash as Loose,
    [{ key: 'call', minSize: 5 }],
    "ring-hash: minSize: expected nothing, since only rings like 'envoy' take it, got 5",
  ],
  [
    'ringHash',
    ringHash as Loose,
    [{ key: 'call', like: 'envoy', points: 5 }],
    "ring-hash: points: expected nothing, since rings like 'envoy' have minSize points, got 5",
  ],
  [
    'ringHash',
    ringHash as Loose,
    [{ key: 'call', like: 'envoy', maxSize: 100 }],
    'ring-hash: maxSize: expected at least 1024, which is the default of minSize, got 100',
  ],
])('%s tells what its arguments should be: %o %o', (_, make, args, message) => {
  expect(() => make(...args)).toThrow(expect.objectContaining({ name: 'BalancerError', code: 'CONFIG', message }))
})

test('more choices than backends are as many as there are backends, whatever the weights', () => {
  const list = backends([1, 2, 3, 4])
  let draws = 0
  const random = seededRandom(1)
  const pick = started(p2c(byInflight, { choices: 1e8 }), (below) => {
    draws++
    return random(below)
  })(list)
  pick()
  expect(draws).toBeLessThan(100)
})

test('weights at their bound are shared out as small ones are, by ten thousand backends', async () => {
  const shareOf = async (weight: number): Promise<number> => {
    const list = Array.from({ length: 10_000 }, (_, i) => ({
      id: `${i}`,
      url: `http://b${i}.test`,
      weight: i % 2 === 0 ? weight : weight / 4,
    }))
    const balancer = createBalancer({
      backends: list,
      transport: memory({}),
      strategy: 'weighted-random',
      random: seededRandom(5),
    })
    let even = 0
    for (let i = 0; i < 5_000; i++) {
      const lease = balancer.acquire()
      if (Number(lease.backend.id) % 2 === 0) even++
      lease.cancel()
    }
    await balancer.close()
    return even / 5_000
  }
  expect(await shareOf(1e9)).toBe(await shareOf(1))
  expect(await shareOf(1e9)).toBeCloseTo(0.8, 1)
})
