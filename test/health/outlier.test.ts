import type { Reason } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import type { BalancerBenchOptions } from '../support/balancer-bench.ts'
import { bad, good, outlierBench, passive } from '../support/outlier-bench.ts'
import type { Play } from '../support/plays.ts'

describe('failures in a row', () => {
  test('eject a backend at the fifth, by name and with a reason that says so', async () => {
    const { hit, scripts, state, balancer } = outlierBench()
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
      const { hit, scripts, state } = outlierBench(passive({ consecutive }))
      scripts.set('a', bad)
      await hit('a', failures - 1)
      expect(state('a')).toBe('up')
      await hit('a')
      expect(state('a')).toBe(consecutive === 0 ? 'up' : 'blocked')
    }
  })

  test('are broken by one success: the run begins anew', async () => {
    const { hit, scripts, state } = outlierBench()
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
    const { hit, scripts, state } = outlierBench()
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
      const { hit, scripts, state } = outlierBench(passive({ consecutive: 1 }))
      scripts.set('a', kind)
      await hit('a', 10)
      expect(state('a'), String(kind)).toBe('up')
    }
  })

  test('are not broken by what says nothing about health', async () => {
    const { hit, scripts, state } = outlierBench()
    scripts.set('a', bad)
    await hit('a', 4)
    scripts.set('a', (send) => send.answer(429))
    await hit('a', 3)
    scripts.set('a', bad)
    await hit('a')
    expect(state('a')).toBe('blocked')
  })

  test('count per backend', async () => {
    const { hit, scripts, state } = outlierBench()
    for (const id of 'abc') scripts.set(id, bad)
    for (let i = 0; i < 4; i++) for (const id of 'abc') await hit(id)
    expect([...'abc'].map(state)).toEqual(['up', 'up', 'up'])
  })
})

describe('an ejection', () => {
  test('lasts the base time the first time, ± 10 %: 300 seeds, mean within 1 %', async () => {
    const times: number[] = []
    for (let seed = 1; seed <= 300; seed++) {
      const { hit, scripts, outFor } = outlierBench({ seed, ...passive({ consecutive: 1, baseMs: 1_000 }) })
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
      const { hit, scripts, outFor, back, state } = outlierBench({ seed, ...passive({ baseMs: 1_000, maxMs: 3_500 }) })
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

  test('of a base of 30 s lasts 30, 60, 90, ... 300, 300 s, exactly so without jitter', async () => {
    const settings = { consecutive: 1, baseMs: 30_000, maxMs: 300_000, jitter: 0 }
    const { hit, scripts, outFor, back } = outlierBench(passive(settings))
    scripts.set('a', bad)
    const seconds: number[] = []
    for (let i = 0; i < 12; i++) {
      await hit('a')
      seconds.push(outFor('a') / 1_000)
      await back('a')
    }
    expect(seconds).toEqual([30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300])
  })

  test('never lasts longer than the most, but even then not for everybody as long: 100 seeds', async () => {
    const times: number[] = []
    for (let seed = 1; seed <= 100; seed++) {
      const settings = { consecutive: 1, baseMs: 600, maxMs: 1_000, jitter: 0.1 }
      const { hit, scripts, outFor, back } = outlierBench({ seed, ...passive(settings) })
      scripts.set('a', bad)
      await hit('a')
      await back('a')
      await hit('a')
      times.push(outFor('a'))
    }
    expect(Math.max(...times)).toBeCloseTo(1_000, 6)
    expect(Math.min(...times)).toBeGreaterThanOrEqual(900)
    expect(new Set(times).size).toBeGreaterThan(25)
  })

  test('ends by itself, at the time it told, without a request', async () => {
    const { hit, scripts, outFor, state, clock, events } = outlierBench()
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
    const { hit, scripts, call, transport } = outlierBench()
    scripts.set('a', bad)
    await hit('a', 5)
    const before = transport.sends.length
    for (let i = 0; i < 30; i++) await call()
    expect(new Set(transport.sends.slice(before).map(({ to }) => to))).toEqual(new Set(['b', 'c']))
  })

  test('is forgiven step by step: each 10 s since the return take one off the count', async () => {
    for (const [waitMs, times] of [
      [0, 4],
      [9_990, 4],
      [10_010, 3],
      [20_010, 2],
      [30_010, 1],
      [300_010, 1],
    ] as const) {
      const { hit, scripts, outFor, back, clock } = outlierBench(passive({ baseMs: 1_000 }))
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

describe('forgiveness', () => {
  const exact = { consecutive: 1, baseMs: 1_000, jitter: 0 }

  test('takes one off per interval, as long as that is configured to be', async () => {
    for (const [waitMs, times] of [
      [1_999, 4],
      [2_000, 3],
      [4_000, 2],
      [6_000, 1],
    ] as const) {
      const { hit, scripts, outFor, back, clock } = outlierBench(passive({ ...exact, intervalMs: 2_000 }))
      scripts.set('a', bad)
      for (let i = 0; i < 3; i++) {
        await hit('a')
        await back('a')
      }
      await clock.advance(waitMs)
      await hit('a')
      expect(outFor('a'), `after ${waitMs} ms`).toBe(times * 1_000)
    }
  })

  test('does not take longer the longer it was broken: only ejections that lengthen the next one count', async () => {
    const { hit, scripts, outFor, back, clock } = outlierBench(passive({ ...exact, maxMs: 3_000, intervalMs: 2_000 }))
    scripts.set('a', bad)
    for (let i = 0; i < 20; i++) {
      await hit('a')
      await back('a')
    }
    await clock.advance(4_000)
    await hit('a')
    expect(outFor('a')).toBe(2_000)
  })
})

describe('the share that is out at once', () => {
  const ids = (n: number): string => 'abcdefghijklmnopqrstuvwxyz'.slice(0, n)

  /** Lets every backend fail as often as it takes, and counts who is out. */
  async function allFail(n: number, options: BalancerBenchOptions): Promise<number> {
    const { hit, scripts, state } = outlierBench({ ids: ids(n), ...options })
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
    const { hit, scripts, state } = outlierBench({
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
    const { hit, scripts, state, back } = outlierBench({ ids: 'ab' })
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
    const { hit, scripts, state, back } = outlierBench({ ids: 'abc' })
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

  test('counts who is out once, though panic sends to it: what it answers then says nothing', async () => {
    for (const kind of [good, bad]) {
      const { hit, scripts, events } = outlierBench({ ids: 'abcd', ...passive({ maxShare: 1 }) })
      for (const id of 'abc') scripts.set(id, bad)
      for (const id of 'abc') await hit(id, 5)
      scripts.set('a', kind)
      await hit('a')
      scripts.set('a', bad)
      await hit('a', 10)
      expect(events()).toEqual(['a out', 'b out', 'c out'])
    }
  })

  test('may end in panic, which sends to the ejected ones too', async () => {
    const { hit, scripts, call, transport, balancer } = outlierBench({ ids: 'abcd', ...passive({ maxShare: 1 }) })
    for (const id of 'abc') scripts.set(id, bad)
    for (const id of 'abc') await hit(id, 5)
    expect(balancer.stats().pools.default!.panic).toBe(true)
    const before = transport.sends.length
    for (let i = 0; i < 20; i++) await call()
    expect(new Set(transport.sends.slice(before).map(({ to }) => to)).size).toBe(4)
  })
})
