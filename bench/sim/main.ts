// npm run sim -- [--requests 100000] [--seed 1] [--only A] [--details] [--write]
// Prints docs/simulator.md below its first part, with --write into the file; fails if a check or a statement does not hold.
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { table as print } from '../table.ts'
import { type Cell, resultsOf } from './cells.ts'
import { checked } from './checks.ts'
import { DETAILS, detailsOf, foundOf, type Report } from './page.ts'
import { judged } from './rankings.ts'
import { ROWS, type Row } from './scenarios.ts'
import { STRATEGIES } from './strategies.ts'

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '100000' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
    details: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
  },
})

/** Enough for a statement; of each cell. */
const REQUESTS_OF_STATEMENTS = 40_000
const PAGE = new URL('../../docs/simulator.md', import.meta.url)
const FIRST_HEADING = '## Is the simulator right?'

const requests = Number(values.requests)
const seed = Number(values.seed)
const rows = ROWS.filter(({ name }) => values.only === undefined || name === values.only)
if (!(requests >= 1_000) || !Number.isInteger(seed) || rows.length === 0) {
  const names = [...new Set(ROWS.map(({ name }) => name))].join(', ')
  console.error(`--requests: at least 1000; --seed: a whole number; --only: one of ${names}`)
  process.exit(2)
}

const cells: Cell[] = rows.flatMap((row) =>
  STRATEGIES.filter(([name]) => !row.without?.includes(name)).map(([strategy]) => {
    return { strategy, row: row.name, clients: row.clients }
  }),
)
const checks = await checked()
const rankings = await judged((wanted) =>
  resultsOf(wanted.map((cell) => ({ ...cell, requests: REQUESTS_OF_STATEMENTS }))),
)
const results = await resultsOf(cells.map((cell) => ({ ...cell, requests, seed })))
const report: Report = {
  checks,
  rankings,
  strategies: STRATEGIES.map(([name]) => name),
  table: rows.map((row) => ({ row, results: STRATEGIES.map(([name]) => results[cells.findIndex(isCell(name, row))]) })),
  requests,
  seed,
}

function isCell(name: string, row: Row): (cell: Cell) => boolean {
  return (cell) => cell.strategy === name && cell.row === row.name && cell.clients === row.clients
}

const found = foundOf(report).join('\n')
console.log(found)
if (values.details) print(DETAILS, detailsOf(report))
if (values.write) {
  const page = readFileSync(PAGE, 'utf8')
  writeFileSync(PAGE, page.slice(0, page.indexOf(FIRST_HEADING)) + found)
}
const hold =
  checks.every(({ isRight }) => isRight) && rankings.every(({ findings }) => findings.every(({ isTrue }) => isTrue))
process.exitCode = hold ? 0 : 1
