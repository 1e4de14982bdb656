import { leftovers } from 'evenkeel/testing'
import { afterAll, expect, test } from 'vitest'
import { alarms } from './alarms.ts'
import { slopeOf } from './gauges.ts'
import { interleavings } from './interleavings.ts'
import { outage } from './outage.ts'
import { storm } from './storm.ts'

const RUNS = 250
const CALLS = 100_000
const FAULTY = 200_000
/** Most that the heap may grow, KiB per 1,000 faulty requests: four bytes a request, less than one number kept of each. */
const MOST_KIB = 4
/** Three minutes on an idle machine, far more on a busy one. */
const SLOW_MS = 1_800_000

const heard = alarms()
afterAll(() => heard.stop())

test(`${RUNS} interleavings of faults, aborts, updates and close leave nothing behind`, async () => {
  const story = await interleavings(RUNS)
  console.info(`${RUNS} interleavings: ${JSON.stringify(story)}`)
  expect(heard.all).toEqual([])
})

test(`${CALLS} calls under faults at 64 in flight: no server sees a POST that another has seen`, async () => {
  const base = leftovers()
  const { words, ...figures } = await storm({ share: 0.3, patienceMs: 100, isOver: ({ calls }) => calls >= CALLS })
  console.info(`duplicates: ${JSON.stringify(figures)}\n${JSON.stringify(words)}`)
  expect(figures).toMatchObject({ postsTwice: 0, short: 0, broken: [] })
  expect(figures.posts).toBeGreaterThan(CALLS / 3)
  expect(figures.mostSends).toBeLessThanOrEqual(4) // three attempts, and one connection that died of old age
  expect(figures.faulty).toBeGreaterThan(CALLS / 20)
  await base.restored()
  expect(heard.all).toEqual([])
})

test(`${FAULTY} faulty requests leave the heap as it was`, { timeout: SLOW_MS }, async () => {
  const base = leftovers()
  const points: [thousands: number, kib: number][] = []
  const { words, ...figures } = await storm({
    share: 0.9,
    patienceMs: 40,
    idHeader: 'x-unseen', // what the servers remember would grow
    isOver: ({ faulty }) => faulty >= FAULTY,
    sampled: {
      everyCalls: 5_000,
      take: ({ faulty }, heap) => points.push([faulty / 1_000, heap / 1_024]),
    },
  })
  const warm = points.slice(Math.ceil(points.length / 4))
  const slope = slopeOf(warm)
  console.info(`heap: ${slope.toFixed(2)} KiB per 1,000 faulty requests, ${points.length} samples in MiB:`)
  console.info(points.map(([, kib]) => (kib / 1_024).toFixed(1)).join(' '))
  console.info(`${JSON.stringify(figures)}\n${JSON.stringify(words)}`)
  expect(slope).toBeLessThan(MOST_KIB)
  expect(figures).toMatchObject({ short: 0, broken: [] })
  await base.restored()
  expect(heard.all).toEqual([])
})

test('a total outage costs a fifth more sends, and no storm follows it', async () => {
  const story = await outage(10_000, 1_000)
  console.info(`outage: ${JSON.stringify(story)}`)
  expect(story.answered).toBe(0)
  // The budget: a fifth of the calls, ten a second, and what it starts with.
  expect(story.attempts).toBeLessThanOrEqual(story.calls * 1.2 + 10 * story.seconds + 100)
  expect(story.attempts).toBeGreaterThanOrEqual(story.calls)
  expect(story.after.answered).toBe(story.after.calls)
  expect(story.after.attempts).toBeLessThanOrEqual(story.after.calls * 1.01)
  expect(heard.all).toEqual([])
})
