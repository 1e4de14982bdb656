import type { Backend, Call, Gate, Strategy } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import type { LiveCall } from '../../src/core/call.ts'
import { bench, endpoint, endpoints, hard, soft, watching } from '../support/pool-bench.ts'
import { balancerError, type ScriptedSend, textOf } from '../support/scripted.ts'

describe('a pick', () => {
  test('never meets weight 0, and nobody when all have it', () => {
    const { pool, eligible, met } = bench([endpoint('a', { weight: 0 }), 'b'])
    expect([eligible(), met()]).toEqual(['b', 'b'])
    pool.apply([endpoint('a', { weight: 0 }), endpoint('b', { weight: 0 })])
    expect([eligible(), met()]).toEqual(['', 'nobody'])
  })

  test('meets only backends that have all the tags of the call', () => {
    const { met } = bench([endpoint('a', { tags: ['big'] }), endpoint('b', { tags: ['big', 'eu'] }), 'c'])
    expect(met()).toBe('a b c')
    expect(met({ tags: [] })).toBe('a b c')
    expect(met({ tags: ['big'] })).toBe('a b')
    expect(met({ tags: ['eu', 'big'] })).toBe('b')
    expect(met({ tags: ['small'] })).toBe('nobody')
  })

  test('finds the only one with a tag among 200, though the strategy never asks for it first', () => {
    const many = Array.from({ length: 199 }, (_, i) => endpoint(`b${i}`))
    const { met } = bench([...many, endpoint('rare', { tags: ['gpu'] })])
    expect(met({ tags: ['gpu'] })).toBe('rare')
  })

  test('meets the one preferred if it is eligible and free, else the others', () => {
    const { pool, backend, met } = bench([endpoint('a', { maxInflight: 1 }), 'b', 'c'])
    expect(met({ prefer: 'a' })).toBe('a')
    expect(met({ prefer: 'unknown' })).toBe('a b c')
    backend('a').inflight = 1
    expect(met({ prefer: 'a' })).toBe('b c')
    backend('a').inflight = 0
    pool.block(backend('a'), soft('probe'))
    expect(met({ prefer: 'a' })).toBe('b c')
    expect(met({ prefer: 'b', tags: ['big'] })).toBe('nobody')
  })

  test('meets the one a predicate prefers, asked for every backend until it holds', () => {
    const { pool, backend, met, callOf } = bench(['a', 'b', 'c'])
    const seen: string[] = []
    const isB = ({ id }: Backend, call: Call): boolean => {
      seen.push(`${id} for ${call.method}`)
      return id === 'b'
    }
    expect(pool.pick(callOf({ prefer: isB }))?.id).toBe('b')
    expect(seen).toEqual(['a for GET', 'b for GET'])
    expect(met({ prefer: () => false })).toBe('a b c')
    pool.block(backend('b'), soft('probe'))
    expect(met({ prefer: isB })).toBe('a c')
  })

  test('takes of those a predicate means one that may be picked, though others come first', () => {
    const { pool, backend, met } = bench([endpoint('a', { zone: 'x' }), 'b', endpoint('c', { zone: 'x' })])
    const inX = ({ endpoint: { zone } }: Backend): boolean => zone === 'x'
    expect([met({ prefer: inX }), met({ only: inX })]).toEqual(['a', 'a'])
    pool.block(backend('a'), hard('operator'))
    expect([met({ prefer: inX }), met({ only: inX })]).toEqual(['c', 'c'])
    pool.block(backend('c'), hard('operator'))
    expect([met({ prefer: inX }), met({ only: inX })]).toEqual(['b', 'nobody'])
  })

  test('fails with CONFIG when a predicate gives no boolean, as one that is async', async () => {
    const { send } = bench(['a', 'b'])
    for (const option of ['prefer', 'only'] as const) {
      for (const wanted of [async () => false, () => 1, () => undefined]) {
        const error = await balancerError(send({ [option]: wanted as never }))
        expect(error.code).toBe('CONFIG')
        expect(error.message).toMatch(
          new RegExp(`^the ${option} of a call: expected true or false, got a value of type `),
        )
      }
    }
  })

  test('meets the only one that will do in whatever priority, if it may be picked there', () => {
    const spares = ['c', 'd', 'e'].map((id) => endpoint(id, { priority: 1 }))
    const { pool, backend, eligible, met } = bench(['a', 'b', ...spares], { panicBelow: 0.5 })
    expect([eligible(), met({ only: 'c' }), met({ only: ({ id }) => id === 'd' })]).toEqual(['a b', 'c', 'd'])
    pool.block(backend('c'), soft('probe'))
    expect([met({ only: 'c' }), met({ only: 'd' })]).toEqual(['nobody', 'd'])
    pool.block(backend('d'), soft('probe')) // its priority panics
    expect([met({ only: 'c' }), met({ only: 'd' }), eligible()]).toEqual(['c', 'd', 'a b'])
    pool.block(backend('c'), hard('operator'))
    expect(met({ only: 'c' })).toBe('nobody')
    pool.apply(['a', 'd'].map((id) => endpoint(id, id === 'd' ? { priority: 1, weight: 0 } : {})))
    expect(met({ only: 'd' })).toBe('nobody')
  })

  test('meets only the one that will do, or nobody', () => {
    const { pool, backend, met, callOf } = bench([endpoint('a', { tags: ['big'], maxInflight: 1 }), 'b', 'c'])
    const isA = ({ id }: Backend): boolean => id === 'a'
    const request = { method: 'GET', path: '/', headers: [], body: null }
    for (const only of ['a', isA]) {
      expect([met({ only }), met({ only, prefer: 'b' }), met({ only, tags: ['big'] })]).toEqual(['a', 'a', 'a'])
      expect(met({ only, tags: ['small'] })).toBe('nobody')
      backend('a').inflight = 1
      expect(() => pool.lend(callOf({ only }), request)).toThrow(expect.objectContaining({ code: 'OVERLOADED' }))
      backend('a').inflight = 0
      pool.block(backend('a'), soft('probe'))
      expect(() => pool.lend(callOf({ only }), request)).toThrow(expect.objectContaining({ code: 'NO_BACKEND' }))
      pool.unblock(backend('a'), 'probe')
    }
    expect(met({ only: 'unknown' })).toBe('nobody')
    expect(met({ only: () => false })).toBe('nobody')
  })

  test('stays with the only one over retries', async () => {
    const { pool, callOf, transport } = bench(['a', 'b', 'c'], { play: (send) => send.refuse() })
    const call = callOf({ only: 'c' })
    const request = { method: 'GET', path: '/', headers: [], body: null }
    for (let i = 0; i < 3; i++) await pool.handle(call, request).catch(() => {})
    expect(transport.sends.map(({ to }) => to)).toEqual(['c', 'c', 'c'])
    call.elsewhere = true
    expect((await balancerError(pool.handle(call, request))).code).toBe('NO_BACKEND')
  })

  test('fails with CONFIG when a predicate throws, whatever it is for', async () => {
    const cause = new Error('mine')
    const { send } = bench(['a', 'b'])
    for (const option of ['prefer', 'only'] as const) {
      const wanted = (): never => {
        throw cause
      }
      const error = await balancerError(send({ [option]: wanted }))
      expect([error.code, error.message, error.cause]).toEqual(['CONFIG', `the ${option} of a call failed`, cause])
    }
  })

  test('fails with CONFIG when it is neither an id nor a function', async () => {
    const { send } = bench(['a', 'b'])
    for (const option of ['prefer', 'only']) {
      const error = await balancerError(send({ [option]: 5 }))
      const message = `the ${option} of a call: expected an id or a function, got a value of type number`
      expect([error.code, error.message]).toEqual(['CONFIG', message])
    }
  })

  test('meets who was not tried first, then anyone again', async () => {
    const { pool, callOf, transport } = bench(['a', 'b', 'c'], { play: (send) => send.refuse() })
    const call = callOf({ prefer: 'b' })
    const request = { method: 'GET', path: '/', headers: [], body: null }
    for (let i = 0; i < 4; i++) await pool.handle(call, request).catch(() => {})
    const order = transport.sends.map(({ to }) => to)
    expect(order[0]).toBe('b')
    expect(order.slice(0, 3).sort()).toEqual(['a', 'b', 'c'])
    expect(['a', 'b', 'c']).toContain(order[3])
    expect(transport.sends.map(({ attempt }) => attempt.number)).toEqual([1, 2, 3, 4])
  })

  test('for a call that must go elsewhere meets only who was not tried, and then nobody', async () => {
    const { pool, callOf, transport } = bench(['a', 'b', 'c'], { play: (send) => send.refuse() })
    const call = callOf({ prefer: 'b' })
    call.elsewhere = true
    const request = { method: 'GET', path: '/', headers: [], body: null }
    for (let i = 0; i < 3; i++) await pool.handle(call, request).catch(() => {})
    expect(transport.sends.map(({ to }) => to).sort()).toEqual(['a', 'b', 'c'])
    expect((await balancerError(pool.handle(call, request))).code).toBe('NO_BACKEND')
    expect([transport.sends.length, pool.totals.attempts, pool.inflight]).toEqual([3, 3, 0])
    call.elsewhere = false
    await pool.handle(call, request).catch(() => {})
    expect(transport.sends).toHaveLength(4)
  })

  test('for a call that must go elsewhere passes over who is full, lacks its tags or is refused by a gate', async () => {
    const gate: Gate = { name: 'not d', admit: ({ id }) => id !== 'd', release: () => {} }
    const { pool, callOf, backend, transport } = bench(
      [
        endpoint('a', { tags: ['x'] }),
        'b',
        endpoint('c', { tags: ['x'], maxInflight: 1 }),
        endpoint('d', { tags: ['x'] }),
      ],
      { watchers: [watching(gate)] },
    )
    backend('c').inflight = 1
    const call = callOf({ tags: ['x'] })
    const request = { method: 'GET', path: '/', headers: [], body: null }
    await pool.handle(call, request)
    call.elsewhere = true
    await balancerError(pool.handle(call, request))
    expect(transport.sends.map(({ to }) => to)).toEqual(['a'])
    expect(pool.pick(call)).toBeUndefined()
    call.elsewhere = false
    expect(pool.pick(call)?.id).toBe('a')
  })

  test('asks the strategy at most five times before it looks for itself', () => {
    let asks = 0
    const stubborn: Strategy = {
      name: 'stubborn',
      start: () => ({
        build:
          ({ eligible }) =>
          () => {
            asks++
            return eligible[0]
          },
      }),
    }
    const { pool, callOf, backend } = bench([endpoint('a', { maxInflight: 1 }), 'b'], { strategy: stubborn })
    backend('a').inflight = 1
    const call = callOf()
    expect(pool.pick(call)?.id).toBe('b')
    expect([asks, call.picks]).toEqual([5, 5])
  })

  test('meets somebody although the strategy says nobody', () => {
    const { met } = bench(['a', 'b', 'c'], {
      strategy: { name: 'none', start: () => ({ build: () => () => undefined }) },
    })
    expect(met()).toBe('a b c') // from a random start, so that not always the first is met
  })

  test('tells the strategy the time it is for, so that it needs no clock', async () => {
    const { pool, callOf, clock } = bench(['a'])
    const call = callOf()
    await clock.advance(1_234)
    pool.pick(call)
    expect(call.nowMs).toBe(2_234)
  })
})

