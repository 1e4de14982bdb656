import type { AttemptTimes, BalancerError, BalancerOptions } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { type BalancerBench, type BalancerBenchOptions, balancerBench } from '../support/balancer-bench.ts'
import { Reader } from '../support/body-bench.ts'
import type { ScriptedSend } from '../support/scripted.ts'

const once = { attempts: 1 }
const off = { connectMs: 0, headersMs: 0, idleMs: 0, attemptMs: 0, totalMs: 0 }

/** Nothing is in flight, and once the last failure is forgiven no timer is left. */
async function expectQuiet({ balancer, clock }: BalancerBench): Promise<void> {
  expect(balancer.stats().pools.default!.inflight).toBe(0)
  await clock.advance(6_000)
  expect(clock.pending).toBe(0)
}

describe('the first byte of the body', () => {
  /** An answer whose head has just come, and the ms after it at which its reader was told of a failure. */
  async function begun(
    timeouts: object,
    headers: string[] = [],
  ): Promise<{
    bench: BalancerBench
    reader: Reader
    push(text: string): void
    failsAfter(ms: number): Promise<void>
  }> {
    const bench = balancerBench(undefined, { ids: 'a', retry: once, timeouts: { ...off, ...timeouts } })
    const { ended } = bench.start()
    await bench.clock.advance(300)
    const body = bench.transport.last().head(200, headers)
    const { response } = await bench.until(ended)
    const reader = new Reader().read(response!.body)
    const failsAfter = async (ms: number): Promise<void> => {
      await bench.clock.advance(ms - 1)
      expect(reader.log).not.toContain('fail')
      await bench.clock.advance(1)
      expect(reader.log.at(-1)).toBe('fail')
    }
    return { bench, reader, push: (text) => body.push(text), failsAfter }
  }

  test('that does not come is a TIMEOUT, counted from the head, and blamed on the backend', async () => {
    for (const idleMs of [0, 500, 501, 9_000, 100, 50, 499]) {
      const { bench, reader, failsAfter } = await begun({ firstByteMs: 500, idleMs })
      await failsAfter(500)
      expect(reader.error).toMatchObject({
        code: 'TIMEOUT',
        message: 'backend a: waited 500 ms for the first byte of the body',
        backend: 'a',
      })
      expect(bench.balancer.stats().pools.default!.backends[0]!.classes).toEqual({ timeout: 1 })
      await expectQuiet(bench)
    }
  })

  test('that came leaves it to the silence after it, from that byte on, be that shorter or longer', async () => {
    for (const idleMs of [100, 499, 500, 501, 3_000]) {
      for (const byteMs of [1, 99, 100, 101, 250, 499]) {
        const { bench, reader, push, failsAfter } = await begun({ firstByteMs: 500, idleMs })
        await bench.clock.advance(byteMs)
        push('a')
        expect(reader.log).toEqual(['a'])
        await failsAfter(idleMs)
        expect(reader.error).toMatchObject({ message: `backend a: waited ${idleMs} ms for more of the body` })
        await expectQuiet(bench)
      }
    }
  })

  test('that came ends it, when silence is not limited', async () => {
    const { bench, reader, push } = await begun({ firstByteMs: 500 })
    await bench.clock.advance(499)
    push('a')
    await bench.clock.advance(86_400_000)
    expect(reader.log).toEqual(['a'])
    expect(bench.clock.pending).toBe(0)
  })

  test('is not waited for when the body has ended without one', async () => {
    const bench = balancerBench((send) => send.answer(204), { timeouts: { ...off, firstByteMs: 500 } })
    expect((await bench.call()).response?.status).toBe(204)
    await expectQuiet(bench)
  })

  test('of an answer that is held stalls before anything was handed over: another backend gets its turn', async () => {
    const bench = balancerBench(
      (send, number) => {
        if (number === 1) send.head(200, ['content-length', '4'])
        else send.answer(200, 'good', ['content-length', '4'])
      },
      { timeouts: { ...off, firstByteMs: 500 }, retry: { baseMs: 0 } },
    )
    const { response, atMs } = await bench.call()
    expect([response?.status, atMs]).toEqual([200, 1_500])
    expect(new Set(bench.to()).size).toBe(2)
    expect(new Reader().read(response!.body).log).toEqual(['good', 'end'])
  })
})

