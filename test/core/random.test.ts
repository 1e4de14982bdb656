import { seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { randomFrom, sfc32, systemRandom } from '../../src/core/random.ts'

/** Pearson's statistic against equal shares. */
function chiSquare(counts: readonly number[]): number {
  const expected = counts.reduce((sum, n) => sum + n, 0) / counts.length
  return counts.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0)
}

describe('sfc32', () => {
  test('gives the published vector for seed 42', () => {
    const next = sfc32(42)
    expect(Array.from({ length: 4 }, () => next() >>> 0)).toEqual([1959603763, 2423114712, 2466933512, 4144396390])
  })

  test('gives another sequence for another seed', () => {
    const firsts = new Set(Array.from({ length: 1_000 }, (_, seed) => sfc32(seed)()))
    expect(firsts.size).toBe(1_000)
  })
})

describe('a random number below a bound', () => {
  test('covers exactly [0, below), at both ends of what the generator gives', () => {
    const lowest = randomFrom(() => 0)
    const highest = randomFrom(() => -1) // 2^32 - 1 as a signed number
    for (const below of [1, 2, 3, 1_000, 2 ** 30 - 1, 2 ** 30]) {
      expect(lowest(below)).toBe(0)
      expect(highest(below)).toBe(below - 1)
    }
  })

  test('is whole', () => {
    const random = seededRandom(7)
    for (let i = 0; i < 1_000; i++) expect(Number.isInteger(random(1 + i))).toBe(true)
  })

  test('is uniform: chi-square under the bound for p = 1e-4 over 1 000 000 draws, seed 42', () => {
    for (const [below, bound] of [
      [6, 25.7],
      [10, 33.7],
    ] as const) {
      const random = seededRandom(42)
      const counts = new Array<number>(below).fill(0)
      for (let i = 0; i < 1_000_000; i++) counts[random(below)]!++
      expect(chiSquare(counts)).toBeLessThan(bound)
    }
  })

  test('repeats itself under a seed, and does not otherwise', () => {
    const draw = (random: (below: number) => number): string => Array.from({ length: 8 }, () => random(1_000)).join()
    expect(draw(seededRandom(5))).toBe(draw(seededRandom(5)))
    expect(draw(systemRandom())).not.toBe(draw(systemRandom())) // equal once in 10^24 runs
  })
})
