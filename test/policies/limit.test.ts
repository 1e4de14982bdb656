import type { Policy, Watcher } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import type { LiveCall } from '../../src/core/call.ts'
import { limitBench, line, QUEUE, states } from '../support/limit-bench.ts'
import { endpoint } from '../support/pool-bench.ts'
import type { ScriptedSend } from '../support/scripted.ts'

describe('a call', () => {
  test('that finds a free slot is sent in the same tick, and no timer is set for it', () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE })
    expect(it.start().now()).toBe('sent')
    expect(it.clock.pending).toBe(0)
  })

  test('keeps its slot until the last byte, not only until the head', async () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE })
    const [first, second] = await line(it, 'default', 'default')
    const body = it.transport.last().head(200)
    await it.settle()
    expect(states(first!, second!)).toBe('200 waits')
    body.end()
    await it.settle()
    expect(states(first!, second!)).toBe('200 sent')
  })

  test('gives its slot back however it ends', async () => {
    const ends: ((send: ScriptedSend, call: LiveCall) => void)[] = [
      (send) => send.answer(500),
      (send) => send.refuse(),
      (send) => send.head(200).fail(),
      (_, call) => call.cancel(new Error('stop')),
    ]
    const it = limitBench({ maxInflight: 1 })
    for (const end of ends) {
      const { call } = it.start()
      await it.settle()
      end(it.transport.last(), call)
      await it.settle()
    }
    expect(it.start().now()).toBe('sent')
  })

  test('that a policy outside sends again needs no second slot', async () => {
    const twice: Policy = {
      name: 'twice',
      scope: 'balancer',
      wrap: (next) => (call, request) => next(call, request).catch(() => next(call, request)),
    }
    const it = limitBench({ maxInflight: 1, queue: QUEUE }, ['a'], { policies: [twice] })
    const first = it.start()
    it.transport.last().refuse()
    await it.settle()
    await it.answer(first)
    expect([first.now(), it.start().now()]).toEqual(['200', 'sent'])
  })

  test('that fails before anything is sent leaves no trace, whether the policy rejects or throws', async () => {
    for (const fail of [() => Promise.reject(new Error('no')), () => void JSON.parse('no')]) {
      const it = limitBench({ maxInflight: 1, queue: QUEUE }, ['a'], {
        policies: [{ name: 'broken', scope: 'pool', wrap: () => fail as () => Promise<never> }],
      })
      for (let i = 0; i < 3; i++) {
        const failed = it.start()
        await it.settle()
        expect(failed.error()).toBeInstanceOf(Error)
      }
      expect(it.pool.totals).toMatchObject({ queued: 0, shed: 0 })
    }
  })

  test('without a queue is refused at once when the limit is reached, and told when to come back', async () => {
    const it = limitBench({ maxInflight: 1 })
    it.start()
    const refused = it.start()
    await it.settle()
    expect(refused.error()).toMatchObject({
      code: 'OVERLOADED',
      message: 'pool default: 1 calls in flight, its limit; there is no queue',
      retryAfterMs: 1_000,
    })
    expect(it.pool.totals).toMatchObject({ queued: 0, shed: 1, attempts: 1 })
  })

  test('without a queue is refused when all backends are full, and told why of each', async () => {
    const it = limitBench({}, [endpoint('a', { maxInflight: 1 })])
    it.start()
    const refused = it.start()
    await it.settle()
    expect(refused.error()).toMatchObject({
      code: 'OVERLOADED',
      message: expect.stringContaining('a: 1 requests in flight, its limit'),
      reasons: { a: ['1 requests in flight, its limit'] },
      retryAfterMs: 1_000,
    })
    expect(it.pool.totals.shed).toBe(1)
  })

  test('does not wait for who will never come: NO_BACKEND is told at once', async () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE }, [])
    const failed = it.start()
    await it.settle()
    expect(failed.now()).toBe('NO_BACKEND')
  })
})

