import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import type { PickResult } from '../bench/pick-child.ts'

const CHILD = fileURLToPath(new URL('../bench/pick-child.ts', import.meta.url))
const PICKS = 5_000_000

/** Each strategy in a process of its own, with the real clock: nobody else's garbage is counted. */
async function measure(...args: readonly (string | number)[]): Promise<PickResult> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', CHILD, ...args.map(String)])
  return JSON.parse(stdout) as PickResult
}

describe(`${PICKS / 1e6} million picks`, () => {
  for (const [strategy, weights] of [
    ['round-robin', 'equal'],
    ['p2c', 'equal'],
    ['p2c', 'weighted'],
    ['peak-ewma', 'equal'],
  ] as const) {
    test(`by ${strategy} with ${weights} weights make no garbage: 0 collections`, async () => {
      expect(await measure(strategy, 64, PICKS, weights)).toMatchObject({ strategy, picks: PICKS, gcs: 0 })
    })
  }

  test('by a strategy that does make garbage are caught', async () => {
    expect((await measure('garbage', 64, PICKS)).gcs).toBeGreaterThan(0)
  })
})
