import type { Endpoint } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { ReplayBody } from '../../src/core/replay.ts'
import { expectQuiet, type HedgeBench, hedging } from '../support/hedge-bench.ts'
import type { Play } from '../support/plays.ts'

const START = 1_000
const once = { attempts: 1 }

describe('no second send is made', () => {
  /** How many sends a call makes that nobody answers for a second. */
  async function sendsOf(it: HedgeBench, ...args: Parameters<HedgeBench['start']>): Promise<number> {
    const before = it.transport.sends.length
    const { call, ended } = it.start(...args)
    await it.clock.advance(1_000)
    const sends = it.transport.sends.length - before
    call.cancel(new Error('stop'))
    await ended
    expect(it.inflight()).toBe(0)
    return sends
  }

  test('for what may not be sent twice', async () => {
    expect(await sendsOf(hedging(), { method: 'POST' })).toBe(1)
    expect(await sendsOf(hedging(), { method: 'POST' }, { idempotent: true })).toBe(2)
    expect(await sendsOf(hedging(), { method: 'POST', headers: ['idempotency-key', '1'] })).toBe(2)
    expect(await sendsOf(hedging(), {}, { idempotent: false })).toBe(1)
  })

  test('while its body is still coming in, nor when too much of it has come to be kept', async () => {
    async function* chunks(): AsyncGenerator<Uint8Array, void, undefined> {
      yield new Uint8Array(10)
      if (stalls) await new Promise<never>(() => {})
    }
    const reading: Play = (send) => {
      void (async () => {
        for await (const chunk of (send.attempt.request.body as ReplayBody).open()) void chunk
      })()
    }
    let stalls = true
    expect(await sendsOf(hedging(reading), { method: 'PUT', body: new ReplayBody(chunks(), undefined, 100) })).toBe(1)
    stalls = false
    expect(await sendsOf(hedging(reading), { method: 'PUT', body: new ReplayBody(chunks(), undefined, 5) })).toBe(1)
    expect(await sendsOf(hedging(reading), { method: 'PUT', body: new ReplayBody(chunks(), undefined, 100) })).toBe(2)
    expect(await sendsOf(hedging(), { method: 'PUT', body: new Uint8Array(1e6) })).toBe(2)
  })

  test('with one backend, one that is well, one with the tags, or one that is not full, and nothing is spent', async () => {
    const url = (id: string, rest: Partial<Endpoint> = {}): Endpoint => ({ url: `http://${id}.test`, id, ...rest })
    const disabled = hedging()
    disabled.balancer.disable('b')
    const full = hedging(undefined, { backends: [url('a'), url('b', { maxInflight: 1 })] })
    full.balancer.acquire({ prefer: 'b' })
    for (const [it, options] of [
      [hedging(undefined, { ids: 'a' }), {}],
      [disabled, {}],
      [hedging(undefined, { backends: [url('a', { tags: ['x'] }), url('b')] }), { tags: ['x'] }],
    ] as const) {
      expect(await sendsOf(it, {}, options)).toBe(1)
      expect(it.balancer.stats().pools.default!.budgetLeft).toBeCloseTo(100.2, 9)
    }
    const { call, ended } = full.start()
    await full.clock.advance(1_000)
    expect(full.transport.sends).toHaveLength(1)
    call.cancel(new Error('stop'))
    await ended
  })

  test('when a gate refuses everybody else; later attempts may go anywhere again', async () => {
    const admitted: string[] = []
    const it = hedging(undefined, {
      retry: { attempts: 2, baseMs: 0, sameBaseMs: 0 },
      watchers: [
        {
          name: 'only one',
          start: () => ({
            gate: {
              name: 'only one',
              admit: ({ id }) => {
                if (admitted.length > 0 && id !== admitted[0]) return false
                admitted.push(id)
                return true
              },
              release: () => {},
            },
            stop: () => {},
          }),
        },
      ],
    })
    const { call, ended } = it.start()
    await it.clock.advance(60)
    expect(it.transport.sends).toHaveLength(1)
    expect(call.elsewhere).toBe(false)
    it.send(1).refuse()
    await it.clock.advance(0)
    it.transport.last().answer()
    expect((await ended).response?.status).toBe(200)
    expect(new Set(it.to()).size).toBe(1) // the retry may repeat
    expect(it.totals()).toMatchObject({ hedges: 0, retries: 1 })
  })

  test('with an empty budget, which retries share', async () => {
    const budget = { share: 0, perSecond: 0.3, windowMs: 10_000 } // three, and no more for a while
    const it = hedging(undefined, { retry: { attempts: 2, budget, baseMs: 0 }, ids: 'abcd', hedge: { maxShare: 1 } })
    const left = (): number => Math.round(it.balancer.stats().pools.default!.budgetLeft)
    const { call, ended } = it.start()
    await it.clock.advance(60)
    expect([it.transport.sends.length, left()]).toEqual([2, 2])
    it.send(1).answer(503)
    it.send(2).answer(503)
    await it.clock.advance(0)
    expect([it.transport.sends.length, left()]).toEqual([3, 1])
    await it.clock.advance(60)
    expect([it.transport.sends.length, left()]).toEqual([4, 0])
    call.cancel(new Error('stop'))
    await ended
    expect(await sendsOf(it)).toBe(1)
    expect(it.totals()).toMatchObject({ hedges: 2, retries: 1 })
  })

  test('when more calls than the share are slow: then none, and again once they are fast', async () => {
    const it: HedgeBench = hedging((send) => void it.clock.after(slow ? 100 : 1, () => send.answer()), {
      hedge: { maxShare: 0.2 },
      retry: { ...once, budget: { share: 1, perSecond: 1_000, windowMs: 10_000 } },
    })
    let slow = true
    for (let i = 0; i < 300; i++) {
      it.start()
      await it.clock.advance(10)
    }
    const most = it.totals().hedges
    expect(most).toBeGreaterThanOrEqual(20)
    expect(most).toBeLessThan(40) // the first few, until it was clear
    slow = false
    for (let i = 0; i < 300; i++) {
      it.start()
      await it.clock.advance(10)
    }
    expect(it.totals().hedges).toBe(most)
    slow = true
    await it.call()
    expect(it.totals().hedges).toBe(most + 1)
  })

  test('after the call was aborted', async () => {
    const it = hedging()
    const { call, ended } = it.start()
    await it.clock.advance(49)
    const reason = new Error('stop')
    call.cancel(reason)
    expect(await ended).toEqual({ error: reason, atMs: START + 49 })
    await it.clock.advance(1_000)
    expect(it.transport.sends).toHaveLength(1)
    await expectQuiet(it)
  })
})
