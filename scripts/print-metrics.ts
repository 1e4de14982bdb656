// npm run docs: prints the table of docs/metrics.md from src/telemetry/metric-rows.ts, so that the page cannot be wrong.
import { readFileSync, writeFileSync } from 'node:fs'
import { BACKEND_ROWS, BALANCER_ROWS, type MetricRow, POOL_ROWS } from '../src/telemetry/metric-rows.ts'

export interface DescribedMetric {
  readonly name: string
  readonly type: string
  readonly labels: readonly string[]
  readonly help: string
}

const PAGE = new URL('../docs/metrics.md', import.meta.url)
const TABLE = /(?<=<!-- metrics -->\n)[\s\S]*(?=<!-- end of metrics -->)/

/** Every metric under its default name. */
export const METRICS: readonly DescribedMetric[] = [
  ...described(BALANCER_ROWS, ['balancer']),
  ...described(POOL_ROWS, ['balancer', 'pool']),
  ...described(BACKEND_ROWS, ['balancer', 'pool', 'backend']),
]

/** The page with its table as it should be. */
export function metricsPage(): string {
  const rows = METRICS.map(
    ({ name, type, labels, help }) => `| \`${name}\` | ${type} | ${labels.join(' ')} | ${help} |`,
  )
  const table = ['| metric | type | labels | |', '| --- | --- | --- | --- |', ...rows, '']
  return readFileSync(PAGE, 'utf8').replace(TABLE, table.join('\n'))
}

function described<From>(rows: readonly MetricRow<From>[], labels: readonly string[]): readonly DescribedMetric[] {
  return rows.map(({ name, type, help, ...row }) => {
    const more = 'label' in row && row.label !== undefined ? [row.label] : []
    return { name: `evenkeel_${name}`, type, help, labels: [...labels, ...more] }
  })
}

if (import.meta.main) writeFileSync(PAGE, metricsPage())
