import { describe, expect, test } from 'vitest'
import { resultOf } from '../bench/sim/cells.ts'
import { checked } from '../bench/sim/checks.ts'
import { Heap } from '../bench/sim/heap.ts'
import { SharedCores, Slots } from '../bench/sim/queues.ts'
import { judged } from '../bench/sim/rankings.ts'
import { Server } from '../bench/sim/server.ts'
import type { Result } from '../bench/sim/simulation.ts'
import { streams } from '../bench/sim/streams.ts'
import { VirtualTime } from '../bench/sim/virtual-time.ts'

/** The short form of `npm run sim`. */
const REQUESTS_OF_CHECKS = 40_000
const LONG_MS = 240_000

describe('the simulator', () => {
  test('agrees with what queueing theory says', { timeout: LONG_MS }, async () => {
    const wrong = (await checked(REQUESTS_OF_CHECKS)).filter(({ isRight }) => !isRight)
    expect(wrong.map(({ name, expected, found }) => `${name}: ${found} instead of ${expected}`)).toEqual([])
  })

  test('says the same again under the same seed, and something else under another', async () => {
    const job = { strategy: 'peak-ewma', row: 'E shipped', clients: 1, requests: 4_000, seed: 1 }
    const result = await resultOf(job)
    expect(await resultOf(job)).toEqual(result)
    expect((await resultOf({ ...job, seed: 2 })).p99).not.toBe(result.p99)
  })

  test('retries, rests and ejects through the parts that are shipped', async () => {
    const of = (row: string): Promise<Result> =>
      resultOf({ strategy: 'round-robin', row, clients: 1, requests: 20_000, seed: 1 })
    expect(await of('F spill')).toMatchObject({ errors: 0 })
    const alone = await of('E')
    expect(alone.errors).toBeGreaterThan(0.01)
    expect(alone.attemptsPerRequest).toBe(1)
    const { errors, attemptsPerRequest, shares } = await of('E shipped')
    expect(errors).toBe(0)
    expect(attemptsPerRequest).toBeGreaterThan(1)
    expect(attemptsPerRequest).toBeLessThan(1.01)
    expect(shares[0]).toBeLessThan(0.04) // of 20, half of the time
    expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 9)
  })

  test('refuses names that it does not know', () => {
    const job = { strategy: 'random', row: 'A', clients: 1, requests: 1_000, seed: 1 }
    expect(() => resultOf({ ...job, row: 'Z' })).toThrow('no scenario is named Z with 1 clients')
    expect(() => resultOf({ ...job, strategy: 'best' })).toThrow('no strategy is named best')
  })
})

test('the strategies rank as they must, under three seeds', { timeout: LONG_MS }, async () => {
  const statements = await judged(async (jobs) => {
    const results: Result[] = []
    for (const job of jobs) results.push(await resultOf(job))
    return results
  })
  const wrong = statements.flatMap(({ says, findings }) =>
    findings.filter(({ isTrue }) => !isTrue).map(({ found }) => `${says}: ${found}`),
  )
  expect(wrong).toEqual([])
})

describe('the parts of the simulator', () => {
  test('a heap gives back the smallest first, equals in the order they came', () => {
    const heap = new Heap<number>()
    const { service } = streams(7)
    const keys = Array.from({ length: 500 }, () => Math.floor(service() * 50))
    for (const [turn, key] of keys.entries()) heap.push(key, turn)
    const popped = keys.map(() => heap.pop()!)
    const sorted = keys.map((key, turn) => ({ key, turn })).sort((a, b) => a.key - b.key || a.turn - b.turn)
    expect(popped).toEqual(sorted.map(({ turn }) => turn))
    expect([heap.size, heap.key, heap.pop()]).toEqual([0, Infinity, undefined])
  })

  test('time jumps from event to event, leaves out what was stopped, and waits for promises', async () => {
    const time = new VirtualTime()
    const seen: string[] = []
    time.after(20, () => seen.push(`late ${time.now()}`))
    time.after(10, () => seen.push(`stopped ${time.now()}`))()
    time.clock.after(5, () => void Promise.resolve().then(() => seen.push(`promise ${time.now()}`)))
    await time.run(() => false)
    expect(seen).toEqual(['promise 5', 'late 20'])
  })

  test('slots serve in the order of arrival, at the speed of the moment they begin', async () => {
    const { time, times, enter } = bench((it) => new Slots(it, 1))
    const queue = enter(10, 10)
    queue.speed(0.5) // the first one has begun
    await time.run(() => false)
    expect(times).toEqual([10, 30])
  })

  test('shared cores give each request its share, and no request more than a core', async () => {
    const { time, times, enter } = bench((it) => new SharedCores(it, 2))
    const queue = enter(10, 10, 10, 20)
    time.after(20, () => queue.speed(0.25)) // the last is alone since, and gets half a core
    await time.run(() => false)
    // Four at half a core each until 20; then 10 are left of the last one.
    expect(times).toEqual([20, 20, 20, 40])
  })

  test('a server that is down, full or beyond its quota says so after a moment', async () => {
    const time = new VirtualTime()
    const server = new Server(time, new SharedCores(time, 1), { most: 2, perSecond: 4 })
    const replies: [status: number, ms: number][] = []
    const receive = (): void => server.receive(100, (status) => void replies.push([status, time.now()]))
    for (let i = 0; i < 5; i++) receive()
    server.down = true
    receive()
    await time.run(() => false)
    expect(replies.map(([status]) => status)).toEqual([503, 503, 429, 0, 200, 200])
    expect(replies.map(([, ms]) => ms)).toEqual([0.2, 0.2, 0.2, 0.2, 200, 200])
    expect([server.received, server.peak]).toEqual([6, 2])
  })
})

/** A queue, and when what enters it at the beginning is done. */
function bench<T extends Slots | SharedCores>(
  make: (time: VirtualTime) => T,
): { time: VirtualTime; times: number[]; enter(...works: number[]): T } {
  const time = new VirtualTime()
  const times: number[] = []
  const queue = make(time)
  return {
    time,
    times,
    enter(...works) {
      for (const workMs of works) queue.enter(workMs, () => times.push(time.now()))
      return queue
    },
  }
}
