import type { Backend, Reason } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { type BalancerBench, type BalancerBenchOptions, balancerBench } from '../support/balancer-bench.ts'
import type { ScriptedSend } from '../support/scripted.ts'

type Play = (send: ScriptedSend) => void

const good: Play = (send) => send.answer()
const bad: Play = (send) => send.answer(500)

interface Bench extends BalancerBench {
  /** What each backend does from now on; default: answers 200. */
  readonly scripts: Map<string, Play>
  /** One request to a backend; rejections are part of the game. */
  hit(id: string, times?: number): Promise<void>
  state(id: string): string
  /** How long it is out for, ms; fails when it is not. */
  outFor(id: string): number
  /** Moves time to where its ejection ends. */
  back(id: string): Promise<void>
  events(): string[]
}

/** A balancer without retries: one call, one attempt. */
function bench(options: BalancerBenchOptions = {}): Bench {
  const scripts = new Map<string, Play>()
  const reasons = new Map<string, Reason>()
  const events: string[] = []
  const it = balancerBench((send) => (scripts.get(send.to) ?? good)(send), { retry: { attempts: 1 }, ...options })
  it.balancer.on('blocked', (backend: Backend, reason: Reason) => {
    events.push(`${backend.id} out`)
    reasons.set(backend.id, reason)
  })
  it.balancer.on('unblocked', (backend: Backend) => {
    events.push(`${backend.id} back`)
    reasons.delete(backend.id)
  })
  const outFor = (id: string): number => reasons.get(id)!.untilMs! - it.clock.now()
  return {
    ...it,
    scripts,
    outFor,
    events: () => events,
    async hit(id, times = 1) {
      for (let i = 0; i < times; i++) await it.call({}, { prefer: id })
    },
    state: (id) => it.balancer.stats().pools.default!.backends.find((backend) => backend.id === id)!.state,
    back: (id) => it.clock.advance(outFor(id)),
  }
}

const passive = (settings: object): BalancerBenchOptions => ({ health: { passive: settings } })

describe('failures in a row', () => {
  test('eject a backend at the fifth, by name and with a reason that says so', async () => {
    const { hit, scripts, state, balancer } = bench()
    const told: [id: string, reason: Reason][] = []
    balancer.on('blocked', (backend, reason) => void told.push([backend.id, reason]))
    scripts.set('a', bad)
    await hit('a', 4)
    expect(state('a')).toBe('up')
    await hit('a')
    expect(state('a')).toBe('blocked')
    expect(told).toEqual([
      ['a', { by: 'outlier', hard: false, untilMs: expect.any(Number), detail: '5 failures in a row' }],
    ])
  })

  test('are as many as configured, and 0 is never', async () => {
    for (const [consecutive, failures] of [
      [1, 1],
      [3, 3],
      [0, 50],
    ] as const) {
      const { hit, scripts, state } = bench(passive({ consecutive }))
      scripts.set('a', bad)
      await hit('a', failures - 1)
      expect(state('a')).toBe('up')
      await hit('a')
      expect(state('a')).toBe(consecutive === 0 ? 'up' : 'blocked')
    }
  })

  test('are broken by one success: the run begins anew', async () => {
    const { hit, scripts, state } = bench()
    for (let round = 0; round < 4; round++) {
      scripts.set('a', bad)
      await hit('a', 4)
      scripts.set('a', round % 2 === 0 ? good : (send) => send.answer(404)) // it works: the client was wrong
      await hit('a')
    }
    expect(state('a')).toBe('up')
  })

  test('may be of any kind that is the backend’s fault', async () => {
    const kinds: Play[] = [
      (send) => send.answer(503),
      (send) => send.refuse(),
      (send) => send.fail({ phase: 'tls' }),
      (send) => {
        send.connect()
        send.fail()
      },
      (send) => send.answer(999),
    ]
    const { hit, scripts, state } = bench()
    for (const kind of kinds) {
      expect(state('a')).toBe('up')
      scripts.set('a', kind)
      await hit('a')
    }
    expect(state('a')).toBe('blocked')
  })

  test('are not made of refusals, limits, aborts, our own troubles or old connections', async () => {
    const kinds: Play[] = [
      ...[400, 401, 403, 404, 408, 429].map(
        (code): Play =>
          (send) =>
            send.answer(code),
      ),
      (send) => send.attempt.cancel(new Error('stop')),
      (send) => send.attempt.call.cancel(new Error('stop')),
      (send) => send.fail({ phase: 'wait' }),
      (send) => send.fail({ phase: 'connect', code: 'EMFILE' }),
      (send) => send.fail({ phase: 'head', code: 'REQUEST_BODY' }),
      (send) => send.stale(),
    ]
    for (const kind of kinds) {
      const { hit, scripts, state } = bench(passive({ consecutive: 1 }))
      scripts.set('a', kind)
      await hit('a', 10)
      expect(state('a'), String(kind)).toBe('up')
    }
  })

  test('are not broken by what says nothing about health', async () => {
    const { hit, scripts, state } = bench()
    scripts.set('a', bad)
    await hit('a', 4)
    scripts.set('a', (send) => send.answer(429))
    await hit('a', 3)
    scripts.set('a', bad)
    await hit('a')
    expect(state('a')).toBe('blocked')
  })

  test('count per backend', async () => {
    const { hit, scripts, state } = bench()
    for (const id of 'abc') scripts.set(id, bad)
    for (let i = 0; i < 4; i++) for (const id of 'abc') await hit(id)
    expect([...'abc'].map(state)).toEqual(['up', 'up', 'up'])
  })
})

