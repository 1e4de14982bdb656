/** What went wrong, for `switch`. */
export type BalancerErrorCode =
  | 'CONFIG' // the options are wrong; `issues` lists every one
  | 'NO_BACKEND' // nobody may be picked; `reasons` says why, `retryAfterMs` when that may change
  | 'TIMEOUT' // one of the configured times ran out
  | 'CONNECT' // no connection could be made
  | 'TLS' // the TLS handshake failed
  | 'RESET' // the connection broke before the head of the answer was complete
  | 'PROTOCOL' // the backend's answer, or the request, is not HTTP
  | 'TRUNCATED' // the answer broke off in its body
  | 'OVERLOADED' // a limit on requests in flight is reached
  | 'BODY_TOO_LARGE' // the request's body is over the limit
  | 'CLOSED' // the balancer is closed

/** One thing wrong with the configuration. Never holds a secret. */
export interface ConfigIssue {
  /** As in `backends[2].weight`. */
  readonly path: string
  readonly expected: string
  /** What was found, as text; for secrets its type and length only. */
  readonly found: string
  /** Where it stands in a TOML file, from 1. */
  readonly line?: number
  readonly column?: number
}

export interface BalancerErrorDetails {
  readonly cause?: unknown
  /** Id of the backend it happened on. */
  readonly backend?: string
  /** Earliest time a repeat makes sense, in ms from now. */
  readonly retryAfterMs?: number
  /** Backend id -> why it gets no traffic. */
  readonly reasons?: Readonly<Record<string, readonly string[]>>
  readonly issues?: readonly ConfigIssue[]
  readonly warnings?: readonly ConfigIssue[]
}

/** The only error class of evenkeel: switch on `code`. */
export class BalancerError extends Error {
  override readonly name: string = 'BalancerError'
  readonly code: BalancerErrorCode
  readonly backend: string | undefined
  readonly retryAfterMs: number | undefined
  readonly reasons: Readonly<Record<string, readonly string[]>> | undefined
  readonly issues: readonly ConfigIssue[] | undefined
  /** What would load in a configuration, but hurt. */
  readonly warnings: readonly ConfigIssue[] | undefined

  constructor(code: BalancerErrorCode, message: string, details: BalancerErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.backend = details.backend
    this.retryAfterMs = details.retryAfterMs
    this.reasons = details.reasons
    this.issues = details.issues
    this.warnings = details.warnings
  }
}
