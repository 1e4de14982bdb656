// What docs/ says of the metrics is true: the table, the queries of the page, the alert rules and the dashboard.
import { readFileSync } from 'node:fs'
import { collect } from 'evenkeel/prometheus'
import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { METRICS, metricsPage } from '../scripts/print-metrics.ts'
import { balancerBench } from './support/balancer-bench.ts'
import { familiesOf } from './support/exposition.ts'

interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly gridPos: { readonly h: number; readonly w: number; readonly x: number; readonly y: number }
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[]
}

const page = read('metrics.md')
const alerts = read('prometheus/alerts.yml')
const dashboard = JSON.parse(read('prometheus/dashboard.json')) as {
  readonly panels: readonly Panel[]
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly query: string | { readonly query: string } }[]
  }
}
const targets = dashboard.panels.flatMap((panel) =>
  (panel.targets ?? []).map((target) => ({ ...target, panel: panel.title })),
)

/** Every series that can be asked for, by name, with its labels. */
const SERIES: ReadonlyMap<string, readonly string[]> = new Map(
  METRICS.flatMap(({ name, type, labels }): [string, readonly string[]][] =>
    type !== 'histogram'
      ? [[name, labels]]
      : [
          [`${name}_bucket`, [...labels, 'le']],
          [`${name}_sum`, labels],
          [`${name}_count`, labels],
        ],
  ),
)
const WORDS = /evenkeel_[a-z_]+/g
const SELECTORS = /(evenkeel_[a-z_]+)\{([^}]*)\}/g
const GROUPS = /\b(?:by|on) ?\(([^)]*)\)/g

/** What a query asks for that does not exist. */
function faultsOf(query: string): string[] {
  const asked = query.match(WORDS) ?? []
  const faults = asked.filter((name) => !SERIES.has(name))
  const known = new Set(asked.flatMap((name) => SERIES.get(name) ?? []))
  for (const [, name, inner] of query.matchAll(SELECTORS)) {
    for (const [, label] of inner!.matchAll(/([a-z]+) *(?:=~|!~|!=|=)/g)) {
      if (SERIES.get(name!)?.includes(label!) === false) faults.push(`${name}{${label}}`)
    }
  }
  for (const [, list] of query.matchAll(GROUPS)) {
    for (const label of list!.split(',')) if (!known.has(label.trim())) faults.push(`by ${label.trim()}`)
  }
  return asked.length === 0 ? ['no metric'] : faults
}

describe('docs/metrics.md', () => {
  test('has the table that the code prints (npm run docs)', () => {
    expect(page).toBe(metricsPage())
  })

  test('lists just what is there to be scraped', async () => {
    const registry = new Registry()
    const { balancer, call } = balancerBench((send) => send.answer(503), {
      breaker: {},
      health: { active: {} },
      limits: { adaptive: {} },
    })
    collect(balancer, { registry })
    await call()
    balancer.disable('a')
    const families = [...familiesOf(await registry.metrics()).values()]
    expect(families.map(({ name, type, help }) => ({ name, type, help }))).toEqual(
      METRICS.map(({ name, type, help }) => ({ name, type, help })),
    )
    for (const { name, labels } of METRICS) {
      const [series] = families.find((family) => family.name === name)!.series
      const there = series === undefined ? undefined : Object.keys(series.labels).filter((label) => label !== 'le')
      if (there !== undefined) expect(there, name).toEqual(labels)
    }
  })

  test('has queries that ask for what exists', () => {
    const queries = [...page.matchAll(/^\| [^|`]+ \| `([^`]+)` \|$/gm)].map(([, query]) => query!)
    expect(queries.length).toBe(9)
    expect(queries.flatMap(faultsOf)).toEqual([])
  })
})

describe('docs/prometheus/alerts.yml', () => {
  test('asks for what exists', () => {
    const rules = alerts.split('- alert: ').slice(1)
    expect(rules.length).toBe(alerts.match(/summary:/g)?.length)
    expect(rules.length).toBeGreaterThan(10)
    const exprs = rules.map((rule) => /expr:([\s\S]*?)\n {8}(?:for|labels):/.exec(rule)?.[1] ?? rule)
    expect(exprs.flatMap(faultsOf)).toEqual([])
  })
})

describe('docs/prometheus/dashboard.json', () => {
  test('asks for what exists', () => {
    expect(targets.length).toBeGreaterThan(30)
    expect(targets.flatMap(({ expr, panel }) => faultsOf(expr).map((fault) => `${panel}: ${fault}`))).toEqual([])
    const names = dashboard.templating.list.map(({ name }) => name)
    for (const { expr } of targets) {
      for (const [, name] of expr.matchAll(/\$([a-z]+)/g)) expect(names).toContain(name)
    }
  })

  test('leaves no metric out', () => {
    const asked = targets.map(({ expr }) => expr).join(' ')
    expect(METRICS.map(({ name }) => name).filter((name) => !asked.includes(name))).toEqual([])
  })

  test('names in its legends only labels that the query leaves', () => {
    for (const { expr, legendFormat, panel } of targets) {
      const series = [...SERIES].find(([name]) => expr.includes(name))![1]
      const left =
        [...expr.matchAll(GROUPS)]
          .at(-1)?.[1]
          ?.split(',')
          .map((label) => label.trim()) ?? series
      for (const [, label] of legendFormat.matchAll(/\{\{(\w+)\}\}/g))
        expect(left, `${panel}: ${legendFormat}`).toContain(label)
    }
  })

  test('has panels that do not cover each other', () => {
    const { panels } = dashboard
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
    const taken = new Set<string>()
    for (const { title, gridPos } of panels) {
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.has(`${x} ${y}`) || x > 23, title).toBe(false)
          taken.add(`${x} ${y}`)
        }
      }
    }
  })
})

test('the check finds what does not exist', () => {
  expect(faultsOf('rate(evenkeel_nothing_total[5m])')).toEqual(['evenkeel_nothing_total'])
  expect(faultsOf('evenkeel_panic{backend="a"}')).toEqual(['evenkeel_panic{backend}'])
  expect(faultsOf('sum by (class) (evenkeel_panic)')).toEqual(['by class'])
  expect(faultsOf('up')).toEqual(['no metric'])
  expect(faultsOf('sum by (pool) (evenkeel_panic{pool=~"a"})')).toEqual([])
})

function read(path: string): string {
  return readFileSync(new URL(`../docs/${path}`, import.meta.url), 'utf8')
}
