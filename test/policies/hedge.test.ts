import type { BalancerError } from 'evenkeel'
import { afterEach, describe, expect, test } from 'vitest'
import { Reader } from '../support/body-bench.ts'
import { expectQuiet, type HedgeBench, hedging, inTime } from '../support/hedge-bench.ts'
import type { ScriptedSend } from '../support/scripted.ts'

const START = 1_000

const unhandled: unknown[] = []
process.on('unhandledRejection', (reason) => void unhandled.push(reason))
afterEach(() => expect(unhandled).toEqual([]))

describe('a slow call', () => {
  test('is sent a second time, to another backend, and the first good answer wins', async () => {
    const it: HedgeBench = hedging(inTime(() => it, 500, 20))
    const { response, atMs } = await it.call()
    expect([response?.status, atMs]).toEqual([200, START + 70])
    expect(new Reader().read(response!.body).log).toEqual(['from 2', 'end'])
    expect(new Set(it.to()).size).toBe(2)
    expect(it.told).toEqual(['attempt 1 slow after 50 ms', 'attempt 2 won'])
    expect(it.totals()).toMatchObject({ calls: 1, attempts: 2, hedges: 1, hedgesWon: 1, retries: 0, failed: 0 })
    await expectQuiet(it)
  })

  test('may be answered by its first attempt all the same', async () => {
    const it: HedgeBench = hedging(inTime(() => it, 60, 500))
    const { response, atMs } = await it.call()
    expect([response?.status, atMs]).toEqual([200, START + 60])
    expect(it.told).toEqual(['attempt 1 slow after 50 ms'])
    expect(it.totals()).toMatchObject({ hedges: 1, hedgesWon: 0 })
    await expectQuiet(it)
  })

  test('has its loser cancelled in the tick of the answer, and charged to nobody', async () => {
    for (const winner of [1, 2]) {
      const it = hedging()
      const { ended } = it.start()
      await it.clock.advance(80)
      const loser = it.send(3 - winner)
      loser.connect()
      it.send(winner).answer()
      expect(loser.canceledWith).toBeUndefined()
      await it.clock.advance(0)
      expect(loser.canceledWith).toMatchObject({ message: 'another backend answered first' })
      expect((await ended).response?.status).toBe(200)
      expect(loser.attempt.outcome).toMatchObject({ class: 'cancelled' })
      expect(loser.attempt.decision).toBe('given up: another backend answered first')
      const { backends } = it.balancer.stats().pools.default!
      const lost = backends.find(({ id }) => id === loser.to)!
      expect(lost).toMatchObject({ failures: 0, state: 'up', classes: { cancelled: 1 } })
      // The first took at least so long: who never answers must not look like one nobody has asked.
      expect(loser.attempt.backend.latency.known).toBe(winner === 2)
      await expectQuiet(it)
    }
  })

  test('never ejects a backend that loses again and again', async () => {
    const it: HedgeBench = hedging(
      (send) => {
        if (send.to === 'b') send.answer()
      },
      { hedge: { maxShare: 1 }, health: { passive: { consecutive: 1 } } },
    )
    for (let i = 0; i < 50; i++) await it.call({}, { prefer: 'a' })
    expect(it.totals()).toMatchObject({ hedges: 50, hedgesWon: 50 })
    expect(it.balancer.stats().pools.default!.backends.map(({ state }) => state)).toEqual(['up', 'up'])
  })

  test('is sent twice at most, however slow both are', async () => {
    const it = hedging(undefined, { ids: 'abcd' })
    const { call, ended } = it.start()
    await it.clock.advance(20_000)
    expect(it.transport.sends).toHaveLength(2)
    call.cancel(new Error('stop'))
    await ended
    await expectQuiet(it)
  })

  test('that is answered just before the delay is over is not sent again', async () => {
    const it: HedgeBench = hedging(inTime(() => it, 49))
    await it.call()
    await it.clock.advance(1_000)
    expect([it.transport.sends.length, it.totals().hedges, it.clock.pending]).toEqual([1, 0, 0])
  })

  test('waits at least a moment: a delay of 0 is not both at once, and not never', async () => {
    for (const [hedge, ms] of [
      [{ delayMs: 0 }, 1],
      [{ delayMs: 20 }, 20],
    ] as const) {
      const it = hedging(undefined, { hedge })
      const { call } = it.start()
      await it.clock.advance(0)
      expect(it.transport.sends).toHaveLength(1)
      await it.clock.advance(ms)
      expect(it.transport.sends).toHaveLength(2)
      call.cancel(new Error('stop'))
    }
  })
})