describe('an ejection', () => {
  test('lasts the base time the first time, ± 10 %: 300 seeds, mean within 1 %', async () => {
    const times: number[] = []
    for (let seed = 1; seed <= 300; seed++) {
      const { hit, scripts, outFor } = bench({ seed, ...passive({ consecutive: 1, baseMs: 1_000 }) })
      scripts.set('a', bad)
      await hit('a')
      times.push(outFor('a'))
    }
    expect(Math.min(...times)).toBeGreaterThanOrEqual(900)
    expect(Math.max(...times)).toBeLessThanOrEqual(1_100)
    expect(Math.min(...times)).toBeLessThan(910)
    expect(Math.max(...times)).toBeGreaterThan(1_090)
    const mean = times.reduce((sum, ms) => sum + ms, 0) / times.length
    expect(Math.abs(mean / 1_000 - 1)).toBeLessThan(0.01)
  })

  test('lasts n times the base the n-th time, up to the most, ± 10 %; a failed trial ejects at once', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const { hit, scripts, outFor, back, state } = bench({ seed, ...passive({ baseMs: 1_000, maxMs: 3_500 }) })
      scripts.set('a', bad)
      await hit('a', 5)
      for (const wantMs of [1_000, 2_000, 3_000, 3_500, 3_500]) {
        expect(state('a')).toBe('blocked')
        expect(Math.abs(outFor('a') / wantMs - 1)).toBeLessThanOrEqual(0.1)
        await back('a')
        expect(state('a')).toBe('up')
        await hit('a') // one failure is enough now
      }
    }
  })

  test('ends by itself, at the time it told, without a request', async () => {
    const { hit, scripts, outFor, state, clock, events } = bench()
    scripts.set('a', bad)
    await hit('a', 5)
    const ms = outFor('a')
    await clock.advance(ms - 1)
    expect(state('a')).toBe('blocked')
    await clock.advance(1)
    expect(state('a')).toBe('up')
    expect(events()).toEqual(['a out', 'a back'])
  })

  test('keeps all traffic away', async () => {
    const { hit, scripts, call, transport } = bench()
    scripts.set('a', bad)
    await hit('a', 5)
    const before = transport.sends.length
    for (let i = 0; i < 30; i++) await call()
    expect(new Set(transport.sends.slice(before).map(({ to }) => to))).toEqual(new Set(['b', 'c']))
  })

  test('is forgiven step by step: each 10 s since the return take one off the count', async () => {
    for (const [waitMs, times] of [
      [0, 4],
      [9_999, 4],
      [10_000, 3],
      [20_000, 2],
      [30_000, 1],
      [300_000, 1],
    ] as const) {
      const { hit, scripts, outFor, back, clock } = bench(passive({ baseMs: 1_000 }))
      scripts.set('a', bad)
      await hit('a', 5)
      for (let i = 0; i < 2; i++) {
        await back('a')
        await hit('a')
      }
      await back('a') // out three times, 1 + 2 + 3 s
      scripts.set('a', good)
      await hit('a')
      await clock.advance(waitMs)
      scripts.set('a', bad)
      await hit('a', 5)
      expect(Math.abs(outFor('a') / (times * 1_000) - 1), `after ${waitMs} ms`).toBeLessThanOrEqual(0.1)
    }
  })
})

