import type { BalancerResponse } from 'evenkeel'
import { createBalancer } from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { type BalancerBench, balancerBench } from '../support/balancer-bench.ts'
import { Reader } from '../support/body-bench.ts'
import { type ScriptedSend, scripted } from '../support/scripted.ts'

const once = { attempts: 1 }
const off = { connectMs: 0, headersMs: 0, idleMs: 0, attemptMs: 0, totalMs: 0 }

/** What the first backend's attempts came to. */
function classes({ balancer }: BalancerBench): object {
  return balancer.stats().pools.default!.backends[0]!.classes
}

/** Nothing is in flight, and once the last failure is forgiven no timer is left. */
async function expectQuiet({ balancer, clock }: BalancerBench): Promise<void> {
  expect(balancer.stats().pools.default!.inflight).toBe(0)
  await clock.advance(6_000)
  expect(clock.pending).toBe(0)
}

describe('connecting', () => {
  test('too long is a TIMEOUT that names the backend, the time and what was waited for', async () => {
    const bench = balancerBench(undefined, { ids: 'a', retry: once, timeouts: { ...off, connectMs: 50 } })
    const { error, atMs } = await bench.call()
    expect(error).toMatchObject({
      name: 'BalancerError',
      code: 'TIMEOUT',
      message: 'backend a: waited 50 ms for a connection',
      backend: 'a',
    })
    expect(atMs).toBe(1_050)
    expect(classes(bench)).toEqual({ connect: 1 })
    expect(bench.transport.last().canceledWith).toBe(error)
    await expectQuiet(bench)
  })

  test('too long on one backend goes to another, whatever the method: nothing was processed', async () => {
    const bench = balancerBench(
      (send, number) => {
        if (number > 1) send.answer()
      },
      { timeouts: { ...off, connectMs: 50 } },
    )
    expect((await bench.call({ method: 'POST' })).response?.status).toBe(200)
    expect(new Set(bench.to()).size).toBe(2)
  })

  test('is over once the request has a connection', async () => {
    const bench = balancerBench(undefined, { timeouts: { ...off, connectMs: 50 } })
    const { ended } = bench.start()
    await bench.clock.advance(49)
    bench.transport.last().connect()
    await bench.clock.advance(10_000)
    bench.transport.last().answer()
    expect((await bench.until(ended)).response?.status).toBe(200)
  })

  test('that never began, for want of a free connection, is not blamed on the backend', async () => {
    const bench = balancerBench((send) => send.wait(), {
      ids: 'a',
      retry: once,
      timeouts: { ...off, connectMs: 50 },
    })
    expect((await bench.call()).error).toMatchObject({ code: 'TIMEOUT' })
    expect(classes(bench)).toEqual({ overloaded: 1 })
    expect(bench.balancer.stats().pools.default!.backends[0]!.failures).toBe(0)
  })
})

describe('the head', () => {
  const timeouts = { ...off, headersMs: 1_000 }

  test('that does not come is a TIMEOUT, counted from when the request had its connection', async () => {
    const bench = balancerBench(undefined, { ids: 'a', retry: once, timeouts })
    const { ended } = bench.start()
    await bench.clock.advance(300)
    bench.transport.last().connect()
    const { error, atMs } = await bench.until(ended)
    expect(error).toMatchObject({
      code: 'TIMEOUT',
      message: 'backend a: waited 1000 ms for the head of the answer',
    })
    expect(atMs).toBe(2_300)
    expect(classes(bench)).toEqual({ timeout: 1 })
    await expectQuiet(bench)
  })

  test('is not put off by a 1xx, or by many', async () => {
    const bench = balancerBench(undefined, { ids: 'a', retry: once, timeouts })
    const seen: number[] = []
    const { ended } = bench.start({ informational: (status) => void seen.push(status) })
    bench.transport.last().connect()
    for (let i = 0; i < 9; i++) {
      await bench.clock.advance(100)
      bench.transport.last().attempt.request.informational?.(103, [])
    }
    expect((await bench.until(ended)).atMs).toBe(2_000)
    expect(seen).toHaveLength(9)
  })

  test('that comes in time is no matter how late the body is', async () => {
    const bench = balancerBench(undefined, { ids: 'a', timeouts })
    const { ended } = bench.start()
    bench.transport.last().connect()
    await bench.clock.advance(999)
    const body = bench.transport.last().head(200)
    const { response } = await bench.until(ended)
    const reader = new Reader().read(response!.body)
    await bench.clock.advance(60_000)
    body.end()
    expect(reader.log).toEqual(['end'])
  })

  test('that comes after its time is ignored', async () => {
    const bench = balancerBench(undefined, { ids: 'a', retry: once, timeouts })
    const { ended } = bench.start()
    bench.transport.last().connect()
    await bench.clock.advance(1_000)
    bench.transport.last().answer()
    expect((await bench.until(ended)).error).toMatchObject({ code: 'TIMEOUT' })
    expect(classes(bench)).toEqual({ timeout: 1 })
  })

  test('that does not come is retried where that is safe, and not where it is not', async () => {
    const play = (send: ScriptedSend, number: number): void => {
      if (number === 1) send.connect()
      else send.answer()
    }
    const get = balancerBench(play, { timeouts })
    expect((await get.call()).response?.status).toBe(200)
    const post = balancerBench(play, { timeouts })
    expect((await post.call({ method: 'POST' })).error).toMatchObject({ code: 'TIMEOUT' })
  })
})

