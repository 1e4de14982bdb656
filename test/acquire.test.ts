import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { inspect } from 'node:util'
import {
  type Attempt,
  type Balancer,
  BalancerError,
  type BalancerErrorCode,
  type BalancerOptions,
  createBalancer,
  type Lease,
  type OutcomeClass,
  type Strategy,
} from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { idle, inflight, keeper, kept, nobody, statsOf } from './support/upstreams.ts'

/** A balancer over backends a, b, c, ... that are never sent anything, on a manual clock. */
function scene(n: number, options: Omit<BalancerOptions, 'backends'> = {}) {
  const clock = manualClock()
  const backends = Array.from({ length: n }, (_, i) => {
    const id = String.fromCharCode(97 + i)
    return { url: `http://${id}.test`, id }
  })
  return { clock, balancer: kept(createBalancer({ backends, clock, random: seededRandom(1), ...options })) }
}

function throwsWith(code: BalancerErrorCode, run: () => unknown): BalancerError {
  try {
    run()
  } catch (error) {
    assert.ok(error instanceof BalancerError, `expected a BalancerError, got ${inspect(error)}`)
    assert.equal(error.code, code)
    return error
  }
  assert.fail('it did not throw')
}

function refused(): Error {
  return Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
}

/** The real one, of a port where nobody listens. */
async function reallyRefused(): Promise<unknown> {
  const socket = net.connect((await nobody()).port, '127.0.0.1')
  const [error] = await once(socket, 'error')
  return error
}

function fail(balancer: Balancer, times: number, error: unknown, prefer = 'a'): void {
  for (let i = 0; i < times; i++) balancer.acquire({ prefer }).fail(error)
}

describe('acquire', () => {
  test('lends a backend at once: what it is, where it is', () => {
    const { balancer } = scene(1)
    const lease = balancer.acquire()
    expect(lease.backend).toMatchObject({ id: 'a', origin: 'http://a.test', inflight: 1, removed: false })
    expect(lease.backend.endpoint.url).toBe('http://a.test')
    lease.succeed()
  })

  test('chooses as the strategy does', () => {
    const { balancer } = scene(3, { strategy: 'weighted-round-robin' })
    const turns = Array.from({ length: 6 }, () => {
      using lease = balancer.acquire()
      return lease.backend.id
    })
    expect(turns.join('')).toBe('abcabc')
  })

  test('sends nothing', async () => {
    const backend = await keeper()
    const balancer = kept(createBalancer({ backends: [backend.url] }))
    balancer.acquire().succeed()
    expect(backend.got).toEqual([])
  })

  test('counts what is out, until it is given back', () => {
    const { balancer } = scene(2, { strategy: 'least' })
    const leases = Array.from({ length: 10 }, () => balancer.acquire())
    expect(inflight(balancer)).toBe(10)
    expect(balancer.stats().pools.default!.backends.map((it) => it.inflight)).toEqual([5, 5])
    for (const [i, lease] of leases.entries()) {
      if (i % 3 === 0) lease.succeed()
      else if (i % 3 === 1) lease.fail(refused())
      else lease.cancel()
      expect(inflight(balancer)).toBe(9 - i)
    }
    const { calls, attempts, failed } = balancer.stats().pools.default!
    expect({ calls, attempts, failed }).toEqual({ calls: 10, attempts: 10, failed: 0 })
  })

  test('throws NO_BACKEND when nobody can be had, and says why of each', () => {
    const { balancer } = scene(2)
    balancer.disable('a')
    void balancer.drain('b')
    const error = throwsWith('NO_BACKEND', () => balancer.acquire())
    expect(error.reasons).toEqual({ a: ['operator'], b: ['drain'] })
    expect(inflight(balancer)).toBe(0)
    expect(balancer.stats().pools.default!.failed).toBe(1)
    balancer.enable('a')
    expect(balancer.acquire().backend.id).toBe('a')
    balancer.acquire().cancel()
    return balancer.close()
  })

  test('throws OVERLOADED at the limit of every backend, and lends again when one comes back', async () => {
    const clock = manualClock()
    const balancer = kept(createBalancer({ backends: [{ url: 'http://a.test', id: 'a', maxInflight: 2 }], clock }))
    const first = balancer.acquire()
    const second = balancer.acquire()
    const error = throwsWith('OVERLOADED', () => balancer.acquire())
    expect(error.reasons).toEqual({ a: ['2 requests in flight, its limit'] })
    first.succeed()
    const third = balancer.acquire()
    throwsWith('OVERLOADED', () => balancer.acquire())
    for (const lease of [second, third]) lease.cancel()
    await idle(balancer)
  })

  test('goes around who is at its limit', () => {
    const backends = [
      { url: 'http://a.test', id: 'a', maxInflight: 1 },
      { url: 'http://b.test', id: 'b' },
    ]
    const balancer = kept(createBalancer({ backends, strategy: 'round-robin' }))
    const leases = Array.from({ length: 6 }, () => balancer.acquire())
    expect(
      leases
        .map(({ backend }) => backend.id)
        .sort()
        .join(''),
    ).toBe('abbbbb')
    for (const lease of leases) lease.cancel()
  })

  test('is told a key, for strategies that hash', () => {
    const keys: (string | undefined)[] = []
    const spy: Strategy = {
      name: 'spy',
      start: () => ({
        build:
          ({ eligible }) =>
          (call) => {
            keys.push(call.key)
            return eligible[0]
          },
      }),
    }
    const { balancer } = scene(2, { strategy: spy })
    balancer.acquire({ key: 'user 7' }).succeed()
    balancer.acquire().succeed()
    expect(keys).toEqual(['user 7', undefined])
  })

  test('is told tags: only who has them all', () => {
    const balancer = kept(
      createBalancer({
        backends: [
          { url: 'http://a.test', id: 'a', tags: ['eu'] },
          { url: 'http://b.test', id: 'b', tags: ['eu', 'big'] },
        ],
      }),
    )
    for (let i = 0; i < 20; i++) {
      using lease = balancer.acquire({ tags: ['big', 'eu'] })
      expect(lease.backend.id).toBe('b')
    }
    throwsWith('NO_BACKEND', () => balancer.acquire({ tags: ['us'] }))
  })

  test('is told whom to prefer, and takes another if that one is out', () => {
    const { balancer } = scene(3)
    for (let i = 0; i < 20; i++) {
      using lease = balancer.acquire({ prefer: 'c' })
      expect(lease.backend.id).toBe('c')
    }
    balancer.disable('c')
    using lease = balancer.acquire({ prefer: 'c' })
    expect(lease.backend.id).not.toBe('c')
  })
})

