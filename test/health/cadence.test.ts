import type { ActiveHealthOptions, PoolControl, Watcher } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { endpoint, failing, type Scene, scene, silent, stateOf } from '../support/checks.ts'

/** One request of the traffic. */
async function request({ balancer, clock }: Scene): Promise<void> {
  const { response } = balancer.send({ method: 'GET', path: '/real', headers: [], body: null })
  await clock.advance(0)
  ;(await response).body.discard()
}

describe('while checks disagree with the verdict', () => {
  test('they come at the fast interval, counting down and counting up', async () => {
    const { clock, times, transport, log } = scene({ a: {} }, { fastIntervalMs: 100, rise: 2, fall: 3 })
    await clock.advance(500)
    transport.set('a', failing)
    await clock.advance(2_000)
    expect(times('a')).toEqual([0, 1_000, 1_100, 1_200, 2_200])
    expect(log).toHaveLength(1)
    transport.set('a', {})
    await clock.advance(2_500)
    expect(times('a').slice(5)).toEqual([3_200, 3_300, 4_300])
    expect(log).toHaveLength(2)
  })

  test('a check that agrees again ends the hurry', async () => {
    const { clock, times, transport } = scene({ a: {} }, { fastIntervalMs: 100 })
    await clock.advance(500)
    transport.set('a', failing)
    await clock.advance(550)
    transport.set('a', {})
    await clock.advance(2_000)
    expect(times('a')).toEqual([0, 1_000, 1_100, 2_100])
  })

  test('its default is no longer than the interval, and it goes before the idle one', async () => {
    const { clock, times, transport } = scene({ a: {} }, { intervalMs: 300, idleIntervalMs: 3_000 })
    await clock.advance(500)
    transport.set('a', failing)
    await clock.advance(5_000)
    expect(times('a')).toEqual([0, 3_000, 3_300, 3_600])
  })
})

describe('while the pool has no traffic', () => {
  const idle: ActiveHealthOptions = { idleIntervalMs: 10_000 }

  test('checks come at the idle interval', async () => {
    const { clock, times } = scene({ a: {} }, idle)
    await clock.advance(25_000)
    expect(times('a')).toEqual([0, 10_000, 20_000])
  })

  test('the first request brings the next check within an interval, and traffic keeps the pace', async () => {
    const it = scene({ a: {}, b: {} }, idle, { strategy: 'round-robin' })
    await it.clock.advance(12_500)
    for (let i = 0; i < 8; i++) {
      await request(it)
      await it.clock.advance(500)
    }
    // To one of the two or the other: it is the pool that counts.
    for (const id of ['a', 'b']) expect(it.times(id)).toEqual([0, 10_000, 13_000, 14_000, 15_000, 16_000])
    await it.clock.advance(12_000)
    for (const id of ['a', 'b']) expect(it.times(id).slice(6)).toEqual([17_000, 27_000])
  })

  test('a request that is not answered yet is traffic', async () => {
    const it = scene({ a: ({ path }) => (path === '/real' ? silent : {}) }, idle)
    await it.clock.advance(10)
    const { call, response } = it.balancer.send({ method: 'GET', path: '/real', headers: [], body: null })
    await it.clock.advance(3_000)
    expect(it.times('a')).toEqual([0, 1_000, 2_000, 3_000])
    call.cancel(new Error('enough'))
    await response.catch(() => {})
    await it.clock.advance(12_000)
    expect(it.times('a').slice(4)).toEqual([4_000, 14_000])
  })

  test('the idle interval is shifted by the jitter as well', async () => {
    const { clock, times } = scene({ a: {} }, { idleIntervalMs: 10_000, jitter: 0.2 })
    await clock.advance(600_000)
    const gaps = times('a').flatMap((ms, i, all) => (i === 0 ? [] : [ms - all[i - 1]!]))
    expect(gaps.length).toBeGreaterThan(50)
    for (const gap of gaps) expect(gap >= 7_999.99 && gap <= 12_000.01, String(gap)).toBe(true)
    expect(Math.max(...gaps) - Math.min(...gaps)).toBeGreaterThan(3_000)
  })
})

