import type { Backend, Prefer } from '../core/contracts.ts'

/** Above any decayed latency score: a backend nobody has an answer from yet, and already asked. */
const UNKNOWN = 1e9

/** Fewer requests in flight per weight is better; the first of two equals, so that an idle pool keeps to the weights. */
export const byInflight: Prefer = (a, b) => (b.inflight * a.weight < a.inflight * b.weight ? b : a)

/**
 * Lower decayed latency times (in flight + 1) per weight is better, compared as logarithms: the common decay factor cancels,
 * so no clock and no exp is needed. Who has never answered gets exactly one request to show what it is.
 */
export const byPeakEwma: Prefer = (a: Backend, b: Backend) => {
  const x = a.latency
  const y = b.latency
  const costA = x.known
    ? x.score + Math.log2(a.inflight + 1) - a.logWeight
    : a.inflight === 0
      ? -UNKNOWN
      : UNKNOWN + a.inflight
  const costB = y.known
    ? y.score + Math.log2(b.inflight + 1) - b.logWeight
    : b.inflight === 0
      ? -UNKNOWN
      : UNKNOWN + b.inflight
  return costB < costA ? b : a
}
