import {
  type Clock,
  type Core,
  type Endpoint,
  roundRobin,
  type Strategy,
  weightedRandom,
  weightedRoundRobin,
} from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { slowStart } from '../../src/health/slow-start.ts'
import { backendsOf, coreOf as kitCoreOf, membersOf } from '../../src/testing/kit.ts'
import { bad, good, outlierBench } from '../support/outlier-bench.ts'
import {
  type BenchOptions,
  bench,
  endpoint,
  endpoints,
  hard,
  inTurn,
  type PoolBench,
  soft,
} from '../support/pool-bench.ts'

const minute = { by: 'time', windowMs: 60_000, aggression: 1, minShare: 0.1, dwellMs: 2_000 } as const

function ramping(given: readonly (string | Endpoint)[], options: BenchOptions = {}): PoolBench {
  return bench(given, { watchers: [slowStart(minute)], ...options })
}

/** Blocks it and takes the reason back. */
function comeBack({ pool, backend }: PoolBench, id: string, by = 'outlier'): void {
  pool.block(backend(id), soft(by))
  pool.unblock(backend(id), by)
}

function weights({ pool }: PoolBench): number[] {
  return pool.records.map(({ weight }) => weight)
}

/** What a watcher is started with, without a pool; it writes the factors down. */
function coreOf(clock: Clock, weighed: number[]): Core {
  const core = kitCoreOf(clock, seededRandom(1), () => membersOf([]))
  return { ...core, control: { ...core.control, weigh: (_, __, factor) => void weighed.push(factor) } }
}

describe('the share of one that came back', () => {
  test.each([
    [1, { 0: 0.1, 6: 0.1, 15: 0.25, 30: 0.5, 45: 0.75, 60: 1 }],
    [2, { 0: 0.1, 6: 0.316, 15: 0.5, 30: Math.SQRT1_2, 60: 1 }],
    [0.5, { 0: 0.1, 30: 0.25, 45: 0.563, 60: 1 }],
  ])('with aggression %d grows over a minute as it should', async (aggression, shares) => {
    const it = ramping(['a', 'b'], { watchers: [slowStart({ ...minute, aggression })] })
    comeBack(it, 'a')
    let at = 0
    for (const [seconds, share] of Object.entries(shares)) {
      await it.clock.advance((Number(seconds) - at) * 1_000)
      at = Number(seconds)
      expect(it.backend('a').weight, `after ${seconds} s`).toBeCloseTo(share, 3)
    }
    expect([weights(it), it.clock.pending]).toEqual([[1, 1], 0])
  })

  test('never goes down, starts at the least share, and ends at all of it, whatever the settings', async () => {
    for (const windowMs of [1, 50, 999, 10_000, 7_200_000]) {
      for (const aggression of [0.1, 1, 10]) {
        for (const minShare of [0.001, 0.5, 1]) {
          const it = ramping(['a', 'b'], { watchers: [slowStart({ ...minute, windowMs, aggression, minShare })] })
          comeBack(it, 'a')
          let last = it.backend('a').weight
          expect(last).toBe(minShare)
          for (let i = 0; i < 20; i++) {
            await it.clock.advance(windowMs / 20)
            expect(it.backend('a').weight).toBeGreaterThanOrEqual(last)
            last = it.backend('a').weight
          }
          await it.clock.advance(Math.max(100, windowMs / 100))
          expect([weights(it), it.clock.pending]).toEqual([[1, 1], 0])
        }
      }
    }
  })

  test('grows from the first moments on: Envoy’s docs count a second at least, its code a millisecond', async () => {
    const it = ramping(['a', 'b'], { watchers: [slowStart({ ...minute, windowMs: 10_000, minShare: 0.001 })] })
    comeBack(it, 'a')
    expect(it.backend('a').weight).toBe(0.001)
    await it.clock.advance(500)
    expect(it.backend('a').weight).toBeCloseTo(0.05, 9)
  })

  test('multiplies its own weight', async () => {
    const it = ramping([endpoint('a', { weight: 8 }), 'b'])
    comeBack(it, 'a')
    await it.clock.advance(30_000)
    expect(weights(it)).toEqual([4, 1])
  })

  test('is small from the first pick on: the picker is built with it', () => {
    const strategy = inTurn()
    const weightsBuilt: number[] = []
    const spy: Strategy = {
      name: 'spy',
      start(core) {
        const chooser = strategy.start(core)
        return {
          build(members) {
            weightsBuilt.push(members.eligible.find(({ id }) => id === 'a')?.weight ?? 0)
            return chooser.build(members)
          },
        }
      },
    }
    const it = ramping(['a', 'b', 'c'], { strategy: spy })
    it.pool.block(it.backend('a'), soft('probe'))
    weightsBuilt.length = 0
    it.pool.unblock(it.backend('a'), 'probe')
    expect(weightsBuilt.at(-1)).toBe(0.1)
    expect(weightsBuilt).not.toContain(1)
  })

  test('starts anew when it was out again', async () => {
    const it = ramping(['a', 'b'])
    comeBack(it, 'a')
    await it.clock.advance(45_000)
    comeBack(it, 'a')
    expect(it.backend('a').weight).toBe(0.1)
    await it.clock.advance(30_000)
    expect(it.backend('a').weight).toBeCloseTo(0.5, 9)
  })

  test('counts from the end of the last reason', async () => {
    const it = ramping(['a', 'b'])
    it.pool.block(it.backend('a'), soft('outlier'))
    it.pool.block(it.backend('a'), soft('probe'))
    it.pool.unblock(it.backend('a'), 'outlier')
    await it.clock.advance(48_000)
    it.pool.unblock(it.backend('a'), 'probe')
    expect(it.backend('a').weight).toBe(0.1)
    await it.clock.advance(15_000)
    expect(it.backend('a').weight).toBeCloseTo(0.25, 9)
  })

  test('is small after maintenance, and whole after a rate limit: it was at work until then', () => {
    const it = ramping(['a', 'b', 'c', 'd'])
    it.pool.block(it.backend('a'), hard('operator'))
    it.pool.unblock(it.backend('a'), 'operator')
    comeBack(it, 'b', 'rate-limit')
    comeBack(it, 'c', 'probe')
    expect(weights(it)).toEqual([0.1, 1, 0.1, 1])
  })

  test('waits at the start while the clock is behind it', async () => {
    const real = manualClock(100_000)
    let behindMs = 0
    const weighed: number[] = []
    const clock = { now: () => real.now() - behindMs, after: real.after }
    const started = slowStart({ ...minute, aggression: 2 }).start(coreOf(clock, weighed))
    started.unblocked!(backendsOf(['http://a.test'])[0]!, soft('outlier'))
    await real.advance(15_000)
    expect(weighed.at(-1)).toBeCloseTo(0.5, 9)
    behindMs = 60_000
    await real.advance(600)
    expect(weighed.at(-1)).toBe(0.1)
    await real.advance(60_000 + 45_000)
    expect(weighed.at(-1)).toBe(1)
  })
})

