import type { BalancerError, BalancerResponse, Policy } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { bodyOf } from '../../src/core/body.ts'
import { ReplayBody } from '../../src/core/replay.ts'
import { balancerBench } from '../support/balancer-bench.ts'
import { inOrder, refuse, reset, status } from '../support/plays.ts'
import { type ScriptedSend, textOf } from '../support/scripted.ts'

const unlimited = { share: 1, perSecond: 1e6, windowMs: 10_000 }

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

  test('for any method if the request has an Idempotency-Key, unless the caller says otherwise', async () => {
    const headers = ['content-type', 'text/plain', 'IDEMPOTENCY-Key', 'k1']
    for (const [given, options, sends] of [
      [headers, {}, 2],
      [headers, { idempotent: false }, 1],
      [['x-idempotency-key', 'k1'], {}, 1],
    ] as const) {
      for (const first of [reset, status(503)]) {
        const { call, transport } = balancerBench(inOrder(first, status(200)))
        await call({ method: 'POST', headers: given, body: new Uint8Array(3) }, options)
        expect(transport.sends.length, `${given} ${JSON.stringify(options)}`).toBe(sends)
        for (const { attempt } of transport.sends) expect(attempt.request.headers).toEqual(given)
      }
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
        void text.then(() => (number === 1 ? reset(send, number) : send.answer()))
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
      [429, true],
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
    for (const { body } of transport.sends.slice(0, 2)) {
      body?.push(new Uint8Array(100_000)) // too much to read for nobody
      expect(body?.canceledWith).toMatchObject({ message: 'discarded' })
    }
    expect(inflight()).toBe(0)
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

  test('may change the headers of an answer, which is sent elsewhere all the same', async () => {
    for (const scope of ['pool', 'attempt'] as const) {
      const wrap = <It extends unknown[]>(next: (...it: It) => Promise<BalancerResponse>) => {
        return async (...it: It): Promise<BalancerResponse> => {
          const response = await next(...it)
          return { ...response, headers: [...response.headers, 'via', 'me'] }
        }
      }
      const { call, to } = balancerBench(inOrder(status(503), status(200)), {
        policies: [{ name: 'via', scope, wrap } as Policy],
      })
      expect((await call()).response).toMatchObject({ status: 200, headers: ['via', 'me'] })
      expect(to()).toHaveLength(2)
    }
  })

  test('may give up while its attempt is still under way: its error reaches the caller, nothing is sent again', async () => {
    const impatient: Policy = {
      name: 'impatient',
      scope: 'pool',
      wrap: (next) => async (call, request) => {
        void next(call, request).catch(() => {})
        throw new Error('too long')
      },
    }
    const { call, transport } = balancerBench(undefined, { policies: [impatient] })
    expect((await call()).error).toMatchObject({ message: 'too long' })
    expect(transport.sends).toHaveLength(1)
  })

  test('may refuse: its error reaches the caller as it is', async () => {
    const refusal = new Error('not today')
    const refusing: Policy = { name: 'refusing', scope: 'pool', wrap: () => () => Promise.reject(refusal) }
    const { call } = balancerBench(refuse, { policies: [refusing] })
    expect((await call()).error).toBe(refusal)
  })
})
