import {
  type BalancerOptions,
  type CallOptions,
  createBalancer,
  memory,
  weightedRandom,
  weightedRoundRobin,
} from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { slowStart } from '../../src/health/slow-start.ts'
import { bad, good, type OutlierBench, outlierBench } from '../support/outlier-bench.ts'
import { bench, endpoints, inTurn, type PoolBench, soft } from '../support/pool-bench.ts'

const settings = { by: 'success', windowMs: 10_000, aggression: 1, minShare: 0.1, dwellMs: 2_000 } as const

/** A pool in which `a` has just come back from an ejection. */
function returned(given: Parameters<typeof bench>[1] = {}): PoolBench {
  const it = bench(['a', 'b', 'c'], { watchers: [slowStart(settings)], ...given })
  it.pool.block(it.backend('a'), soft('outlier'))
  it.pool.unblock(it.backend('a'), 'outlier')
  return it
}

/** So many answers of `a`, one after the other. */
async function answers(it: PoolBench, times: number, status = 200): Promise<void> {
  const from = it.transport.sends.length
  for (let i = 0; i < times; i++) {
    const answer = it.send({ prefer: 'a' } satisfies CallOptions)
    it.transport.last().answer(status)
    await answer.catch(() => {})
  }
  for (const { to } of it.transport.sends.slice(from)) expect(to).toBe('a')
  await it.clock.advance(0)
}

/** The scripts answer by hand. */
const byHand = { play: () => {} }

describe('by success, one that came back', () => {
  test('has 10, 30, 50 and 100 % after 0, 1, 3 and 5 successes in a row, two seconds apart', async () => {
    const it = returned(byHand)
    const seen = [it.backend('a').weight]
    for (let i = 1; i <= 5; i++) {
      await it.clock.advance(2_000)
      await answers(it, 1)
      seen.push(it.backend('a').weight)
    }
    expect(seen).toEqual([0.1, 0.3, 0.3, 0.5, 0.5, 1])
    await it.clock.advance(100)
    expect([it.backend('b').weight, it.clock.pending]).toEqual([1, 0])
  })

  test('cannot jump by a burst: each share lasts two seconds, whatever it answers', async () => {
    const it = returned(byHand)
    const seen: number[] = []
    for (const afterMs of [0, 1_999, 1, 1_999, 1, 1_999, 1]) {
      await it.clock.advance(afterMs)
      await answers(it, 20)
      seen.push(it.backend('a').weight)
    }
    expect(seen).toEqual([0.1, 0.1, 0.3, 0.3, 0.5, 0.5, 1])
  })

  test.each([1, 2, 4])('is back at 10 %% after a failure, though %i successes came before it', async (before) => {
    const it = returned(byHand)
    for (let i = 0; i < before; i++) {
      await it.clock.advance(2_000)
      await answers(it, 1)
    }
    await answers(it, 1, 500)
    expect(it.backend('a').weight).toBe(0.1)
    await it.clock.advance(1_999) // and has to stay there as if it had come back now
    await answers(it, 9)
    expect(it.backend('a').weight).toBe(0.1)
    await it.clock.advance(1)
    await answers(it, 1)
    expect(it.backend('a').weight).toBe(0.3)
  })

  test('counts successes in a row: one failure among them begins anew', async () => {
    const it = returned(byHand)
    await answers(it, 2)
    await answers(it, 1, 503)
    await it.clock.advance(2_000)
    await answers(it, 1)
    await it.clock.advance(2_000)
    await answers(it, 1)
    expect(it.backend('a').weight).toBe(0.3)
  })

  test('proves nothing by what says nothing of its health: a rate limit, a cancel', async () => {
    const it = returned(byHand)
    await it.clock.advance(2_000)
    await answers(it, 5, 429)
    const call = it.callOf({ prefer: 'a' })
    const answer = it.send({}, call)
    call.cancel(new Error('no longer wanted'))
    await expect(answer).rejects.toThrow('no longer wanted')
    await it.clock.advance(0)
    expect(it.backend('a').weight).toBe(0.1)
  })

  test('is not judged by what began before it was back', async () => {
    const it = bench(['a', 'b'], { watchers: [slowStart(settings)], ...byHand })
    const early = [200, 500].map((status) => {
      const answer = it.send({ prefer: 'a' })
      return { answer, send: it.transport.last(), status }
    })
    await it.clock.advance(10)
    it.pool.block(it.backend('a'), soft('outlier'))
    it.pool.unblock(it.backend('a'), 'outlier')
    await it.clock.advance(2_000)
    early[0]!.send.answer(200)
    await early[0]!.answer
    await it.clock.advance(0)
    expect(it.backend('a').weight).toBe(0.1)
    await answers(it, 1)
    expect(it.backend('a').weight).toBe(0.3)
    early[1]!.send.answer(500)
    await early[1]!.answer
    await it.clock.advance(0)
    expect(it.backend('a').weight).toBe(0.3)
  })

  test('fails as it likes once it has all of its share: that is for the detectors', async () => {
    const it = returned(byHand)
    for (let i = 0; i < 5; i++) {
      await it.clock.advance(2_000)
      await answers(it, 1)
    }
    await answers(it, 3, 500)
    expect(it.backend('a').weight).toBe(1)
  })

  test('goes one step up for each ten seconds in which nothing comes, and no picker is built between', async () => {
    const strategy = inTurn()
    const it = returned({ strategy })
    const built = strategy.built.length
    const seen: number[] = []
    for (const afterMs of [9_999, 101, 9_899, 201, 9_799, 301]) {
      await it.clock.advance(afterMs)
      seen.push(it.backend('a').weight)
    }
    expect(seen).toEqual([0.1, 0.3, 0.3, 0.5, 0.5, 1])
    expect([it.clock.pending, strategy.built.length - built]).toEqual([0, 3])
  })

  test('has to prove itself where anything comes: what is under way may yet fail', async () => {
    const it = returned(byHand)
    const answer = it.send({ prefer: 'a' })
    const send = it.transport.last()
    await it.clock.advance(60_000)
    expect(it.backend('a').weight).toBe(0.1)
    send.answer(500)
    await answer.catch(() => {})
    await it.clock.advance(9_900)
    expect(it.backend('a').weight).toBe(0.1) // what failed was news
    await answers(it, 1)
    expect(it.backend('a').weight).toBe(0.3)
    await it.clock.advance(9_900)
    expect(it.backend('a').weight).toBe(0.3)
    await it.clock.advance(200)
    expect(it.backend('a').weight).toBe(0.5)
  })

  test('takes a second for a step without requests even where a share need not last', async () => {
    const it = returned({ watchers: [slowStart({ ...settings, dwellMs: 0 })] })
    await it.clock.advance(950)
    expect(it.backend('a').weight).toBe(0.1)
    await it.clock.advance(2_300)
    expect([it.backend('a').weight, it.clock.pending]).toEqual([1, 0])
  })

  test('starts anew when it was out again, and is forgotten when it has left', async () => {
    const it = returned(byHand)
    await it.clock.advance(2_000)
    await answers(it, 1)
    it.pool.block(it.backend('a'), soft('probe'))
    it.pool.unblock(it.backend('a'), 'probe')
    expect(it.backend('a').weight).toBe(0.1)
    it.pool.apply(endpoints('b', 'c'))
    it.pool.apply(endpoints('b', 'c', 'a'))
    expect(it.backend('a').weight).toBe(0.1) // it is new
  })

  test('has its whole weight when slow start is turned off', () => {
    const it = returned()
    it.reconfigure({ watchers: [] }, endpoints('a', 'b', 'c'))
    expect(it.pool.records.map(({ weight }) => weight)).toEqual([1, 1, 1])
  })
})

