import { BalancerError, type BreakerState, circuitBreaker, type Reason } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { type BreakerBench, breakerBench, QUICK } from '../support/breaker-bench.ts'
import { bad, good } from '../support/outlier-bench.ts'
import { balancerError } from '../support/scripted.ts'

function refusal(run: () => unknown): BalancerError {
  try {
    run()
  } catch (error) {
    if (error instanceof BalancerError) return error
    throw error
  }
  throw new Error('it was taken')
}

function throughJson(state: BreakerState): BreakerState {
  return JSON.parse(JSON.stringify(state)) as BreakerState
}

describe('by hand', () => {
  test('isolate takes a backend out until reset: for good, hard, and panic brings nobody back', async () => {
    const it = breakerBench(QUICK, { ids: 'ab' })
    const told: Reason[] = []
    it.balancer.on('blocked', (_, reason) => void told.push(reason))
    it.breaker.isolate('a')
    expect(told).toEqual([{ by: 'breaker', hard: true, detail: 'isolated by hand' }])
    it.breaker.isolate('a') // said twice is said once
    for (let i = 0; i < 10; i++) await it.call({}, { prefer: 'a' })
    await it.clock.advance(3_600_000)
    expect([it.sentTo('a').length, it.phase('a'), it.state('a')]).toEqual([0, 'isolated', 'blocked'])
    it.breaker.isolate('b')
    const error = await balancerError(it.balancer.fetch('http://x.test/').then(() => {}))
    expect([error.code, error.reasons!.a, error.retryAfterMs]).toEqual([
      'NO_BACKEND',
      ['breaker: isolated by hand'],
      undefined,
    ])
    it.breaker.reset('a')
    await it.hit('a')
    expect([it.sentTo('a').length, it.phase('a'), it.phase('b')]).toEqual([1, 'closed', 'isolated'])
  })

  test('what is under way when it is isolated may end as it likes', async () => {
    const it = breakerBench()
    it.scripts.set('a', () => {})
    for (let i = 0; i < 4; i++) it.start({}, { prefer: 'a' })
    it.breaker.isolate('a')
    for (const send of it.sentTo('a')) send.answer(500)
    await it.clock.advance(0)
    expect([it.phase('a'), it.balancer.stats().pools.default!.inflight]).toEqual(['isolated', 0])
  })

  test('isolate and reset stop the time of an open one', async () => {
    const it = breakerBench()
    it.scripts.set('a', bad)
    await it.hit('a', 3)
    it.breaker.isolate('a')
    await it.clock.advance(10_000)
    expect(it.phase('a')).toBe('isolated')
    it.breaker.reset('a')
    await it.hit('a', 3)
    it.breaker.reset('a')
    await it.clock.advance(10_000)
    expect([it.phase('a'), it.state('a')]).toEqual(['closed', 'up'])
  })

  test('reset forgets failures and open times', async () => {
    const it = breakerBench()
    it.scripts.set('a', bad)
    await it.hit('a', 3)
    await it.back('a')
    await it.hit('a')
    expect(it.outFor('a')).toBe(2_000)
    it.breaker.reset('a')
    await it.hit('a', 2)
    it.breaker.reset('a')
    await it.hit('a', 2)
    expect(it.phase('a')).toBe('closed')
    await it.hit('a')
    expect(it.outFor('a')).toBe(1_000)
  })

  test('reset during the trials: late ones neither open it nor take places', async () => {
    const it = breakerBench()
    it.scripts.set('a', bad)
    await it.hit('a', 3)
    await it.back('a')
    it.scripts.set('a', () => {})
    for (let i = 0; i < 3; i++) it.start({}, { prefer: 'a' })
    await it.clock.advance(1)
    it.breaker.reset('a')
    for (const send of it.sentTo('a', 3)) send.answer(500)
    await it.clock.advance(0)
    expect(it.phase('a')).toBe('closed')
  })

  test('a backend nobody has is an error that says who there is', () => {
    const it = breakerBench()
    for (const verb of ['isolate', 'reset'] as const) {
      const error = refusal(() => it.breaker[verb]('x'))
      expect([error.code, error.message]).toEqual(['CONFIG', 'no backend is named "x"; there are: a, b, c'])
    }
    expect(refusal(() => circuitBreaker().isolate('a')).message).toContain('there are: none')
  })
})

