import type { ServerResponse } from 'node:http'
import type { Call, CallOptions } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { LiveCall } from '../../src/core/call.ts'
import type { Criticality, Endpoint } from '../../src/core/contracts.ts'
import { limit } from '../../src/policies/limit.ts'
import { type RetrySettings, retry } from '../../src/policies/retry.ts'
import { deadline } from '../../src/policies/timeout.ts'
import { limitBench, line, QUEUE, type Started, states } from '../support/limit-bench.ts'
import { endpoint, endpoints } from '../support/pool-bench.ts'
import type { ScriptedSend } from '../support/scripted.ts'
import { ask, balance, front, type Upstream, until, upstream } from '../support/upstreams.ts'

const RETRY: RetrySettings = {
  attempts: 2,
  status: [503],
  baseMs: 10,
  sameBaseMs: 10,
  maxMs: 10,
  jitter: 'full',
  waitMs: 0,
}

describe('when its settings change', () => {
  test('those who wait go on at once, and calls in flight end as they began', async () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE })
    const all = await line(it, 'default', 'default', 'default')
    const next = limit({ maxInflight: 1, queue: QUEUE })
    it.reconfigure({ policies: [next.policy], watchers: [next.watcher] }, endpoints('a'))
    expect(states(...all)).toBe('sent sent sent')
    const later = [it.start(), it.start()]
    expect(states(...later)).toBe('sent waits') // the new limit counts its own calls
    for (const started of [...all, ...later]) await it.answer(started)
    expect(states(...all, ...later)).toBe('200 200 200 200 200')
  })

  test('those who wait for full backends are refused by them', async () => {
    const it = limitBench({ queue: QUEUE }, [endpoint('a', { maxInflight: 1 })])
    const all = await line(it, 'default', 'default')
    it.reconfigure({ policies: [], watchers: [] }, [endpoint('a', { maxInflight: 1 })])
    await it.settle()
    expect(states(...all)).toBe('sent OVERLOADED')
    expect(it.pool.totals.shed).toBe(1)
  })

  test('closing leaves nobody behind', async () => {
    const it = limitBench({ maxInflight: 1, queue: QUEUE })
    const all = await line(it, 'default', 'default')
    it.pool.close()
    it.pool.close()
    for (const started of all) await it.answer(started)
    expect(states(...all)).toBe('200 200')
  })

  test('one that is taken up again works as before', async () => {
    const { policy, watcher } = limit({ maxInflight: 1, queue: QUEUE })
    const it = limitBench({})
    const on = { policies: [policy], watchers: [watcher] }
    it.reconfigure(on, endpoints('a'))
    const first = it.start()
    it.reconfigure({ policies: [], watchers: [] }, endpoints('a'))
    it.reconfigure(on, endpoints('a'))
    const second = it.start()
    expect(states(first, second)).toBe('sent waits')
    await it.answer(first)
    expect(second.now()).toBe('sent')
  })
})

