import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { table } from './table.ts'

/** The parts of a V8 CPU profile that are read here. */
interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
    readonly children?: readonly number[]
  }[]
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

const TOP = 40
/** Not work: waiting for the kernel. */
const IDLE = new Set(['(idle)', '(program)'])

/** Prints where `<folder>/<name>.cpuprofile` spent its time: self time per function, and per place. */
export async function summarize(folder: string, name: string): Promise<void> {
  const file = join(folder, `${name}.cpuprofile`)
  const profile = JSON.parse(await readFile(file, 'utf8')) as CpuProfile
  const byId = new Map(profile.nodes.map((node) => [node.id, node.callFrame]))
  const functions = new Map<string, number>()
  const places = new Map<string, number>()
  let busyUs = 0
  for (const [at, id] of profile.samples.entries()) {
    const { functionName, url, lineNumber } = byId.get(id)!
    const us = profile.timeDeltas[at] ?? 0
    if (functionName === '(idle)') continue
    busyUs += us
    const where = url === '' ? '' : ` ${shorten(url)}:${lineNumber + 1}`
    add(functions, `${functionName || '(anonymous)'}${where}`, us)
    add(places, IDLE.has(functionName) || url === '' ? functionName || 'native' : placeOf(url), us)
  }
  console.log(`\nCPU profile ${file}, self time`)
  for (const [title, counts, most] of [
    ['place', places, 20],
    ['function', functions, TOP],
  ] as const) {
    const top = [...counts].sort((a, b) => b[1] - a[1]).slice(0, most)
    table(
      [title, '%'],
      top.map(([what, us]) => [what, ((us / busyUs) * 100).toFixed(1)]),
    )
  }
}

function add(counts: Map<string, number>, key: string, us: number): void {
  counts.set(key, (counts.get(key) ?? 0) + us)
}

function shorten(url: string): string {
  return url.replace(/^file:\/\/.*?\/(src|bench|node_modules)\//, '$1/').replace('node_modules/', '')
}

function placeOf(url: string): string {
  const short = shorten(url)
  if (short.startsWith('node:')) return 'node'
  return short.startsWith('src/') || short.startsWith('bench/') ? short : short.split('/')[0]!
}
