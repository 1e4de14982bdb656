import type { Attempt, BalancerError, Policy, Sink, Strategy } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { bodyOf } from '../../src/core/body.ts'
import { wireHeaders } from '../../src/core/headers.ts'
import { bench, inTurn, watching } from '../support/pool-bench.ts'
import { balancerError, type ScriptedSend } from '../support/scripted.ts'

describe('an attempt', () => {
  test('carries the request to the backend as its endpoint wants it', async () => {
    const { send, transport } = bench([
      { url: 'http://a.test/base/', id: 'a', headers: { H: '2', authorization: 'geheim' } },
    ])
    await send()
    const { path, headers } = transport.last().attempt.request
    expect(path).toBe('/base/x')
    expect(wireHeaders(headers)).toEqual(['H', '2', 'authorization', 'geheim'])
  })

  test('to a backend with only a base path, or only headers, changes only that', async () => {
    const { send, transport } = bench([
      { url: 'http://a.test/v1', id: 'a' },
      { url: 'http://b.test', id: 'b', headers: { k: 'v' } },
      { url: 'http://c.test', id: 'c' },
    ])
    for (const prefer of 'abc') await send({ prefer })
    expect(transport.sends.map(({ attempt: { request } }) => [request.path, wireHeaders(request.headers)])).toEqual([
      ['/v1/x', ['h', '1']],
      ['/x', ['h', '1', 'k', 'v']],
      ['/x', ['h', '1']],
    ])
  })

  test('is counted by its class, on the backend and in the pool', async () => {
    const scripts: ((send: ScriptedSend) => void)[] = [
      (send) => send.answer(),
      (send) => send.answer(404),
      (send) => send.answer(503),
      (send) => send.refuse(),
      (send) => send.answer(999),
    ]
    const { send, pool, backend } = bench(['a'], { play: (it, n) => scripts[n - 1]!(it) })
    for (const _ of scripts) await send().catch(() => {})
    expect(backend('a').totals).toEqual({
      requests: 5,
      failures: 3,
      classes: { ok: 1, 'client-error': 1, 'server-error': 1, connect: 1, protocol: 1 },
      blocks: {},
    })
    expect(pool.totals.attempts).toBe(5)
  })

  test('teaches the latency of its head, not how long somebody read; failures count as 1 s at least', async () => {
    const { send, transport, backend, clock } = bench(['a'], { play: () => {} })
    const slowReader = send()
    await clock.advance(40)
    const body = transport.last().head(200)
    await clock.advance(0)
    await clock.advance(9_000)
    body.end()
    await slowReader
    expect(backend('a').latency.read(clock.now() - 9_000)).toBeCloseTo(40, 9)
    expect(backend('a').quantiles.read(0.5, clock.now())).toBeCloseTo(40, 0)
    const failing = send()
    await clock.advance(3)
    transport.last().answer(500)
    await failing
    expect(backend('a').latency.read(clock.now())).toBe(1_000)
    const cut = send()
    await clock.advance(5)
    const half = transport.last().head(200)
    await cut
    await clock.advance(2_500)
    half.fail()
    expect(backend('a').latency.read(clock.now())).toBe(2_505)
  })

  test('that failed is held against its backend for 5 s after the last failure, then the backend is one of its peers', async () => {
    const { send, pool, backend, clock } = bench(['a', 'b'], { play: (it, n) => it.answer([200, 500, 500][n - 1]!) })
    await send({ prefer: 'b' })
    backend('b').latency.reset(20, clock.now())
    await send({ prefer: 'a' })
    await clock.advance(3_000)
    await send({ prefer: 'a' })
    expect(backend('a').latency.read(clock.now())).toBe(1_000)
    await clock.advance(4_999)
    expect(backend('a').latency.read(clock.now())).toBeGreaterThan(600)
    await clock.advance(1)
    expect(backend('a').latency.read(clock.now())).toBeCloseTo(backend('b').latency.read(clock.now()), 9)
    await clock.advance(500)
    expect(clock.pending).toBe(0)
    expect(pool.inflight).toBe(0)
  })

  test('that failed leaves no timer once its backend has left', async () => {
    const { send, pool, clock } = bench(['a'], { play: (it) => it.answer(500) })
    await send()
    pool.apply([])
    await clock.advance(500)
    expect(clock.pending).toBe(0)
  })

  test('that was limited, refused entry or aborted teaches nothing', async () => {
    const { send, backend, callOf, clock, transport } = bench(['a'], {
      play(it, n) {
        if (n < 4) it.answer([401, 403, 429][n - 1]!)
      },
    })
    for (let i = 0; i < 3; i++) await send()
    const call = callOf()
    const aborted = send({}, call)
    await clock.advance(700)
    call.cancel(new Error('stop'))
    await expect(aborted).rejects.toThrow('stop')
    expect(transport.last().canceledWith).toMatchObject({ message: 'stop' })
    expect(backend('a').latency.known).toBe(false)
    expect(backend('a').totals.failures).toBe(0)
  })

  test('of a call that was aborted before is never made', async () => {
    const { send, callOf, transport } = bench(['a'])
    const call = callOf()
    const reason = new Error('too late')
    call.cancel(reason)
    await expect(send({}, call)).rejects.toBe(reason)
    expect(transport.sends).toHaveLength(0)
  })

  test('whose policy answers in the backend’s place blames nobody, and its lease ends', async () => {
    const answering: Policy = {
      name: 'canned',
      scope: 'attempt',
      wrap: () => async () => ({ status: 200, headers: [], body: bodyOf() }),
    }
    const refusing: Policy = { name: 'refuses', scope: 'attempt', wrap: () => () => Promise.reject(new Error('no')) }
    for (const policy of [answering, refusing]) {
      const { send, backend, transport } = bench(['a'], { policies: [policy] })
      await send().catch((error: Error) => expect(error.message).toBe('no'))
      expect(transport.sends).toHaveLength(0)
      expect(backend('a')).toMatchObject({ inflight: 0, totals: { failures: 0, classes: { cancelled: 1 } } })
    }
  })

  test('aborted between the policies and the transport is never sent', async () => {
    const aborting: Policy = {
      name: 'aborts',
      scope: 'attempt',
      wrap: (next) => (attempt) => {
        attempt.cancel(new Error('changed my mind'))
        return next(attempt)
      },
    }
    const { send, transport, pool } = bench(['a'], { policies: [aborting] })
    await expect(send()).rejects.toThrow('changed my mind')
    expect([transport.sends.length, pool.inflight]).toEqual([0, 0])
  })

  test('aborted in the very tick of its head rejects, and the answer is let go', async () => {
    const { send, transport, pool } = bench(['a'], {
      play(it) {
        it.head(200)
        it.attempt.cancel(new Error('just now'))
      },
    })
    await expect(send()).rejects.toThrow('just now')
    expect(transport.last().body?.canceledWith).toMatchObject({ message: 'just now' })
    expect(pool.inflight).toBe(0)
  })

  test('with a status that is no HTTP fails as PROTOCOL, and its body is let go', async () => {
    for (const status of [0, 99, 100, 199, 600, 999]) {
      const { send, transport } = bench(['a'], { play: (it) => it.head(status) })
      expect(await balancerError(send())).toMatchObject({ code: 'PROTOCOL', backend: 'a' })
      expect(transport.last().body).toHaveProperty('canceledWith')
    }
  })

  test('tells its stages once each, in order, and the time of each', async () => {
    const stages: string[] = []
    let seen: Attempt | undefined
    const watching: Policy = {
      name: 'watches',
      scope: 'attempt',
      wrap: (next) => (attempt) => {
        seen = attempt
        attempt.watch({
          sent: () => void stages.push('sent'),
          head: () => void stages.push('head'),
          end: () => void stages.push('end'),
        })
        attempt.watch({})
        return next(attempt)
      },
    }
    const { send, transport, clock } = bench(['a'], { policies: [watching], play: () => {} })
    const response = send()
    await clock.advance(10)
    transport.last().connect()
    transport.last().connect()
    await clock.advance(20)
    const body = transport.last().head(200)
    await response
    await clock.advance(30)
    body.end()
    expect(stages).toEqual(['sent', 'head', 'end'])
    expect(seen).toMatchObject({
      startMs: 1_000,
      sentMs: 1_010,
      headMs: 1_030,
      endMs: 1_060,
      status: 200,
      class: 'ok',
      outcome: { class: 'ok', status: 200, phase: 'done', code: '', error: undefined },
    })
    seen?.sent() // a late callback
    expect(seen?.sentMs).toBe(1_010)
  })

  test('that began as a failure stays one, however its body ends', async () => {
    const { send, backend, callOf, clock } = bench(['a'], { play: (it) => it.head(500) })
    const call = callOf()
    await send({}, call)
    await clock.advance(0)
    call.cancel(new Error('enough'))
    expect(backend('a').totals).toMatchObject({ failures: 1, classes: { 'server-error': 1 } })
  })

  test('gives its backend back also when its reader throws at the news of an abort', async () => {
    const { send, callOf, pool, transport } = bench(['a'], { play: (it) => it.head(200).push('x') })
    const call = callOf()
    const { body } = await send({}, call)
    body.consume({
      chunk: () => true,
      end: () => {},
      fail() {
        throw new Error('a bug of the reader')
      },
    })
    try {
      call.cancel(new Error('stop'))
    } catch {
      // whether the bug shows here is another matter
    }
    expect(transport.last().body?.canceledWith).toMatchObject({ message: 'stop' })
    expect(pool.inflight).toBe(0)
  })

  test('tells a canceller once, or never when it was taken back', async () => {
    const heard: string[] = []
    const { send, callOf, clock } = bench(['a'], {
      play(it) {
        it.attempt.onCancel(() => void heard.push('attempt'))
        it.attempt.onCancel(() => void heard.push('never'))() // taken back at once
      },
    })
    const call = callOf()
    call.onCancel(() => void heard.push('call'))
    const stop = call.onCancel(() => void heard.push('never'))
    stop()
    stop()
    const response = send({}, call)
    await clock.advance(0)
    call.cancel(new Error('stop'))
    call.cancel(new Error('again'))
    await expect(response).rejects.toThrow('stop')
    expect(heard).toEqual(['attempt', 'call'])
    expect(call.reason).toMatchObject({ message: 'stop' })
  })
})

