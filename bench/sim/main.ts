// npm run sim -- [--requests 100000] [--seed 1] [--only A] [--details] [--write]
// Prints docs/simulator.md below its first part, with --write into the file, and draws docs/charts; fails if a check or a statement does not hold.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { table as print } from '../table.ts'
import { type Cell, resultsOf } from './cells.ts'
import { chartsOf } from './charts.ts'
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
const REQUESTS_OF_STATEMENTS = 30_000
const DOCS = new URL('../../docs/', import.meta.url)
const PAGE = new URL('simulator.md', DOCS)
const FIRST_HEADING = '## Is the simulator right?'

const requests = Number(values.requests)
const seed = Number(values.seed)
const rows = ROWS.filter(({ name }) => values.only === undefined || name === values.only)
if (!(requests >= 1_000) || !Number.isInteger(seed) || rows.length === 0) {
  const names = [...new Set(ROWS.map(({ name }) => name))].join(', ')
  console.error(`--requests: at least 1000; --seed: a whole number; --only: one of ${names}`)
  process.exit(2)
}
if (values.write && values.only !== undefined) {
  console.error('--write: of all scenarios only, not with --only')
  process.exit(2)
}

const cells: Cell[] = rows.flatMap((row) =>
  STRATEGIES.filter((entry) => standsIn(entry, row)).map(([strategy]) => {
    return { strategy, row: row.name, clients: row.clients }
  }),
)
const [checks, rankings] = await Promise.all([
  checked(), // in this thread, the rest in others
  judged((jobs) => resultsOf(jobs.map((job) => ({ ...job, requests: REQUESTS_OF_STATEMENTS })))),
])
const results = await resultsOf(cells.map((cell) => ({ ...cell, requests, seed })))
const report: Report = {
  checks,
  rankings,
  strategies: STRATEGIES.map(([name]) => name),
  table: rows.map((row) => ({ row, results: STRATEGIES.map(([name]) => results[cells.findIndex(isCell(name, row))]) })),
  requests,
  seed,
}

function standsIn([name, , isIn]: (typeof STRATEGIES)[number], row: Row): boolean {
  return !row.without?.includes(name) && (isIn === undefined || isIn(row))
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
  mkdirSync(new URL('charts/', DOCS), { recursive: true })
  for (const { file, svg } of chartsOf(report)) writeFileSync(new URL(`charts/${file}`, DOCS), svg)
}
const hold =
  checks.every(({ isRight }) => isRight) && rankings.every(({ findings }) => findings.every(({ isTrue }) => isTrue))
process.exitCode = hold ? 0 : 1
