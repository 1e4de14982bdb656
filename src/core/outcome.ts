import type { SendFailure } from './contracts.ts'
import { BalancerError, type BalancerErrorCode } from './errors.ts'

/** How an attempt ended. */
export type OutcomeClass =
  | 'ok'
  | 'client-error'
  | 'forbidden'
  | 'auth'
  | 'rate-limited'
  | 'server-error'
  | 'connect'
  | 'tls'
  | 'stale'
  | 'reset'
  | 'protocol'
  | 'timeout'
  | 'truncated'
  | 'overloaded'
  | 'local'
  | 'request'
  | 'cancelled'

export interface Outcome {
  readonly class: OutcomeClass
  /** 0 if there was no head. */
  readonly status: number
  readonly phase: SendFailure['phase'] | 'done'
  /** The platform's error code; '' without one. */
  readonly code: string
  readonly error: unknown
}

/** What a class means for the policies. */
export interface ClassRule {
  /**
   * Whether it may be sent again: 'always' = nothing was processed; 'safe' = if the call is idempotent; 'status' = if safe
   * and the status is listed in `retry.status`; 'fresh' = if safe, once, to the same backend on a new connection.
   */
  readonly retry: 'never' | 'always' | 'safe' | 'status' | 'fresh'
  readonly health: 'success' | 'failure' | 'none'
  /** What peak EWMA learns: the time it took, at least FAILURE_MS, or nothing. */
  readonly latency: 'sample' | 'slow' | 'none'
  /**
   * Whether the backend gets nothing for a while, which is no failure of its health: 'hint' = as long as its Retry-After says;
   * 'rate-limit' = that, or `cooldown.rateLimitMs`; 'credential' = `cooldown.credentialMs`, if the credential is the backend's own.
   */
  readonly cool: 'none' | 'hint' | 'rate-limit' | 'credential'
  /** The BalancerError's code when it ends the call; undefined = an answer is handed over, or the reason itself thrown. */
  readonly code: BalancerErrorCode | undefined
}

export type Classes = Readonly<Record<OutcomeClass, ClassRule>>

/** The table. Rows are read, never computed: extending evenkeel's idea of failure means editing data. */
export const CLASSES: Classes = {
  ok: { retry: 'never', health: 'success', latency: 'sample', cool: 'none', code: undefined },
  'client-error': { retry: 'status', health: 'success', latency: 'sample', cool: 'none', code: undefined },
  forbidden: { retry: 'status', health: 'none', latency: 'none', cool: 'none', code: undefined },
  auth: { retry: 'status', health: 'none', latency: 'none', cool: 'credential', code: undefined },
  'rate-limited': { retry: 'status', health: 'none', latency: 'none', cool: 'rate-limit', code: undefined },
  'server-error': { retry: 'status', health: 'failure', latency: 'slow', cool: 'hint', code: undefined },
  connect: { retry: 'always', health: 'failure', latency: 'slow', cool: 'none', code: 'CONNECT' },
  tls: { retry: 'always', health: 'failure', latency: 'slow', cool: 'none', code: 'TLS' },
  stale: { retry: 'fresh', health: 'none', latency: 'none', cool: 'none', code: 'RESET' },
  reset: { retry: 'safe', health: 'failure', latency: 'slow', cool: 'none', code: 'RESET' },
  protocol: { retry: 'safe', health: 'failure', latency: 'slow', cool: 'none', code: 'PROTOCOL' },
  timeout: { retry: 'safe', health: 'failure', latency: 'slow', cool: 'none', code: 'TIMEOUT' },
  truncated: { retry: 'safe', health: 'failure', latency: 'slow', cool: 'none', code: 'TRUNCATED' },
  overloaded: { retry: 'always', health: 'none', latency: 'none', cool: 'none', code: 'OVERLOADED' },
  local: { retry: 'never', health: 'none', latency: 'none', cool: 'none', code: 'CONNECT' },
  request: { retry: 'never', health: 'none', latency: 'none', cool: 'none', code: 'PROTOCOL' },
  cancelled: { retry: 'never', health: 'none', latency: 'none', cool: 'none', code: undefined },
}

/** First match wins. */
export const STATUS_CLASSES: readonly { readonly from: number; readonly to: number; readonly class: OutcomeClass }[] = [
  { from: 101, to: 101, class: 'ok' }, // of an upgrade that was asked for
  { from: 200, to: 399, class: 'ok' },
  { from: 401, to: 402, class: 'auth' },
  { from: 403, to: 403, class: 'forbidden' },
  { from: 429, to: 429, class: 'rate-limited' },
  { from: 400, to: 499, class: 'client-error' },
  { from: 500, to: 599, class: 'server-error' },
]

/** Error code -> class, looked up before the phase is. Codes of Node, undici and llhttp. */
export const CODE_CLASSES: Readonly<Record<string, OutcomeClass>> = {
  EMFILE: 'local',
  ENFILE: 'local',
  EADDRNOTAVAIL: 'local',
  REQUEST_BODY: 'request',
  BAD_STATUS: 'protocol',
  UND_ERR_INVALID_ARG: 'request',
  UND_ERR_NOT_SUPPORTED: 'request',
  UND_ERR_REQ_CONTENT_LENGTH_MISMATCH: 'request',
  UND_ERR_HEADERS_OVERFLOW: 'protocol',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: 'truncated',
  UND_ERR_CONNECT_TIMEOUT: 'connect',
}