describe('the share that is out at once', () => {
  const ids = (n: number): string => 'abcdefghijklmnopqrstuvwxyz'.slice(0, n)

  /** Lets every backend fail as often as it takes, and counts who is out. */
  async function allFail(n: number, options: BalancerBenchOptions): Promise<number> {
    const { hit, scripts, state } = bench({ ids: ids(n), ...options })
    for (const id of ids(n)) scripts.set(id, bad)
    for (const id of ids(n)) await hit(id, 5)
    return [...ids(n)].filter((id) => state(id) === 'blocked').length
  }

  test('is half of a small pool, a tenth of one of ten or more, and always one', async () => {
    for (const [n, out] of [
      [2, 1],
      [3, 1],
      [4, 2],
      [5, 2],
      [9, 4],
      [10, 1],
      [19, 1],
      [20, 2],
      [26, 2],
    ] as const) {
      expect(await allFail(n, {}), `of ${n}`).toBe(out)
    }
  })

  test('is as configured, and always one', async () => {
    for (const [n, maxShare, out] of [
      [3, 0.1, 1],
      [10, 0.35, 3],
      [4, 0.75, 3],
    ] as const) {
      expect(await allFail(n, passive({ maxShare })), `${maxShare} of ${n}`).toBe(out)
    }
  })

  test('never includes the last healthy one while panic is on; with panic off it may', async () => {
    expect(await allFail(3, passive({ maxShare: 1 }))).toBe(2)
    expect(await allFail(1, passive({ maxShare: 1 }))).toBe(0)
    expect(await allFail(3, { health: { passive: { maxShare: 1 }, panicBelow: 0 } })).toBe(3)
    expect(await allFail(1, { health: { panicBelow: 0 } })).toBe(1)
  })

  test('does not take a drained backend for a healthy one', async () => {
    const { hit, scripts, state } = bench({
      backends: [
        { url: 'http://a.test', id: 'a' },
        { url: 'http://b.test', id: 'b', weight: 0 },
      ],
    })
    scripts.set('a', bad)
    await hit('a', 10)
    expect(state('a')).toBe('up')
  })

  test('does not take one that has yet to prove itself for a healthy one', async () => {
    const { hit, scripts, state, back } = bench({ ids: 'ab' })
    for (const id of 'ab') scripts.set(id, bad)
    await hit('a', 5)
    await back('a') // by itself it takes one request at a time: not enough for everybody
    await hit('b', 5)
    expect([state('a'), state('b')]).toEqual(['up', 'up'])
    scripts.set('a', good)
    await hit('a')
    await hit('b')
    expect([state('a'), state('b')]).toEqual(['up', 'blocked'])
  })

  test('leaves a run as it is when it is reached: the next failure after a place is free ejects', async () => {
    const { hit, scripts, state, back } = bench({ ids: 'abc' })
    scripts.set('a', bad)
    scripts.set('b', bad)
    await hit('a', 5)
    await hit('b', 9)
    expect([state('a'), state('b')]).toEqual(['blocked', 'up'])
    scripts.set('a', good)
    await back('a')
    await hit('a')
    await hit('b')
    expect([state('a'), state('b')]).toEqual(['up', 'blocked'])
  })

  test('may end in panic, which sends to the ejected ones too', async () => {
    const { hit, scripts, call, transport, balancer } = bench({ ids: 'abcd', ...passive({ maxShare: 1 }) })
    for (const id of 'abc') scripts.set(id, bad)
    for (const id of 'abc') await hit(id, 5)
    expect(balancer.stats().pools.default!.panic).toBe(true)
    const before = transport.sends.length
    for (let i = 0; i < 20; i++) await call()
    expect(new Set(transport.sends.slice(before).map(({ to }) => to)).size).toBe(4)
  })
})

