import type { BalancerError, BalancerOptions, Classify } from 'evenkeel'
import { createBalancer } from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import type { ClassChanges } from '../../src/core/outcome.ts'
import { CLASSES, classesWith } from '../../src/core/outcome.ts'
import { type BalancerBench, type BalancerBenchOptions, balancerBench } from '../support/balancer-bench.ts'
import { inOrder, type Play, refuse, reset, status } from '../support/plays.ts'
import { scripted } from '../support/scripted.ts'

type Asked = Parameters<Classify>[0]

/** What the hook was asked about, in short. */
function shortly({ backend, status: code, phase, code: error }: Asked): string {
  return [backend.id, code, phase, error].join(' ').trim()
}

/** A balancer of one backend whose hook is written down. */
function asking(
  play: Play | undefined,
  classify: Classify = () => undefined,
  options: BalancerBenchOptions = {},
): BalancerBench & { readonly asked: Asked[]; readonly warnings: Error[] } {
  const asked: Asked[] = []
  const warnings: Error[] = []
  const bench = balancerBench(play, {
    ids: 'a',
    retry: { attempts: 1 },
    classify: (seen) => {
      asked.push(seen)
      return classify(seen)
    },
    ...options,
  })
  bench.balancer.on('warning', (error) => void warnings.push(error))
  return { ...bench, asked, warnings }
}

function classesOf({ balancer }: BalancerBench): object {
  return balancer.stats().pools.default!.backends[0]!.classes
}

describe('the classify hook', () => {
  test('is asked once at each head, with the backend, the status and the headers', async () => {
    const it = asking((send) => send.answer(204, '', ['x-a', '1']))
    await it.call()
    expect(it.asked).toEqual([
      { backend: expect.anything(), status: 204, headers: ['x-a', '1'], phase: 'done', code: '', error: undefined },
    ])
    expect(it.asked.map(shortly)).toEqual(['a 204 done'])
  })

  test('is asked about failures, with the phase, the code and the error', async () => {
    const it = asking(inOrder(refuse, reset, (send) => send.fail({ phase: 'tls', code: 'CERT_HAS_EXPIRED' })))
    for (let i = 0; i < 3; i++) await it.call()
    expect(it.asked.map(shortly)).toEqual([
      'a 0 connect ECONNREFUSED',
      'a 0 head ECONNRESET',
      'a 0 tls CERT_HAS_EXPIRED',
    ])
    expect(it.asked[0]).toMatchObject({ headers: undefined, error: { message: 'connect ECONNREFUSED' } })
  })

  test('is asked again when the body breaks, and sees the head as well', async () => {
    const it = asking(
      (send) => send.head(200, ['x-a', '1']).fail(),
      ({ phase }) => (phase === 'body' ? 'reset' : undefined),
    )
    await it.call()
    expect(it.asked.map(shortly)).toEqual(['a 200 done', 'a 200 body ECONNRESET'])
    expect(it.asked[1]!.headers).toEqual(['x-a', '1'])
    expect(classesOf(it)).toEqual({ reset: 1 })
  })

  test('is asked about our own timeouts, not about what the caller aborted', async () => {
    const late = asking((send) => send.connect(), undefined, { timeouts: { headersMs: 50 } })
    await late.call()
    expect(late.asked.map(shortly)).toEqual(['a 0 head'])
    expect(late.asked[0]!.error).toMatchObject({ code: 'TIMEOUT' })
    for (const answers of [false, true]) {
      const aborted = asking(
        (send) => (answers ? void send.head(200) : send.connect()),
        () => 'server-error',
      )
      const { call, ended } = aborted.start()
      await aborted.clock.advance(0)
      aborted.asked.length = 0
      call.cancel(new Error('stop'))
      await ended
      expect(aborted.asked).toEqual([])
    }
  })

  test('turns a 200 that holds an error into a failure, which is sent elsewhere if the classes say so', async () => {
    const play = inOrder((send) => send.answer(200, '', ['x-error', 'overloaded']), status(200, 'good'))
    const classify: Classify = ({ headers }) => (headers?.includes('x-error') === true ? 'server-error' : undefined)
    const without = balancerBench(play, { classify })
    expect((await without.call()).response?.headers).toContain('x-error')
    expect(without.transport.sends).toHaveLength(1)
    const it = balancerBench(play, { classify, classes: { 'server-error': { retry: 'safe' } } })
    expect((await it.call()).response?.headers).toEqual([])
    expect(new Set(it.to()).size).toBe(2)
    const failures = it.balancer.stats().pools.default!.backends.map((backend) => backend.failures)
    expect(failures.reduce((sum, n) => sum + n, 0)).toBe(1)
    const post = balancerBench(play, { classify, classes: { 'server-error': { retry: 'safe' } } })
    expect((await post.call({ method: 'POST' })).response?.headers).toContain('x-error')
  })

  test('turns a 500 into a client’s error: nobody is blamed', async () => {
    const it = asking(status(500), ({ status: code }) => (code === 500 ? 'client-error' : undefined))
    for (let i = 0; i < 20; i++) expect((await it.call()).response?.status).toBe(500)
    expect(it.balancer.stats().pools.default!.backends[0]).toMatchObject({ state: 'up', failures: 0 })
    expect(classesOf(it)).toEqual({ 'client-error': 20 })
  })

  test('may give a failure the class of an answer: the error that reaches the caller is still ours', async () => {
    for (const kind of ['rate-limited', 'server-error', 'auth', 'ok'] as const) {
      const it = asking(refuse, () => kind)
      expect((await it.call()).error).toMatchObject({ name: 'BalancerError', code: 'RESET', backend: 'a' })
      expect(classesOf(it)).toEqual({ [kind]: 1 })
    }
  })

  test('that throws, or says what is no class, is told once as a warning, and the table decides', async () => {
    const wrong: readonly (() => unknown)[] = [
      () => {
        throw new Error('bug')
      },
      () => 'fine',
      () => null,
      () => 500,
      () => 'constructor',
      () => ({}),
      () => Object.create(null),
      () => Symbol('ok'),
    ]
    for (const classify of wrong) {
      const it = asking(inOrder(status(404), status(500), refuse), classify as Classify)
      for (let i = 0; i < 3; i++) await it.call()
      expect(classesOf(it), `${classify}`).toEqual({ 'client-error': 1, 'server-error': 1, connect: 1 })
      expect(it.warnings.map(({ message }) => message)).toEqual(['classify threw in pool default'])
      expect((it.warnings[0] as BalancerError).cause).toBeInstanceOf(Error)
    }
  })

  test('and the classes are each pool’s own', async () => {
    const transport = scripted(status(500))
    const balancer = createBalancer({
      transport,
      clock: manualClock(),
      random: seededRandom(1),
      retry: { attempts: 1 },
      pools: {
        plain: { backends: ['http://a.test'] },
        changed: {
          backends: ['http://b.test'],
          classify: () => 'server-error',
          classes: { 'server-error': { health: 'none', latency: 'none' } },
        },
      },
    } satisfies BalancerOptions)
    const request = { method: 'GET', path: '/', headers: [], body: null }
    for (const pool of ['plain', 'changed']) await balancer.send(request, { pool }).response
    const { plain, changed } = balancer.stats().pools
    expect([plain!.backends[0]!.failures, changed!.backends[0]!.failures]).toEqual([1, 0])
  })
})

