import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import {
  BalancerError,
  type BalancerErrorCode,
  type BalancerOptions,
  createBalancer,
  type MemoryBackend,
  memory,
  type Policy,
  type PoolOptions,
  type Route,
} from 'evenkeel'
import { createProxy } from 'evenkeel/node'
import { manualClock } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { ask, inflight, keeper, kept, upstream } from './support/upstreams.ts'

/** Pools of memory backends: each pool's own named after it, 'users' has 'users-1' and so on. */
function scene(
  pools: Readonly<Record<string, Omit<PoolOptions, 'backends'> & { readonly answers?: readonly MemoryBackend[] }>>,
  options: Omit<BalancerOptions, 'pools' | 'transport' | 'clock'> = {},
) {
  const clock = manualClock()
  const transport = memory({}, { clock })
  const planned: Record<string, PoolOptions> = {}
  for (const [name, { answers = [{ body: name }], ...settings }] of Object.entries(pools)) {
    const backends = answers.map((answer, i) => {
      const id = `${name}-${i + 1}`
      transport.set(id, answer)
      return { url: `http://${id}.test`, id }
    })
    planned[name] = { backends, ...settings }
  }
  const config = { pools: planned, ...options, transport, clock }
  const balancer = kept(createBalancer(config))
  const text = async (path: string, init?: Parameters<typeof balancer.request>[1]): Promise<string> =>
    (await balancer.request(path, init)).body.text()
  return { balancer, clock, transport, config, text }
}

async function rejectsWith(code: BalancerErrorCode, promise: Promise<unknown>): Promise<BalancerError> {
  const error = await promise.then(
    () => assert.fail('it did not reject'),
    (error: unknown) => error,
  )
  assert.ok(error instanceof BalancerError, `expected a BalancerError, got ${String(error)}`)
  assert.equal(error.code, code)
  return error
}

/** By the first segment of the path. */
const bySegment: Route = ({ path }) => path.split('/')[1]!

describe('several pools', () => {
  test('stand side by side: a call names its pool, and the first is the default', async () => {
    const { balancer, text } = scene({ users: {}, orders: {} })
    expect([await text('/'), await text('/', { pool: 'users' }), await text('/', { pool: 'orders' })]).toEqual([
      'users',
      'users',
      'orders',
    ])
    const response = await balancer.fetch('/', { balancer: { pool: 'orders' } })
    expect(await response.text()).toBe('orders')
    const { pools } = balancer.stats()
    expect(Object.entries(pools).map(([name, { calls, attempts }]) => [name, calls, attempts])).toEqual([
      ['users', 2, 2],
      ['orders', 2, 2],
    ])
  })

  test('over real sockets', async () => {
    const [users, orders] = [await keeper(), await keeper()]
    const { fetch, request } = kept(
      createBalancer({
        pools: { users: { backends: [users.url] }, orders: { backends: [orders.url] } },
        route: bySegment,
      }),
    )
    await fetch('/users/1')
    await request('/orders/2')
    await fetch('/orders/3', { method: 'POST', body: 'x' })
    expect([users.got, orders.got].map((got) => got.map(({ path }) => path))).toEqual([
      ['/users/1'],
      ['/orders/2', '/orders/3'],
    ])
  })

  test('refuse a pool nobody knows, and name those there are', async () => {
    const { balancer } = scene({ users: {}, orders: {} })
    for (const call of [
      balancer.request('/', { pool: 'ordres' }),
      balancer.fetch('/', { balancer: { pool: 'ordres' } }),
    ]) {
      const error = await rejectsWith('CONFIG', call)
      expect(error.message).toBe('no pool is named "ordres"; there are: users, orders')
    }
    expect(() => balancer.acquire({ pool: 'ordres' })).toThrow('there are: users, orders')
  })

  test('know one id twice: each pool has its own record of it', async () => {
    const backends = [{ url: 'http://a.test', id: 'a' }]
    const transport = memory({ a: {} })
    const balancer = kept(createBalancer({ pools: { one: { backends }, two: { backends } }, transport }))
    await balancer.request('/', { pool: 'two' })
    const requests = Object.values(balancer.stats().pools).map((pool) => pool.backends[0]!.requests)
    expect(requests).toEqual([0, 1])
    balancer.disable('a') // out in every pool that has it
    for (const pool of ['one', 'two']) await rejectsWith('NO_BACKEND', balancer.request('/', { pool }))
    balancer.enable('a')
    expect((await balancer.request('/', { pool: 'two' })).statusCode).toBe(200)
  })

  test('fail each on its own: an ejection here is none there', async () => {
    const refused: MemoryBackend = { failure: { phase: 'connect', code: 'ECONNREFUSED' } }
    const settings = {
      health: { passive: { consecutive: 2 } },
      retry: { attempts: 1 },
      strategy: 'round-robin',
    } as const
    const { balancer } = scene({ bad: { answers: [refused, {}] }, good: {} }, settings)
    for (let i = 0; i < 4; i++) await balancer.request('/').catch(() => {})
    const { bad, good } = balancer.stats().pools
    expect(bad!.backends.map(({ state }) => state)).toEqual(['blocked', 'up'])
    expect(good!.backends.map(({ state }) => state)).toEqual(['up'])
  })
})

