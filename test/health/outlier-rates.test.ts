import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DEFAULTS } from '../../src/config/defaults.ts'
import { outlier } from '../../src/health/outlier.ts'
import { standOut } from '../../src/health/rates.ts'
import { bad, good, type OutlierBench, outlierBench, passive } from '../support/outlier-bench.ts'

const successRate = { deviations: 1.9, minBackends: 2, minRequests: 1 }

/** Backends with these success rates, 100 requests each: the places of those that are found. */
function found(rates: readonly number[], settings: Parameters<typeof standOut>[1]): number[] {
  const tallies = rates.map((rate, at) => ({ at, requests: 100, failures: 100 - rate * 100 }))
  return standOut(tallies, settings).map(([{ at }]) => at)
}

function some(n: number, rate: number): number[] {
  return Array<number>(n).fill(rate)
}

describe('who is far below the others', () => {
  const byRate = { successRate, failureShare: false } as const

  test('one at 0 beside n - 1 at 100 % is √(n - 1) deviations away: too few for four, enough for five', () => {
    expect(found([...some(3, 1), 0], byRate)).toEqual([])
    expect(found([...some(4, 1), 0], byRate)).toEqual([4])
  })

  test('k dead of n are seen only while k / n < 0.2169, which is why failures in a row count too', () => {
    for (const [n, most] of [
      [5, 1],
      [10, 2],
      [20, 4],
      [50, 10],
    ] as const) {
      const dead = (k: number): number => found([...some(n - k, 1), ...some(k, 0)], byRate).length
      expect([dead(most), dead(most + 1)], `of ${n}`).toEqual([most, 0])
    }
  })

  test('80 % beside four at 99 %: mean 0.952, deviation 0.076, least 0.8076', () => {
    expect(found([...some(4, 0.99), 0.8], byRate)).toEqual([4])
    const tallies = [1, 1, 1, 1, 20].map((failures) => ({ requests: 100, failures }))
    expect(standOut(tallies, byRate).map(([, detail]) => detail)).toEqual([
      'success rate 80.0 % is below 80.8 % (mean 95.2 %, 1.9 deviations)',
    ])
    const [deviations, more] = [1.999, 2.001].map((it) => ({
      ...byRate,
      successRate: { ...successRate, deviations: it },
    }))
    expect([found([...some(4, 0.99), 0.8], deviations!), found([...some(4, 0.99), 0.8], more!)]).toEqual([[4], []])
  })

  test('is nobody when all fare alike, however badly, and however little it takes', () => {
    const shapes = fc.record({ n: fc.integer({ min: 1, max: 60 }), requests: fc.integer({ min: 1, max: 10_000 }) })
    fc.assert(
      fc.property(shapes, fc.double({ min: 0, max: 1, noNaN: true }), ({ n, requests }, share) => {
        const tallies = Array.from({ length: n }, () => ({ requests, failures: Math.round(requests * share) }))
        const settings = { ...byRate, successRate: { ...successRate, deviations: 0.001 } }
        expect(standOut(tallies, settings)).toEqual([])
      }),
      { seed: 1, numRuns: 500 },
    )
  })

  test('is always worse than all the others, and told worst first', () => {
    const tally = fc
      .tuple(fc.integer({ min: 0, max: 300 }), fc.double({ min: 0, max: 1, noNaN: true }))
      .map(([requests, share]) => ({ requests, failures: Math.round(requests * share) }))
    const rate = ({ requests, failures }: { requests: number; failures: number }): number => 1 - failures / requests
    fc.assert(
      fc.property(
        fc.array(tally, { maxLength: 30 }),
        fc.double({ min: 0.1, max: 3, noNaN: true }),
        (all, deviations) => {
          const settings = { ...byRate, successRate: { deviations, minBackends: 3, minRequests: 10 } }
          const worst = standOut(all, settings).map(([it]) => it)
          const others = all.filter((it) => it.requests >= 10 && !worst.includes(it))
          expect(worst.map(rate)).toEqual(worst.map(rate).sort((a, b) => a - b))
          for (const it of worst) {
            expect(it.requests).toBeGreaterThanOrEqual(10)
            for (const other of others) expect(rate(it)).toBeLessThan(rate(other))
          }
        },
      ),
      { seed: 1, numRuns: 500 },
    )
  })

  test('is asked of those with enough requests only, and of nobody when these are too few', () => {
    const settings = { ...byRate, successRate: { deviations: 1.9, minBackends: 5, minRequests: 100 } }
    const tallies = (requests: number): { requests: number; failures: number }[] => [
      ...Array.from({ length: 4 }, () => ({ requests: 100, failures: 0 })),
      { requests, failures: requests },
    ]
    expect(standOut(tallies(99), settings)).toEqual([])
    expect(standOut(tallies(100), settings)).toHaveLength(1)
    expect(standOut([], settings)).toEqual([])
  })
})