describe('changes to the classes', () => {
  test('replace single cells and leave the rest of the table as it is', () => {
    const changed = classesWith({ timeout: { retry: 'never' }, reset: { health: 'none', latency: 'none' } })
    expect(changed.timeout).toEqual({ ...CLASSES.timeout, retry: 'never' })
    expect(changed.reset).toEqual({ ...CLASSES.reset, health: 'none', latency: 'none' })
    for (const kind of ['ok', 'connect', 'truncated'] as const) expect(changed[kind]).toEqual(CLASSES[kind])
    expect(classesWith({})).toEqual(CLASSES)
    expect(CLASSES.timeout.retry).toBe('safe')
  })

  test('decide whether a failure is sent again', async () => {
    const cases: readonly [ClassChanges, Play, method: string, sends: number][] = [
      [{ timeout: { retry: 'never' } }, (send) => send.connect(), 'GET', 1],
      [{ timeout: { retry: 'always' } }, (send) => send.connect(), 'POST', 2],
      [{ connect: { retry: 'never' } }, refuse, 'GET', 1],
      [{ reset: { retry: 'always' } }, reset, 'POST', 2],
      [{ 'server-error': { retry: 'always' } }, status(500), 'POST', 2],
      [{ 'server-error': { retry: 'never' } }, status(503), 'GET', 1],
      [{ auth: { retry: 'always' } }, status(402), 'POST', 2],
      [{ forbidden: { retry: 'safe' } }, status(403), 'GET', 2],
    ]
    for (const [classes, play, method, sends] of cases) {
      const it = balancerBench(inOrder(play, status(200)), { classes, timeouts: { headersMs: 50 } })
      await it.call({ method })
      expect(it.transport.sends.length, JSON.stringify(classes)).toBe(sends)
    }
  })

  test('decide what counts against a backend', async () => {
    const it = balancerBench(status(500), {
      ids: 'a',
      classes: { 'server-error': { health: 'none' } },
      health: { passive: { consecutive: 1 } },
    })
    for (let i = 0; i < 10; i++) await it.call()
    expect(it.balancer.stats().pools.default!.backends[0]).toMatchObject({ state: 'up', failures: 0 })
  })

  test('decide what makes a backend cool down', async () => {
    const it = balancerBench(status(404), {
      classes: { 'client-error': { cool: 'rate-limit' } },
      health: { cooldown: { rateLimitMs: 5_000 } },
    })
    await it.call()
    expect(it.balancer.stats().pools.default!.backends.filter(({ state }) => state === 'blocked')).toHaveLength(1)
  })

  test('hold for calls that begin after an update', async () => {
    const it = balancerBench(status(503), { ids: 'a', retry: { attempts: 1 }, health: { passive: false } })
    const failures = (): number => it.balancer.stats().pools.default!.backends[0]!.failures
    await it.call()
    expect(failures()).toBe(1)
    const { transport } = it
    await it.balancer.update({
      backends: [{ url: 'http://a.test', id: 'a' }],
      transport,
      classes: { 'server-error': { health: 'none' } },
    })
    await it.call()
    expect(failures()).toBe(1)
  })
})
