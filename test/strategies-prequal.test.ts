import {
  type Backend,
  BalancerError,
  type Chooser,
  type Core,
  failover,
  prequal,
  type Strategy,
  subset,
} from 'evenkeel'
import { manualClock, seededRandom, strategyContract } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import type { LiveAttempt } from '../src/core/attempt.ts'
import { Load, loadIn } from '../src/core/load.ts'
import { CLASSES } from '../src/core/outcome.ts'
import { type Report, Reports, reuseOf } from '../src/strategies/prequal-reports.ts'
import { Standing } from '../src/strategies/prequal-standing.ts'
import { callOf, coreOf, membersOf } from '../src/testing/kit.ts'
import { backends } from './support/picking.ts'

/** Prequal in front of servers that tell the truth in every answer, which keeps it in reports. */
function told(): Strategy {
  const inner = prequal()
  return {
    name: 'prequal with reports',
    start(core: Core) {
      const chooser = inner.start(core)
      return {
        ...chooser,
        build(members) {
          const picker = chooser.build(members)
          return (call) => {
            for (let i = 0; i < 4 && members.eligible.length > 0; i++) {
              const backend = members.eligible[core.random(members.eligible.length)]!
              const headers = ['x-lb-rif', String(backend.inflight), 'x-lb-lat-ms', '5']
              chooser.head!({ backend, headers, headMs: call.nowMs } as unknown as LiveAttempt)
            }
            return picker(call)
          }
        },
        settle: (attempt) => chooser.settle!(attempt),
      }
    },
  }
}

describe('prequal keeps the contract', () => {
  for (const make of [
    prequal,
    () => prequal({ rifQuantile: 0 }),
    told,
    () => failover(prequal()),
    () => subset(prequal()),
  ]) {
    for (const { name, run } of strategyContract(make)) test(name, run)
  }
})

describe('how often a report is used', () => {
  // The last two tell (1 - m/n) * r - remove from (1 - m/n) * (r - remove).
  test.each([
    [16, 100, 3, 1, 1.316],
    [16, 100, 2, 1, 2.941],
    [16, 100, 1, 0.25, 3.39],
    [16, 100, 0.5, 0.25, 11.765],
    [16, 100, 5, 1, 1],
    [48, 100, 3, 1, 3.571],
    [8, 16, 3, 1, 4],
  ])('%i of %i, %d in and %d out per request: %d times', (most, n, probes, removals, times) => {
    expect(reuseOf(most, n, probes, removals)).toBeCloseTo(times, 3)
  })

  test('without end where more go than come', () => {
    expect(reuseOf(16, 20, 3, 1)).toBe(Infinity)
    expect(reuseOf(16, 32, 2, 1)).toBe(Infinity)
  })
})

