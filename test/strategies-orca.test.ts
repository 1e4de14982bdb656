import { type Attempt, type Backend, BalancerError, byInflight, createBalancer, least, memory } from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { BackendRecord } from '../src/core/backend.ts'
import type { OrcaOptions } from '../src/core/strategy-options.ts'
import { orca } from '../src/strategies/orca.ts'
import { loadReportOf } from '../src/strategies/orca-report.ts'
import { callOf, coreOf, membersOf } from '../src/testing/kit.ts'
import { backends, reweigh } from './support/picking.ts'
import { balance, upstream } from './support/upstreams.ts'

const NAME = 'endpoint-load-metrics'

/** A chooser over backends a, b, c, ..., a manual clock, and what they report. */
function bench(weights: readonly number[], options: OrcaOptions = {}, seed = 42) {
  const clock = manualClock()
  const list = backends(weights)
  const chooser = orca(options).start(coreOf(clock, seededRandom(seed), () => membersOf(list)))
  let pick = chooser.build(membersOf(list))
  return {
    clock,
    list,
    head(backend: Backend, headers: Attempt['headers']): void {
      chooser.head!({ backend, headers, headMs: clock.now() } as Attempt)
    },
    /** Each reports `qps` at a utilization of 1: its weight, then, is `qps`. */
    report(...qps: readonly (number | undefined)[]): void {
      for (const [i, it] of qps.entries()) {
        if (it !== undefined) this.head(list[i]!, [NAME, `TEXT cpu_utilization=1,rps_fractional=${it}`])
      }
    },
    build(eligible: readonly Backend[] = list): void {
      pick = chooser.build(membersOf(list, eligible))
    },
    picks(n: number): Backend[] {
      const call = callOf(clock.now())
      return Array.from({ length: n }, () => pick(call)!)
    },
    /** Everybody's share of 12 000 picks. */
    shares(): number[] {
      const picked = this.picks(12_000)
      return list.map((backend) => picked.filter((it) => it === backend).length / 12_000)
    },
  }
}

/** EDF is never further from its share than a few turns. */
function expectShares(shares: readonly number[], weights: readonly number[]): void {
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  for (const [i, share] of shares.entries()) {
    expect(Math.abs(share - weights[i]! / total), `${shares} of ${weights}`).toBeLessThan(0.001)
  }
}

/** An OrcaLoadReport in base64, as protobuf writes it; 'maps': request_cost, utilization and named_metrics with an entry each. */
function message(...fields: readonly (readonly [number: number, value: number] | 'maps')[]): string {
  const chunks = fields.map((field) => {
    if (field === 'maps') {
      const entry = [0x0a, 1, 0x78, 0x11, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f] // 'x': 1
      return Buffer.from([4, 5, 8].flatMap((number) => [(number << 3) | 2, entry.length, ...entry]))
    }
    const [number, value] = field
    if (number === 3) return Buffer.from([3 << 3, value]) // a varint below 128
    const double = Buffer.alloc(8)
    double.writeDoubleLE(value)
    return Buffer.concat([Buffer.from([(number << 3) | 1]), double])
  })
  return Buffer.concat(chunks).toString('base64')
}