describe('a lease', () => {
  type End = 'succeed' | 'fail' | 'cancel'
  const ends: readonly End[] = ['succeed', 'fail', 'cancel']
  const kinds = { succeed: 'ok', fail: 'connect', cancel: 'cancelled' } as const
  const end = (lease: Lease, how: End): void => (how === 'fail' ? lease.fail(refused()) : lease[how]())

  test.each(ends.flatMap((first) => ends.map((second) => [first, second] as const)))(
    'ends once: after %s, %s is ignored',
    (first, second) => {
      const { balancer } = scene(1)
      const told: (OutcomeClass | undefined)[] = []
      balancer.on('attempt', ({ outcome }) => told.push(outcome?.class))
      const lease = balancer.acquire()
      end(lease, first)
      const after = balancer.stats()
      end(lease, second)
      lease[Symbol.dispose]()
      expect(balancer.stats()).toEqual(after)
      expect(told).toEqual([kinds[first]])
      expect(inflight(balancer)).toBe(0)
      expect(statsOf(balancer).classes).toEqual({ [kinds[first]]: 1 })
    },
  )

  test('with `using` is cancelled when its block is left, by a throw too', () => {
    const { balancer } = scene(1)
    expect(() => {
      using lease = balancer.acquire()
      throw new Error(`lost on ${lease.backend.id}`)
    }).toThrow('lost on a')
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
  })

  test('with `using` keeps the end it was given', () => {
    const { balancer } = scene(1)
    {
      using lease = balancer.acquire()
      lease.succeed()
    }
    expect(statsOf(balancer).classes).toEqual({ ok: 1 })
  })

  test('teaches the latency when it succeeds: the time since acquire', async () => {
    const { balancer, clock } = scene(1)
    const lease = balancer.acquire()
    await clock.advance(40)
    lease.succeed()
    const { ewmaMs, p50Ms } = balancer.stats().pools.default!.backends[0]!
    expect(ewmaMs).toBeCloseTo(40, 6)
    expect(Math.abs(p50Ms - 40)).toBeLessThanOrEqual(0.4)
  })

  test('teaches nothing when it is cancelled, and slowness when it fails fast', async () => {
    const { balancer, clock } = scene(2)
    balancer.acquire({ prefer: 'a' }).cancel()
    expect(balancer.stats().pools.default!.backends[0]!.ewmaMs).toBeNaN()
    const lease = balancer.acquire({ prefer: 'a' })
    await clock.advance(1)
    lease.fail(refused())
    expect(balancer.stats().pools.default!.backends[0]!.ewmaMs).toBeGreaterThan(100)
  })

  test('is what peak EWMA chooses by: the slow backend is avoided', async () => {
    const { balancer, clock } = scene(2, { strategy: 'peak-ewma' })
    let slow = 0
    for (let i = 0; i < 300; i++) {
      const lease = balancer.acquire()
      const isSlow = lease.backend.id === 'a'
      await clock.advance(isSlow ? 100 : 1)
      lease.succeed()
      if (isSlow) slow++
    }
    expect(slow).toBeGreaterThan(0)
    expect(slow).toBeLessThan(30)
  })
})

