/** Nanoseconds and garbage collections per pick, each strategy and size in a process of its own. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { PickResult, PickSubject } from './pick-child.ts'
import { integer, ratio, row, table } from './table.ts'

const STRATEGIES: readonly PickSubject[] = ['round-robin', 'p2c', 'peak-ewma']
const SIZES = [4, 64, 1000]
const PICKS = 5_000_000
const run = promisify(execFile)

export async function benchPicks(): Promise<void> {
  console.log(`\npicks: ns each; ratio to a bare array read + xorshift32; GCs in ${integer(PICKS)} picks`)
  const rows: string[][] = []
  for (const strategy of STRATEGIES) for (const size of SIZES) rows.push(cells(await measure(strategy, size)))
  rows.push(cells(await measure('garbage', 4)))
  table(
    [
      '',
      'backends',
      'ns',
      'min..max',
      'bare ns',
      'ratio',
      'min..max',
      'inline ns',
      'ratio',
      'GCs',
      'pool ns',
      'pool GCs',
    ],
    rows,
  )
  console.log(
    '  ratio: both are pickers behind the same call; inline: the bare read is written into its loop, without any call',
  )
  console.log('  pool: all of Pool.pick, that is clock, picker and admission; garbage: proof that collections are seen')
}

async function measure(strategy: PickSubject, backends: number): Promise<PickResult> {
  const child = fileURLToPath(new URL('pick-child.ts', import.meta.url))
  const { stdout } = await run(process.execPath, ['--expose-gc', child, strategy, String(backends), String(PICKS)])
  return JSON.parse(stdout) as PickResult
}

function cells(it: PickResult): string[] {
  return [
    it.strategy === 'garbage' ? 'garbage (control)' : it.strategy,
    integer(it.backends),
    ...row(it.nsSpread, (ns) => ns.toFixed(1)),
    it.bareNs.toFixed(1),
    ...row(it.ratioSpread, ratio),
    it.inlineNs.toFixed(1),
    it.inlineRatio.toFixed(2),
    integer(it.gcs),
    it.poolNs.toFixed(0),
    integer(it.poolGcs),
  ]
}
