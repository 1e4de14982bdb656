import { type BreakerOptions, type Clock, circuitBreaker, type Reason } from 'evenkeel'
import { type ManualClock, manualClock } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { type BreakerBench, breakerBench, QUICK } from '../support/breaker-bench.ts'
import { bad, good } from '../support/outlier-bench.ts'
import type { Play } from '../support/plays.ts'
import { balancerError } from '../support/scripted.ts'

/** `a` has just opened. */
async function opened(settings: BreakerOptions = QUICK, options = {}): Promise<BreakerBench> {
  const it = breakerBench(settings, options)
  it.scripts.set('a', bad)
  await it.hit('a', 3)
  expect(it.phase('a')).toBe('open')
  return it
}

describe('closed', () => {
  test('opens when the rule says so, with a soft reason that says why and until when', async () => {
    const it = breakerBench()
    const told: [id: string, reason: Reason][] = []
    it.balancer.on('blocked', (backend, reason) => void told.push([backend.id, reason]))
    it.scripts.set('a', bad)
    await it.hit('a', 2)
    expect([it.phase('a'), told]).toEqual(['closed', []])
    await it.hit('a')
    const untilMs = it.clock.now() + 1_000
    expect(told).toEqual([['a', { by: 'breaker', hard: false, untilMs, detail: '3 failures in a row' }]])
    expect([it.phase('a'), it.phase('b'), it.state('a')]).toEqual(['open', 'closed', 'blocked'])
  })

  test.each([
    ['count', { trip: 'count', size: 10 }, 10, '10 of the last 10 requests failed'],
    ['window', { trip: 'window', minRequests: 8 }, 8, '8 of 8 requests failed within 30000 ms'],
    ['the default', {}, 20, '20 of 20 requests failed within 30000 ms'],
  ] as const)('by %s', async (_, settings, failures, detail) => {
    const it = breakerBench(settings)
    let why: string | undefined
    it.balancer.on('blocked', (_backend, reason) => {
      why = reason.detail
    })
    it.scripts.set('a', bad)
    await it.hit('a', failures - 1)
    expect(it.phase('a')).toBe('closed')
    await it.hit('a')
    expect([it.phase('a'), why]).toEqual(['open', detail])
    expect(Math.abs(it.outFor('a') / 5_000 - 1)).toBeLessThanOrEqual(0.2)
  })

  test('outcomes that say nothing of its health count neither for nor against it', async () => {
    const nothing: Play[] = [
      (send) => send.answer(429),
      (send) => send.answer(401),
      (send) => send.attempt.cancel(new Error('stop')),
      (send) => send.attempt.call.cancel(new Error('stop')),
      (send) => send.fail({ phase: 'wait' }),
      (send) => send.fail({ phase: 'connect', code: 'EMFILE' }),
      (send) => send.stale(),
    ]
    const it = breakerBench()
    for (const play of [...nothing, bad, ...nothing, bad, ...nothing]) {
      it.scripts.set('a', play)
      await it.hit('a')
    }
    expect(it.phase('a')).toBe('closed')
    it.scripts.set('a', bad)
    await it.hit('a')
    expect(it.phase('a')).toBe('open')
  })

  test('what a class means here decides: the pool’s table, not ours', async () => {
    const it = breakerBench(QUICK, { classes: { 'rate-limited': { health: 'failure' } } })
    it.scripts.set('a', (send) => send.answer(429))
    await it.hit('a', 3)
    expect(it.phase('a')).toBe('open')
  })

  test('hour-old failures never count in the window', async () => {
    const it = breakerBench({ trip: 'window' })
    it.scripts.set('a', bad)
    await it.hit('a', 19)
    await it.clock.advance(3_600_000)
    await it.hit('a', 19)
    expect(it.phase('a')).toBe('closed')
    await it.hit('a')
    expect(it.phase('a')).toBe('open')
  })
})