describe('before its first verdict a backend', () => {
  test("with 'probe' gets traffic, and the first check decides alone", async () => {
    const it = scene({ a: { headMs: 100, status: 500 } }, { initial: 'probe' })
    expect(it.reasons('a')).toEqual([])
    await it.clock.advance(100)
    expect(it.reasons('a')).toEqual(['probe: http check: status 500'])
  })

  test("with 'up' counts as well until `fall` bad checks in a row", async () => {
    const it = scene({ a: failing, b: {} }, { initial: 'up', fall: 3, fastIntervalMs: 100 })
    const ready = it.balancer.ready()
    expect(await stateOf(ready, it.clock)).toBe('resolved') // the first check is over, whatever it said
    expect(it.log).toEqual([])
    await it.clock.advance(150)
    expect(it.log).toEqual([])
    await it.clock.advance(50)
    expect(it.log).toEqual(['blocked a probe: http check: status 500'])
  })

  test("with 'down' gets nothing until `rise` good checks in a row, not even in panic", async () => {
    const health = {
      active: { intervalMs: 1_000, jitter: 0, timeoutMs: 200, fastIntervalMs: 100, initial: 'down' },
    } as const
    const it = scene({ a: { headMs: 10 } }, {}, { health })
    expect(it.reasons('a')).toEqual(['probe: not checked yet'])
    await expect(request(it)).rejects.toMatchObject({ code: 'NO_BACKEND' })
    const ready = it.balancer.ready()
    await it.clock.advance(10)
    expect(it.reasons('a')).toEqual(['probe: not checked yet']) // one good one of two
    expect(await stateOf(ready, it.clock)).toBe('pending')
    await it.clock.advance(110)
    expect(it.reasons('a')).toEqual([])
    expect(await stateOf(ready, it.clock)).toBe('resolved')
    expect(it.times('a').slice(0, 2)).toEqual([0, 110])
    expect(it.log).toEqual(['unblocked a probe: not checked yet'])
  })

  test("with 'down' and a bad check is known to be bad: that is told, ready() waits no longer, and panic may use it", async () => {
    const health = { active: { intervalMs: 1_000, jitter: 0, timeoutMs: 200, initial: 'down' } } as const
    const it = scene({ a: ({ path }) => (path === '/real' ? {} : failing) }, {}, { health })
    const ready = it.balancer.ready()
    await it.clock.advance(0)
    expect(it.reasons('a')).toEqual(['probe: http check: status 500'])
    expect(await stateOf(ready, it.clock)).toBe('resolved')
    await request(it)
    await it.clock.advance(5_000)
    expect(it.log).toEqual(['blocked a probe: http check: status 500']) // told once
  })

  test('is one that was added: who was there before the checks, or keeps its verdict, is not taken out unchecked', async () => {
    const active = { initial: 'down', rise: 1 } as const
    const it = scene({ a: { headMs: 10 }, b: { headMs: 10 }, c: { headMs: 10 } }, false, {
      backends: [endpoint('a')],
    })
    const health = { active: { intervalMs: 1_000, jitter: 0, timeoutMs: 200, ...active }, panicBelow: 0 }
    await it.balancer.update({ ...it.options, health })
    expect(it.log).toEqual([])
    await it.clock.advance(10)
    await it.balancer.update({ ...it.options, health, backends: ['a', 'b'].map(endpoint) })
    expect(it.reasons('a')).toEqual([])
    expect(it.reasons('b')).toEqual(['probe: not checked yet'])
    await it.clock.advance(10)
    expect(it.reasons('b')).toEqual([])
    const slower = { ...health, active: { ...health.active, intervalMs: 2_000 } }
    await it.balancer.update({ ...it.options, health: slower, backends: ['a', 'b', 'c'].map(endpoint) })
    expect(['a', 'b', 'c'].filter((id) => it.reasons(id).length > 0)).toEqual(['c'])
  })

  test('is left alone if a listener of its block changes the pool, in the middle of a change by a part', async () => {
    let control: PoolControl | undefined
    const part: Watcher = {
      name: 'part',
      start(core) {
        control = core.control
        return { stop: () => {} }
      },
    }
    const it = scene(
      { a: silent, b: silent, c: silent },
      { initial: 'down' },
      { backends: [endpoint('a')], watchers: [part] },
    )
    const all = ['a', 'b', 'c'].map(endpoint)
    it.balancer.once(
      'blocked',
      () => void it.balancer.update({ ...it.options, backends: all, health: { slowStart: false } }),
    )
    control!.apply(all)
    expect(it.log).toContain('blocked b probe: not checked yet')
    for (const id of ['a', 'b', 'c']) expect(it.reasons(id)).toEqual([])
    expect(it.clock.pending).toBe(0)
    await it.clock.advance(60_000)
    for (const id of ['a', 'b', 'c']) expect(it.times(id).length).toBeLessThanOrEqual(1)
  })
})
