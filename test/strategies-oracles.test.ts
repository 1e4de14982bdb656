import { crc32 } from 'node:zlib'
import { type Backend, byInflight, byPeakEwma, least, p2c, random, type Strategy } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import type { BackendRecord } from '../src/core/backend.ts'
import { slowStart } from '../src/health/slow-start.ts'
import { ringHash } from '../src/strategies/ring-hash.ts'
import { addresses, hashBench, keys, named, ownersOf, pickOf, sharesOf } from './support/hashing.ts'
import { backends, counts, spying, started, supermarket } from './support/picking.ts'
import { endpoint, endpoints, bench as poolBench } from './support/pool-bench.ts'

/** What theory and other implementations say of strategies, where the tests of a strategy itself do not say it already. */

/** Calls carry their key. */
const byCall = { key: 'call' } as const

/** One choice, two choices, ... */
function choices(d: number): Strategy {
  return d === 1 ? random() : p2c(byInflight, { choices: d })
}

describe('so many balls as bins, each into the emptier of d', () => {
  // Means of the fullest bin; between seeds they differ by less than half of the bound.
  test.each([
    [256, 2_000, 1, 4.76, 0.1],
    [256, 2_000, 2, 2.9, 0.05],
    [256, 2_000, 3, 2.13, 0.05],
    [4_096, 200, 1, 6.27, 0.2],
    [4_096, 200, 2, 3.03, 0.05],
    [4_096, 200, 3, 2.86, 0.1],
  ])(
    '%d bins, %d times over, d = %d: the fullest has %d on average, within %d, seed 1',
    (n, times, d, mean, within) => {
      const list = backends(Array(n).fill(1))
      const pick = started(choices(d), seededRandom(1))(list)
      let sum = 0
      for (let time = 0; time < times; time++) {
        for (const backend of list) backend.inflight = 0
        for (let i = 0; i < n; i++) (pick() as BackendRecord).inflight++
        sum += list.reduce((most, { inflight }) => Math.max(most, inflight), 0)
      }
      expect(Math.abs(sum / times - mean)).toBeLessThan(within)
    },
  )
})

describe('queues, each arrival to the shortest of d: the mean time is as theory says, seed 1', () => {
  // The limit for many queues, sum over i of load^((d^i - d) / (d - 1)). Both candidates of ours are always distinct.
  test.each([
    [500, 0.5, 1, 2, 0.03],
    [500, 0.5, 2, 1.2657, 0.02],
    [500, 0.5, 3, 1.1252, 0.02],
    [500, 0.7, 1, 3.3333, 0.03],
    [500, 0.7, 2, 1.6145, 0.02],
    [500, 0.7, 3, 1.3568, 0.02],
    [500, 0.9, 1, 10, 0.06],
    [500, 0.9, 2, 2.618, 0.02],
    [500, 0.9, 3, 2.0279, 0.02],
    [500, 0.9, 5, 1.6329, 0.02],
    [500, 0.95, 2, 3.383, 0.03],
    [100, 0.99, 2, 5.96, 0.05],
  ])('%d queues at load %d, d = %d: %d, within a share of %d', (n, load, d, mean, within) => {
    const { meanTime } = supermarket(choices(d), Array(n).fill(1), { load, events: 4_000_000 })
    expect(Math.abs(meanTime / mean - 1)).toBeLessThan(within)
  })
})

test('among very many one of half the weight is a candidate half as often: of 200, within 5 in 100, seed 7', () => {
  const list = backends([0.5, ...Array(199).fill(1)])
  const seen = new Map<Backend, number>()
  const spy = spying((a, b) => {
    for (const backend of [a, b]) seen.set(backend, (seen.get(backend) ?? 0) + 1)
  })
  counts(started(p2c(spy), seededRandom(7))(list), list, 1_000_000)
  const others = list.slice(1).reduce((sum, backend) => sum + seen.get(backend)!, 0) / 199
  expect(Math.abs(seen.get(list[0]!)! / others / 0.5 - 1)).toBeLessThan(0.05)
})

test('one more request in flight never makes a backend better by peak EWMA, also after a minute of silence', () => {
  for (const idleMs of [0, 1_000, 60_000]) {
    const [one, other] = backends([1, 1]) as [BackendRecord, BackendRecord]
    one.latency.observe(20, 0)
    other.latency.observe(50, 0)
    other.latency.observe(50, idleMs)
    const preferred = Array.from({ length: 10_000 }, (_, inflight) => {
      one.inflight = inflight
      return byPeakEwma(one, other)
    })
    const since = preferred.indexOf(other)
    expect(since).toBeGreaterThan(0)
    expect(new Set(preferred.slice(since))).toEqual(new Set([other]))
  }
})

