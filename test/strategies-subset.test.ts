import { type Backend, byInflight, createBalancer, memory, p2c, random, roundRobin } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { failover } from '../src/strategies/failover.ts'
import { type SubsetOptions, subset, windowOf } from '../src/strategies/subset.ts'
import { callAt, several, strategyBench } from './support/strategy-bench.ts'

/** Ids of a client's subset of so many backends. Turns meet everybody once. */
function subsetOf(servers: number, options: SubsetOptions, seed = 42): string[] {
  const it = strategyBench(subset(roundRobin(), options), several('b', servers), { random: seededRandom(seed) })
  const picker = it.build()
  return [...new Set(Array.from({ length: 2 * servers }, () => picker(callAt(it.clock))!.id))].sort()
}

/** The fewest and the most clients that a backend has. */
function spread(clients: number, servers: number, size: number): [fewest: number, most: number] {
  const counts = new Map(several('b', servers).map(({ id }) => [id!, 0]))
  for (let i = 0; i < clients; i++) {
    for (const id of subsetOf(servers, { size, by: `client ${i}` })) counts.set(id, counts.get(id)! + 1)
  }
  return [Math.min(...counts.values()), Math.max(...counts.values())]
}

describe('a subset by rendezvous', () => {
  test('has the size asked for, 20 by default, or everybody if there are fewer', () => {
    expect(subsetOf(100, { size: 7 })).toHaveLength(7)
    expect(subsetOf(100, {})).toHaveLength(20)
    expect(subsetOf(12, {})).toHaveLength(12)
  })

  test('is one’s own in every process, and the same again for the same client', () => {
    expect(subsetOf(100, { size: 10 }, 1)).not.toEqual(subsetOf(100, { size: 10 }, 2))
    const named = subsetOf(100, { size: 10, by: 'client 1' }, 1)
    expect(subsetOf(100, { size: 10, by: 'client 1' }, 2)).toEqual(named)
    expect(subsetOf(100, { size: 10, by: 'client 2' }, 1)).not.toEqual(named)
  })

  test('changes by one at most for one backend more: in 1 000 clients of 10 of 100, by 0.1 on average, within 0.04', () => {
    let changed = 0
    for (let i = 0; i < 1_000; i++) {
      const it = strategyBench(subset(roundRobin(), { size: 10, by: `client ${i}` }), several('b', 101))
      const met = (count: number): Set<string> => {
        const picker = it.build(it.all.slice(0, count))
        return new Set(Array.from({ length: 10 }, () => picker(callAt(it.clock))!.id))
      }
      const before = met(100)
      const after = met(101)
      const gone = [...before].filter((id) => !after.has(id)).length
      expect(gone).toBeLessThanOrEqual(1)
      changed += gone
    }
    expect(Math.abs(changed / 1_000 - 0.1)).toBeLessThan(0.04) // four standard deviations
  })

  test.each([
    [100, 100, 5, 0, 15],
    [100, 100, 25, 8, 42],
    [2_000, 10, 5, 910, 1_090],
  ])(
    'of %i clients over %i backends of %i each gives every backend from %i to %i clients: four deviations',
    (clients, servers, size, fewest, most) => {
      const [least, highest] = spread(clients, servers, size)
      expect(least).toBeGreaterThanOrEqual(fewest)
      expect(highest).toBeLessThanOrEqual(most)
    },
  )

  test('replaces who cannot be used by the next in its order, and goes back when it can', () => {
    const it = strategyBench(subset(roundRobin(), { size: 5, by: 'x' }), several('b', 50), { panicBelow: 0 })
    const met = (): string[] => {
      const picker = it.build()
      return [...new Set(Array.from({ length: 10 }, () => picker(callAt(it.clock))!.id))]
    }
    const before = new Set(met())
    for (const id of [...before].slice(0, 4)) it.backend(id).reasons.set('probe', { by: 'probe', hard: false })
    const during = new Set(met())
    expect(during.size).toBe(5)
    expect([...before].filter((id) => during.has(id)).length).toBe(1)
    for (const id of before) it.backend(id).reasons.clear()
    expect(new Set(met())).toEqual(before)
  })

  test('is taken in each priority of a failover', () => {
    const backends = [...several('a', 30), ...several('b', 30, { priority: 1 })]
    const it = strategyBench(failover(subset(p2c(byInflight), { size: 3 })), backends)
    expect(Object.keys(it.shares(5_000)).filter((id) => id.startsWith('a'))).toHaveLength(3)
    it.block('a', 30)
    expect(Object.keys(it.shares(5_000)).filter((id) => id.startsWith('b'))).toHaveLength(3)
  })
})