describe('fail', () => {
  const abort = new DOMException('enough', 'AbortError')
  const cases: readonly (readonly [name: string, error: unknown, kind: OutcomeClass])[] = [
    ['ECONNREFUSED', { code: 'ECONNREFUSED' }, 'connect'],
    ['EHOSTUNREACH', { code: 'EHOSTUNREACH' }, 'connect'],
    ['ENETUNREACH', { code: 'ENETUNREACH' }, 'connect'],
    ['ENOTFOUND', { code: 'ENOTFOUND' }, 'connect'],
    ['EAI_AGAIN', { code: 'EAI_AGAIN' }, 'connect'],
    ['UND_ERR_CONNECT_TIMEOUT', { code: 'UND_ERR_CONNECT_TIMEOUT' }, 'connect'],
    ['ETIMEDOUT', { code: 'ETIMEDOUT' }, 'timeout'],
    ['ECONNRESET', { code: 'ECONNRESET' }, 'reset'],
    ['EPIPE', { code: 'EPIPE' }, 'reset'],
    ['a code nobody knows', { code: 'E_WHATEVER' }, 'reset'],
    ['EMFILE', { code: 'EMFILE' }, 'local'],
    ['ENFILE', { code: 'ENFILE' }, 'local'],
    ['EADDRNOTAVAIL', { code: 'EADDRNOTAVAIL' }, 'local'],
    ['a BalancerError CONNECT', new BalancerError('CONNECT', 'x'), 'connect'],
    ['a BalancerError TLS', new BalancerError('TLS', 'x'), 'tls'],
    ['a BalancerError TIMEOUT', new BalancerError('TIMEOUT', 'x'), 'timeout'],
    ['a BalancerError RESET', new BalancerError('RESET', 'x'), 'reset'],
    ['status 400', { status: 400 }, 'client-error'],
    ['status 401', { status: 401 }, 'auth'],
    ['status 403', { status: 403 }, 'forbidden'],
    ['status 404', { statusCode: 404 }, 'client-error'],
    ['status 429', { status: 429 }, 'rate-limited'],
    ['status 500', { status: 500 }, 'server-error'],
    ['status 503', { statusCode: 503 }, 'server-error'],
    ['status 999', { status: 999 }, 'protocol'],
    ['an AbortError', abort, 'cancelled'],
    ['a TimeoutError', new DOMException('late', 'TimeoutError'), 'timeout'],
    ['an Error that tells nothing, whatever its message', new Error('ECONNREFUSED 429'), 'reset'],
    ['a string', 'ECONNREFUSED', 'reset'],
    ['nothing', undefined, 'reset'],
    ['null', null, 'reset'],
  ]

  test.each(cases)('takes %s by its structure', (_, error, kind) => {
    const { balancer } = scene(1)
    let told: Attempt | undefined
    balancer.on('attempt', (attempt) => {
      told = attempt
    })
    balancer.acquire().fail(error)
    expect(told!.outcome).toMatchObject({ class: kind, error })
    expect(statsOf(balancer).classes).toEqual({ [kind]: 1 })
  })

  test.each<[string, unknown, OutcomeClass]>([
    [
      'an AbortError of Node’s own',
      Object.assign(new Error('aborted'), { name: 'AbortError', code: 'ABORT_ERR' }),
      'cancelled',
    ],
    ['status 429 with a code nobody knows', { status: 429, code: 'rate_limit_exceeded' }, 'rate-limited'],
  ])('takes %s for what it is', (_, error, kind) => {
    const { balancer } = scene(1)
    balancer.acquire().fail(error)
    expect(statsOf(balancer).classes).toEqual({ [kind]: 1 })
  })

  test('tells the platform’s code to who listens', () => {
    const { balancer } = scene(1)
    let told: Attempt | undefined
    balancer.on('attempt', (attempt) => {
      told = attempt
    })
    balancer.acquire().fail(refused())
    expect(told!.outcome!.code).toBe('ECONNREFUSED')
  })

  test('five times in a row with ECONNREFUSED ejects, and one real success after its time brings it back', async () => {
    const { balancer, clock } = scene(2)
    const told: string[] = []
    balancer.on('blocked', ({ id }, { by, detail }) => told.push(`blocked ${id} ${by}: ${detail}`))
    balancer.on('unblocked', ({ id }) => told.push(`unblocked ${id}`))
    const error = await reallyRefused()
    fail(balancer, 4, error)
    expect(told).toEqual([])
    fail(balancer, 1, error)
    expect(told).toEqual(['blocked a outlier: 5 failures in a row'])
    expect(statsOf(balancer).failures).toBe(5)
    for (let i = 0; i < 20; i++) {
      using lease = balancer.acquire({ prefer: 'a' })
      expect(lease.backend.id).toBe('b')
    }
    await clock.advance(5_500)
    expect(told.slice(1)).toEqual(['unblocked a'])
    const trial = balancer.acquire({ prefer: 'a' })
    expect(trial.backend.id).toBe('a')
    using meanwhile = balancer.acquire({ prefer: 'a' })
    expect(meanwhile.backend.id).toBe('b') // one at a time until it has proved itself
    trial.succeed()
    using proved = balancer.acquire({ prefer: 'a' })
    expect(proved.backend.id).toBe('a')
  })

  test.each(
    cases.filter(([, , kind]) =>
      ['auth', 'forbidden', 'rate-limited', 'cancelled', 'local', 'client-error'].includes(kind),
    ),
  )('with %s never ejects', (_, error) => {
    const { balancer } = scene(2)
    fail(balancer, 20, error)
    const { failures, reasons } = balancer.stats().pools.default!.backends[0]!
    expect(failures).toBe(0)
    expect(reasons.join()).not.toContain('outlier') // a rate limit cools it down, which is another matter
  })

  test('then succeed starts the count anew, cancel does not', () => {
    const { balancer } = scene(2)
    fail(balancer, 4, refused())
    balancer.acquire({ prefer: 'a' }).succeed()
    fail(balancer, 4, refused())
    expect(balancer.stats().pools.default!.backends[0]!.state).toBe('up')
    balancer.acquire({ prefer: 'a' }).cancel()
    fail(balancer, 1, refused())
    expect(balancer.stats().pools.default!.backends[0]!.state).toBe('blocked')
  })
})

