// Long, because it is one list: everything the metrics promise.
import { setImmediate } from 'node:timers/promises'
import {
  type Balancer,
  type BalancerOptions,
  CLASSES,
  circuitBreaker,
  createBalancer,
  memory,
  type Watcher,
} from 'evenkeel'
import { type Collected, collect } from 'evenkeel/prometheus'
import { manualClock } from 'evenkeel/testing'
import { AggregatorRegistry, Gauge, Registry, type RegistryContentType } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { type BalancerBenchOptions, balancerBench } from './support/balancer-bench.ts'
import { familiesOf, valuesOf } from './support/exposition.ts'
import { hedging, inTime } from './support/hedge-bench.ts'
import type { ScriptedSend } from './support/scripted.ts'
import { balance, idle, keeper, nobody, upstream } from './support/upstreams.ts'

type Values = Readonly<Record<string, number>>

/** A registry with a balancer in it. `read` scrapes, and gives a metric's values by the given labels. */
function collected(balancer: Collected): {
  readonly registry: Registry
  read(name: string, ...labels: readonly string[]): Promise<Values>
  /** Without what is 0. */
  some(name: string, ...labels: readonly string[]): Promise<Values>
} {
  const registry = new Registry()
  collect(balancer, { registry })
  const read = async (name: string, ...labels: readonly string[]): Promise<Values> =>
    valuesOf(await registry.metrics(), `evenkeel_${name}`, ...labels)
  const some = async (name: string, ...labels: readonly string[]): Promise<Values> =>
    Object.fromEntries(Object.entries(await read(name, ...labels)).filter(([, value]) => value !== 0))
  return { registry, read, some }
}

function bench(play?: (send: ScriptedSend, number: number) => void, options?: BalancerBenchOptions) {
  const it = balancerBench(play, options)
  return { ...it, ...collected(it.balancer) }
}

