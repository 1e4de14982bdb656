import { type Backend, type Endpoint, type RawHeaders, type Reason, wireHeaders } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { type BalancerBench, type BalancerBenchOptions, balancerBench } from '../support/balancer-bench.ts'
import { type Play, status } from '../support/plays.ts'

interface CooldownBench extends BalancerBench {
  readonly told: readonly [id: string, reason: Reason, leftMs: number][]
  /** The next answers of every backend. */
  answer(code: number, headers?: RawHeaders): void
  hit(id: string): Promise<void>
  state(id: string): string
  failures(): number
  update(endpoints: readonly Endpoint[], options?: BalancerBenchOptions): Promise<void>
}

const plain = (id: string): Endpoint => ({ id, url: `http://${id}.test` })
const keyed = (id: string, key = 'secret'): Endpoint => ({ ...plain(id), headers: { Authorization: `Bearer ${key}` } })

/** One call, one attempt, at the backend that is named. */
function cooling(options: BalancerBenchOptions = {}): CooldownBench {
  let play: Play = status(200)
  const settings: BalancerBenchOptions = {
    retry: { attempts: 1, waitMs: 0 },
    ...options,
    health: { slowStart: false, ...options.health }, // which has timers of its own
  }
  const bench = balancerBench((send, number) => play(send, number), settings)
  const told: [string, Reason, number][] = []
  bench.balancer.on('blocked', (backend: Backend, reason) => {
    told.push([backend.id, reason, reason.untilMs! - bench.clock.now()])
  })
  const backends = (): ReturnType<typeof bench.balancer.stats>['pools'][string]['backends'] =>
    bench.balancer.stats().pools.default!.backends
  return {
    ...bench,
    told,
    answer(code, headers = []) {
      play = (send) => send.answer(code, '', headers)
    },
    async hit(id) {
      await bench.call({}, { prefer: id })
    },
    state: (id) => backends().find((backend) => backend.id === id)!.state,
    failures: () => backends().reduce((sum, backend) => sum + backend.failures, 0),
    async update(endpoints, more = {}) {
      const { ids: _, seed: __, ...rest } = settings
      await bench.balancer.update({
        strategy: 'round-robin',
        transport: bench.transport,
        ...rest,
        backends: endpoints,
        ...more,
      })
    },
  }
}

describe('a 429', () => {
  test('gives the backend a rest of a second if it does not say how long, and as long as it says otherwise', async () => {
    for (const [headers, ms, detail] of [
      [[], 1_000, 'status 429'],
      [['retry-after', '7'], 7_000, 'status 429, Retry-After 7000 ms'],
      [['retry-after-ms', '40'], 40, 'status 429, Retry-After 40 ms'],
      [['retry-after', 'soon'], 1_000, 'status 429'],
      [['retry-after', '-5'], 1_000, 'status 429'],
    ] as const) {
      const it = cooling()
      it.answer(429, headers)
      await it.hit('a')
      expect(it.told).toHaveLength(1)
      const [id, reason, leftMs] = it.told[0]!
      expect([id, reason]).toEqual(['a', { by: 'rate-limit', hard: false, untilMs: expect.any(Number), detail }])
      expect(leftMs).toBeGreaterThanOrEqual(ms)
      expect(leftMs).toBeLessThan(ms * 1.1)
      expect([it.state('a'), it.state('b')]).toEqual(['blocked', 'up'])
      it.answer(200)
      await it.clock.advance(ms - 1)
      expect(it.state('a')).toBe('blocked') // never early
      await it.clock.advance(ms * 0.1 + 1)
      expect(it.state('a')).toBe('up')
      await it.clock.advance(1_000) // the deadlines' timer lapses
      expect(it.clock.pending).toBe(0)
    }
  })

  test('that says 0 asks for nothing', async () => {
    const it = cooling()
    it.answer(429, ['retry-after', '0'])
    await it.hit('a')
    expect([it.told, it.state('a')]).toEqual([[], 'up'])
  })

  test('is believed up to a limit', async () => {
    const it = cooling({ health: { cooldown: { maxMs: 3_000 } } })
    it.answer(429, ['retry-after', '999999999999'])
    await it.hit('a')
    expect(it.told[0]![2]).toBeGreaterThanOrEqual(3_000)
    expect(it.told[0]![2]).toBeLessThan(3_300)
    expect(it.told[0]![1].detail).toBe('status 429, Retry-After 999999999999000 ms')
  })

  test('gives rests that differ by up to a tenth, evenly: mean within 1 % of 1.05 s, 2 000 draws, seed 4', async () => {
    const it = cooling({ ids: 'a', seed: 4 })
    it.answer(429)
    for (let i = 0; i < 2_000; i++) {
      await it.hit('a')
      await it.clock.advance(1_200)
    }
    const rests = it.told.map(([, , ms]) => ms)
    expect(rests).toHaveLength(2_000)
    expect(Math.min(...rests)).toBeGreaterThanOrEqual(1_000)
    expect(Math.max(...rests)).toBeLessThan(1_100)
    const mean = rests.reduce((sum, ms) => sum + ms, 0) / rests.length
    expect(mean).toBeGreaterThan(1_039.5)
    expect(mean).toBeLessThan(1_060.5)
  })

  test('is no failure of health: however many, nobody is ejected and no latency learned', async () => {
    const it = cooling({ ids: 'a', health: { passive: { consecutive: 2 } } })
    it.answer(429, ['retry-after-ms', '1'])
    for (let i = 0; i < 50; i++) await it.hit('a')
    expect(it.failures()).toBe(0)
    expect(new Set(it.told.map(([, { by }]) => by))).toEqual(new Set(['rate-limit']))
    await it.clock.advance(10)
    expect(it.state('a')).toBe('up')
  })

  test('of a lease counts as one of a request', async () => {
    const it = cooling({ ids: 'a' })
    it.balancer.acquire().fail({ status: 429 })
    expect(it.told.map(([, reason]) => reason)).toMatchObject([{ by: 'rate-limit', detail: 'status 429' }])
  })

  test('during the rest can make it longer, never shorter', async () => {
    const it = cooling({ ids: 'a' })
    const left = (): number => it.told.at(-1)![1].untilMs! - it.clock.now()
    it.answer(429, ['retry-after', '10'])
    await it.hit('a') // a pool of one is in panic: its only backend is asked all the same
    const longMs = left()
    for (const headers of [['retry-after', '1'], [], ['retry-after-ms', '5']]) {
      it.answer(429, headers)
      await it.hit('a')
      expect(left()).toBe(longMs)
    }
    it.answer(429, ['retry-after', '20'])
    await it.hit('a')
    expect(left()).toBeGreaterThanOrEqual(20_000)
    expect(it.clock.pending).toBeLessThanOrEqual(2) // its own, and the deadlines'
    await it.clock.advance(19_999)
    expect(it.state('a')).toBe('blocked')
    await it.clock.advance(2_001)
    expect(it.state('a')).toBe('up')
  })
})