describe('a lease that nobody ends', () => {
  test.each([
    ['timeoutMs of the call', { timeoutMs: 200 }, {}, 200],
    ['timeouts.leaseMs', {}, { timeouts: { leaseMs: 700 } }, 700],
    ['timeoutMs before timeouts.leaseMs', { timeoutMs: 200 }, { timeouts: { leaseMs: 700 } }, 200],
    ['a minute by default', {}, {}, 60_000],
  ])('ends by %s, with one warning, and nobody is blamed', async (_, options, settings, ms) => {
    const { balancer, clock } = scene(1, settings)
    const warnings: Error[] = []
    balancer.on('warning', (error) => warnings.push(error))
    const lease = balancer.acquire(options)
    await clock.advance(ms - 1)
    expect(inflight(balancer)).toBe(1)
    expect(warnings).toEqual([])
    await clock.advance(1)
    expect(inflight(balancer)).toBe(0)
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
    lease.fail(refused())
    lease.succeed()
    await clock.advance(120_000)
    expect(statsOf(balancer).classes).toEqual({ cancelled: 1 })
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toBeInstanceOf(BalancerError)
    expect(warnings[0]).toMatchObject({ code: 'TIMEOUT', backend: 'a' })
    expect(warnings[0]!.message).toBe(`a lease on backend a was not ended within ${ms} ms`)
    expect(clock.pending).toBe(0)
  })

  test.each([
    ['timeoutMs', { timeoutMs: 0 }, {}],
    ['timeouts.leaseMs', {}, { timeouts: { leaseMs: 0 } }],
  ])('with %s 0 stays out for as long as it likes', async (_, options, settings) => {
    const { balancer, clock } = scene(1, settings)
    const lease = balancer.acquire(options)
    await clock.advance(24 * 3_600_000)
    expect(inflight(balancer)).toBe(1)
    lease.succeed()
    expect(statsOf(balancer).classes).toEqual({ ok: 1 })
  })

  test('is not warned of when it was ended in time, and no timer is left', async () => {
    const { balancer, clock } = scene(1)
    const warnings: Error[] = []
    balancer.on('warning', (error) => warnings.push(error))
    for (const lease of [balancer.acquire(), balancer.acquire({ timeoutMs: 10 })]) lease.succeed()
    await clock.advance(600) // the deadlines' own timer lapses
    expect(clock.pending).toBe(0)
    expect(warnings).toEqual([])
  })
})

