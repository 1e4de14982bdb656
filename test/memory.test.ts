import assert from 'node:assert/strict'
import { BalancerError, type BalancerOptions, createBalancer, type MemoryBackend, memory } from 'evenkeel'
import { type ManualClock, manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { kept, statsOf, until } from './support/upstreams.ts'

/** A balancer over memory backends on one manual clock, as a user's own test would make it. */
function scene(
  backends: Readonly<Record<string, MemoryBackend>>,
  options: Omit<BalancerOptions, 'backends' | 'transport' | 'clock'> & { readonly ids?: readonly string[] } = {},
) {
  const clock = manualClock()
  const { ids = Object.keys(backends), ...rest } = options
  const transport = memory(backends, { clock })
  const balancer = kept(
    createBalancer({
      backends: ids.map((id) => ({ url: `http://${id}.test`, id })),
      health: { passive: false },
      random: seededRandom(1),
      ...rest,
      transport,
      clock,
    }),
  )
  return { balancer, transport, clock }
}

/** What a promise has come to. */
interface Outcome<T> {
  value?: T
  error?: unknown
  over: boolean
}

/** Watches a call that is on its way: nobody waits for anything but time any more. */
async function begun<T>(clock: ManualClock, promise: Promise<T>): Promise<Outcome<T>> {
  const seen: Outcome<T> = { over: false }
  promise.then(
    (value) => Object.assign(seen, { value, over: true }),
    (error: unknown) => Object.assign(seen, { error, over: true }),
  )
  await clock.advance(0)
  return seen
}

/** All that is left behind: a failure is forgiven after 5 s, and the deadlines' own timer lapses. */
async function assertNoTimer(clock: ManualClock): Promise<void> {
  await clock.advance(6_000)
  assert.equal(clock.pending, 0, 'a timer stayed behind')
}

describe('memory answers', () => {
  test('200 and nothing, unless told otherwise', async () => {
    const { balancer } = scene({ a: {} })
    const { statusCode, headers, body } = await balancer.request('/')
    expect([statusCode, headers, await body.text()]).toEqual([200, { 'content-length': '0' }, ''])
  })

  test('with status, headers, body and trailers', async () => {
    const { balancer } = scene({
      a: { status: 201, headers: { 'X-Made-By': 'a' }, body: '{"n":1}', trailers: { 'X-Sum': '7' } },
    })
    const { statusCode, headers, trailers, body } = await balancer.request('/')
    expect(statusCode).toBe(201)
    expect(headers).toEqual({ 'content-length': '7', 'x-made-by': 'a' })
    expect(await body.json()).toEqual({ n: 1 })
    expect(trailers).toEqual({ 'x-sum': '7' })
  })

  test.each([
    ['text', 'héa', 'héa', '4'],
    ['bytes', new Uint8Array([104, 105]), 'hi', '2'],
    ['a list of both', ['h', new Uint8Array([105]), '', '!'], 'hi!', undefined],
    ['an empty list', [], '', undefined],
  ] as const)('a body of %s', async (_, body, text, length) => {
    const { balancer } = scene({ a: { body } })
    const answer = await balancer.request('/')
    expect(answer.headers['content-length']).toBe(length)
    expect(await answer.body.text()).toBe(text)
  })

  test('to fetch as well', async () => {
    const { balancer } = scene({ a: { status: 404, headers: { 'x-n': '1' }, body: 'nobody' } })
    const response = await balancer.fetch('/')
    expect([response.status, response.headers.get('x-n'), await response.text()]).toEqual([404, '1', 'nobody'])
  })

  test('as a function of the request says', async () => {
    const { balancer } = scene({
      a: ({ backend, number, method, path, body }) => ({
        body: `${backend} ${number} ${method} ${path} ${Buffer.from(body)}`,
      }),
    })
    const said = async (): Promise<string> =>
      (await balancer.request('/x?y=1', { method: 'PUT', body: 'hello' })).body.text()
    expect([await said(), await said()]).toEqual(['a 1 PUT /x?y=1 hello', 'a 2 PUT /x?y=1 hello'])
  })

  test('as a function that has to think first', async () => {
    const { balancer, clock } = scene({
      a: () => new Promise((resolve) => clock.after(30, () => resolve({ body: 'thought' }))),
    })
    const answer = await begun(clock, balancer.request('/'))
    await clock.advance(29)
    expect(answer.over).toBe(false)
    await clock.advance(1)
    expect(await answer.value!.body.text()).toBe('thought')
  })

  test('HEAD without a body, as any server does, but with its length', async () => {
    const { balancer } = scene({ a: { body: 'hello' } })
    const { headers, body } = await balancer.request('/', { method: 'HEAD' })
    expect(headers['content-length']).toBe('5')
    expect(await body.text()).toBe('')
  })

  test('204 and 304 without a body', async () => {
    const { balancer } = scene({ a: ({ path }) => ({ status: Number(path.slice(1)), body: 'hello' }) })
    for (const status of [204, 304]) {
      const answer = await balancer.request(`/${status}`)
      expect([answer.statusCode, await answer.body.text()]).toEqual([status, ''])
      expect((await balancer.fetch(`/${status}`)).body).toBeNull()
    }
  })

  test('a long list of chunks, and a long body, in full', async () => {
    const { balancer } = scene({ a: { body: Array(50_000).fill('x') }, b: { body: new Uint8Array(4_000_000) } })
    expect((await (await balancer.request('/', { prefer: 'a' })).body.text()).length).toBe(50_000)
    expect((await (await balancer.request('/', { prefer: 'b' })).body.bytes()).length).toBe(4_000_000)
  })
})

describe('memory keeps every request', () => {
  test('in the order they came, with all that was sent', async () => {
    const { balancer, transport } = scene({ a: {}, b: {} }, { strategy: 'weighted-round-robin' })
    await balancer.request('/1', { headers: { 'X-One': '1' } })
    await balancer.fetch('/2', { method: 'POST', body: 'two' })
    await balancer.request('/3', { method: 'PUT', body: new Blob(['three']) })
    const seen = transport.requests.map((it) => [
      it.backend,
      it.number,
      it.method,
      it.path,
      Buffer.from(it.body).toString(),
    ])
    expect(seen).toEqual([
      ['a', 1, 'GET', '/1', ''],
      ['b', 1, 'POST', '/2', 'two'],
      ['a', 2, 'PUT', '/3', 'three'],
    ])
    expect(transport.requests[0]!.headers).toEqual(['X-One', '1'])
  })

  test('with a body of megabytes', async () => {
    const { balancer, transport } = scene({ a: {} })
    const body = new Uint8Array(3_000_000).fill(7)
    await balancer.request('/', { method: 'POST', body: new Blob([body]) })
    expect(Buffer.compare(transport.requests[0]!.body, body)).toBe(0)
  })

  test('but none that was aborted before it was on its way', async () => {
    const asked: string[] = []
    const { balancer, transport, clock } = scene({
      a: ({ path }) => {
        asked.push(path)
        return {}
      },
    })
    const controller = new AbortController()
    const answer = begun(clock, balancer.request('/', { signal: controller.signal }))
    controller.abort(new Error('enough'))
    expect((await answer).error).toBe(controller.signal.reason)
    expect([asked, transport.requests]).toEqual([[], []])
  })
})

describe('memory delays', () => {
  test('the connection, the head and each chunk, on the manual clock', async () => {
    const { balancer, clock } = scene({ a: { connectMs: 10, headMs: 20, chunkMs: 5, body: ['one', 'two'] } })
    const answer = await begun(clock, balancer.request('/'))
    await clock.advance(29)
    expect(answer.over).toBe(false)
    await clock.advance(1)
    const { value } = answer
    expect(value!.statusCode).toBe(200)
    const came: string[] = []
    const reading = (async () => {
      for await (const chunk of value!.body) came.push(Buffer.from(chunk).toString())
      came.push('end')
    })()
    await clock.advance(4)
    expect(came).toEqual([])
    await clock.advance(1)
    expect(came).toEqual(['one'])
    await clock.advance(5)
    expect(came).toEqual(['one', 'two'])
    await clock.advance(4)
    expect(came).toEqual(['one', 'two'])
    await clock.advance(1)
    expect(came).toEqual(['one', 'two', 'end'])
    await reading
    expect(balancer.explain(value)!.attempts[0]).toMatchObject({ sentMs: 10, headMs: 30, endMs: 45 })
    await assertNoTimer(clock)
  })

  test('nothing while the clock stands still', async () => {
    const { balancer, clock } = scene({ a: { headMs: 1 } })
    const answer = await begun(clock, balancer.request('/'))
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(answer.over).toBe(false)
    await clock.advance(1)
    expect(answer.over).toBe(true)
  })

  test('for real without a clock', async () => {
    const balancer = kept(
      createBalancer({ backends: [{ url: 'http://a.test', id: 'a' }], transport: memory({ a: { headMs: 30 } }) }),
    )
    const startMs = performance.now()
    await balancer.request('/')
    expect(performance.now() - startMs).toBeGreaterThan(25)
  })

  test('make the balancer time out where it would', async () => {
    const timeouts = { connectMs: 100, headersMs: 200, idleMs: 300 }
    const { balancer, clock } = scene(
      { connect: { connectMs: 1_000 }, head: { headMs: 1_000 }, body: { chunkMs: 1_000, body: ['one', 'two'] } },
      { timeouts, retry: { attempts: 1 } },
    )
    for (const [prefer, ms, message] of [
      ['connect', 100, /waited 100 ms for a connection/],
      ['head', 200, /waited 200 ms for the head/],
      ['body', 300, /waited 300 ms for more of the body/],
    ] as const) {
      const text = await begun(
        clock,
        balancer.request('/', { prefer }).then(({ body }) => body.text()),
      )
      await clock.advance(ms - 1)
      expect(text.over, prefer).toBe(false)
      await clock.advance(1)
      expect(text.error).toBeInstanceOf(BalancerError)
      expect((text.error as BalancerError).message).toMatch(message)
    }
    await assertNoTimer(clock)
  })

  test('do not outlast a reader who stopped: what is not asked for does not come', async () => {
    const { balancer, clock } = scene({ a: { chunkMs: 1, body: Array(100).fill('x'.repeat(10_000)) } })
    const reader = (await balancer.request('/')).body.stream().getReader()
    await clock.advance(1_000)
    expect(balancer.stats().pools.default!.inflight).toBe(1)
    let length = 0
    const reading = (async () => {
      for (let it = await reader.read(); !it.done; it = await reader.read()) length += it.value.length
    })()
    await clock.advance(1_000)
    await reading
    expect(length).toBe(1_000_000)
  })
})

describe('memory fails', () => {
  const failures = [
    ['wait', '', 'OVERLOADED', 'overloaded', 0],
    ['connect', 'ECONNREFUSED', 'CONNECT', 'connect', 10],
    ['tls', 'CERT_HAS_EXPIRED', 'TLS', 'tls', 10],
    ['head', 'ECONNRESET', 'RESET', 'reset', 30],
    ['body', 'ECONNRESET', 'TRUNCATED', 'truncated', 36],
  ] as const

  test.each(failures)('in phase %s: %s is %s', async (phase, code, error, kind, ms) => {
    const { balancer, clock } = scene(
      { a: { connectMs: 10, headMs: 20, chunkMs: 2, body: ['one', 'two'], failure: { phase, code } } },
      { retry: { attempts: 1 } },
    )
    const answer = balancer.request('/')
    const text = await begun(
      clock,
      answer.then(({ body }) => body.text()),
    )
    if (ms > 0) {
      await clock.advance(ms - 1)
      expect(text.over).toBe(false)
      await clock.advance(1)
    }
    expect(text.error).toBeInstanceOf(BalancerError)
    expect(text.error).toMatchObject({ code: error, backend: 'a' })
    expect(statsOf(balancer).classes).toEqual({ [kind]: 1 })
    await assertNoTimer(clock)
  })

  test('in the body only after all that comes before it', async () => {
    const { balancer } = scene({ a: { body: ['one', 'two'], failure: { phase: 'body' } } }, { retry: { attempts: 1 } })
    const came: string[] = []
    const read = async (): Promise<void> => {
      for await (const chunk of (await balancer.request('/')).body) came.push(Buffer.from(chunk).toString())
    }
    await expect(read()).rejects.toMatchObject({ code: 'TRUNCATED' })
    expect(came).toEqual(['one', 'two'])
  })

  test('as an old connection does: tried again on a new one, and nobody is blamed', async () => {
    const { balancer, transport } = scene({
      a: ({ number }) => (number === 1 ? { failure: { phase: 'head', reused: true } } : { body: 'ok' }),
    })
    expect(await (await balancer.request('/')).body.text()).toBe('ok')
    expect(transport.requests.length).toBe(2)
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { stale: 1, ok: 1 } })
  })

  test('for who is not named: connection refused', async () => {
    const { balancer, transport } = scene({}, { ids: ['ghost'], retry: { attempts: 1 } })
    const error = await balancer.request('/').catch((error: unknown) => error)
    expect(error).toMatchObject({ code: 'CONNECT', backend: 'ghost' })
    expect((error as Error).cause).toMatchObject({ message: 'ECONNREFUSED' })
    expect(transport.requests).toEqual([])
  })

  test('when its function does, and says why', async () => {
    const onFire = new Error('script on fire')
    const { balancer } = scene({
      a: () => {
        throw onFire
      },
    })
    const error = await balancer.request('/').catch((error: unknown) => error)
    expect(error).toMatchObject({ name: 'BalancerError', cause: onFire })
  })
})