describe('requests over real sockets', () => {
  test('are counted by class, per backend and per pool, just as many as were sent', async () => {
    const backend = await keeper((request, response) => {
      response.statusCode = Number(request.url!.slice(1))
      response.end('x')
    })
    const dead = await nobody()
    const options: BalancerOptions = { retry: { attempts: 1 }, health: { passive: false, cooldown: false } }
    const balancer = balance([], {
      ...options,
      pools: {
        good: { backends: [{ id: 'good', url: backend.url }] },
        dead: { backends: [{ id: 'dead', url: dead.url }] },
      },
      backends: undefined,
    } as never)
    const { read, some } = collected(balancer)
    const sent: Record<number, number> = { 200: 7, 204: 1, 404: 5, 403: 2, 401: 3, 429: 4, 500: 6 }
    for (const [status, times] of Object.entries(sent)) {
      for (let i = 0; i < times; i++) await (await balancer.fetch(`/${status}`)).arrayBuffer()
    }
    for (let i = 0; i < 3; i++) {
      await expect(balancer.fetch('/', { balancer: { pool: 'dead' } })).rejects.toThrow(/ECONNREFUSED/)
    }
    await idle(balancer)
    const expected = { ok: 8, 'client-error': 5, forbidden: 2, auth: 3, 'rate-limited': 4, 'server-error': 6 }
    const byClass = Object.fromEntries(Object.entries(expected).map(([kind, count]) => [`good,${kind}`, count]))
    expect(await some('requests_total', 'pool', 'class')).toEqual({ ...byClass, 'dead,connect': 3 })
    expect(await some('backend_requests_total', 'backend', 'class')).toEqual({ ...byClass, 'dead,connect': 3 })
    expect(await read('backend_selections_total', 'backend')).toEqual({ good: 28, dead: 3 })
    expect(await read('selections_total', 'pool')).toEqual({ good: 28, dead: 3 })
    expect(await some('calls_total', 'pool', 'result')).toEqual({ 'good,answered': 28, 'dead,failed': 3 })
    expect(await read('backend_request_duration_seconds_count', 'backend')).toEqual({ good: 28, dead: 3 })
    expect(await read('backend_request_first_byte_seconds_count', 'backend')).toEqual({ good: 28, dead: 0 })
    expect(await read('call_duration_seconds_count', 'pool')).toEqual({ good: 28, dead: 3 })
    expect(backend.got.length).toBe(28)
  })

  test('are in flight until their last byte, on a connection that is busy; then it is idle, and in the end closed', async () => {
    let finish = (): void => {}
    const backend = await upstream((_, response) => {
      response.write('x')
      finish = () => void response.end()
    })
    const balancer = balance([backend])
    const { read, some } = collected(balancer)
    expect(await read('backend_connections', 'state')).toEqual({ busy: 0, idle: 0 })
    const response = await balancer.fetch('/')
    expect(await read('requests_in_flight', 'pool')).toEqual({ default: 1 })
    expect(Object.values(await read('backend_requests_in_flight', 'backend'))).toEqual([1])
    expect(await read('backend_connections', 'state')).toEqual({ busy: 1, idle: 0 })
    expect(await some('requests_total', 'class')).toEqual({}) // it has not ended yet
    finish()
    await response.text()
    await idle(balancer)
    expect(await read('requests_in_flight', 'pool')).toEqual({ default: 0 })
    await expect.poll(() => read('backend_connections', 'state')).toEqual({ busy: 0, idle: 1 })
    backend.server.closeAllConnections()
    await expect.poll(() => read('backend_connections', 'state')).toEqual({ busy: 0, idle: 0 })
  })

  test('given up by their caller are calls that were aborted, and requests that were cancelled', async () => {
    const backend = await upstream(() => {})
    const balancer = balance([backend])
    const { some } = collected(balancer)
    await expect(balancer.fetch('/', { signal: AbortSignal.timeout(20) })).rejects.toThrow('timeout')
    await idle(balancer)
    expect(await some('calls_total', 'result')).toEqual({ aborted: 1 })
    expect(await some('requests_total', 'class')).toEqual({ cancelled: 1 })
  })
})

describe('durations', () => {
  test('are those of the clock: to the first byte and to the last, of a request and of a call', async () => {
    const { start, clock, transport, read } = bench(undefined, { ids: 'a', timeouts: { idleMs: 0, headersMs: 0 } })
    start()
    await clock.advance(30)
    const body = transport.last().head(200)
    await clock.advance(20)
    body.push('first')
    await clock.advance(69_950)
    body.end()
    start() // without a body: its head is all there is
    await clock.advance(40)
    transport.last().answer(204)
    await clock.advance(0)
    start() // ends before its head
    await clock.advance(5)
    transport.last().fail({ phase: 'head' })
    await clock.advance(0)
    const sums = async (name: string): Promise<unknown> => [
      (await read(`${name}_sum`, 'pool')).default,
      (await read(`${name}_count`, 'pool')).default,
    ]
    expect(await sums('request_duration_seconds')).toEqual([70.045, 3])
    expect(await sums('backend_request_duration_seconds')).toEqual([70.045, 3])
    expect(await sums('request_first_byte_seconds')).toEqual([0.09, 2])
    const buckets = await read('backend_request_duration_seconds_bucket', 'le')
    expect(buckets).toEqual({
      ...{ 0.005: 1, 0.01: 1, 0.025: 1, 0.05: 2, 0.1: 2, 0.25: 2, 0.5: 2, 1: 2, 2.5: 2, 5: 2, 10: 2, 30: 2, 60: 2 },
      ...{ 120: 3, 300: 3, '+Inf': 3 },
    })
  })

  test('of a call hold its pauses and repeats, and the time it waited in vain', async () => {
    const { call, read, clock } = bench((send, number) => (number === 1 ? send.refuse() : send.answer()), {
      retry: { baseMs: 100, jitter: 'none' },
    })
    await call()
    expect(await read('call_duration_seconds_sum', 'pool')).toEqual({ default: 0.1 })
    expect(await read('request_duration_seconds_sum', 'pool')).toEqual({ default: 0 })
    expect(clock.now()).toBe(1_100)
  })

  test('longer than any bucket are in the last one alone', async () => {
    const { start, clock, transport, read } = bench(undefined, { ids: 'a', timeouts: { headersMs: 0 } })
    start()
    await clock.advance(0)
    transport.last().connect()
    await clock.advance(301_000)
    transport.last().answer()
    await clock.advance(0)
    const buckets = await read('request_duration_seconds_bucket', 'le')
    expect([buckets['300'], buckets['+Inf']]).toEqual([0, 1])
  })
})

