import type { Backend, Prefer } from '../core/contracts.ts'
import { COST_STEPS, UNKNOWN_COST } from '../core/latency.ts'

/** log2(n + 1) in steps of a cost, for the numbers of requests in flight that occur. */
const LOADS = Int32Array.from({ length: 1_024 }, (_, n) => Math.round(Math.log2(n + 1) * COST_STEPS))

function loadOf(inflight: number): number {
  return inflight < 1_024 ? LOADS[inflight]! : Math.round(Math.log2(inflight + 1) * COST_STEPS)
}

/** Fewer requests in flight per weight is better; the first of two equals, so that an idle pool keeps to the weights. */
export const byInflight: Prefer = (a, b) => (b.inflight * a.weight < a.inflight * b.weight ? b : a)

/**
 * Fewer requests in flight per weight is better, its own included ('shortest expected delay' of IPVS): for weights that are speeds.
 * Quicker than `byInflight` in a pool with little to do, since the light ones then get next to nothing; no better in a full one.
 */
export const byExpectedDelay: Prefer = (a, b) => ((b.inflight + 1) * a.weight < (a.inflight + 1) * b.weight ? b : a)

/**
 * Lower decayed latency times (in flight + 1) per weight is better, compared as logarithms: the common decay factor cancels,
 * so no clock and no exp is needed. Who has never answered gets exactly one request to show what it is.
 */
export const byPeakEwma: Prefer = (a, b) => (costOf(b) < costOf(a) ? b : a)

/** Of those nobody has an answer from yet, the idle ones come before all others, and those already asked after all others. */
function costOf({ cost, inflight }: Backend): number {
  if (cost !== UNKNOWN_COST) return cost + loadOf(inflight)
  return inflight === 0 ? UNKNOWN_COST : inflight - UNKNOWN_COST
}
