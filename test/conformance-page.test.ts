import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { cell } from '../scripts/print-conformance.ts'
import { PEERS } from './conformance/peers.ts'
import { ROWS } from './conformance/rows.ts'

const page = readFileSync(new URL('../docs/conformance.md', import.meta.url), 'utf8')

describe('docs/conformance.md', () => {
  // `npm run conformance` prints it; these tell when it has to be printed again.
  test('has every row, and no other', () => {
    const told = [...page.matchAll(/^\| (\d+) \| (.*?) \| (?:yes|no|–) /gm)].map(
      ([, number, says]) => `${number} ${says}`,
    )
    expect(told.sort()).toEqual([...new Set(ROWS.map(({ number, says }) => `${number} ${cell(says)}`))].sort())
  })

  test('is about the versions that are installed', () => {
    for (const { name, version } of PEERS) expect(page).toContain(`| ${name} | ${version} |`)
  })
})
