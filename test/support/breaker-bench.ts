import { type BreakerOptions, type CircuitBreaker, circuitBreaker } from 'evenkeel'
import type { BalancerBenchOptions } from './balancer-bench.ts'
import { type OutlierBench, outlierBench } from './outlier-bench.ts'
import type { ScriptedSend } from './scripted.ts'

export interface BreakerBench extends OutlierBench {
  readonly breaker: CircuitBreaker
  /** Phase of a backend of the only pool. */
  phase(id: string): string
  /** What came to a backend so far, or from the n-th on. */
  sentTo(id: string, from?: number): ScriptedSend[]
  /** The options anew, with the same parts. */
  config(options?: BalancerBenchOptions): BalancerBenchOptions
}

/** Trips at three failures in a row, and opens for a second to the millisecond. */
export const QUICK: BreakerOptions = { trip: 'consecutive', consecutive: 3, openMs: 1_000, maxOpenMs: 8_000, jitter: 0 }

/** A balancer with a breaker and nothing else that takes anybody out. One call, one attempt. */
export function breakerBench(
  settings: BreakerOptions = QUICK,
  options: BalancerBenchOptions = {},
  breaker: CircuitBreaker = circuitBreaker(settings),
): BreakerBench {
  const mine = {
    health: { passive: false, cooldown: false, slowStart: false },
    retry: { attempts: 1 },
    watchers: [breaker],
  } as const
  const it = outlierBench({ ...mine, ...options })
  return {
    ...it,
    breaker,
    phase: (id) => breaker.export().default![id]!.phase,
    sentTo: (id, from = 0) => it.transport.sends.filter(({ to }) => to === id).slice(from),
    config: ({ ids = 'abc', ...next } = {}) => ({
      backends: [...ids].map((id) => ({ url: `http://${id}.test`, id })),
      strategy: 'round-robin',
      transport: it.transport,
      ...mine,
      ...next,
    }),
  }
}
