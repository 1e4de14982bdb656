import { seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { Aimd, Gradient2, type Limiter, Vegas, Windowed } from '../../src/policies/limiters.ts'

const BOUNDS = { initial: 20, min: 1, max: 200 }

/** Samples of a backend that is used as much as its limit allows. */
function feed(limiter: Limiter, times: number, rttMs: number): number {
  for (let i = 0; i < times; i++) limiter.sample(rttMs, Math.floor(limiter.limit))
  return limiter.limit
}

function dropped(limiter: Limiter, times: number): number {
  for (let i = 0; i < times; i++) limiter.drop()
  return limiter.limit
}

describe('AIMD', () => {
  const aimd = (initial = 10, max = 200): Aimd => new Aimd({ initial, min: 1, max })

  test('grows by one for each success, shrinks by a tenth for each drop, and only if it is used', () => {
    const it = aimd()
    expect(feed(it, 10, 100)).toBe(20)
    expect(dropped(it, 1)).toBe(18)
    for (let i = 0; i < 3; i++) it.sample(100, 8)
    expect(it.limit).toBe(18)
    it.sample(100, 9) // half of it
    expect(it.limit).toBe(19)
  })

  test('takes more than 5 s for a drop', () => {
    expect(feed(aimd(), 1, 5_000)).toBe(11)
    expect(feed(aimd(), 1, 5_001)).toBe(9)
  })

  test('stays within its bounds, and shrinks by one at least', () => {
    expect(dropped(aimd(5), 1)).toBe(4)
    expect(dropped(aimd(), 100)).toBe(1)
    expect(feed(aimd(10, 12), 10, 100)).toBe(12)
  })
})

describe('Gradient2 with Netflix’s queue of 4', () => {
  const netflix = (): Gradient2 => new Gradient2({ initial: 20, min: 20, max: 200 }, () => 4)

  test('grows by 0.8 a sample while nothing gets slower: 28.0 after 10, 68.0 after 60, 28.92 after 10 at four times', () => {
    const it = netflix()
    expect(feed(it, 10, 100)).toBeCloseTo(28, 9)
    expect(feed(it, 50, 100)).toBeCloseTo(68, 9)
    expect(feed(it, 10, 400)).toBeCloseTo(28.92, 2)
  })

  test('does not move while less than half of it is used', () => {
    const it = netflix()
    for (let i = 0; i < 100; i++) it.sample(100, 9)
    expect(it.limit).toBe(20)
  })

  test('stays within its bounds', () => {
    const it = netflix()
    for (let i = 0; i < 1_000; i++) it.sample(100, 150)
    expect(it.limit).toBe(200)
    expect(dropped(it, 1_000)).toBe(20)
  })

  test('forgets what was normal when answers get much faster', () => {
    const it = netflix()
    feed(it, 50, 1_000)
    for (let i = 0; i < 20; i++) it.sample(100, 0) // normal is 200 ms at most by now
    const before = it.limit
    expect(feed(it, 1, 400)).toBeLessThan(before)
  })
})

describe('Gradient2 as it is used here', () => {
  test('grows by a fifth of its root', () => {
    const it = new Gradient2({ ...BOUNDS, initial: 100 })
    expect(feed(it, 1, 100)).toBeCloseTo(100 + 0.2 * 10, 9)
  })

  test('loses a tenth by a drop, and never its last place', () => {
    const it = new Gradient2(BOUNDS)
    expect(dropped(it, 1)).toBeCloseTo(18, 9)
    expect(dropped(it, 1_000)).toBe(1)
    expect(feed(it, 5, 100)).toBeCloseTo(2, 0) // and comes back from there
  })

  test('at its limit for 100 samples, looks what half of it is like for three, and takes that for normal', () => {
    const it = new Gradient2({ ...BOUNDS, max: 40 })
    feed(it, 10, 100)
    feed(it, 89, 120)
    expect(it.limit).toBe(40)
    expect(feed(it, 1, 120)).toBe(20)
    expect(feed(it, 2, 50)).toBe(20)
    expect(feed(it, 1, 80)).toBe(40)
    expect(feed(it, 1, 160)).toBeCloseTo(0.8 * 40 + 0.2 * (40 * 0.5 + Math.sqrt(40)), 0) // 80 ms is normal
  })

  test('does not do so for a limit that nobody reaches', () => {
    const it = new Gradient2({ ...BOUNDS, max: 40 })
    for (let i = 0; i < 1_000; i++) it.sample(100, 25)
    expect(it.limit).toBe(40)
  })
})

describe('Vegas', () => {
  const vegas = (initial = 20): Vegas => new Vegas({ initial, min: 1, max: 1_000 }, seededRandom(1))

  test('moves by how many must be waiting: for 20 in steps of 1, between 3 and 6', () => {
    // waiting = ceil(20 * (1 - 100 / rtt))
    for (const [rttMs, limit] of [
      [100, 26], // 0: far too few, 6 steps
      [105, 26], // 1
      [110, 21], // 2: one more
      [117, 20], // 3: as it should be
      [142, 20], // 6
      [150, 19], // 7: one less
    ] as const) {
      const it = vegas()
      feed(it, 1, 100)
      expect(it.limit, 'the first only measures').toBe(20)
      expect(feed(it, 1, rttMs), `${rttMs} ms`).toBe(limit)
    }
  })

  test('takes steps of 2 from 100 on', () => {
    const it = vegas(100)
    expect(feed(it, 2, 100)).toBe(112)
    expect(dropped(it, 1)).toBe(110)
  })

  test('does not move while less than half of it is used, but for drops, and stays within its bounds', () => {
    const it = vegas()
    for (let i = 0; i < 5; i++) it.sample(100, 9)
    expect(it.limit).toBe(20)
    expect(dropped(it, 100)).toBe(1)
    expect(feed(it, 1_000, 100)).toBe(1_000)
  })

  test('measures the least time anew after 15 to 30 samples for each place', () => {
    const it = vegas()
    feed(it, 1, 100)
    let samples = 1
    for (; it.limit === 20 && samples < 1_000; samples++) it.sample(120, 20) // 4 waiting: nothing moves
    // The one that measured took 120 ms for the least, and with the next nobody seems to wait.
    expect(samples).toBeGreaterThan(300)
    expect(samples).toBeLessThanOrEqual(602)
    expect(it.limit).toBe(26)
  })
})

describe('a window', () => {
  class Seen implements Limiter {
    limit = 20
    readonly log: string[] = []
    sample(rttMs: number, inflight: number): void {
      this.log.push(`${rttMs} ms, ${inflight}`)
    }
    drop(): void {
      this.log.push('drop')
    }
  }

  test('is as many requests as the limit allows, at least 10: their mean, and the most in flight', () => {
    const seen = new Seen()
    const it = new Windowed(seen)
    for (let i = 1; i <= 20; i++) it.sample(i, i === 5 ? 19 : 1)
    expect(seen.log).toEqual(['10.5 ms, 19'])
    seen.limit = 1
    for (let i = 1; i <= 10; i++) it.sample(7, 1)
    expect(seen.log).toEqual(['10.5 ms, 19', '7 ms, 1'])
  })

  test('with drops is one drop, however many', () => {
    const seen = new Seen()
    const it = new Windowed(seen)
    for (let i = 0; i < 20; i++) it.drop()
    for (let i = 0; i < 20; i++)
      if (i === 3) it.drop()
      else it.sample(5, 1)
    for (let i = 0; i < 20; i++) it.sample(5, 1)
    expect(seen.log).toEqual(['drop', 'drop', '5 ms, 1'])
  })
})

describe('a server that works on K at once and gets slower beyond', () => {
  const BASE_MS = 50
  const SECONDS = 120

  /** Saturated for two minutes: the limit of each second from the 30th on, and the work done as a share of what is possible. */
  function run(limiter: Limiter, places: number, noise: number): { limits: readonly number[]; goodput: number } {
    const random = seededRandom(7)
    const exponential = (): number => -Math.log((random(1 << 20) + 0.5) / (1 << 20))
    const flying: { startMs: number; endMs: number }[] = []
    const limits: number[] = []
    let ends = 0
    for (let nowMs = 0; nowMs < SECONDS * 1_000; ) {
      while (flying.length < Math.floor(limiter.limit)) {
        const slowed = Math.max(1, (flying.length + 1) / places)
        flying.push({ startMs: nowMs, endMs: nowMs + BASE_MS * slowed * (1 - noise + noise * exponential()) })
      }
      const next = flying.reduce((a, b) => (b.endMs < a.endMs ? b : a))
      flying.splice(flying.indexOf(next), 1)
      ends++
      const second = Math.floor(next.endMs / 1_000)
      if (second > Math.floor(nowMs / 1_000) && second >= 30) limits.push(limiter.limit)
      nowMs = next.endMs
      limiter.sample(nowMs - next.startMs, flying.length + 1)
    }
    return { limits, goodput: ends / ((places / BASE_MS) * SECONDS * 1_000) }
  }

  test('is found by Gradient2 from 20 on, whatever its size and however its times are spread, and stays found', () => {
    for (const places of [10, 40, 100]) {
      for (const noise of [0, 0.3, 1]) {
        const { limits, goodput } = run(new Windowed(new Gradient2({ initial: 20, min: 1, max: 1_000 })), places, noise)
        const sorted = limits.toSorted((a, b) => a - b)
        const median = sorted[sorted.length >> 1]!
        console.info(
          `gradient2, ${places} places, spread ${noise}: limit ${median.toFixed(0)} ` +
            `(${sorted[0]!.toFixed(0)} to ${sorted.at(-1)!.toFixed(0)}), goodput ${(100 * goodput).toFixed(1)} %`,
        )
        expect(median).toBeGreaterThan(0.9 * places)
        expect(median).toBeLessThan(2 * places)
        expect(sorted.at(-1)).toBeLessThan(4 * places)
        expect(goodput).toBeGreaterThan(0.8) // from a fifth of the way up, probes included
      }
    }
  })
})
