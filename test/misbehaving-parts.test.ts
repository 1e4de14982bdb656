import {
  type BalancerError,
  type CallHandler,
  createBalancer,
  failover,
  type Gate,
  memory,
  type Policy,
  type Strategy,
  type Transport,
  type Watcher,
} from 'evenkeel'
import { manualClock } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'

const BACKENDS = [{ url: 'http://a.test', id: 'a' }]

test('a transport whose forget rejects is reported, and the process lives', async () => {
  const failing: Transport = { ...memory({ a: {} }), forget: () => Promise.reject(new Error('stuck')) }
  const balancer = createBalancer({ backends: BACKENDS, transport: failing })
  const warnings: string[] = []
  balancer.on('warning', ({ message }) => warnings.push(message))
  await balancer.update({ backends: ['http://b.test'], transport: failing })
  await new Promise((resolve) => setImmediate(resolve))
  expect(warnings).toEqual(['forget of memory threw in pool default'])
  await balancer.close()
})

test('an attempt policy that passes a request on and then throws gives its backend back', async () => {
  const clock = manualClock()
  const careless: Policy = {
    name: 'careless',
    scope: 'attempt',
    wrap: (next) => (attempt) => {
      next(attempt).catch(() => {})
      throw new Error('a bug of the policy')
    },
  }
  const transport = memory({ a: { headMs: 1_000 } }, { clock })
  const balancer = createBalancer({
    backends: BACKENDS,
    transport,
    clock,
    policies: [careless],
    retry: { attempts: 1 },
  })
  await expect(balancer.fetch('/')).rejects.toThrow('a bug of the policy')
  await clock.advance(0)
  expect(balancer.stats().pools.default!.inflight).toBe(0)
  await clock.advance(1_000)
  expect(clock.pending).toBe(0)
  await balancer.close()
})

test('a limit below one millisecond is a limit', async () => {
  const clock = manualClock()
  const transport = memory({ a: { headMs: 60_000 } }, { clock })
  const balancer = createBalancer({ backends: BACKENDS, transport, clock })
  const late = expect(balancer.fetch('/', { balancer: { timeoutMs: 0.4 } })).rejects.toMatchObject({ code: 'TIMEOUT' })
  await clock.advance(10)
  await late
  await balancer.close()
})

describe('a strategy of one’s own is named in what is told of its mistakes:', () => {
  /** Nothing of it has the types that it should have. */
  const own = (start: () => unknown): Strategy => ({ name: 'mine', start }) as unknown as Strategy
  const picking = (picked: unknown): Strategy => own(() => ({ build: () => () => picked }))
  const make = (strategy: Strategy): ReturnType<typeof createBalancer> =>
    createBalancer({ backends: [...BACKENDS, 'http://b.test'], transport: memory({ a: {} }), strategy })
  const oops = new Error('oops')
  const fail = (): never => {
    throw oops
  }

  test.each([
    [
      'a start that returns nothing',
      () => {},
      'expected start to return an object with build, got a value of type undefined',
    ],
    ['one without build', () => ({}), 'expected start to return an object with build, got a value of type object'],
    ['a start that is async', async () => {}, 'expected start to return an object with build, got a promise'],
    ['a start that throws', fail, 'start failed'],
    [
      'a build that returns nothing',
      () => ({ build: () => {} }),
      'expected build to return a function, got a value of type undefined',
    ],
    ['a build that throws', () => ({ build: fail }), 'build failed'],
  ])('%s', async (_, start, message) => {
    const refusal = expect.objectContaining({ code: 'CONFIG', message: `strategy mine: ${message}` })
    expect(() => make(own(start))).toThrow(refusal)
    expect(() => make(failover(own(start)))).toThrow(refusal)
    const balancer = make({ ...picking(undefined), name: 'fine' })
    await expect(balancer.update({ backends: BACKENDS, strategy: own(start) })).rejects.toEqual(refusal)
    await balancer.close()
  })

  test.each([
    [{ id: 'a' }, 'a value of type object'],
    [Promise.resolve(undefined), 'a promise'],
    ['a', 'a value of type string'],
    [null, 'null'],
  ])('a picker that returns %o', async (picked, found) => {
    const balancer = make(picking(picked))
    const error = (await balancer.fetch('/').catch((error: unknown) => error)) as BalancerError
    const message = `strategy mine: expected its picker to return one of the backends, or undefined, got ${found}`
    expect(error).toMatchObject({ code: 'CONFIG', message })
    expect(() => balancer.acquire({ tags: ['x'] })).toThrow(expect.objectContaining({ code: 'CONFIG' }))
    expect(balancer.stats().pools.default!.inflight).toBe(0)
    await balancer.close()
  })

  test.each([[{ id: 'a' }], [Promise.resolve(undefined)], ['a'], [null]])(
    'no gate is asked about %o',
    async (picked) => {
      const counts = { admitted: 0, released: 0 }
      const gate: Gate = {
        name: 'counter',
        admit: () => ++counts.admitted > 0,
        release: () => void counts.released++,
      }
      const watcher: Watcher = { name: 'counter', start: () => ({ gate, stop() {} }) }
      const turns = [undefined, picked, undefined, picked]
      const strategy = own(() => ({ build: () => () => turns.shift() }))
      const balancer = createBalancer({
        backends: BACKENDS,
        transport: memory({ a: {} }),
        strategy,
        watchers: [watcher],
      })
      const ask = (): Promise<string> => balancer.request('/').then(({ body }) => body.text())
      const outcomes = await Promise.allSettled([ask(), ask(), ask(), ask()])
      expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'rejected'])
      expect(counts).toEqual({ admitted: 2, released: 2 })
      await balancer.close()
    },
  )

  test('a score that is no number is none', async () => {
    const balancer = make(own(() => ({ build: () => () => undefined, score: () => 'high' })))
    expect(balancer.stats().pools.default!.backends.map(({ score }) => score)).toEqual([undefined, undefined])
    await balancer.close()
  })
})

