/** What `import 'evenkeel'` takes beside `import 'undici'`, which it includes, each time in a new process. */
import { execFile } from 'node:child_process'
import { globSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { interleave, type Spread, spreadOf } from './rounds.ts'
import { integer, row, table } from './table.ts'

const ROUNDS = 7
const run = promisify(execFile)

interface ImportResult {
  readonly ms: number
  readonly cpuMs: number
}

export async function benchImport(): Promise<void> {
  const { url, what } = entry()
  console.log(`\nimport: ms, median of ${integer(ROUNDS)} processes each; evenkeel ${what}`)
  const [base, own] = (await interleave(
    [() => measure(import.meta.resolve('undici')), () => measure(url)],
    ROUNDS,
  )) as [ImportResult[], ImportResult[]]
  const cells = (of: (at: number) => ImportResult): string[] => {
    const spread = (key: keyof ImportResult): Spread => spreadOf(base.map((_, at) => of(at)[key]))
    const format = (ms: number): string => ms.toFixed(1)
    return [...row(spread('ms'), format), ...row(spread('cpuMs'), format)]
  }
  const more = (at: number): ImportResult => ({
    ms: own[at]!.ms - base[at]!.ms,
    cpuMs: own[at]!.cpuMs - base[at]!.cpuMs,
  })
  table(
    ['', 'ms', 'min..max', 'CPU ms', 'min..max'],
    [
      ["import 'undici'", ...cells((at) => base[at]!)],
      ["import 'evenkeel'", ...cells((at) => own[at]!)],
      ['difference', ...cells(more)],
    ],
  )
  console.log('  difference: process by process; CPU ms counts all threads, and the neighbours on the machine less')
}

async function measure(url: string): Promise<ImportResult> {
  const child = fileURLToPath(new URL('import-child.ts', import.meta.url))
  const { stdout } = await run(process.execPath, [child, url])
  return JSON.parse(stdout) as ImportResult
}

/** The built package; its source if there is none. */
function entry(): { readonly url: string; readonly what: string } {
  const built = new URL('../dist/index.js', import.meta.url)
  const source = new URL('../src/index.ts', import.meta.url)
  const stats = statSync(built, { throwIfNoEntry: false })
  if (stats === undefined)
    return { url: source.href, what: 'from its source: there is no dist/index.js (npm run build)' }
  const folder = fileURLToPath(new URL('.', source))
  const newer = globSync('**/*.ts', { cwd: folder }).some(
    (file) => statSync(`${folder}${file}`).mtimeMs > stats.mtimeMs,
  )
  return { url: built.href, what: newer ? 'from dist, which is older than its source (npm run build)' : 'from dist' }
}