describe('rings', () => {
  test('like nginx have the points that nginx makes by chaining CRC-32: 9 backends of weight 100, 300 keys', () => {
    const ids = Array.from({ length: 9 }, (_, i) => `10.0.0.${i + 1}:443`)
    const points: { readonly at: number; readonly id: string }[] = []
    for (const id of ids) {
      const start = crc32(id.replace(':', '\0'))
      const previous = Buffer.alloc(4)
      for (let i = 0; i < 160 * 100; i++) {
        const at = crc32(previous, start)
        points.push({ at, id })
        previous.writeUInt32LE(at)
      }
    }
    points.sort((a, b) => a.at - b.at)
    const ownerOf = (key: string): string => {
      const hash = crc32(key)
      return (points.find(({ at }) => at >= hash) ?? points[0]!).id
    }
    const list = named(ids, Array(9).fill(100))
    const sample = keys(300)
    const owners = ownersOf(hashBench(ringHash({ like: 'nginx', ...byCall })).build(list), sample)
    expect(owners).toEqual(sample.map(ownerOf))
  })

  test.each([
    [1, 0.987, 0.3],
    [1_000, 0.0322, 0.01],
  ])('with %i points each have shares with a standard deviation of %d, within %d', (points, expected, within) => {
    const ids = addresses(100)
    const owners = ownersOf(hashBench(ringHash({ points, ...byCall })).build(named(ids)), keys(400_000))
    const deviation = Math.sqrt(sharesOf(owners, ids).reduce((sum, share) => sum + (share * 100 - 1) ** 2, 0) / 100)
    // 4 000 keys for each add sqrt(1 / 4 000) of their own.
    expect(Math.abs(deviation - Math.hypot(expected, 0.0158))).toBeLessThan(within)
  })

  test.each([
    [100, 0.7, 1.33],
    [1_000, 0.88, 1.13],
  ])('with %i points each give 99 in 100 backends from %d to %d of a fair share', (points, fewest, most) => {
    const ids = addresses(1_000)
    const owners = ownersOf(hashBench(ringHash({ points, ...byCall })).build(named(ids)), keys(1_000_000))
    const shares = sharesOf(owners, ids).map((share) => share * 1_000)
    const within = shares.filter((share) => share > fewest && share < most)
    // The law's 0.763 to 1.272 and 0.920 to 1.090, and what the 1 000 keys of each add.
    expect(within.length).toBeGreaterThanOrEqual(990)
  })

  test.each([
    [1.1, 0.654],
    [1.25, 0.296],
    [1.5, 0.126],
    [2, 0.041],
  ])(
    'bounded by %d go %d backends beyond the first on average, within a tenth, 1 000 keys, seeds 1 to 10',
    (bound, law) => {
      const list = named(addresses(100))
      const free = hashBench(ringHash({ points: 100, ...byCall })).build(list)
      const bounded = hashBench(ringHash({ points: 100, bound, ...byCall })).build(list)
      let steps = 0
      for (let seed = 1; seed <= 10; seed++) {
        const chance = seededRandom(seed)
        for (const backend of list) backend.inflight = 0
        for (let i = 0; i < 1_000; i++) {
          const key = `${chance(2 ** 30)}`
          const picked = pickOf(bounded, key)
          for (let step = 0; pickOf(free, key, step) !== picked; step++) steps++
          picked.inflight++
        }
      }
      expect(Math.abs(steps / 10_000 / law - 1)).toBeLessThan(0.1)
    },
  )
})

describe('who is new, with slow start', () => {
  const minute = { by: 'time', windowMs: 60_000, aggression: 1, minShare: 0.1, dwellMs: 2_000 } as const

  test('is drawn by p2c in proportion to its weight of the moment: a tenth, within 1.5 points of 0.1 in 2.1, seed 42', () => {
    const it = poolBench(['a', 'b'], { strategy: p2c(byInflight), watchers: [slowStart(minute)] })
    it.pool.apply(endpoints('a', 'b', 'c'))
    let met = 0
    for (let i = 0; i < 20_000; i++) if (it.pool.pick(it.callOf())!.id === 'c') met++
    expect(Math.abs(met / 200 - 10 / 2.1)).toBeLessThan(1.5)
  })

  test('gets no burst from least though it has nothing in flight: 3 of 30, not the next ten', () => {
    const it = poolBench([endpoint('a'), endpoint('b')], { strategy: least(byInflight), watchers: [slowStart(minute)] })
    for (const record of it.pool.records) record.inflight = 10
    it.pool.apply(endpoints('a', 'b', 'c'))
    for (let i = 0; i < 30; i++) it.pool.pick(it.callOf())!.inflight++
    expect(it.backend('c').inflight).toBe(3)
  })
})
