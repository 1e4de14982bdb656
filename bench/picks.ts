/** Nanoseconds and garbage collections per pick, each strategy and size in a process of its own. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type PickResult, poolOf } from './pick-child.ts'
import { spreadOf } from './rounds.ts'
import { SUBJECTS } from './subjects-of-picks.ts'
import { integer, ratio, row, table } from './table.ts'

const SIZES = [4, 64, 1_000, 10_000]
const PICKS = 2_000_000
/** So many times as long takes a pick that compares reports, about. */
const TIMES_OF_REPORTS = 20
/** Most that a pick of the largest pool may cost, in bare reads. */
const LIMITS = { '1': 8, 'log n': 30, n: Infinity, reports: Infinity }
/** The same for each backend that is looked at, where a pick looks at more than two: p2c has 8 for two. */
const LIMIT_OF_LOOK = 4
const LARGEST = 10_000
/** What looks at every backend is not for pools as large as that. */
const LARGEST_OF_N = 1_000
/** Changes whose stalls are measured. */
const CHANGES = 5
const run = promisify(execFile)

export async function benchPicks(): Promise<void> {
  console.log('\npicks: ns each; ratio to a bare array read + xorshift32; GCs in so many picks')
  const rows: string[][] = []
  for (const [strategy, { grows }] of Object.entries(SUBJECTS)) {
    for (const size of grows === undefined ? SIZES.slice(0, 1) : SIZES) {
      if (grows === 'n' && size > LARGEST_OF_N) continue
      const slower = grows === 'n' ? 2 * size : grows === 'reports' ? TIMES_OF_REPORTS : 1
      rows.push(cells(await measure(strategy, size, PICKS / slower)))
    }
  }
  table(
    [
      '',
      'backends',
      'ns',
      'min..max',
      'bare ns',
      'ratio',
      'min..max',
      'most',
      'inline ns',
      'ratio',
      'picks',
      'GCs',
      'pool ns',
      'pool GCs',
    ],
    rows,
  )
  console.log(
    '  ratio: both are pickers behind the same call; inline: the bare read is written into its loop, without any call',
  )
  console.log('  most: of the ratio, where a pick does not look at every backend; ! = more than that')
  console.log(
    `  looks: where a pick looks at more than two backends, but at no more than that: ${LIMIT_OF_LOOK} for each`,
  )
  console.log(
    '  prequal: all backends have reported their load, and each pick takes in three reports as probes would bring them',
  )
  console.log('  by key: 256 keys in turn, hashed each time')
  console.log('  pool: all of Pool.pick, that is clock, picker and admission; garbage: proof that collections are seen')
  for (const strategy of ['ring-hash', 'maglev']) console.log(await stalls(strategy))
}

async function measure(strategy: string, backends: number, picks: number): Promise<PickResult> {
  const child = fileURLToPath(new URL('pick-child.ts', import.meta.url))
  const { stdout } = await run(process.execPath, ['--expose-gc', child, strategy, String(backends), String(picks)])
  return JSON.parse(stdout) as PickResult
}

function cells(it: PickResult): string[] {
  const { grows, looks } = SUBJECTS[it.strategy]!
  const limit = looks !== undefined ? looks * LIMIT_OF_LOOK : grows !== undefined ? LIMITS[grows] : Infinity
  const most = it.backends < LARGEST ? Infinity : limit
  const title = looks === undefined || it.backends < LARGEST ? it.strategy : `${it.strategy}, ${looks} looks`
  return [
    it.strategy === 'garbage' ? 'garbage (control)' : title,
    integer(it.backends),
    ...row(it.nsSpread, (ns) => ns.toFixed(1)),
    it.bareNs.toFixed(1),
    ...row(it.ratioSpread, ratio),
    most === Infinity ? '' : `${it.ratio > most ? '! ' : ''}${most}`,
    it.inlineNs.toFixed(1),
    it.inlineRatio.toFixed(2),
    integer(it.picks),
    integer(it.gcs),
    it.poolNs.toFixed(0),
    integer(it.poolGcs),
  ]
}

/** One of the backends leaves: for how long can nothing else be done, while the change is made and its table after it? */
async function stalls(strategy: string): Promise<string> {
  let longestMs = 0
  const { apply, settled, pool } = await poolOf(SUBJECTS[strategy]!.make(), LARGEST, {
    ran: (ms) => {
      longestMs = Math.max(longestMs, ms)
    },
  })
  const changes: number[] = []
  const slices: number[] = []
  for (let i = 1; i <= CHANGES; i++) {
    longestMs = 0
    const startMs = performance.now()
    apply(LARGEST - i)
    changes.push(performance.now() - startMs)
    await settled()
    slices.push(longestMs)
  }
  pool.close()
  const [change, slice] = [changes, slices].map((all) => row(spreadOf(all), (ms) => ms.toFixed(1)).join(' ms, '))
  const title = `  ${strategy}, one of ${integer(LARGEST)} leaves: `
  return `${title}the change itself takes ${change}; the longest slice of work for its table ${slice}`
}