describe('a policy or a watcher of one’s own is named in what is told of its mistakes:', () => {
  const oops = new Error('oops')
  const fail = (): never => {
    throw oops
  }
  const policy = (scope: string, wrap: unknown): object => ({ policies: [{ name: 'mine', scope, wrap }] })
  const watcher = (start: unknown): object => ({ watchers: [{ name: 'mine', start }] })
  const noFunction = 'policy mine: expected wrap to return a function, got a value of type'
  const noStop = 'watcher mine: expected start to return an object with stop, got'

  test.each([
    ['a wrap that throws', policy('pool', fail), 'policy mine: wrap failed', oops],
    ['a class for a wrap', policy('attempt', class {}), 'policy mine: wrap failed', expect.any(TypeError)],
    ['a wrap that returns nothing', policy('balancer', () => {}), `${noFunction} undefined`, undefined],
    ['one of attempts that returns 1', policy('attempt', () => 1), `${noFunction} number`, undefined],
    ['a start that throws', watcher(fail), 'watcher mine: start failed', oops],
    ['a start that returns 1', watcher(() => 1), `${noStop} a value of type number`, undefined],
    ['a start that is async', watcher(async () => ({ stop() {} })), `${noStop} a promise`, undefined],
    ['one without stop', watcher(() => ({})), `${noStop} a value of type object`, undefined],
  ])('%s', async (_, part, message, cause) => {
    const options = { backends: BACKENDS, transport: memory({ a: {} }) }
    const refusal = expect.objectContaining({ code: 'CONFIG', message, ...(cause !== undefined && { cause }) })
    expect(() => createBalancer({ ...options, ...part })).toThrow(refusal)
    const balancer = createBalancer(options)
    const warnings: string[] = []
    balancer.on('warning', (warning) => warnings.push(warning.message))
    await expect(balancer.update({ ...options, ...part })).rejects.toEqual(refusal)
    expect(warnings).toEqual([])
    expect(await (await balancer.fetch('/')).text()).toBe('')
    await balancer.close()
  })
})

test('settings of one’s own may lead back to themselves: an update compares them, and comes to an end', async () => {
  const made = (limit: number): Policy => {
    const policy = {
      name: 'mine',
      scope: 'pool' as const,
      wrap: (next: CallHandler) => next,
      cache: {} as object,
      limit,
    }
    policy.cache = { policy, inner: { policy } }
    return policy
  }
  const options = { backends: BACKENDS, transport: memory({ a: {} }) }
  const balancer = createBalancer({ ...options, policies: [made(1)] })
  for (const limit of [1, 2]) await balancer.update({ ...options, policies: [made(limit)] })
  expect(await (await balancer.fetch('/')).text()).toBe('')
  await balancer.close()
})