describe('a state', () => {
  /** Open for the second time, one failure seen, half-open, isolated, closed with a failure. */
  async function storied(): Promise<BreakerBench> {
    const it = breakerBench(QUICK, { ids: 'abcd' })
    for (const id of 'abc') it.scripts.set(id, bad)
    await it.hit('a', 3)
    await it.hit('b', 3)
    await it.clock.advance(1_000)
    await it.hit('a')
    await it.clock.advance(300)
    await it.hit('c', 2)
    it.breaker.isolate('d')
    return it
  }

  test('is exported as plain data and goes on in another balancer, whichever comes first', async () => {
    const from = await storied()
    const state = throughJson(from.breaker.export())
    expect(state).toEqual({
      default: {
        a: { phase: 'open', leftMs: 1_700, opens: 2, seen: { trip: 'consecutive', failures: 3 } },
        b: { phase: 'half-open', leftMs: 0, opens: 1, seen: { trip: 'consecutive', failures: 3 } },
        c: { phase: 'closed', leftMs: 0, opens: 0, seen: { trip: 'consecutive', failures: 2 } },
        d: { phase: 'isolated', leftMs: 0, opens: 0, seen: { trip: 'consecutive', failures: 0 } },
      },
    })
    const after = breakerBench(QUICK, { ids: 'abcd' })
    after.breaker.import(state)
    const before = circuitBreaker(QUICK)
    before.import(state)
    expect(before.export()).toEqual(state) // kept until they appear
    const it = breakerBench(QUICK, { ids: 'abcd', watchers: [before] })
    for (const [{ clock, hit, scripts, state: stateOf }, breaker] of [
      [after, after.breaker],
      [it, before],
    ] as const) {
      const outFor = (id: string): number => breaker.export().default![id]!.leftMs
      expect(breaker.export()).toEqual(state)
      expect([outFor('a'), stateOf('b'), stateOf('d')]).toEqual([1_700, 'up', 'blocked'])
      await clock.advance(1_700)
      for (const id of 'abcd') scripts.set(id, bad)
      await hit('a')
      expect(outFor('a')).toBe(4_000)
      await hit('b')
      expect(outFor('b')).toBe(2_000)
      await hit('c')
      expect(outFor('c')).toBe(1_000)
      expect(breaker.export().default!.d!.phase).toBe('isolated')
    }
  })

  test('is applied to a backend when it appears, once', async () => {
    const state = (await storied()).breaker.export()
    const it = breakerBench(QUICK, { ids: 'c' })
    it.breaker.import(state)
    expect(it.breaker.export().default!.a!.phase).toBe('open')
    await it.balancer.update(it.config({ ids: 'ac' }))
    expect(it.state('a')).toBe('blocked')
    await it.balancer.update(it.config({ ids: 'c' }))
    await it.balancer.update(it.config({ ids: 'ac' }))
    expect([it.phase('a'), it.state('a')]).toEqual(['closed', 'up'])
  })

  test('replaces what was known, and never keeps anybody out for longer than the options allow', async () => {
    const it = await storied()
    const known = it.breaker.export().default!
    it.breaker.import({ default: { a: known.c!, d: { ...known.a!, leftMs: 1e12 } } })
    expect([it.phase('a'), it.state('a'), it.phase('d')]).toEqual(['closed', 'up', 'open'])
    it.scripts.set('a', good)
    await it.clock.advance(8_000)
    expect(it.phase('d')).toBe('half-open')
  })

  test.each([
    ['nothing', undefined, 'state: expected an object, found undefined'],
    ['a list', [], 'state: expected an object, found an array'],
    ['a pool that is none', { p: 1 }, 'state["p"]: expected an object, found 1'],
    ['a backend that is none', { p: { a: null } }, 'state["p"]["a"]: expected an object, found null'],
    [
      'another phase',
      { p: { a: entry({ phase: 'ajar' }) } },
      'state["p"]["a"].phase: expected closed or open or half-open or isolated, found "ajar"',
    ],
    ['a negative time', { p: { a: entry({ leftMs: -1 }) } }, 'state["p"]["a"].leftMs: expected ms >= 0, found -1'],
    ['no number', { p: { a: entry({ leftMs: Number.NaN }) } }, 'state["p"]["a"].leftMs: expected ms >= 0, found NaN'],
    [
      'half an opening',
      { p: { a: entry({ opens: 0.5 }) } },
      'state["p"]["a"].opens: expected a whole number >= 0, found 0.5',
    ],
    [
      'another rule',
      { p: { a: entry({ seen: { trip: 'count', outcomes: [] } }) } },
      'state["p"]["a"].seen.trip: expected window, found "count"',
    ],
    [
      'no buckets',
      { p: { a: entry({ seen: { trip: 'window' } }) } },
      'state["p"]["a"].seen.buckets: expected an array, found undefined',
    ],
    [
      'a wrong bucket',
      { p: { a: entry({ seen: { trip: 'window', buckets: [{ ageMs: 1, successes: 1, failures: '1' }] } }) } },
      'state["p"]["a"].seen.buckets[0].failures: expected a whole number >= 0, found "1"',
    ],
  ])('with %s is refused, with words, and nothing of it is applied', (_, wrong, words) => {
    const it = breakerBench({ trip: 'window' })
    const both =
      wrong instanceof Object && !Array.isArray(wrong)
        ? { default: { a: entry({ phase: 'isolated' }) }, ...wrong }
        : wrong
    const error = refusal(() => it.breaker.import(both as BreakerState))
    expect([error.code, error.message]).toEqual(['CONFIG', `import refused: ${words}`])
    expect(error.issues).toHaveLength(1)
    expect(it.phase('a')).toBe('closed')
  })

  test('of the other rules is read as strictly', () => {
    const count = circuitBreaker({ trip: 'count' })
    const outcomes = entry({ seen: { trip: 'count', outcomes: [true, 1] } })
    expect(refusal(() => count.import({ p: { a: outcomes } } as never)).message).toContain(
      'outcomes[1]: expected true or false, found 1',
    )
    const row = circuitBreaker({ trip: 'consecutive' })
    const failures = entry({ seen: { trip: 'consecutive', failures: -1 } })
    expect(refusal(() => row.import({ p: { a: failures } } as never)).message).toContain(
      'seen.failures: expected a whole number >= 0, found -1',
    )
  })

  test('names are only names, whatever they are', () => {
    const breaker = circuitBreaker()
    const state = JSON.parse(`{"__proto__":{"constructor":${JSON.stringify(entry({}))}}}`) as BreakerState
    breaker.import(state)
    expect(JSON.stringify(breaker.export())).toBe(JSON.stringify(state))
  })

  test('what was handed over may change afterwards', () => {
    const breaker = circuitBreaker()
    const mine = entry({})
    breaker.import({ p: { a: mine as never } })
    Object.assign(mine, { phase: 'isolated' })
    expect(breaker.export().p!.a!.phase).toBe('closed')
  })
})

test('wrong options are refused, all of them at once', () => {
  const wrong = { threshold: 1, trials: 0, openMs: Number.NaN, jitter: 2, size: 1e9, trip: 'often', windows: 3 }
  const error = refusal(() => circuitBreaker(wrong as never))
  expect(error.code).toBe('CONFIG')
  expect(error.issues!.map(({ path }) => path).sort()).toEqual(Object.keys(wrong).sort())
  expect(error.message).toContain('trip: expected consecutive or count or window, found "often"')
})

function entry(changes: object): object {
  return { phase: 'closed', leftMs: 0, opens: 0, seen: { trip: 'window', buckets: [] }, ...changes }
}
