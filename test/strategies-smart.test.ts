import assert from 'node:assert/strict'
import {
  byInflight,
  createBalancer,
  memory,
  type OutcomeClass,
  p2c,
  type Strategy,
  type StrategySettings,
} from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import type { Prior, ThompsonOptions } from '../src/core/strategy-options.ts'
import { failover } from '../src/strategies/failover.ts'
import { locality } from '../src/strategies/locality.ts'
import { Confidence, smart } from '../src/strategies/smart.ts'
import { subset } from '../src/strategies/subset.ts'
import { thompson } from '../src/strategies/thompson.ts'
import { soft } from './support/pool-bench.ts'
import { callAt, type StrategyBench, several, strategyBench } from './support/strategy-bench.ts'

const PICKS = 100_000
/** Points of percent: above four standard deviations of any share of so many picks. */
const WITHIN = 0.65

function fail(it: StrategyBench, id: string, times: number, kind: OutcomeClass = 'server-error'): void {
  for (let i = 0; i < times; i++) it.settle(it.backend(id), kind)
}

describe('the confidence of smart', () => {
  test.each([
    [0.05, 0.864, 0.75],
    [0.2, 0.571, 0.33],
    [0.5, 0.25, 0.06],
    [1, 0, 0],
  ])('at an error rate of %d settles at %d on average, within 0.005: its square is %d', (rate, mean, square) => {
    const random = seededRandom(11)
    const confidence = new Confidence()
    let sum = 0
    for (let i = -1_000; i < 400_000; i++) {
      if (random(1_000) < rate * 1_000) confidence.fail(0.3, 0)
      else confidence.succeed(0)
      if (i >= 0) sum += confidence.read(0)
    }
    expect(Math.abs(sum / 400_000 - mean)).toBeLessThan(0.005)
    expect(mean ** 2).toBeCloseTo(square, 2)
  })

  test('starts at 0.8, goes up by a tenth of what is missing, down by so much of what is there', () => {
    const confidence = new Confidence()
    expect(confidence.read(0)).toBe(0.8)
    confidence.succeed(0)
    expect(confidence.read(0)).toBeCloseTo(0.82, 12)
    confidence.fail(0.3, 0)
    expect(confidence.read(0)).toBeCloseTo(0.574, 12)
  })

  test('goes back to 0.8 while nothing is heard, by half in 120 s, from above and below; never by a clock that goes back', () => {
    for (const [news, from] of [
      ['succeed', 1],
      ['fail', 0],
    ] as const) {
      const confidence = new Confidence()
      for (let i = 0; i < 200; i++) news === 'succeed' ? confidence.succeed(1_000) : confidence.fail(0.4, 1_000)
      expect(confidence.read(1_000)).toBeCloseTo(from, 6)
      expect(confidence.read(121_000)).toBeCloseTo((from + 0.8) / 2, 6)
      expect(confidence.read(0)).toBeCloseTo(from, 6)
      expect(confidence.read(100_000_000)).toBeCloseTo(0.8, 6)
    }
  })
})