describe('open', () => {
  test('sends nothing there until its time is over, then it is half-open without a request', async () => {
    const it = await opened()
    for (let i = 0; i < 30; i++) it.start({}, { prefer: 'a' })
    expect(it.sentTo('a')).toHaveLength(3)
    await it.clock.advance(999)
    expect([it.phase('a'), it.state('a')]).toEqual(['open', 'blocked'])
    await it.clock.advance(1)
    expect([it.phase('a'), it.state('a')]).toEqual(['half-open', 'up'])
    await it.clock.advance(3_600_000) // it waits for traffic
    expect([it.phase('a'), it.sentTo('a').length, it.clock.pending]).toEqual(['half-open', 3, 0])
  })

  test('panic does not reopen it: with everybody open the caller is told who, why and until when', async () => {
    const it = breakerBench()
    for (const id of 'abc') it.scripts.set(id, bad)
    for (const id of 'abc') {
      await it.hit(id, 3)
      await it.clock.advance(100)
    }
    expect(it.balancer.stats().pools.default!.panic).toBe(true)
    const before = it.transport.sends.length
    const error = await balancerError(it.balancer.fetch('http://x.test/').then(() => {}))
    expect([error.code, it.transport.sends.length - before]).toEqual(['NO_BACKEND', 0])
    expect(error.reasons!.a).toEqual(['breaker for 700 ms more: 3 failures in a row'])
    expect(error.retryAfterMs).toBe(700)
  })

  test('lasts twice as long each time the trials fail, up to the cap; a success of all of them starts anew', async () => {
    const it = await opened()
    const times: number[] = []
    for (let i = 0; i < 6; i++) {
      times.push(it.outFor('a'))
      await it.back('a')
      await it.hit('a')
    }
    expect(times).toEqual([1_000, 2_000, 4_000, 8_000, 8_000, 8_000])
    await it.back('a')
    it.scripts.set('a', good)
    await it.hit('a', 3)
    it.scripts.set('a', bad)
    await it.hit('a', 3)
    expect(it.outFor('a')).toBe(1_000)
  })

  test('times are shifted either way, by at most the jitter, above the cap as well', async () => {
    const shares: number[] = []
    for (let seed = 1; seed <= 200; seed++) {
      const it = await opened({ ...QUICK, openMs: 8_000, jitter: 0.2 }, { seed })
      shares.push(it.outFor('a') / 8_000)
    }
    expect(Math.min(...shares)).toBeGreaterThanOrEqual(0.8)
    expect(Math.max(...shares)).toBeLessThanOrEqual(1.2)
    // Evenly spread: the mean of 200 has a standard error of 0.4 / sqrt(12 * 200) = 0.008.
    expect(Math.abs(shares.reduce((sum, share) => sum + share, 0) / 200 - 1)).toBeLessThan(0.033)
    expect(Math.min(...shares)).toBeLessThan(0.82)
    expect(Math.max(...shares)).toBeGreaterThan(1.18)
  })

  test('a clock that goes back does not keep it open', async () => {
    let backMs = 0
    const real: ManualClock = manualClock(10_000_000)
    const clock: Clock = { now: () => real.now() - backMs, after: (ms, run, hold) => real.after(ms, run, hold) }
    const it = breakerBench(QUICK, { clock })
    it.scripts.set('a', bad)
    const hit = async (): Promise<void> => {
      const { ended } = it.start({}, { prefer: 'a' })
      await real.advance(0)
      await ended
    }
    for (let i = 0; i < 3; i++) await hit()
    expect(it.phase('a')).toBe('open')
    backMs = 3_600_000
    await real.advance(1_000)
    expect(it.phase('a')).toBe('half-open')
    it.scripts.set('a', good)
    backMs *= 2 // and once more: trials are known by themselves, not by their times
    for (let i = 0; i < 3; i++) await hit()
    expect(it.phase('a')).toBe('closed')
  })
})

