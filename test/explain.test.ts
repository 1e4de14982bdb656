import http, { type ServerResponse } from 'node:http'
import { type BalancerOptions, createBalancer, type Explanation, type MemoryBackend, memory } from 'evenkeel'
import { createProxy } from 'evenkeel/node'
import { manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { ask, balance, keeper, kept, nobody, rawUpstream, until, upstream } from './support/upstreams.ts'

/** A balancer over memory backends on a manual clock; pauses before retries are half of what they may be. */
function scene(
  backends: Readonly<Record<string, MemoryBackend>>,
  options: Omit<BalancerOptions, 'backends' | 'transport' | 'clock'> = {},
) {
  const clock = manualClock()
  const transport = memory(backends, { clock })
  const balancer = kept(
    createBalancer({
      backends: Object.keys(backends).map((id) => ({ url: `http://${id}.test`, id })),
      strategy: 'weighted-round-robin',
      health: { passive: false },
      retry: { baseMs: 0 },
      random: (below) => below >> 1,
      ...options,
      transport,
      clock,
    }),
  )
  /** The outcome of a call, while time passes as it needs to. */
  const outcome = async <T>(call: Promise<T>, ms = 10_000): Promise<T | unknown> => {
    const settled = call.catch((error: unknown) => error)
    await clock.advance(0)
    await clock.advance(ms)
    return settled
  }
  return { balancer, clock, transport, outcome }
}

function decisions(explanation: Explanation | undefined): readonly string[] {
  return explanation!.attempts.map(({ backend, decision }) => `${backend}: ${decision}`)
}

const REFUSED: MemoryBackend = { failure: { phase: 'connect', code: 'ECONNREFUSED' } }
const BROKEN: MemoryBackend = { failure: { phase: 'head', code: 'ECONNRESET' } }

describe('explain tells of a call', () => {
  test('that went well: one attempt, its times, its end', async () => {
    const { balancer, outcome } = scene({ a: { connectMs: 3, headMs: 10, chunkMs: 2, body: ['one', 'two'] } })
    const answer = await outcome(balancer.request('/'))
    expect(balancer.explain(answer)).toEqual({
      pool: 'default',
      method: 'GET',
      idempotent: true,
      totalMs: 19,
      attempts: [
        {
          backend: 'a',
          class: 'ok',
          status: 200,
          phase: 'done',
          code: '',
          startMs: 0,
          sentMs: 3,
          headMs: 13,
          endMs: 19,
          decision: 'its answer was handed over',
        },
      ],
    })
  })

  test('retried after a 503, with the pause between', async () => {
    const { balancer, outcome } = scene(
      { a: { headMs: 10, status: 503 }, b: { headMs: 5, body: 'ok' } },
      { retry: { baseMs: 100 } },
    )
    const answer = await outcome(balancer.request('/'))
    const explanation = balancer.explain(answer)!
    expect(explanation.attempts).toMatchObject([
      { backend: 'a', class: 'server-error', status: 503, phase: 'done', startMs: 0, headMs: 10, endMs: 10 },
      { backend: 'b', class: 'ok', status: 200, phase: 'done', startMs: 60, sentMs: 0, headMs: 5, endMs: 5 },
    ])
    expect(decisions(explanation)).toEqual([
      'a: server-error (503): sent again after 50 ms',
      'b: its answer was handed over',
    ])
    expect(explanation.totalMs).toBe(65)
  })

  test('refused here, answered there', async () => {
    const { balancer, outcome } = scene({ a: REFUSED, b: { body: 'ok' } })
    const explanation = balancer.explain(await outcome(balancer.request('/', { method: 'POST', body: 'x' })))!
    expect(explanation).toMatchObject({ method: 'POST', idempotent: false })
    const [first, second] = explanation.attempts
    expect(first).toMatchObject({ class: 'connect', status: 0, phase: 'connect', code: 'ECONNREFUSED' })
    expect([first!.sentMs, first!.headMs]).toEqual([undefined, undefined])
    expect(second).toMatchObject({ class: 'ok', status: 200 })
    expect(decisions(explanation)[0]).toBe('a: connect: sent again after 0 ms')
  })

  test('of which a repeat would not have been safe', async () => {
    const { balancer, outcome } = scene({ a: BROKEN, b: {} })
    const error = await outcome(balancer.request('/', { method: 'POST', body: 'x' }))
    expect(error).toMatchObject({ code: 'RESET' })
    const explanation = balancer.explain(error)!
    expect(explanation.attempts).toMatchObject([
      { class: 'reset', phase: 'head', code: 'ECONNRESET', headMs: undefined },
    ])
    expect(decisions(explanation)).toEqual(['a: reset: not sent again, a repeat is not safe'])
  })

  test('whose attempts were used up, by failures', async () => {
    const { balancer, outcome } = scene({ a: REFUSED, b: REFUSED })
    const error = await outcome(balancer.request('/'))
    expect(error).toMatchObject({ code: 'CONNECT' })
    expect(decisions(balancer.explain(error)).map((it) => it.slice(3))).toEqual([
      'connect: sent again after 0 ms',
      'connect: sent again after 0 ms',
      'connect: not sent again, 3 attempts are used up',
    ])
  })

  test('whose attempts were used up, by answers: the last one is handed over', async () => {
    const { balancer, outcome } = scene(
      { a: { status: 503 }, b: { status: 502 } },
      { retry: { attempts: 2, baseMs: 0 } },
    )
    const answer = await outcome(balancer.request('/'))
    expect(decisions(balancer.explain(answer))).toEqual([
      'a: server-error (503): sent again after 0 ms',
      'b: server-error (502): not sent again, 2 attempts are used up',
    ])
  })

  test('that the retry budget cut short', async () => {
    const budget = { share: 0, perSecond: 1, windowMs: 1_000 }
    const { balancer, outcome } = scene({ a: REFUSED, b: REFUSED }, { retry: { baseMs: 0, budget } })
    const error = await outcome(balancer.request('/'))
    expect(decisions(balancer.explain(error))).toEqual([
      'a: connect: sent again after 0 ms',
      'b: connect: not sent again, the retry budget is used up',
    ])
  })

  test('whose deadline was too near for another', async () => {
    const { balancer, outcome } = scene({ a: { headMs: 80, status: 503 }, b: {} }, { retry: { baseMs: 100 } })
    const answer = await outcome(balancer.request('/', { timeoutMs: 100 }))
    expect(decisions(balancer.explain(answer))).toEqual([
      'a: server-error (503): not sent again, the deadline is too near',
    ])
  })

  test('sent again on a new connection, since the old one had died of age', async () => {
    const old: MemoryBackend = ({ number }) => (number === 1 ? { failure: { phase: 'head', reused: true } } : {})
    const { balancer, outcome } = scene({ a: old })
    const explanation = balancer.explain(await outcome(balancer.request('/')))!
    expect(explanation.attempts).toMatchObject([{ class: 'stale', phase: 'head' }, { class: 'ok' }])
    expect(decisions(explanation)).toEqual([
      'a: its connection was old: again on a new one',
      'a: its answer was handed over',
    ])
  })

  test('that nobody could take: no attempts', async () => {
    const { balancer, outcome } = scene({ a: {} })
    balancer.disable('a')
    const error = await outcome(balancer.request('/'))
    expect(error).toMatchObject({ code: 'NO_BACKEND' })
    expect(balancer.explain(error)).toMatchObject({ pool: 'default', method: 'GET', attempts: [] })
  })

  test('that ran out of time', async () => {
    const { balancer, outcome } = scene({ a: { headMs: 1_000 } }, { retry: { attempts: 1 } })
    const error = await outcome(balancer.request('/', { timeoutMs: 70 }))
    expect(error).toMatchObject({ code: 'TIMEOUT' })
    const explanation = balancer.explain(error)!
    expect(explanation.totalMs).toBe(70)
    expect(explanation.attempts).toMatchObject([{ class: 'timeout', phase: 'head', sentMs: 0, endMs: 70 }])
  })

  test('that was aborted, by its reason', async () => {
    const { balancer, clock } = scene({ a: { headMs: 1_000 } })
    const controller = new AbortController()
    const call = balancer.request('/', { signal: controller.signal }).catch((error: unknown) => error)
    await clock.advance(0)
    await clock.advance(30)
    controller.abort()
    const error = await call
    expect(balancer.explain(error)!.attempts).toMatchObject([
      { class: 'cancelled', phase: 'head', status: 0, endMs: 30 },
    ])
  })

  test('under way: what is known so far, and more when it is asked again', async () => {
    const { balancer, clock } = scene({ a: { headMs: 10, chunkMs: 40, body: ['one', 'two'] } })
    const call = balancer.request('/')
    await clock.advance(0)
    await clock.advance(10)
    const answer = await call
    await clock.advance(15)
    const early = balancer.explain(answer)!
    expect(early.totalMs).toBe(25)
    expect(early.attempts).toMatchObject([
      { class: 'ok', status: 200, phase: 'under way', headMs: 10, endMs: undefined },
    ])
    await clock.advance(1_000)
    expect(balancer.explain(answer)).toMatchObject({ totalMs: 130, attempts: [{ phase: 'done', endMs: 130 }] })
    expect(early.totalMs).toBe(25) // plain data: what was told stays as it was
  })

  test('whose body broke off after its head was handed over', async () => {
    const { balancer, clock } = scene({
      a: { body: ['half'], chunkMs: 5, failure: { phase: 'body', code: 'ECONNRESET' } },
    })
    const answer = await balancer.request('/')
    const text = answer.body.text().catch((error: unknown) => error)
    await clock.advance(10)
    expect(await text).toMatchObject({ code: 'TRUNCATED' })
    expect(balancer.explain(answer)!.attempts).toMatchObject([
      { class: 'truncated', status: 200, phase: 'body', code: 'ECONNRESET', headMs: 0, endMs: 10 },
    ])
  })

  test('in its pool, by its method, as it was told whether it may be repeated', async () => {
    const clock = manualClock()
    const transport = memory({ x: {} }, { clock })
    const backends = [{ url: 'http://x.test', id: 'x' }]
    const balancer = kept(createBalancer({ pools: { one: { backends }, two: { backends } }, transport, clock }))
    const answer = await balancer.request('/', { pool: 'two', method: 'PATCH', idempotent: true })
    expect(balancer.explain(answer)).toMatchObject({ pool: 'two', method: 'PATCH', idempotent: true })
  })
})

describe('explain takes', () => {
  test('a Response of fetch, and its clone', async () => {
    const backend = await keeper()
    const balancer = balance([backend])
    const response = await balancer.fetch('/')
    await response.text()
    const explanation = balancer.explain(response)!
    expect(explanation.attempts).toMatchObject([{ backend: `127.0.0.1:${backend.port}`, class: 'ok', phase: 'done' }])
    const [{ sentMs, headMs, endMs }] = explanation.attempts as [Explanation['attempts'][number]]
    expect(sentMs! >= 0 && headMs! >= sentMs! && endMs! >= headMs!).toBe(true)
    expect(explanation.totalMs).toBeGreaterThanOrEqual(endMs!)
    expect(JSON.parse(JSON.stringify(explanation))).toEqual(explanation)
  })

  test('an answer of request', async () => {
    const balancer = balance([await keeper()])
    const answer = await balancer.request('/')
    await answer.body.dump()
    expect(balancer.explain(answer)!.attempts).toMatchObject([{ class: 'ok', status: 200 }])
  })

  test('an error of fetch and of request', async () => {
    const balancer = balance([await nobody()], { retry: { attempts: 2, baseMs: 0 } })
    for (const call of [balancer.fetch('/'), balancer.request('/')]) {
      const error = await call.catch((error: unknown) => error)
      expect(balancer.explain(error)!.attempts.map((attempt) => attempt.code)).toEqual(['ECONNREFUSED', 'ECONNREFUSED'])
    }
  })

  test('the error a body broke off with', async () => {
    const { balancer } = scene(
      { a: { body: ['half'], failure: { phase: 'body', code: 'ECONNRESET' } } },
      { retry: { attempts: 1 } },
    )
    const { body } = await balancer.request('/')
    const error = await body.text().catch((error: unknown) => error)
    expect(balancer.explain(error)).toMatchObject({ attempts: [{ class: 'truncated' }] })
  })

  test('the http.ServerResponse that the proxy wrote, when it is finished', async () => {
    const [dead, live] = [await nobody(), await keeper()]
    const balancer = balance([dead, live], { strategy: 'weighted-round-robin', retry: { baseMs: 0 } })
    const proxy = createProxy(balancer)
    const told: (Explanation | undefined)[] = []
    const front = await upstream((request, response) => {
      response.on('finish', () => told.push(balancer.explain(response)))
      proxy(request, response)
    })
    await ask(front, '/a')
    await until(() => told.length === 1, 'the proxy never finished')
    expect(told[0]).toMatchObject({
      pool: 'default',
      method: 'GET',
      attempts: [
        { backend: `127.0.0.1:${dead.port}`, class: 'connect', code: 'ECONNREFUSED' },
        { backend: `127.0.0.1:${live.port}`, class: 'ok', status: 200, decision: 'its answer was handed over' },
      ],
    })
  })

  test('a proxied response whose call failed', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.socket.resetAndDestroy()
    })
    const balancer = balance([backend])
    const proxy = createProxy(balancer)
    let last: ServerResponse | undefined
    const front = await upstream((request, response) => {
      last = response
      proxy(request, response)
    })
    const { status } = await ask(front, '/a', { method: 'POST', body: 'x' })
    expect(status).toBe(502)
    expect(decisions(balancer.explain(last))).toEqual([
      `127.0.0.1:${backend.port}: reset: not sent again, a repeat is not safe`,
    ])
  })

  test.each([
    ['nothing', undefined],
    ['null', null],
    ['a string', 'x'],
    ['a number', 7],
    ['an object of somebody else', {}],
    ['an error of somebody else', new Error('x')],
    ['a Response of somebody else', new Response('x')],
    ['a ServerResponse of somebody else', new http.ServerResponse(new http.IncomingMessage(null as never))],
  ])('%s for what it is: unknown', (_, subject) => {
    const { balancer } = scene({ a: {} })
    expect(balancer.explain(subject)).toBeUndefined()
  })
})