describe('silence within the body', () => {
  const timeouts = { ...off, idleMs: 1_000 }

  async function reading(
    take?: (reader: Reader) => boolean,
  ): Promise<{ bench: BalancerBench; reader: Reader; push(text: string): void }> {
    const bench = balancerBench(undefined, { ids: 'a', retry: once, timeouts })
    const { ended } = bench.start()
    const body = bench.transport.last().head(200)
    const { response } = await bench.until(ended)
    return { bench, reader: new Reader(take).read(response!.body), push: (text) => body.push(text) }
  }

  test('is a TIMEOUT for the reader, and blamed on the backend', async () => {
    const { bench, reader, push } = await reading()
    push('a')
    await bench.clock.advance(999)
    expect(reader.log).toEqual(['a'])
    await bench.clock.advance(1)
    expect(reader.log).toEqual(['a', 'fail'])
    expect(reader.error).toMatchObject({
      code: 'TIMEOUT',
      message: 'backend a: waited 1000 ms for more of the body',
    })
    expect(bench.transport.last().body?.canceledWith).toBe(reader.error)
    expect(classes(bench)).toEqual({ timeout: 1 })
    await expectQuiet(bench)
  })

  test('is measured from the last sign of life: a slow stream lives for ever', async () => {
    const { bench, reader, push } = await reading()
    for (let i = 0; i < 100; i++) {
      await bench.clock.advance(900)
      push('.')
    }
    expect(reader.log).toHaveLength(100)
    await bench.clock.advance(999)
    expect(reader.log).toHaveLength(100)
    await bench.clock.advance(1)
    expect(reader.log.at(-1)).toBe('fail')
  })

  test('before anybody reads counts too: an answer nobody reads gives its connection back', async () => {
    const bench = balancerBench(undefined, { ids: 'a', timeouts })
    const { ended } = bench.start()
    bench.transport.last().head(200).push('a')
    await bench.until(ended)
    await bench.clock.advance(1_000)
    expect(bench.balancer.stats().pools.default!.inflight).toBe(0)
  })

  test('of a reader that pauses is not blamed on the backend', async () => {
    const { bench, reader, push } = await reading(() => false)
    push('a')
    await bench.clock.advance(1_000)
    expect(reader.error).toMatchObject({ code: 'TIMEOUT' })
    expect(classes(bench)).toEqual({ cancelled: 1 })
    expect(bench.balancer.stats().pools.default!.backends[0]!.failures).toBe(0)
  })

  test('while a reader pauses is not counted against the backend: it has its whole time from the resume on', async () => {
    const { bench, reader, push } = await reading((it) => it.log.length > 1)
    push('a')
    await bench.clock.advance(900)
    reader.control?.resume()
    await bench.clock.advance(999)
    expect(reader.log).toEqual(['a'])
    push('b')
    expect(reader.log).toEqual(['a', 'b'])
    await bench.clock.advance(1_000)
    expect(reader.log).toEqual(['a', 'b', 'fail'])
    expect(classes(bench)).toEqual({ timeout: 1 })
  })
})

describe('one attempt', () => {
  const timeouts = { ...off, attemptMs: 100 }

  test('may take so long until its head, connecting included, then the next has its turn', async () => {
    const bench = balancerBench(
      (send, number) => {
        if (number > 1) send.answer()
      },
      { timeouts, retry: { baseMs: 0, maxMs: 0 } },
    )
    const { ended } = bench.start()
    await bench.clock.advance(60)
    bench.transport.last().connect()
    const { response, atMs } = await bench.until(ended)
    expect([response?.status, atMs]).toEqual([200, 1_100])
  })

  test('that takes longer is told', async () => {
    const bench = balancerBench((send) => send.connect(), { ids: 'a', retry: once, timeouts })
    expect((await bench.call()).error).toMatchObject({
      code: 'TIMEOUT',
      message: 'backend a: waited 100 ms for an answer',
    })
    await expectQuiet(bench)
  })

  test('may take its time with the body', async () => {
    const bench = balancerBench(undefined, { ids: 'a', timeouts })
    const { ended } = bench.start()
    await bench.clock.advance(99)
    const body = bench.transport.last().head(200)
    const { response } = await bench.until(ended)
    await bench.clock.advance(10_000)
    body.end()
    expect(new Reader().read(response!.body).log).toEqual(['end'])
  })
})

