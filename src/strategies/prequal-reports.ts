import type { Backend, Call, Random } from '../core/contracts.ts'
import { isOpen } from './groups.ts'

/** What a backend has said of itself, moved on by what was sent there since. */
export interface Report {
  readonly backend: Backend
  /** Requests in flight there. */
  rif: number
  latencyMs: number
  readonly takenMs: number
  /** How often it may still decide. */
  uses: number
}

/**
 * How often one report may be used, on average (b_reuse): as many come in as are used up, thrown away, or replaced by another of
 * the same backend, and some more. Infinity where they come too slowly for that: then only their age ends them.
 */
export function reuseOf(size: number, backends: number, probes: number, removals: number): number {
  const gain = (1 - size / backends) * probes - removals
  return gain > 0 ? Math.max(1, (1 + SURPLUS) / gain) : Infinity
}

/** Delta of the paper. */
const SURPLUS = 1
/** Latencies that differ by less are alike: of equal backends one would get nearly everything while little is in flight. */
const ALIKE = 0.15

/** The reports at hand, the oldest first; one of each backend at most: the latest. */
export class Reports {
  readonly #random: Random
  #all: Report[] = []
  #rifs: Float64Array = new Float64Array(0)

  constructor(random: Random) {
    this.#random = random
  }

  get all(): readonly Report[] {
    return this.#all
  }

  /** A report came in. Beyond `most` the oldest has to go. */
  take(report: Report, most: number): void {
    this.drop(report.backend)
    this.#all.push(report)
    if (this.#all.length > most) this.#all.shift()
  }

  drop(backend: Backend | undefined): void {
    const at = this.#all.findIndex((report) => report.backend === backend)
    if (at >= 0) this.#all.splice(at, 1)
  }

  /** What was taken before that time goes. */
  expire(beforeMs: number): void {
    while (this.#all.length > 0 && this.#all[0]!.takenMs < beforeMs) this.#all.shift()
  }

  keep(backends: ReadonlySet<Backend>): void {
    this.#all = this.#all.filter(({ backend }) => backends.has(backend))
  }

  /**
   * Hot or cold (HCL): of the backends that have no more in flight than the given quantile of all the one with the least latency;
   * if only hot ones are open to the call, all of them are looked at. Of those alike the one with least in flight, and then one by lot.
   */
  choose(quantile: number, call: Call): Report | undefined {
    const most = this.#coldUpTo(quantile)
    let leastMs = Infinity
    for (const { backend, rif, latencyMs } of this.#all) {
      if (rif <= most && latencyMs < leastMs && isOpen(backend, call)) leastMs = latencyMs
    }
    const coldUpTo = leastMs < Infinity ? most : Infinity
    const alikeUpTo = leastMs * (1 + ALIKE)
    let best: Report | undefined
    let equals = 0
    for (const report of this.#all) {
      const { backend, rif, latencyMs } = report
      if (rif > coldUpTo || latencyMs > alikeUpTo || !isOpen(backend, call)) continue
      if (best === undefined || rif < best.rif) equals = 0
      else if (rif > best.rif) continue
      if (this.#random(++equals) === 0) best = report
    }
    return best
  }

  /** A request goes there: until the next report it has one more in flight, and takes so much longer. */
  use(report: Report): void {
    report.latencyMs *= (report.rif + 2) / (report.rif + 1)
    report.rif++
    report.uses--
    if (report.uses <= 0) this.drop(report.backend)
  }

  dropOldest(): void {
    this.#all.shift()
  }

  /** The hottest, or the slowest where nobody is hot. */
  dropWorst(quantile: number): void {
    const most = this.#coldUpTo(quantile)
    let worst = this.#all[0]
    for (const report of this.#all) if (isBetter(worst!, report, most)) worst = report
    this.drop(worst?.backend)
  }

  /** Requests in flight up to which a backend is cold. */
  #coldUpTo(quantile: number): number {
    const n = this.#all.length
    if (quantile <= 0 || quantile >= 1) return quantile <= 0 ? -Infinity : Infinity
    if (this.#rifs.length < n) this.#rifs = new Float64Array(2 * n)
    for (let i = 0; i < n; i++) this.#rifs[i] = this.#all[i]!.rif
    // Of few reports the quantile would be the highest, and nobody ever hot: by latency alone clients herd.
    return this.#rifs.subarray(0, n).sort()[Math.max(0, Math.min(Math.floor(quantile * n), n - 2))] ?? Infinity
  }
}

/** Cold before hot; the cold by latency, and then as the hot by their number in flight. */
function isBetter(a: Report, b: Report, coldUpTo: number): boolean {
  const isCold = a.rif <= coldUpTo
  if (isCold !== b.rif <= coldUpTo) return isCold
  return isCold && a.latencyMs !== b.latencyMs ? a.latencyMs < b.latencyMs : a.rif < b.rif
}
