import type { BackendTotals } from './backend.ts'
import type { Backend } from './contracts.ts'
import type { Pool } from './pool.ts'
import type { PoolTotals } from './pool-parts.ts'

export interface BackendStats {
  readonly id: string
  readonly url: string
  readonly weight: number
  readonly state: 'up' | 'blocked' | 'drained'
  /** Why it gets no traffic; empty when it does. */
  readonly reasons: readonly string[]
  readonly inflight: number
  /** Most in flight at once as it stands: the least of `maxInflight` and what parts such as `limits.adaptive` say; undefined = none. */
  readonly limit: number | undefined
  readonly requests: number
  readonly failures: number
  readonly classes: BackendTotals['classes']
  /** Time to the head of good answers in the last minute, ms, within 1 %; NaN without any. */
  readonly p50Ms: number
  readonly p90Ms: number
  readonly p99Ms: number
  /** Decayed peak EWMA, ms; NaN before the first answer. */
  readonly ewmaMs: number
  /**
   * What the strategy thinks of it, in its own measure (`Chooser.score`); undefined if it has no opinion. smart: what the weight is
   * multiplied by, 0.002..1.05. thompson: the share of successes it believes in, 0..1.
   */
  readonly score: number | undefined
}

export interface PoolStats extends PoolTotals {
  readonly strategy: string
  readonly transport: string
  readonly inflight: number
  /** Soft reasons are ignored for now: too few backends are healthy. */
  readonly panic: boolean
  /** Repeats the retry budget would allow now. */
  readonly budgetLeft: number
  readonly backends: readonly BackendStats[]
}

export interface BalancerStats {
  readonly name: string
  readonly pools: Readonly<Record<string, PoolStats>>
}

/** A pool's numbers of this moment, plain data. */
export function statsOf(pool: Pool): PoolStats {
  const nowMs = pool.now()
  return {
    ...pool.totals,
    strategy: pool.strategy,
    transport: pool.transport.name,
    inflight: pool.inflight,
    panic: pool.panic,
    budgetLeft: pool.budget.left(),
    backends: pool.records.map((record) => ({
      id: record.id,
      url: record.endpoint.url,
      weight: record.weight,
      state: record.reasons.size > 0 ? 'blocked' : record.weight > 0 ? 'up' : 'drained',
      reasons: record.describe(nowMs),
      inflight: record.inflight,
      limit: record.limit === Infinity ? undefined : record.limit, // JSON has no Infinity
      requests: record.totals.requests,
      failures: record.totals.failures,
      classes: { ...record.totals.classes },
      p50Ms: record.quantiles.read(0.5, nowMs),
      p90Ms: record.quantiles.read(0.9, nowMs),
      p99Ms: record.quantiles.read(0.99, nowMs),
      ewmaMs: record.latency.read(nowMs),
      score: scoreOf(record, pool),
    })),
  }
}

function scoreOf(backend: Backend, pool: Pool): number | undefined {
  try {
    return pool.chooser.score?.(backend)
  } catch (error) {
    pool.report('the strategy', error)
    return undefined
  }
}
