import type { BalancerError, Policy } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { balancerBench } from '../support/balancer-bench.ts'
import { inOrder, type Play, refuse, reset, stale, status } from '../support/plays.ts'
import { textOf } from '../support/scripted.ts'

const unlimited = { share: 1, perSecond: 1e6, windowMs: 10_000 }

describe('the pause', () => {
  /** Mean pauses before each retry, over 2 000 calls at another backend with a base of 100 ms and a limit of 10 s. */
  async function meansOf(jitter: 'full' | 'equal' | 'decorrelated' | 'none', seed: number): Promise<number[]> {
    const { balancer, start, clock } = balancerBench(refuse, {
      seed,
      health: { passive: false },
      retry: { attempts: 9, baseMs: 100, maxMs: 10_000, jitter, budget: unlimited },
    })
    const pauses: number[][] = Array.from({ length: 8 }, () => [])
    balancer.on('retry', (_, attempt, pauseMs) => void pauses[attempt.number - 1]!.push(pauseMs))
    for (let batch = 0; batch < 20; batch++) {
      for (let i = 0; i < 100; i++) start()
      await clock.advance(80_000)
    }
    for (const all of pauses) {
      expect(all).toHaveLength(2_000)
      expect(Math.max(...all)).toBeLessThanOrEqual(10_000)
    }
    return pauses.map((all) => all.reduce((sum, ms) => sum + ms, 0) / all.length)
  }

  for (const [jitter, oracle, name] of [
    ['full', [50, 100, 200, 400, 800, 1_600, 3_200, 5_000], 'from 0 to a doubling time with a limit'],
    ['equal', [75, 150, 300, 600, 1_200, 2_400, 4_800, 7_500], 'from the upper half of it, if so configured'],
    ['decorrelated', [200, 349, 573, 908, 1_410, 2_015, 2_613, 3_124], 'up to three times the last one'],
    ['none', [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000], 'that time itself, without jitter'],
  ] as const) {
    test(`is drawn ${name} (${jitter}): means within 7 % of the law, 2 000 calls, seed 7`, async () => {
      const means = await meansOf(jitter, 7)
      console.info(`${jitter}: ${means.map(Math.round).join(', ')} ms`)
      for (const [i, mean] of means.entries()) {
        expect(mean / oracle[i]!, `pause ${i + 1}`).toBeGreaterThan(0.93)
        expect(mean / oracle[i]!, `pause ${i + 1}`).toBeLessThan(1.07)
      }
    })
  }

  test('never leaves its kind’s range', async () => {
    for (const [jitter, least] of [
      ['full', 0],
      ['equal', 50],
      ['decorrelated', 100],
      ['none', 100],
    ] as const) {
      for (let seed = 1; seed <= 40; seed++) {
        const { balancer, call } = balancerBench(inOrder(refuse, status(200)), { seed, retry: { baseMs: 100, jitter } })
        const pauses: number[] = []
        balancer.on('retry', (_, __, ms) => void pauses.push(ms))
        await call()
        expect(pauses[0]).toBeGreaterThanOrEqual(least)
        expect(pauses[0]).toBeLessThanOrEqual(jitter === 'decorrelated' ? 300 : 100)
      }
    }
  })

  test('is waited, not shortened', async () => {
    const { balancer, call } = balancerBench(inOrder(refuse, status(200)), { retry: { baseMs: 1_000 } })
    let pauseMs = 0
    balancer.on('retry', (_, __, ms) => {
      pauseMs = ms
    })
    const { atMs } = await call()
    expect(pauseMs).toBeGreaterThan(0)
    expect(atMs - 1_000).toBeGreaterThan(pauseMs - 1e-6)
    expect(atMs - 1_000).toBeLessThan(pauseMs + 2) // time moves in steps of 1 ms
  })

  test('may be none', async () => {
    const { call } = balancerBench(inOrder(refuse, refuse, status(200)), { retry: { baseMs: 0, maxMs: 0 } })
    expect(await call()).toMatchObject({ response: { status: 200 }, atMs: 1_000 })
  })

  test('may be an hour', async () => {
    const { balancer, call } = balancerBench(refuse, { retry: { baseMs: 4e6, maxMs: 4e6 } })
    const pauses: number[] = []
    balancer.on('retry', (call, _, ms) => {
      pauses.push(ms)
      ;(call as { cancel(reason: unknown): void }).cancel(new Error('enough'))
    })
    await call()
    expect(pauses).toHaveLength(1)
    expect(pauses[0]).toBeLessThan(4e6)
    expect(Number.isInteger(pauses[0])).toBe(true)
  })

  test('that would outlast the call is not begun: the failure is told at once', async () => {
    let [retried, given] = [0, 0]
    for (let seed = 1; seed <= 60; seed++) {
      const { call, transport, balancer } = balancerBench(refuse, { seed, retry: { attempts: 2, baseMs: 1_000 } })
      let pauseMs: number | undefined
      balancer.on('retry', (_, __, ms) => {
        pauseMs = ms
      })
      const { error, atMs } = await call({}, { timeoutMs: 500 })
      expect(error).toMatchObject({ code: 'CONNECT' })
      if (pauseMs === undefined) {
        given++
        expect([transport.sends.length, atMs]).toEqual([1, 1_000])
      } else {
        retried++
        expect(pauseMs).toBeLessThan(500)
        expect(transport.sends).toHaveLength(2)
      }
    }
    // Half of the pauses fit, within 4 standard deviations.
    expect(retried).toBeGreaterThan(14)
    expect(given).toBeGreaterThan(14)
  })
})

