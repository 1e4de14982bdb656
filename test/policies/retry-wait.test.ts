import type { Endpoint, RawHeaders } from 'evenkeel'
import { manualClock } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { type BalancerBench, type BalancerBenchOptions, balancerBench } from '../support/balancer-bench.ts'
import { inOrder, type Play, refuse, status } from '../support/plays.ts'
import { textOf } from '../support/scripted.ts'

/** A backend whose limits are its own: nobody is sent to it while it cools down. */
function keyed(id: string, rest: Partial<Endpoint> = {}): Endpoint {
  return { url: `http://${id}.test`, id, headers: { authorization: `Bearer ${id}` }, ...rest }
}

function limited(...headers: RawHeaders): Play {
  return (send) => send.answer(429, 'slow down', headers)
}

/** Each backend as its own play says. */
function each(plays: Readonly<Record<string, Play>>): Play {
  const sends: Record<string, number> = {}
  return (send) => {
    sends[send.to] = (sends[send.to] ?? 0) + 1
    plays[send.to]!(send, sends[send.to]!)
  }
}

function waiting(play: Play, options: BalancerBenchOptions = {}): BalancerBench & { readonly pauses: number[] } {
  const pauses: number[] = []
  const bench = balancerBench(play, { ids: 'a', ...options, health: { slowStart: false, ...options.health } })
  bench.balancer.on('retry', (_, __, ms) => void pauses.push(ms))
  return { ...bench, pauses }
}

const START = 1_000