describe('repeats', () => {
  test('are counted by what went wrong before, and take from the budget', async () => {
    const failing = (send: ScriptedSend, number: number): void => {
      if (number % 3 === 1) send.refuse()
      else if (number % 3 === 2) send.answer(503)
      else send.answer()
    }
    const { call, some, read } = bench(failing, {
      retry: { baseMs: 0, budget: { perSecond: 1, share: 1, windowMs: 10_000 } },
    })
    for (let i = 0; i < 5; i++) expect((await call()).response?.status).toBe(200)
    expect(await some('retries_total', 'class')).toEqual({ connect: 5, 'server-error': 5 })
    expect(await some('calls_total', 'result')).toEqual({ answered: 5 })
    expect(await read('retry_budget_left', 'pool')).toEqual({ default: 10 + 5 - 10 })
    expect(await read('retries_exhausted_total', 'pool')).toEqual({ default: 0 })
  })

  test('that were given up are counted as exhausted', async () => {
    const { call, read, some } = bench((send) => send.refuse(), { retry: { attempts: 2, baseMs: 0 } })
    await call()
    expect(await read('retries_exhausted_total', 'pool')).toEqual({ default: 1 })
    expect(await some('calls_total', 'result')).toEqual({ failed: 1 })
  })

  test('of slow calls are hedges, and some of them win', async () => {
    const it: ReturnType<typeof hedging> = hedging(inTime(() => it, 500, 20, 60, 500))
    const { read } = collected(it.balancer)
    await it.call()
    await it.call()
    expect(await read('hedges_total', 'pool')).toEqual({ default: 2 })
    expect(await read('hedges_won_total', 'pool')).toEqual({ default: 1 })
  })
})