describe('smart', () => {
  test('shares out by weight times confidence squared: one that fails half of the time beside one that never does', () => {
    const it = strategyBench(smart(), [{ id: 'good', weight: 2 }, { id: 'bad' }])
    fail(it, 'bad', 1) // 0.8 * 0.7 = 0.56
    const good = 2 * 0.64
    expect(Math.abs(it.shares(PICKS).good! - (100 * good) / (good + 0.3136))).toBeLessThan(WITHIN)
  })

  test('gives a dead one 2 percent of its weight, not 80: no floor hides a failure', () => {
    const it = strategyBench(smart(), [{ id: 'good' }, { id: 'dead' }])
    fail(it, 'dead', 100)
    for (let i = 0; i < 100; i++) it.settle(it.backend('good'), 'ok')
    expect(Math.abs(it.shares(PICKS).dead! - 100 * (0.02 / 1.02))).toBeLessThan(0.2)
  })

  test.each<[OutcomeClass, number]>([
    ['server-error', 0.3],
    ['connect', 0.4],
    ['timeout', 0.4],
    ['reset', 0.4],
    ['truncated', 0.4],
    ['rate-limited', 0.1],
    ['client-error', 0],
    ['auth', 0],
    ['cancelled', 0],
    ['overloaded', 0],
    ['request', 0],
    ['local', 0],
    ['stale', 0],
  ])('takes %s for a failure of %d', (kind, by) => {
    const it = strategyBench(smart(), [{ id: 'a' }, { id: 'b' }])
    fail(it, 'b', 1, kind)
    const factor = (1 - by) ** 2
    expect(Math.abs(it.shares(PICKS).b! - (100 * factor) / (1 + factor))).toBeLessThan(WITHIN)
  })

  test('hears of a result at once, without being built anew', () => {
    const it = strategyBench(smart(), [{ id: 'a' }, { id: 'b' }])
    const picker = it.build()
    const call = callAt(it.clock)
    const share = (): number => {
      let met = 0
      for (let i = 0; i < PICKS; i++) if (picker(call)!.id === 'b') met++
      return (100 * met) / PICKS
    }
    expect(Math.abs(share() - 50)).toBeLessThan(WITHIN)
    fail(it, 'b', 1, 'timeout') // 0.8 * 0.6
    expect(Math.abs(share() - 100 * (0.36 / 1.36))).toBeLessThan(WITHIN)
  })

  test.each([smart, thompson])('needs no chance for a single one', (make) => {
    const it = strategyBench(make(), [{ id: 'a' }], { random: () => assert.fail('a draw') })
    expect(it.shares(10)).toEqual({ a: 100 })
  })

  test('forgets while nothing is heard', async () => {
    const it = strategyBench(smart(), [{ id: 'a' }, { id: 'b' }])
    fail(it, 'b', 50)
    expect(it.shares(PICKS).b).toBeLessThan(4)
    await it.clock.advance(120_000)
    expect(Math.abs(it.shares(PICKS).b! - 20)).toBeLessThan(WITHIN) // 0.4² to 0.8²
  })

  test('prefers the cheap by 5 percent among those that hardly fail, and only there', () => {
    const cost = ({ id }: { readonly id: string }): number => ({ dear: 4, middle: 2, free: 0 })[id]!
    const it = strategyBench(smart({ cost }), [{ id: 'dear' }, { id: 'middle' }, { id: 'free' }])
    const million = it.shares(1_000_000)
    for (const share of Object.values(million)) expect(Math.abs(share - 33.33)).toBeLessThan(0.2)
    for (const backend of it.all) for (let i = 0; i < 200; i++) it.settle(backend, 'ok')
    const shares = it.shares(1_000_000)
    expect(Math.abs(shares.dear! - 100 / 3.075)).toBeLessThan(0.2)
    expect(Math.abs(shares.middle! - 102.5 / 3.075)).toBeLessThan(0.2)
    expect(Math.abs(shares.free! - 105 / 3.075)).toBeLessThan(0.2)
  })

  test('keeps what it knows by backend, not by place: the list before it may become shorter', () => {
    const it = strategyBench(smart(), [{ id: 'gone' }, { id: 'bad' }, { id: 'good' }])
    fail(it, 'bad', 100)
    const picker = it.build(it.all.slice(1))
    let bad = 0
    for (let i = 0; i < PICKS; i++) if (picker(callAt(it.clock))!.id === 'bad') bad++
    expect(Math.abs((100 * bad) / PICKS - 100 * (0.02 / 0.66))).toBeLessThan(WITHIN)
  })

  test.each([
    [0, 0.1, 0.8],
    [1, 0.3, 0.82],
    [2, 0.3, 0.838],
    [3, 0.5, 0.8542],
    [4, 0.5, 0.86878],
    [5, 1, 0.881902],
  ])('lets one that comes back in by steps: after %i successes at %d of its weight', (successes, step, confidence) => {
    const it = strategyBench(smart(), [{ id: 'a' }, { id: 'b' }, { id: 'c' }])
    it.block('b', 1)
    it.build()
    it.block('b', 0)
    it.build()
    for (let i = 0; i < successes; i++) it.settle(it.backend('b'), 'ok')
    const weight = step * confidence ** 2
    expect(Math.abs(it.shares(PICKS).b! - (100 * weight) / (weight + 2 * 0.64))).toBeLessThan(WITHIN)
  })

  test('starts those steps anew after a failure within them', () => {
    const confidence = new Confidence()
    const backend = strategyBench(smart(), [{ id: 'a' }]).all[0]!
    backend.reasons.set('probe', soft('probe'))
    confidence.seen(backend, false)
    backend.reasons.clear()
    confidence.seen(backend, true)
    for (let i = 0; i < 4; i++) confidence.succeed(0)
    expect(confidence.factor(0, 0) / confidence.read(0) ** 2).toBeCloseTo(0.5, 9)
    confidence.fail(0.3, 0)
    expect(confidence.factor(0, 0) / confidence.read(0) ** 2).toBeCloseTo(0.1, 9)
  })

  test('does not count as coming back what only was of another priority', () => {
    const it = strategyBench(smart(), [{ id: 'a' }, { id: 'b', priority: 1 }, { id: 'c', priority: 1 }])
    it.build()
    it.block('a', 1)
    it.settle(it.backend('b'), 'ok')
    const shares = it.shares(PICKS)
    expect(Math.abs(shares.b! - 100 * (0.82 ** 2 / (0.82 ** 2 + 0.64)))).toBeLessThan(WITHIN)
  })

  test('serves a whole balancer: a failing backend loses its traffic to the others', async () => {
    const transport = memory({ a: {}, b: { status: 500 }, c: {} })
    const balancer = createBalancer({
      backends: ['a', 'b', 'c'].map((id) => ({ id, url: `http://${id}.test` })),
      strategy: smart(),
      transport,
      clock: manualClock(),
      random: seededRandom(5),
      health: { passive: false },
    })
    for (let i = 0; i < 1_000; i++) await balancer.request('/')
    expect(transport.requests.filter(({ backend }) => backend === 'b').length).toBeLessThan(60)
    await balancer.close()
  })

  test.each([smart, thompson])('tells whose cost it was that threw', (make) => {
    const cause = new TypeError('mine')
    const cost = (): never => {
      throw cause
    }
    const it = strategyBench(make({ cost }), [{ id: 'a' }, { id: 'b' }])
    const { name } = make()
    expect(() => it.build()).toThrow(
      expect.objectContaining({ code: 'CONFIG', message: `${name}: cost of backend a failed`, cause }),
    )
  })

  test.each([smart, thompson])('refuses a cost that is none', (make) => {
    const it = strategyBench(make({ cost: () => NaN }), [{ id: 'a' }, { id: 'b' }])
    expect(() => it.build()).toThrow(
      expect.objectContaining({ code: 'CONFIG', message: expect.stringContaining('cost of backend a: expected') }),
    )
  })
})

