import { type Backend, type CircuitBreaker, circuitBreaker, createBalancer } from 'evenkeel'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type BreakerBench, breakerBench, QUICK } from '../support/breaker-bench.ts'
import { bad, good } from '../support/outlier-bench.ts'
import type { ScriptedSend } from '../support/scripted.ts'
import { kept, until, upstream } from '../support/upstreams.ts'

const CALLERS = 1_000

/** `a` is half-open, and leaves what comes open. */
async function onTrial(options = {}, breaker?: CircuitBreaker): Promise<BreakerBench> {
  const it = breakerBench(QUICK, options, breaker)
  it.scripts.set('a', bad)
  await it.hit('a', 3)
  await it.back('a')
  it.scripts.set('a', () => {})
  expect(it.phase('a')).toBe('half-open')
  return it
}

/** What came to `a` since. */
function trials(it: BreakerBench): ScriptedSend[] {
  return it.sentTo('a', 3)
}

function knock(it: BreakerBench, times: number): void {
  for (let i = 0; i < times; i++) it.start({}, { prefer: 'a' })
}

async function end(it: BreakerBench, send: ScriptedSend, status: number): Promise<void> {
  send.answer(status)
  await it.clock.advance(0)
}

describe('half-open', () => {
  test('lets three requests through in all; a success makes no room for a fourth', async () => {
    const it = await onTrial()
    knock(it, 20)
    expect(trials(it)).toHaveLength(3)
    await end(it, trials(it)[0]!, 200)
    await end(it, trials(it)[1]!, 200)
    knock(it, 20)
    expect([trials(it).length, it.phase('a')]).toEqual([3, 'half-open'])
    await end(it, trials(it)[2]!, 200)
    expect(it.phase('a')).toBe('closed')
    knock(it, 20)
    expect(trials(it)).toHaveLength(23)
  })

  test('one failure opens it again; what the other trials come to is then old news', async () => {
    const it = await onTrial()
    knock(it, 3)
    const [first, second, third] = trials(it)
    await end(it, first!, 200)
    await end(it, second!, 500)
    expect([it.phase('a'), it.outFor('a')]).toEqual(['open', 2_000])
    await end(it, third!, 500)
    expect([it.phase('a'), it.outFor('a')]).toEqual(['open', 2_000])
    await it.back('a')
    knock(it, 20)
    expect(trials(it)).toHaveLength(6) // all three places are there again
  })

  test('a trial that says nothing gives its place back: aborted, rate-limited, not sent', async () => {
    const it = await onTrial()
    for (let round = 0; round < 5; round++) {
      const { call } = it.start({}, { prefer: 'a' })
      knock(it, 2)
      const mine = trials(it).slice(-3)
      expect(trials(it)).toHaveLength(3 * (round + 1))
      call.cancel(new Error('stop'))
      mine[1]!.answer(429)
      mine[2]!.fail({ phase: 'wait' })
      await it.clock.advance(0)
      expect(it.phase('a')).toBe('half-open')
    }
  })

  test('requests from before it opened count neither then nor after', async () => {
    const it = breakerBench(QUICK)
    it.scripts.set('a', () => {})
    knock(it, 12)
    const old = [...it.sentTo('a')]
    const ends = async (n: number, status: number): Promise<void> => {
      for (const send of old.splice(0, n)) await end(it, send, status)
    }
    await ends(3, 500)
    expect(it.phase('a')).toBe('open')
    await ends(2, 200)
    await it.back('a')
    await ends(3, 200) // three successes, but of none that was let through on trial
    expect(it.phase('a')).toBe('half-open')
    await ends(1, 500)
    expect(it.phase('a')).toBe('half-open')
    it.scripts.set('a', good)
    await it.hit('a', 3)
    expect(it.phase('a')).toBe('closed')
    await ends(3, 500)
    expect(it.phase('a')).toBe('closed')
  })

  test('of two sends of one call to the same backend only the trial counts', async () => {
    const it = breakerBench(
      { ...QUICK, consecutive: 1, openMs: 20 },
      { ids: 'a', retry: { attempts: 2, holdBytes: 0 } },
    )
    it.scripts.set('a', (send) => {
      if (it.transport.sends.length === 1) return void send.head(503) // its body is left open
      if (it.transport.sends.length === 2) send.answer(500)
    })
    const first = it.start()
    await it.clock.advance(0)
    it.start() // opens it
    await it.clock.advance(0)
    expect(it.phase('a')).toBe('open')
    await it.clock.advance(20)
    expect(it.phase('a')).toBe('half-open')
    await it.clock.advance(1_000) // the pause before the first call's retry
    const [old, , retried] = it.transport.sends
    expect(retried!.attempt.call).toBe(first.call)
    old!.body!.end()
    await it.clock.advance(0)
    expect(it.phase('a')).toBe('half-open')
    await end(it, retried!, 500)
    expect(it.phase('a')).toBe('open')
  })

  test('a place is given back when a later gate refuses the request', async () => {
    let shut = false
    const gate = { name: 'door', admit: ({ id }: Backend) => !(shut && id === 'a'), release: () => {} }
    const breaker = circuitBreaker(QUICK)
    const it = await onTrial(
      { watchers: [breaker, { name: 'door', start: () => ({ gate, stop: () => {} }) }] },
      breaker,
    )
    shut = true
    knock(it, 10)
    expect(trials(it)).toHaveLength(0)
    shut = false
    knock(it, 10)
    expect(trials(it)).toHaveLength(3)
  })

  test('leases are trials as well', async () => {
    const it = await onTrial()
    const leases = Array.from({ length: 5 }, () => it.balancer.acquire({ prefer: 'a' }))
    expect(leases.map(({ backend }) => backend.id).join('')).toMatch(/^aaa[bc][bc]$/)
    leases[0]!.cancel()
    for (const lease of leases.slice(1)) lease.succeed()
    expect(it.phase('a')).toBe('half-open')
    it.balancer.acquire({ prefer: 'a' }).succeed()
    expect(it.phase('a')).toBe('closed')
  })

  test('of 1 000 callers at once exactly three reach it: with one backend the others are told so', async () => {
    const it = await onTrial({ ids: 'a' })
    const ended = Array.from({ length: CALLERS }, () => it.start().ended)
    await it.clock.advance(0)
    for (const send of trials(it)) send.answer()
    const answers = await Promise.all(ended)
    const refused = answers.filter(({ error }) => (error as { code?: string } | undefined)?.code === 'NO_BACKEND')
    expect([trials(it).length, refused.length]).toEqual([3, CALLERS - 3])
    expect(it.phase('a')).toBe('closed')
  })

  test('of 1 000 callers at once exactly three reach it: with two backends the others go elsewhere', async () => {
    let failing = true
    let reached = 0
    const held: (() => void)[] = []
    const shaky = await upstream((_, response) => {
      if (failing) return void response.writeHead(500).end()
      reached++
      held.push(() => response.end('a'))
    })
    const steady = await upstream((_, response) => void response.end('b'))
    const breaker = circuitBreaker({ ...QUICK, openMs: 100 })
    const balancer = kept(
      createBalancer({
        backends: [
          { url: shaky.url, id: 'a' },
          { url: steady.url, id: 'b' },
        ],
        strategy: 'random',
        health: { passive: false },
        retry: { attempts: 1 },
        watchers: [breaker],
      }),
    )
    const back = new Promise<unknown>((resolve) => balancer.once('unblocked', resolve))
    for (let i = 0; i < 3; i++) await (await balancer.request('/', { prefer: 'a' })).body.text()
    failing = false
    await back
    const bodies = Array.from({ length: CALLERS }, async () => (await balancer.request('/')).body.text())
    let elsewhere = 0
    for (const body of bodies)
      void body.then((text) => {
        if (text === 'b') elsewhere++
      })
    await until(() => elsewhere === CALLERS - 3, 'the others were not answered')
    await until(() => reached === 3, 'the trials did not arrive')
    for (const answer of held) answer()
    const texts = await Promise.all(bodies)
    expect([reached, texts.filter((text) => text === 'a').length]).toEqual([3, 3])
    expect(breaker.export().default!.a!.phase).toBe('closed')
    console.info(`half-open, ${CALLERS} callers at once: ${reached} reached the backend, ${elsewhere} went elsewhere`)
  })
})