describe('settings of a pool', () => {
  test('win over those of the balancer, field by field', async () => {
    const answers: readonly MemoryBackend[] = [{ status: 503 }]
    const { balancer, transport } = scene(
      { patient: { answers }, hasty: { answers, retry: { attempts: 1 }, strategy: 'least' } },
      { retry: { attempts: 4, baseMs: 0 }, strategy: 'random' },
    )
    await balancer.request('/', { pool: 'patient' })
    await balancer.request('/', { pool: 'hasty' })
    const sent = (id: string): number => transport.requests.filter(({ backend }) => backend === id).length
    expect([sent('patient-1'), sent('hasty-1')]).toEqual([4, 1])
    const { patient, hasty } = balancer.stats().pools
    expect([patient!.strategy, hasty!.strategy]).toEqual(['random', 'least(byInflight)'])
  })

  test('hold for times, too', async () => {
    const { balancer, clock } = scene(
      { slow: { answers: [{ headMs: 500 }], timeouts: { headersMs: 1_000 } }, fast: { answers: [{ headMs: 500 }] } },
      { timeouts: { headersMs: 100 }, retry: { attempts: 1 } },
    )
    const slow = balancer.request('/', { pool: 'slow' })
    const fast = rejectsWith('TIMEOUT', balancer.request('/', { pool: 'fast' }))
    await clock.advance(0)
    await clock.advance(500)
    expect((await slow).statusCode).toBe(200)
    expect((await fast).message).toContain('100 ms')
  })

  test('give each pool a retry budget of its own', async () => {
    const answers: readonly MemoryBackend[] = [{ status: 503 }, { status: 503 }]
    const budget = { share: 0, perSecond: 1, windowMs: 1_000 }
    const { balancer, transport } = scene({ one: { answers }, two: { answers } }, { retry: { baseMs: 0, budget } })
    for (const pool of ['one', 'one', 'two']) await balancer.request('/', { pool })
    expect(transport.requests.map(({ backend }) => backend.slice(0, 3)).join(' ')).toBe('one one one two two')
  })

  test('may be a transport of its own', async () => {
    const backend = await keeper()
    const balancer = kept(
      createBalancer({
        pools: {
          real: { backends: [backend.url] },
          played: { backends: [{ url: 'http://a.test', id: 'a' }], transport: memory({ a: { body: 'played' } }) },
        },
      }),
    )
    expect(await (await balancer.request('/')).body.text()).toBe('ok')
    expect(await (await balancer.request('/', { pool: 'played' })).body.text()).toBe('played')
    expect(Object.values(balancer.stats().pools).map(({ transport }) => transport)).toEqual(['undici', 'memory'])
  })
})