describe('thompson', () => {
  const REQUESTS = 6_000
  const SEEDS = 30
  const COSTS = [1, 2, 4, 8]
  const VALUE = 10
  const WEIGHTS = [8, 4, 2, 1]

  /** Shares of successes at the i-th request. */
  type Play = (i: number) => readonly number[]
  const stationary: Play = () => [0.9, 0.97, 0.98, 0.99]
  const outage: Play = (i) => [i >= REQUESTS / 3 && i < (2 * REQUESTS) / 3 ? 0.1 : 0.97, 0.97, 0.98, 0.99]
  /** The two cheapest change places, bit by bit. */
  const drift: Play = (i) => [0.97 - (0.5 * i) / REQUESTS, 0.47 + (0.5 * i) / REQUESTS, 0.98, 0.99]

  /** How much less a request brought than the best backend would have, on average over all seeds. */
  function regret(make: () => Strategy, play: Play): number {
    let lost = 0
    for (let seed = 1; seed <= SEEDS; seed++) {
      const it = strategyBench(
        make(),
        COSTS.map((_, i) => ({ id: String(i), weight: WEIGHTS[i]! })),
        { random: seededRandom(seed) },
      )
      const luck = seededRandom(1_000 + seed)
      const picker = it.build()
      const call = callAt(it.clock)
      for (let i = 0; i < REQUESTS; i++) {
        const shares = play(i)
        const worth = shares.map((share, at) => VALUE * share - COSTS[at]!)
        const backend = picker(call)!
        const at = Number(backend.id)
        lost += Math.max(...worth) - worth[at]!
        it.settle(backend, luck(1_000_000) < shares[at]! * 1_000_000 ? 'ok' : 'server-error')
      }
    }
    return lost / SEEDS / REQUESTS
  }

  /** What the weights alone would lose. */
  function regretByWeight(play: Play): number {
    let lost = 0
    for (let i = 0; i < REQUESTS; i++) {
      const worth = play(i).map((share, at) => VALUE * share - COSTS[at]!)
      const mean = worth.reduce((sum, one, at) => sum + (one * WEIGHTS[at]!) / 15, 0)
      lost += Math.max(...worth) - mean
    }
    return lost / REQUESTS
  }

  const cost = ({ id }: { readonly id: string }): number => COSTS[Number(id)]!
  const discounted = (): Strategy => thompson({ cost, value: VALUE })

  test('is measured against what weights alone lose: 0.784 and 2.319 a request', () => {
    expect(regretByWeight(stationary)).toBeCloseTo(0.78, 2)
    expect(regretByWeight(outage)).toBeCloseTo(2.32, 2)
  })

  test('loses less than a tenth of that in an outage, and less than 0.122: 30 seeds', () => {
    const lost = regret(discounted, outage)
    expect(lost).toBeLessThan(regretByWeight(outage) / 10)
    expect(lost).toBeLessThan(0.106 * 1.15)
  })

  test('loses less than 15 percent of that in a drift', () => {
    expect(regret(discounted, drift)).toBeLessThan(0.15 * regretByWeight(drift))
  })

  test('loses about 0.053 while nothing changes, within 15 percent', () => {
    expect(Math.abs(regret(discounted, stationary) / 0.053 - 1)).toBeLessThan(0.15)
  })

  test('that forgets nothing loses several times as much in an outage', () => {
    expect(regret(() => thompson({ cost, value: VALUE, discount: 1 }), outage)).toBeGreaterThan(0.5)
  })

  /** Teaches it, then looks at what it does. */
  function taught(strategy: Strategy, successes: Readonly<Record<string, readonly [ok: number, failed: number]>>) {
    const it = strategyBench(
      strategy,
      Object.keys(successes).map((id) => ({ id })),
    )
    it.build()
    for (const [id, [ok, failed]] of Object.entries(successes)) {
      for (let i = 0; i < ok; i++) it.settle(it.backend(id), 'ok')
      fail(it, id, failed)
    }
    return it
  }

  test('weighs a price against the share of successes: more worth buys reliability, less the cheapest', () => {
    const known = { cheap: [80, 20], dear: [100, 0] } as const
    const price = ({ id }: { readonly id: string }): number => (id === 'cheap' ? 1 : 2)
    const share = (value: number): number =>
      taught(thompson({ cost: price, value, discount: 1 }), known).shares(10_000).dear ?? 0
    expect(share(1_000)).toBeGreaterThan(99)
    expect(share(1)).toBeLessThan(1)
    expect(share(1_000)).toBeGreaterThan(share(6))
  })

  test('takes for calls that must not be sent twice whoever is best by what is known, and equals by lot', () => {
    const it = taught(thompson(), { a: [3, 1], b: [4, 1] })
    const picker = it.build()
    const post = callAt(it.clock, { method: 'POST' })
    expect(new Set(Array.from({ length: 500 }, () => picker(post)!.id))).toEqual(new Set(['b']))
    expect(Object.keys(it.shares(500)).sort()).toEqual(['a', 'b'])
    const fresh = strategyBench(thompson(), several('x', 3))
    const counts: Record<string, number> = {}
    const draw = fresh.build()
    for (let i = 0; i < 30_000; i++) {
      const { id } = draw(callAt(fresh.clock, { method: 'POST' }))!
      counts[id] = (counts[id] ?? 0) + 1
    }
    for (const count of Object.values(counts)) expect(Math.abs(count - 10_000)).toBeLessThan(400)
  })

  test('forgets with time too: after half an hour without traffic everybody is alike again', async () => {
    const it = taught(thompson(), { a: [50, 0], b: [0, 50] })
    expect(it.shares(1_000).a).toBeGreaterThan(97)
    await it.clock.advance(1_800_000)
    expect(Math.abs(it.shares(10_000).a! - 50)).toBeLessThan(8)
  })

  test('asks less of a slow one when time has a price', () => {
    const it = strategyBench(thompson({ latencyCost: 0.01 }), [{ id: 'fast' }, { id: 'slow' }])
    it.backend('fast').latency.observe(5, it.clock.now())
    it.backend('slow').latency.observe(500, it.clock.now())
    expect(it.shares(1_000)).toEqual({ fast: 100 })
  })

  test('learns nothing from a rate limit or a cancel, and half from an answer that was cut', () => {
    const it = strategyBench(thompson({ discount: 1 }), [{ id: 'a' }, { id: 'b' }])
    it.build()
    for (let i = 0; i < 50; i++) {
      it.settle(it.backend('a'), 'truncated')
      it.settle(it.backend('b'), 'server-error')
      it.settle(it.backend('b'), 'ok')
      it.settle(it.backend('b'), 'rate-limited')
      it.settle(it.backend('b'), 'cancelled')
    }
    expect(Math.abs(it.shares(20_000).a! - 50)).toBeLessThan(2)
  })

  describe('with a prior', () => {
    const best = (it: StrategyBench): string => {
      const picker = it.build()
      return picker(callAt(it.clock, { method: 'POST' }))!.id // whoever is best by what is known
    }

    test('trusts everybody as after 4 successes and 0.2 failures, until it knows better', () => {
      const it = strategyBench(thompson({ prior: 'trusted', discount: 1 }), [{ id: 'a' }, { id: 'b' }])
      it.build()
      expect([it.score('a'), it.score('b')]).toEqual([5 / 6.2, 5 / 6.2])
      fail(it, 'a', 1)
      expect(it.score('a')).toBeCloseTo(5 / 7.2, 12)
      expect(best(it)).toBe('b')
    })

    test('begins where a process before it ended: the best one has the traffic from the first request on', () => {
      const seen: Readonly<Record<string, Prior>> = {
        good: { successes: 98, failures: 2 },
        bad: { successes: 60, failures: 40 },
      }
      const warm = strategyBench(thompson({ prior: ({ id }) => seen[id]! }), [{ id: 'bad' }, { id: 'good' }])
      expect(warm.shares(1_000).good).toBeGreaterThan(99)
      const cold = strategyBench(thompson(), [{ id: 'bad' }, { id: 'good' }])
      expect(Math.abs(cold.shares(10_000).good! - 50)).toBeLessThan(2)
    })

    test('asks for each backend once, when it comes', () => {
      const asked: string[] = []
      const prior = ({ id }: { readonly id: string }): Prior => {
        asked.push(id)
        return { successes: 1, failures: 0 }
      }
      const it = strategyBench(thompson({ prior }), several('x', 4))
      it.build(it.all.slice(0, 2))
      it.build(it.all.slice(0, 2))
      it.settle(it.all[0]!, 'ok')
      expect(asked).toEqual(['x0', 'x1'])
      it.build()
      it.block('x', 2)
      it.build()
      expect(asked).toEqual(['x0', 'x1', 'x2', 'x3'])
    })

    test('lets it fade like any result: by 300 results of others, and by an hour', async () => {
      for (const results of [300, 0]) {
        const it = strategyBench(thompson({ prior: 'trusted' }), [{ id: 'a' }, { id: 'b' }])
        it.build()
        for (let i = 0; i < results; i++) it.settle(it.backend('b'), 'ok')
        if (results === 0) await it.clock.advance(3_600_000)
        expect(Math.abs(it.score('a')! - 0.5)).toBeLessThan(0.05)
      }
    })

    test.each<[string, unknown]>([
      ['failures: expected a number >= 0, got -1', () => ({ successes: 1, failures: -1 })],
      ['successes: expected a number >= 0, got NaN', () => ({ successes: Number.NaN, failures: 0 })],
      ['failures: expected a number >= 0, got undefined', () => ({ successes: 1 })],
      ['prior of backend a: expected an object with successes and failures, got undefined', () => undefined],
      ['prior of backend a: expected an object with successes and failures, got null', () => null],
      [
        'thompson: prior of backend a failed',
        () => {
          throw new Error('mine')
        },
      ],
      ["thompson: prior: expected 'trusted' or a function, got much", 'much'],
    ])('refuses one that cannot be: %s', (message, prior) => {
      const make = (): unknown => strategyBench(thompson({ prior: prior as 'trusted' }), [{ id: 'a' }]).build()
      expect(make).toThrow(expect.objectContaining({ code: 'CONFIG', message: expect.stringContaining(message) }))
    })
  })

  test('forgets by results alone, or by time alone, if it is told so', async () => {
    const scoreAfter = async (options: ThompsonOptions, results: number, ms: number): Promise<number> => {
      const it = strategyBench(thompson(options), [{ id: 'a' }, { id: 'b' }])
      it.build()
      fail(it, 'a', 1)
      for (let i = 0; i < results; i++) it.settle(it.backend('b'), 'ok')
      await it.clock.advance(ms)
      return it.score('a')!
    }
    const kept = (share: number): number => 1 / (2 + share)
    expect(await scoreAfter({ decayMs: Infinity }, 100, 10 ** 9)).toBeCloseTo(kept(0.99 ** 100), 9)
    expect(await scoreAfter({ discount: 1 }, 100, 300_000)).toBeCloseTo(kept(Math.exp(-1)), 9)
    expect(await scoreAfter({ discount: 1, decayMs: Infinity }, 1_000, 10 ** 9)).toBeCloseTo(kept(1), 9)
    expect(await scoreAfter({}, 100, 300_000)).toBeCloseTo(kept(0.99 ** 100 * Math.exp(-1)), 9)
  })

  test.each([
    ['value', { value: 0 }],
    ['latencyCost', { latencyCost: -1 }],
    ['discount', { discount: 0 }],
    ['discount', { discount: 1.1 }],
    ['decayMs', { decayMs: 0 }],
  ])('refuses a %s that cannot be', (option, options) => {
    expect(() => thompson(options)).toThrow(
      expect.objectContaining({ code: 'CONFIG', message: expect.stringContaining(`thompson: ${option}: expected`) }),
    )
  })
})

