import { readFileSync, writeFileSync } from 'node:fs'
import { leftovers } from 'evenkeel/testing'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { failuresPage, type Row } from '../../scripts/print-failures.ts'
import { blackHole } from '../../src/testing/raw-server.ts'
import { alarms } from './alarms.ts'
import { CASES } from './cases.ts'
import { flapping } from './flapping.ts'
import { interleavings } from './interleavings.ts'
import type { Carrier } from './play.ts'
import { rowOf } from './table.ts'

/** Transports that the table is played over; the first is the page's. */
const CARRIERS: readonly (readonly [name: string, carrier: Carrier])[] = [['undici', undefined]]
const PAGE = new URL('../../docs/failures.md', import.meta.url)
const RUNS = 12

const heard = alarms()
let hole: Awaited<ReturnType<typeof blackHole>>
beforeAll(async () => {
  hole = await blackHole()
})
afterAll(async () => {
  heard.stop()
  await hole.close()
})

describe.each(CARRIERS)('every fault has one outcome by each face, over %s', (_, carrier) => {
  const rows: Row[] = []

  test.each(CASES)('$group: $name', async (one) => {
    const base = leftovers()
    const { row, broken } = await rowOf(one, hole.url, carrier)
    expect(broken).toEqual([])
    await base.restored()
    expect(heard.all).toEqual([])
    rows.push(row)
  })

  test('and they are as docs/failures.md says', () => {
    expect(rows.map(({ name }) => name)).toEqual(CASES.map(({ name }) => name))
    if (process.env.UPDATE_FAILURES !== undefined) writeFileSync(PAGE, failuresPage(rows))
    expect(failuresPage(rows)).toBe(readFileSync(PAGE, 'utf8'))
  })
})

test('a backend that comes and goes costs nobody an answer', async () => {
  const { calls, turns, words } = await flapping()
  console.info(`flapping: ${calls} calls over ${turns} turns: ${JSON.stringify(words)}`)
  expect(words).toEqual({ 200: calls })
  expect(turns).toBeGreaterThan(3)
  expect(heard.all).toEqual([])
})

test(`${RUNS} interleavings of faults, aborts, updates and close leave nothing behind`, async () => {
  const story = await interleavings(RUNS)
  console.info(`${RUNS} interleavings: ${JSON.stringify(story)}`)
  expect(heard.all).toEqual([])
  expect(story.calls).toBeGreaterThan(RUNS)
})
