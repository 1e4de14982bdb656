import type { MemoryAnswer, MemoryBackend } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { checked, checks, endpoint, failing, reasonsOf, type Scene, scene, silent } from '../support/checks.ts'
import { keeper, until } from '../support/upstreams.ts'

const LEAVING: MemoryAnswer = { headers: { 'X-Envoy-Immediate-Health-Check-Fail': 'true' } }
const WEAK: MemoryAnswer = { headers: { 'x-envoy-degraded': '' } }
const ASKED = 'probe: asked to be taken out'

/** One answer to checks, another to traffic. */
function apart(check: MemoryAnswer, real: MemoryAnswer): MemoryBackend {
  return ({ path }) => (path === '/real' ? real : check)
}

/** One request of the traffic; resolves with who answered it. */
async function request({ balancer, clock }: Scene): Promise<string> {
  const { call, response } = balancer.send({ method: 'GET', path: '/real', headers: [], body: null })
  await clock.advance(0)
  ;(await response).body.discard()
  return call.attempts.at(-1)!.backend.id
}

function weightOf({ balancer }: Scene, id: string): number {
  return balancer.stats().pools.default!.backends.find((backend) => backend.id === id)!.weight
}

describe('a backend that asks to be taken out', () => {
  test('in its answer to a check is, at once, until `rise` good checks without it', async () => {
    const it = scene({ a: {} }, { rise: 2, fall: 3 })
    await it.clock.advance(500)
    it.transport.set('a', LEAVING)
    await it.clock.advance(1_000)
    expect(it.reasons('a')).toEqual([ASKED])
    await it.clock.advance(5_000)
    expect(it.reasons('a')).toEqual([ASKED]) // good answers, but for the header
    it.transport.set('a', {})
    await it.clock.advance(1_000)
    expect(it.reasons('a')).toEqual([ASKED])
    await it.clock.advance(1_000)
    expect(it.reasons('a')).toEqual([])
  })

  test('in an answer to traffic is as well, and the caller still gets that answer', async () => {
    const it = scene({ a: apart({}, LEAVING), b: {} }, { rise: 2 }, { strategy: 'round-robin' })
    await it.clock.advance(10)
    const first = [await request(it), await request(it)]
    expect(first.sort()).toEqual(['a', 'b'])
    expect(it.log).toEqual(['blocked a probe: asked to be taken out'])
    for (let i = 0; i < 10; i++) expect(await request(it)).toBe('b')
    await it.clock.advance(1_980)
    expect(it.reasons('a')).toEqual([ASKED])
    await it.clock.advance(10)
    expect(it.reasons('a')).toEqual([])
  })

  test('is not taken back by a check that was under way', async () => {
    const it = scene({ a: apart({ headMs: 100 }, LEAVING) }, { rise: 1 })
    await it.clock.advance(1_150) // in the middle of the second check
    expect(it.times('a')).toEqual([0, 1_100])
    await request(it)
    await it.clock.advance(50)
    expect(it.reasons('a')).toEqual([ASKED])
    await it.clock.advance(1_100)
    expect(it.reasons('a')).toEqual([])
  })

  test('again while it is out begins anew', async () => {
    const health = { active: { intervalMs: 1_000, jitter: 0, timeoutMs: 200, rise: 3 }, panicBelow: 1 }
    const it = scene({ a: apart({}, LEAVING) }, {}, { health })
    await it.clock.advance(10)
    await request(it)
    await it.clock.advance(2_000) // two good checks of three
    await request(it) // panic
    await it.clock.advance(2_000)
    expect(it.reasons('a')).toEqual([ASKED])
    await it.clock.advance(1_000)
    expect(it.reasons('a')).toEqual([])
    expect(it.log).toHaveLength(2)
  })

  test('before its first check is over is known to be down', async () => {
    const it = scene({ a: apart(silent, LEAVING) })
    const ready = it.balancer.ready()
    await request(it)
    await ready
    expect(it.reasons('a')).toEqual([ASKED])
  })

  test('by a failed answer too, and by one to a probe of your own', async () => {
    const own = checks(async (backend, { send }) => {
      const { body } = await send(backend, { method: 'GET', path: '/', headers: [], body: null }).response
      body.discard()
    })
    const it = scene({ a: LEAVING, b: {} }, false, { watchers: [own] })
    await it.clock.advance(0)
    expect(it.reasons('a')).toEqual([ASKED])
    expect(it.reasons('b')).toEqual([])
    const other = scene({ a: { ...failing, ...LEAVING } }, { initial: 'up' })
    await other.clock.advance(0)
    expect(other.reasons('a')).toEqual([ASKED])
  })

  test('stays if there are no checks that could take it back', async () => {
    const it = scene({ a: LEAVING }, false)
    await request(it)
    expect(it.reasons('a')).toEqual([])
  })

  test('is taken back when the checks are switched off', async () => {
    const it = scene({ a: apart({}, LEAVING) })
    await it.clock.advance(10)
    await request(it)
    await it.balancer.update({ ...it.options, health: { active: false } })
    expect(it.reasons('a')).toEqual([])
    await request(it)
    expect(it.reasons('a')).toEqual([])
  })

  test('over real sockets', async () => {
    let leaving = true
    const { url } = await keeper((request, response) => {
      if (leaving && request.url === '/real') response.setHeader('x-envoy-immediate-health-check-fail', 'true')
      response.end('ok')
    })
    const balancer = checked([url], { path: '/health' })
    await balancer.ready()
    expect(await (await balancer.fetch('/real')).text()).toBe('ok')
    expect(reasonsOf(balancer)).toBe(ASKED)
    leaving = false
    await until(() => reasonsOf(balancer) === '', 'it was not taken back')
  })
})