describe('set', () => {
  test('changes how a backend answers from now on, what is under way goes on as it began', async () => {
    const { balancer, transport, clock } = scene({ a: { headMs: 10, body: 'old' } })
    const old = await begun(clock, balancer.request('/'))
    transport.set('a', { body: 'new' })
    expect(await (await balancer.request('/')).body.text()).toBe('new')
    await clock.advance(10)
    expect(await old.value!.body.text()).toBe('old')
    expect(transport.requests.map(({ number }) => number)).toEqual([1, 2])
  })

  test('brings to life who refused', async () => {
    const { balancer, transport } = scene({}, { ids: ['a'], retry: { attempts: 1 } })
    await expect(balancer.request('/')).rejects.toMatchObject({ code: 'CONNECT' })
    transport.set('a', { body: 'here' })
    expect(await (await balancer.request('/')).body.text()).toBe('here')
  })
})

describe('an abort', () => {
  const slow: MemoryBackend = { connectMs: 10, headMs: 10, chunkMs: 10, body: ['one', 'two'] }

  test.each([
    ['while connecting', 5, 0],
    ['while waiting for the head', 15, 0],
    ['before the first chunk', 25, 1],
    ['between chunks', 35, 1],
    ['before the end', 45, 1],
  ])('%s rejects with its reason and leaves no timer', async (_, ms, heads) => {
    const { balancer, clock } = scene({ a: slow })
    const controller = new AbortController()
    const reason = new Error('enough')
    const answer = await begun(clock, balancer.request('/', { signal: controller.signal }))
    await clock.advance(ms)
    const { value } = answer
    expect(value === undefined ? 0 : 1).toBe(heads)
    const text = value === undefined ? undefined : await begun(clock, value.body.text())
    controller.abort(reason)
    await clock.advance(0)
    expect(balancer.stats().pools.default!.inflight).toBe(0)
    expect((text ?? answer).error).toBe(reason)
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
    await clock.advance(500) // the deadlines' own timer lapses
    expect(clock.pending).toBe(0)
  })

  test('while a function thinks', async () => {
    const { balancer, clock } = scene({ a: () => new Promise(() => {}) })
    const controller = new AbortController()
    const answer = await begun(clock, balancer.request('/', { signal: controller.signal }))
    await clock.advance(0)
    controller.abort(new Error('enough'))
    await clock.advance(0)
    expect(answer.error).toBe(controller.signal.reason)
  })

  test('after the end changes nothing', async () => {
    const { balancer, clock } = scene({ a: { body: 'ok' } })
    const controller = new AbortController()
    const { body } = await balancer.request('/', { signal: controller.signal })
    controller.abort(new Error('late'))
    expect(await body.text()).toBe('ok')
    expect(statsOf(balancer).classes).toEqual({ ok: 1 })
    await assertNoTimer(clock)
  })
})