describe('a failure', () => {
  test('before the delay ends the call as ever: nothing else is sent for it', async () => {
    const it = hedging((send) => send.refuse())
    expect(await it.call()).toMatchObject({ error: { code: 'CONNECT' }, atMs: START })
    expect(it.transport.sends).toHaveLength(1)
    await expectQuiet(it)
  })

  test('of one waits for the other, whichever it is and however it failed', async () => {
    const ends: readonly ((send: ScriptedSend) => void)[] = [
      (send) => send.refuse(),
      (send) => send.fail({ phase: 'head' }),
      (send) => send.stale(),
      (send) => send.answer(503),
      (send) => send.answer(429),
      (send) => send.answer(401),
      (send) => void send.head(500),
    ]
    for (const loses of [1, 2]) {
      for (const end of ends) {
        const it = hedging()
        const { ended } = it.start()
        await it.clock.advance(60)
        end(it.send(loses))
        await it.clock.advance(500)
        it.send(3 - loses).answer(200, 'good')
        const { response, atMs } = await it.until(ended)
        expect([response?.status, atMs], `${loses} ${end}`).toEqual([200, START + 560])
        it.send(loses).body?.end()
        expect(it.totals().hedgesWon).toBe(loses === 1 ? 1 : 0)
        expect(it.inflight()).toBe(0)
      }
    }
  })

  test('of both is one error, that of the last', async () => {
    const it = hedging()
    const { ended } = it.start()
    await it.clock.advance(60)
    it.send(1).refuse()
    await it.clock.advance(10)
    it.send(2).connect()
    it.send(2).fail()
    const { error, atMs } = await it.until(ended)
    expect([(error as BalancerError).code, atMs]).toEqual(['RESET', START + 70])
    expect(it.totals()).toMatchObject({ failed: 1, hedges: 1, hedgesWon: 0 })
    await expectQuiet(it)
  })

  test('after a bad answer leaves that answer: better than none', async () => {
    for (const bad of [1, 2]) {
      const it = hedging()
      const { ended } = it.start()
      await it.clock.advance(60)
      it.send(bad).answer(503, 'sorry')
      await it.clock.advance(10)
      it.send(3 - bad).refuse()
      const { response } = await it.until(ended)
      expect(new Reader().read(response!.body).log).toEqual(['sorry', 'end'])
      await expectQuiet(it)
    }
  })

  test('of both by an answer hands over the last, and the first gives its connection back', async () => {
    const it = hedging()
    const { ended } = it.start()
    await it.clock.advance(60)
    const spare = it.send(2).head(503)
    await it.clock.advance(10)
    it.send(1).answer(502)
    expect((await it.until(ended)).response?.status).toBe(502)
    expect(spare.canceledWith).toBeUndefined() // a small rest is read: the connection lives
    spare.push(new Uint8Array(100_000)) // but not more than that
    expect(spare.canceledWith).toMatchObject({ message: 'discarded' })
    await expectQuiet(it)
  })

  test('of both is retried as one', async () => {
    const it: HedgeBench = hedging(
      (send, number) => {
        if (number <= 2) it.clock.after(60, () => send.answer(503))
        else send.answer(200, 'good')
      },
      { ids: 'abc', retry: {} },
    )
    const { response } = await it.call()
    expect(response?.status).toBe(200)
    expect([...it.to()].sort().join('')).toBe('abc')
    expect(it.totals()).toMatchObject({ hedges: 1, hedgesWon: 1, retries: 1, attempts: 3 })
    await expectQuiet(it)
  })

  test('of a retry round that was hedged as well ends in one outcome', async () => {
    const it: HedgeBench = hedging((send) => void it.clock.after(60, () => send.answer(503)), {
      ids: 'abcd',
      retry: { attempts: 2 },
    })
    expect((await it.call()).response?.status).toBe(503)
    expect(new Set(it.to()).size).toBe(4)
    expect(it.totals()).toMatchObject({ hedges: 2, retries: 1, attempts: 4 })
    await expectQuiet(it)
  })
})

