import { auto, type Backend, createBalancer, memory, type OutcomeClass } from 'evenkeel'
import { type ManualClock, manualClock, seededRandom, strategyContract } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import type { LiveAttempt } from '../src/core/attempt.ts'
import type { BackendRecord } from '../src/core/backend.ts'
import { CLASSES } from '../src/core/outcome.ts'
import { callOf, coreOf, membersOf } from '../src/testing/kit.ts'
import { backends, CHI_5, chiSquare, counts, reweigh } from './support/picking.ts'

for (const { name, run } of strategyContract(auto)) test(name, run)

interface Bench {
  readonly clock: ManualClock
  pick(): Backend
  /** Answers after so many ms, as the pool tells it: the head, then the end. */
  answers(backend: Backend, ...times: number[]): void
  /** An attempt that ends so after `ms`, without a head. */
  ends(backend: Backend, kind: OutcomeClass, ms: number): void
  score(backend: Backend): number | undefined
}

function bench(list: readonly Backend[], seed = 42): Bench {
  const clock = manualClock()
  const chooser = auto().start(coreOf(clock, seededRandom(seed), () => membersOf(list)))
  const picker = chooser.build(membersOf(list))
  const tell = (backend: Backend, kind: OutcomeClass, ms: number, headMs: number): void => {
    const endMs = clock.now()
    const times = { startMs: endMs - ms, headMs, endMs }
    const attempt = { call: callOf(endMs), backend, class: kind, rule: CLASSES[kind], ...times } as LiveAttempt
    if (headMs >= 0) chooser.head!(attempt)
    chooser.settle!(attempt)
  }
  return {
    clock,
    pick: () => picker(callOf(clock.now()))!,
    answers: (backend, ...times) => times.forEach((ms) => void tell(backend, 'ok', ms, clock.now())),
    ends: (backend, kind, ms) => tell(backend, kind, ms, Number.NaN),
    score: (backend) => chooser.score!(backend),
  }
}

/** Everybody has answered as usual, in 10 ms. */
function acquainted(list: readonly Backend[]): Bench {
  const it = bench(list)
  for (const backend of list) it.answers(backend, 10)
  return it
}

function busy(list: readonly BackendRecord[], inflight: number): void {
  for (const backend of list) backend.inflight = inflight
}

