import type { Backend, Prefer } from '../core/contracts.ts'

/** Above any decayed latency score: a backend nobody has an answer from yet, and already asked. */
const UNKNOWN = 1e9

/** log2(n + 1) of the numbers of requests in flight that occur. */
const LOG2 = Float64Array.from({ length: 1_024 }, (_, n) => Math.log2(n + 1))

function log2Of(inflight: number): number {
  return inflight < 1_024 ? LOG2[inflight]! : Math.log2(inflight + 1)
}

/** Fewer requests in flight per weight is better; the first of two equals, so that an idle pool keeps to the weights. */
export const byInflight: Prefer = (a, b) => (b.inflight * a.weight < a.inflight * b.weight ? b : a)

/**
 * Lower decayed latency times (in flight + 1) per weight is better, compared as logarithms: the common decay factor cancels,
 * so no clock and no exp is needed. Who has never answered gets exactly one request to show what it is.
 */
export const byPeakEwma: Prefer = (a: Backend, b: Backend) => {
  const x = a.latency
  const y = b.latency
  const costA = x.known ? x.cost + log2Of(a.inflight) : a.inflight === 0 ? -UNKNOWN : UNKNOWN + a.inflight
  const costB = y.known ? y.cost + log2Of(b.inflight) : b.inflight === 0 ? -UNKNOWN : UNKNOWN + b.inflight
  return costB < costA ? b : a
}