describe('an abort', () => {
  test('during the pause rejects at once with its reason, and leaves no timer', async () => {
    const { start, clock, transport } = balancerBench(refuse, { retry: { baseMs: 5_000 } })
    const { call, ended } = start()
    await clock.advance(0)
    const pending = clock.pending
    const reason = new DOMException('gone', 'AbortError')
    call.cancel(reason)
    expect(pending - clock.pending).toBe(1)
    expect(await ended).toEqual({ error: reason, atMs: 1_000 })
    await clock.advance(6_000) // by then the failure is forgiven, too
    expect(clock.pending).toBe(0)
    expect(transport.sends).toHaveLength(1)
  })

  test('during the pause lets go of the answer that was kept', async () => {
    const { start, clock, transport, balancer } = balancerBench((send) => send.head(503), { retry: { baseMs: 5_000 } })
    const { call, ended } = start()
    await clock.advance(0)
    call.cancel(new Error('stop'))
    expect((await ended).error).toMatchObject({ message: 'stop' })
    expect(transport.last().body?.canceledWith).toMatchObject({ message: 'stop' })
    expect(balancer.stats().pools.default).toMatchObject({ inflight: 0, aborted: 1, failed: 0 })
  })

  test('during a send ends the call, not only the attempt', async () => {
    const { start, clock, transport } = balancerBench()
    const { call, ended } = start()
    await clock.advance(0)
    call.cancel(new Error('stop'))
    expect((await ended).error).toMatchObject({ message: 'stop' })
    await clock.advance(10_000)
    expect(transport.sends).toHaveLength(1)
  })

  test('of one attempt alone, by a policy, is not repeated', async () => {
    const impatient: Policy = {
      name: 'impatient',
      scope: 'attempt',
      wrap: (next, core) => (attempt) => {
        core.clock.after(100, () => attempt.cancel(new Error('not this one')))
        return next(attempt)
      },
    }
    const { call, transport } = balancerBench(undefined, { policies: [impatient] })
    expect((await call()).error).toMatchObject({ message: 'not this one' })
    expect(transport.sends).toHaveLength(1)
  })
})

describe('a connection that died of old age', () => {
  test('is replaced once, at once and on the same backend, charged to nobody', async () => {
    const { call, transport, balancer, to } = balancerBench(inOrder(stale, status(200)), { retry: { attempts: 1 } })
    const before = balancer.stats().pools.default!.budgetLeft
    const { response, atMs } = await call()
    expect([response?.status, atMs]).toEqual([200, 1_000])
    expect(new Set(to()).size).toBe(1)
    expect(transport.sends.map(({ attempt }) => attempt.fresh)).toEqual([false, true])
    const stats = balancer.stats().pools.default!
    expect(stats.retries).toBe(0)
    expect(stats.budgetLeft).toBeCloseTo(before + 0.2, 9)
    expect(stats.backends.map(({ failures }) => failures)).toEqual([0, 0, 0])
  })

  test('never ejects a backend, however often', async () => {
    const { call, balancer } = balancerBench(
      (send, number) => (number % 2 === 1 ? stale(send, number) : send.answer()),
      {
        ids: 'ab',
        health: { passive: { consecutive: 1 } },
      },
    )
    for (let i = 0; i < 50; i++) expect((await call()).response?.status).toBe(200)
    for (const { state } of balancer.stats().pools.default!.backends) expect(state).toBe('up')
  })

  test('twice in a row is a failed attempt: the next goes elsewhere, on the budget', async () => {
    const { call, transport, balancer, to } = balancerBench(inOrder(stale, stale, status(200)))
    expect((await call()).response?.status).toBe(200)
    expect(to()[0]).toBe(to()[1])
    expect(to()[2]).not.toBe(to()[0])
    expect(transport.sends.map(({ attempt }) => attempt.fresh)).toEqual([false, true, false])
    expect(balancer.stats().pools.default!.retries).toBe(1)
  })

  test('is not repeated for a call that is not idempotent: the backend may have seen it', async () => {
    const { call, transport } = balancerBench(inOrder(stale, status(200)))
    expect((await call({ method: 'POST' })).error).toMatchObject({ code: 'RESET' })
    expect(transport.sends).toHaveLength(1)
  })

  test('of a backend that has left meanwhile is replaced by another backend', async () => {
    const { start, until, transport, balancer, clock } = balancerBench(undefined, { ids: 'ab' })
    const { ended } = start()
    await clock.advance(0)
    const gone = transport.last().to
    const left = gone === 'a' ? 'b' : 'a'
    await balancer.update({
      backends: [{ url: `http://${left}.test`, id: left }],
      strategy: 'round-robin',
      transport,
    })
    transport.last().stale()
    await clock.advance(0)
    expect(transport.last().to).toBe(left)
    transport.last().answer()
    expect((await until(ended)).response?.status).toBe(200)
  })
})