describe('hot and cold', () => {
  const list = backends(Array.from({ length: 20 }, () => 1))
  const call = callOf(0)
  const report = (i: number, rif: number, latencyMs: number, rest: Partial<Report> = {}): Report => {
    return { backend: list[i]!, rif, latencyMs, takenMs: 0, uses: 2, ...rest }
  }
  const of = (...reports: readonly Report[]): Reports => {
    const all = new Reports(seededRandom(1))
    for (const one of reports) all.take(one, 16)
    return all
  }
  const ids = ({ all }: Reports): string => all.map(({ backend }) => backend.id).join('')

  test('of the cold the one with the least latency, though another has fewer in flight', () => {
    const reports = of(report(0, 1, 80), report(1, 4, 20), report(2, 9, 5), report(3, 3, 40))
    // The quantile is the value at floor(q * 4) of 1, 3, 4, 9; below 1 the hottest is hot even of so few.
    expect(reports.choose(0.84, call)?.backend.id).toBe('b')
    expect(reports.choose(0.5, call)?.backend.id).toBe('b')
    expect(reports.choose(0.25, call)?.backend.id).toBe('d')
    expect(reports.choose(0, call)?.backend.id).toBe('a')
    expect(reports.choose(1, call)?.backend.id).toBe('c')
  })

  test('the hottest of seven is hot at the default', () => {
    const reports = of(...[5, 4, 3, 2, 1, 6].map((rif, i) => report(i, rif, 10)), report(6, 50, 1))
    expect(reports.choose(0.84, call)?.backend.id).toBe('e') // floor(0.84 * 7) is the sixth
  })

  test('of latencies within 15 % the one with fewest in flight, and of equals one by lot', () => {
    const reports = of(report(0, 3, 100), report(1, 1, 114), report(2, 0, 116), report(3, 1, 110), report(4, 20, 1))
    const met = Array.from({ length: 1_000 }, () => reports.choose(0.84, call)!.backend.id)
    const ofFourth = met.filter((id) => id === 'd').length
    expect(new Set(met)).toEqual(new Set('bd'))
    expect(ofFourth).toBeGreaterThan(400) // five deviations would be 79
    expect(ofFourth).toBeLessThan(600)
  })

  test('where only hot ones are left one of those with fewest in flight by lot', () => {
    const reports = of(report(0, 5, 1), report(1, 4, 90), report(2, 4, 2))
    expect(new Set(Array.from({ length: 100 }, () => reports.choose(0, call)!.backend.id))).toEqual(new Set('bc'))
  })

  test('who was tried, or is full, is passed over, if need be for a hot one', () => {
    const reports = of(report(0, 1, 1), report(1, 30, 9), report(2, 20, 9))
    const first = { ...call, tags: [], tried: (it: unknown) => it === list[0] } as unknown as typeof call
    expect(reports.choose(0.5, first)?.backend.id).toBe('c')
    expect(of(report(0, 1, 1)).choose(0.5, first)).toBeUndefined()
  })

  test('a use adds one in flight and what that takes, and the last one ends it', () => {
    const one = report(0, 3, 40)
    const reports = of(one)
    reports.use(one)
    expect([one.rif, one.latencyMs]).toEqual([4, 50])
    reports.use(one)
    expect([one.rif, one.latencyMs]).toEqual([5, 60])
    expect(reports.all).toEqual([])
  })

  test('the latest of a backend counts, and the oldest goes when there are too many', () => {
    const reports = new Reports(seededRandom(1))
    for (const [i, takenMs] of [0, 1, 0, 2, 3].entries()) reports.take(report(takenMs, i, 1, { takenMs: i }), 3)
    expect(ids(reports)).toBe('acd')
    reports.take(report(4, 1, 1, { takenMs: 5 }), 3)
    expect(ids(reports)).toBe('cde')
    reports.expire(4)
    expect(ids(reports)).toBe('de')
  })

  test('the worst is the hottest; where nobody is hot, the slowest', () => {
    const hot = of(report(0, 9, 1), report(1, 1, 90), report(2, 1, 2))
    hot.dropWorst(0.5)
    expect(ids(hot)).toBe('bc')
    hot.dropWorst(0.84)
    expect(ids(hot)).toBe('c')
    hot.dropWorst(0.84)
    hot.dropWorst(0.84)
    expect(ids(hot)).toBe('')
  })
})