test('a watcher that throws when it is told of a return breaks nothing, and is reported once', () => {
  const throwing = {
    name: 'throwing',
    start: () => ({
      unblocked: () => {
        throw new Error('oops')
      },
      stop: () => {},
    }),
  }
  const it = ramping(['a', 'b'], { watchers: [throwing, slowStart(minute)] })
  comeBack(it, 'a')
  comeBack(it, 'b')
  expect([it.eligible(), weights(it)]).toEqual(['a b', [0.1, 0.1]])
  expect(it.told().filter((event) => event.startsWith('warning'))).toHaveLength(1)
})

describe('who is added', () => {
  test('to others starts with little; those do not', async () => {
    const it = ramping(['a', 'b'])
    it.pool.apply(endpoints('a', 'b', 'c'))
    expect(weights(it)).toEqual([1, 1, 0.1])
    await it.clock.advance(30_000)
    expect(weights(it)).toEqual([1, 1, 0.5])
  })

  test('in the beginning, to nobody, or in place of everybody starts at once', async () => {
    const it = ramping(['a', 'b'])
    expect(weights(it)).toEqual([1, 1])
    it.pool.apply([])
    it.pool.apply(endpoints('c'))
    it.pool.apply(endpoints('d', 'e'))
    expect([weights(it), it.clock.pending]).toEqual([[1, 1], 0])
  })

  test('by the update that turns slow start on starts with little as well', () => {
    const it = bench(['a', 'b'])
    it.reconfigure({ watchers: [slowStart(minute)] }, endpoints('a', 'b', 'c'))
    expect(weights(it)).toEqual([1, 1, 0.1])
  })

  test('with another URL is another one', () => {
    const it = ramping(['a', 'b'])
    it.pool.apply([endpoint('a', { url: 'http://elsewhere.test' }), endpoint('b', { weight: 3 })])
    expect(weights(it)).toEqual([0.1, 3])
  })
})