describe('a load report', () => {
  /** The weight that a report makes, seen against one of 100. */
  function weightOf(value: string | Uint8Array, options: OrcaOptions = {}, name: string = NAME): number {
    const it = bench([1, 1, 1], { blackoutMs: 0, updateMs: 100, ...options })
    it.report(100, undefined, 100)
    it.head(it.list[1]!, [name, value])
    it.build()
    const [a, b] = it.shares() as [number, number]
    return (100 * b) / a
  }

  test.each([
    ['100 requests per second at half utilization', 'TEXT application_utilization=0.5,rps_fractional=100', 200],
    ['errors count as utilization', 'TEXT application_utilization=0.5, rps_fractional=100, eps=10', 166.667],
    ['CPU where the application does not say', 'TEXT cpu_utilization=0.4,rps_fractional=100', 250],
    ['the application before CPU', 'TEXT cpu_utilization=0.9,application_utilization=0.4,rps_fractional=100', 250],
    [
      'an application that says 0 does not say',
      'TEXT cpu_utilization=0.4,application_utilization=0,rps_fractional=100',
      250,
    ],
    ['more than full', 'TEXT cpu_utilization=1.6,rps_fractional=100', 62.5],
    [
      'spaces and other metrics',
      'TEXT  mem_utilization=0.9 , cpu_utilization = 0.4, named_metrics.x=7,rps_fractional= 1e2 ',
      250,
    ],
    ['as Envoy writes it', 'cpu_utilization:0.4,rps_fractional:100', 250],
    [
      'JSON',
      'JSON {"cpu_utilization": 0.9, "application_utilization": 0.5, "rps_fractional": 100, "eps": 10}',
      166.667,
    ],
    ['JSON in camel case', 'JSON {"applicationUtilization": 0.5, "rpsFractional": 100, "eps": 10}', 166.667],
    ['bytes', new TextEncoder().encode('TEXT cpu_utilization=0.4,rps_fractional=100'), 250],
    ['the old name of requests per second', 'TEXT cpu_utilization=0.4,rps=100', 250],
    ['protobuf', `BIN ${message([1, 0.9], [6, 100], [7, 10], [9, 0.5])}`, 166.667],
    ['protobuf with what is not looked at', `BIN ${message([2, 0.5], 'maps', [1, 0.4], [6, 100])}`, 250],
    ['protobuf in which the last of a field counts', `BIN ${message([1, 0.9], [6, 100], [1, 0.4])}`, 250],
    ['protobuf without the padding', `BIN ${message([1, 0.4], [6, 100]).replace(/=+$/, '')}`, 250],
    ['protobuf of an old reporter', `BIN ${message([1, 0.4], [3, 100])}`, 250],
  ])('%s', (_, value, weight) => {
    expect(weightOf(value)).toBeCloseTo(weight, 0)
  })

  test('is read from endpoint-load-metrics-bin too, as gRPC and Envoy send it', () => {
    const binary = message([9, 0.5], [6, 100], [7, 10])
    expect(weightOf(binary, {}, 'endpoint-load-metrics-bin')).toBeCloseTo(166.667, 0)
  })

  test('may weigh errors otherwise, and has a name in any case', () => {
    const value = 'TEXT cpu_utilization=0.5,rps_fractional=100,eps=10'
    expect(weightOf(value, { errorPenalty: 5 })).toBeCloseTo(100, 0)
    expect(weightOf(value, { errorPenalty: 0 })).toBeCloseTo(200, 0)
    expect(weightOf(value, {}, 'Endpoint-Load-Metrics')).toBeCloseTo(166.667, 0)
  })

  test.each([
    '',
    'TEXT',
    'TEXT cpu_utilization=0.4',
    'TEXT rps_fractional=100',
    'TEXT cpu_utilization=0,rps_fractional=100',
    'TEXT cpu_utilization=0.4,rps_fractional=0',
    'TEXT cpu_utilization=-0.4,rps_fractional=100',
    'TEXT cpu_utilization=0.4,rps_fractional=-100',
    'TEXT cpu_utilization=much,rps_fractional=100',
    'TEXT cpu_utilization=NaN,rps_fractional=NaN',
    'TEXT cpu_utilization=0.4,rps_fractional=Infinity',
    'TEXT cpu_utilization=Infinity,rps_fractional=100',
    'TEXT cpu_utilization=1e-300,rps_fractional=1e300',
    'BIN CQAAAAAAAOA/', // half of the CPU, and nothing else
    'BIN',
    'BIN ',
    'BIN no base64!',
    'BIN =',
    `BIN ${message([1, 0.4], [6, 100]).slice(0, -4)}`, // cut
    `BIN ${message([1, -0.4], [6, 100])}`,
    `BIN ${message([1, Number.NaN], [6, Number.POSITIVE_INFINITY])}`,
    `BIN ${Buffer.from([...Array(11).fill(0xff), 1]).toString('base64')}`, // a tag without end
    `BIN ${Buffer.from([0x2a, 0xff, 0xff, 0xff, 0xff, 0x0f]).toString('base64')}`, // a map of 4 GiB
    `BIN ${Buffer.from([0x0b, 0x0c]).toString('base64')}`, // groups
    'JSON',
    'JSON ',
    'JSON {',
    'JSON null',
    'JSON 7',
    'JSON []',
    'JSON {"cpu_utilization": {}, "rps_fractional": 100}',
    'JSON {"__proto__": {"cpu_utilization": 0.4}, "rps_fractional": 100}',
  ])('that says nothing, or nonsense, leaves the mean weight: %j', (value) => {
    expect(weightOf(value)).toBeCloseTo(100, 0)
  })

  test('of any bytes is read or not, but never throws and never makes a weight that is no number: 5 000 reports, seed 1', () => {
    const bytes = fc.uint8Array({ maxLength: 40 })
    const shaped = fc.array(fc.tuple(fc.constantFrom(1, 3, 6, 7, 9), fc.double()), { maxLength: 5 }).chain((fields) => {
      const whole = Buffer.from(message(...fields.map(([number, value]) => [number, value] as const)), 'base64')
      return fc.nat({ max: whole.length }).map((cut) => Uint8Array.from(whole.subarray(0, cut)))
    })
    fc.assert(
      fc.property(fc.oneof(bytes, shaped), (message) => {
        const value = Buffer.from(message).toString('base64')
        for (const headers of [
          [NAME, `BIN ${value}`],
          [`${NAME}-bin`, value],
        ]) {
          const { utilization, perSecond, errorsPerSecond } = loadReportOf(headers)!
          for (const number of [utilization, perSecond, errorsPerSecond]) expect(number).toBeGreaterThanOrEqual(0)
        }
      }),
      { numRuns: 5_000, seed: 1 },
    )
  })

  test('that says nothing does not take back what was said before', () => {
    const it = bench([1, 1], { blackoutMs: 0 })
    it.report(100, 300)
    it.head(it.list[1]!, [NAME, 'TEXT cpu_utilization=0,rps_fractional=0'])
    it.head(it.list[1]!, ['content-type', 'text/plain'])
    it.head(it.list[1]!, undefined)
    it.build()
    expectShares(it.shares(), [100, 300])
  })
})