describe('times of its own', () => {
  const own = (timeouts?: AttemptTimes): BalancerBenchOptions => ({
    retry: once,
    timeouts: { ...off, headersMs: 400 },
    backends: [{ url: 'http://a.test', id: 'a', ...(timeouts && { timeouts }) }],
  })

  test('has a call before its backend, and a backend before its pool', async () => {
    for (const [backend, call, ms] of [
      [undefined, undefined, 400],
      [{ headersMs: 200 }, undefined, 200],
      [{ headersMs: 900 }, undefined, 900],
      [{ headersMs: 200 }, { headersMs: 300 }, 300],
      [undefined, { headersMs: 100 }, 100],
      [{ headersMs: 200 }, { idleMs: 5 }, 200],
      [{ idleMs: 5 }, { connectMs: 700 }, 400],
      [{ headersMs: 0 }, { attemptMs: 150 }, 150],
      [{ headersMs: 200 }, { headersMs: undefined as unknown as number }, 200],
    ] as const) {
      const bench = balancerBench((send) => send.connect(), own(backend))
      const { atMs, error } = await bench.call({}, call && { timeouts: call })
      expect([(error as BalancerError).code, atMs - 1_000], JSON.stringify([backend, call])).toEqual(['TIMEOUT', ms])
      await expectQuiet(bench)
    }
  })

  test('may be each of the five', async () => {
    const stages: Record<keyof AttemptTimes, (send: ScriptedSend) => void> = {
      connectMs: () => {},
      headersMs: (send) => send.connect(),
      attemptMs: (send) => send.connect(),
      firstByteMs: (send) => void send.head(200),
      idleMs: (send) => send.head(200).push('a'),
    }
    for (const [name, stage] of Object.entries(stages)) {
      for (const [backend, call, ms] of [
        [{ [name]: 40 }, undefined, 40],
        [{ [name]: 40 }, { [name]: 70 }, 70],
      ] as const) {
        const bench = balancerBench(stage, { ...own(backend), timeouts: off })
        const ends: number[] = []
        bench.balancer.on('attempt', ({ endMs, outcome }) => {
          expect(outcome!.error).toMatchObject({ code: 'TIMEOUT' })
          ends.push(endMs - 1_000)
        })
        await bench.call({}, call && { timeouts: call })
        await bench.clock.advance(1_000)
        expect(ends, name).toEqual([ms])
      }
    }
  })

  test('of 0 are none, though the level above has some', async () => {
    for (const [backend, call] of [
      [{ headersMs: 0 }, undefined],
      [{ headersMs: 200 }, { headersMs: 0 }],
    ] as const) {
      const bench = balancerBench((send) => send.connect(), own(backend))
      const { call: it, ended } = bench.start({}, call && { timeouts: call })
      await bench.clock.advance(86_400_000)
      bench.transport.last().answer()
      expect((await ended).response?.status).toBe(200)
      expect(it.attempts).toHaveLength(1)
    }
  })

  test('are those of the backend each attempt goes to', async () => {
    const bench = balancerBench((send) => send.connect(), {
      retry: { attempts: 2, baseMs: 0 },
      timeouts: { ...off, headersMs: 400 },
      backends: [
        { url: 'http://a.test', id: 'a', timeouts: { headersMs: 70 } },
        { url: 'http://b.test', id: 'b', timeouts: { headersMs: 30 } },
      ],
    })
    const messages: string[] = []
    bench.balancer.on('attempt', ({ outcome }) => void messages.push((outcome!.error as Error).message))
    const { atMs } = await bench.call({}, { prefer: 'a' })
    expect(atMs).toBe(1_100)
    expect(messages).toEqual([
      'backend a: waited 70 ms for the head of the answer',
      'backend b: waited 30 ms for the head of the answer',
    ])
  })

  test('hold for attempts that begin after an update', async () => {
    const bench = balancerBench((send) => send.connect(), own({ headersMs: 200 }))
    await bench.call()
    const startMs = bench.clock.now()
    await bench.balancer.update({ ...(own({ headersMs: 50 }) as BalancerOptions), transport: bench.transport })
    expect((await bench.call()).atMs - startMs).toBe(50)
  })
})
