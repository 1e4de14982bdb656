import type { HedgeOptions } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type BalancerBench, balancerBench } from '../support/balancer-bench.ts'

/** A fifth of them is 5 000: 1.5 % is five standard errors of its share. */
const CALLS = 25_000
/** Between two calls, ms: the quantile looks back a minute at most, the simulation lasts longer. */
const EVERY_MS = 4
const SLOW_TEST_MS = 240_000

type Draw = () => number

function uniform(seed: number): Draw {
  const random = seededRandom(seed)
  return () => (random(2 ** 30) + 0.5) / 2 ** 30
}

/** Mean 10 ms. */
function exponential(seed: number): Draw {
  const draw = uniform(seed)
  return () => -10 * Math.log(draw())
}

/** Median 10 ms, sigma 1.2. */
function lognormal(seed: number): Draw {
  const draw = uniform(seed)
  return () => 10 * Math.exp(1.2 * Math.sqrt(-2 * Math.log(draw())) * Math.cos(2 * Math.PI * draw()))
}

/** Three in a hundred take one to two seconds, the others are exponential. */
function bimodal(seed: number): Draw {
  const [which, slow, fast] = [uniform(seed + 1), uniform(seed + 2), exponential(seed)]
  return () => (which() < 0.03 ? 1_000 * (1 + slow()) : fast())
}

interface Simulated {
  /** Of all calls, and of each fifth of them in turn. */
  readonly share: number
  readonly shares: readonly number[]
  /** Ms. */
  quantile(q: number): number
}

/** Calls at a steady rate to four backends that answer after independent times. */
async function simulate(latency: Draw, hedge: HedgeOptions | false, calls: number): Promise<Simulated> {
  const it: BalancerBench = balancerBench((send) => void it.clock.after(latency(), () => send.answer()), {
    ids: 'abcd',
    retry: { attempts: 1 },
    timeouts: { connectMs: 0, headersMs: 0, idleMs: 0 },
    health: { passive: false, cooldown: false, slowStart: false },
    hedge,
  })
  const times: number[] = []
  const hedges = (): number => it.balancer.stats().pools.default!.hedges
  const shares: number[] = []
  for (let fifth = 0; fifth < 5; fifth++) {
    const before = hedges()
    for (let i = 0; i < calls / 5; i++) {
      const startMs = it.clock.now()
      void it.start().ended.then(({ atMs }) => times.push(atMs - startMs))
      await it.clock.advance(EVERY_MS)
    }
    shares.push((hedges() - before) / (calls / 5))
  }
  await it.clock.advance(10_000)
  expect(times).toHaveLength(calls)
  expect(it.balancer.stats().pools.default).toMatchObject({ inflight: 0, failed: 0, aborted: 0 })
  times.sort((a, b) => a - b)
  return { share: hedges() / calls, shares, quantile: (q) => times[Math.floor(q * times.length)]! }
}