describe('who fails too large a share', () => {
  test('reaches it, whatever the others do', () => {
    const failureShare = { share: 0.85, minBackends: 5, minRequests: 50 }
    const tallies = [100, 100, 86, 85, 84].map((failures) => ({ requests: 100, failures }))
    expect(standOut(tallies, { successRate: false, failureShare }).map(([, detail]) => detail)).toEqual([
      '100.0 % of 100 requests failed, 85.0 % is too much',
      '100.0 % of 100 requests failed, 85.0 % is too much',
      '86.0 % of 100 requests failed, 85.0 % is too much',
      '85.0 % of 100 requests failed, 85.0 % is too much',
    ])
    expect(standOut(tallies.slice(1), { successRate: false, failureShare })).toEqual([])
    const few = tallies.map(({ failures }) => ({ requests: 49, failures: Math.min(49, failures) }))
    expect(standOut(few, { successRate: false, failureShare })).toEqual([])
  })
})

describe('the sweep', () => {
  /** Only the rates of ten requests and more decide. */
  const byRate = passive({ consecutive: 1_000, successRate: { minRequests: 10 }, jitter: 0 })

  /** Ten requests to each backend, of which so many fail. */
  async function interval(it: OutlierBench, failures: Readonly<Record<string, number>>): Promise<void> {
    for (const [id, n] of Object.entries(failures)) await it.serve(id, 10, n)
  }

  test('ejects at the end of the interval, and says why', async () => {
    const it = outlierBench({ ids: 'abcde', ...byRate })
    await interval(it, { a: 0, b: 0, c: 0, d: 0, e: 4 })
    await it.clock.advance(9_999)
    expect(it.out()).toBe('')
    await it.clock.advance(1)
    expect(it.out()).toBe('e')
    expect(it.detail('e')).toBe('success rate 60.0 % is below 61.6 % (mean 92.0 %, 1.9 deviations)')
    expect(it.outFor('e')).toBe(5_000)
  })

  test('judges each interval by itself', async () => {
    const it = outlierBench({ ids: 'abcde', ...byRate })
    for (let i = 0; i < 3; i++) {
      await it.serve('e', 6, 6) // never enough requests within one
      await interval(it, { a: 0, b: 0, c: 0, d: 0 })
      await it.clock.advance(10_000)
    }
    expect(it.events()).toEqual([])
  })

  test('needs more of a pool than four', async () => {
    const it = outlierBench({ ids: 'abcd', ...byRate })
    await interval(it, { a: 0, b: 0, c: 0, d: 10 })
    await it.clock.advance(10_000)
    expect(it.events()).toEqual([])
  })

  test('ejects by the share of failures where that is asked for, even everybody that the cap allows', async () => {
    const it = outlierBench({
      ids: 'abcde',
      ...passive({ consecutive: 1_000, successRate: false, failureShare: { share: 0.5, minRequests: 10 } }),
    })
    await interval(it, { a: 5, b: 6, c: 4, d: 8, e: 7 })
    await it.clock.advance(10_000)
    expect(it.events()).toEqual(['d out', 'e out']) // the worst two: half of five
    expect(it.detail('d')).toBe('80.0 % of 10 requests failed, 50.0 % is too much')
  })

  test('leaves out who was ejected meanwhile: it would hide the others', async () => {
    const it = outlierBench({ ids: 'abcdef', ...passive({ successRate: { minRequests: 10 }, baseMs: 20_000 }) })
    await interval(it, { a: 0, b: 0, c: 0, d: 0, e: 5, f: 4 })
    expect(it.events()).toEqual(['e out'])
    await it.clock.advance(10_000)
    expect(it.events()).toEqual(['e out', 'f out'])
  })

  test('ejects once whom both statistics find', async () => {
    const failureShare = { share: 0.5, minRequests: 10 }
    const it = outlierBench({ ids: 'abcde', ...passive({ ...byRate.health!.passive, failureShare }) })
    await interval(it, { a: 0, b: 0, c: 0, d: 0, e: 9 })
    await it.clock.advance(10_000)
    expect(it.events()).toEqual(['e out'])
    await it.clock.advance(5_000)
    expect([it.events(), it.out()]).toEqual([['e out', 'e back'], ''])
  })

  test('takes out one on trial too, whose request is still under way: the next return is by another one', async () => {
    const settings = { maxShare: 0.2, jitter: 0, intervalMs: 12_000, successRate: { minRequests: 1 } }
    const it = outlierBench({ ids: 'abcde', ...passive(settings) })
    await it.serve('a', 5, 5)
    await it.back('a')
    await it.serve('b', 5, 5) // takes the only place
    await it.serve('a', 1, 1) // so that this goes without punishment
    await it.clock.advance(4_000)
    expect(it.events()).toEqual(['a out', 'a back', 'b out'])
    it.scripts.set('a', (send) => send.connect())
    it.start({}, { prefer: 'a' })
    await it.back('b')
    for (const id of 'bcde') await it.hit(id)
    await it.clock.advance(2_000)
    expect(it.events().slice(3)).toEqual(['b back', 'a out'])
    await it.back('a')
    it.scripts.set('a', good)
    await it.hit('a', 3)
    expect(it.transport.sends.slice(-3).map(({ to }) => to)).toEqual(['a', 'a', 'a'])
  })

  test('comes as often as configured', async () => {
    const it = outlierBench({ ids: 'abcde', ...passive({ ...byRate.health!.passive, intervalMs: 2_000 }) })
    await interval(it, { a: 0, b: 0, c: 0, d: 0, e: 4 })
    await it.clock.advance(1_999)
    expect(it.out()).toBe('')
    await it.clock.advance(1)
    expect(it.out()).toBe('e')
  })

  test('leaves out who has no weight any more', async () => {
    for (const weight of [0, 1]) {
      const it = outlierBench({ ids: 'abcde', ...byRate })
      await interval(it, { a: 0, b: 0, c: 0, d: 0, e: 10 })
      await it.balancer.update({
        backends: [...'abcde'].map((id) => ({ url: `http://${id}.test`, id, weight: id === 'a' ? weight : 1 })),
        strategy: 'round-robin',
        transport: it.transport,
        retry: { attempts: 1 },
        ...byRate,
      })
      await it.clock.advance(10_000)
      expect(it.out(), `weight ${weight}`).toBe(weight === 0 ? '' : 'e') // four are too few to be compared
    }
  })

  test('counts nothing that says nothing about health: what callers gave up is no request', async () => {
    const it = outlierBench({ ids: 'abcde', ...byRate })
    await interval(it, { a: 0, b: 0, c: 0, d: 0, e: 1 })
    it.scripts.set('d', (send) => send.attempt.call.cancel(new Error('stop')))
    it.scripts.set('e', (send) => send.attempt.call.cancel(new Error('stop')))
    await it.hit('d', 50)
    await it.hit('e', 50)
    await it.clock.advance(10_000)
    // 90 %, not 98 %: the mean would be told otherwise too.
    expect(it.detail('e')).toBe('success rate 90.0 % is below 90.4 % (mean 98.0 %, 1.9 deviations)')
  })

  test('forgets, at the return, what was counted before', async () => {
    const it = outlierBench({ ids: 'abcde', ...passive({ ...byRate.health!.passive, baseMs: 1_000, consecutive: 5 }) })
    await it.serve('e', 25, 5)
    expect(it.out()).toBe('e')
    await it.back('e')
    await interval(it, { a: 0, b: 0, c: 0, d: 0, e: 0 })
    await it.clock.advance(10_000)
    expect(it.events()).toEqual(['e out', 'e back'])
  })

  test('runs only while there is traffic, and only where it can find somebody', async () => {
    const quiet = { timeouts: { connectMs: 0, headersMs: 0, idleMs: 0 } }
    const it = outlierBench({ ids: 'abcde', ...quiet })
    expect(it.clock.pending).toBe(0)
    for (let i = 0; i < 3; i++) {
      await it.hit('a', 20)
      expect(it.clock.pending).toBe(1)
      await it.clock.advance(9_999)
      expect(it.clock.pending).toBe(1)
      await it.clock.advance(1)
      expect(it.clock.pending).toBe(0)
      await it.clock.advance(100_000)
      expect(it.clock.pending).toBe(0)
    }
    const backends = [...'abcd'].map((id) => ({ url: `http://${id}.test`, id }))
    await it.balancer.update({ backends, transport: it.transport, ...quiet })
    const small = outlierBench({ ids: 'abcd', ...quiet })
    const off = outlierBench({ ids: 'abcde', ...quiet, ...passive({ successRate: false }) })
    for (const other of [it, small, off]) {
      await other.hit('a', 20)
      expect(other.clock.pending).toBe(0)
    }
  })

  test('begins when a pool has grown large enough, with what comes from then on', async () => {
    const settings = { strategy: 'round-robin', retry: { attempts: 1 }, ...byRate } as const
    const it = outlierBench({ ids: 'abcd', ...settings })
    await it.serve('d', 100, 100)
    const backends = [...'abcde'].map((id) => ({ url: `http://${id}.test`, id }))
    await it.balancer.update({ ...settings, backends, transport: it.transport })
    await interval(it, { a: 0, b: 0, c: 0, d: 0, e: 0 })
    await it.clock.advance(10_000)
    expect(it.events()).toEqual([])
    await interval(it, { a: 0, b: 0, c: 0, d: 3, e: 0 })
    await it.clock.advance(10_000)
    expect(it.events()).toEqual(['d out'])
  })

  test('lives with an update, and with a close, in the middle of it', async () => {
    for (const end of ['update', 'close'] as const) {
      const ids = 'abcdefghijkl'
      const settings = { retry: { attempts: 1 }, ...passive({ ...byRate.health!.passive, maxShare: 0.5 }) }
      const it = outlierBench({ ids, ...settings })
      it.balancer.on('blocked', () => {
        const backends = [...ids.slice(0, 10)].map((id) => ({ url: `http://${id}.test`, id }))
        if (end === 'close') void it.balancer.close()
        else void it.balancer.update({ backends, transport: it.transport, ...settings })
      })
      for (const id of ids) await it.serve(id, 10, id === 'k' || id === 'l' ? 10 : 0)
      await it.clock.advance(10_000)
      expect(it.events().filter((event) => event.endsWith('out'))).toEqual(['k out'])
      await it.clock.advance(100_000)
      expect(it.clock.pending).toBe(0)
    }
  })

  test('is stopped by a close and by an update that turns it off', async () => {
    const it = outlierBench({ ids: 'abcde', timeouts: { connectMs: 0, headersMs: 0, idleMs: 0 } })
    await it.hit('a')
    const backends = [...'abcde'].map((id) => ({ url: `http://${id}.test`, id }))
    await it.balancer.update({ backends, transport: it.transport, health: { passive: false } })
    expect(it.clock.pending).toBe(0)
    await it.balancer.update({ backends, transport: it.transport, timeouts: { connectMs: 0, headersMs: 0, idleMs: 0 } })
    await it.hit('a')
    expect(it.clock.pending).toBe(1)
    await it.balancer.close()
    expect(it.clock.pending).toBe(0)
  })
})

test('with every detector off nobody is ejected, and nothing runs', async () => {
  const off = {
    consecutive: 0,
    consecutiveGateway: 0,
    consecutiveLocal: 0,
    successRate: false,
    failureShare: false,
  } as const
  const { passive: defaults } = DEFAULTS.health
  const it = outlierBench({
    ids: 'abcde',
    health: { passive: false },
    timeouts: { connectMs: 0, headersMs: 0, idleMs: 0 },
    watchers: [outlier({ ...(defaults as Exclude<typeof defaults, false>), ...off, panic: true })],
  })
  it.scripts.set('a', bad)
  it.scripts.set('b', good)
  await it.hit('a', 50)
  await it.hit('b', 50)
  await it.clock.advance(6_000) // a failure counts against the latency for so long
  expect([it.events(), it.clock.pending]).toEqual([[], 0])
})
