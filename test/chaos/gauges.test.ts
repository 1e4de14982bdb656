import { expect, test } from 'vitest'
import { heapBytes, keptBytes, slopeOf } from './gauges.ts'

test('a slope is what most pairs of points say, whatever a few wild ones do', () => {
  const points = Array.from({ length: 20 }, (_, x): [number, number] => [x, 5 + 2 * x])
  expect(slopeOf(points)).toBe(2)
  expect(slopeOf(points.map(([x, y]) => [x, x % 7 === 3 ? y + 1_000 : y]))).toBe(2)
  expect(slopeOf([[1, 1]])).toBe(0)
})

test.each([
  ['the heap', heapBytes],
  ['what outlives collections', keptBytes],
])('%s is seen to grow by what is kept, and not by what is not', async (_, bytesOf) => {
  const before = await bytesOf()
  const kept = Array.from({ length: 20_000 }, (_, n) => ({ n, text: `number ${n}` }))
  const after = await bytesOf()
  expect(after - before).toBeGreaterThan(kept.length * 30)
  kept.length = 0
  expect((await bytesOf()) - before).toBeLessThan((after - before) / 2)
})