describe('what keeps a backend from its requests', () => {
  test('is told by reason, now, so far and for how long', async () => {
    const { balancer, call, clock, read, some } = bench(
      (send) => (send.to === 'a' ? send.answer(429, '', ['retry-after', '10']) : send.answer()),
      { health: { panicBelow: 0 } },
    )
    for (let i = 0; i < 4; i++) await call()
    balancer.disable('b')
    expect(await read('backend_up', 'backend')).toEqual({ a: 0, b: 0, c: 1 })
    expect(await read('backends', 'state')).toEqual({ up: 1, blocked: 2, drained: 0 })
    expect(await some('backend_blocked', 'backend', 'reason')).toEqual({ 'a,rate-limit': 1, 'b,operator': 1 })
    const left = await read('backend_block_remaining_seconds', 'backend', 'reason')
    expect(Object.keys(left)).toEqual(['a,rate-limit'])
    expect(left['a,rate-limit']).toBeGreaterThanOrEqual(10)
    expect(left['a,rate-limit']).toBeLessThanOrEqual(11)
    await clock.advance(11_000)
    balancer.enable('b')
    balancer.disable('b')
    expect(await read('backend_blocked', 'backend', 'reason')).toEqual({ 'a,rate-limit': 0, 'b,operator': 1 })
    expect(await read('backend_blocks_total', 'backend', 'reason')).toEqual({ 'a,rate-limit': 1, 'b,operator': 2 })
    expect(await some('blocks_total', 'reason')).toEqual({ 'rate-limit': 1, operator: 2 })
    expect(await read('backend_block_remaining_seconds', 'backend')).toEqual({})
  })

  test('counts once when a reason is replaced by one of the same writer', async () => {
    let control: Parameters<Watcher['start']>[0] | undefined
    const watcher: Watcher = {
      name: 'mine',
      start(core) {
        control = core
        return { stop() {} }
      },
    }
    const { read } = bench(undefined, { watchers: [watcher] })
    const [backend] = control!.members().all
    for (const detail of ['once', 'more']) control!.control.block(backend!, { by: 'mine', hard: false, detail })
    expect(await read('backend_blocks_total', 'backend', 'reason')).toEqual({ 'a,mine': 1 })
  })

  test('is panic when too few are left', async () => {
    const { balancer, read } = bench(undefined, { watchers: [blocking(['a', 'b'])] })
    expect(await read('panic', 'pool')).toEqual({ default: 1 })
    await balancer.update({ backends: ['http://a.test'], watchers: [blocking([])] })
    expect(await read('panic', 'pool')).toEqual({ default: 0 })
  })

  test('is its breaker, by state; without one there is nothing to tell', async () => {
    const breaker = circuitBreaker({ trip: 'consecutive', consecutive: 2, openMs: 1_000, jitter: 0, trials: 1 })
    const { call, clock, read } = bench((send) => send.refuse(), {
      ids: 'a',
      watchers: [breaker],
      retry: { attempts: 1 },
      health: { passive: false, slowStart: false },
    })
    const state = async (): Promise<string> =>
      Object.entries(await read('backend_breaker_state', 'state'))
        .map(([name, value]) => `${name} ${value}`)
        .join(', ')
    expect(await state()).toBe('closed 1, open 0, half-open 0, isolated 0')
    await call()
    await call()
    expect(await state()).toBe('closed 0, open 1, half-open 0, isolated 0')
    await clock.advance(1_000)
    expect(await state()).toBe('closed 0, open 0, half-open 1, isolated 0')
    breaker.isolate('a')
    expect(await state()).toBe('closed 0, open 0, half-open 0, isolated 1')
    expect(await bench().read('backend_breaker_state', 'state')).toEqual({})
  })

  test('may be active checks: how many, how many of them bad, how long the last one took', async () => {
    const clock = manualClock()
    const transport = memory({ a: { headMs: 40 }, b: { status: 500 } }, { clock })
    const backends = [...'ab'].map((id) => ({ id, url: `http://${id}.test` }))
    const active = { intervalMs: 1_000, jitter: 0 }
    const balancer = createBalancer({ backends, transport, clock, health: { active } })
    const { read } = collected(balancer)
    expect(await read('backend_checks_total', 'backend')).toEqual({ a: 0, b: 0 })
    expect(await read('backend_check_duration_seconds', 'backend')).not.toHaveProperty('a')
    for (let i = 0; i < 3; i++) await clock.advance(1_100)
    expect(await read('backend_checks_total', 'backend')).toEqual({ a: 4, b: 4 })
    expect(await read('backend_check_failures_total', 'backend')).toEqual({ a: 0, b: 4 })
    expect(await read('backend_check_duration_seconds', 'backend')).toEqual({ a: 0.04, b: 0 })
    expect(await read('requests_total', 'class')).toEqual(Object.fromEntries(Object.keys(CLASSES).map((it) => [it, 0])))
    await balancer.close()
  })

  test('may be its limit', async () => {
    const { read } = bench(undefined, {
      backends: [{ id: 'a', url: 'http://a.test', maxInflight: 3 }, 'http://b.test'],
    })
    expect(await read('backend_requests_limit', 'backend')).toEqual({ a: 3 })
    expect(await read('backend_weight', 'backend')).toEqual({ a: 1, 'b.test': 1 })
  })
})

