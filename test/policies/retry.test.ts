import { type BalancerError, createBalancer, type Policy } from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { bodyOf } from '../../src/core/body.ts'
import { ReplayBody } from '../../src/core/replay.ts'
import { balancerBench } from '../support/balancer-bench.ts'
import { type ScriptedSend, scripted, textOf } from '../support/scripted.ts'

const unlimited = { share: 1, perSecond: 1e6, windowMs: 10_000 }
const refuse = (send: ScriptedSend): void => send.refuse()
const reset = (send: ScriptedSend): void => {
  send.connect()
  send.fail()
}
/** Each send as its number says, the last one for ever. */
const inOrder =
  (...scripts: readonly ((send: ScriptedSend) => void)[]) =>
  (send: ScriptedSend, number: number): void =>
    scripts[Math.min(number, scripts.length) - 1]!(send)
const status =
  (code: number, text = '') =>
  (send: ScriptedSend): void =>
    send.answer(code, text)

async function* stream(...texts: readonly string[]): AsyncGenerator<Uint8Array, void, undefined> {
  for (const text of texts) yield new TextEncoder().encode(text)
}

describe('a retry', () => {
  test('goes to a backend not yet tried, while there is one', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const { call, to } = balancerBench(refuse, { seed, ids: 'abcd', retry: { attempts: 6, budget: unlimited } })
      await call()
      expect(to()).toHaveLength(6)
      expect([...to().slice(0, 4)].sort().join('')).toBe('abcd')
    }
  })

  test('goes to the same backend when there is no other', async () => {
    const { call, to } = balancerBench(inOrder(refuse, refuse, status(200)), { ids: 'a' })
    expect((await call()).response?.status).toBe(200)
    expect(to()).toBe('aaa')
  })

  test('ends with an answer as soon as there is one', async () => {
    const { call, transport, balancer } = balancerBench(inOrder(refuse, reset, status(200, 'good')))
    const { response } = await call()
    expect(await textOf(response!.body)).toBe('good')
    expect(transport.sends).toHaveLength(3)
    expect(balancer.stats().pools.default).toMatchObject({ calls: 1, attempts: 3, retries: 2, failed: 0, inflight: 0 })
  })

  test('is one of three sends in all, or of as many as are configured', async () => {
    for (const [retry, sends] of [
      [{}, 3],
      [{ attempts: 1 }, 1],
      [{ attempts: 5 }, 5],
    ] as const) {
      const { call, transport } = balancerBench(refuse, { retry })
      expect(((await call()).error as BalancerError).code).toBe('CONNECT')
      expect(transport.sends).toHaveLength(sends)
    }
  })

  test('is told, with the failed attempt and the pause, and so is the end of all retries', async () => {
    const { call, balancer } = balancerBench(refuse)
    const told: unknown[] = []
    balancer.on('retry', (it, attempt, pauseMs) => void told.push([it.method, attempt.number, pauseMs]))
    balancer.on('exhausted', (it, error) => void told.push([it.method, (error as BalancerError).code]))
    await call()
    expect(told).toEqual([
      ['GET', 1, expect.any(Number)],
      ['GET', 2, expect.any(Number)],
      ['GET', 'CONNECT'],
    ])
  })
})

describe('a repeat is safe', () => {
  test('for idempotent methods after anything but an answer; for others only when nothing was processed', async () => {
    for (const [method, script, sends] of [
      ['GET', reset, 2],
      ['HEAD', reset, 2],
      ['OPTIONS', reset, 2],
      ['PUT', reset, 2],
      ['DELETE', reset, 2],
      ['TRACE', reset, 2],
      ['POST', reset, 1],
      ['PATCH', reset, 1],
      ['CONNECT', reset, 1],
      ['get', reset, 1], // methods are case-sensitive: this one is unknown
      ['POST', refuse, 2],
      ['POST', (send: ScriptedSend) => send.fail({ phase: 'tls' }), 2],
      ['POST', (send: ScriptedSend) => send.fail({ phase: 'wait' }), 2],
      ['GET', (send: ScriptedSend) => send.answer(999), 2],
      ['POST', (send: ScriptedSend) => send.answer(999), 1],
      ['GET', (send: ScriptedSend) => send.fail({ phase: 'head', code: 'REQUEST_BODY' }), 1],
      ['GET', (send: ScriptedSend) => send.fail({ phase: 'connect', code: 'EMFILE' }), 1],
    ] as const) {
      const { call, transport } = balancerBench(inOrder(script, status(200)))
      await call({ method })
      expect(transport.sends.length, `${method} ${script}`).toBe(sends)
    }
  })

  test('when the caller says so, and not when the caller says no', async () => {
    const post = balancerBench(inOrder(reset, status(200)))
    expect((await post.call({ method: 'POST' }, { idempotent: true })).response?.status).toBe(200)
    const get = balancerBench(inOrder(reset, status(200)))
    expect((await get.call({ method: 'GET' }, { idempotent: false })).error).toMatchObject({ code: 'RESET' })
    const refused = balancerBench(inOrder(refuse, status(200)))
    expect((await refused.call({ method: 'GET' }, { idempotent: false })).response?.status).toBe(200)
  })

  test('only if the body can be sent from its start', async () => {
    const body = (limit: number) => new ReplayBody(stream('hello ', 'world'), undefined, limit)
    for (const [limit, sends] of [
      [100, 2],
      [5, 1],
    ] as const) {
      const received: Promise<string>[] = []
      const { call, transport } = balancerBench((send, number) => {
        const { body: outgoing } = send.attempt.request
        const text = readAll(outgoing as ReplayBody)
        received.push(text)
        void text.then(() => (number === 1 ? reset(send) : send.answer()))
      })
      const { response, error } = await call({ method: 'PUT', body: body(limit) })
      expect(await Promise.all(received)).toEqual(Array(sends).fill('hello world'))
      expect(transport.sends).toHaveLength(sends)
      if (sends === 1) expect(error).toMatchObject({ code: 'RESET' })
      else expect(response?.status).toBe(200)
    }
  })

  test('of bytes always, and of a body nobody has read yet, however large it is', async () => {
    for (const body of [new Uint8Array(1_000_000), new ReplayBody(stream('x'), 1_000_000, 65_536)]) {
      const { call, to } = balancerBench(inOrder(refuse, status(200)))
      expect((await call({ method: 'POST', body })).response?.status).toBe(200)
      expect(to()).toHaveLength(2)
    }
  })
})