describe('at work', () => {
  /** So many backends, of whom nobody answers probes: they are known by their answers to requests. */
  const chooserOf = (
    n: number,
  ): { list: readonly Backend[]; chooser: Chooser; says(backend: Backend, load?: string[]): void } => {
    const list = backends(Array.from({ length: n }, () => 1))
    const sent = { call: { cancel() {} }, response: new Promise(() => {}) }
    const core = coreOf(manualClock(), seededRandom(1), () => membersOf(list))
    const chooser = prequal().start({ ...core, send: () => sent as never, emit() {} })
    return {
      list,
      chooser,
      says(backend, load = []) {
        chooser.head!({ backend, headers: load, headMs: 0, rule: CLASSES.ok } as unknown as LiveAttempt)
      },
    }
  }
  const idle = ['x-lb-rif', '0', 'x-lb-lat-ms', '5']

  test('who falls silent after a change of the pool and before the next pick has its share by weight', () => {
    const { list, chooser, says } = chooserOf(5)
    const [silent, ...others] = list as [Backend, ...Backend[]]
    chooser.build(membersOf(list))(callOf(0))
    for (let i = 0; i < 9; i++) says(silent)
    const picker = chooser.build(membersOf(list))
    says(silent) // the tenth
    let met = 0
    for (let i = 0; i < 2_000; i++) {
      for (const backend of others) says(backend, idle)
      if (picker(callOf(0)) === silent) met++
    }
    expect(met).toBeGreaterThan(300) // 400; by reports it would be none
    expect(met).toBeLessThan(500)
  })

  test('a choice is taken for refused only by the call that was asked again', () => {
    const { list, chooser, says } = chooserOf(10)
    const [best, ...others] = list as [Backend, ...Backend[]]
    const picker = chooser.build(membersOf(list))
    picker(callOf(0))
    for (const backend of others) says(backend, ['x-lb-rif', '1', 'x-lb-lat-ms', '90'])
    says(best, ['x-lb-rif', '0', 'x-lb-lat-ms', '1'])
    const again = Object.assign(callOf(0), { picks: 1 }) // it was tried elsewhere
    expect(picker(again)).toBe(best)
    const another = Object.assign(callOf(0), { picks: 1 })
    expect(picker(another)).toBe(best)
    expect(picker(another)).not.toBe(best)
  })
})

describe('a backend that fails', () => {
  test('is a suspect after four failures in a row, for twice as long each time', () => {
    const standing = new Standing()
    let nowMs = 0
    const failures = (): number => {
      for (let n = 1; n < 100; n++) if (standing.fail(0, nowMs)) return n
      throw new Error('100 failures, and no suspicion')
    }
    expect(failures()).toBe(4)
    for (const ms of [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000]) {
      nowMs += ms - 1
      expect(standing.isSuspect(nowMs)).toBe(true)
      expect(standing.fail(0, nowMs)).toBe(false)
      expect(standing.isSuspect(++nowMs)).toBe(false)
      expect(failures()).toBe(1)
    }
    nowMs += 64_000
    for (let i = 0; i < 500; i++) standing.succeed(nowMs)
    expect(failures()).toBe(4)
    expect(standing.isSuspect(nowMs + 1_000)).toBe(false)
  })

  test('is none where the others fail as much', () => {
    const standing = new Standing()
    for (let i = 0; i < 500; i++) {
      standing.succeed(i)
      expect(standing.fail(0.2, i)).toBe(false) // half of its requests: less than three times a fifth
    }
  })
})