describe('a 5xx', () => {
  test('gives a rest only if it says how long, and is a failure as ever', async () => {
    for (const code of [500, 502, 503]) {
      const it = cooling()
      it.answer(code)
      await it.hit('a')
      expect([it.told, it.failures()]).toEqual([[], 1])
      it.answer(code, ['retry-after', '4'])
      await it.hit('a')
      expect(it.told.map(([, reason]) => reason)).toMatchObject([{ by: 'rate-limit', hard: false }])
      expect(it.told[0]![2]).toBeGreaterThanOrEqual(4_000)
      expect(it.failures()).toBe(2)
    }
  })

  test('and a 429 are all: others may say Retry-After as they like', async () => {
    const it = cooling()
    for (const code of [200, 202, 301, 404, 403, 408]) {
      it.answer(code, ['retry-after', '9'])
      await it.hit('a')
    }
    expect(it.told).toEqual([])
  })
})

describe('a rest', () => {
  test('is overridden in panic if it may be about one caller, and never if the credential is the backend’s own', async () => {
    for (const [endpoints, sent] of [
      [[plain('a')], true],
      [[keyed('a')], false],
    ] as const) {
      const it = cooling({ backends: endpoints })
      it.answer(429)
      await it.hit('a')
      expect(it.told[0]![1].hard).toBe(!sent)
      it.answer(200)
      const { response, error } = await it.call()
      if (sent) expect(response?.status).toBe(200)
      else expect(error).toMatchObject({ code: 'NO_BACKEND', retryAfterMs: it.told[0]![1].untilMs! - it.clock.now() })
    }
  })

  test('knows a credential by the name of its header', async () => {
    for (const [name, hard] of [
      ['authorization', true],
      ['Cookie', true],
      ['X-API-Key', true],
      ['api-key', true],
      ['x-auth-token', true],
      ['Client-Secret', true],
      ['x-tenant', false],
      ['accept', false],
    ] as const) {
      const it = cooling({ backends: [{ ...plain('a'), headers: { [name]: 'x' } }] })
      it.answer(429)
      await it.hit('a')
      expect(it.told[0]![1].hard, name).toBe(hard)
      expect(JSON.stringify(it.told)).not.toContain('Bearer')
    }
  })

  test('ends with another endpoint, as a new credential makes one, and not with the same one said again', async () => {
    const it = cooling({ backends: [keyed('a', 'old'), keyed('b')] })
    it.answer(429, ['retry-after', '30'])
    await it.hit('a')
    await it.hit('b')
    await it.update([keyed('a', 'old'), keyed('b')])
    expect([it.state('a'), it.state('b')]).toEqual(['blocked', 'blocked'])
    await it.update([keyed('a', 'new'), keyed('b')])
    expect([it.state('a'), it.state('b')]).toEqual(['up', 'blocked'])
    it.answer(200)
    await it.hit('a')
    expect(wireHeaders(it.transport.last().attempt.request.headers)).toEqual(['Authorization', 'Bearer new'])
  })

  test('can be cut short by nobody’s good answer: calls under way when it began do not end it', async () => {
    const it = cooling({ backends: [keyed('a')] })
    it.answer(429)
    const slow = it.balancer.acquire()
    await it.hit('a')
    slow.succeed()
    expect(it.state('a')).toBe('blocked')
  })

  test('leaves no timer when the backend is removed, the settings change, it is switched off, or all is closed', async () => {
    const ends: readonly ((it: CooldownBench) => Promise<void>)[] = [
      (it) => it.update([plain('b')]),
      (it) => it.update([{ id: 'a', url: 'http://other.test' }, plain('b')]),
      (it) => it.update([plain('a'), plain('b')], { health: { cooldown: { maxMs: 1 } } }),
      (it) => it.update([plain('a'), plain('b')], { health: { cooldown: false } }),
      (it) => it.balancer.close(),
    ]
    for (const end of ends) {
      const it = cooling({ backends: [plain('a'), plain('b')] })
      it.answer(429, ['retry-after', '30'])
      await it.hit('a')
      await it.clock.advance(1_000) // the deadlines' timer has lapsed
      expect(it.clock.pending).toBe(1)
      await end(it)
      expect(it.clock.pending).toBe(0)
      const { backends } = it.balancer.stats().pools.default!
      expect(backends.map(({ state }) => state)).not.toContain('blocked')
    }
  })

  test('that is told to a part which then updates the balancer is over at once', async () => {
    const it = cooling({ backends: [plain('a'), plain('b')] })
    it.balancer.once('blocked', () => void it.update([plain('a'), plain('b')], { health: { cooldown: false } }))
    it.answer(429)
    await it.hit('a')
    expect(it.state('a')).toBe('up')
    await it.clock.advance(1_000)
    expect(it.clock.pending).toBe(0)
  })

  test('is not begun for a backend that has left meanwhile', async () => {
    const it = cooling({ backends: [plain('a'), plain('b')] })
    it.answer(429)
    const lease = it.balancer.acquire({ prefer: 'a' })
    await it.update([plain('b')])
    lease.fail({ status: 429 })
    expect(it.told).toEqual([])
    await it.clock.advance(1_000)
    expect(it.clock.pending).toBe(0)
  })

  test('is none when switched off, nor for settings of 0', async () => {
    for (const cooldown of [false, { rateLimitMs: 0, maxMs: 0, credentialMs: 0 }] as const) {
      const it = cooling({ backends: [keyed('a')], health: { cooldown } })
      for (const code of [429, 401, 402, 503]) {
        it.answer(code, ['retry-after', '5'])
        await it.hit('a')
      }
      expect([it.told, it.state('a')]).toEqual([[], 'up'])
    }
  })
})