const who = fc.constantFrom('a', 'b')
const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('call' as const), who, refused: fc.boolean() }) },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('calls' as const), who }) },
  {
    weight: 20,
    arbitrary: fc.record({
      kind: fc.constant('end' as const),
      index: fc.nat(),
      how: fc.constantFrom(200, 200, 200, 500, 500, 429, 'reset' as const, 'abort' as const),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('advance' as const), ms: fc.constantFrom(1, 500, 1_000, 9_000) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('update' as const), ids: fc.constantFrom('ab', 'abc', 'a', 'b') }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('isolate' as const), who }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reset' as const), who }) },
)

/** Edges of the state machine, by what happened. */
const EDGES: Readonly<Record<string, readonly string[]>> = {
  call: [],
  calls: [],
  end: ['closed open', 'half-open open', 'half-open closed'],
  advance: ['open half-open'],
  update: ['undefined closed'],
  isolate: ['closed isolated', 'open isolated', 'half-open isolated'],
  reset: ['open closed', 'half-open closed', 'isolated closed'],
}

test('whatever happens: no way back but by trials, never more of them than allowed, each place given back once', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const trialsAllowed = 2
      const settings = { ...QUICK, consecutive: 2, trials: trialsAllowed }
      let refused = false
      const later = {
        name: 'later',
        start: () => ({
          gate: { name: 'later', admit: () => !refused, release: () => {} },
          stop: () => {},
        }),
      }
      const breaker = circuitBreaker(settings)
      const timeouts = { connectMs: 0, headersMs: 0, idleMs: 0 } // only the story ends anything
      const parts = { watchers: [breaker, later], timeouts }
      const it = breakerBench(settings, { ids: 'ab', ...parts }, breaker)
      for (const id of 'abc') it.scripts.set(id, () => {}) // the story says how each ends
      const phases = (): Map<string, string> =>
        new Map(Object.entries(breaker.export().default!).map(([id, { phase }]) => [id, phase]))
      /** What is under way, and during which time half-open it was let through; 0 = not then. */
      const live: { readonly send: ScriptedSend; readonly period: number }[] = []
      const periods = new Map<string, { readonly number: number; successes: number }>()
      let serial = 0
      const taken = (id: string): number => {
        const { number, successes } = periods.get(id)!
        return successes + live.filter(({ period }) => period === number).length
      }
      const call = (id: string): void => {
        const before = it.transport.sends.length
        const phase = phases().get(id)
        const room = phase === 'closed' || (phase === 'half-open' && taken(id) < trialsAllowed)
        it.start({}, { prefer: id })
        const send = it.transport.sends[before]
        if (!refused) expect(send?.to === id).toBe(room)
        if (send === undefined) return
        live.push({ send, period: phases().get(send.to) === 'half-open' ? periods.get(send.to)!.number : 0 })
      }
      const finish = async (index: number, how: number | 'reset' | 'abort'): Promise<void> => {
        const [{ send, period }] = live.splice(index % live.length, 1) as [(typeof live)[number]]
        const now = periods.get(send.to)
        if (how === 200 && period > 0 && period === now?.number && phases().get(send.to) === 'half-open')
          now.successes++
        if (how === 'abort') send.attempt.call.cancel(new Error('stop'))
        else if (how === 'reset') send.fail({ phase: 'head' })
        else send.answer(how)
        await it.clock.advance(0)
      }
      // Both have failed: the story begins with trials.
      for (const id of 'aabb') {
        call(id)
        await finish(0, 500)
      }
      await it.clock.advance(1_000)
      expect([...phases().values()]).toEqual(['half-open', 'half-open'])
      for (const id of 'ab') periods.set(id, { number: ++serial, successes: 0 })
      for (const next of steps) {
        const before = phases()
        if (next.kind === 'call') {
          refused = next.refused
          call(next.who)
          refused = false
          await it.clock.advance(0)
        } else if (next.kind === 'calls') for (let i = 0; i < 4; i++) call(next.who)
        else if (next.kind === 'end') live.length > 0 && (await finish(next.index, next.how))
        else if (next.kind === 'advance') await it.clock.advance(next.ms)
        else if (next.kind === 'update') await it.balancer.update(it.config({ ids: next.ids, ...parts }))
        else if (before.has(next.who)) breaker[next.kind](next.who)
        const after = phases()
        for (const [id, phase] of after) {
          const was = before.get(id)
          if (was === phase) continue
          if (phase === 'half-open') periods.set(id, { number: ++serial, successes: 0 })
          expect(EDGES[next.kind]).toContain(`${was} ${phase}`)
        }
        for (const id of before.keys()) if (!after.has(id)) periods.delete(id)
        for (const [id, phase] of after) if (phase === 'half-open') expect(taken(id)).toBeLessThanOrEqual(trialsAllowed)
      }
      while (live.length > 0) await finish(0, 200)
      const { inflight, backends } = it.balancer.stats().pools.default!
      expect([inflight, ...backends.map((backend) => backend.inflight)].every((n) => n === 0)).toBe(true)
      await it.balancer.close()
      expect(it.clock.pending).toBe(0)
    }),
    { numRuns: 300 },
  )
})