test('a queue is told by its length, by who came to wait and who was refused', async () => {
  const { start, clock, transport, read, some } = bench(undefined, {
    limits: { maxInflight: 1, queue: { size: 2, timeoutMs: 1_000 } },
  })
  for (let i = 0; i < 4; i++) start()
  await clock.advance(0)
  expect(await read('queue_length', 'pool')).toEqual({ default: 2 })
  expect(await read('calls_queued_total', 'pool')).toEqual({ default: 2 })
  expect(await read('calls_shed_total', 'pool')).toEqual({ default: 1 })
  transport.last().answer()
  await clock.advance(0)
  expect(await read('queue_length', 'pool')).toEqual({ default: 1 })
  await clock.advance(1_000)
  expect(await read('queue_length', 'pool')).toEqual({ default: 0 })
  expect(await read('calls_shed_total', 'pool')).toEqual({ default: 2 })
  expect(await some('calls_total', 'result')).toEqual({ answered: 1, failed: 2 })
})

describe('the configuration', () => {
  test('has a number that rises with each, and a count of those that were refused', async () => {
    const { balancer, read } = bench()
    expect(await read('config_revision', 'balancer')).toEqual({ evenkeel: 1 })
    await balancer.update({ backends: ['http://x.test'] })
    await expect(balancer.update({ backends: ['nonsense'] })).rejects.toThrow('backends[0]')
    expect(await read('config_revision', 'balancer')).toEqual({ evenkeel: 2 })
    expect(await read('config_reload_failures_total', 'balancer')).toEqual({ evenkeel: 1 })
  })

  test('is counted where no revisions are kept', async () => {
    const { balancer } = bench()
    const { read } = collected({ name: 'plain', updates: { applied: 5, refused: 2 }, stats: () => balancer.stats() })
    expect(await read('config_revision', 'balancer')).toEqual({ plain: 5 })
  })

  test('that drops a backend drops its series, and none of the pool’s counts', async () => {
    const { balancer, call, read, some, registry } = bench((send) => send.answer())
    for (let i = 0; i < 6; i++) await call()
    const pools = ['requests_total', 'selections_total', 'request_duration_seconds_count', 'calls_total'] as const
    const before = await Promise.all(pools.map((name) => some(name, 'pool', 'class', 'result')))
    await balancer.update({ backends: [{ id: 'a', url: 'http://a.test' }, 'http://new.test'] })
    expect(await registry.metrics()).not.toMatch(/backend="[bc]"/)
    expect(await read('backend_selections_total', 'backend')).toEqual({ a: 2, 'new.test': 0 })
    expect(await Promise.all(pools.map((name) => some(name, 'pool', 'class', 'result')))).toEqual(before)
    expect(await read('backends', 'state')).toEqual({ up: 2, blocked: 0, drained: 0 })
  })

  test('that gives a backend’s name to another address begins its counts anew', async () => {
    const { balancer, call, read } = bench((send) => send.answer(), { ids: 'a' })
    await call()
    await balancer.update({ backends: [{ id: 'a', url: 'http://elsewhere.test' }] })
    expect(await read('backend_selections_total', 'backend')).toEqual({ a: 0 })
    expect(await read('selections_total', 'pool')).toEqual({ default: 1 })
  })
})

