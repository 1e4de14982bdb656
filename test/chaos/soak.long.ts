// `npm run soak`: a minute of mixed traffic; SOAK_MINUTES=30 npm run soak: as long as it takes to believe it.
import { leftovers } from 'evenkeel/testing'
import { afterAll, expect, test } from 'vitest'
import { alarms } from './alarms.ts'
import { slopeOf } from './gauges.ts'
import { type Sample, soak } from './soak.ts'

const MINUTES = Number(process.env.SOAK_MINUTES ?? 1)
const PER_SECOND = 1_000
/** Half an hour shows what a minute cannot: pages, caches and code of the first minutes are there. KiB a minute. */
const MOST_KIB = MINUTES >= 20 ? 100 : 1_024
const SAMPLE_MS = MINUTES >= 5 ? 60_000 : 5_000

const heard = alarms()
afterAll(() => heard.stop())

/** The last two thirds, as [minute, value]. */
function late(samples: readonly Sample[], key: 'heapKiB' | 'sockets' | 'timers' | 'listeners'): [number, number][] {
  return samples.slice(Math.floor(samples.length / 3)).map((sample) => [sample.minute, sample[key]])
}

test(`${MINUTES} min of mixed traffic with faults and updates: nothing grows, nothing is unexplained`, {
  timeout: MINUTES * 60_000 + 60_000,
}, async () => {
  const base = leftovers()
  const { samples, words, unexplained, ...figures } = await soak({
    minutes: MINUTES,
    perSecond: PER_SECOND,
    sampleMs: SAMPLE_MS,
    tell: (line) => console.info(line),
  })
  const slope = slopeOf(late(samples, 'heapKiB'))
  console.info(`soak: ${slope.toFixed(1)} KiB a minute, at most ${MOST_KIB}; ${JSON.stringify(figures)}`)
  console.info(JSON.stringify(words))
  expect(unexplained).toEqual([])
  expect(slope).toBeLessThan(MOST_KIB)
  expect(slopeOf(late(samples, 'listeners'))).toBe(0)
  expect(slopeOf(late(samples, 'timers'))).toBe(0)
  // Idle connections are as many as were once needed at the same time: what leaks of them shows at the end.
  expect(figures.broken).toEqual([])
  expect(figures.faulty).toBeGreaterThan(0)
  expect(figures.updates).toBeGreaterThanOrEqual(Math.floor(MINUTES * 6) - 1)
  await base.restored()
  expect(heard.all).toEqual([])
})
