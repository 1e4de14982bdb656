import type { LiveAttempt } from './attempt.ts'
import type {
  Attempt,
  AttemptTimes,
  Backend,
  BalancerRequest,
  BalancerResponse,
  Call,
  Criticality,
  RequestHeaders,
  Stop,
  Strategy,
  Wanted,
} from './contracts.ts'
import { BalancerError } from './errors.ts'
import { header } from './headers.ts'

/** What a caller may say about one call. */
export interface CallOptions {
  /** Name of the pool; default: the only pool, or the first. */
  readonly pool?: string | undefined
  /** What hash strategies hash; without one, or with '': what the pool's strategy reads from the request. */
  readonly key?: string | null | undefined
  /** Only backends that have all of these tags. */
  readonly tags?: readonly string[] | undefined
  /** The backend to use if it is eligible: its id, or the first eligible one for which a function gives true. */
  readonly prefer?: Wanted | undefined
  /** The only backend to use: NO_BACKEND if it may not be picked, OVERLOADED if it is full. Retries stay with it. */
  readonly only?: Wanted | undefined
  /** Address of the client, for strategies by 'ip'; the proxy says its socket's. */
  readonly address?: string | undefined
  /** Whole call, ms, instead of `timeouts.totalMs`; 0 = no limit. */
  readonly timeoutMs?: number | undefined
  /** Times of each attempt, before the backend's and the pool's. */
  readonly timeouts?: AttemptTimes | undefined
  /** What it is worth when not all can be served; default 'default'. */
  readonly criticality?: Criticality | undefined
  /** Sent as `X-Request-Id` and shown by logs; an id among the headers comes first; default: none. */
  readonly requestId?: string | undefined
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
/** Where an id travels from service to service. */
export const REQUEST_ID = 'x-request-id'
const NO_TAGS: readonly string[] = []
const NONE: readonly LiveAttempt[] = []

/** A call in progress. */
export class LiveCall implements Call {
  /** '' until it is routed. */
  pool = ''
  readonly method: string
  /** The caller's own key: it comes before what a strategy reads. */
  readonly #ownKey: string | undefined
  /** Behind an accessor: it may be a token of the caller's, which no inspect or JSON of a call may show. */
  #key: string | undefined
  readonly tags: readonly string[]
  readonly prefer: Wanted | undefined
  readonly only: Wanted | undefined
  readonly address: string | undefined
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
  sole: Backend | null | undefined = undefined
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
  error: unknown = undefined
  readonly #headers: RequestHeaders
  readonly #requestId: string | undefined
  #isOver = false
  #enders: (() => void)[] | undefined = undefined
  #cancelers: ((reason: unknown) => void)[] | undefined = undefined

  constructor({ method, headers }: Pick<BalancerRequest, 'method' | 'headers'>, options: CallOptions, nowMs: number) {
    this.method = method
    this.#ownKey = keyFrom(options.key, () => 'the key of a call')
    this.key = this.#ownKey
    this.tags = options.tags ?? NO_TAGS
    this.prefer = options.prefer
    this.only = options.only
    this.address = options.address
    this.criticality = options.criticality ?? 'default'
    this.timeouts = options.timeouts
    this.idempotent = options.idempotent ?? (IDEMPOTENT.has(method) || header(headers, 'idempotency-key') !== undefined)
    this.startMs = nowMs
    this.nowMs = nowMs
    this.#headers = headers
    this.#requestId = options.requestId
  }

  get key(): string | undefined {
    return this.#key
  }

  set key(key: string | undefined) {
    this.#key = key
  }

  /** Looked for only when somebody asks. */
  get requestId(): string | undefined {
    return header(this.#headers, REQUEST_ID) ?? this.#requestId
  }

  /** The pool it goes to, and how long it may take there, ms; 0 = no limit. */
  route(pool: string, timeoutMs: number): this {
    this.pool = pool
    if (timeoutMs > 0) this.deadlineMs = this.startMs + timeoutMs
    return this
  }

  /** Before a pick: by the strategy of that moment, from the request as it is then. */
  readKey(strategy: Strategy, request: BalancerRequest): void {
    this.key = this.#ownKey
    if (this.key !== undefined || strategy.keyOf === undefined) return
    const source = (): string => `the key function of strategy ${strategy.name} in pool ${this.pool}`
    let key: unknown
    try {
      key = strategy.keyOf(request, this)
    } catch (cause) {
      throw new BalancerError('CONFIG', `${source()} failed`, { cause })
    }
    this.key = keyFrom(key, source)
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

/** '' and null are no key, as is what an empty header or a missing column gives. */
function keyFrom(key: unknown, source: () => string): string | undefined {
  if (key === undefined || key === null || key === '') return undefined
  if (typeof key === 'string') return key
  const message = `${source()}: expected a string or undefined, got a value of type ${typeof key}`
  throw new BalancerError('CONFIG', message)
}

/** The attempt whose answer this is; none if a policy answered in its place. A policy may have changed the headers. */
export function answeredBy({ attempts }: Call, { headers, status }: BalancerResponse): Attempt | undefined {
  for (let i = attempts.length - 1; i >= 0; i--) if (attempts[i]!.headers === headers) return attempts[i]
  return attempts.findLast((attempt) => attempt.status === status)
}
