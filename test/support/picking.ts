import type { Backend, Prefer, Strategy } from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import type { BackendRecord } from '../../src/core/backend.ts'
import type { Random } from '../../src/core/contracts.ts'
import { backendsOf, callOf, coreOf, membersOf } from '../../src/testing/kit.ts'

/** Bounds of Pearson's statistic for p = 1e-4, by degrees of freedom. */
export const CHI_5 = 25.7
export const CHI_9 = 33.7

const call = callOf(0)

/** Backends named a, b, c, ... with the given weights. */
export function backends(weights: readonly number[]): BackendRecord[] {
  return backendsOf(weights.map((weight, i) => ({ url: `http://host-${i}.test`, id: nameOf(i), weight })))
}

function nameOf(i: number): string {
  return i < 26 ? String.fromCharCode(97 + i) : `host-${i}`
}

export function reweigh(backend: BackendRecord, weight: number): void {
  backend.endpoint = { ...backend.endpoint, weight }
  backend.reweigh()
}

/** Chance that always comes out highest: first turns then come exactly one period after the start. */
export const highest: Random = (below) => below - 1

/** A strategy at work: give it who is eligible, get a picker. */
export function started(
  strategy: Strategy,
  chance: Random = seededRandom(42),
): (list: readonly Backend[]) => () => Backend {
  const chooser = strategy.start(coreOf(manualClock(), chance, () => membersOf([])))
  return (list) => {
    const picker = chooser.build(membersOf(list))
    return () => picker(call)!
  }
}

export function picks(pick: () => Backend, n: number): string {
  return Array.from({ length: n }, () => pick().id).join('')
}

export function counts(pick: () => Backend, list: readonly Backend[], n: number): number[] {
  const times = new Map<Backend, number>()
  for (let i = 0; i < n; i++) {
    const backend = pick()
    times.set(backend, (times.get(backend) ?? 0) + 1)
  }
  return list.map((backend) => times.get(backend) ?? 0)
}

/** Pearson's statistic against shares in proportion to `weights`. */
export function chiSquare(observed: readonly number[], weights: readonly number[]): number {
  const total = observed.reduce((sum, n) => sum + n, 0)
  const whole = weights.reduce((sum, weight) => sum + weight, 0)
  return observed.reduce((sum, n, i) => {
    const expected = (total * weights[i]!) / whole
    return sum + (n - expected) ** 2 / expected
  }, 0)
}

/**
 * Queues in front of servers with exponential times, each as fast as its weight (the supermarket model), at the load `load`.
 * Returns the mean time a job spends, in units of a server of weight 1, and everybody's share of the jobs. It steps at the events
 * of a uniform clock, so that a mean over events is a mean over time.
 */
export function supermarket(
  strategy: Strategy,
  weights: readonly number[],
  { load, events, seed = 1 }: { readonly load: number; readonly events: number; readonly seed?: number },
): { readonly meanTime: number; readonly shares: readonly number[] } {
  const list = backends(weights)
  const pick = started(strategy, seededRandom(seed))(list)
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const random = seededRandom(seed + 1_000)
  const scale = 2 ** 30
  const equal = weights.every((weight) => weight === weights[0])
  const arrived = new Map<Backend, number>()
  let jobs = 0
  let area = 0
  let arrivals = 0
  for (let event = 0; event < events; event++) {
    area += jobs
    if ((random(scale) / scale) * (1 + load) < load) {
      const backend = pick() as BackendRecord
      backend.inflight++
      jobs++
      arrivals++
      arrived.set(backend, (arrived.get(backend) ?? 0) + 1)
      continue
    }
    let i = 0
    if (equal) i = random(list.length)
    else for (let rest = (random(scale) / scale) * total; rest >= weights[i]!; i++) rest -= weights[i]!
    if (list[i]!.inflight === 0) continue
    list[i]!.inflight--
    jobs--
  }
  return { meanTime: area / events / (load * total), shares: list.map((it) => (arrived.get(it) ?? 0) / arrivals) }
}

/** Prefers whoever comes first, and tells of every pair. */
export function spying(see: (a: Backend, b: Backend) => void): Prefer {
  return (a, b) => {
    see(a, b)
    return a
  }
}
