import { describe, test } from 'vitest'
import { OURS } from './conformance/ours.ts'
import { ROWS } from './conformance/rows.ts'

describe.each(OURS)('$name', ({ name, front }) => {
  for (const { number, says, not, run } of ROWS) {
    const why = not?.[name]
    test.skipIf(why !== undefined)(`row ${number}: ${says}${why === undefined ? '' : ` (not asked: ${why})`}`, () =>
      run(front),
    )
  }
})