describe('a backend that asks to be left alone', () => {
  test('is asked again when that is over, if there is no other', async () => {
    for (const backends of [[keyed('a')], [{ url: 'http://a.test', id: 'a' }]]) {
      for (const code of [429, 503]) {
        const first: Play = (send) => send.answer(code, '', ['retry-after', '3'])
        const it = waiting(inOrder(first, status(200)), { backends })
        const { response, atMs } = await it.call()
        expect(response?.status).toBe(200)
        expect(atMs - START).toBeGreaterThanOrEqual(3_000)
        expect(atMs - START).toBeLessThan(3_310 + 250) // the cool-down is drawn, and so is the pause behind it
        expect([it.to(), it.balancer.stats().pools.default!.retries]).toEqual(['aa', 1])
      }
    }
  })

  test('for just as long as is waited, is waited for, however the cool-down was drawn: 30 seeds', async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const it = waiting(inOrder(limited('retry-after-ms', '500'), status(200)), {
        seed,
        backends: [keyed('a')],
        retry: { waitMs: 500 },
      })
      expect((await it.call()).response?.status, `seed ${seed}`).toBe(200)
    }
  })

  test('is not asked a moment too soon by a clock that rounds its timers, as Node does: 200 seeds', async () => {
    for (let seed = 1; seed <= 200; seed++) {
      const exact = manualClock(seed * 1_000.37)
      const clock = {
        now: exact.now,
        after: (ms: number, run: () => void) =>
          exact.after(Math.floor(exact.now()) + Math.trunc(ms) - exact.now(), run),
      }
      const play: Play = (send, number) => {
        const answers = inOrder(limited('retry-after-ms', '100.5'), limited('retry-after-ms', '100.5'), status(200))
        exact.after(0.61, () => answers(send, number)) // the second limit is told in the midst of the rest
      }
      const it = waiting(play, { seed, clock, backends: [keyed('a')] })
      const { ended } = it.start()
      await exact.advance(40.9)
      const { ended: late } = it.start()
      await exact.advance(1_000)
      for (const { response } of [await ended, await late]) expect(response?.status, `seed ${seed}`).toBe(200)
    }
  })

  test('for longer than that is not: its answer is returned as it came', async () => {
    const it = waiting(limited('retry-after', '11', 'x-limit', '5'))
    const { response, atMs } = await it.call()
    expect([response?.status, atMs, it.transport.sends.length]).toEqual([429, START, 1])
    expect(response?.headers).toEqual(['retry-after', '11', 'x-limit', '5'])
    expect(await textOf(response!.body)).toBe('slow down')
    const { decision } = it.transport.last().attempt
    expect(decision).toBe('rate-limited (429): not sent again, it asks to be left alone for 11000 ms')
    expect(it.balancer.stats().pools.default!.budgetLeft).toBeCloseTo(100.2, 9)
  })

  test('is never waited for with a limit of 0', async () => {
    const it = waiting(limited('retry-after-ms', '1'), { retry: { waitMs: 0 } })
    expect(await it.call()).toMatchObject({ response: { status: 429 }, atMs: START })
  })

  test('until after the deadline is not waited for', async () => {
    const it = waiting(limited('retry-after', '3'))
    expect(await it.call({}, { timeoutMs: 2_999 })).toMatchObject({ response: { status: 429 }, atMs: START })
    const other = waiting(inOrder(limited('retry-after', '3'), status(200)))
    expect((await other.call({}, { timeoutMs: 4_000 })).response?.status).toBe(200)
  })

  test('until a date is waited for by a clock that knows the date', async () => {
    const clock = Object.assign(manualClock(), { wall: () => Date.UTC(2026, 0, 8, 12) + clock.now() - START })
    const it = waiting(inOrder(limited('retry-after', 'Thu, 08 Jan 2026 12:00:05 GMT'), status(200)), { clock })
    const { ended } = it.start()
    await clock.advance(4_999)
    expect(it.to()).toBe('a')
    await clock.advance(600 + 250)
    expect((await ended).response?.status).toBe(200)
  })

  test('is left alone at once for another that is well', async () => {
    const it = waiting(each({ a: limited('retry-after', '3'), b: status(200) }), { backends: [keyed('a'), keyed('b')] })
    const { response, atMs } = await it.call({}, { prefer: 'a' })
    expect([response?.status, it.to()]).toEqual([200, 'ab'])
    expect(atMs - START).toBeLessThanOrEqual(26)
  })

  test('is waited for when the others do not have the call’s tags', async () => {
    const it = waiting(each({ a: inOrder(limited('retry-after', '3'), status(200)), b: status(200) }), {
      backends: [keyed('a', { tags: ['gpu'] }), keyed('b')],
    })
    const { response, atMs } = await it.call({}, { tags: ['gpu'] })
    expect([response?.status, it.to()]).toEqual([200, 'aa'])
    expect(atMs - START).toBeGreaterThanOrEqual(3_000)
  })

  test('for long is not waited for when another comes back sooner', async () => {
    const it = waiting(
      each({ a: limited('retry-after', '50'), b: inOrder(limited('retry-after', '2'), status(200)) }),
      {
        backends: [keyed('a'), keyed('b')],
        retry: { status: [429] },
      },
    )
    await it.call({}, { prefer: 'b', idempotent: false }) // b cools down for 2 s
    const { response, atMs } = await it.call()
    expect([response?.status, it.to()]).toEqual([200, 'bab'])
    expect(atMs - START).toBeGreaterThanOrEqual(2_000)
    expect(atMs - START).toBeLessThan(2_300)
  })

  test('is no reason to wait for who did not ask', async () => {
    // a fails without a word about when; that b rests for a minute is b's affair.
    const it = waiting(each({ a: inOrder(status(503), status(200)), b: limited('retry-after', '50') }), {
      backends: [keyed('a'), keyed('b')],
    })
    await it.call({}, { prefer: 'b', idempotent: false })
    const { response, atMs } = await it.call()
    expect([response?.status, it.to()]).toEqual([200, 'baa'])
    expect(atMs - START).toBeLessThanOrEqual(251)
  })

  test('says so each time: the last answer is returned when the attempts are used up', async () => {
    const it = waiting(inOrder(limited('retry-after', '1'), limited('retry-after', '2'), limited('x', 'last')))
    const { response, atMs } = await it.call()
    expect([response?.status, response?.headers, it.to()]).toEqual([429, ['x', 'last'], 'aaa'])
    expect(atMs - START).toBeGreaterThanOrEqual(3_000)
  })

  test('is let go in the tick of an abort, and no timer stays for the call', async () => {
    const it = waiting(limited('retry-after', '5'), { health: { cooldown: false } })
    const { call, ended } = it.start()
    await it.clock.advance(1_000)
    expect(it.clock.pending).toBe(1)
    const reason = new Error('stop')
    call.cancel(reason)
    expect(it.clock.pending).toBe(0)
    expect(await ended).toEqual({ error: reason, atMs: 2_000 })
    expect(it.balancer.stats().pools.default).toMatchObject({ inflight: 0, aborted: 1 })
  })

  test('is not waited for by a call that may not be repeated', async () => {
    const it = waiting(limited('retry-after', '1'))
    expect(await it.call({ method: 'POST' })).toMatchObject({ response: { status: 429 }, atMs: START })
  })
})