function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`
}

describe('a hedge at the 95th percentile', () => {
  for (const [name, latency, plain99, hedged99] of [
    ['exponential', exponential, 46.05, 38.0],
    ['lognormal', lognormal, 163, 91],
  ] as const) {
    test(`of ${name} times: 5 ± 1.5 % of 25 000 calls are sent twice, in each fifth of them, and p99 is within 8 % of ${hedged99} ms`, {
      timeout: SLOW_TEST_MS,
    }, async () => {
      const plain = await simulate(latency(11), false, 10_000)
      const { share, shares, quantile } = await simulate(latency(11), {}, CALLS)
      console.info(
        `${name}: hedged ${percent(share)} (${shares.map(percent).join(', ')}), p99 ` +
          `${plain.quantile(0.99).toFixed(1)} -> ${quantile(0.99).toFixed(1)} ms, p99.9 ` +
          `${plain.quantile(0.999).toFixed(1)} -> ${quantile(0.999).toFixed(1)} ms`,
      )
      for (const each of shares) {
        expect(each).toBeGreaterThan(0.035)
        expect(each).toBeLessThan(0.065)
      }
      expect(plain.quantile(0.99) / plain99).toBeGreaterThan(0.9)
      expect(quantile(0.99) / hedged99).toBeGreaterThan(0.92)
      expect(quantile(0.99) / hedged99).toBeLessThan(1.08)
    })
  }

  test('of two kinds of times cuts off the slow kind, and one at the 99th is refused: it would come too late', async () => {
    const plain = await simulate(bimodal(5), false, 5_000)
    const at95 = await simulate(bimodal(5), {}, 10_000)
    const at99 = await simulate(bimodal(5), { percentile: 0.99, warmUp: 1_000 }, 10_000)
    console.info(
      `bimodal: p99 ${plain.quantile(0.99).toFixed(0)} -> ${at95.quantile(0.99).toFixed(1)} ms at p95, ` +
        `hedged ${percent(at95.share)}; at p99 ${percent(at99.share)}`,
    )
    expect(plain.quantile(0.99)).toBeGreaterThan(1_000)
    expect(at95.quantile(0.99)).toBeLessThan(70)
    expect(at99.share).toBe(0)
  })
})

describe('the percentile', () => {
  /** Calls one after the other, each of which takes so long; returns the hedges made. */
  async function run(hedge: HedgeOptions, latencies: readonly number[], everyMs = 50): Promise<number> {
    let latency = 0
    const it: BalancerBench = balancerBench((send) => void it.clock.after(latency, () => send.answer()), {
      hedge,
      ids: 'ab',
      health: { slowStart: false },
    })
    for (const ms of latencies) {
      latency = ms
      it.start()
      await it.clock.advance(everyMs)
    }
    return it.balancer.stats().pools.default!.hedges
  }
  const of = (n: number, ms: number): number[] => Array.from({ length: n }, () => ms)

  test('says nothing before there are enough answers', async () => {
    expect(await run({}, [...of(99, 5), 40, ...of(10, 5)])).toBe(0)
    expect(await run({}, [...of(100, 5), ...of(20, 5), 40, 5])).toBe(1)
    expect(await run({ warmUp: 10 }, [...of(10, 5), ...of(20, 5), 40, 5])).toBe(1)
  })

  test('follows: what was slow is usual after a while, and the other way round', async () => {
    const slower = await run({ warmUp: 20, maxShare: 1 }, [...of(200, 5), ...of(400, 30)])
    expect(slower).toBeGreaterThan(5)
    expect(slower).toBeLessThan(60) // a twentieth of all is slow: from there on that is what is waited for
    const faster = await run({ warmUp: 20 }, [...of(200, 30), ...of(1_500, 5), 25, 5, 25, 5])
    expect(faster).toBe(2)
  })

  test('is not used when nothing was heard for more than a minute', async () => {
    const it: BalancerBench = balancerBench((send) => void it.clock.after(latency, () => send.answer()), {
      hedge: { warmUp: 20 },
      ids: 'ab',
      health: { slowStart: false },
    })
    let latency = 5
    for (let i = 0; i < 50; i++) await it.call()
    await it.clock.advance(90_000)
    latency = 500
    await it.call()
    expect(it.balancer.stats().pools.default!.hedges).toBe(0)
  })

  test('is never below the least delay', async () => {
    expect(await run({ warmUp: 20, minDelayMs: 30 }, [...of(50, 1), ...of(5, 25)])).toBe(0)
    expect(await run({ warmUp: 20, minDelayMs: 20 }, [...of(50, 1), ...of(5, 25)])).toBe(5)
  })
})

describe('any race', () => {
  const end = fc.constantFrom('ok', 'cut', 'held', '404', '429', '503', 'refused', 'reset', 'stale', 'never')
  const sends = fc.array(fc.record({ ms: fc.nat({ max: 60 }), end, bodyMs: fc.nat({ max: 40 }) }), {
    minLength: 6,
    maxLength: 6,
  })
  const story = fc.record({
    sends,
    abortMs: fc.option(fc.nat({ max: 120 }), { nil: undefined }),
    attempts: fc.integer({ min: 1, max: 3 }),
    ids: fc.constantFrom('a', 'ab', 'abc'),
    totalMs: fc.constantFrom(0, 40, 200),
  })

  test('has one outcome, and leaves nothing in flight, no timer and no rejection: 1 500 stories', async () => {
    const unhandled: unknown[] = []
    const note = (reason: unknown): void => void unhandled.push(reason)
    process.on('unhandledRejection', note)
    await fc.assert(
      fc.asyncProperty(story, async ({ sends: plan, abortMs, attempts, ids, totalMs }) => {
        let elsewhereLeft = false
        const it: BalancerBench = balancerBench(
          (send, number) => {
            const { ms, end: how, bodyMs } = plan[(number - 1) % plan.length]!
            it.clock.after(ms, () => {
              elsewhereLeft ||= send.attempt.call.elsewhere
              if (how === 'never') return send.connect()
              if (how === 'refused') return send.refuse()
              if (how === 'stale') return send.stale()
              if (how === 'reset') {
                send.connect()
                return send.fail()
              }
              if (/\d/.test(how)) return send.answer(Number(how), 'x')
              const body = send.head(200, how === 'held' ? ['content-length', '1'] : [])
              it.clock.after(bodyMs, () => {
                body.push('x')
                if (how === 'cut') body.fail()
                else body.end()
              })
            })
          },
          {
            ids,
            retry: { attempts, baseMs: 5, sameBaseMs: 5 },
            timeouts: { headersMs: 100, idleMs: 100, totalMs },
            hedge: { delayMs: 20, maxShare: 1 },
            health: { passive: false, cooldown: { rateLimitMs: 20 }, slowStart: false },
          },
        )
        let outcomes = 0
        const { call, ended } = it.start()
        void ended.then(() => outcomes++)
        if (abortMs !== undefined) it.clock.after(abortMs, () => call.cancel(new Error('stop')))
        await it.clock.advance(15_000)
        expect(outcomes).toBe(1)
        const { inflight, calls, failed, aborted, attempts: sent, hedges, retries } = it.balancer.stats().pools.default!
        expect(inflight).toBe(0)
        expect(calls).toBe(1)
        expect(failed + aborted).toBeLessThanOrEqual(1)
        expect(hedges).toBeLessThanOrEqual(attempts)
        expect(retries).toBeLessThan(attempts)
        expect(sent).toBeLessThanOrEqual(2 * attempts + 1) // one more for an old connection
        expect([elsewhereLeft, call.elsewhere]).toEqual([false, false])
        expect(call.attempts.every(({ outcome }) => outcome !== undefined)).toBe(true)
        expect(it.clock.pending).toBe(0)
      }),
      { numRuns: 1_500, seed: 16 },
    )
    await new Promise((resolve) => setImmediate(resolve))
    process.off('unhandledRejection', note)
    expect(unhandled).toEqual([])
  })
})