describe('a subset by index', () => {
  const cases: readonly (readonly [clients: number, servers: number, size: number])[] = [
    [8, 19, 5],
    [100, 60, 12],
    [37, 23, 12],
    [300, 300, 30],
    [3, 1_000, 20],
    [1, 7, 3],
    [50, 10, 10],
  ]

  test.each(cases)(
    'of %i clients over %i backends of %i each loads every backend exactly alike',
    (clients, servers, size) => {
      const load = new Float64Array(servers)
      for (let client = 0; client < clients; client++) {
        const window = windowOf(client, clients, servers, size)
        const whole = window.reduce((sum, part) => sum + part, 0)
        expect(whole).toBeGreaterThanOrEqual(Math.min(size, servers) - 1e-9)
        for (let i = 0; i < servers; i++) load[i]! += (window[i]! / whole) * (servers / clients)
      }
      for (const one of load) expect(one).toBeCloseTo(1, 9)
    },
  )

  test('picks in proportion to the parts: 8 clients over 19 backends, 50 000 picks each, all loads within 3 percent', () => {
    const load: Record<string, number> = {}
    for (let index = 0; index < 8; index++) {
      const strategy = subset(random(), { size: 5, by: { index, clients: 8 } })
      const shares = strategyBench(strategy, several('b', 19), { random: seededRandom(index) }).shares(50_000)
      for (const [id, share] of Object.entries(shares)) load[id] = (load[id] ?? 0) + share
    }
    expect(Object.keys(load)).toHaveLength(19)
    for (const [id, sum] of Object.entries(load)) expect(Math.abs((sum * 19) / 800 - 1), id).toBeLessThan(0.03)
  })

  test('does the same with turns, which are passed over in proportion', () => {
    const strategy = subset(roundRobin(), { size: 1, by: { index: 1, clients: 3 } }) // [1/3, 1) of two backends
    const shares = Object.values(strategyBench(strategy, several('b', 2)).shares(50_000)).sort()
    expect(Math.abs(shares[0]! - 25)).toBeLessThan(1)
  })

  test('is the same in every process, whatever order the backends come in', () => {
    const by = { index: 3, clients: 8 }
    const strategy = subset(random(), { size: 5, by })
    const one = Object.keys(strategyBench(strategy, several('b', 19)).shares(5_000)).sort()
    const other = strategyBench(strategy, several('b', 19).reverse(), { random: seededRandom(7) }).shares(5_000)
    expect(Object.keys(other).sort()).toEqual(one)
  })

  test('goes on behind the window when too few in it can be used: never below half', () => {
    const it = strategyBench(subset(random(), { size: 6, by: { index: 0, clients: 4 } }), several('b', 40), {
      panicBelow: 0,
    })
    const whole = Object.keys(it.shares(5_000))
    expect(whole).toHaveLength(10)
    for (const id of whole) it.backend(id).reasons.set('probe', { by: 'probe', hard: false })
    const behind = Object.keys(it.shares(5_000))
    expect(behind).toHaveLength(3)
    expect(behind.filter((id) => whole.includes(id))).toEqual([])
  })

  test('leaves a strategy alone that gives the same answer over and over', () => {
    const always = { name: 'first', start: () => ({ build: () => () => it.all[0] }) }
    const it = strategyBench(subset(always, { size: 1, by: { index: 1, clients: 3 } }), several('b', 2))
    expect(it.shares(1_000)).toEqual({ b0: 100 })
  })
})

describe('a size', () => {
  const backends = ['a', 'b', 'c'].map((id) => ({ url: `http://${id}.test`, id }))
  const transport = () => memory({ a: {}, b: {}, c: {} })

  test('above the pool is refused when the pool is created', () => {
    const create = () =>
      createBalancer({ backends, strategy: subset(roundRobin(), { size: 4 }), transport: transport() })
    expect(create).toThrow(
      expect.objectContaining({
        code: 'CONFIG',
        message: 'subset: size: expected at most the 3 backends of pool default, got 4',
      }),
    )
  })

  test('above a pool that has shrunk takes all of it', async () => {
    const carried = transport()
    const balancer = createBalancer({
      backends,
      strategy: subset(roundRobin(), { size: 3 }),
      transport: carried,
      random: seededRandom(1),
    })
    balancer.disable('a')
    for (let i = 0; i < 10; i++) await balancer.request('/')
    expect(new Set(carried.requests.map(({ backend }) => backend))).toEqual(new Set(['b', 'c']))
    await balancer.close()
  })

  test('above one priority of a pool takes all of that', () => {
    const it = strategyBench(failover(subset(roundRobin(), { size: 3 })), [
      ...several('a', 2),
      ...several('b', 5, { priority: 1 }),
    ])
    expect(Object.keys(it.shares(100)).sort()).toEqual(['a0', 'a1'])
  })

  test.each<[string, SubsetOptions]>([
    ['subset: size: expected a whole number >= 1, got 0', { size: 0 }],
    ['subset: size: expected a whole number >= 1, got 1.5', { size: 1.5 }],
    ['subset: by.clients: expected a whole number >= 1, got 0', { by: { index: 0, clients: 0 } }],
    ['subset: by.index: expected a whole number from 0 to 2, got 3', { by: { index: 3, clients: 3 } }],
  ])('that cannot be is refused: %s', (message, options) => {
    expect(() => subset(roundRobin(), options)).toThrow(expect.objectContaining({ code: 'CONFIG', message }))
  })
})

test('a subset tells the chooser within of every end', () => {
  const told: Backend[] = []
  const inner = {
    name: 'listening',
    start: () => ({
      build: () => () => undefined,
      settle: ({ backend }: { readonly backend: Backend }) => void told.push(backend),
    }),
  }
  const it = strategyBench(subset(inner), several('b', 2))
  it.build()
  it.settle(it.all[1]!, 'ok')
  expect(told).toEqual([it.all[1]])
})