describe('any interleaving', () => {
  const criticality = fc.constantFrom<Criticality>('critical', 'default', 'default', 'sheddable')
  const which = fc.nat(20)
  const step = fc.oneof(
    { weight: 8, arbitrary: fc.record({ do: fc.constant('arrive' as const), criticality, gpu: fc.boolean() }) },
    {
      weight: 5,
      arbitrary: fc.record({ do: fc.constantFrom('answer' as const, 'fail' as const, 'cancel' as const), which }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1, 30, 100) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('update' as const), most: fc.integer({ min: 1, max: 4 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('apply' as const), room: fc.nat(3) }) },
  )
  const order = fc.constantFrom('fifo' as const, 'lifo' as const, 'adaptive' as const)
  const backends = (room: number): Endpoint[] => [
    endpoint('a', { tags: ['gpu'], ...(room < 3 && { maxInflight: 1 }) }),
    endpoint('b', room > 0 ? { maxInflight: room } : {}),
  ]

  test('keeps to its limits, lets nobody wait in vain, and loses no slot: 1 000 of them', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), order, fc.nat(4), async (steps, order, size) => {
        const made = (maxInflight: number): ReturnType<typeof limit> =>
          limit({ maxInflight, queue: size > 0 && { size, timeoutMs: 100, order, overloadMs: 20 } })
        const again = retry(RETRY)
        const first = made(2)
        const it = limitBench({}, backends(1))
        let most = 2
        let room = 1
        let mine: Started[] = [] // who came under the limit of the moment
        const all: Started[] = []
        const ends = new Map<LiveCall, number>()
        const use = ({ policy, watcher }: ReturnType<typeof limit>): void => {
          it.reconfigure({ policies: [deadline(), policy, again], watchers: [watcher] }, backends(room))
          mine = []
        }
        use(first)
        const arrive = (options: CallOptions): Started => {
          const started = it.start(options)
          started.call.onEnd(() => ends.set(started.call, (ends.get(started.call) ?? 0) + 1))
          all.push(started)
          mine.push(started)
          return started
        }
        const open = (): ScriptedSend[] => it.transport.sends.filter(({ attempt }) => attempt.outcome === undefined)
        const check = (): void => {
          const live = mine.filter(({ call }) => !ends.has(call))
          const inflight = live.filter(({ call }) => call.attempts.length > 0).length
          const waiting = live.filter(({ call }) => call.attempts.length === 0)
          expect(inflight).toBeLessThanOrEqual(most)
          expect(waiting.length).toBeLessThanOrEqual(size)
          for (const { call } of waiting) {
            const tag = call.tags[0]
            const free = it.pool.records.some(
              ({ endpoint: { tags }, inflight: busy, limit: top }) =>
                busy < top && (tag === undefined || tags?.includes(tag)),
            )
            expect(inflight < most && free, 'there is room, and somebody waits').toBe(false)
          }
        }
        for (const now of steps) {
          if (now.do === 'arrive') arrive({ criticality: now.criticality, tags: now.gpu ? ['gpu'] : [] })
          else if (now.do === 'answer') open()[now.which]?.answer()
          else if (now.do === 'fail') open()[now.which]?.refuse()
          else if (now.do === 'cancel') all[now.which]?.call.cancel(new Error('stop'))
          else if (now.do === 'wait') await it.clock.advance(now.ms)
          else if (now.do === 'apply') {
            room = now.room
            it.pool.apply(backends(room))
          } else if (now.do === 'update') {
            most = now.most
            use(made(most))
          }
          await it.settle()
          check()
        }
        for (let round = 0; round < all.length + 5; round++) {
          for (const send of open()) send.answer()
          await it.clock.advance(25) // longer than the pause of a retry
        }
        expect(all.map(({ call }) => ends.get(call))).toEqual(all.map(() => 1))
        expect(it.pool.inflight).toBe(0)
        it.pool.apply(endpoints('a', 'b')) // as many slots as there ever were
        const last = Array.from({ length: most + 1 }, () => arrive({ criticality: 'sheddable' }))
        await it.settle()
        expect(states(...last)).toBe(`${'sent '.repeat(most)}OVERLOADED`)
        const closedOn = Array.from({ length: 3 }, () => arrive({}))
        it.pool.close()
        await it.settle()
        expect(closedOn.filter(({ now }) => now() === 'waits')).toEqual([])
        for (const send of open()) send.answer()
        await it.clock.advance(10_000)
        expect(all.map(({ call }) => ends.get(call))).toEqual(all.map(() => 1))
        expect([it.pool.inflight, it.clock.pending]).toEqual([0, 0])
      }),
      { numRuns: 1_000, seed: 5 },
    )
  })
})

