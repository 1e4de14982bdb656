import { type Backend, byInflight, byPeakEwma, type Prefer, p2c, roundRobin, type Strategy } from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { BackendRecord } from '../src/core/backend.ts'
import type { Picker, Random } from '../src/core/contracts.ts'
import { backendsOf, callOf, coreOf, membersOf } from '../src/testing/kit.ts'
import { balancerBench } from './support/balancer-bench.ts'
import { CHI_5, chiSquare, counts as countsOf } from './support/picking.ts'
import { bench, endpoint, soft } from './support/pool-bench.ts'

const call = callOf(0)

/** Backends named a, b, c, ... with the given weights. */
function backends(weights: readonly number[]): BackendRecord[] {
  return backendsOf(weights.map((weight, i) => ({ url: `http://host-${i}.test`, id: `${i}`, weight })))
}

/** A strategy at work: give it members, get a picker. */
function started(strategy: Strategy, random: Random | number): (list: readonly Backend[]) => Picker {
  let members = membersOf([])
  const chooser = strategy.start(
    coreOf(manualClock(), typeof random === 'number' ? seededRandom(random) : random, () => members),
  )
  return (list) => {
    members = membersOf(list)
    return chooser.build(members)
  }
}

function counts(picker: Picker, list: readonly Backend[], n: number): number[] {
  return countsOf(() => picker(call)!, list, n)
}

/** Bounds for p = 1e-4. */
const CHI_9 = 33.7

describe('round robin', () => {
  test('gives exactly k each in k * n picks, from wherever it starts', () => {
    for (const n of [1, 2, 3, 7, 64]) {
      for (let seed = 1; seed <= 10; seed++) {
        const list = backends(Array(n).fill(1))
        expect(counts(started(roundRobin(), seed)(list), list, 25 * n)).toEqual(Array(n).fill(25))
      }
    }
  })

  test('starts anywhere: uniform over 6 000 seeds, chi-square under the bound for p = 1e-4', () => {
    const list = backends(Array(6).fill(1))
    const first = Array<number>(6).fill(0)
    for (let seed = 1; seed <= 6_000; seed++) first[Number(started(roundRobin(), seed)(list)(call)!.id)]!++
    expect(chiSquare(first, Array(6).fill(1))).toBeLessThan(CHI_5)
  })

  test('goes on behind the one served last after any change of members or of their order', () => {
    const [a, b, c, d] = backends([1, 1, 1, 1]) as [BackendRecord, BackendRecord, BackendRecord, BackendRecord]
    const build = started(roundRobin(), 3)
    const first = build([a, b, c])
    while (first(call) !== b);
    expect(build([d, a, b, c])(call)).toBe(c)
    const shuffled = build([c, b, a])
    expect([shuffled(call), shuffled(call), shuffled(call)]).toEqual([b, a, c])
  })

  test('counts anew over who is eligible: the one behind an ejected backend does not get its turns, too', () => {
    const list = backends([1, 1, 1, 1])
    const build = started(roundRobin(), 5)
    counts(build(list), list, 10)
    const left = list.filter((_, i) => i !== 1)
    expect(counts(build(left), list, 300)).toEqual([100, 0, 100, 100])
    expect(counts(build(list), list, 400)).toEqual([100, 100, 100, 100])
  })

  test('is as fair when its members are published again between all picks', () => {
    const list = backends([1, 1, 1])
    const build = started(roundRobin(), 5)
    const served = Array.from({ length: 300 }, () => Number(build(list)(call)!.id))
    for (let i = 3; i < served.length; i++) expect(served[i]).toBe(served[i - 3])
    expect(new Set(served.slice(0, 3)).size).toBe(3)
  })

  test('starts at random again when the one served last has left', () => {
    const firsts = new Set<string>()
    for (let seed = 1; seed <= 50; seed++) {
      const list = backends([1, 1, 1, 1])
      const build = started(roundRobin(), seed)
      const last = build(list)(call)
      firsts.add(build(list.filter((backend) => backend !== last))(call)!.id)
    }
    expect(firsts.size).toBe(4)
  })

  test('takes no notice of weights, but 0 is never served', () => {
    const { pool, callOf } = bench([endpoint('a', { weight: 9 }), endpoint('b', { weight: 0 }), 'c'], {
      strategy: roundRobin(),
    })
    const served = Array.from({ length: 100 }, () => pool.pick(callOf())!.id)
    expect(served.filter((id) => id === 'a')).toHaveLength(50)
    expect(served.filter((id) => id === 'c')).toHaveLength(50)
    pool.block(pool.records[0]!, soft('probe'))
    expect(new Set(Array.from({ length: 100 }, () => pool.pick(callOf())!.id))).toEqual(new Set(['c']))
  })
})