describe('auto, of backends that are alike', () => {
  test('finds the only idle one of 64', () => {
    const list = backends(Array(64).fill(1))
    busy(list, 1)
    list[37]!.inflight = 0
    const { pick } = acquainted(list)
    for (let i = 0; i < 100; i++) expect(pick()).toBe(list[37])
  })

  test('heeds weights, in flight and idle', () => {
    const weights = [1, 2, 3, 4, 5, 6]
    const list = backends(weights)
    const { pick } = acquainted(list)
    expect(chiSquare(counts(pick, list, 20_000), weights)).toBeLessThan(CHI_5)
    for (const backend of list) backend.inflight = backend.weight * 2
    list[4]!.inflight--
    expect(pick()).toBe(list[4])
  })

  test('gives a large idle pool its shares: twice the weight, twice as much', () => {
    const list = backends(Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? 1 : 2)))
    const { pick } = acquainted(list)
    const heavy = counts(pick, list, 30_000).filter((_, i) => i % 2 === 1)
    expect(heavy.reduce((sum, n) => sum + n, 0) / 30_000).toBeCloseTo(2 / 3, 1)
  })

  test('looks at 16 of a thousand, at any of them', () => {
    const looks = new Set<unknown>()
    let most = 0
    const list = backends(Array(1_000).fill(1)).map((backend) =>
      Object.defineProperty(backend, 'inflight', {
        get() {
          looks.add(this)
          return 0
        },
      }),
    )
    const { pick } = acquainted(list)
    const met = new Set<Backend>()
    for (let i = 0; i < 10_000; i++) {
      looks.clear()
      met.add(pick())
      most = Math.max(most, looks.size)
    }
    expect(most).toBe(16)
    expect(met.size).toBeGreaterThan(990)
  })

  test('does not begin where others begin', () => {
    const list = backends(Array(6).fill(1))
    const first = Array<number>(6).fill(0)
    for (let seed = 1; seed <= 6_000; seed++) first[list.indexOf(bench(list, seed).pick() as BackendRecord)]!++
    expect(chiSquare(first, Array(6).fill(1))).toBeLessThan(CHI_5)
  })

  test('takes no long request for a slow backend: one in ten takes a hundred times as long', () => {
    const list = backends(Array(10).fill(1))
    const { answers, score } = bench(list)
    const random = seededRandom(5)
    let slow = 0
    for (let i = 0; i < 50_000; i++) {
      const backend = list[i % 10]!
      answers(backend, random(10) === 0 ? 200 : 2)
      if (score(backend)! > 1) slow++
    }
    expect(slow / 50_000).toBeLessThan(0.01)
  })

  test('nor any when all become slower at once', () => {
    const list = backends(Array(4).fill(1))
    const { answers, score } = acquainted(list)
    for (let i = 0; i < 100; i++) for (const backend of list) answers(backend, 10)
    for (let i = 0; i < 100; i++) for (const backend of list) answers(backend, 200)
    expect(list.map(score)).toEqual([1, 1, 1, 1])
  })

  test('nor any when all fail alike now and then', () => {
    const list = backends(Array(10).fill(1))
    const { answers, ends, score } = acquainted(list)
    const random = seededRandom(5)
    let odd = 0
    for (let i = 0; i < 50_000; i++) {
      const backend = list[i % 10]!
      if (random(100) === 0) ends(backend, 'server-error', 10)
      else answers(backend, 10)
      if (score(backend)! > 1) odd++
    }
    expect(odd / 50_000).toBeLessThan(0.01)
  })

  test('compares by what is in flight alone while most of them are slow', () => {
    const list = backends([1, 1, 1, 1])
    const [quick, ...others] = list as [BackendRecord, ...BackendRecord[]]
    const { answers, pick, score } = acquainted(list)
    for (const backend of others.slice(0, 2)) answers(backend, 9_000, 9_000, 9_000, 9_000, 9_000)
    expect(list.map(score)).toEqual([1, 3, 3, 1])
    busy(list, 1)
    expect([quick, others[2]]).toContain(pick())
    answers(others[2]!, 90_000, 90_000, 90_000, 90_000, 90_000, 90_000)
    expect(score(others[2]!)).toBe(3)
    quick.inflight = 2
    for (let i = 0; i < 100; i++) expect(pick()).not.toBe(quick)
  })

  test('passes over who is at its limit, though it has the least load, and spreads the rest', () => {
    const list = backends(Array(9).fill(1))
    const { pick } = acquainted(list)
    busy(list, 2)
    list[8]!.inflight = 1
    Object.defineProperty(list[8], 'limit', { value: 1 })
    list[3]!.inflight = 1
    for (let i = 0; i < 100; i++) expect(pick()).toBe(list[3])
  })
})