describe('a call', () => {
  test('is over once, when it was answered and its last byte is in', async () => {
    const heard: string[] = []
    const { send, callOf, transport, clock } = bench(['a'], {
      play: () => {},
      sinks: [{ name: 'log', call: () => void heard.push('sink') }],
    })
    const call = callOf()
    call.onEnd(() => void heard.push('first'))
    call.onEnd(() => void heard.push('second'))
    const response = send({}, call)
    await clock.advance(0)
    const body = transport.last().head(200)
    await response
    expect(heard).toEqual([])
    body.end()
    expect(heard).toEqual(['sink', 'first', 'second'])
    call.cancel(new Error('late'))
    expect(call.canceled).toBe(false)
  })

  test('is over when nobody could be picked', async () => {
    let over = 0
    const { send, callOf } = bench([])
    const call = callOf()
    call.onEnd(() => over++)
    await balancerError(send({}, call))
    expect(over).toBe(1)
  })
})

describe('a part that throws', () => {
  const failing = (): never => {
    throw new Error('a bug')
  }
  const warnings = (told: readonly [string, ...unknown[]][]): BalancerError[] =>
    told.filter(([event]) => event === 'warning').map(([, error]) => error as BalancerError)

  test('in a sink is reported once, and requests go on', async () => {
    const heard: string[] = []
    const sinks: Sink[] = [
      { name: 'broken', head: failing, attempt: failing, call: failing },
      {
        name: 'whole',
        head: () => void heard.push('head'),
        attempt: () => void heard.push('attempt'),
        call: () => void heard.push('call'),
      },
    ]
    const { send, events } = bench(['a'], { sinks })
    for (let i = 0; i < 3; i++) expect((await send()).status).toBe(200)
    expect(heard).toEqual(Array.from({ length: 3 }, () => ['head', 'attempt', 'call']).flat())
    expect(warnings(events)).toHaveLength(1)
    expect(warnings(events)[0]).toMatchObject({
      message: 'broken threw in pool default',
      cause: { message: 'a bug' },
    })
  })

  test('in a hook of the strategy is reported once, and requests go on', async () => {
    const { start } = inTurn()
    const strategy: Strategy = { name: 'hooked', start: (core) => ({ ...start(core), head: failing, settle: failing }) }
    const { send, events, pool } = bench(['a'], { strategy })
    for (let i = 0; i < 3; i++) expect((await send()).status).toBe(200)
    expect(warnings(events)).toHaveLength(1)
    expect(pool.inflight).toBe(0)
  })

  test('in the release of a gate is reported once, and the others are released', async () => {
    let released = 0
    const watchers = [
      watching({ name: 'broken', admit: () => true, release: failing }),
      watching({ name: 'whole', admit: () => true, release: () => void released++ }),
    ]
    const { send, events } = bench(['a'], { watchers })
    for (let i = 0; i < 2; i++) await send()
    expect(released).toBe(2)
    expect(warnings(events)).toHaveLength(1)
  })

  test('is reported for each of them', async () => {
    const sinks: Sink[] = ['one', 'two'].map((name) => ({ name, attempt: failing }))
    const { send, events } = bench(['a'], { sinks })
    for (let i = 0; i < 2; i++) await send()
    expect(warnings(events).map(({ message }) => message)).toEqual([
      'one threw in pool default',
      'two threw in pool default',
    ])
  })

  test('in the transport is told as what it is, and the lease ends', async () => {
    for (const [transport, message] of [
      [
        { name: 'rejects', send: () => Promise.reject(new TypeError('undefined is not a function')) },
        'undefined is not',
      ],
      [{ name: 'throws', send: failing }, 'a bug'],
      [{ name: 'text', send: () => Promise.reject('text') }, 'the transport threw text'],
      [{ name: 'nothing', send: () => Promise.reject(undefined) }, 'the transport threw undefined'],
    ] as const) {
      const { send, pool } = bench(['a'], { transport })
      const error = await balancerError(send())
      expect(error.message).toContain(message)
      expect(['RESET', 'PROTOCOL']).toContain(error.code)
      expect(pool.inflight).toBe(0)
    }
  })
})