describe('weights by load reports', () => {
  test('are in proportion to requests per second by utilization', () => {
    const it = bench([1, 1, 1], { blackoutMs: 0 })
    it.report(100, 300, 50)
    it.build()
    expectShares(it.shares(), [100, 300, 50])
  })

  test('are the mean for who has none: 100, 100 and none are a third each', () => {
    // grpc-js (2670b37) took the mean weight for the time between turns, not for its inverse: 0.00005 for the third.
    const it = bench([1, 1, 1], { blackoutMs: 0 })
    it.report(100, 100)
    it.build()
    expectShares(it.shares(), [1, 1, 1])
    it.report(100, 300)
    it.build()
    expectShares(it.shares(), [100, 300, 200])
  })

  test.each([
    ['nobody', []],
    ['only one', [500]],
  ])('are the configured ones while %s reports', (_, qps) => {
    const equal = bench([1, 1, 1], { blackoutMs: 0 })
    equal.report(...qps)
    equal.build()
    expectShares(equal.shares(), [1, 1, 1])
    const weighted = bench([3, 2, 1], { blackoutMs: 0 })
    weighted.report(...qps)
    weighted.build()
    expectShares(weighted.shares(), [3, 2, 1])
  })

  test('do not mix with configured ones, but with what lowers those for a while, such as slow start', () => {
    const it = bench([5, 1, 1], { blackoutMs: 0 })
    it.report(100, 200, 300)
    it.build()
    expectShares(it.shares(), [100, 200, 300])
    it.list[2]!.factors.set('slow-start', 0.1)
    it.list[2]!.reweigh()
    it.build()
    expectShares(it.shares(), [100, 200, 30])
    it.list[2]!.factors.clear()
    it.list[2]!.reweigh()
    reweigh(it.list[0]!, 50)
    it.build()
    expectShares(it.shares(), [100, 200, 300])
  })

  test('count only after a blackout of 10 s since the first report', async () => {
    const it = bench([1, 1])
    it.report(100, 300)
    await it.clock.advance(5_000)
    it.report(100, 300)
    await it.clock.advance(4_999)
    it.build()
    expectShares(it.shares(), [1, 1])
    await it.clock.advance(1)
    it.build()
    expectShares(it.shares(), [100, 300])
  })

  test('expire 180 s after the last report, and then there is a blackout again', async () => {
    const it = bench([1, 1, 1])
    it.report(100, 300, 200)
    await it.clock.advance(170_000)
    it.report(undefined, 300, 200)
    await it.clock.advance(9_999)
    expectShares(it.shares(), [100, 300, 200])
    await it.clock.advance(1_000)
    expectShares(it.shares(), [250, 300, 200])
    it.report(100)
    await it.clock.advance(9_999)
    expectShares(it.shares(), [250, 300, 200])
    await it.clock.advance(1_000)
    expectShares(it.shares(), [100, 300, 200])
  })

  test('are the configured ones again when everybody has fallen silent', async () => {
    const it = bench([2, 1], { blackoutMs: 0 })
    it.report(100, 300)
    it.build()
    expectShares(it.shares(), [1, 3])
    await it.clock.advance(181_000)
    expectShares(it.shares(), [2, 1])
  })

  test('start a blackout anew for who was away', async () => {
    const it = bench([1, 1, 1])
    it.report(100, 300, 200)
    await it.clock.advance(10_000)
    it.build(it.list.slice(1))
    it.build()
    expectShares(it.shares(), [250, 300, 200])
    it.report(100)
    await it.clock.advance(10_000)
    expectShares(it.shares(), [100, 300, 200])
  })

  test('follow the reports once per second, and no more often than every 100 ms', async () => {
    const it = bench([1, 1], { blackoutMs: 0 })
    it.report(100, 300)
    await it.clock.advance(999)
    expectShares(it.shares(), [1, 1])
    await it.clock.advance(1)
    expectShares(it.shares(), [100, 300])
    it.report(300, 100)
    await it.clock.advance(999)
    expectShares(it.shares(), [100, 300])
    await it.clock.advance(1)
    expectShares(it.shares(), [300, 100])

    const often = bench([1, 1], { blackoutMs: 0, updateMs: 1 })
    often.report(100, 300)
    await often.clock.advance(99)
    expectShares(often.shares(), [1, 1])
    await often.clock.advance(1)
    expectShares(often.shares(), [100, 300])
  })

  test('spread turns as evenly across updates as without: nobody waits for an old, long turn', async () => {
    const it = bench([1, 1, 1], { blackoutMs: 0 })
    it.report(1_000, 1_000, 1)
    await it.clock.advance(1_000)
    it.picks(100)
    it.report(1_000, 1_000, 1_000)
    await it.clock.advance(1_000)
    const next = it.picks(9)
    for (const backend of it.list) expect(next.filter((one) => one === backend).length).toBeGreaterThanOrEqual(2)
  })

  test('are kept over builds and for each pool apart', async () => {
    const strategy = orca({ blackoutMs: 0 })
    const clock = manualClock()
    const list = backends([1, 1])
    const mine = strategy.start(coreOf(clock, seededRandom(1), () => membersOf(list)))
    const other = strategy.start(coreOf(clock, seededRandom(1), () => membersOf(list)))
    mine.build(membersOf(list))
    for (const [i, backend] of list.entries()) {
      const headers = [NAME, `TEXT cpu_utilization=1,rps_fractional=${i === 0 ? 100 : 900}`]
      mine.head!({ backend, headers, headMs: clock.now() } as unknown as Attempt)
    }
    const second = (chooser: typeof mine): number => {
      const pick = chooser.build(membersOf(list))
      return Array.from({ length: 1_000 }, () => pick(callOf(clock.now()))).filter((it) => it === list[1]).length
    }
    for (let i = 0; i < 3; i++) expect(Math.abs(second(mine) - 900)).toBeLessThan(3)
    expect(Math.abs(second(other) - 500)).toBeLessThan(3)
  })

  test('forget who has left: the reports go with the record', () => {
    const it = bench([1, 1], { blackoutMs: 0 })
    it.report(100, 300)
    const [again] = backends([1]) as [BackendRecord]
    it.build([again, it.list[1]!])
    expect(it.picks(1_000).filter((backend) => backend === again)).toHaveLength(500)
  })

  test.each([{ blackoutMs: -1 }, { expireMs: Number.NaN }, { updateMs: -5 }, { errorPenalty: -0.1 }])(
    'refuse %j as options',
    (options) => {
      const [[name, value]] = Object.entries(options) as [[string, number]]
      expect(() => orca(options)).toThrow(BalancerError)
      expect(() => orca(options)).toThrow(`orca: ${name}: expected >= 0, got ${value}`)
    },
  )

  test('need no chance for a single one, and nobody for nobody', () => {
    const list = backends([1])
    const draw = (): never => {
      throw new Error('a draw')
    }
    const chooser = orca().start(coreOf(manualClock(), draw, () => membersOf(list)))
    expect(chooser.build(membersOf(list))(callOf(0))).toBe(list[0])
    expect(chooser.build(membersOf([]))(callOf(0))).toBeUndefined()
  })
})