describe('auto, with one that is slow or fails', () => {
  test('passes it over while the others have little to do, gives it one at a time when they have much', () => {
    const list = backends([1, 1, 1, 1])
    const [slow, ...others] = list as [BackendRecord, ...BackendRecord[]]
    const { answers, pick, score } = acquainted(list)
    answers(slow, 400, 400)
    expect(score(slow)).toBe(1)
    answers(slow, 400, 400)
    expect(score(slow)).toBe(3)
    busy(others, 1)
    for (let i = 0; i < 100; i++) expect(pick()).not.toBe(slow)
    busy(others, 3)
    expect(pick()).toBe(slow)
    slow.inflight = 1
    busy(others, 10)
    for (let i = 0; i < 100; i++) expect(pick()).not.toBe(slow)
  })

  test('lets it show after three seconds whether it still is, and forgets it after some seven usual answers', async () => {
    const list = backends([1, 1, 1, 1])
    const [slow, ...others] = list as [BackendRecord, ...BackendRecord[]]
    const { clock, answers, pick, score } = acquainted(list)
    answers(slow, 400, 400, 400, 400)
    busy(others, 1)
    await clock.advance(2_999)
    expect(pick()).not.toBe(slow)
    await clock.advance(1)
    expect(pick()).toBe(slow)
    slow.inflight = 1
    for (let i = 0; i < 100; i++) expect(pick()).not.toBe(slow)
    slow.inflight = 0
    answers(slow, 400)
    expect(pick()).not.toBe(slow)
    await clock.advance(3_000)
    answers(slow, 10, 10, 10, 10, 10, 10, 10)
    expect(score(slow)).toBe(1)
  })

  test('is not drawn to who fails fast, asks again after five seconds, and believes it after some answers', async () => {
    const list = backends([1, 1, 1, 1])
    const [failing, ...others] = list as [BackendRecord, ...BackendRecord[]]
    const { clock, answers, ends, pick, score } = acquainted(list)
    ends(failing, 'connect', 1)
    expect(score(failing)).toBe(64)
    ends(others[0]!, 'server-error', 1)
    expect(score(others[0]!)).toBe(1) // one failure is no verdict
    busy(others, 50)
    for (let i = 0; i < 100; i++) expect(pick()).not.toBe(failing)
    await clock.advance(5_000)
    expect(pick()).toBe(failing)
    answers(failing, 10)
    expect(score(failing)).toBe(3)
    answers(failing, 10, 10, 10, 10, 10, 10)
    expect(score(failing)).toBe(1)
  })

  test('gives one that nobody knows a single request to show what it is', () => {
    const list = backends([1, 1, 1, 1])
    const [unknown, ...others] = list as [BackendRecord, ...BackendRecord[]]
    const { answers, pick } = bench(list)
    for (const backend of others) answers(backend, 10)
    busy(others, 2)
    expect(pick()).toBe(unknown)
    unknown.inflight = 1
    for (let i = 0; i < 100; i++) expect(pick()).not.toBe(unknown)
    answers(unknown, 10)
    expect(pick()).toBe(unknown)
  })

  test('learns from leases and from attempts that were given up after long', () => {
    const list = backends([1, 1, 1])
    const [lent, hedged, left] = list as [BackendRecord, BackendRecord, BackendRecord]
    const { ends, score } = acquainted(list)
    for (let i = 0; i < 4; i++) ends(lent, 'ok', 400)
    for (let i = 0; i < 4; i++) ends(hedged, 'cancelled', 400)
    for (let i = 0; i < 4; i++) ends(left, 'cancelled', 1)
    expect([score(lent), score(hedged), score(left)]).toEqual([3, 3, 1])
  })

  test('keeps what it knows when weights change', () => {
    const list = backends([1, 1, 1])
    const clock = manualClock()
    const chooser = auto().start(coreOf(clock, seededRandom(1), () => membersOf(list)))
    chooser.settle!({ backend: list[0], rule: CLASSES.connect, class: 'connect', endMs: 0 } as LiveAttempt)
    reweigh(list[0]!, 5)
    const picker = chooser.build(membersOf(list))
    for (let i = 0; i < 100; i++) expect(picker(callOf(0))).not.toBe(list[0])
  })
})

test('of 64 calls in flight less than one in a hundred goes to the one of four that takes 200 ms instead of 5', async () => {
  const clock = manualClock()
  const ids = ['a', 'b', 'c', 'slow']
  const transport = memory(
    Object.fromEntries(ids.map((id) => [id, () => ({ body: 'ok', headMs: id === 'slow' ? 200 : 5 })])),
    { clock },
  )
  const balancer = createBalancer({
    backends: ids.map((id) => ({ url: `http://${id}.test`, id })),
    strategy: 'auto',
    transport,
    clock,
    random: seededRandom(3),
  })
  let calls = true
  const times: number[] = []
  const lanes = Array.from({ length: 64 }, async () => {
    while (calls) {
      const startMs = clock.now()
      await (await balancer.request('/')).body.dump()
      times.push(clock.now() - startMs)
    }
  })
  const requests = (): readonly number[] => balancer.stats().pools.default!.backends.map((it) => it.requests)
  for (let ms = 0; ms < 1_000; ms++) await clock.advance(1)
  const before = requests()
  for (let ms = 0; ms < 3_000; ms++) await clock.advance(1)
  const made = requests().map((count, i) => count - before[i]!)
  calls = false
  await clock.advance(1_000)
  await Promise.all(lanes)
  await balancer.close()
  const share = made[3]! / made.reduce((sum, count) => sum + count, 0)
  console.info(`auto: ${made.join(', ')} requests, ${(share * 100).toFixed(2)} % to the slow one`)
  expect(share).toBeLessThan(0.01)
  expect(made[3]).toBeGreaterThan(0) // it is asked now and then
  times.sort((a, b) => a - b)
  expect(times[Math.floor(times.length * 0.99)]).toBeLessThanOrEqual(20)
})