describe('several balancers in one process', () => {
  test('are told apart by their names: in stats and in what they say when closed', async () => {
    const [users, orders] = ['users', 'orders'].map((name) => scene({ a: {} }, { name }).balancer)
    expect([users!.stats().name, orders!.stats().name]).toEqual(['users', 'orders'])
    await users!.close()
    await expect(users!.request('/')).rejects.toThrow('the balancer users is closed')
    expect((await orders!.request('/')).statusCode).toBe(200)
  })

  test('explain each their own errors, and count each their own calls', async () => {
    const users = scene({ a: REFUSED }, { name: 'users', retry: { attempts: 1 } }).balancer
    const orders = scene({ a: {} }, { name: 'orders' }).balancer
    const error = await users.request('/').catch((error: unknown) => error)
    expect(users.explain(error)).toBeDefined()
    expect(orders.explain(error)).toBeUndefined()
    expect([users, orders].map((it) => it.stats().pools.default!.calls)).toEqual([1, 0])
  })

  test('explain nothing of each other’s answers', async () => {
    const [users, orders] = ['users', 'orders'].map((name) => scene({ a: {} }, { name }).balancer)
    const answers = [await users!.request('/'), await users!.fetch('/')]
    expect(answers.map((answer) => orders!.explain(answer))).toEqual([undefined, undefined])
  })

  test('may have another name after an update', async () => {
    const balancer = createBalancer({ name: 'old', backends: ['http://a.test'], random: seededRandom(1) })
    await balancer.update({ name: 'new', backends: ['http://a.test'] })
    expect([balancer.name, balancer.stats().name]).toEqual(['new', 'new'])
    await balancer.close()
    expect(() => balancer.acquire()).toThrow('the balancer new is closed')
  })
})
