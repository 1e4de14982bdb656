import { seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { BalancerError } from '../../src/core/errors.ts'
import { type AdaptiveLimitSettings, adaptiveLimit } from '../../src/policies/adaptive-limit.ts'
import { limit } from '../../src/policies/limit.ts'
import { bench, endpoint, endpoints, type PoolBench } from '../support/pool-bench.ts'
import type { ScriptedSend } from '../support/scripted.ts'

const AIMD: AdaptiveLimitSettings = { algorithm: 'aimd', initial: 10, min: 1, max: 200 }
const GRADIENT2: AdaptiveLimitSettings = { algorithm: 'gradient2', initial: 20, min: 1, max: 200 }

interface Scene extends PoolBench {
  /** As many calls at once as a backend takes, ended after so many ms. */
  readonly fill: (afterMs: number, end: (send: ScriptedSend) => void) => Promise<void>
  readonly limits: () => string
}

function scene(settings: Partial<AdaptiveLimitSettings> = {}, ids = 'a'): Scene {
  const it = bench([...ids], { play: () => {}, watchers: [adaptiveLimit({ ...AIMD, ...settings })] })
  return {
    ...it,
    async fill(afterMs, end) {
      const from = it.transport.sends.length
      for (let i = it.backend('a').limit; i > 0; i--) it.send({ prefer: 'a' }).catch(() => {})
      await it.clock.advance(afterMs)
      for (const send of it.transport.sends.slice(from)) end(send)
      await it.clock.advance(0)
    },
    limits: () => it.pool.records.map(({ id, limit: most }) => `${id} ${most}`).join(', '),
  }
}

/** One call to a, ended after so many ms: what it makes of a limit of 10 that is in use. */
async function taught(ms: number, end: (send: ScriptedSend) => void): Promise<number> {
  const it = scene()
  for (let i = 0; i < 9; i++) it.send().catch(() => {})
  it.send().catch(() => {})
  const send = it.transport.last()
  await it.clock.advance(ms)
  end(send)
  await it.clock.advance(0)
  return it.backend('a').limit
}

const timedOut = new BalancerError('TIMEOUT', 'too slow')

describe('an adaptive limit', () => {
  test('starts at initial for each backend, and a backend’s own limit stands if it is less', () => {
    const it = scene({}, 'abc')
    expect(it.limits()).toBe('a 10, b 10, c 10')
    it.pool.apply([endpoint('a', { maxInflight: 3 }), endpoint('b', { maxInflight: 30 })])
    expect(it.limits()).toBe('a 3, b 10')
  })

  test('learns from each backend apart', async () => {
    const it = scene({}, 'ab')
    await it.fill(50, (send) => send.answer())
    expect(it.limits()).toBe('a 14, b 10') // of ten that end in turn, four find half of the new limit in use
  })

  test('is lowered by who refuses or has no time', async () => {
    expect(await taught(50, (send) => send.answer(429))).toBe(9)
    expect(await taught(50, (send) => send.answer(503))).toBe(9)
    expect(await taught(0, (send) => send.answer(503))).toBe(9)
    const unheard = (send: ScriptedSend): void => {
      send.connect()
      send.attempt.cancel(timedOut)
    }
    expect(await taught(50, unheard)).toBe(9)
    const unsent = (send: ScriptedSend): void => {
      send.wait() // for a connection that never was free
      send.attempt.cancel(timedOut)
    }
    expect(await taught(50, unsent)).toBe(9)
  })

  test('is raised by answers, also by those that say the client was wrong', async () => {
    expect(await taught(50, (send) => send.answer())).toBe(11)
    expect(await taught(0, (send) => send.answer())).toBe(11)
    expect(await taught(50, (send) => send.answer(404))).toBe(11)
  })

  test('learns nothing from refusals that took no work, from failures, and from callers who leave', async () => {
    expect(await taught(0, (send) => send.answer(404))).toBe(10)
    expect(await taught(50, (send) => send.answer(500))).toBe(10)
    expect(await taught(50, (send) => send.refuse())).toBe(10)
    expect(await taught(50, (send) => send.attempt.cancel(new Error('stop')))).toBe(10)
  })

  test('counts the time until the head, not how long the body is', async () => {
    const it = scene()
    for (let i = 0; i < 10; i++) it.send().catch(() => {})
    await it.clock.advance(100)
    const body = it.transport.last().head(200)
    await it.clock.advance(10_000)
    body.end()
    expect(it.backend('a').limit).toBe(11)
  })

  test('counts a lease from when it was lent until it ended', async () => {
    for (const [ms, want] of [
      [100, 2],
      [6_000, 1], // AIMD takes that for a drop
    ] as const) {
      const it = scene({ initial: 1 })
      const lent = it.pool.lend(it.callOf(), { method: 'GET', path: '/', headers: [], body: null })
      await it.clock.advance(ms)
      lent.settle('ok', undefined)
      expect(it.backend('a').limit).toBe(want)
    }
  })

  test('says only what is new', async () => {
    const it = scene({ max: 12 })
    const said: number[] = []
    const say = it.pool.limit.bind(it.pool)
    it.pool.limit = (backend, by, most) => {
      said.push(most)
      say(backend, by, most)
    }
    for (let i = 0; i < 5; i++) await it.fill(50, (send) => send.answer())
    expect(said).toEqual([11, 12])
  })

  test('that shrinks ends nothing: what is in flight above it drains, and nothing new comes until it has', async () => {
    const it = scene()
    const calls = Array.from({ length: 10 }, () => it.send())
    it.transport.sends[0]!.answer(429)
    it.transport.sends[1]!.answer(429)
    await it.clock.advance(0)
    expect([it.backend('a').limit, it.pool.inflight]).toEqual([8, 8])
    await expect(it.send()).rejects.toMatchObject({ code: 'OVERLOADED' })
    for (const send of it.transport.sends) send.answer(200)
    expect((await Promise.all(calls)).map(({ status }) => status)).toEqual([429, 429, ...Array(8).fill(200)])
  })

  test('is never below min, and comes back from 1', async () => {
    const it = scene()
    for (let i = 0; i < 20; i++) await it.fill(50, (send) => send.answer(503))
    expect(it.backend('a').limit).toBe(1)
    for (let i = 0; i < 5; i++) await it.fill(50, (send) => send.answer())
    expect(it.backend('a').limit).toBeGreaterThan(3)
  })

  test('of every kind copes with answers in no time at all', async () => {
    for (const algorithm of ['aimd', 'gradient2', 'vegas'] as const) {
      const it = scene({ algorithm, initial: 10, max: 12 })
      for (let i = 0; i < 30; i++) await it.fill(0, (send) => send.answer())
      expect(it.backend('a').limit, algorithm).toBe(12)
    }
  })
})

describe('backends come and go', () => {
  test('a newcomer starts at initial, whoever leaves is forgotten, and its last answers are no matter', async () => {
    const it = scene({}, 'a')
    await it.fill(50, (send) => send.answer())
    expect(it.limits()).toBe('a 14')
    const late = it.send({ prefer: 'a' })
    const gone = it.backend('a')
    it.pool.apply(endpoints('b'))
    it.transport.last().answer(429)
    expect((await late).status).toBe(429)
    expect([gone.limit, it.limits()]).toEqual([14, 'b 10'])
    it.pool.apply(endpoints('a', 'b'))
    expect(it.limits()).toBe('a 10, b 10')
  })

  test('an update that leaves the limit alone leaves what it has learned alone', async () => {
    const watcher = adaptiveLimit(AIMD)
    const it = bench(['a'], { watchers: [watcher], play: (send) => send.refuse() })
    it.pool.limit(it.backend('a'), 'adaptive', 5)
    it.reconfigure({ watchers: [watcher] }, [endpoint('a', { weight: 2 }), endpoint('b')])
    expect(it.pool.records.map((record) => record.limit)).toEqual([5, 10])
  })

  test('one that is turned off, or replaced, takes its words back', async () => {
    const it = scene({}, 'ab')
    await it.fill(50, (send) => send.answer())
    it.reconfigure({ watchers: [adaptiveLimit({ ...AIMD, initial: 7 })] }, endpoints('a', 'b'))
    expect(it.limits()).toBe('a 7, b 7')
    it.reconfigure({ watchers: [] }, endpoints('a', 'b'))
    expect(it.limits()).toBe('a Infinity, b Infinity')
  })
})

describe('with a queue in front of a server that works on 10 at once, at three times its capacity', () => {
  const PLACES = 10
  const BASE_MS = 50
  /** The limit is judged by the second half, the work done by all of it. */
  const LASTS_MS = 30_000

  test('gradient2 finds the limit by itself, and keeps both the work done and the times of the answers', async () => {
    const random = seededRandom(3)
    const line = limit({
      maxInflight: undefined,
      queue: { size: 20, timeoutMs: 500, order: 'adaptive', overloadMs: 100 },
    })
    const it = bench(['a'], {
      policies: [line.policy],
      watchers: [adaptiveLimit(GRADIENT2), line.watcher],
      play: (send) => {
        const slowed = Math.max(1, send.attempt.backend.inflight / PLACES)
        it.clock.after(BASE_MS * slowed * (0.8 + random(401) / 1_000), () => send.answer())
      },
    })
    const rttMs: number[] = []
    const limits: number[] = []
    let served = 0
    const perS = (3 * PLACES * 1_000) / BASE_MS
    const untilMs = it.clock.now() + LASTS_MS
    for (let n = 0; it.clock.now() < untilMs; n++) {
      await it.clock.advance((-Math.log((random(1 << 20) + 1) / (1 << 20)) * 1_000) / perS)
      const call = it.callOf()
      it.send({}, call).then(
        () => {
          served++
          rttMs.push(it.clock.now() - call.attempts[0]!.startMs)
        },
        () => {},
      )
      if (n % 600 === 0) limits.push(it.backend('a').limit)
    }
    const settled = limits.slice(limits.length >> 1).sort((a, b) => a - b)
    const median = settled[settled.length >> 1]!
    const goodput = served / ((LASTS_MS / BASE_MS) * PLACES)
    rttMs.sort((a, b) => a - b)
    const p99 = rttMs[Math.floor(rttMs.length * 0.99)]!
    console.info(
      `gradient2 behind a queue: limit ${median} (${settled[0]} to ${settled.at(-1)}) for ${PLACES} places, ` +
        `goodput ${(100 * goodput).toFixed(1)} %, p99 of the server ${p99.toFixed(0)} ms (${BASE_MS} ms unloaded)`,
    )
    expect(goodput).toBeGreaterThan(0.9)
    expect(median).toBeGreaterThanOrEqual(PLACES)
    expect(median).toBeLessThan(2 * PLACES)
    expect(p99).toBeLessThan(4 * BASE_MS)
    await it.clock.advance(10_000)
    expect([it.pool.inflight, it.clock.pending]).toEqual([0, 0])
  })
})