describe('what a server knows of its load', () => {
  /** So many at once, ended after so long each. */
  const serve = (load: Load, inflight: number, tookMs: number, nowMs: number): void => {
    const met = Array.from({ length: inflight }, () => load.begin())
    for (const one of met) load.end(one, tookMs, nowMs, 'served')
  }

  test('nothing before anything has ended, nor a second later', () => {
    const load = new Load()
    expect(load.report(0)).toEqual({ rif: 0, latencyMs: undefined })
    serve(load, 1, 20, 0)
    expect(load.report(999)).toEqual({ rif: 0, latencyMs: 20 })
    expect(load.report(1_000)).toEqual({ rif: 0, latencyMs: undefined })
  })

  test('the median of the 25 requests that met about as many as there are now', () => {
    const load = new Load()
    for (let i = 0; i < 30; i++) serve(load, 1, 10, 0)
    for (let i = 0; i < 30; i++) {
      load.end(load.begin() + 9, 100, 0, 'served')
    }
    expect(load.latencyMs(0, 0)).toBe(10)
    expect(load.latencyMs(9, 0)).toBe(100)
  })

  test('scaled to the requests in flight now', () => {
    const load = new Load()
    serve(load, 1, 10, 0)
    expect(load.latencyMs(4, 0)).toBe(50)
    for (let i = 0; i < 4; i++) load.begin()
    expect(load.report(0)).toEqual({ rif: 4, latencyMs: 50 })
    expect(load.report(0, 1)).toEqual({ rif: 3, latencyMs: 40 })
  })

  test('a failure counts as slow, an abort only if it took longer than expected', () => {
    const load = new Load()
    serve(load, 1, 20, 0)
    load.end(load.begin(), 2, 0, 'aborted')
    expect(load.latencyMs(0, 0)).toBe(20)
    for (let i = 0; i < 2; i++) load.end(load.begin(), 1, 0, 'failed')
    expect(load.latencyMs(0, 0)).toBe(1_000)
    for (let i = 0; i < 4; i++) load.end(load.begin(), 3_000, 0, 'aborted')
    expect(load.latencyMs(0, 0)).toBe(3_000)
    expect(load.inflight).toBe(0)
  })

  test('what is known before the end counts then, and the request is in flight until it is over', () => {
    const load = new Load()
    load.learn(load.begin(), 20, 0, 'served')
    expect(load.report(0, 1)).toEqual({ rif: 0, latencyMs: 20 })
    expect(load.inflight).toBe(1)
    load.leave()
    expect(load.report(0)).toEqual({ rif: 0, latencyMs: 20 })
  })

  test('only the last 64 are remembered', () => {
    const load = new Load()
    serve(load, 1, 500, 0)
    for (let i = 0; i < 64; i++) serve(load, 1, 10 + i, 0)
    expect(load.latencyMs(0, 0)).toBe(10 + 63 - 12) // of the newest 25
  })
})

describe('reports are read from headers', () => {
  test.each([
    [['X-LB-RIF', '3', 'x-lb-lat-ms', '12.5'], { rif: 3, latencyMs: 12.5 }],
    [['x-lb-rif', '0'], { rif: 0, latencyMs: undefined }],
    [[Buffer.from('x-lb-rif'), Buffer.from('7')], { rif: 7, latencyMs: undefined }],
    [['x-lb-rif', '3', 'x-lb-lat-ms', 'NaN'], { rif: 3, latencyMs: undefined }],
    [['x-lb-lat-ms', '3'], undefined],
    [['x-lb-rif', '-1'], undefined],
    [['x-lb-rif', '1e9'], undefined],
    [['x-lb-rif', '9999999999'], undefined],
    [['x-lb-rif', ''], undefined],
    [[], undefined],
  ])('%j', (headers, load) => {
    expect(loadIn(headers)).toEqual(load)
  })
})

describe('wrong options', () => {
  test.each([
    [{ path: 'probe' }, "prequal: path: expected a path that starts with '/', got probe"],
    [{ poolSize: 1 }, 'prequal: poolSize: expected a whole number from 2 to 256, got 1'],
    [{ poolSize: 2.5 }, 'prequal: poolSize: expected a whole number from 2 to 256, got 2.5'],
    [{ probesPerRequest: 0 }, 'prequal: probesPerRequest: expected 0.1 to 100, got 0'],
    [{ removalsPerRequest: -1 }, 'prequal: removalsPerRequest: expected 0 to 100, got -1'],
    [{ rifQuantile: 1.1 }, 'prequal: rifQuantile: expected 0 to 1, got 1.1'],
    [{ rifQuantile: Number.NaN }, 'prequal: rifQuantile: expected 0 to 1, got NaN'],
    [{ maxAgeMs: 0 }, 'prequal: maxAgeMs: expected a number >= 1, got 0'],
    [{ timeoutMs: Infinity }, 'prequal: timeoutMs: expected a number >= 1, got Infinity'],
    [{ maxProbesPerSecond: 0 }, 'prequal: maxProbesPerSecond: expected a number >= 1, got 0'],
  ])('%j are refused', (options, message) => {
    expect(() => prequal(options)).toThrow(BalancerError)
    expect(() => prequal(options)).toThrow(message)
  })
})