describe('a route', () => {
  test('chooses by the request as it will be sent', async () => {
    const seen: unknown[] = []
    const { text } = scene(
      { users: {}, orders: {} },
      {
        route: ({ method, path, headers }) => {
          seen.push([method, path, headers])
          return method === 'GET' ? 'users' : 'orders'
        },
      },
    )
    expect([await text('/a?b=1', { headers: { 'X-A': '1' } }), await text('/c', { method: 'POST' })]).toEqual([
      'users',
      'orders',
    ])
    expect(seen).toEqual([
      ['GET', '/a?b=1', ['X-A', '1']],
      ['POST', '/c', []],
    ])
  })

  test('may take its time', async () => {
    const clocked = scene(
      { users: {}, orders: {} },
      { route: (request) => new Promise((resolve) => clocked.clock.after(20, () => resolve(bySegment(request)))) },
    )
    const call = clocked.text('/orders/1')
    await clocked.clock.advance(19)
    expect(inflight(clocked.balancer)).toBe(0)
    await clocked.clock.advance(1)
    expect(await call).toBe('orders')
  })

  test.each([
    ['at once', (): string => 'orders'],
    ['later', async (): Promise<string> => 'orders'],
  ])('is not asked where the call names its pool (%s)', async (_, route) => {
    let asked = 0
    const { text } = scene(
      { users: {}, orders: {} },
      {
        route: () => {
          asked++
          return route()
        },
      },
    )
    expect([await text('/', { pool: 'users' }), asked]).toEqual(['users', 0])
    expect([await text('/'), asked]).toEqual(['orders', 1])
  })

  test.each([
    ['at once', (): string => 'ordres'],
    ['later', async (): Promise<string> => 'ordres'],
  ])('that names a pool nobody knows is CONFIG (%s)', async (_, route) => {
    const { balancer } = scene({ users: {}, orders: {} }, { route })
    for (const call of [balancer.request('/'), balancer.fetch('/')]) {
      const error = await rejectsWith('CONFIG', call)
      expect(error.message).toContain('no pool is named "ordres"; there are: users, orders')
    }
  })

  const onFire = new Error('table on fire')
  test.each<[string, Route]>([
    [
      'throws',
      () => {
        throw onFire
      },
    ],
    ['rejects', () => Promise.reject(onFire)],
  ])('that %s is CONFIG, with its error as the cause', async (_, route) => {
    const { balancer } = scene({ users: {} }, { route })
    for (const face of [balancer.request, balancer.fetch]) {
      const error = await rejectsWith('CONFIG', face('/'))
      expect(error.cause).toBe(onFire)
      expect(error.message).toContain('route')
    }
    expect(balancer.stats().pools.users!.attempts).toBe(0)
  })

  test.each<[string, Route]>([
    [
      'throws',
      () => {
        throw onFire
      },
    ],
    ['rejects', () => Promise.reject(onFire)],
    ['names a pool nobody knows', () => 'ordres'],
  ])('that %s is a 500 of the proxy, which tells no more', async (_, route) => {
    const { balancer } = scene({ users: {} }, { route })
    const { status, body } = await ask(await upstream(createProxy(balancer)), '/')
    expect(status).toBe(500)
    expect(body.toString()).toContain('CONFIG')
    expect(body.toString()).not.toMatch(/fire|users|ordres/)
  })

  test('serves the proxy', async () => {
    const { balancer } = scene({ users: {}, orders: {} }, { route: bySegment })
    const front = await upstream(createProxy(balancer))
    expect((await ask(front, '/orders/1')).body.toString()).toBe('orders')
    expect((await ask(front, '/users/1')).body.toString()).toBe('users')
  })

  test('pending when its call is aborted: the call rejects at once with the reason, whatever the route says later', async () => {
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    for (const settle of [() => resolve('users'), () => reject(onFire)]) {
      const { balancer, transport, clock } = scene({ users: {} }, { route: () => promise })
      const controller = new AbortController()
      const reason = new Error('enough')
      const call = balancer.request('/', { method: 'POST', body: Readable.from(['x']), signal: controller.signal })
      await clock.advance(0)
      controller.abort(reason)
      expect(await call.catch((error: unknown) => error)).toBe(reason)
      settle()
      await clock.advance(0)
      expect(transport.requests).toEqual([])
      await balancer.close()
      expect(clock.pending).toBe(0)
    }
  })

  test('pending for longer than the call may take: TIMEOUT', async () => {
    const { balancer, clock } = scene({ users: {} }, { route: () => new Promise(() => {}) })
    const call = balancer.request('/', { timeoutMs: 100 }).catch((error: unknown) => error)
    await clock.advance(0)
    await clock.advance(1_000)
    const outcome = await Promise.race([call, new Promise((resolve) => setImmediate(resolve, 'pending'))])
    await balancer.close()
    expect(outcome).toMatchObject({ code: 'TIMEOUT' })
  })

  test('pending when the balancer is closed: CLOSED', async () => {
    const { balancer } = scene({ users: {} }, { route: () => new Promise(() => {}) })
    const call = rejectsWith('CLOSED', balancer.request('/'))
    await balancer.close()
    await call
  })

  test('pending while an update takes its pool away: CONFIG, and names those there are', async () => {
    const { promise, resolve } = Promise.withResolvers<string>()
    const { balancer, config } = scene({ users: {}, orders: {} }, { route: () => promise })
    const call = rejectsWith('CONFIG', balancer.request('/'))
    const { users } = config.pools
    await balancer.update({ ...config, pools: { users: users! } })
    resolve('orders')
    expect((await call).message).toContain('there are: users')
  })

  test('can be changed by an update', async () => {
    const { balancer, config, text } = scene({ users: {}, orders: {} }, { route: () => 'users' })
    expect(await text('/')).toBe('users')
    await balancer.update({ ...config, route: () => 'orders' })
    expect(await text('/')).toBe('orders')
  })

  test('is nothing to acquire: it uses the first pool, or the one it is told', () => {
    const { balancer } = scene({ users: {}, orders: {} }, { route: () => assert.fail('it was asked') })
    {
      using first = balancer.acquire()
      using told = balancer.acquire({ pool: 'orders' })
      expect([first.backend.id, told.backend.id]).toEqual(['users-1', 'orders-1'])
    }
    expect(Object.values(balancer.stats().pools).map(({ calls }) => calls)).toEqual([1, 1])
  })
})

