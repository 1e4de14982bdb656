import type { LiveAttempt } from './attempt.ts'
import type { BackendRecord } from './backend.ts'
import { Deadline } from './deadlines.ts'
import { FAILURE_MS, FORGIVE_MS } from './latency.ts'
import type { PoolHost } from './pool-parts.ts'

/** What a pool learns about how long its backends take. */
export class Latencies {
  readonly #host: Pick<PoolHost, 'clock' | 'deadlines'>
  readonly #records: () => readonly BackendRecord[]

  constructor(host: Pick<PoolHost, 'clock' | 'deadlines'>, records: () => readonly BackendRecord[]) {
    this.#host = host
    this.#records = records
  }

  /** A head came, or the attempt ended without one, at `atMs`: as the table says for its class. */
  learn(attempt: LiveAttempt, atMs: number): void {
    const record = attempt.backend
    const rule = attempt.rule!
    if (rule.latency === 'none') return
    const ms = atMs - attempt.startMs
    if (rule.latency === 'sample') {
      record.quantiles.observe(ms, atMs)
      return record.latency.observe(ms, atMs)
    }
    record.latency.observe(Math.max(ms, FAILURE_MS), atMs)
    record.forgive ??= new Deadline(this.#host.deadlines, () => this.level(record))
    if (!record.removed) record.forgive.set(FORGIVE_MS, atMs)
  }

  /** A newcomer, or one whose slowness lies behind it, starts in the middle of its healthy peers; unknown if they are. */
  level(record: BackendRecord): void {
    const nowMs = this.#host.clock.now()
    const known = this.#records()
      .filter((peer) => peer !== record && peer.latency.known && peer.reasons.size === 0)
      .map((peer) => peer.latency.read(nowMs))
      .sort((a, b) => a - b)
    record.latency.reset(known[known.length >> 1] ?? NaN, nowMs)
  }
}