describe('in a balancer, by success', () => {
  type Config = NonNullable<Parameters<typeof outlierBench>[0]>

  const config = (rest: Partial<Config> = {}): Config => ({
    ids: 'abc',
    health: { passive: { jitter: 0 }, slowStart: { by: 'success' } },
    ...rest,
  })

  /** How many of so many calls in a moment go to `a`. They are given up, so that they prove nothing. */
  async function share({ start, transport, scripts, clock }: OutlierBench, calls: number): Promise<number> {
    for (const id of 'abc') scripts.set(id, () => {})
    const before = transport.sends.length
    const started = Array.from({ length: calls }, () => start().call)
    const met = transport.sends.slice(before).filter(({ to }) => to === 'a').length
    for (const call of started) call.cancel(new Error('enough'))
    for (const id of 'abc') scripts.set(id, good)
    await clock.advance(0)
    return met / calls
  }

  test.each([
    ['in turn: exact to one request', weightedRoundRobin, 420, 1.5 / 420],
    ['by chance: within 3 % under a seed', weightedRandom, 2_000, 0.03],
  ])('with three equal ones has r / (2 + r) of the requests, %s', async (_, strategy, calls, within) => {
    const it = outlierBench(config({ strategy: strategy() }))
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.back('a')
    it.scripts.set('a', good)
    await it.hit('a') // the trial
    for (const [successes, factor] of [
      [0, 0.1],
      [1, 0.3],
      [2, 0.5],
      [2, 1],
    ] as const) {
      await it.clock.advance(2_000)
      await it.hit('a', successes)
      await it.clock.advance(100) // weights are published that often
      expect(Math.abs((await share(it, calls)) - factor / (2 + factor))).toBeLessThanOrEqual(within)
    }
  })

  test('with the default strategy is back within two minutes of light traffic: an idle one is tried again', async () => {
    const it = outlierBench(config({ strategy: 'peak-ewma' }))
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.back('a')
    it.scripts.set('a', good)
    await it.hit('a')
    const weight = (): number => it.balancer.stats().pools.default!.backends[0]!.weight
    expect(weight()).toBe(0.1)
    let seconds = 0
    for (; weight() < 1 && seconds < 600; seconds++) {
      await it.call()
      await it.clock.advance(1_000)
    }
    expect(seconds).toBeLessThan(120)
  })

  test.each(['peak-ewma', 'prequal'] as const)(
    'one that is added has its part under %s after half a minute',
    async (name) => {
      const clock = manualClock()
      const served: Record<string, number> = { a: 0, b: 0, c: 0, d: 0 }
      const script = { headMs: 5, body: 'ok' }
      const transport = memory({ a: script, b: script, c: script, d: script }, { clock })
      const optionsOf = (ids: string): BalancerOptions => ({
        backends: [...ids].map((id) => ({ id, url: `http://${id}.test` })),
        transport,
        strategy: name,
        health: { slowStart: { by: 'success' } },
      })
      const balancer = createBalancer({ ...optionsOf('abc'), clock, random: seededRandom(7) })
      balancer.on('attempt', ({ backend }) => served[backend.id]!++)
      const serve = async (calls: number): Promise<void> => {
        for (let i = 0; i < calls; i++) {
          const answer = balancer.request('/')
          await clock.advance(25)
          await (await answer).body.text()
        }
      }
      await serve(200)
      await balancer.update(optionsOf('abcd'))
      await serve(1_400) // 35 s
      expect(balancer.stats().pools.default!.backends[3]!.weight).toBe(1)
      const before = served.d!
      await serve(2_400)
      expect((served.d! - before) / 2_400).toBeGreaterThan(0.15)
      await balancer.close()
    },
  )
})
