import { describe, expect, test } from 'vitest'
import { DURATION_BOUNDS_MS, Durations } from '../../src/core/durations.ts'

const EMPTY = DURATION_BOUNDS_MS.map(() => 0).concat(0)

describe('durations', () => {
  test('are nothing before the first', () => {
    expect(new Durations().read()).toEqual({ count: 0, sumMs: 0, boundsMs: DURATION_BOUNDS_MS, buckets: EMPTY })
  })

  test('fall into the first bucket whose bound they do not pass, and into the last when they pass all', () => {
    for (const [at, bound] of DURATION_BOUNDS_MS.entries()) {
      const durations = new Durations()
      durations.observe(bound)
      durations.observe(bound + 0.001)
      const { buckets, count, sumMs } = durations.read()
      expect(buckets).toEqual(EMPTY.map((none, i) => (i === at || i === at + 1 ? 1 : none)))
      expect(count).toBe(2)
      expect(sumMs).toBeCloseTo(2 * bound + 0.001, 6)
    }
  })

  test('that were read stay as they were', () => {
    const durations = new Durations()
    durations.observe(1)
    const read = durations.read()
    durations.observe(1)
    expect([read.count, durations.read().count]).toEqual([1, 2])
  })

  test('have bounds that rise', () => {
    expect(DURATION_BOUNDS_MS).toEqual([...DURATION_BOUNDS_MS].sort((a, b) => a - b))
    expect(Object.isFrozen(DURATION_BOUNDS_MS)).toBe(true)
  })
})