describe('in a balancer', () => {
  test('traffic follows what backends say in their answers, whatever their status', async () => {
    const says = (qps: number, status = 200) => ({
      status,
      headers: { [NAME]: `TEXT cpu_utilization=1,rps_fractional=${qps}` },
    })
    const clock = manualClock()
    const transport = memory({ a: says(100), b: says(300), c: says(600, 404) }, { clock })
    const balancer = createBalancer({
      backends: [...'abc'].map((id) => ({ id, url: `http://${id}.test` })),
      strategy: orca(),
      transport,
      clock,
      random: seededRandom(1),
    })
    const run = async (n: number): Promise<number[]> => {
      const from = transport.requests.length
      for (let i = 0; i < n; i++) {
        const answer = balancer.request('/')
        await clock.advance(1)
        await answer
      }
      const to = transport.requests.slice(from)
      return [...'abc'].map((id) => to.filter(({ backend }) => backend === id).length)
    }
    expect(await run(30)).toEqual([10, 10, 10])
    await clock.advance(10_000)
    const [a, b, c] = (await run(200)) as [number, number, number]
    expect(Math.abs(a - 20)).toBeLessThanOrEqual(2)
    expect(Math.abs(b - 60)).toBeLessThanOrEqual(2)
    expect(Math.abs(c - 120)).toBeLessThanOrEqual(2)
    expect(balancer.stats().pools.default!.strategy).toBe('orca')
    await balancer.close()
  })

  test('over real sockets too', async () => {
    const backend = (qps: number) =>
      upstream((_, response) => {
        response.setHeader('Endpoint-Load-Metrics', `JSON {"cpu_utilization": 1, "rps_fractional": ${qps}}`)
        response.end(String(qps))
      })
    const [few, many] = await Promise.all([backend(100), backend(900)])
    const clock = manualClock()
    const balancer = balance([few, many], { strategy: orca({ blackoutMs: 0 }), random: seededRandom(1), clock })
    const served = async (n: number): Promise<number> => {
      let times = 0
      for (let i = 0; i < n; i++) if ((await (await balancer.fetch('/')).text()) === '900') times++
      return times
    }
    expect(await served(10)).toBe(5)
    await clock.advance(1_000)
    expect(Math.abs((await served(100)) - 90)).toBeLessThanOrEqual(2)
  })

  test('a change of strategy and back starts from nothing known', async () => {
    const transport = memory({
      a: { headers: { [NAME]: 'TEXT cpu_utilization=1,rps_fractional=100' } },
      b: { headers: { [NAME]: 'TEXT cpu_utilization=1,rps_fractional=900' } },
    })
    const given = {
      backends: [...'ab'].map((id) => ({ id, url: `http://${id}.test` })),
      transport,
      random: seededRandom(1),
    }
    const balancer = createBalancer({ ...given, strategy: orca({ blackoutMs: 0 }) })
    for (let i = 0; i < 10; i++) await balancer.request('/')
    await balancer.update({ ...given, strategy: least(byInflight) })
    await balancer.update({ ...given, strategy: orca({ blackoutMs: 0 }) })
    const from = transport.requests.length
    for (let i = 0; i < 2; i++) await balancer.request('/')
    expect(new Set(transport.requests.slice(from).map(({ backend }) => backend)).size).toBe(2)
    await balancer.close()
  })
})
