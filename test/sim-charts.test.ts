import { expect, test } from 'vitest'
import { chartsOf } from '../bench/sim/charts.ts'
import type { Report } from '../bench/sim/page.ts'
import { ROWS } from '../bench/sim/scenarios.ts'
import type { Result } from '../bench/sim/simulation.ts'

const GOOD: Result = {
  meanMs: 20,
  p50: 15,
  p99: 95.4,
  p999: 150,
  p99all: 95.4,
  errors: 0,
  attemptsPerRequest: 1,
  shares: [1],
  peak: 5,
}

function report(auto: Result): Report {
  const table = ROWS.map((row) => ({ row, results: [auto, { ...GOOD, p99all: Infinity, errors: 0.03 }] }))
  return { checks: [], rankings: [], strategies: ['auto', 'random'], table, requests: 20_000, seed: 1 }
}

test('charts of equal numbers are equal byte by byte, of others they are not', () => {
  const charts = chartsOf(report(GOOD))
  expect(chartsOf(report(GOOD))).toEqual(charts)
  expect(chartsOf(report({ ...GOOD, p99all: 300, errors: 0.01 })).map(({ svg }) => svg)).not.toContain(charts[0]!.svg)
})

test('charts bring their background, say how long the run was, and hold nothing that counts or depends on a mouse', () => {
  for (const { file, svg } of chartsOf(report(GOOD))) {
    expect(file).toMatch(/^[a-z0-9-]+\.svg$/)
    expect(svg).toMatch(
      /^<svg [^>]*>\n<title>[^<]+<\/title>\n<rect width="920" height="380" x="0" y="0" fill="#ffffff">/,
    )
    expect(svg).toContain('20,000 requests a cell, seed 1')
    expect(svg).not.toMatch(/class=|<style|NaN|undefined/)
  }
})
