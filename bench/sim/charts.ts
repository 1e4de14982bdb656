import { init } from 'echarts'
import type { Report } from './page.ts'

/** A picture, under its file name. */
export interface Chart {
  readonly file: string
  readonly svg: string
}

/** Readable on a light page and on a dark one: the background is the chart's own. */
const BACKGROUND = '#ffffff'
const INK = '#24292f'
/** The same in every chart, and told apart by those who see no red or green (Okabe and Ito). */
const COLOURS: Readonly<Record<string, string>> = {
  auto: '#000000',
  random: '#e69f00',
  'round-robin': '#56b4e9',
  p2c: '#009e73',
  least: '#cc79a7',
  'peak-ewma': '#0072b2',
  prequal: '#d55e00',
  'srv-p2c': '#999999',
  maglev: '#f0e442',
  smart: '#7b4fa3',
  thompson: '#a0522d',
}
const WIDTH = 920
const HEIGHT = 380

/** What stands for a p99 that no request reached: more than one in a hundred failed. Beyond any attempt's timeout, ms. */
const FAILED_MS = 2_000
/** Errors are counted out of so many requests, so that the bars of a logarithmic axis begin at 1, which stands for none. */
const OUT_OF = 100_000
const NO_ERROR = 1

/** Styles under a mouse, and names counted through the process: a picture in a page needs neither, and equal ones must be equal. */
const HOVERING = /<style.*<\/style>\n?/s
const COUNTED = / class="zr[^"]*"/g

interface Bars {
  readonly file: string
  readonly title: string
  /** Rows by name and clients. */
  readonly rows: readonly (readonly [name: string, clients: number])[]
  readonly strategies: readonly string[]
  readonly measure: 'p99' | 'errors'
}

const MAIN = ['auto', 'random', 'round-robin', 'p2c', 'least', 'peak-ewma']

const CHARTS: readonly Bars[] = [
  {
    file: 'p99-one-client.svg',
    title: 'p99 of all requests, one client, ms (2,000: more than 1 % failed)',
    rows: ['A', "A'", 'B', 'B3', 'C', 'D', 'E', 'R'].map((name) => [name, 1]),
    strategies: MAIN,
    measure: 'p99',
  },
  {
    file: 'p99-many-clients.svg',
    title: 'p99 of all requests, 20 clients, ms (2,000: more than 1 % failed)',
    rows: ['A', "A'", 'B', 'B3', 'C', 'D'].map((name) => [name, 20]),
    strategies: [...MAIN, 'prequal', 'srv-p2c'],
    measure: 'p99',
  },
  {
    file: 'errors.svg',
    title: 'Errors in 100,000 requests where backends fail or are slow, one client (1: none)',
    rows: ['B', 'B3', 'C', 'E', 'R'].map((name) => [name, 1]),
    strategies: MAIN,
    measure: 'errors',
  },
  {
    file: 'families.svg',
    title: 'p99 of all requests by family, one client, ms (2,000: more than 1 % failed)',
    rows: ['A', 'B', 'D', 'E shipped', 'R shipped'].map((name) => [name, 1]),
    strategies: ['auto', 'round-robin', 'least', 'maglev', 'smart', 'thompson'],
    measure: 'p99',
  },
]

/** Equal numbers make equal bytes. */
export function chartsOf(report: Report): readonly Chart[] {
  return CHARTS.map((bars) => ({ file: bars.file, svg: drawn(bars, report) }))
}

function drawn({ title, rows, strategies, measure }: Bars, report: Report): string {
  const value = (strategy: string, name: string, clients: number): number | undefined => {
    const filled = report.table.find(({ row }) => row.name === name && row.clients === clients)
    const result = filled?.results[report.strategies.indexOf(strategy)]
    if (result === undefined) return undefined
    if (measure === 'errors') return round(Math.max(result.errors * OUT_OF, NO_ERROR))
    return result.p99all === Infinity ? FAILED_MS : round(result.p99all)
  }
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: HEIGHT })
  chart.setOption({
    animation: false,
    backgroundColor: BACKGROUND,
    textStyle: { color: INK, fontFamily: 'sans-serif' },
    title: {
      text: title,
      subtext: `${report.requests.toLocaleString('en')} requests a cell, seed ${report.seed}`,
      left: 'center',
      top: 6,
      itemGap: 4,
      textStyle: { color: INK, fontSize: 14 },
      subtextStyle: { color: INK },
    },
    legend: { bottom: 8, itemGap: 24, textStyle: { color: INK } },
    grid: { left: 60, right: 20, top: 64, bottom: 70 },
    xAxis: { type: 'category', data: rows.map(([name]) => name), axisLabel: { color: INK } },
    yAxis: {
      type: 'log',
      min: measure === 'errors' ? NO_ERROR : 50,
      max: measure === 'errors' ? OUT_OF : FAILED_MS,
      axisLabel: { color: INK },
    },
    series: strategies.map((strategy) => ({
      name: strategy,
      type: 'bar',
      itemStyle: { color: COLOURS[strategy] },
      data: rows.map(([name, clients]) => value(strategy, name, clients) ?? null),
    })),
  })
  const svg = chart.renderToSVGString()
  chart.dispose()
  return `${svg.replace(HOVERING, '').replaceAll(COUNTED, '').replace('>', `>\n<title>${title}</title>`)}\n`
}

/** Three digits: more would only make the file longer. */
function round(value: number): number {
  return Number(value.toPrecision(3))
}
