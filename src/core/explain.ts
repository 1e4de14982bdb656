import { CALL, type LiveCall } from './call.ts'
import type { OutcomeClass } from './outcome.ts'

/** What happened to one call, as plain data. Times are ms, rounded to microseconds. */
export interface Explanation {
  readonly pool: string
  /** As `Call.requestId`. */
  readonly requestId: string | undefined
  readonly method: string
  readonly idempotent: boolean
  /** From the call's start until now, or until its last attempt ended. */
  readonly totalMs: number
  readonly attempts: readonly ExplainedAttempt[]
}

export interface ExplainedAttempt {
  readonly backend: string
  /** Undefined while it is under way and has no head. */
  readonly class: OutcomeClass | undefined
  /** 0 without a head. */
  readonly status: number
  /** Where it ended: 'done', or the phase it failed in. */
  readonly phase: string
  /** The platform's error code; '' without one. */
  readonly code: string
  /** Since the call's start. */
  readonly startMs: number
  /** From its start until it was on a connection, had its head, was over; undefined if it never was. */
  readonly sentMs: number | undefined
  readonly headMs: number | undefined
  readonly endMs: number | undefined
  /** Why the next step was taken. */
  readonly decision: string
}

/** The call an answer, an error or a proxied response belongs to. */
export function callOf(subject: unknown, errors: WeakMap<object, LiveCall>): LiveCall | undefined {
  if (typeof subject !== 'object' || subject === null) return undefined
  const carried = (subject as { readonly [CALL]?: LiveCall })[CALL]
  return carried ?? errors.get(subject)
}

export function explain(call: LiveCall, nowMs: number): Explanation {
  const { pool, requestId, method, idempotent, startMs } = call
  const since = (fromMs: number, toMs: number): number => Math.round((toMs - fromMs) * 1000) / 1000
  const known = (fromMs: number, toMs: number): number | undefined => (toMs >= 0 ? since(fromMs, toMs) : undefined)
  const ends = call.attempts.map((attempt) => attempt.endMs)
  const attempts = call.attempts.map((attempt) => ({
    backend: attempt.backend.id,
    class: attempt.class,
    status: attempt.status,
    phase: attempt.outcome?.phase ?? 'under way',
    code: attempt.outcome?.code ?? '',
    startMs: since(startMs, attempt.startMs),
    sentMs: known(attempt.startMs, attempt.sentMs),
    headMs: known(attempt.startMs, attempt.headMs),
    endMs: known(attempt.startMs, attempt.endMs),
    decision: attempt.decision ?? (attempt.status > 0 ? 'its answer was handed over' : 'its failure was handed over'),
  }))
  const endMs = ends.length > 0 && ends.every((ms) => ms >= 0) ? Math.max(...ends) : nowMs
  return { pool, requestId, method, idempotent, totalMs: since(startMs, endMs), attempts }
}