describe('a refused credential', () => {
  test('takes a backend out for five minutes if it is its own, and only then', async () => {
    for (const code of [401, 402]) {
      const it = cooling({ backends: [keyed('a'), plain('b')] })
      it.answer(code, ['retry-after', '1'])
      await it.hit('b')
      expect(it.told).toEqual([])
      await it.hit('a')
      expect(it.told.map(([, reason]) => reason)).toMatchObject([
        { by: 'credential', hard: true, detail: `status ${code}` },
      ])
      expect(it.told[0]![2]).toBeGreaterThanOrEqual(300_000)
      expect(it.told[0]![2]).toBeLessThan(330_000)
      expect(it.failures()).toBe(0)
    }
  })

  test('is no matter for a 403: that is about what was asked for', async () => {
    const it = cooling({ backends: [keyed('a')] })
    it.answer(403)
    await it.hit('a')
    expect(it.told).toEqual([])
  })

  test('and a rate limit are two reasons: the backend is back when both are over', async () => {
    const it = cooling({ backends: [keyed('a')], health: { cooldown: { credentialMs: 5_000 } } })
    const leases = [401, 429].map((code) => ({ code, lease: it.balancer.acquire() }))
    for (const { code, lease } of leases) lease.fail({ status: code })
    expect(it.told.map(([, { by }]) => by)).toEqual(['credential', 'rate-limit'])
    await it.clock.advance(1_100)
    expect(it.state('a')).toBe('blocked')
    await it.clock.advance(4_400)
    expect(it.state('a')).toBe('up')
    expect(it.clock.pending).toBe(0)
  })

  test('ends with a new one', async () => {
    const it = cooling({ backends: [keyed('a', 'old')] })
    it.answer(401)
    await it.hit('a')
    expect(it.state('a')).toBe('blocked')
    await it.update([keyed('a', 'new')])
    expect(it.state('a')).toBe('up')
    await it.clock.advance(1_000)
    expect(it.clock.pending).toBe(0)
  })
})
