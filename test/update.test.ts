import type { ServerResponse } from 'node:http'
import {
  type Backend,
  BalancerError,
  type BalancerOptions,
  createBalancer,
  type Policy,
  type PoolSettings,
  type Strategy,
  type Watcher,
} from 'evenkeel'
import { describe, expect, onTestFinished, test } from 'vitest'
import { balancerBench } from './support/balancer-bench.ts'
import { status } from './support/plays.ts'
import { balancerError, type ScriptedTransport, scripted } from './support/scripted.ts'
import { told, updateStory } from './support/update-story.ts'
import { balance, inflight, keeper, until, upstream } from './support/upstreams.ts'

const SECONDS = 3

/** Keeps a log of its starts and stops, and the backends it was told of. */
function witness(name: string, log: string[], seen: { members?: readonly Backend[] } = {}): Watcher {
  return {
    name,
    start: () => {
      log.push(`start ${name}`)
      return {
        members: (all) => {
          seen.members = all
        },
        stop: () => void log.push(`stop ${name}`),
      }
    },
  }
}

const throwing = (): never => {
  throw new Error('a part of mine is broken')
}

describe('an update that is wrong', () => {
  const strategy = (start: Strategy['start']): Strategy => ({ name: 'broken', start })
  const policy: Policy = { name: 'broken', scope: 'pool', wrap: throwing }
  const attemptPolicy: Policy = { name: 'broken', scope: 'attempt', wrap: throwing }
  const watcher: Watcher = { name: 'broken', start: throwing }
  const wrong: readonly [string, PoolSettings][] = [
    ['a validation error', { retry: { attempts: 0 } }],
    ['a strategy whose start throws', { strategy: strategy(throwing) }],
    ['a strategy whose build throws', { strategy: strategy(() => ({ build: throwing })) }],
    ['a pool policy whose wrap throws', { policies: [policy] }],
    ['an attempt policy whose wrap throws', { policies: [attemptPolicy] }],
    ['a watcher whose start throws', { watchers: [watcher] }],
  ]

  test.each(wrong)('by %s in the second of two pools rejects and changes nothing', async (what, broken) => {
    const log: string[] = []
    const [one, two]: { members?: readonly Backend[] }[] = [{}, {}]
    const kept = witness('kept', log, one)
    const alsoKept = witness('also kept', log, two)
    const first = { backends: ['http://a.test', 'http://b.test'], watchers: [kept] }
    const second = { backends: ['http://c.test', 'http://d.test'], watchers: [alsoKept] }
    const bench = balancerBench(status(200, 'ok'), { backends: undefined as never, pools: { first, second } })
    const { balancer, clock, transport } = bench
    onTestFinished(() => balancer.close())
    const events: string[] = []
    for (const event of ['added', 'removed', 'updated', 'blocked', 'unblocked'] as const)
      balancer.on(event, () => void events.push(event))
    for (const pool of ['first', 'second']) await bench.call({}, { pool })
    balancer.disable('b.test')
    events.length = 0
    const before = {
      stats: structuredClone(balancer.stats()),
      members: [one!.members, two!.members],
      timers: clock.pending,
    }
    const comes = witness('comes', log)
    const change: BalancerOptions = {
      name: 'other',
      transport,
      clock,
      pools: {
        first: { backends: ['http://b.test', 'http://x.test'], watchers: [kept, comes] },
        second: { backends: ['http://c.test', 'http://y.test'], watchers: [comes, alsoKept], ...broken },
        third: { backends: ['http://z.test'], watchers: [comes] },
      },
    }
    await expect(balancer.update(change)).rejects.toThrow(
      what === 'a validation error'
        ? /pools\.second\.retry\.attempts/
        : /^(strategy|policy|watcher) broken: (start|build|wrap) failed$/,
    )
    expect(balancer.name).toBe('evenkeel')
    expect(balancer.stats()).toEqual(before.stats)
    expect(one!.members).toBe(before.members[0])
    expect(two!.members).toBe(before.members[1])
    expect([...one!.members!, ...two!.members!].some(({ removed }) => removed)).toBe(false)
    expect(events).toEqual([])
    expect(transport.forgotten).toEqual([])
    expect(clock.pending).toBe(before.timers)
    const started = log.filter((line) => line === 'start comes').length
    expect(log.filter((line) => line === 'stop comes')).toHaveLength(started)
    expect(log.filter((line) => /^stop (also )?kept/.test(line))).toEqual([])
    // It goes on as before, and takes the next right one.
    expect((await bench.call({}, { pool: 'second' })).response?.status).toBe(200)
    expect(() => balancer.acquire({ pool: 'third' })).toThrow('no pool is named "third"')
    await balancer.update({ transport, clock, backends: ['http://x.test'] })
    expect((await bench.call()).response?.status).toBe(200)
  })

  test('is told as a BalancerError CONFIG when it is the configuration', async () => {
    const { balancer } = balancerBench(status(200))
    const error = await balancerError(balancer.update({ backends: [{ url: 'http://a.test', weight: -1 }] }))
    expect(error).toMatchObject({ code: 'CONFIG' })
    expect(error.message).toContain('backends[0].weight')
  })

  test('with settings besides what is wrong leaves no trace in the next right one either', async () => {
    const { balancer, call, clock, transport } = balancerBench((send) => send.refuse(), {
      ids: 'ab',
      retry: { attempts: 1 },
      health: { passive: { consecutive: 1 }, panicBelow: 0 },
    })
    const right: BalancerOptions = {
      backends: ['a', 'b'].map((id) => ({ url: `http://${id}.test`, id })),
      strategy: 'round-robin',
      transport,
      clock,
      retry: { attempts: 1 },
      health: { passive: { consecutive: 1 }, panicBelow: 0 },
    }
    await call()
    const before = balancer.stats().pools.default!.backends.map(({ reasons }) => reasons)
    expect(before.flat()).toHaveLength(1)
    const broken = { ...right, health: { passive: { consecutive: 7 } }, watchers: [watcher] }
    await expect(balancer.update(broken)).rejects.toThrow('watcher broken: start failed')
    await balancer.update(right)
    expect(balancer.stats().pools.default!.backends.map(({ reasons }) => reasons)).toEqual(before)
  })
})

