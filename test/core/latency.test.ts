import { seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Random } from '../../src/core/contracts.ts'
import { PeakEwma, Quantiles } from '../../src/core/latency.ts'

const HOUR_MS = 3_600_000

/** Lognormal (Box-Muller): median `medianMs`, spread `sigma`. */
function lognormal(random: Random, medianMs: number, sigma: number): number {
  const u = (random(2 ** 30) + 1) / 2 ** 30
  const v = random(2 ** 30) / 2 ** 30
  return medianMs * Math.exp(sigma * Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * v))
}

function exact(samples: readonly number[], q: number): number {
  const sorted = Float64Array.from(samples).sort()
  return sorted[Math.min(Math.floor(q * sorted.length), sorted.length - 1)]!
}

describe('peak EWMA', () => {
  test('follows the oracle vector: tau 10 s, jumps up at once, reads are pure', () => {
    const ewma = new PeakEwma()
    ewma.observe(100, 0)
    expect(ewma.read(0)).toBe(100)
    ewma.observe(50, 1_000)
    expect(ewma.read(1_000)).toBeCloseTo(95.2419, 4)
    ewma.observe(500, 2_000)
    expect(ewma.read(2_000)).toBe(500)
    expect(ewma.read(12_000)).toBeCloseTo(183.9397, 4)
    ewma.observe(100, 12_000)
    expect(ewma.read(12_000)).toBeCloseTo(247.1518, 4)
    ewma.observe(100, 22_000)
    expect(ewma.read(22_000)).toBeCloseTo(154.1341, 4)
  })

  test('learns the same whether or not somebody reads in between', () => {
    const [read, unread] = [new PeakEwma(), new PeakEwma()]
    for (let t = 0; t < 60_000; t += 777) {
      const ms = 10 + (t % 90)
      read.observe(ms, t)
      unread.observe(ms, t)
      for (let i = 0; i < 5; i++) read.read(t + i * 100)
    }
    expect(read.score).toBe(unread.score)
  })

  test('halves in 6.93 s of silence', () => {
    const ewma = new PeakEwma()
    ewma.observe(80, 5_000)
    expect(ewma.read(5_000 + 10_000 * Math.LN2)).toBeCloseTo(40, 9)
  })

  test('orders by score as by decayed value, at any time', () => {
    const history = fc.array(
      fc.tuple(fc.double({ min: 0, max: 60_000, noNaN: true }), fc.integer({ min: 0, max: 30_000 })),
      {
        minLength: 1,
        maxLength: 20,
      },
    )
    fc.assert(
      fc.property(
        history,
        history,
        fc.integer({ min: 0, max: 60_000 }),
        fc.integer({ min: 0, max: 10 ** 9 }),
        (a, b, laterMs, startMs) => {
          const ends = [a, b].map((observations) => {
            const ewma = new PeakEwma()
            let nowMs = startMs
            for (const [ms, gapMs] of observations) {
              nowMs += gapMs
              ewma.observe(ms, nowMs)
            }
            return { ewma, nowMs }
          })
          const [x, y] = ends as [(typeof ends)[0], (typeof ends)[0]]
          const nowMs = Math.max(x.nowMs, y.nowMs) + laterMs
          const [valueX, valueY] = [x.ewma.read(nowMs), y.ewma.read(nowMs)]
          if (Math.abs(valueX - valueY) <= 1e-6 * Math.max(valueX, valueY)) return // equal but for rounding
          expect(x.ewma.score < y.ewma.score).toBe(valueX < valueY)
        },
      ),
      { numRuns: 2_000, seed: 5 },
    )
  })

  test('is a number after an hour, or a year, of silence, and learns again', () => {
    for (const idleMs of [HOUR_MS, 365 * 24 * HOUR_MS]) {
      const ewma = new PeakEwma()
      ewma.observe(500, 1_000)
      expect(ewma.read(1_000 + idleMs)).toBeGreaterThanOrEqual(0)
      ewma.observe(20, 1_000 + idleMs)
      expect(ewma.read(1_000 + idleMs)).toBeCloseTo(20, 9)
      expect(Number.isFinite(ewma.score)).toBe(true)
    }
  })

  test('is finite for answers that took no time, and for a clock that stands or steps back', () => {
    const ewma = new PeakEwma()
    ewma.observe(0, 1_000)
    ewma.observe(-5, 1_000)
    expect(ewma.read(1_000)).toBeGreaterThan(0)
    ewma.observe(30, 1_000)
    ewma.observe(10, 400)
    expect(ewma.read(400)).toBeCloseTo(30, 9)
    expect(ewma.read(1_000)).toBeCloseTo(30, 9)
    expect(Number.isFinite(ewma.score)).toBe(true)
  })

  test('is unknown before the first answer and after a reset to nothing', () => {
    const ewma = new PeakEwma()
    expect(ewma.known).toBe(false)
    expect(ewma.read(1_000)).toBeNaN()
    ewma.observe(7, 1_000)
    expect(ewma.known).toBe(true)
    ewma.reset(NaN, 2_000)
    expect(ewma.known).toBe(false)
    ewma.observe(3, 2_000)
    expect(ewma.read(2_000)).toBe(3)
  })

  test('starts anew at the value of a reset, even a lower one', () => {
    const ewma = new PeakEwma()
    ewma.observe(900, 1_000)
    ewma.reset(10, 1_500)
    expect(ewma.read(1_500)).toBe(10)
  })
})