describe('several balancers in one registry', () => {
  test('are told apart by their names, and leave one by one', async () => {
    const registry = new Registry()
    const answer = (send: ScriptedSend): void => send.answer()
    const [users, orders] = ['users', 'orders'].map((name) => balancerBench(answer, { name, ids: 'a' }))
    const stops = [users!, orders!].map(({ balancer }) => collect(balancer, { registry }))
    await users!.call()
    const counts = async (): Promise<Values> =>
      valuesOf(await registry.metrics(), 'evenkeel_backend_selections_total', 'balancer', 'backend')
    expect(await counts()).toEqual({ 'users,a': 1, 'orders,a': 0 })
    stops[0]!()
    stops[0]!()
    expect(await counts()).toEqual({ 'orders,a': 0 })
    stops[1]!()
    expect([await registry.metrics(), registry.getMetricsAsArray()]).toEqual(['\n', []])
    stops.push(collect(users!.balancer, { registry }))
    stops[0]!() // of a time that is over
    expect(await counts()).toEqual({ 'users,a': 1 })
  })

  test('need names of their own', () => {
    const registry = new Registry()
    collect(bench().balancer, { registry })
    expect(() => collect(bench().balancer, { registry })).toThrow(/a balancer named "evenkeel": expected another name/)
    expect(() => collect(bench().balancer, { registry, prefix: 'other' })).not.toThrow()
  })

  test('keep the label they came with, whatever they are called later', async () => {
    const { balancer, read } = bench()
    await balancer.update({ name: 'new', backends: ['http://a.test'] })
    expect(await read('panic', 'balancer')).toEqual({ evenkeel: 0 })
  })

  test('add up over the workers of a cluster', async () => {
    const answer = (send: ScriptedSend): void => send.answer()
    const workers = [bench(answer), bench(answer)]
    for (const { call } of workers) await call()
    const told = await Promise.all(workers.map(({ registry }) => registry.getMetricsAsJSON()))
    const text = await AggregatorRegistry.aggregate(structuredClone(told) as never).metrics()
    expect(valuesOf(text, 'evenkeel_selections_total', 'balancer', 'pool')).toEqual({ 'evenkeel,default': 2 })
    expect(valuesOf(text, 'evenkeel_config_revision', 'balancer')).toEqual({ evenkeel: 1 })
    expect(valuesOf(text, 'evenkeel_call_duration_seconds_bucket', 'le')['+Inf']).toBe(2)
  })
})