describe('an update', () => {
  test('keeps the live records of who stays: counters, latency, reasons; another URL is a removal and an addition', async () => {
    const seen: { members?: readonly Backend[] } = {}
    const registrar = witness('registrar', [], seen)
    const bench = balancerBench((send) => send.answer(200, 'ok'), { watchers: [registrar] })
    const { balancer, clock, transport } = bench
    for (let i = 0; i < 6; i++) await bench.call()
    balancer.disable('b')
    const events: string[] = []
    for (const event of ['added', 'removed', 'updated'] as const)
      balancer.on(event, ({ id, endpoint }) => void events.push(`${event} ${id} ${endpoint.url}`))
    const [a, b, c] = seen.members!
    const before = balancer.stats().pools.default!.backends
    await balancer.update({
      strategy: 'round-robin',
      transport,
      clock,
      watchers: [registrar],
      backends: [
        { url: 'http://d.test', id: 'd' },
        { url: 'http://a.test', id: 'a', weight: 3 },
        { url: 'http://b.test', id: 'b' },
        { url: 'http://moved.test', id: 'c' },
      ],
    })
    expect(events).toEqual([
      'removed c http://c.test',
      'added d http://d.test',
      'added c http://moved.test',
      'updated a http://a.test',
    ])
    const [d2, a2, b2, c2] = seen.members!
    expect([a2, b2]).toEqual([a, b])
    expect(a2).toBe(a)
    expect(b2).toBe(b)
    expect(c2).not.toBe(c)
    expect([c!.removed, d2!.removed, c2!.removed]).toEqual([true, false, false])
    const after = balancer.stats().pools.default!.backends
    expect(after[1]).toEqual({ ...before[0], weight: 3 })
    expect(after[2]).toEqual(before[1])
    expect(after[3]).toMatchObject({ requests: 0, url: 'http://moved.test', reasons: [], classes: {} })
    expect(transport.forgotten).toEqual(['c'])
  })

  test('lets old requests finish where they are, and sends none to who is gone', async () => {
    const waiting: ServerResponse[] = []
    const old = await keeper((_, response) => void waiting.push(response))
    const young = await keeper()
    const balancer = balance([old])
    const answers = Array.from({ length: 10 }, () => balancer.fetch('/').then((response) => response.text()))
    await until(() => waiting.length === 10, 'they did not arrive')
    await balancer.update({ backends: [young.url] })
    for (let i = 0; i < 20; i++) await (await balancer.fetch('/')).text()
    expect(old.got).toHaveLength(10)
    expect(young.got).toHaveLength(20)
    expect(inflight(balancer)).toBe(10)
    for (const response of waiting) response.end('from the old one')
    expect(await Promise.all(answers)).toEqual(Array(10).fill('from the old one'))
    await until(() => inflight(balancer) === 0, 'a lease was not given back')
  })

  test('closes the connections to who is gone when its last request is over', async () => {
    let open = 0
    let waiting: ServerResponse | undefined
    const old = await upstream((request, response) => {
      if (request.url === '/slow') waiting = response
      else response.end('ok')
    })
    old.server.on('connection', (socket) => {
      open++
      socket.on('close', () => open--)
    })
    const young = await keeper()
    const balancer = balance([old])
    const slow = balancer.fetch('/slow').then((response) => response.text())
    await until(() => waiting !== undefined, 'it did not arrive')
    await (await balancer.fetch('/')).text()
    expect(open).toBe(2)
    await balancer.update({ backends: [young.url] })
    waiting!.end('ok')
    expect(await slow).toBe('ok')
    await until(() => open === 0, 'a connection stayed open')
  })

  test('with other transport settings moves new requests to new connections, and the old ones close', async () => {
    const sockets = new Set<unknown>()
    let all = 0
    let waiting: ServerResponse | undefined
    const { url, server } = await upstream((request, response) => {
      if (request.url === '/slow') waiting = response
      else response.end('ok')
    })
    server.on('connection', (socket) => {
      all++
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
    })
    const balancer = balance([url])
    const slow = balancer.fetch('/slow').then((response) => response.text())
    await until(() => waiting !== undefined, 'it did not arrive')
    await (await balancer.fetch('/')).text()
    const before = balancer.stats().pools.default!.backends[0]!
    await balancer.update({ backends: [url], undici: { connections: 7 } })
    await (await balancer.fetch('/')).text()
    await (await balancer.fetch('/')).text()
    expect(all).toBe(3)
    waiting!.end('ok')
    expect(await slow).toBe('ok')
    await until(() => sockets.size === 1, 'the old connections stayed open')
    const after = balancer.stats().pools.default!.backends[0]!
    expect(after.requests).toBe(before.requests + 2)
    await balancer.update({ backends: [url], undici: { connections: 7 } })
    await (await balancer.fetch('/')).text()
    expect(all).toBe(3) // equal settings keep the connections
  })

  test('while a retry pauses: it goes to who is there now', async () => {
    const bench = balancerBench((send) => (send.to === 'a' ? send.refuse() : send.answer(200, 'ok')), {
      ids: 'a',
      retry: { baseMs: 1_000, maxMs: 1_000 },
      random: (below) => below - 1,
    })
    const { ended } = bench.start()
    await bench.clock.advance(1)
    const { transport, clock } = bench
    await bench.balancer.update({ transport, clock, backends: [{ url: 'http://b.test', id: 'b' }] })
    expect((await bench.until(ended)).response?.status).toBe(200)
    expect(bench.to()).toBe('ab')
  })

  test('may take a whole pool away: its calls end, new ones are told', async () => {
    const transport: ScriptedTransport = scripted()
    const pools = { one: { backends: ['http://a.test'] }, two: { backends: ['http://b.test'] } }
    const balancer = createBalancer({ pools, transport })
    onTestFinished(() => balancer.close())
    const answer = balancer.fetch('/', { balancer: { pool: 'two' } }).then((response) => response.text())
    await balancer.update({ pools: { one: pools.one }, transport })
    expect(Object.keys(balancer.stats().pools)).toEqual(['one'])
    await expect(balancer.fetch('/', { balancer: { pool: 'two' } })).rejects.toThrow('no pool is named "two"')
    transport.last().answer(200, 'late')
    expect(await answer).toBe('late')
    expect(transport.forgotten).toEqual(['b.test'])
  })

  test('after close rejects with CLOSED', async () => {
    const balancer = createBalancer({ backends: ['http://a.test'] })
    await balancer.close()
    const error = await balancerError(balancer.update({ backends: ['http://b.test'] }))
    expect(error).toBeInstanceOf(BalancerError)
    expect(error.code).toBe('CLOSED')
  })
})

test(`an update every 100 ms for ${SECONDS} s at 64 in flight: nothing fails, nothing strays, nothing is lost`, async () => {
  const story = await updateStory(SECONDS)
  console.log(`updates under load: ${told(story)}`)
  expect(story.failed).toEqual([])
  expect(story).toMatchObject({ strays: 0, lost: 0, inflight: 0 })
  expect(story.requests).toBeGreaterThan(100)
  for (const kind of ['added', 'removed', 'moved', 'reweighed', 'kept'] as const) {
    expect(story[kind], kind).toBeGreaterThan(0)
  }
  expect(story.heapMiB).toBeLessThan(8)
})