describe('an abort of the caller', () => {
  test('cancels both in its tick', async () => {
    const it = hedging()
    const { call, ended } = it.start()
    await it.clock.advance(60)
    const reason = new Error('stop')
    call.cancel(reason)
    expect([it.send(1).canceledWith, it.send(2).canceledWith]).toEqual([reason, reason])
    expect(await ended).toEqual({ error: reason, atMs: START + 60 })
    expect(it.totals()).toMatchObject({ aborted: 1, failed: 0 })
    await expectQuiet(it)
  })

  test('lets go of a bad answer that was kept', async () => {
    const it = hedging()
    const { call, ended } = it.start()
    await it.clock.advance(60)
    const spare = it.send(2).head(503)
    await it.clock.advance(10)
    const reason = new Error('stop')
    call.cancel(reason)
    expect(spare.canceledWith).toBe(reason)
    await ended
    await expectQuiet(it)
  })

  test('or a deadline ends the call as one', async () => {
    const it = hedging((send) => send.connect(), { timeouts: { totalMs: 200 } })
    expect(await it.call()).toMatchObject({ error: { code: 'TIMEOUT' }, atMs: START + 200 })
    await expectQuiet(it)
  })
})

describe('two answers in the same moment', () => {
  test('are one answer: the other body is not kept, and nothing stays in flight', async () => {
    for (const [first, second] of [
      [1, 2],
      [2, 1],
    ] as const) {
      for (const whole of [true, false]) {
        const it = hedging()
        const { ended } = it.start()
        await it.clock.advance(60)
        it.send(first).answer(200, 'mine')
        const other = it.send(second).head(200)
        other.push('not mine')
        if (whole) other.end()
        const { response } = await it.until(ended)
        expect(new Reader().read(response!.body).log).toEqual(['mine', 'end'])
        await expectQuiet(it)
        expect(it.balancer.stats().pools.default!.backends.map(({ failures }) => failures)).toEqual([0, 0])
      }
    }
  })

  test('or two failures are one', async () => {
    const it = hedging()
    const { ended } = it.start()
    await it.clock.advance(60)
    it.send(1).refuse()
    it.send(2).refuse()
    expect((await it.until(ended)).error).toMatchObject({ code: 'CONNECT' })
    expect(it.totals().failed).toBe(1)
    await expectQuiet(it)
  })
})

describe('an answer that is held until it is whole', () => {
  const length = ['content-length', '4']

  test('is late while its body is, and given up with its connection when the other one is there', async () => {
    const it = hedging()
    const { ended } = it.start()
    it.send(1).head(200, length).push('ha')
    await it.clock.advance(50)
    expect(it.transport.sends).toHaveLength(2)
    it.send(2).answer(200, 'good', length)
    const { response, atMs } = await it.until(ended)
    expect(atMs).toBe(START + 50)
    expect(new Reader().read(response!.body).log).toEqual(['good', 'end'])
    expect(it.send(1).body?.canceledWith).toMatchObject({ message: 'another backend answered first' })
    expect(it.send(1).attempt.outcome).toMatchObject({ class: 'cancelled' })
    await expectQuiet(it)
  })

  test('counts as long as it took to be whole: bodies that are always slow make no second sends', async () => {
    const it: HedgeBench = hedging(
      (send) => {
        const body = send.head(200, length)
        it.clock.after(40, () => {
          body.push('good')
          body.end()
        })
      },
      { hedge: { delayMs: undefined as never, warmUp: 20 } },
    )
    for (let i = 0; i < 500; i++) {
      it.start()
      await it.clock.advance(5)
    }
    expect(it.totals().hedges).toBe(0)
  })
})
