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

/** One process that was profiled, and what it did meanwhile. */
export interface Profiled {
  readonly name: string
  readonly file: string
  readonly requests: number
}

const PLACES = 24
const FUNCTIONS = 45

/** Flags that make Node write `file` when it ends. */
export function profiling(folder: string, name: string): { readonly file: string; readonly flags: readonly string[] } {
  const base = `${name.replaceAll(' ', '-')}.cpuprofile`
  return { file: join(folder, base), flags: ['--cpu-prof', '--cpu-prof-dir', folder, '--cpu-prof-name', base] }
}

/** Prints self time per request, start-up included: by place, then by function, the first process's largest on top. */
export async function summarize(profiled: readonly Profiled[]): Promise<void> {
  const costs = await Promise.all(profiled.map(selfTimes))
  for (const { name, file } of profiled) console.log(`\n${name}: ${file}`)
  print('place', 'places', PLACES, profiled, costs)
  print('function', 'functions', FUNCTIONS, profiled, costs)
}

function print(
  title: string,
  kind: 'places' | 'functions',
  most: number,
  profiled: readonly Profiled[],
  costs: readonly Costs[],
): void {
  const top = [...costs[0]![kind]].sort((a, b) => b[1] - a[1]).slice(0, most)
  const usOf = (cost: Costs, what: string): string => (cost[kind].get(what) ?? 0).toFixed(2)
  const rows = top.map(([what]) => [what, ...costs.map((cost) => usOf(cost, what))])
  const total = ['all but idle', ...costs.map((cost) => cost.totalUs.toFixed(2))]
  console.log(`\nself time per request, us, by ${title}`)
  table(['', ...profiled.map(({ name }) => name)], [...rows, total])
}

/** us per request. */
interface Costs {
  readonly places: Map<string, number>
  readonly functions: Map<string, number>
  readonly totalUs: number
}

async function selfTimes({ file, requests }: Profiled): Promise<Costs> {
  const profile = JSON.parse(await readFile(file, 'utf8')) as CpuProfile
  const frames = new Map(profile.nodes.map((node) => [node.id, node.callFrame]))
  const places = new Map<string, number>()
  const functions = new Map<string, number>()
  let totalUs = 0
  for (const [at, id] of profile.samples.entries()) {
    const { functionName, url, lineNumber } = frames.get(id)!
    if (functionName === '(idle)') continue
    const us = (profile.timeDeltas[at] ?? 0) / requests
    const short = url.replace(/^file:\/\/.*?\/(src|bench|node_modules)\//, '$1/').replace('node_modules/', '')
    totalUs += us
    add(places, placeOf(short, functionName), us)
    add(functions, short === '' ? functionName : `${functionName || '(anonymous)'} ${short}:${lineNumber + 1}`, us)
  }
  return { places, functions, totalUs }
}

function add(costs: Map<string, number>, key: string, us: number): void {
  costs.set(key, (costs.get(key) ?? 0) + us)
}

/** Our own files one by one, a package as a whole, built-in functions by their names. */
function placeOf(url: string, functionName: string): string {
  if (url === '') return functionName
  if (url.startsWith('node:')) return 'node'
  if (url.startsWith('wasm:')) return 'wasm (llhttp)'
  return url.startsWith('src/') || url.startsWith('bench/') ? url : url.split('/')[0]!
}