describe('a limit of requests in flight', () => {
  test('holds: the next goes elsewhere, and a place is free again with the last byte', async () => {
    const { backend, send, transport, clock } = bench([endpoint('a', { maxInflight: 2 }), 'b'], { play: () => {} })
    const calls = Array.from({ length: 5 }, () => send({ prefer: 'a' }))
    await clock.advance(0)
    expect(transport.sends.map(({ to }) => to)).toEqual(['a', 'a', 'b', 'b', 'b'])
    expect([backend('a').inflight, backend('b').inflight]).toEqual([2, 3])
    transport.sends[0]!.answer()
    await clock.advance(0)
    calls.push(send({ prefer: 'a' }))
    await clock.advance(0)
    expect(transport.last().to).toBe('a')
    for (const it of transport.sends) it.answer()
    await Promise.all(calls)
    expect([backend('a').inflight, backend('b').inflight]).toEqual([0, 0])
  })

  test('reached by everybody is OVERLOADED, and says so', async () => {
    const { send, clock, transport } = bench([endpoint('a', { maxInflight: 1 }), endpoint('b', { maxInflight: 1 })], {
      play: () => {},
    })
    const calls = [send(), send()]
    await clock.advance(0)
    const error = await balancerError(send())
    expect(error).toMatchObject({
      code: 'OVERLOADED',
      reasons: { a: ['1 requests in flight, its limit'], b: ['1 requests in flight, its limit'] },
    })
    for (const it of transport.sends) it.answer()
    await Promise.all(calls)
  })

  test('reached by the only one that may be used is OVERLOADED too', async () => {
    const { pool, backend, send } = bench([endpoint('a', { maxInflight: 1 }), 'b'])
    pool.block(backend('b'), hard('operator'))
    backend('a').inflight = 1
    expect((await balancerError(send())).code).toBe('OVERLOADED')
  })

  test('reached by one the call cannot use anyway is NO_BACKEND', async () => {
    const { backend, send } = bench([endpoint('a', { maxInflight: 1 }), endpoint('b', { tags: ['big'], weight: 0 })])
    backend('a').inflight = 1
    expect((await balancerError(send({ tags: ['big'] }))).code).toBe('NO_BACKEND')
  })
})

