import type { Checked } from './checks.ts'
import type { Finding } from './rankings.ts'
import type { Row } from './scenarios.ts'
import type { Result } from './simulation.ts'

/** A row of the table with what each strategy did in it; undefined = left out. */
interface Filled {
  readonly row: Row
  readonly results: readonly (Result | undefined)[]
}

export interface Report {
  readonly checks: readonly Checked[]
  readonly rankings: readonly { readonly says: string; readonly findings: readonly Finding[] }[]
  readonly strategies: readonly string[]
  readonly table: readonly Filled[]
  readonly requests: number
  readonly seed: number
}

/** The whole page but for its first part: what was found. */
export function foundOf({ checks, rankings, strategies, table, requests, seed }: Report): readonly string[] {
  const abouts = new Map(table.map(({ row: { name, about } }) => [name, about]))
  return [
    '## Is the simulator right?',
    '',
    `${checks[0]!.scenario.requests.toLocaleString('en')} requests each, seed 1; times in ms.`,
    '',
    ...markdown(
      ['check', 'theory', 'found', 'off by', 'may be off by', ''],
      checks.map(({ name, expected, found, tolerance, isRight }) => [
        name,
        expected.toFixed(2),
        found.toFixed(2),
        percent(found / expected - 1, 1),
        percent(tolerance, 1),
        verdict(isRight),
      ]),
    ),
    '',
    '## Statements',
    '',
    'Under the seeds 1, 2 and 3. Their short form is part of the tests.',
    '',
    ...markdown(
      ['statement', 'seed 1', 'seed 2', 'seed 3', ''],
      rankings.map(({ says, findings }) => [
        says,
        ...findings.map(({ found }) => found),
        verdict(findings.every(({ isTrue }) => isTrue)),
      ]),
    ),
    '',
    '## Results',
    '',
    `${requests.toLocaleString('en')} requests a cell, seed ${seed}; p99 of all requests, ms / errors, %. ∞: more than one in a hundred failed.`,
    '',
    ...markdown(
      ['scenario', 'clients', ...strategies],
      table.map(({ row, results }) => [
        row.name,
        `${row.clients}`,
        ...results.map((result) => (result === undefined ? '–' : `${msOf(result.p99all)} / ${errorsOf(result)}`)),
      ]),
    ),
    '',
    ...[...abouts].map(([name, about]) => `- **${name}**: ${about}`),
    '',
  ]
}

/** Everything known of each cell, for the terminal. */
export function detailsOf({ strategies, table }: Report): readonly (readonly string[])[] {
  return table.flatMap(({ row, results }) =>
    results.flatMap((result, at) => {
      if (result === undefined) return []
      const { p50, p99, p999, p99all, attemptsPerRequest, shares, peak } = result
      const times = [...[p50, p99, p999].map((ms) => ms.toFixed(1)), msOf(p99all)]
      const extremes = [Math.min(...shares), Math.max(...shares)].map((share) => percent(share, 2))
      const name = `${row.name}, ${row.clients}, ${strategies[at]}`
      return [[name, ...times, errorsOf(result), attemptsPerRequest.toFixed(3), ...extremes, `${peak}`]]
    }),
  )
}

export const DETAILS: readonly string[] = [
  'scenario, clients, strategy',
  ...['p50', 'p99', 'p99.9', 'p99 of all', 'errors %', 'attempts', 'least share', 'largest', 'most in one'],
]

function markdown(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)]
}

/** Infinity: it was reached by none. */
export function msOf(ms: number): string {
  return ms === Infinity ? '∞' : ms.toFixed(0)
}

function errorsOf({ errors }: Result): string {
  return errors === 0 ? '0' : (errors * 100).toPrecision(2)
}

function percent(share: number, digits: number): string {
  return `${(share * 100).toFixed(digits)} %`
}

function verdict(isTrue: boolean): string {
  return isTrue ? 'holds' : '**does not hold**'
}
