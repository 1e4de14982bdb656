import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { reloadStory } from './support/reload-story.ts'
import { told } from './support/update-story.ts'

const SECONDS = 10
/** Tables that grow to their size in the first seconds, and more; whatever grows by less shows over a minute, or below. */
const MOST_KIB = 4 * 1_024

test(`a file written every 200 ms for ${SECONDS} s at 64 in flight: nothing fails, nothing is dropped, a bad one changes nothing`, {
  timeout: 60_000,
}, async () => {
  const story = await reloadStory(SECONDS)
  console.log(`reloads under load: ${told(story)}`)
  expect(story.failed).toEqual([])
  expect(story.wrong).toEqual([])
  expect(story).toMatchObject({ dropped: 0, ended: 0, refused: story.bad })
  expect(story.bad).toBeGreaterThan(0)
  expect(story.applied).toBeGreaterThan(story.bad) // one before each of them, and the last
  expect(story.applied).toBeLessThanOrEqual(story.good)
  expect(story.requests).toBeGreaterThan(100)
  expect((story.kibPerMinute * SECONDS) / 60).toBeLessThan(MOST_KIB)
})

test('a revision that is kept costs little, and one that is not costs nothing', { timeout: 60_000 }, async () => {
  const child = fileURLToPath(new URL('support/reload-child.ts', import.meta.url))
  // Without compiled code, which comes and goes as it likes, the heap of a process is the same to some KiB every time.
  const plain = ['--expose-gc', '--no-opt', '--no-maglev', '--no-sparkplug', '--max-lazy']
  const args = [...plain, '--disable-warning=ExperimentalWarning', child, '30', '9', '29', '89']
  const { stdout } = await promisify(execFile)(process.execPath, args)
  const [ten, thirty, later] = JSON.parse(stdout) as [number, number, number]
  const each = (thirty - ten) / 20
  console.log(`a revision keeps ${each.toFixed(1)} KiB; sixty more leave ${later - thirty} KiB`)
  // Two pools of four backends, one of them new each time: 26 KiB, with every new Node some more or less. With the parts of its plan
  // it was 42, with paths in pieces 65.
  expect(each).toBeLessThan(42)
  // Between two collections some hundred KiB come and go; sixty kept ones would be 1 500.
  expect(later - thirty).toBeLessThan(200)
})