describe('quantiles', () => {
  test('are within 1 % of the exact ones: 3 x 50 000 lognormal samples, sigma 2, seeds 1 to 3', () => {
    for (const seed of [1, 2, 3]) {
      const random = seededRandom(seed)
      const samples = Array.from({ length: 50_000 }, () => Math.max(0.01, lognormal(random, 20, 2)))
      const quantiles = new Quantiles()
      for (const [i, ms] of samples.entries()) quantiles.observe(ms, 1_000 + i * 0.5)
      for (const q of [0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1]) {
        const want = exact(samples, q)
        expect(Math.abs(quantiles.read(q, 26_000) / want - 1), `q ${q}, seed ${seed}`).toBeLessThanOrEqual(0.01 + 1e-9)
      }
    }
  })

  test('span slices as one: spread over 40 s they are as exact as at one moment', () => {
    const random = seededRandom(9)
    const samples = Array.from({ length: 10_000 }, () => lognormal(random, 5, 1))
    const quantiles = new Quantiles()
    // 20 s slices: they begin at whole multiples, so 40 s from one on touch three of them at the most.
    for (const [i, ms] of samples.entries()) quantiles.observe(ms, 20_000 + i * 4)
    for (const q of [0.05, 0.5, 0.99]) {
      expect(Math.abs(quantiles.read(q, 60_000) / exact(samples, q) - 1)).toBeLessThanOrEqual(0.01 + 1e-9)
    }
  })

  test('remember 40 s at least and 60 s at most, whenever the sample came', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 10 ** 8 }), (atMs) => {
        const quantiles = new Quantiles()
        quantiles.observe(12, atMs)
        expect(quantiles.read(0.5, atMs + 40_000)).toBeCloseTo(12, 0)
        expect(quantiles.read(0.5, atMs + 60_000)).toBeNaN()
      }),
      { numRuns: 500, seed: 6 },
    )
  })

  test('take a slice into use again without what it held', () => {
    const quantiles = new Quantiles()
    for (let i = 0; i < 100; i++) quantiles.observe(5, 1_000)
    quantiles.observe(1_000, 61_000)
    for (const q of [0, 0.5, 1]) expect(quantiles.read(q, 61_000) / 1_000).toBeCloseTo(1, 1)
  })

  test('keep to 1 % for huge values, and hold tiny ones at the floor of 0.01 ms', () => {
    for (const [ms, want] of [
      [1e-9, 0.01],
      [0, 0.01],
      [-3, 0.01],
      [0.01, 0.01],
      [1, 1],
      [86_400_000, 86_400_000],
      [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    ] as const) {
      const quantiles = new Quantiles()
      quantiles.observe(ms, 0)
      expect(Math.abs(quantiles.read(0.5, 0) / want - 1), `${ms} ms`).toBeLessThanOrEqual(0.01 + 1e-9)
    }
  })

  test('grow both ways from where they began', () => {
    const quantiles = new Quantiles()
    for (const ms of [10, 0.02, 100_000, 10]) quantiles.observe(ms, 0)
    expect(quantiles.read(0, 0) / 0.02).toBeCloseTo(1, 1)
    expect(quantiles.read(0.5, 0) / 10).toBeCloseTo(1, 1)
    expect(quantiles.read(1, 0) / 100_000).toBeCloseTo(1, 1)
  })

  test('of few samples are those of the rank floor(q * n)', () => {
    const quantiles = new Quantiles()
    for (const ms of [100, 1, 10]) quantiles.observe(ms, 0)
    for (const [q, ms] of [
      [0, 1],
      [0.33, 1],
      [0.34, 10],
      [0.5, 10],
      [0.67, 100],
      [1, 100],
    ] as const) {
      expect(quantiles.read(q, 0) / ms, `q ${q}`).toBeCloseTo(1, 1)
    }
  })

  test('are the same in one go as one by one', () => {
    const quantiles = new Quantiles()
    const random = seededRandom(5)
    expect(quantiles.readAll([0, 0.5, 1], 0)).toEqual([NaN, NaN, NaN])
    for (let i = 0; i < 1_000; i++) quantiles.observe(2 ** (random(1_000) / 100), i * 50)
    const qs = [0, 0.1, 0.5, 0.5, 0.9, 0.99, 1]
    expect(quantiles.readAll(qs, 50_000)).toEqual(qs.map((q) => quantiles.read(q, 50_000)))
    expect(new Set(quantiles.readAll(qs, 50_000)).size).toBe(6)
  })

  test('are NaN without samples', () => {
    expect(new Quantiles().read(0.5, 1_000)).toBeNaN()
  })
})