describe('close', () => {
  test('ends every lease that is out; what their holders say afterwards is ignored', async () => {
    const { balancer } = scene(2)
    const leases = Array.from({ length: 4 }, () => balancer.acquire())
    const closing = balancer.close()
    expect(inflight(balancer)).toBe(0)
    await closing
    for (const lease of leases) lease.fail(refused())
    const { backends } = balancer.stats().pools.default!
    expect(backends.reduce((sum, it) => sum + (it.classes.cancelled ?? 0), 0)).toBe(4)
    expect(backends.map(({ failures }) => failures)).toEqual([0, 0])
  })

  test('with drainMs waits for leases, no longer than that', async () => {
    const { balancer, clock } = scene(1)
    const first = balancer.acquire()
    balancer.acquire()
    let closed = false
    const closing = balancer.close({ drainMs: 1_000 }).then(() => {
      closed = true
    })
    await clock.advance(500)
    first.succeed()
    await clock.advance(499)
    expect([closed, inflight(balancer)]).toEqual([false, 1])
    await clock.advance(1)
    expect(inflight(balancer)).toBe(0)
    await closing
    expect(statsOf(balancer).classes).toEqual({ ok: 1, cancelled: 1 })
  })

  test('with drainMs is over as soon as the last lease is', async () => {
    const { balancer, clock } = scene(1)
    const lease = balancer.acquire()
    const closing = balancer.close({ drainMs: 60_000 })
    await clock.advance(10)
    lease.succeed()
    await closing
    expect(clock.pending).toBe(0)
  })

  test('then acquire throws CLOSED', async () => {
    const { balancer } = scene(1)
    const closing = balancer.close()
    throwsWith('CLOSED', () => balancer.acquire())
    await closing
    const error = throwsWith('CLOSED', () => balancer.acquire())
    expect(error.message).toBe('the balancer evenkeel is closed')
    expect(statsOf(balancer).requests).toBe(0)
  })
})

describe('a lease under way', () => {
  test('keeps a drain waiting', async () => {
    const { balancer } = scene(2)
    const lease = balancer.acquire({ prefer: 'a' })
    let drained = false
    const draining = balancer.drain('a').then(() => {
      drained = true
    })
    await new Promise(setImmediate)
    expect(drained).toBe(false)
    lease.succeed()
    await draining
  })

  test('survives the update that removes its backend', async () => {
    const { balancer } = scene(2)
    const lease = balancer.acquire({ prefer: 'a' })
    await balancer.update({ backends: [{ url: 'http://b.test', id: 'b' }] })
    expect(lease.backend.removed).toBe(true)
    expect(inflight(balancer)).toBe(1)
    lease.succeed()
    expect(inflight(balancer)).toBe(0)
    using next = balancer.acquire()
    expect(next.backend.id).toBe('b')
  })
})