/** Error code -> class for leases, where only the holder knows how far it got. */
export const LEASE_CODES: Readonly<Record<string, OutcomeClass>> = {
  ABORT_ERR: 'cancelled',
  UND_ERR_ABORTED: 'cancelled',
  UND_ERR_HEADERS_TIMEOUT: 'timeout',
  UND_ERR_BODY_TIMEOUT: 'timeout',
  EAI_AGAIN: 'connect',
  ECONNREFUSED: 'connect',
  EHOSTUNREACH: 'connect',
  ENETUNREACH: 'connect',
  ENOTFOUND: 'connect',
  CONNECT: 'connect',
  ETIMEDOUT: 'timeout',
  TIMEOUT: 'timeout',
  TLS: 'tls',
}

/** Phase -> class, for what no code decides. */
export const PHASE_CLASSES: Readonly<Record<SendFailure['phase'], OutcomeClass>> = {
  wait: 'overloaded',
  connect: 'connect',
  tls: 'tls',
  head: 'reset',
  body: 'truncated',
}

/** What may be changed in the table: any cell but the error's code. */
export type ClassChanges = Readonly<Partial<Record<OutcomeClass, Partial<Omit<ClassRule, 'code'>>>>>

/** The table with the user's changes, cell by cell. */
export function classesWith(changes: ClassChanges): Classes {
  const rows = Object.entries(CLASSES).map(([kind, rule]) => [kind, { ...rule, ...changes[kind as OutcomeClass] }])
  return Object.freeze(Object.fromEntries(rows)) as Classes
}

/** Class of a status; what is outside 100..599 is no HTTP. */
export function classOfStatus(status: number): OutcomeClass {
  if (status >= 200 && status < 400) return 'ok' // the row nearly every answer ends in
  return STATUS_CLASSES.find((row) => status >= row.from && status <= row.to)?.class ?? 'protocol'
}

/** A code like 'constructor' must not find what every object has. */
function rowOf(table: Readonly<Record<string, OutcomeClass>>, code: string): OutcomeClass | undefined {
  return Object.hasOwn(table, code) ? table[code] : undefined
}

/** Class of a failed send. A cancel's reason decides over the phase: our own timeout is one, anything else is the caller's. */
export function classOfFailure(failure: SendFailure, canceled: boolean): OutcomeClass {
  if (canceled) {
    if (!(failure.cause instanceof BalancerError) || failure.cause.code !== 'TIMEOUT') return 'cancelled'
    if (failure.phase === 'head' || failure.phase === 'body') return 'timeout'
    return PHASE_CLASSES[failure.phase]
  }
  const byCode = rowOf(CODE_CLASSES, failure.code)
  if (byCode !== undefined) return byCode
  if (failure.phase === 'head' && failure.code.startsWith('HPE_')) return 'protocol' // llhttp's; in a body it is a cut
  if (failure.phase === 'head' && failure.reused) return 'stale'
  return PHASE_CLASSES[failure.phase]
}

/** Class of an error a lease's holder met: by its `code`, by its `status`, or 'reset' if it tells neither. */
export function classOfError(error: unknown): OutcomeClass {
  if (typeof error !== 'object' || error === null) return 'reset'
  const { code, name } = error as Readonly<Record<string, unknown>>
  const byCode = typeof code === 'string' ? (rowOf(CODE_CLASSES, code) ?? rowOf(LEASE_CODES, code)) : undefined
  if (byCode !== undefined) return byCode
  if (name === 'AbortError') return 'cancelled'
  if (name === 'TimeoutError') return 'timeout'
  const answered = statusOf(error)
  return answered > 0 ? classOfStatus(answered) : 'reset'
}

/** The status that an error carries; 0 without one. */
export function statusOf(error: unknown): number {
  if (typeof error !== 'object' || error === null) return 0
  const { status, statusCode } = error as Readonly<Record<string, unknown>>
  const said = typeof status === 'number' ? status : statusCode
  return typeof said === 'number' ? said : 0
}

/**
 * The error that ends a call, made from what the last attempt met. A caller's own reason is handed back as it is. `redacted` takes out
 * of the words of others what the backend was sent: a cause that says it is replaced by one that does not.
 */
export function errorOf(
  outcome: Outcome,
  rule: ClassRule,
  backend: string,
  redacted: (text: string) => string = (text) => text,
): unknown {
  // A class that has no error of its own may be one that the user chose for a failure.
  const code = rule.code ?? (outcome.class === 'cancelled' ? undefined : 'RESET')
  if (code === undefined) return outcome.error
  if (outcome.error instanceof BalancerError) return outcome.error
  const detail = outcome.error instanceof Error ? outcome.error.message : String(outcome.error)
  const where = outcome.phase === 'done' ? '' : ` (${outcome.phase})`
  const words = redacted(detail)
  const cause = words === detail ? outcome.error : without(outcome.error, words, redacted)
  const message = `backend ${backend}: ${outcome.class}${where}: ${words || outcome.code}`
  return new BalancerError(code, message, { cause, backend })
}

/** As what failed, in other words. What it has beside them is left out: nobody knows what more of it repeats a secret. */
function without(failed: unknown, message: string, redacted: (text: string) => string): unknown {
  if (!(failed instanceof Error)) return message
  const { name, code, stack = '' } = failed as Error & { readonly code?: unknown }
  const error = Object.assign(new Error(message), typeof code === 'string' ? { code } : {})
  for (const [key, value] of Object.entries({ name, stack: redacted(stack) })) {
    Object.defineProperty(error, key, { value, writable: true, configurable: true })
  }
  return error
}