describe('nobody to pick', () => {
  test('is told with the reasons of each, and when the first of them ends', async () => {
    const { pool, backend, send, clock } = bench(['a', 'b', endpoint('c', { weight: 0 }), 'd'], { panicBelow: 0 })
    pool.block(backend('a'), { ...soft('outlier', 8_500), detail: '5 failures in a row' })
    pool.block(backend('b'), soft('probe', 4_000))
    pool.block(backend('b'), hard('operator'))
    pool.block(backend('d'), hard('credential'))
    await clock.advance(500)
    const error = await balancerError(send())
    expect(error).toMatchObject({
      code: 'NO_BACKEND',
      message:
        'pool default: no backend may be picked (a: outlier for 7000 ms more: 5 failures in a row; ' +
        'b: probe for 2500 ms more, operator; c: weight 0; d: credential)',
      retryAfterMs: 2_500,
      reasons: {
        a: ['outlier for 7000 ms more: 5 failures in a row'],
        b: ['probe for 2500 ms more', 'operator'],
        c: ['weight 0'],
        d: ['credential'],
      },
    })
  })

  test('is no longer than 0 ms from now when a reason is overdue, and unknown when nobody knows', async () => {
    const { pool, backend, send, clock } = bench(['a'], { panicBelow: 0 })
    pool.block(backend('a'), soft('probe', 1_010))
    await clock.advance(100)
    expect((await balancerError(send())).retryAfterMs).toBe(0)
    pool.block(backend('a'), soft('probe'))
    expect((await balancerError(send())).retryAfterMs).toBeUndefined()
  })

  test('because a gate or the tags refuse is told as such', async () => {
    const { send } = bench(['a'])
    expect((await balancerError(send({ tags: ['x'] }))).reasons).toEqual({ a: ['without all tags of this call'] })
    expect((await balancerError(send({ tags: ['x'], only: 'a' }))).reasons).toEqual({
      a: ['without all tags of this call'],
    })
  })

  test('ends when one ends that the call could use, not another', async () => {
    const { pool, backend, send } = bench([endpoint('a', { tags: ['x'] }), 'b', 'c'], { panicBelow: 0 })
    for (const [id, untilMs] of [
      ['a', 9_000],
      ['b', 5_000],
    ] as const)
      pool.block(backend(id), soft('cooldown', untilMs))
    expect((await balancerError(send({ tags: ['x'] }))).retryAfterMs).toBe(8_000)
    expect((await balancerError(send({ only: 'a' }))).retryAfterMs).toBe(8_000)
    pool.block(backend('c'), hard('operator'))
    expect((await balancerError(send({ only: 'c' }))).retryAfterMs).toBeUndefined()
  })

  test('because no backend has the id asked for is told as such', async () => {
    const { send } = bench(['a'])
    expect(await balancerError(send({ only: 'nope' }))).toMatchObject({
      code: 'NO_BACKEND',
      message: 'pool default: no backend has the id "nope" (a: not meant by this call)',
    })
  })

  test('because there is nobody is told as such', async () => {
    const { send } = bench([])
    expect(await balancerError(send())).toMatchObject({
      code: 'NO_BACKEND',
      message: 'pool default has no backends',
      reasons: {},
    })
  })

  test('makes no attempt', async () => {
    const { pool, send, transport } = bench([])
    await balancerError(send())
    expect([transport.sends.length, pool.totals.attempts]).toEqual([0, 0])
  })
})