describe('re-entry', () => {
  /** `a` was out and is back, not yet proved; it leaves what comes open. */
  async function returned(options: BalancerBenchOptions = {}): Promise<Bench> {
    const it = bench(options)
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.back('a')
    it.scripts.set('a', () => {})
    return it
  }
  const toA = ({ transport }: Bench): ScriptedSend[] => transport.sends.filter(({ to }) => to === 'a').slice(5)

  test('is by exactly one real request: the others go elsewhere while it is under way', async () => {
    const it = await returned()
    for (let i = 0; i < 30; i++) it.start({}, { prefer: 'a' })
    await it.clock.advance(0)
    expect(toA(it)).toHaveLength(1)
    await it.clock.advance(20_000)
    for (let i = 0; i < 30; i++) it.start({}, { prefer: 'a' })
    expect(toA(it)).toHaveLength(1)
  })

  test('is complete with the first success', async () => {
    const it = await returned()
    const { ended } = it.start({}, { prefer: 'a' })
    toA(it)[0]!.answer()
    await it.until(ended)
    for (let i = 0; i < 10; i++) it.start({}, { prefer: 'a' })
    expect(toA(it)).toHaveLength(11)
  })

  test('needs the whole answer: a head alone proves nothing', async () => {
    const it = await returned({ retry: { attempts: 1, holdBytes: 0 } })
    const { ended } = it.start({}, { prefer: 'a' })
    const body = toA(it)[0]!.head(200)
    await it.until(ended)
    it.start({}, { prefer: 'a' })
    expect(toA(it)).toHaveLength(1)
    body.fail()
    expect(it.state('a')).toBe('blocked')
  })

  test('goes on, one at a time, after an outcome that proves nothing', async () => {
    const it = await returned()
    for (let i = 1; i <= 3; i++) {
      const { call, ended } = it.start({}, { prefer: 'a' })
      it.start({}, { prefer: 'a' })
      expect(toA(it)).toHaveLength(i)
      if (i === 2) call.cancel(new Error('stop'))
      else toA(it).at(-1)!.answer(429)
      await it.until(ended)
      expect(it.state('a')).toBe('up')
    }
  })

  test('fails with the first failure: it is out again at once, for longer', async () => {
    const it = await returned(passive({ baseMs: 1_000 }))
    const { ended } = it.start({}, { prefer: 'a' })
    toA(it)[0]!.refuse()
    await it.until(ended)
    expect(it.state('a')).toBe('blocked')
    expect(Math.abs(it.outFor('a') / 2_000 - 1)).toBeLessThanOrEqual(0.1)
  })

  test('takes five failures in a row again, once it is complete', async () => {
    const it = await returned()
    it.scripts.set('a', good)
    await it.hit('a')
    it.scripts.set('a', bad)
    await it.hit('a', 4)
    expect(it.state('a')).toBe('up')
    await it.hit('a')
    expect(it.state('a')).toBe('blocked')
  })

  test('gives its place back when a later gate refuses the request', async () => {
    let open = false
    const shut = {
      name: 'shut',
      admit: (backend: Backend) => open || backend.id !== 'a',
      release: () => {},
    }
    const it = bench({ watchers: [{ name: 'shut', start: () => ({ gate: shut, stop: () => {} }) }] })
    open = true
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    open = false
    await it.back('a')
    await it.hit('a', 3)
    open = true
    it.scripts.set('a', good)
    await it.hit('a')
    expect(it.transport.last().to).toBe('a')
  })

  test('is not decided by requests from before the ejection, whatever they come to', async () => {
    const it = bench()
    it.scripts.set('a', () => {})
    for (let i = 0; i < 16; i++) it.start({}, { prefer: 'a' })
    await it.clock.advance(0)
    const old = [...it.transport.sends]
    const end = async (n: number, how: Play): Promise<void> => {
      for (const send of old.splice(0, n)) how(send)
      await it.clock.advance(0)
    }
    await end(5, bad)
    expect(it.state('a')).toBe('blocked')
    await end(4, bad)
    await it.back('a')
    await end(5, bad) // old news: it was out for that
    expect([it.state('a'), it.events().length]).toEqual(['up', 2])
    await end(1, good)
    const before = it.transport.sends.length
    for (let i = 0; i < 5; i++) it.start({}, { prefer: 'a' })
    expect(it.transport.sends.slice(before).filter(({ to }) => to === 'a')).toHaveLength(1) // still on trial
    await end(1, good)
    it.start({}, { prefer: 'a' })
    expect(it.transport.sends.slice(before).filter(({ to }) => to === 'a')).toHaveLength(1)
  })
})