describe('an update', () => {
  test('adds a pool and takes one away, under way; what goes on in the old one finishes there', async () => {
    const { balancer, clock, config, transport, text } = scene({
      users: {},
      orders: { answers: [{ headMs: 50, body: 'o' }] },
    })
    const told: string[] = []
    balancer.on('added', ({ id }) => told.push(`added ${id}`))
    balancer.on('removed', ({ id }) => told.push(`removed ${id}`))
    const old = text('/', { pool: 'orders' })
    await clock.advance(0)
    transport.set('carts-1', { body: 'carts' })
    const { users } = config.pools
    const carts = { backends: [{ url: 'http://carts-1.test', id: 'carts-1' }] }
    await balancer.update({ ...config, pools: { users: users!, carts } })
    expect(told.sort()).toEqual(['added carts-1', 'removed orders-1'])
    expect(Object.keys(balancer.stats().pools)).toEqual(['users', 'carts'])
    expect(await text('/', { pool: 'carts' })).toBe('carts')
    await rejectsWith('CONFIG', balancer.request('/', { pool: 'orders' }))
    await clock.advance(50)
    expect(await old).toBe('o')
  })

  test('keeps the numbers of a pool that stays, and starts anew for one that comes back', async () => {
    const { balancer, config, text } = scene({ users: {}, orders: {} })
    await text('/')
    await text('/', { pool: 'orders' })
    const { users, orders } = config.pools
    await balancer.update({ ...config, pools: { users: users! } })
    await balancer.update({ ...config, pools: { users: users!, orders: orders! } })
    expect(await text('/', { pool: 'orders' })).toBe('orders')
    expect(Object.values(balancer.stats().pools).map(({ calls }) => calls)).toEqual([1, 1])
    expect(Object.values(balancer.stats().pools).map(({ backends }) => backends[0]!.requests)).toEqual([1, 1])
    await text('/')
    expect(balancer.stats().pools.users!.calls).toBe(2)
  })

  test('may change which pool is the first', async () => {
    const { balancer, config, text } = scene({ users: {}, orders: {} })
    const { users, orders } = config.pools
    await balancer.update({ ...config, pools: { orders: orders!, users: users! } })
    expect(await text('/')).toBe('orders')
    using lease = balancer.acquire()
    expect(lease.backend.id).toBe('orders-1')
  })

  test('that is wrong in one pool changes none', async () => {
    const { balancer, config, text } = scene({ users: {}, orders: {} })
    const before = balancer.stats()
    const { users } = config.pools
    const broken = {
      name: 'broken',
      start: () => {
        throw new Error('strategy on fire')
      },
    }
    const carts = { backends: ['http://carts.test'], strategy: broken }
    await expect(balancer.update({ ...config, pools: { users: users!, carts } })).rejects.toThrow('start failed')
    expect(balancer.stats()).toEqual(before)
    expect(await text('/', { pool: 'orders' })).toBe('orders')
  })

  test('every few ms, under load: no call fails', async () => {
    const [one, two] = [await keeper(), await keeper()]
    const both = { users: { backends: [one.url] }, orders: { backends: [two.url] } }
    const balancer = kept(createBalancer({ pools: both }))
    let updating = true
    const updates = (async () => {
      for (let i = 0; i < 60; i++) {
        await balancer.update({ pools: i % 2 === 0 ? { users: both.users } : both })
        await new Promise((resolve) => setTimeout(resolve, 2))
      }
      updating = false
    })()
    const callers = Array.from({ length: 16 }, async () => {
      let calls = 0
      for (; updating; calls++) expect((await balancer.request('/')).statusCode).toBe(200)
      return calls
    })
    const calls = (await Promise.all(callers)).reduce((sum, n) => sum + n)
    await updates
    expect(one.got.length).toBe(calls)
    expect(two.got.length).toBe(0)
  })
})

