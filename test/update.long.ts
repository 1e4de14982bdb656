import { expect, test } from 'vitest'
import { told, updateStory } from './support/update-story.ts'

const SECONDS = 30

test(`an update every 100 ms for ${SECONDS} s at 64 in flight: nothing fails, nothing strays, nothing is lost, the heap is flat`, async () => {
  const story = await updateStory(SECONDS)
  console.log(`updates under load: ${told(story)}`)
  expect(story.failed).toEqual([])
  expect(story).toMatchObject({ strays: 0, lost: 0, inflight: 0 })
  expect(story.updates).toBeGreaterThan(SECONDS * 8)
  for (const kind of ['added', 'removed', 'moved', 'reweighed', 'kept'] as const) {
    expect(story[kind], kind).toBeGreaterThan(SECONDS)
  }
  expect(story.heapMiB).toBeLessThan(8)
})