describe('over updates', () => {
  const config = (it: Bench, options: object = {}): object => ({
    backends: [...'abc'].map((id) => ({ url: `http://${id}.test`, id })),
    strategy: 'round-robin',
    transport: it.transport,
    retry: { attempts: 1 },
    ...options,
  })

  test('with the same settings, what is known stays: runs, ejections, trials', async () => {
    const it = bench()
    it.scripts.set('a', bad)
    await it.hit('a', 4)
    await it.balancer.update(config(it))
    await it.hit('a')
    expect(it.state('a')).toBe('blocked')
    await it.balancer.update(config(it))
    expect(it.state('a')).toBe('blocked')
    await it.back('a')
    await it.balancer.update(config(it))
    await it.hit('a')
    expect([it.state('a'), it.events().join()]).toEqual(['blocked', 'a out,a back,a out'])
  })

  test('that turn it off, everybody is let back in, and nobody is put out again', async () => {
    const it = bench()
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.balancer.update(config(it, { health: { passive: false } }))
    expect([it.state('a'), it.events().join()]).toEqual(['up', 'a out,a back'])
    await it.hit('a', 20)
    expect(it.state('a')).toBe('up')
    await it.clock.advance(6_000)
    expect(it.clock.pending).toBe(0)
  })

  test('with other settings, it starts anew', async () => {
    const it = bench()
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.balancer.update(config(it, passive({ consecutive: 2 })))
    expect(it.state('a')).toBe('up')
    await it.hit('a', 2)
    expect(it.state('a')).toBe('blocked')
  })

  test('that remove an ejected backend, it is forgotten: no event, and no timer in the end', async () => {
    const it = bench()
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    const backends = [...'bc'].map((id) => ({ url: `http://${id}.test`, id }))
    await it.balancer.update(config(it, { backends }))
    await it.clock.advance(400_000)
    expect(it.events()).toEqual(['a out'])
    expect(it.clock.pending).toBe(0)
  })

  test('a close leaves no timer, and requests that fail after it put nobody out', async () => {
    const it = bench(passive({ consecutive: 1 }))
    it.scripts.set('a', bad)
    await it.hit('a')
    it.scripts.set('b', () => {})
    it.start({}, { prefer: 'b' })
    const closed = it.balancer.close({ drainMs: 1_000 })
    await it.clock.advance(0)
    it.transport.last().answer(500)
    await closed
    expect(it.clock.pending).toBe(0)
  })
})