describe('gates', () => {
  /** A gate that counts what it lends, and refuses when told. */
  function counting(name: string, refuses: (backend: Backend) => boolean = () => false) {
    const log: string[] = []
    let taken = 0
    const gate: Gate = {
      name,
      admit(backend) {
        if (refuses(backend)) return false
        taken++
        log.push(`took ${backend.id}`)
        return true
      },
      release(backend, attempt) {
        taken--
        log.push(`${attempt === undefined ? 'gave back' : 'released'} ${backend.id}`)
      },
    }
    return { gate, log, taken: () => taken }
  }

  test('that admitted are given back what they took when a later one refuses, the latest first', async () => {
    const order: string[] = []
    const first = counting('first')
    const second = counting('second')
    const third = counting('third', ({ id }) => id === 'a')
    for (const [name, it] of Object.entries({ first, second })) {
      const { release } = it.gate
      it.gate.release = (backend, attempt) => {
        order.push(`${name} ${attempt === undefined ? 'refused' : 'ended'}`)
        release(backend, attempt)
      }
    }
    const { send } = bench(['a', 'b'], { watchers: [first, second, third].map(({ gate }) => watching(gate)) })
    await send({ prefer: 'a' })
    expect(first.log.slice(0, 2)).toEqual(['took a', 'gave back a'])
    expect(first.log.at(-2)).toBe('took b')
    expect(order.slice(0, 2)).toEqual(['second refused', 'first refused'])
    expect([first, second, third].map((it) => it.taken())).toEqual([0, 0, 0])
    expect(third.log).toEqual(['took b', 'released b'])
  })

  test('are released once, at the end of the attempt and not at its head', async () => {
    const counter = counting('count')
    const { send, transport, clock } = bench(['a'], { watchers: [watching(counter.gate)], play: () => {} })
    const response = send()
    await clock.advance(0)
    const body = transport.sends[0]!.head(200)
    const { body: received } = await response
    expect(counter.taken()).toBe(1)
    body.push('x')
    body.end()
    expect(await textOf(received)).toBe('x')
    expect(counter.log).toEqual(['took a', 'released a'])
  })

  test('are released by every kind of end', async () => {
    for (const end of [
      (send: ScriptedSend) => send.answer(503),
      (send: ScriptedSend) => send.refuse(),
      (send: ScriptedSend) => send.head(200).fail(),
      (send: ScriptedSend) => send.answer(999),
      (send: ScriptedSend) => send.attempt.cancel(new Error('stop')),
      (send: ScriptedSend) => (send.attempt.call as LiveCall).cancel(new Error('stop')),
    ]) {
      const counter = counting('count')
      const { send, pool } = bench(['a'], { watchers: [watching(counter.gate)], play: end })
      await send().catch(() => {})
      expect(counter.log).toEqual(['took a', 'released a'])
      expect([pool.inflight, pool.records[0]!.inflight]).toEqual([0, 0])
    }
  })

  test('are released by the attempts they admitted, also after an update has replaced them', async () => {
    const [before, after] = [counting('before'), counting('after')]
    const { reconfigure, send, transport, clock } = bench(['a'], {
      watchers: [watching(before.gate)],
      play: () => {},
    })
    const response = send()
    await clock.advance(0)
    reconfigure({ watchers: [watching(after.gate)] }, endpoints('a'))
    transport.sends[0]!.answer()
    await response
    expect(before.log).toEqual(['took a', 'released a'])
    expect(after.log).toEqual([])
  })

  test('are asked about one backend at a time, and see the call', async () => {
    const asked: string[] = []
    const gate: Gate = {
      name: 'by key',
      admit(backend, call) {
        asked.push(`${backend.id} for ${call.key}`)
        return backend.id === call.key
      },
      release: () => {},
    }
    const { send, transport } = bench(['a', 'b', 'c'], { watchers: [watching(gate)] })
    await send({ key: 'c' })
    expect(transport.sends.map(({ to }) => to)).toEqual(['c'])
    expect(new Set(asked).size).toBe(3)
  })

  test('that refuse everybody make a NO_BACKEND that says so', async () => {
    const { send } = bench(['a'], { watchers: [watching(counting('shut', () => true).gate)] })
    expect((await balancerError(send())).message).toContain('a: not admitted for this call')
  })
})