describe('when all backends cool down', () => {
  /** All of them asked for so many seconds. */
  async function resting(seconds: Readonly<Record<string, number>>, options: BalancerBenchOptions = {}) {
    const ids = Object.keys(seconds)
    const plays = ids.map((id) => [id, inOrder(limited('retry-after', `${seconds[id]}`), status(200))] as const)
    const it = waiting(each(Object.fromEntries(plays)), { backends: ids.map((id) => keyed(id)), ...options })
    for (const prefer of ids) await it.call({}, { prefer, idempotent: false })
    return it
  }

  test('a new call waits for the first to come back: no request is made, so its method does not matter', async () => {
    for (const method of ['GET', 'POST']) {
      const it = await resting({ a: 20, b: 3, c: 9 })
      const { response, atMs } = await it.call({ method })
      expect([response?.status, it.to()]).toEqual([200, 'abcb'])
      expect(atMs - START).toBeGreaterThanOrEqual(3_000)
      expect(atMs - START).toBeLessThan(3_310)
      expect(it.balancer.stats().pools.default!.retries).toBe(0)
    }
  })

  test('it waits however unround the times are: 60 seeds', async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const it = waiting(inOrder(limited('retry-after-ms', '100'), status(200)), { seed, backends: [keyed('a')] })
      await it.clock.advance(seed * 1_000.1)
      await it.call({ method: 'POST' })
      await it.clock.advance(seed * 0.37)
      expect((await it.call()).response?.status, `seed ${seed}`).toBe(200)
    }
  })

  test('longer than is waited, it is told NO_BACKEND at once, and when to come again', async () => {
    const it = await resting({ a: 20, b: 15 })
    const { error, atMs } = await it.call()
    expect(atMs).toBe(START)
    expect(error).toMatchObject({ code: 'NO_BACKEND' })
    const { retryAfterMs } = error as { retryAfterMs: number }
    expect(retryAfterMs).toBeGreaterThanOrEqual(15_000)
    expect(retryAfterMs).toBeLessThan(16_500)
  })

  test('until after its deadline, it is told NO_BACKEND at once', async () => {
    const it = await resting({ a: 3 })
    expect(await it.call({}, { timeoutMs: 2_000 })).toMatchObject({ error: { code: 'NO_BACKEND' }, atMs: START })
  })

  test('and none that rests has its tags, it is told NO_BACKEND at once', async () => {
    const it = await resting({ a: 3 })
    expect(await it.call({}, { tags: ['gpu'] })).toMatchObject({ error: { code: 'NO_BACKEND' }, atMs: START })
  })

  test('but for one that is full, it is told OVERLOADED at once: that one may be free any moment', async () => {
    const it = waiting(
      inOrder(limited('retry-after', '3'), () => {}),
      {
        backends: [keyed('a'), { url: 'http://b.test', id: 'b', maxInflight: 1 }],
      },
    )
    await it.call({}, { prefer: 'a', idempotent: false })
    it.start()
    expect(await it.call()).toMatchObject({ error: { code: 'OVERLOADED' }, atMs: START })
  })

  test('and one is disabled as well, nobody waits for that one', async () => {
    const it = await resting({ a: 2, b: 5 })
    it.balancer.disable('a')
    const { response, atMs } = await it.call()
    expect(response?.status).toBe(200)
    expect(atMs - START).toBeGreaterThanOrEqual(5_000)
    const alone = await resting({ a: 2 })
    alone.balancer.disable('a')
    expect(await alone.call()).toMatchObject({ error: { code: 'NO_BACKEND' }, atMs: START })
  })

  test('it waits on when the rest is made longer meanwhile, within its limit', async () => {
    for (const [waitMs, ends] of [
      [9_000, { response: { status: 200 } }],
      [6_500, { error: { code: 'NO_BACKEND' } }],
    ] as const) {
      const it = waiting(inOrder(limited('retry-after', '2'), status(200)), {
        backends: [keyed('a')],
        retry: { waitMs },
        health: { cooldown: { rateLimitMs: 6_000 } },
      })
      const late = it.balancer.acquire() // from before the rest
      await it.call({ method: 'POST' })
      const { ended } = it.start()
      await it.clock.advance(1_000)
      late.fail({ status: 429 })
      expect(await it.until(ended)).toMatchObject(ends)
    }
  })

  test('an abort ends the wait in its tick, with its reason', async () => {
    const it = await resting({ a: 3 })
    await it.clock.advance(1_000)
    const pending = it.clock.pending
    const { call, ended } = it.start()
    await it.clock.advance(0)
    expect(it.clock.pending).toBe(pending + 1)
    const reason = new Error('stop')
    call.cancel(reason)
    expect(it.clock.pending).toBe(pending)
    expect(await ended).toEqual({ error: reason, atMs: 2_000 })
    expect(it.transport.sends).toHaveLength(1)
  })

  test('in an update that removes them all, the call fails when its wait is over', async () => {
    const it = await resting({ a: 3 })
    const { ended } = it.start()
    await it.balancer.update({ backends: [{ url: 'http://b.test', weight: 0 }], transport: it.transport })
    expect((await it.until(ended)).error).toMatchObject({ code: 'NO_BACKEND' })
  })
})

describe('without a word about when', () => {
  test('a pool of one pauses ten times as long as a pool of more: full jitter from 250 or 25 ms, 400 calls, seed 5', async () => {
    const [a, b] = ['a', 'b'].map((id) => ({ url: `http://${id}.test`, id }))
    for (const [backends, mostMs, tags] of [
      [[a!], 250, []],
      [[a!, b!], 25, []],
      [[{ ...a!, tags: ['gpu'] }, b!], 250, ['gpu']], // one that may be used is a pool of one
    ] as const) {
      const it = waiting(refuse, {
        backends,
        seed: 5,
        retry: { attempts: 2, budget: { share: 1, perSecond: 1e6, windowMs: 10_000 } },
        health: { passive: false },
      })
      for (let i = 0; i < 400; i++) it.start({}, { tags })
      await it.clock.advance(1_000)
      expect(it.pauses).toHaveLength(400)
      expect(Math.max(...it.pauses)).toBeLessThan(mostMs)
      const mean = it.pauses.reduce((sum, ms) => sum + ms, 0) / 400
      expect(mean / (mostMs / 2)).toBeGreaterThan(0.9) // 3.5 standard deviations
      expect(mean / (mostMs / 2)).toBeLessThan(1.1)
    }
  })
})