describe('the timer', () => {
  test('runs only while something ramps', async () => {
    const it = ramping(['a', 'b'])
    expect(it.clock.pending).toBe(0)
    comeBack(it, 'a')
    expect(it.clock.pending).toBe(1)
    await it.clock.advance(59_999)
    expect(it.clock.pending).toBe(1)
    await it.clock.advance(1)
    expect(it.clock.pending).toBe(0)
  })

  test('builds pickers ten times a second at most, and about a hundred times in all', async () => {
    for (const [windowMs, most] of [
      [10_000, 103],
      [1_000, 13],
      [3_600_000, 103],
    ] as const) {
      const strategy = inTurn()
      const it = ramping(['a', 'b'], { strategy, watchers: [slowStart({ ...minute, windowMs })] })
      comeBack(it, 'a')
      const before = strategy.built.length
      await it.clock.advance(2 * windowMs)
      expect(strategy.built.length - before).toBeLessThanOrEqual(most)
      expect(strategy.built.length - before).toBeGreaterThan(5)
    }
  })

  test('wakes ten times a second at most, and is stopped once', async () => {
    const clock = manualClock()
    const weighed: number[] = []
    const started = slowStart({ ...minute, windowMs: 1_000 }).start(coreOf(clock, weighed))
    started.unblocked!(backendsOf(['http://a.test'])[0]!, soft('outlier'))
    await clock.advance(950)
    expect(weighed).toHaveLength(10)
    started.stop()
    started.stop()
    await clock.advance(10_000)
    expect(weighed.slice(10)).toEqual([1])
  })

  test('ends when who ramps is removed', async () => {
    const it = ramping(['a', 'b'])
    comeBack(it, 'a')
    it.pool.apply(endpoints('b'))
    await it.clock.advance(600)
    expect(it.clock.pending).toBe(0)
  })

  test('is stopped by an update that turns slow start off, and everybody has all of his share', async () => {
    const it = ramping(['a', 'b'])
    comeBack(it, 'a')
    it.reconfigure({ watchers: [] }, endpoints('a', 'b'))
    expect([weights(it), it.clock.pending]).toEqual([[1, 1], 0])
  })

  test('is stopped by a close, even if reasons end after it', () => {
    const outlast = {
      name: 'outlast',
      start: ({ control, members }: Parameters<ReturnType<typeof slowStart>['start']>[0]) => ({
        stop: () => {
          for (const backend of members().all) control.unblock(backend, 'probe')
        },
      }),
    }
    for (const watchers of [
      [slowStart(minute), outlast],
      [outlast, slowStart(minute)],
    ]) {
      const it = ramping(['a', 'b'], { watchers })
      comeBack(it, 'b')
      it.pool.block(it.backend('a'), soft('probe'))
      it.pool.close()
      expect([weights(it), it.clock.pending]).toEqual([[1, 1], 0])
    }
  })
})

describe('in a balancer', () => {
  const config = (strategy: Strategy): Parameters<typeof outlierBench>[0] => ({
    strategy,
    watchers: [slowStart({ ...minute, windowMs: 10_000 })],
    health: { passive: { jitter: 0 } },
  })

  /** How many of so many calls in a moment go to `a`. */
  async function share({ start, transport }: ReturnType<typeof outlierBench>, calls: number): Promise<number> {
    const before = transport.sends.length
    for (let i = 0; i < calls; i++) await start().ended
    return transport.sends.slice(before).filter(({ to }) => to === 'a').length / calls
  }

  /** `a` was out and has just proved itself. */
  async function returned(strategy: Strategy): Promise<ReturnType<typeof outlierBench>> {
    const it = outlierBench(config(strategy))
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.back('a')
    it.scripts.set('a', good)
    await it.hit('a')
    return it
  }

  test('an ejected backend returns by its share, in turn: exact to one request', async () => {
    const it = await returned(weightedRoundRobin())
    for (const [seconds, factor] of [
      [0, 0.1],
      [3, 0.3],
      [3, 0.6],
      [3, 0.9],
      [1.5, 1],
    ] as const) {
      await it.clock.advance(seconds * 1_000)
      expect(Math.abs((await share(it, 420)) - factor / (2 + factor))).toBeLessThanOrEqual(1.5 / 420)
    }
  })

  test('and by chance: within 3 % under a seed', async () => {
    const it = await returned(weightedRandom())
    for (const [seconds, factor] of [
      [0, 0.1],
      [5, 0.5],
      [6, 1],
    ] as const) {
      await it.clock.advance(seconds * 1_000)
      expect(Math.abs((await share(it, 2_000)) - factor / (2 + factor))).toBeLessThanOrEqual(0.03)
    }
  })

  test('those who ramp together share alike', async () => {
    const it = outlierBench(config(weightedRoundRobin()))
    for (const id of 'abc') it.balancer.disable(id)
    for (const id of 'abc') it.balancer.enable(id)
    await it.clock.advance(3_050)
    expect(Math.abs((await share(it, 300)) - 1 / 3)).toBeLessThan(0.02)
  })

  test('the trial comes first: one request, then the ramp goes on from the return', async () => {
    const it = outlierBench(config(weightedRoundRobin()))
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.back('a')
    it.scripts.set('a', () => {})
    const before = it.transport.sends.length
    for (let i = 0; i < 100; i++) it.start()
    await it.clock.advance(4_000)
    for (let i = 0; i < 100; i++) it.start()
    const toA = it.transport.sends.slice(before).filter(({ to }) => to === 'a')
    expect(toA).toHaveLength(1)
    it.scripts.set('a', good)
    toA[0]!.answer()
    await it.clock.advance(0)
    expect(Math.abs((await share(it, 480)) - 0.4 / 2.4)).toBeLessThan(0.02)
  })

  test('round robin goes on in its strict order, whoever ramps', async () => {
    const it = outlierBench(config(roundRobin()))
    for (let i = 0; i < 30; i++) await it.call()
    it.balancer.disable('a')
    it.balancer.enable('a')
    for (let i = 0; i < 30; i++) {
      await it.call()
      await it.clock.advance(70)
    }
    expect('abc'.repeat(22)).toContain(it.to())
  })
})
