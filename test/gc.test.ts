import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import type { PickResult } from '../bench/pick-child.ts'

const CHILD = fileURLToPath(new URL('../bench/pick-child.ts', import.meta.url))
const GARBAGE_CHILD = fileURLToPath(new URL('support/garbage-child.ts', import.meta.url))
const HASH_CHILD = fileURLToPath(new URL('support/hash-child.ts', import.meta.url))
/**
 * With a young generation of 1 MiB half a million picks show a leak of some two bytes each; in one of 16 MiB, the usual size, it takes
 * eight million. `npm run bench -- --only picks` counts in five million.
 */
const PICKS = 500_000
const FLAGS = ['--expose-gc', '--max-semi-space-size=1']

/** Each strategy in a process of its own, with the real clock: nobody else's garbage is counted. */
async function measure(...args: readonly (string | number)[]): Promise<PickResult> {
  const { stdout } = await promisify(execFile)(process.execPath, [...FLAGS, CHILD, ...args.map(String)])
  return JSON.parse(stdout) as PickResult
}

describe('half a million picks', () => {
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

  test.each([
    'auto',
    'random',
    'weighted round robin',
    'edf',
    'edf with bias',
    'orca',
    'weighted random',
    'weighted random in a restless pool',
    'least',
    'p2c by expected delay',
    'p2c of three',
    'failover',
    'failover with keys',
    'weighted failover',
    'locality',
    'zone weights',
    'subset by rendezvous',
    'subset by index',
    'smart',
  ])('by %s make no garbage: 0 collections', async (subject) => {
    const args = [...FLAGS, GARBAGE_CHILD, subject, String(PICKS)]
    const { stdout } = await promisify(execFile)(process.execPath, args)
    expect(JSON.parse(stdout)).toEqual({ subject, picks: PICKS, gcs: 0 })
  })

  test.each([
    'ring-hash',
    'ring-hash bounded',
    'ring-hash like nginx',
    'maglev',
    'maglev bounded',
    'rendezvous',
    'rendezvous bounded',
    'jump',
    'jump bounded',
    'maglev alone',
    'rendezvous alone',
  ])(
    'by the keys of calls, %s, make no garbage: 0 collections',
    async (subject) => {
      const args = [...FLAGS, HASH_CHILD, subject, String(PICKS)]
      const { stdout } = await promisify(execFile)(process.execPath, args)
      expect(JSON.parse(stdout)).toMatchObject({ subject, picks: PICKS, gcs: 0 })
    },
    60_000,
  )

  test('by a strategy that does make garbage are caught', async () => {
    expect((await measure('garbage', 64, PICKS)).gcs).toBeGreaterThan(0)
  })
})