describe('policies', () => {
  /** Notes when it is entered and left. */
  function noting(log: string[], name: string, scope: 'balancer' | 'pool' | 'attempt'): Policy {
    const noted = async <T>(run: () => Promise<T>): Promise<T> => {
      log.push(`${name} >`)
      try {
        return await run()
      } finally {
        log.push(`< ${name}`)
      }
    }
    return scope === 'attempt'
      ? { name, scope, wrap: (next) => (attempt) => noted(() => next(attempt)) }
      : { name, scope, wrap: (next) => (call, request) => noted(() => next(call, request)) }
  }

  test('run outermost first: those of the balancer’s scope around those of the pool’s around the attempt’s', async () => {
    const log: string[] = []
    const policies = [
      noting(log, 'attempt 1', 'attempt'),
      noting(log, 'pool 1', 'pool'),
      noting(log, 'balancer 1', 'balancer'),
      noting(log, 'attempt 2', 'attempt'),
      noting(log, 'balancer 2', 'balancer'),
      noting(log, 'pool 2', 'pool'),
    ]
    const { balancer } = scene({ users: {} }, { policies })
    await balancer.request('/')
    const names = ['balancer 1', 'balancer 2', 'pool 1', 'pool 2', 'attempt 1', 'attempt 2']
    expect(log).toEqual([...names.map((name) => `${name} >`), ...names.toReversed().map((name) => `< ${name}`)])
  })

  test('of the balancer’s scope see a call once, of the pool’s and the attempt’s each send of it', async () => {
    const log: string[] = []
    const policies = (['balancer', 'pool', 'attempt'] as const).map((scope) => noting(log, scope, scope))
    const { balancer } = scene(
      { users: { answers: [{ status: 503 }] } },
      { policies, retry: { attempts: 3, baseMs: 0 } },
    )
    await balancer.request('/')
    const entered = (name: string): number => log.filter((line) => line === `${name} >`).length
    expect(['balancer', 'pool', 'attempt'].map(entered)).toEqual([1, 3, 3])
  })

  test('of a pool are instead of the balancer’s, and run in that pool only', async () => {
    const log: string[] = []
    const { balancer } = scene(
      { users: {}, orders: { policies: [noting(log, 'own', 'balancer')] } },
      { policies: [noting(log, 'common', 'balancer')] },
    )
    await balancer.request('/', { pool: 'users' })
    await balancer.request('/', { pool: 'orders' })
    expect(log).toEqual(['common >', '< common', 'own >', '< own'])
  })

  test('know the pool they run in', async () => {
    const wrapped: string[] = []
    const called: string[] = []
    const policy: Policy = {
      name: 'where',
      scope: 'balancer',
      wrap(next, core) {
        wrapped.push(core.pool)
        return (call, request) => {
          called.push(`${core.pool} ${call.pool}`)
          return next(call, request)
        }
      },
    }
    const { balancer } = scene({ users: {}, orders: {} }, { policies: [policy], route: bySegment })
    await balancer.request('/orders/1')
    await balancer.request('/users/1')
    expect([wrapped, called]).toEqual([
      ['users', 'orders'],
      ['orders orders', 'users users'],
    ])
  })
})