async function readAll(body: ReplayBody): Promise<string> {
  let text = ''
  for await (const chunk of body.open()) text += Buffer.from(chunk).toString()
  return text
}

describe('an answer', () => {
  test('is worth another backend if its status is listed and the call is idempotent', async () => {
    for (const [code, retried] of [
      [200, false],
      [304, false],
      [401, false],
      [404, false],
      [429, false],
      [500, false],
      [501, false],
      [502, true],
      [503, true],
      [504, true],
      [505, false],
    ] as const) {
      const { call, transport } = balancerBench(inOrder(status(code), status(200)))
      expect((await call()).response?.status).toBe(retried ? 200 : code)
      expect(transport.sends).toHaveLength(retried ? 2 : 1)
      const post = balancerBench(inOrder(status(code), status(200)))
      expect((await post.call({ method: 'POST' })).response?.status).toBe(code)
    }
  })

  test('of another list is as configured, for client errors too', async () => {
    const retry = { status: [404, 429, 500] }
    for (const [code, want] of [
      [404, 200],
      [429, 200],
      [500, 200],
      [503, 503],
    ] as const) {
      const { call } = balancerBench(inOrder(status(code), status(200)), { retry })
      expect((await call()).response?.status).toBe(want)
    }
  })

  test('is returned as it came when its request cannot be sent again', async () => {
    const { call } = balancerBench((send) => {
      void readAll(send.attempt.request.body as ReplayBody).then(() => send.answer(503, 'sorry'))
    })
    const { response } = await call({ method: 'PUT', body: new ReplayBody(stream('long'), undefined, 2) })
    expect(response?.status).toBe(503)
    expect(await textOf(response!.body)).toBe('sorry')
  })

  test('that came last is what the caller gets when the attempts are used up', async () => {
    const { call, balancer } = balancerBench(inOrder(status(503, 'one'), status(502, 'two'), status(504, 'three')))
    const told: unknown[] = []
    balancer.on('exhausted', (_, error) => void told.push(error))
    const { response } = await call()
    expect(response?.status).toBe(504)
    expect(await textOf(response!.body)).toBe('three')
    expect(told).toEqual([undefined])
  })

  test('is better than no answer: it is returned when what came after it failed', async () => {
    const { call, transport } = balancerBench(inOrder(status(503, 'sorry'), reset, refuse))
    const { response } = await call()
    expect(transport.sends).toHaveLength(3)
    expect(response?.status).toBe(503)
    expect(await textOf(response!.body)).toBe('sorry')
  })

  test('is returned when nobody is left to ask', async () => {
    const { call, balancer, to } = balancerBench(inOrder(status(503, 'sorry'), status(200)), {
      ids: 'a',
      watchers: [{ name: 'once', start: () => ({ gate: onceOnly(), stop: () => {} }) }],
    })
    const { response } = await call()
    expect(response?.status).toBe(503)
    expect([to(), balancer.stats().pools.default?.inflight]).toEqual(['a', 0])
  })

  test('that is given up for a better one ends by itself: nothing stays in flight', async () => {
    const { call, transport, balancer } = balancerBench((send, number) => {
      if (number < 3) send.head(503).push('still coming')
      else send.answer(200)
    })
    expect((await call()).response?.status).toBe(200)
    const inflight = (): number | undefined => balancer.stats().pools.default?.inflight
    expect(inflight()).toBe(2)
    transport.sends[0]!.body?.end()
    transport.sends[1]!.body?.push(new Uint8Array(100_000)) // too much to read for nobody
    expect(inflight()).toBe(0)
    expect(transport.sends[1]!.body?.canceledWith).toMatchObject({ message: 'discarded' })
  })

  test('is kept readable while others are asked, however long they take', async () => {
    const { start, until, transport, clock } = balancerBench(inOrder(status(503, 'sorry'), () => {}))
    const { ended } = start()
    await clock.advance(20_000)
    transport.last().fail({ phase: 'connect' })
    await clock.advance(30)
    transport.last().fail({ phase: 'connect' })
    const { response } = await until(ended)
    expect(await textOf(response!.body)).toBe('sorry')
  })
})