describe('a user’s own test', () => {
  test('a dead backend is left out after five failures, and comes back when it lives', async () => {
    const { balancer, transport, clock } = scene(
      { a: { failure: { phase: 'connect', code: 'ECONNREFUSED' } }, b: { body: 'b' } },
      { health: { passive: { consecutive: 5 } }, strategy: 'round-robin', retry: { baseMs: 0 } },
    )
    const blocked: string[] = []
    balancer.on('blocked', ({ id }) => blocked.push(id))
    const all: string[] = []
    for (let i = 0; i < 20; i++) all.push(await (await balancer.request('/')).body.text())
    expect(new Set(all)).toEqual(new Set(['b'])) // nobody noticed
    expect(blocked).toEqual(['a'])
    transport.set('a', { body: 'a' })
    await clock.advance(5_500)
    const after = new Set<string>()
    for (let i = 0; i < 4; i++) after.add(await (await balancer.request('/')).body.text())
    expect(after).toEqual(new Set(['a', 'b']))
  })

  test('an hour passes at once', async () => {
    const { balancer, clock } = scene({ a: { headMs: 3_600_000 } }, { timeouts: { headersMs: 0 } })
    const answer = await begun(clock, balancer.request('/'))
    const startMs = performance.now()
    await clock.advance(3_600_000)
    expect(answer.value!.statusCode).toBe(200)
    expect(performance.now() - startMs).toBeLessThan(5_000)
  })

  test('close ends what is under way, and leaves no timer', async () => {
    const { balancer, clock } = scene({ a: { headMs: 1_000 } })
    const answer = await begun(clock, balancer.request('/'))
    await clock.advance(10)
    await balancer.close()
    await until(() => answer.over, 'the call never ended')
    expect(answer.error).toMatchObject({ code: 'CLOSED' })
    expect(clock.pending).toBe(0)
  })
})