describe('a backend that is degraded', () => {
  test('by its header gets little while others are well, and its share back with the first check without it', async () => {
    const it = scene({ a: WEAK, b: {} }, {}, { strategy: 'weighted-random' })
    await it.clock.advance(100)
    expect(it.log).toEqual([])
    expect(weightOf(it, 'a')).toBe(0.1)
    let mine = 0
    for (let i = 0; i < 500; i++) if ((await request(it)) === 'a') mine++
    // 1 in 11: 45 of 500 with a standard deviation of 6.4; five of those either way.
    expect(mine).toBeGreaterThan(13)
    expect(mine).toBeLessThan(78)
    it.transport.set('a', {})
    await it.clock.advance(1_000)
    expect(weightOf(it, 'a')).toBe(1)
  })

  test('by the word of a probe of your own; a bad check says nothing about it', async () => {
    let said: 'degraded' | undefined = 'degraded'
    let well = true
    const own = checks(async () => {
      if (!well) throw new Error('no')
      return said
    })
    const it = scene({}, false, { backends: [endpoint('a')], watchers: [own] })
    await it.clock.advance(0)
    expect(weightOf(it, 'a')).toBe(0.1)
    well = false
    await it.clock.advance(3_000)
    expect(it.reasons('a')).toEqual(['probe: own check: no'])
    expect(weightOf(it, 'a')).toBe(0.1)
    well = true
    said = undefined
    await it.clock.advance(1_000)
    expect(weightOf(it, 'a')).toBe(1)
  })

  test('carries everything if all are, and its own weight counts', async () => {
    const it = scene({ a: WEAK, b: WEAK }, {}, { backends: [{ ...endpoint('a'), weight: 4 }, endpoint('b')] })
    await it.clock.advance(100)
    expect(weightOf(it, 'a')).toBeCloseTo(0.4)
    expect(weightOf(it, 'b')).toBeCloseTo(0.1)
    expect(['a', 'b']).toContain(await request(it))
  })

  test('is as it was once the checks are off, and when they change', async () => {
    const it = scene({ a: WEAK })
    await it.clock.advance(0)
    expect(weightOf(it, 'a')).toBe(0.1)
    await it.balancer.update({ ...it.options, health: { active: { intervalMs: 2_000 } } })
    expect(weightOf(it, 'a')).toBe(1)
    await it.clock.advance(0)
    expect(weightOf(it, 'a')).toBe(0.1)
    await it.balancer.update({ ...it.options, health: { active: false } })
    expect(weightOf(it, 'a')).toBe(1)
    expect(it.clock.pending).toBe(0)
  })

  test('in answers to traffic is nobody’s business', async () => {
    const it = scene({ a: apart({}, WEAK) })
    await it.clock.advance(10)
    await request(it)
    await it.clock.advance(1_000)
    expect(weightOf(it, 'a')).toBe(1)
  })
})

describe('a probe of your own, in the options', () => {
  test('takes the place of the built-in ones; throwing and hanging say no', async () => {
    const seen: string[] = []
    const probe = {
      name: 'mine',
      check: (backend: { id: string }) => {
        seen.push(backend.id)
        if (backend.id === 'a') throw new Error('thrown')
        return backend.id === 'b' ? new Promise<void>(() => {}) : Promise.resolve()
      },
    }
    const it = scene({ a: {}, b: {}, c: {} }, { probe })
    await it.clock.advance(200)
    expect(it.reasons('a')).toEqual(['probe: mine check: thrown'])
    expect(it.reasons('b')).toEqual(['probe: mine check: no answer within 200 ms'])
    expect(it.reasons('c')).toEqual([])
    expect(it.times('a')).toEqual([])
    expect(seen).toEqual(['a', 'b', 'c'])
  })

  test('sends nothing after its end', async () => {
    const refused: unknown[] = []
    const own = checks(async (backend, { send, signal }) => {
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
      try {
        await send(backend, { method: 'GET', path: '/', headers: [], body: null }).response
      } catch (error) {
        refused.push(error)
      }
    })
    const it = scene({ a: {} }, false, { watchers: [own] })
    await it.clock.advance(200)
    await it.balancer.update({ ...it.options, watchers: [] })
    await it.clock.advance(1_000)
    expect(refused).toMatchObject([{ code: 'TIMEOUT' }])
    expect(it.times('a')).toEqual([])
  })
})