describe('power of two choices', () => {
  test('is called after what it prefers by', () => {
    expect([p2c(byInflight).name, p2c(byPeakEwma).name]).toEqual(['p2c(byInflight)', 'p2c(byPeakEwma)'])
  })

  test('compares two distinct backends, whatever the weights, and returns the better one', () => {
    for (const weights of [
      [1, 1],
      [1, 1, 1, 1, 1],
      [1, 1e6],
      [1e-6, 1, 1e6],
      [3, 1, 2],
    ]) {
      const list = backends(weights)
      let compared = 0
      const later: Prefer = (a, b) => {
        expect(a).not.toBe(b)
        compared++
        return Number(a.id) > Number(b.id) ? a : b
      }
      const picked = counts(started(p2c(later), 1)(list), list, 2_000)
      expect(compared).toBe(2_000)
      expect(picked[0]).toBe(0) // the first is the worse one of any two
    }
  })

  test('draws every pair alike when the weights are equal: chi-square, 200 000 picks, seed 2', () => {
    const list = backends(Array(5).fill(2))
    const pairs = new Map<string, number>()
    const spy: Prefer = (a, b) => {
      const key = [a.id, b.id].sort().join()
      pairs.set(key, (pairs.get(key) ?? 0) + 1)
      return a
    }
    counts(started(p2c(spy), 2)(list), list, 200_000)
    expect(pairs.size).toBe(10)
    expect(chiSquare([...pairs.values()], Array(10).fill(1))).toBeLessThan(CHI_9)
  })

  test('keeps exactly to the weights while the pool is idle: chi-square, 1 000 000 picks, seed 42', () => {
    for (const weights of [
      [1, 2, 3, 4, 0.5, 10],
      [1, 1, 1, 1, 1, 1],
      [5, 5, 5, 5, 5, 0.01],
    ]) {
      const list = backends(weights)
      const picked = counts(started(p2c(byInflight), 42)(list), list, 1_000_000)
      expect(chiSquare(picked, weights), `weights ${weights}`).toBeLessThan(CHI_5)
    }
  })

  test('never serves weight 0, nor somebody who was published with it later', async () => {
    const { pool, callOf, clock, backend } = bench([endpoint('a', { weight: 0 }), endpoint('b', { weight: 2 }), 'c'], {
      strategy: p2c(byInflight),
    })
    const met = (): string => [...new Set(Array.from({ length: 5_000 }, () => pool.pick(callOf())!.id))].sort().join('')
    expect(met()).toBe('bc')
    pool.weigh(backend('c'), 'slow start', 0)
    await clock.advance(100)
    expect(met()).toBe('b')
  })

  test('needs no chance for a single backend, and none for nobody', () => {
    const build = started(p2c(byInflight), () => {
      throw new Error('a draw')
    })
    const list = backends([1])
    expect(build(list)(call)).toBe(list[0])
    expect(build([])(call)).toBeUndefined()
  })

  test('keeps the fullest of 65 536 bins at 3 or 4 balls, where one choice would give 6 or more: seeds 1 to 3', () => {
    const n = 65_536
    const list = backends(Array(n).fill(1))
    for (const seed of [1, 2, 3]) {
      for (const backend of list) backend.inflight = 0
      const picker = started(p2c(byInflight), seed)(list)
      for (let i = 0; i < n; i++) (picker(call) as BackendRecord).inflight++
      expect([3, 4]).toContain(Math.max(...list.map(({ inflight }) => inflight)))
    }
  })
})

describe('by requests in flight', () => {
  test('fewer per weight is better, the first of equals', () => {
    for (const [first, second, better] of [
      [[0, 1], [0, 1], 0],
      [[0, 1], [0, 9], 0],
      [[1, 1], [0, 1], 1],
      [[0, 1], [1, 1], 0],
      [[4, 2], [3, 1], 0],
      [[4, 2], [1, 1], 1],
      [[4, 2], [2, 1], 0],
    ] as const) {
      const [a, b] = backends([first[1], second[1]]) as [BackendRecord, BackendRecord]
      a.inflight = first[0]
      b.inflight = second[0]
      expect(byInflight(a, b), `${first} or ${second}`).toBe([a, b][better])
    }
  })
})

