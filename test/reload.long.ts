import { expect, test } from 'vitest'
import { reloadStory } from './support/reload-story.ts'
import { told } from './support/update-story.ts'

const SECONDS = 60
/**
 * KiB a minute, as in the soak. Some 100 files come into force in the last two thirds; if each left behind what a kept revision takes,
 * 10 KiB and more, that would be 1 500 a minute.
 */
const MOST_KIB = 1_024

test(`a file written every 200 ms for ${SECONDS} s at 64 in flight: nothing fails, nothing is dropped, a bad one changes nothing, the heap is flat`, async () => {
  const story = await reloadStory(SECONDS)
  console.log(`reloads under load: ${told(story)}`)
  expect(story.failed).toEqual([])
  expect(story.wrong).toEqual([])
  expect(story).toMatchObject({ dropped: 0, ended: 0, refused: story.bad })
  expect(story.bad).toBeGreaterThan(10)
  expect(story.applied).toBeGreaterThan(story.bad)
  expect(story.applied).toBeLessThanOrEqual(story.good)
  expect(story.requests).toBeGreaterThan(1_000)
  expect(story.kibPerMinute).toBeLessThan(MOST_KIB)
})