describe('a registry', () => {
  test('that cannot take the metrics stays as it was', async () => {
    const registry = new Registry()
    new Gauge({ name: 'evenkeel_panic', help: 'mine', registers: [registry] })
    const { balancer } = bench()
    expect(() => collect(balancer, { registry })).toThrow('another metric has a name that begins with evenkeel_')
    expect(registry.getMetricsAsArray().map(({ name }) => name)).toEqual(['evenkeel_panic'])
    for (const prefix of ['', 'my-app', '1st', 'a b', 'x\n']) {
      expect(() => collect(balancer, { registry, prefix }), prefix).toThrow(/^prefix: expected letters/)
    }
    collect(balancer, { registry, prefix: 'my_app' })
    expect(valuesOf(await registry.metrics(), 'my_app_panic', 'pool')).toEqual({ default: 0 })
  })

  test('that was emptied by its owner is nobody’s to tidy up', async () => {
    const registry = new Registry()
    const { balancer } = bench()
    const stop = collect(balancer, { registry })
    registry.clear()
    new Gauge({ name: 'evenkeel_panic', help: 'mine', registers: [registry] })
    stop()
    expect(registry.getMetricsAsArray().map(({ name }) => name)).toEqual(['evenkeel_panic'])
  })

  test('that is reset counts on: the numbers are the balancer’s', async () => {
    const { call, read, registry } = bench((send) => send.answer())
    await call()
    registry.resetMetrics()
    expect(await read('selections_total', 'pool')).toEqual({ default: 1 })
  })

  test('of OpenMetrics tells the same', async () => {
    const registry = new Registry<RegistryContentType>()
    registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
    const { balancer, call } = bench((send) => send.answer())
    collect(balancer, { registry })
    await call()
    for (let i = 0; i < 2; i++) {
      const text = await registry.metrics()
      expect(text).toMatch(/^# TYPE evenkeel_selections counter\nevenkeel_selections_total\{.*\} 1$/m)
      expect(text).toMatch(/^evenkeel_call_duration_seconds_count\{.*\} 1$/m)
      expect(text).toMatch(/\n# EOF\n$/)
    }
  })

  test('has names as Prometheus wants them', async () => {
    const { registry, call } = bench((send) => send.answer(), { breaker: {}, health: { active: {} } })
    await call()
    const families = [...familiesOf(await registry.metrics()).values()]
    expect(families.flatMap(faultsOf)).toEqual([])
    expect(families.length).toBeGreaterThan(30)
    expect(faultsOf({ name: 'x_requests', type: 'counter', help: '', series: [] })).toEqual([
      'x_requests: a counter ends in _total',
      'x_requests: no help',
    ])
    expect(faultsOf({ name: 'x_latency_ms', type: 'histogram', help: 'x.', series: [] })).toEqual([
      'x_latency_ms: _ms is no base unit',
      'x_latency_ms: a histogram ends in its unit',
    ])
  })

  test('is given no label but those that are bounded', async () => {
    const { registry, call } = bench((send) => send.answer(), { breaker: {} })
    await call({ path: '/users/1?token=secret', headers: ['authorization', 'secret'] }, { key: 'user-1' })
    const text = await registry.metrics()
    const labels = [...familiesOf(text).values()].flatMap(({ series }) =>
      series.flatMap((it) => Object.keys(it.labels)),
    )
    expect([...new Set(labels)].sort()).toEqual([
      'backend',
      'balancer',
      'class',
      'le',
      'pool',
      'reason',
      'result',
      'state',
    ])
    for (const hidden of ['users', 'secret', 'http:']) expect(text).not.toContain(hidden)
  })
})

test('names of any kind are escaped', async () => {
  const ids = ['a"b', 'a\\b', 'a\\"', '\\n', 'x}y{z="1"', ',=#', '\\', 'le="+Inf"']
  const by = 'two\nlines "and\\more'
  const { registry, call, read } = bench((send) => send.answer(), {
    name: '"} 1',
    backends: ids.map((id, i) => ({ id, url: `http://${i}.test` })),
    watchers: [blocking([ids[0]!], by)],
  })
  for (let i = 0; i < ids.length; i++) await call()
  const selections = await read('backend_selections_total', 'backend')
  expect(Object.keys(selections)).toEqual(ids)
  expect(Object.values(selections).reduce((sum, count) => sum + count)).toBe(ids.length)
  expect(await read('backend_blocked', 'backend', 'reason')).toEqual({ [`${ids[0]},${by}`]: 1 })
  expect(Object.keys(await read('panic', 'balancer'))).toEqual(['"} 1'])
  expect(familiesOf(await registry.metrics()).size).toBe(registry.getMetricsAsArray().length)
})

test('a closed balancer is still told of, at rest', async () => {
  const backend = await keeper()
  const balancer = createBalancer({ backends: [backend.url], breaker: {}, health: { active: {} } })
  const { read, some } = collected(balancer)
  await (await balancer.fetch('/')).text()
  await balancer.close()
  expect(await some('calls_total', 'result')).toEqual({ answered: 1 })
  expect(await read('requests_in_flight', 'pool')).toEqual({ default: 0 })
  expect(await read('backend_connections', 'state')).toEqual({ busy: 0, idle: 0 })
  expect(await read('backend_breaker_state', 'state')).toEqual({})
})

describe('with 200 backends', () => {
  const backends = Array.from({ length: 200 }, (_, i) => ({ id: `b${i}`, url: `http://b${i}.test` }))

  function many(): { readonly balancer: Balancer; readonly text: () => Promise<string> } {
    const transport = memory(Object.fromEntries(backends.map(({ id }) => [id, { body: 'x' }])))
    const balancer = createBalancer({ backends, transport, strategy: 'round-robin' })
    const { registry } = collected(balancer)
    return { balancer, text: () => registry.metrics() }
  }

  test('nothing is lost between scrapes and requests that go on meanwhile', async () => {
    const { balancer, text } = many()
    let over = false
    let sent = 0
    const client = async (): Promise<void> => {
      for (; !over; await setImmediate()) {
        sent++
        await (await balancer.request('/')).body.text()
      }
    }
    const clients = Promise.all(Array.from({ length: 20 }, client))
    let last = 0
    for (let scrapes = 0; scrapes < 5; scrapes++) {
      const [read, again] = await Promise.all([text(), text()])
      const ended = total(read, 'evenkeel_requests_total')
      expect(ended).toBeGreaterThanOrEqual(last)
      expect(total(read, 'evenkeel_backend_requests_total')).toBe(ended) // all of one moment
      expect(total(read, 'evenkeel_backend_request_duration_seconds_count')).toBe(ended)
      expect(again).toBe(read) // asked in the same tick
      last = ended
    }
    over = true
    await clients
    await idle(balancer)
    const read = await text()
    expect(last).toBeGreaterThan(0)
    for (const name of ['requests_total', 'backend_requests_total', 'backend_selections_total']) {
      expect(total(read, `evenkeel_${name}`)).toBe(sent)
    }
    const counts = Object.values(valuesOf(read, 'evenkeel_backend_selections_total', 'backend'))
    expect(counts.length).toBe(backends.length)
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1) // in turn
    await balancer.close()
  })

  test('the event loop turns while they are written down', async () => {
    const { balancer, text } = many()
    let turns = 0
    let over = false
    const counting = (async () => {
      for (; !over; turns++) await setImmediate()
    })()
    await text()
    over = true
    await counting
    expect(turns).toBeGreaterThan(1)
    await balancer.close()
  })
})

/** What is wrong with a metric by Prometheus' conventions (prometheus.io/docs/practices/naming). */
function faultsOf({
  name,
  type,
  help,
  series,
}: ReturnType<typeof familiesOf> extends ReadonlyMap<string, infer F> ? F : never): string[] {
  const faults: string[] = []
  const say = (wrong: boolean, what: string): void => void (wrong && faults.push(`${name}: ${what}`))
  say(!/^[a-z][a-z0-9]*(_[a-z0-9]+)*$/.test(name), 'not in snake case')
  const odd = /_(ms|milliseconds|minutes|hours|micros|kb|kilobytes|percent)(_|$)/.exec(name)?.[1]
  say(odd !== undefined, `_${odd} is no base unit`)
  say(type === 'counter' && !name.endsWith('_total'), 'a counter ends in _total')
  say(type !== 'counter' && name.endsWith('_total'), 'only a counter ends in _total')
  say(type === 'histogram' && !/_(seconds|bytes)$/.test(name), 'a histogram ends in its unit')
  say(/_(bucket|sum|count|info)$/.test(name), 'its end is taken')
  say(/(gauge|counter|histogram)/.test(name), 'its type is in its name')
  say(help === '', 'no help')
  say(help !== '' && !help.endsWith('.') && !help.endsWith('...'), 'its help is no sentence')
  for (const label of new Set(series.flatMap(({ labels }) => Object.keys(labels)))) {
    say(!/^[a-z]+$/.test(label), `label ${label}`)
    say(name.split('_').includes(label) && label !== 'backend' && label !== 'state', `label ${label} is in its name`)
  }
  return faults
}

function total(text: string, name: string): number {
  const all = [...familiesOf(text).values()].flatMap(({ series }) => series.filter((it) => it.name === name))
  return all.reduce((sum, { value }) => sum + value, 0)
}

/** Takes backends out, for a soft reason. */
function blocking(ids: readonly string[], by = 'blocking'): Watcher {
  return {
    name: 'blocking',
    start: (core) => ({
      members(all) {
        for (const backend of all) {
          if (ids.includes(backend.id) && !backend.reasons.has(by)) core.control.block(backend, { by, hard: false })
        }
      },
      stop() {},
    }),
  }
}