describe('a queue', () => {
  test('serves critical calls first, then the others, in order of arrival', async () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE })
    const [first, ...rest] = await line(it, 'default', 'default', 'critical', 'default', 'critical')
    expect(it.pool.totals.queued).toBe(4)
    const order: number[] = []
    for (let served = first!; order.length < rest.length; ) {
      await it.answer(served)
      served = rest.find(({ now }) => now() === 'sent')!
      order.push(rest.indexOf(served))
    }
    expect(order).toEqual([1, 3, 0, 2])
  })

  test('is not for sheddable calls: they are sent at once or refused at once', async () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE })
    const all = await line(it, 'sheddable', 'sheddable', 'default')
    expect(states(...all)).toBe('sent OVERLOADED waits')
    expect(all[1]!.error()).toMatchObject({ message: expect.stringContaining('sheddable calls do not wait') })
  })

  test('that is full refuses newcomers, but for one of a higher class, which displaces the last of the lowest', async () => {
    const it = limitBench({ maxInflight: 1, queue: { ...QUEUE, size: 2 } })
    const all = await line(it, 'default', 'default', 'default', 'default', 'critical', 'critical', 'critical')
    expect(states(...all)).toBe('sent OVERLOADED OVERLOADED OVERLOADED waits waits OVERLOADED')
    expect(it.pool.totals).toMatchObject({ queued: 4, shed: 4 })
    expect(all[3]!.error()).toMatchObject({ message: expect.stringContaining('2 others wait already') })
    expect(all[2]!.error()).toMatchObject({ message: expect.stringContaining('another took its place') })
  })

  test('displaces the newest when the oldest is served first, and the other way round', async () => {
    for (const [order, want] of [
      ['fifo', 'sent waits OVERLOADED waits'],
      ['lifo', 'sent OVERLOADED waits waits'],
    ] as const) {
      const it = limitBench({ maxInflight: 1, queue: { ...QUEUE, size: 2, order } })
      expect(states(...(await line(it, 'default', 'default', 'default', 'critical')))).toBe(want)
    }
  })

  test('that is adaptive serves the newest first once it has not been empty for overloadMs', async () => {
    const it = limitBench({ maxInflight: 1, queue: { ...QUEUE, order: 'adaptive' } })
    const all = await line(it, 'default', 'default', 'default', 'default')
    await it.answer(all[0]!)
    expect(states(...all)).toBe('200 sent waits waits') // not yet
    await it.clock.advance(110)
    await it.answer(all[1]!)
    expect(states(...all)).toBe('200 200 waits sent')
    await it.answer(all[3]!)
    await it.answer(all[2]!)
    const again = await line(it, 'default', 'default', 'default') // it was empty: from the beginning
    await it.answer(again[0]!)
    expect(states(...again)).toBe('200 sent waits')
  })

  test('refuses who waited timeoutMs, and the others go on', async () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE })
    const [first, early] = await line(it, 'default', 'default')
    await it.clock.advance(500)
    const late = it.start()
    await it.clock.advance(499)
    expect(states(early!, late)).toBe('OVERLOADED waits')
    expect(early!.error()).toMatchObject({
      message: 'pool default: 1 calls in flight, its limit; waited 1000 ms for its turn',
      retryAfterMs: 1_000,
    })
    await it.answer(first!)
    expect(late.now()).toBe('sent')
    expect(it.pool.totals).toMatchObject({ queued: 2, shed: 1 })
  })

  test('is left by a call whose own time is over, which is no shedding', async () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE })
    it.start()
    const short = it.start({}, 50)
    await it.clock.advance(50)
    expect([short.now(), it.pool.totals.shed]).toEqual(['TIMEOUT', 0])
  })

  test('is left in the same tick by a call that is cancelled, with its reason', async () => {
    const it = limitBench({ maxInflight: 1, queue: { ...QUEUE, size: 1 } })
    const [first, gone] = await line(it, 'default', 'default')
    gone!.call.cancel(new Error('stop'))
    const next = it.start() // there is room for one more at once
    await it.settle()
    expect(states(gone!, next)).toBe('stop waits')
    await it.answer(first!)
    expect(next.now()).toBe('sent')
    expect(it.transport.sends).toHaveLength(2)
  })

  test('is not entered by a call that was cancelled before', async () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE })
    it.start()
    const call = it.callOf()
    call.cancel(new Error('stop'))
    await expect(it.send({}, call)).rejects.toThrow('stop')
    expect(it.pool.totals.queued).toBe(0)
  })

  test('takes calls that found all backends full, and lets one go for each attempt that ends', async () => {
    const it = limitBench({ queue: QUEUE }, [endpoint('a', { maxInflight: 1 }), endpoint('b', { maxInflight: 1 })])
    const all = await line(it, 'default', 'default', 'default', 'default')
    expect(states(...all)).toBe('sent sent waits waits')
    await it.answer(all[1]!)
    expect(states(...all)).toBe('sent 200 sent waits')
    await it.answer(all[0]!)
    expect(states(...all)).toBe('200 200 sent sent')
    expect(it.pool.totals).toMatchObject({ queued: 2, shed: 0 })
  })

  test('hears of leases too', async () => {
    const it = limitBench({ queue: QUEUE }, [endpoint('a', { maxInflight: 1 })])
    const lent = it.pool.lend(it.callOf(), { method: 'GET', path: '/', headers: [], body: null })
    const waits = it.start()
    await it.settle()
    expect(waits.now()).toBe('waits')
    lent.settle('ok', undefined)
    expect(waits.now()).toBe('sent') // in the same tick: no newcomer can come first
  })

  test('hears of backends that are added, and of the last that is removed', async () => {
    const it = limitBench({ queue: QUEUE }, [endpoint('a', { maxInflight: 1 })])
    const all = await line(it, 'default', 'default', 'default')
    it.pool.apply([endpoint('a', { maxInflight: 1 }), endpoint('b', { maxInflight: 1 })])
    await it.settle()
    expect(states(...all)).toBe('sent sent waits')
    it.pool.apply([])
    await it.settle()
    expect(states(...all)).toBe('sent sent NO_BACKEND')
  })

  test('finds room of which nobody tells when the next call comes: those who wait go first', async () => {
    const it = limitBench({ queue: QUEUE }, [endpoint('a')])
    it.pool.limit(it.backend('a'), 'test', 1)
    const all = await line(it, 'default', 'default', 'default')
    it.pool.limit(it.backend('a'), 'test', 3)
    const newcomer = it.start()
    await it.settle()
    expect(states(...all, newcomer)).toBe('sent sent sent waits')
  })

  test('does not let calls for full backends hold up those for others', async () => {
    const it = limitBench({ queue: QUEUE }, [
      endpoint('a', { maxInflight: 1, tags: ['gpu'] }),
      endpoint('b', { maxInflight: 1 }),
    ])
    const gpu = { tags: ['gpu'] }
    const busy = [it.start(gpu), it.start()]
    const waiting = [it.start(gpu), it.start(gpu), it.start()]
    await it.settle()
    expect(states(...busy, ...waiting)).toBe('sent sent waits waits waits')
    await it.answer(busy[1]!)
    expect(states(...waiting)).toBe('waits waits sent')
    const plain = it.start()
    await it.settle()
    await it.answer(waiting[2]!)
    expect(states(...waiting, plain)).toBe('waits waits 200 sent')
    await it.answer(busy[0]!)
    expect(states(...waiting)).toBe('sent waits 200')
  })

  test('tells calls apart whose tags only look alike', async () => {
    for (const alike of ['x,y', 'x y']) {
      const it = limitBench({ queue: QUEUE }, [
        endpoint('a', { maxInflight: 1, tags: ['x', 'y'] }),
        endpoint('b', { maxInflight: 1, tags: [alike] }),
      ])
      const all = [it.start({ tags: ['x', 'y'] }), it.start({ tags: ['x', 'y'] })]
      await it.settle()
      const other = it.start({ tags: [alike] })
      await it.settle()
      expect(states(...all, other), alike).toBe('sent waits sent')
    }
  })

  test('does not let calls bound to one full backend hold up the others', async () => {
    const it = limitBench({ queue: QUEUE }, [endpoint('a', { maxInflight: 1 }), endpoint('b', { maxInflight: 1 })])
    const busy = [it.start({ only: 'a' }), it.start({ only: 'b' })]
    const waiting = [it.start({ only: 'a' }), it.start({ only: 'a' }), it.start()]
    await it.settle()
    expect(states(...busy, ...waiting)).toBe('sent sent waits waits waits')
    await it.answer(busy[1]!)
    expect(states(...waiting)).toBe('waits waits sent')
    await it.answer(busy[0]!)
    expect(states(...waiting)).toBe('sent waits sent')
  })

  test('has room again when a call fails before it is sent', async () => {
    let fail = (): void => {}
    const stuck: Policy = {
      name: 'stuck',
      scope: 'pool',
      wrap: (next) => (call, request) =>
        call.key === 'stuck'
          ? new Promise((_, reject) => {
              fail = () => reject(new Error('no'))
            })
          : next(call, request),
    }
    const it = limitBench({ maxInflight: 1, queue: QUEUE }, ['a'], { policies: [stuck] })
    const all = [it.start({ key: 'stuck' }), it.start()]
    await it.settle()
    expect(states(...all)).toBe('waits waits')
    fail()
    await it.settle()
    expect(states(...all)).toBe('no sent')
  })

  test('loses nobody when a call that has left it is cancelled', async () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE })
    const all = await line(it, 'default', 'default', 'default')
    await it.answer(all[0]!)
    all[1]!.call.cancel(new Error('stop'))
    await it.settle()
    expect(states(...all)).toBe('200 stop sent')
  })

  test('is not waited in when there was room again before the call heard that there was none', async () => {
    const it = limitBench({ queue: QUEUE }, [endpoint('a', { maxInflight: 1 })])
    const lent = it.pool.lend(it.callOf(), { method: 'GET', path: '/', headers: [], body: null })
    const call = it.start()
    lent.settle('ok', undefined)
    await it.settle()
    expect(call.now()).toBe('sent')
  })

  test('that is full takes one more when there turns out to be room', async () => {
    const it = limitBench({ queue: { ...QUEUE, size: 1 } })
    it.pool.limit(it.backend('a'), 'test', 1)
    const all = await line(it, 'default', 'default')
    it.pool.limit(it.backend('a'), 'test', 2)
    const newcomer = it.start()
    await it.settle()
    expect(states(...all, newcomer)).toBe('sent sent waits')
  })

  test('is not overtaken while a policy takes its time', async () => {
    const later: Policy = {
      name: 'later',
      scope: 'pool',
      wrap: (next) => async (call, request) => {
        await Promise.resolve()
        return next(call, request)
      },
    }
    const it = limitBench({ queue: QUEUE }, ['a'], { policies: [later] })
    it.pool.limit(it.backend('a'), 'test', 1)
    const all = await line(it, 'default', 'default', 'default')
    it.pool.limit(it.backend('a'), 'test', 3)
    const newcomer = it.start()
    await it.settle()
    expect(newcomer.now()).toBe('waits')
    expect(all[1]!.now()).toBe('sent')
  })

  test('that filled up while one tried in vain gives it its place back, at the cost of the last', async () => {
    let open = true
    const gate = { name: 'gate', admit: () => open, release: () => {} }
    const watcher: Watcher = { name: 'gate', start: () => ({ gate, stop: () => {} }) }
    const ends = [endpoint('a', { maxInflight: 2 }), endpoint('b', { maxInflight: 1 })]
    const it = limitBench({ maxInflight: 3, queue: { ...QUEUE, size: 1 } }, ends, { watchers: [watcher] })
    const all = await line(it, 'default', 'default', 'default', 'default')
    open = false
    const onA = it.transport.sends.find(({ to }) => to === 'a')!
    const body = onA.head(200)
    await it.settle()
    body.end() // woken in this tick, and it will hear that there is nobody in the next
    const newcomer = it.start()
    await it.settle()
    expect(states(all[3]!, newcomer)).toBe('waits OVERLOADED')
  })

  test('takes a call that was woken in vain back to its place, with the time it had left', async () => {
    let open = true
    const gate = { name: 'gate', admit: () => open, release: () => {} }
    const watcher: Watcher = { name: 'gate', start: () => ({ gate, stop: () => {} }) }
    const ends = [endpoint('a', { maxInflight: 2 }), endpoint('b', { maxInflight: 1 })]
    const it = limitBench({ queue: QUEUE }, ends, { watchers: [watcher] })
    const all = await line(it, 'default', 'default', 'default', 'default', 'default')
    expect(states(...all)).toBe('sent sent sent waits waits')
    open = false
    await it.clock.advance(100)
    const onA = all.filter(({ call }) => call.attempts[0]?.backend.id === 'a')
    await it.answer(onA[0]!) // a has room, b is full; the gate lets nobody in
    expect(states(...all.slice(3))).toBe('waits waits')
    open = true
    await it.answer(onA[1]!)
    expect(states(...all.slice(3))).toBe('sent sent') // there is room for both
    expect(it.transport.sends.slice(3).map(({ attempt }) => attempt.call)).toEqual([all[3]!.call, all[4]!.call])
    open = false
    const late = await line(it, 'default')
    await it.clock.advance(500)
    await it.answer(all[3]!)
    await it.clock.advance(499)
    expect(states(...late)).toBe('OVERLOADED')
    expect(it.pool.totals).toMatchObject({ queued: 3, shed: 1 })
  })
})