describe('by peak EWMA', () => {
  test('chooses as the literal cost does: decayed latency times (in flight + 1) per weight', () => {
    const side = fc.record({
      seen: fc.array(fc.tuple(fc.double({ min: 0.01, max: 60_000, noNaN: true }), fc.nat({ max: 20_000 })), {
        minLength: 1,
        maxLength: 8,
      }),
      inflight: fc.nat({ max: 3_000 }),
      weight: fc.double({ min: 0.01, max: 100, noNaN: true }),
    })
    fc.assert(
      fc.property(side, side, fc.nat({ max: 60_000 }), fc.nat({ max: 10 ** 9 }), (one, other, laterMs, startMs) => {
        const pair = backends([one.weight, other.weight]) as [BackendRecord, BackendRecord]
        let nowMs = startMs
        for (const [i, { seen, inflight }] of [one, other].entries()) {
          pair[i]!.inflight = inflight
          let atMs = startMs
          for (const [ms, gapMs] of seen) {
            atMs += gapMs
            pair[i]!.latency.observe(ms, atMs)
          }
          nowMs = Math.max(nowMs, atMs)
        }
        nowMs += laterMs
        const [x, y] = pair.map((it) => (it.latency.read(nowMs) * (it.inflight + 1)) / it.weight) as [number, number]
        if (Math.abs(x - y) <= 1e-6 * Math.max(x, y)) return // equal but for rounding
        expect(byPeakEwma(pair[0], pair[1])).toBe(x < y ? pair[0] : pair[1])
      }),
      { numRuns: 3_000, seed: 11 },
    )
  })

  test('gives who has never answered one request at a time to show what it is', () => {
    const [unknown, known, other] = backends([1, 1, 1]) as [BackendRecord, BackendRecord, BackendRecord]
    known.latency.observe(0.01, 0)
    expect(byPeakEwma(known, unknown)).toBe(unknown)
    unknown.inflight = 1
    known.inflight = 10_000
    expect(byPeakEwma(unknown, known)).toBe(known)
    other.inflight = 2
    expect(byPeakEwma(other, unknown)).toBe(unknown) // both unknown and busy: the one with fewer
  })

  test('avoids a slow backend, and finds out within a minute that it has recovered', () => {
    const list = backends([1, 1, 1, 1])
    const slow = list[0]!
    const picker = started(p2c(byPeakEwma), 4)(list)
    const run = openLoop(picker)
    const latency = (ms: number) => (backend: BackendRecord) => (backend === slow ? ms : 5)
    run(5_000, latency(200)) // it is found out
    expect(share(run(30_000, latency(200)), slow)).toBeLessThan(0.02)
    run(60_000, latency(5))
    const recovered = share(run(20_000, latency(5)), slow)
    expect(recovered).toBeGreaterThan(0.15)
    expect(recovered).toBeLessThan(0.28)
  })

  test('gives a backend that fails fast little: under 2 % of 10 000 calls, with nothing else to stop it', async () => {
    const it = balancerBench(undefined, {
      ids: 'abcd',
      strategy: 'peak-ewma',
      health: { passive: false },
      retry: { attempts: 1 },
    })
    const { clock, transport, start } = it
    for (let i = 0; i < 10_000; i++) {
      start()
      const send = transport.last()
      if (send.to === 'a') clock.after(0.2, () => send.answer(500))
      else clock.after(5, () => send.answer())
      await clock.advance(1)
    }
    const toA = transport.sends.filter(({ to }) => to === 'a').length
    expect(toA).toBeGreaterThan(0)
    expect(toA / 10_000).toBeLessThan(0.02)
    const rest = [...'bcd'].map((id) => transport.sends.filter(({ to }) => to === id).length / (10_000 - toA))
    for (const part of rest) expect(Math.abs(part - 1 / 3)).toBeLessThan(0.03)
  })
})

/** Traffic in virtual time: a request each ms, each answered after the latency of its backend, which is then learned. */
function openLoop(picker: Picker): (ms: number, latencyOf: (backend: BackendRecord) => number) => BackendRecord[] {
  let nowMs = 0
  let open: { readonly backend: BackendRecord; readonly startMs: number; readonly endMs: number }[] = []
  return (ms, latencyOf) => {
    const picked: BackendRecord[] = []
    for (const untilMs = nowMs + ms; nowMs < untilMs; nowMs++) {
      const ended = open.filter(({ endMs }) => endMs <= nowMs)
      if (ended.length > 0) open = open.filter(({ endMs }) => endMs > nowMs)
      for (const { backend, startMs, endMs } of ended) {
        backend.inflight--
        backend.latency.observe(endMs - startMs, endMs)
      }
      const backend = picker(call) as BackendRecord
      backend.inflight++
      open.push({ backend, startMs: nowMs, endMs: nowMs + latencyOf(backend) })
      picked.push(backend)
    }
    return picked
  }
}

function share(picked: readonly BackendRecord[], of: BackendRecord): number {
  return picked.filter((backend) => backend === of).length / picked.length
}
