import type { BackendRecord, BackendTotals } from './backend.ts'
import type { Backend, BreakerPhase, CheckStats, ConnectionStats } from './contracts.ts'
import type { DurationStats } from './durations.ts'
import type { Pool } from './pool.ts'
import type { PoolTotals } from './pool-parts.ts'

export interface BackendStats {
  readonly id: string
  readonly url: string
  readonly weight: number
  readonly state: 'up' | 'blocked' | 'drained'
  /** Why it gets no traffic; empty when it does. */
  readonly reasons: readonly string[]
  /** The same by writer, for programs. */
  readonly blockedBy: readonly BlockStats[]
  readonly inflight: number
  /** Most in flight at once as it stands: the least of `maxInflight` and what parts such as `limits.adaptive` say; undefined = none. */
  readonly limit: number | undefined
  readonly requests: number
  readonly failures: number
  readonly classes: BackendTotals['classes']
  readonly blocks: BackendTotals['blocks']
  /** How long its attempts took, from the pick to their end. */
  readonly durations: DurationStats
  /** From the pick to the first byte of the body; of an answer without any to the head. Failures before that are not in it. */
  readonly firstBytes: DurationStats
  /** Undefined without active checks. */
  readonly checks: CheckStats | undefined
  /** Undefined without a breaker. */
  readonly breaker: BreakerPhase | undefined
  /** Undefined where the transport does not know. */
  readonly connections: ConnectionStats | undefined
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

/** A reason against a backend. */
export interface BlockStats {
  /** Who says so: 'outlier', 'probe', 'operator', ... */
  readonly by: string
  readonly hard: boolean
  /** Until the writer takes it back, ms, where that is known. */
  readonly leftMs: number | undefined
}

export interface PoolStats extends Readonly<PoolTotals> {
  readonly strategy: string
  readonly transport: string
  readonly inflight: number
  /** Soft reasons are ignored for now: too few backends are healthy. */
  readonly panic: boolean
  /** Repeats the retry budget would allow now. */
  readonly budgetLeft: number
  /** Calls that wait for their turn now. */
  readonly waiting: number
  /** How long whole calls took: waiting, pauses and repeats included, to the end of their last attempt. */
  readonly callDurations: DurationStats
  /** As those of the backends; those that have left are still in it. */
  readonly durations: DurationStats
  readonly firstBytes: DurationStats
  readonly backends: readonly BackendStats[]
}

export interface BalancerStats {
  readonly name: string
  readonly pools: Readonly<Record<string, PoolStats>>
}

/** How often the configuration changed. */
export interface UpdateStats {
  /** Configurations put into force, the first one included. */
  readonly applied: number
  /** Those that were wrong, and changed nothing. */
  readonly refused: number
}

/** Quantiles that are told. */
const SHOWN = [0.5, 0.9, 0.99] as const

/** A pool's numbers of this moment, plain data. */
export function statsOf(pool: Pool): PoolStats {
  const { totals, times, watchers } = pool
  const nowMs = pool.now()
  return {
    ...totals,
    classes: { ...totals.classes },
    retriesAfter: { ...totals.retriesAfter },
    blocks: { ...totals.blocks },
    strategy: pool.strategy,
    transport: pool.transport.name,
    inflight: pool.inflight,
    panic: pool.panic,
    budgetLeft: pool.budget.left(),
    waiting: watchers.known(({ waiting }) => waiting?.()) ?? 0,
    callDurations: pool.callDurations.read(),
    durations: times.whole.read(),
    firstBytes: times.firstByte.read(),
    backends: pool.records.map((record) => backendStatsOf(record, pool, nowMs)),
  }
}

function backendStatsOf(record: BackendRecord, pool: Pool, nowMs: number): BackendStats {
  const { watchers, transport } = pool
  const { totals, times } = record
  const [p50Ms, p90Ms, p99Ms] = record.quantiles.readAll(SHOWN, nowMs)
  return {
    id: record.id,
    url: record.endpoint.url,
    weight: record.weight,
    state: record.reasons.size > 0 ? 'blocked' : record.weight > 0 ? 'up' : 'drained',
    reasons: record.describe(nowMs),
    blockedBy: [...record.reasons.values()].map(({ by, hard, untilMs }) => {
      return { by, hard, leftMs: untilMs === undefined ? undefined : Math.max(0, untilMs - nowMs) }
    }),
    inflight: record.inflight,
    limit: record.limit === Infinity ? undefined : record.limit, // JSON has no Infinity
    requests: totals.requests,
    failures: totals.failures,
    classes: { ...totals.classes },
    blocks: { ...totals.blocks },
    durations: times.whole.read(),
    firstBytes: times.firstByte.read(),
    checks: watchers.known(({ checks }) => checks?.(record)),
    breaker: watchers.known(({ breaker }) => breaker?.(record)),
    connections: transport.connections?.(record),
    p50Ms: p50Ms!,
    p90Ms: p90Ms!,
    p99Ms: p99Ms!,
    ewmaMs: record.latency.read(nowMs),
    score: scoreOf(record, pool),
  }
}

function scoreOf(backend: Backend, pool: Pool): number | undefined {
  try {
    const score: unknown = pool.chooser.score?.(backend)
    return typeof score === 'number' ? score : undefined
  } catch (error) {
    pool.report('the strategy', error)
    return undefined
  }
}