describe('under three times the load it can bear', () => {
  const CAPACITY = 10 // at once
  const SERVICE_MS = 100
  const PER_S = (CAPACITY * 1_000) / SERVICE_MS
  const SHARES: readonly (readonly [Criticality, number])[] = [
    ['critical', 20],
    ['default', 60],
    ['sheddable', 20],
  ]

  interface Served {
    readonly criticality: Criticality
    readonly atMs: number
    /** Until it was sent; undefined if it was not. */
    waitedMs?: number
    status?: string
    endMs?: number
  }

  test('for a minute it does its work, keeps its promise of time, spares the critical, and recovers at once', async () => {
    const random = seededRandom(11)
    const it = limitBench({ maxInflight: CAPACITY, queue: { ...QUEUE, size: 50, order: 'adaptive' } }, ['a'], {
      // Who is asked too much gets slower, and does no more for it.
      play: (send) => {
        const slowed = Math.max(1, send.attempt.backend.inflight / CAPACITY)
        it.clock.after(SERVICE_MS * slowed, () => send.answer())
      },
    })
    const served: Served[] = []
    const offer = async (perS: number, seconds: number): Promise<Served[]> => {
      const from = served.length
      const untilMs = it.clock.now() + seconds * 1_000
      for (;;) {
        await it.clock.advance((-Math.log((random(1 << 20) + 1) / (1 << 20)) * 1_000) / perS) // Poisson
        if (it.clock.now() >= untilMs) return served.slice(from)
        const drawn = random(100)
        const criticality = drawn < 20 ? 'critical' : drawn < 80 ? 'default' : 'sheddable'
        const one: Served = { criticality, atMs: it.clock.now() }
        served.push(one)
        const call = it.callOf({ criticality })
        const over = (status: string) => (): void => {
          one.status = status
          one.endMs = it.clock.now()
          if (call.attempts.length > 0) one.waitedMs = call.attempts[0]!.startMs - one.atMs
        }
        it.send({}, call).then(over('served'), over('shed'))
      }
    }
    const overload = await offer(3 * PER_S, 60)
    const recovery = await offer(PER_S / 2, 10)
    await it.clock.advance(5_000)

    const good = overload.filter(({ status, endMs }) => status === 'served' && endMs! <= 61_000) // the clock starts at 1 000
    const lost = (calls: readonly Served[], criticality: Criticality): number => {
      const mine = calls.filter((one) => one.criticality === criticality)
      return mine.filter(({ status }) => status === 'shed').length / mine.length
    }
    const longestMs = Math.round(Math.max(...overload.map(({ atMs, endMs, waitedMs }) => waitedMs ?? endMs! - atMs)))
    const settled = recovery.filter(({ atMs }) => atMs >= recovery[0]!.atMs + 1_000)
    const lostLater = settled.filter(({ status }) => status === 'shed').length
    const share = good.length / (60 * PER_S)
    console.info(
      `overload: ${overload.length} calls in 60 s, goodput ${(100 * share).toFixed(1)} % of capacity, longest wait ${longestMs} ms, ` +
        `lost: ${SHARES.map(([name]) => `${name} ${(100 * lost(overload, name)).toFixed(1)} %`).join(', ')}; ` +
        `a second later at half load: ${lostLater} of ${settled.length} lost, ` +
        `longest wait ${Math.max(...settled.map(({ waitedMs }) => waitedMs ?? 0)).toFixed(0)} ms`,
    )
    expect(served.every(({ status }) => status !== undefined)).toBe(true)
    expect(share).toBeGreaterThan(0.95)
    expect(longestMs).toBeLessThanOrEqual(QUEUE.timeoutMs)
    expect(lost(overload, 'critical')).toBeLessThan(0.01)
    expect(lost(overload, 'default')).toBeGreaterThan(0.5)
    expect(lost(overload, 'sheddable')).toBeGreaterThan(lost(overload, 'default'))
    expect(lostLater / settled.length).toBeLessThan(0.01)
    expect(it.pool.totals.queued).toBeGreaterThan(5_000)
    expect([it.pool.inflight, it.clock.pending]).toEqual([0, 0])
  })
})

describe('over real sockets', () => {
  const ONE = { maxInflight: 1, queue: { size: 1, timeoutMs: 60_000 } }

  /** A backend that answers when it is told to. */
  async function held(): Promise<Upstream & { readonly held: ServerResponse[]; most(): number }> {
    const waiting: ServerResponse[] = []
    let most = 0
    const made = await upstream((_, response) => {
      waiting.push(response)
      most = Math.max(most, waiting.filter(({ writableEnded }) => !writableEnded).length)
    })
    return { ...made, held: waiting, most: () => most }
  }

  test('a backend never has more in hand than the limit, and everybody who can wait is served', async () => {
    const backend = await held()
    const balancer = balance([backend], { limits: { maxInflight: 2, queue: { size: 20, timeoutMs: 60_000 } } })
    const texts = Array.from({ length: 20 }, async () => (await balancer.fetch('/')).text())
    for (let n = 0; n < 20; n++) {
      await until(() => backend.held.length > n, `request ${n} never came`)
      backend.held[n]!.end('ok')
    }
    expect(await Promise.all(texts)).toEqual(Array(20).fill('ok'))
    expect(backend.most()).toBe(2)
  })

  test('who leaves the queue has its own reason, and never reaches the backend', async () => {
    const backend = await held()
    const balancer = balance([backend], { limits: ONE })
    const first = balancer.fetch('/first')
    const abort = new AbortController()
    const second = balancer.fetch('/second', { signal: abort.signal })
    abort.abort(new Error('stop'))
    await expect(second).rejects.toThrow('stop')
    await until(() => backend.held.length === 1, 'the first never came')
    const third = balancer.fetch('/third')
    const closed = balancer.close()
    for (const call of [first, third]) await expect(call).rejects.toMatchObject({ code: 'CLOSED' })
    await closed
    expect(backend.held).toHaveLength(1)
  })

  test('the proxy answers who is refused with 503 and a Retry-After', async () => {
    const backend = await held()
    const balancer = balance([backend], { limits: { maxInflight: 1 } })
    const shed: Call[] = []
    balancer.on('shed', (call) => void shed.push(call))
    const proxy = await front(balancer)
    const first = ask(proxy, '/first')
    await until(() => backend.held.length === 1, 'the first never came')
    expect(await ask(proxy, '/second')).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    expect(shed).toHaveLength(1)
    backend.held[0]!.end('ok')
    expect((await first).status).toBe(200)
  })
})