describe('the score', () => {
  test('of smart is what weights are multiplied by, with price, doubt and return: shares follow it', () => {
    const cost = ({ id }: { readonly id: string }): number => (id === 'dear' ? 3 : 1)
    const it = strategyBench(smart({ cost }), [
      { id: 'dear', weight: 3 },
      { id: 'cheap' },
      { id: 'shaky', weight: 2 },
      { id: 'back', weight: 4 },
    ])
    it.block('back', 1)
    it.build()
    it.block('back', 0)
    it.build()
    for (let i = 0; i < 100; i++) for (const id of ['dear', 'cheap']) it.settle(it.backend(id), 'ok')
    fail(it, 'shaky', 1)
    const shares = it.shares(400_000)
    const whole = it.all.reduce((sum, { id, weight }) => sum + weight * it.score(id)!, 0)
    for (const { id, weight } of it.all) {
      expect(Math.abs(shares[id]! - (100 * weight * it.score(id)!) / whole), id).toBeLessThan(0.35)
    }
    expect(it.score('cheap')! / it.score('dear')!).toBeCloseTo(1 + 0.05 * (2 / 3), 4)
    expect(it.score('back')).toBeCloseTo(0.1 * 0.64, 9)
  })

  test('of smart knows nothing of a change that was tried and not made', () => {
    const costs = new Map([
      ['a', 1],
      ['b', 2],
      ['c', 8],
    ])
    const it = strategyBench(
      smart({ cost: ({ id }) => costs.get(id)! }),
      [...costs.keys()].map((id) => ({ id })),
    )
    const picker = it.build(it.all.slice(0, 2))
    for (const backend of it.all) for (let i = 0; i < 100; i++) it.settle(backend, 'ok')
    picker(callAt(it.clock))
    const before = it.score('a')
    it.build()
    picker(callAt(it.clock))
    expect(it.score('a')).toBe(before)
  })

  test.each<[string, Strategy | StrategySettings, number | undefined]>([
    ['smart', smart(), 0.64],
    ['thompson', thompson(), 0.5],
    ['thompson by name, trusting', { name: 'thompson', prior: 'trusted' }, 5 / 6.2],
    ['smart within failover', failover(smart()), 0.64],
    ['smart within a subset within a zone', locality(subset(smart()), { zone: 'z' }), 0.64],
    ['one without opinions', p2c(byInflight), undefined],
  ])('is in the stats of a balancer: %s', async (_, strategy, score) => {
    const balancer = createBalancer({
      backends: ['a', 'b'].map((id) => ({ id, url: `http://${id}.test` })),
      transport: memory({ a: {}, b: {} }),
      strategy,
      clock: manualClock(),
      random: seededRandom(8),
    })
    const scores = () => balancer.stats().pools.default!.backends.map((backend) => backend.score)
    expect(scores()).toEqual([score, score].map((it) => (it === undefined ? it : expect.closeTo(it, 9))))
    if (score !== undefined) {
      for (let i = 0; i < 100; i++) await balancer.request('/')
      for (const one of scores()) expect(one).toBeGreaterThan(score)
    }
    await balancer.close()
  })

  test('that throws is reported once, and leaves the other stats alone', async () => {
    const strategy: Strategy = {
      name: 'broken',
      start: () => ({
        build:
          ({ eligible }) =>
          () =>
            eligible[0],
        score: () => {
          throw new Error('no idea')
        },
      }),
    }
    const balancer = createBalancer({
      backends: ['http://a.test', 'http://b.test'],
      transport: memory({ 'a.test:80': {}, 'b.test:80': {} }),
      strategy,
    })
    const warnings: Error[] = []
    balancer.on('warning', (error) => void warnings.push(error))
    for (let i = 0; i < 3; i++) {
      const { backends } = balancer.stats().pools.default!
      expect(backends.map(({ score, inflight }) => [score, inflight])).toEqual([
        [undefined, 0],
        [undefined, 0],
      ])
    }
    expect(warnings.map(({ cause }) => String(cause))).toEqual(['Error: no idea'])
    await balancer.close()
  })
})