describe('the whole call', () => {
  test('may take so long, all attempts and pauses included', async () => {
    const bench = balancerBench((send) => send.connect(), {
      timeouts: { ...off, headersMs: 400, totalMs: 1_000 },
      retry: { attempts: 10, baseMs: 0, maxMs: 0 },
    })
    const { error, atMs } = await bench.call()
    expect(error).toMatchObject({ code: 'TIMEOUT', message: 'no complete answer within 1000 ms' })
    expect(atMs).toBe(2_000)
    expect(bench.transport.sends).toHaveLength(3)
    await expectQuiet(bench)
  })

  test('includes the body: a reader is told in its tick', async () => {
    const bench = balancerBench(undefined, { ids: 'a', timeouts: { ...off, totalMs: 1_000 } })
    const { ended } = bench.start()
    const body = bench.transport.last().head(200)
    const { response } = await bench.until(ended)
    const reader = new Reader().read(response!.body)
    for (let i = 0; i < 9; i++) {
      await bench.clock.advance(100)
      body.push('.')
    }
    await bench.clock.advance(100)
    expect(reader.log.at(-1)).toBe('fail')
    expect(reader.error).toMatchObject({ code: 'TIMEOUT', message: 'no complete answer within 1000 ms' })
    await expectQuiet(bench)
  })

  test('has the time its caller gives it, instead of the configured one; 0 is no limit', async () => {
    for (const [timeoutMs, failsAtMs] of [
      [undefined, 2_000],
      [200, 1_200],
      [5_000, 6_000],
      [0, undefined],
    ] as const) {
      const bench = balancerBench((send) => send.connect(), {
        ids: 'a',
        retry: once,
        timeouts: { ...off, totalMs: 1_000 },
      })
      const { call, ended } = bench.start({}, timeoutMs === undefined ? {} : { timeoutMs })
      let error: unknown
      void ended.then((it) => {
        error = it.error
      })
      await bench.clock.advance((failsAtMs ?? 90_000) - 1_000 - 1)
      expect(error).toBeUndefined()
      await bench.clock.advance(1)
      if (failsAtMs !== undefined) expect(error).toMatchObject({ code: 'TIMEOUT' })
      else call.cancel(new Error('enough'))
      await ended
      await expectQuiet(bench)
    }
  })

  test('that took too long is told in whole words, whatever time it is', async () => {
    const clock = manualClock(1_000.1)
    expect(1_000.1 + 100 - 1_000.1).not.toBe(100)
    const balancer = createBalancer({
      backends: ['http://a.test'],
      transport: scripted((send) => send.connect()),
      clock,
      random: seededRandom(1),
    })
    const { response } = balancer.send({ method: 'GET', path: '/', headers: [], body: null }, { timeoutMs: 100 })
    const failed = expect(response).rejects.toThrow(/^no complete answer within 100 ms$/)
    await clock.advance(101)
    await failed
  })

  test('rejects a fetch with the same error', async () => {
    const clock = manualClock()
    const balancer = createBalancer({
      backends: ['http://a.test'],
      transport: scripted(),
      clock,
      random: seededRandom(1),
    })
    const response = balancer.fetch('/', { balancer: { timeoutMs: 30 } })
    const failed = expect(response).rejects.toMatchObject({ code: 'TIMEOUT' })
    await clock.advance(30)
    await failed
  })

  test('answered in time leaves no timer', async () => {
    const bench = balancerBench((send) => send.answer(200, 'x'), { timeouts: { totalMs: 60_000, attemptMs: 30_000 } })
    expect((await bench.call()).response?.status).toBe(200)
    await expectQuiet(bench)
  })
})

describe('without timeouts', () => {
  test('nothing is ever given up, and no timer is set', async () => {
    const bench = balancerBench(undefined, { ids: 'a', timeouts: off })
    const { ended } = bench.start()
    await bench.clock.advance(86_400_000)
    bench.transport.last().connect()
    await bench.clock.advance(86_400_000)
    const body = bench.transport.last().head(200)
    const { response } = (await bench.until(ended)) as { response: BalancerResponse }
    await bench.clock.advance(86_400_000)
    body.end()
    expect(new Reader().read(response.body).log).toEqual(['end'])
    expect(bench.clock.pending).toBe(0)
  })
})