describe('beside others', () => {
  test('the outlier detector: each has its own reason and its own way back', async () => {
    const it = breakerBench(QUICK, {
      health: { passive: { consecutive: 4, baseMs: 2_000, jitter: 0 }, slowStart: false },
    })
    it.scripts.set('a', bad)
    for (let i = 0; i < 4; i++) it.start({}, { prefer: 'a' })
    await it.clock.advance(0)
    const reasons = (): string[] =>
      it.balancer
        .stats()
        .pools.default!.backends.find(({ id }) => id === 'a')!
        .reasons.map((reason) => reason.split(' ')[0]!)
    expect(reasons().sort()).toEqual(['breaker', 'outlier'])
    await it.clock.advance(1_000)
    expect([it.phase('a'), reasons()]).toEqual(['half-open', ['outlier']])
    await it.clock.advance(1_000)
    it.scripts.set('a', good)
    const before = it.sentTo('a').length
    await it.hit('a', 3) // the first proves it to the detector; together they close the breaker
    expect([it.phase('a'), it.sentTo('a').length - before]).toEqual(['closed', 3])
    expect(it.balancer.stats().pools.default!.inflight).toBe(0)
  })

  test('one breaker serves several pools, and keeps them apart', async () => {
    const breaker = circuitBreaker(QUICK)
    const it = breakerBench(QUICK)
    const pools = { first: { backends: [...'ab'] }, second: { backends: [...'ab'] } }
    const named = ({ backends }: { backends: string[] }) => ({
      backends: backends.map((id) => ({ url: `http://${id}.test`, id })),
    })
    const { backends: _, ...rest } = it.config({ watchers: [breaker] })
    await it.balancer.update({ ...rest, pools: { first: named(pools.first), second: named(pools.second) } })
    it.scripts.set('a', bad)
    for (let i = 0; i < 3; i++) await it.call({}, { prefer: 'a', pool: 'first' })
    const state = breaker.export()
    expect([state.first!.a!.phase, state.second!.a!.phase]).toEqual(['open', 'closed'])
    breaker.isolate('a')
    expect(Object.values(breaker.export()).map(({ a }) => a!.phase)).toEqual(['isolated', 'isolated'])
  })
})

describe('over updates', () => {
  const LONG = { ...QUICK, openMs: 3_600_000, maxOpenMs: 3_600_000 }

  test('with the same breaker, what is known stays', async () => {
    const it = await opened()
    await it.balancer.update(it.config())
    expect([it.phase('a'), it.state('a')]).toEqual(['open', 'blocked'])
    await it.clock.advance(1_000)
    it.start({}, { prefer: 'a' })
    await it.balancer.update(it.config({ ids: 'abcd' }))
    expect(it.phase('a')).toBe('open') // the trial failed
    expect(it.phase('d')).toBe('closed')
  })

  test('without it, everybody is let back in, its timers are stopped, and late ends do nothing', async () => {
    const it = await opened(LONG)
    it.scripts.set('b', () => {})
    for (let i = 0; i < 3; i++) it.start({}, { prefer: 'b' })
    await it.balancer.update(it.config({ watchers: [] }))
    expect(it.state('a')).toBe('up')
    for (const send of it.sentTo('b')) send.answer(500)
    await it.clock.advance(60_000) // the balancer's own deadlines
    expect(it.clock.pending).toBe(0)
    expect(it.breaker.export()).toEqual({})
    expect(it.events()).toEqual(['a out', 'a back'])
  })

  test('a backend that goes takes its timer with it, and comes back as a new one', async () => {
    const it = await opened(LONG)
    it.scripts.set('b', () => {})
    const { ended } = it.start({}, { prefer: 'b' })
    await it.balancer.update(it.config({ ids: 'c' }))
    it.sentTo('b')[0]!.answer(500)
    await it.until(ended)
    await it.clock.advance(60_000) // the balancer's own deadlines
    expect(it.clock.pending).toBe(0)
    await it.balancer.update(it.config({ ids: 'abc' }))
    expect([it.phase('a'), it.phase('b')]).toEqual(['closed', 'closed'])
  })

  test('a refused update leaves no trace of a breaker that was to start', async () => {
    const it = await opened()
    const other = circuitBreaker()
    const broken = {
      name: 'broken',
      start: () => {
        throw new Error('no')
      },
    }
    await expect(it.balancer.update(it.config({ watchers: [other, broken] }))).rejects.toThrow(
      'watcher broken: start failed',
    )
    expect([other.export(), it.phase('a')]).toEqual([{}, 'open'])
  })

  test('a close leaves no timer', async () => {
    const it = await opened()
    await it.balancer.close()
    expect(it.clock.pending).toBe(0)
  })
})
