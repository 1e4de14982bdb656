import type { LiveAttempt } from './attempt.ts'
import type { AttemptTimes, Backend, BalancerRequest, BalancerResponse, Call, Criticality, Stop } from './contracts.ts'
import { header } from './headers.ts'

/** What a caller may say about one call. */
export interface CallOptions {
  /** Name of the pool; default: the only pool, or the first. */
  readonly pool?: string | undefined
  /** What hash strategies hash. */
  readonly key?: string | undefined
  /** Only backends that have all of these tags. */
  readonly tags?: readonly string[] | undefined
  /** Id of the backend to use if it is eligible. */
  readonly prefer?: string | undefined
  /** Whole call, ms, instead of `timeouts.totalMs`; 0 = no limit. */
  readonly timeoutMs?: number | undefined
  /** Times of each attempt, before the backend's and the pool's. */
  readonly timeouts?: AttemptTimes | undefined
  /** What it is worth when not all can be served; default 'default'. */
  readonly criticality?: Criticality | undefined
  /** May be sent twice; default: by its method (GET, HEAD, OPTIONS, PUT, DELETE, TRACE), or if it has an Idempotency-Key. */
  readonly idempotent?: boolean | undefined
}

/** A call under way. */
export interface Sending {
  readonly call: Call
  readonly response: Promise<BalancerResponse>
}

/** Chooses the pool of a request that names none. */
export type Route = (request: BalancerRequest) => string | Promise<string>

/** What a face or an adapter is built on: the balancer. */
export interface FaceHost {
  /** Starts a call; see `Balancer.send`. */
  send(request: BalancerRequest, options?: CallOptions): Sending
  /** Most of a request body that is kept for a repeat, bytes. */
  bufferBytes(pool: string | undefined): number
  /** Throws if absolute URLs of this origin are not to be fetched. */
  checkOrigin(origin: string): void
}

/** Where answers carry the call they belong to, for `explain`. */
export const CALL: unique symbol = Symbol('evenkeel.call')

/** Methods that may be sent twice (RFC 9110 9.2.2). */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'TRACE'])
const NO_TAGS: readonly string[] = []
const NONE: readonly LiveAttempt[] = []

/** A call in progress. */
export class LiveCall implements Call {
  /** '' until it is routed. */
  pool = ''
  readonly method: string
  readonly key: string | undefined
  readonly tags: readonly string[]
  readonly prefer: string | undefined
  readonly criticality: Criticality
  readonly timeouts: AttemptTimes | undefined
  readonly idempotent: boolean
  readonly startMs: number
  attempts: readonly LiveAttempt[] = NONE
  deadlineMs: number = Infinity
  nowMs: number
  picks = 0
  again: Backend | undefined = undefined
  elsewhere = false
  canceled = false
  reason: unknown = undefined
  /** Attempts not yet ended. */
  live = 0
  /** The balancer it belongs to: `explain` of another one knows nothing of it. */
  owner: object | undefined = undefined
  /** Its neighbours among the calls under way. */
  previous: LiveCall | undefined = undefined
  next: LiveCall | undefined = undefined
  /** The answer was handed over, or the call failed. */
  answered = false
  #isOver = false
  #enders: (() => void)[] | undefined = undefined
  #cancelers: ((reason: unknown) => void)[] | undefined = undefined

  constructor({ method, headers }: Pick<BalancerRequest, 'method' | 'headers'>, options: CallOptions, nowMs: number) {
    this.method = method
    this.key = options.key
    this.tags = options.tags ?? NO_TAGS
    this.prefer = options.prefer
    this.criticality = options.criticality ?? 'default'
    this.timeouts = options.timeouts
    this.idempotent = options.idempotent ?? (IDEMPOTENT.has(method) || header(headers, 'idempotency-key') !== undefined)
    this.startMs = nowMs
    this.nowMs = nowMs
  }

  /** The pool it goes to, and how long it may take there, ms; 0 = no limit. */
  route(pool: string, timeoutMs: number): this {
    this.pool = pool
    if (timeoutMs > 0) this.deadlineMs = this.startMs + timeoutMs
    return this
  }

  /** One more attempt. Nearly every call has just one: a list of that length is cheaper than one that grows. */
  add(attempt: LiveAttempt): void {
    this.attempts = this.attempts.length === 0 ? [attempt] : [...this.attempts, attempt]
    this.live++
  }

  tried(backend: Backend): boolean {
    for (const attempt of this.attempts) if (attempt.backend === backend) return true
    return false
  }

  onCancel(run: (reason: unknown) => void): Stop {
    this.#cancelers ??= []
    this.#cancelers.push(run)
    return () => {
      this.#cancelers = this.#cancelers?.filter((other) => other !== run)
    }
  }

  onEnd(run: () => void): void {
    if (this.#isOver) return run()
    this.#enders ??= []
    this.#enders.push(run)
  }

  /** Tells who waits for the end. Called once, by the balancer. */
  over(): void {
    this.#isOver = true
    if (this.#enders !== undefined) for (const run of this.#enders) run()
  }

  cancel(reason: unknown): void {
    if (this.canceled || (this.answered && this.live === 0)) return
    this.canceled = true
    this.reason = reason
    for (const attempt of this.attempts) attempt.cancel(reason)
    const cancelers = this.#cancelers
    this.#cancelers = undefined
    if (cancelers !== undefined) for (const run of cancelers) run(reason)
  }
}