function onceOnly() {
  let admitted = false
  return {
    name: 'once',
    admit() {
      if (admitted) return false
      admitted = true
      return true
    },
    release: () => {},
  }
}

describe('the pause', () => {
  test('is a random part of a doubling time with a limit: means within 3 %, 4 000 calls, seed 7', async () => {
    const { balancer, start, clock } = balancerBench(refuse, {
      seed: 7,
      health: { passive: false },
      retry: { attempts: 6, baseMs: 100, maxMs: 500, budget: unlimited },
    })
    const pauses: number[][] = [[], [], [], [], []]
    balancer.on('retry', (_, attempt, pauseMs) => void pauses[attempt.number - 1]!.push(pauseMs))
    for (let i = 0; i < 4_000; i++) start()
    await clock.advance(3_000)
    for (const [i, mostMs] of [100, 200, 400, 500, 500].entries()) {
      const all = pauses[i]!
      expect(all).toHaveLength(4_000)
      expect(Math.min(...all)).toBeGreaterThanOrEqual(0)
      expect(Math.max(...all)).toBeLessThan(mostMs)
      const mean = all.reduce((sum, ms) => sum + ms, 0) / all.length
      expect(mean / (mostMs / 2), `pause ${i + 1}`).toBeGreaterThan(0.97)
      expect(mean / (mostMs / 2), `pause ${i + 1}`).toBeLessThan(1.03)
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
  const stale = (send: ScriptedSend): void => send.stale()

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
    const { call, balancer } = balancerBench((send, number) => (number % 2 === 1 ? stale(send) : send.answer()), {
      ids: 'ab',
      health: { passive: { consecutive: 1 } },
    })
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

  test('holds in a total outage: 10 000 calls at 1 000 per second make at most 12 200 attempts', async () => {
    for (const script of [refuse, status(503)]) {
      const clock = manualClock()
      const transport = scripted(script)
      const balancer = createBalancer({
        backends: ['http://a.test', 'http://b.test', 'http://c.test', 'http://d.test'],
        transport,
        clock,
        random: seededRandom(3),
      })
      let ended = 0
      const end = (): void => void ended++
      for (let i = 0; i < 10_000; i++) {
        balancer.send({ method: 'GET', path: '/', headers: [], body: null }).response.then(end, end)
        await clock.advance(1)
      }
      await clock.advance(60_000)
      expect(ended).toBe(10_000)
      expect(transport.sends.length).toBeGreaterThan(11_500) // the budget was there to be used
      expect(transport.sends.length).toBeLessThanOrEqual(10_000 * 1.2 + 10 * 10 + 100)
      expect(balancer.stats().pools.default).toMatchObject({ calls: 10_000, inflight: 0 })
    }
  })
})

describe('a policy between the retries and the attempts', () => {
  test('may answer in the backends’ place', async () => {
    const canned: Policy = {
      name: 'canned',
      scope: 'pool',
      wrap: () => async () => ({ status: 203, headers: [], body: bodyOf() }),
    }
    const { call, transport } = balancerBench(refuse, { policies: [canned] })
    expect((await call()).response?.status).toBe(203)
    expect(transport.sends).toHaveLength(0)
  })

  test('may answer after a failed attempt, and that answer is not repeated for what the attempt met', async () => {
    const fallback: Policy = {
      name: 'fallback',
      scope: 'pool',
      wrap: (next) => async (call, request) => {
        const response = await next(call, request)
        if (response.status < 500) return response
        response.body.discard()
        return { status: 203, headers: [], body: bodyOf() }
      },
    }
    const { call, transport } = balancerBench(status(503), { policies: [fallback] })
    expect((await call()).response?.status).toBe(203)
    expect(transport.sends).toHaveLength(1)
  })

  test('may refuse: its error reaches the caller as it is', async () => {
    const refusal = new Error('not today')
    const refusing: Policy = { name: 'refusing', scope: 'pool', wrap: () => () => Promise.reject(refusal) }
    const { call } = balancerBench(refuse, { policies: [refusing] })
    expect((await call()).error).toBe(refusal)
  })
})
