import { type BalancerOptions, createBalancer, type MemoryAnswer, memory, type StrategyName } from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'

const BACKENDS = 20
const BAD = 'b0'
/** Calls per second. */
const RATE = 1_000

interface Seen {
  readonly calls: number
  readonly failed: number
  /** Share of all attempts that went to the bad one. */
  readonly share: number
  /** Times until the answer or the failure, ms, sorted, of calls that began at `fromMs` or later. */
  times(fromMs?: number): readonly number[]
}

/** Calls at a steady rate over twenty backends, one of which answers as `bad` says; in virtual time. */
async function load(
  seconds: number,
  method: string,
  bad: (nowMs: number) => MemoryAnswer,
  options: Omit<BalancerOptions, 'backends'>,
): Promise<Seen> {
  const clock = manualClock(0)
  const random = seededRandom(7)
  const good = (): MemoryAnswer => ({ body: 'ok', headMs: 5 + random(10_000) / 1_000 })
  const ids = Array.from({ length: BACKENDS }, (_, i) => `b${i}`)
  const transport = memory(Object.fromEntries(ids.map((id) => [id, id === BAD ? () => bad(clock.now()) : good])), {
    clock,
  })
  const balancer = createBalancer({
    backends: ids.map((id) => ({ url: `http://${id}.test`, id })),
    transport,
    clock,
    random: seededRandom(8),
    ...options,
  })
  const ended: { readonly atMs: number; readonly tookMs: number }[] = []
  let failed = 0
  const one = async (): Promise<void> => {
    const atMs = clock.now()
    const end = (): void => void ended.push({ atMs, tookMs: clock.now() - atMs })
    try {
      const { statusCode, body } = await balancer.request('/', { method })
      if (statusCode >= 500) failed++
      await body.dump()
    } catch {
      failed++
    }
    end()
  }
  for (let i = 0; i < seconds * RATE; i++) {
    void one()
    await clock.advance(1_000 / RATE)
  }
  await clock.advance(20_000)
  const { attempts, backends, inflight } = balancer.stats().pools.default!
  expect(ended).toHaveLength(seconds * RATE)
  expect(inflight).toBe(0)
  await balancer.close()
  return {
    calls: ended.length,
    failed,
    share: backends.find(({ id }) => id === BAD)!.requests / attempts,
    times: (fromMs = 0) =>
      ended
        .filter(({ atMs }) => atMs >= fromMs)
        .map(({ tookMs }) => tookMs)
        .sort((a, b) => a - b),
  }
}

/** Five seconds down, five seconds up. */
function flapping(nowMs: number): MemoryAnswer {
  return nowMs % 10_000 < 5_000 ? { status: 500, headMs: 1.2 } : { body: 'ok', headMs: 10 }
}

const STRATEGIES: readonly StrategyName[] = ['auto', 'round-robin', 'random', 'p2c', 'least', 'peak-ewma']

describe('one of 20 backends fails fast, 5 s down and 5 s up', () => {
  test.each(STRATEGIES)(
    'with %s at most one caller in a thousand sees it, and it draws no more than its share',
    async (strategy) => {
      // Two outages: the first one finds it, the second one finds it after a comeback.
      const { calls, failed, share } = await load(20, 'POST', flapping, { strategy })
      console.info(
        `${strategy}: ${failed} of ${calls} POSTs failed; the flapping backend got ${(share * 100).toFixed(2)} % of the attempts`,
      )
      expect(failed / calls).toBeLessThanOrEqual(0.001)
      expect(failed).toBeGreaterThan(0) // it was met
      expect(share).toBeLessThanOrEqual(1 / BACKENDS)
    },
  )

  test('and nobody at all does where a repeat is safe', async () => {
    const { failed } = await load(20, 'GET', flapping, { strategy: 'least', retry: { status: [500] } })
    expect(failed).toBe(0)
  })

  test('without ejection least would be drawn to it', async () => {
    const { failed, calls, share } = await load(20, 'POST', flapping, { strategy: 'least', health: { passive: false } })
    console.info(
      `least without ejection: ${failed} of ${calls} POSTs failed, ${(share * 100).toFixed(1)} % of the attempts`,
    )
    expect(failed / calls).toBeGreaterThan(0.01)
  })
})

describe('one of 20 backends hangs', () => {
  test.each(STRATEGIES)(
    'with %s callers wait for one attempt at most, and once it is ejected not even that',
    async (strategy) => {
      const attemptMs = 200
      const { times } = await load(20, 'GET', () => ({ headMs: 1e9 }), { strategy, timeouts: { attemptMs } })
      const all = times()
      const median = all[all.length >> 1]!
      const p99 = (list: readonly number[]): number => list[Math.floor(list.length * 0.99)]!
      const after = times(1_000)
      console.info(
        `${strategy}: p99 ${p99(all).toFixed(1)} ms, from 1 s on ${p99(after).toFixed(1)} ms, median ${median.toFixed(1)} ms, attempts of ${attemptMs} ms`,
      )
      expect(p99(after)).toBeLessThanOrEqual(attemptMs + 2 * median)
      expect(all.at(-1)).toBeLessThanOrEqual(2 * attemptMs)
    },
  )
})