describe('the budget', () => {
  test('that is empty ends retries: the answer is returned, the failure told', async () => {
    const retry = { budget: { share: 0, perSecond: 0, windowMs: 10_000 } }
    const answered = balancerBench(status(503, 'sorry'), { retry })
    const told: unknown[] = []
    answered.balancer.on('exhausted', (_, error) => void told.push(error))
    const { response } = await answered.call()
    expect(await textOf(response!.body)).toBe('sorry')
    const failed = balancerBench(refuse, { retry })
    failed.balancer.on('exhausted', (_, error) => void told.push((error as BalancerError).code))
    expect((await failed.call()).error).toMatchObject({ code: 'CONNECT' })
    expect(told).toEqual([undefined, 'CONNECT'])
    expect(failed.transport.sends).toHaveLength(1)
  })

  test('is not touched by calls that cannot be repeated, nor by the last attempt', async () => {
    const { call, balancer } = balancerBench(reset)
    const left = (): number => balancer.stats().pools.default!.budgetLeft
    await call({ method: 'POST' })
    expect(left()).toBeCloseTo(100.2, 9)
    await call()
    expect(left()).toBeCloseTo(100.4 - 2, 9) // three sends, two of them repeats
  })

  test('is shared by retries and hedges: each takes one', async () => {
    const { balancer, start, clock, transport } = balancerBench((send) => send.connect(), {
      ids: 'abcd',
      retry: { attempts: 2, budget: { share: 0, perSecond: 0.5, windowMs: 10_000 } },
      hedge: { delayMs: 10, maxShare: 1 },
    })
    const left = (): number => balancer.stats().pools.default!.budgetLeft
    expect(left()).toBe(5)
    for (let i = 0; i < 4; i++) start()
    await clock.advance(10)
    expect(left()).toBe(1)
    for (const send of transport.sends.slice(0, 8)) send.fail()
    await clock.advance(30)
    expect(left()).toBe(0)
    expect(balancer.stats().pools.default).toMatchObject({ hedges: 4, retries: 1, attempts: 9, failed: 3 })
  })

  test('holds in a total outage: 10 000 calls at 1 000 per second make at most 12 200 attempts, and no storm follows', async () => {
    let isDown = true
    const down: Play = (send, number) => (number % 2 === 0 ? refuse : status(503))(send, number)
    const play: Play = (send, number) => (isDown ? down : status(200))(send, number)
    const { balancer, start, transport, clock } = balancerBench(play, { ids: 'abcd', strategy: 'peak-ewma', seed: 3 })
    let over = 0
    const calls = async (n: number): Promise<void> => {
      for (let i = 0; i < n; i++) {
        void start().ended.then(() => over++)
        await clock.advance(1)
      }
    }
    await calls(10_000)
    const sent = transport.sends.length
    isDown = false
    const rates: number[] = []
    for (let second = 0; second < 12; second++) {
      const before = transport.sends.length
      await calls(1_000)
      rates.push((transport.sends.length - before) / 1_000)
    }
    await clock.advance(60_000)
    const outage = (sent / 10_000).toFixed(3)
    console.info(`outage: ${sent} attempts for 10 000 calls (${outage} each); then per second: ${rates.join(' ')}`)
    expect(over).toBe(22_000)
    expect(sent).toBeGreaterThan(11_500) // the budget was there to be used
    expect(sent).toBeLessThanOrEqual(10_000 * 1.2 + 10 * 10 + 100)
    // What was on its way when they came back, and from the next second on one attempt a call.
    expect(rates[0]).toBeLessThanOrEqual(1.1)
    for (const rate of rates.slice(1)) expect(rate).toBe(1)
    expect(balancer.stats().pools.default).toMatchObject({ calls: 22_000, inflight: 0 })
  })
})
