/**
 * Every extension interface of evenkeel, types only. This file is the manual for third parties: whoever implements one
 * of these interfaces hands the object over in the options; there is no registry and no base class. Longer than a file should
 * be, to be read in one piece.
 */

import type { Budget } from './budget.ts'
import type { Sending } from './call.ts'
import type { Deadlines } from './deadlines.ts'
import type { PeakEwma } from './latency.ts'
import type { ClassRule, Outcome, OutcomeClass } from './outcome.ts'
import type { Secret } from './secret.ts'

/** Undo of whatever was started. Calling it twice does nothing. */
export type Stop = () => void

/** What a configuration or a discovery source says about one backend: plain data. */
export interface Endpoint {
  /** `http:` or `https:` URL; its path, if any, is put in front of every request's path. No credentials, query or fragment. */
  readonly url: string
  /** Name in events, stats and metrics; default: host, port and path of the URL. Unique within a pool. */
  readonly id?: string
  /** Share of the traffic relative to the other backends, 0 to 1e9; default 1; 0 = drain: no new requests. */
  readonly weight?: number
  /** 0 is tried first; default 0. */
  readonly priority?: number
  readonly zone?: string
  readonly tags?: readonly string[]
  /** Most requests in flight at once from this process; default: no limit. */
  readonly maxInflight?: number
  /** Times of its attempts that differ from the pool's. */
  readonly timeouts?: AttemptTimes
  /** Headers set on every request to this backend. Values become secrets: never in a log, an event or an error. */
  readonly headers?: Readonly<Record<string, string | Secret>>
  readonly meta?: Readonly<Record<string, unknown>>
}

/** Times of one attempt, ms; 0 = off. What is not said is as in the settings one level up: call, backend, pool. */
export interface AttemptTimes {
  /** Until the request has a connection: waiting, DNS, TCP and TLS. */
  readonly connectMs?: number
  /** From there until the head of the final answer. 1xx do not restart it. */
  readonly headersMs?: number
  /** From the head until the first byte of the body. */
  readonly firstByteMs?: number
  /** Longest silence within the body. */
  readonly idleMs?: number
  /** The whole attempt, until its head. */
  readonly attemptMs?: number
}

/** How much a call matters when not all can be served: 'sheddable' goes first, and never waits. */
export type Criticality = 'critical' | 'default' | 'sheddable'

/** Why a backend gets no traffic. Reasons are a set, one per writer; a backend is eligible when the set is empty. */
export interface Reason {
  /** Who says so: 'outlier', 'probe', 'operator', ... */
  readonly by: string
  /** True for what panic must never override: operator, drain, credential, quota. */
  readonly hard: boolean
  /** When the writer will take it back, in the clock's milliseconds, where that is known. */
  readonly untilMs?: number
  readonly detail?: string
}

/** The live record of a backend, read-only for parts. It survives reloads as long as id and URL stay the same. */
export interface Backend {
  readonly id: string
  readonly endpoint: Endpoint
  /** Scheme, host and port, as in `http://127.0.0.1:3001`. */
  readonly origin: string
  /** Path of the URL without a trailing slash; '' for the root. */
  readonly basePath: string
  /** Configured weight times every weigh factor; 0 = gets nothing new. */
  readonly weight: number
  /** log2 of `weight`, kept beside it so that no picker computes a logarithm. */
  readonly logWeight: number
  /** Attempts sent and not yet ended. */
  readonly inflight: number
  /** Most of them at once: the endpoint's `maxInflight` or a part's word, whichever is less; Infinity = no limit. */
  readonly limit: number
  readonly reasons: ReadonlyMap<string, Reason>
  readonly latency: PeakEwma
  /**
   * `latency.cost`, -2^30 until the first answer; kept beside the rest of what pickers read: of many backends, one object more each
   * is the most of a pick.
   */
  readonly cost: number
  /** True from the moment the pool no longer holds it; requests in flight finish. */
  readonly removed: boolean
}

/** The members of a pool at one moment: frozen, both lists in configuration order. */
export interface Members {
  readonly all: readonly Backend[]
  /** Who may be picked: a weight above 0 and no reason against it; in panic: a weight above 0 and no hard reason. */
  readonly eligible: readonly Backend[]
}

/** The whole change path of a pool. Configuration, discovery, probes, detectors and breakers do only this. */
export interface PoolControl {
  /** The whole new set of endpoints. Same id and URL keep the live record. */
  apply(endpoints: readonly Endpoint[]): void
  /** Adds a reason, or replaces the one of the same writer. */
  block(backend: Backend, reason: Reason): void
  unblock(backend: Backend, by: string): void
  /** Multiplies the weight by a factor in [0, 1]; 1 takes the writer's factor back. */
  weigh(backend: Backend, by: string, factor: number): void
  /** Most requests in flight at once, >= 1; Infinity takes the writer's word back. Nothing in flight is ended by it. */
  limit(backend: Backend, by: string, most: number): void
}

/** What parts are started with: one per pool. */
export interface Core {
  readonly pool: string
  readonly clock: Clock
  readonly random: Random
  readonly deadlines: Deadlines
  readonly budget: Budget
  readonly control: PoolControl
  /** What each class means here: the table with the user's changes. */
  readonly classes: Readonly<Record<OutcomeClass, ClassRule>>
  members(): Members
  /** Sends beside the traffic, as probes do: over the pool's transport and TLS, outside counters, gates and policies. */
  send(backend: Backend, request: BalancerRequest): Sending
  /** Opens a connection as for a request, TLS included, and closes it; rejects if that fails. */
  reach(backend: Backend, signal: AbortSignal): Promise<void>
  /** Tells the balancer's listeners; arguments are positional so that nobody listening costs nothing. */
  emit(event: string, ...details: readonly unknown[]): void
}

/**
 * Means a backend: by its id, or as the first for which it holds of those that may be picked. Asked at every pick, for one backend
 * after the other; what it throws, and anything but a boolean, fails the call with CONFIG.
 */
export type Wanted = string | ((backend: Backend, call: Call) => boolean)

/** One logical request, from the face to the last byte. */
export interface Call {
  readonly pool: string
  readonly method: string
  /** What hash strategies hash: the caller's own, or what the pool's strategy reads from the request (`Strategy.keyOf`). */
  readonly key: string | undefined
  readonly tags: readonly string[]
  /** The backend asked for, if it is eligible. */
  readonly prefer: Wanted | undefined
  /** The only backend that will do. */
  readonly only: Wanted | undefined
  /** Of the client, as an adapter has it from its socket. */
  readonly address: string | undefined
  /** True if sending it twice does no harm: by its method (RFC 9110 9.2.2) or because the caller said so. */
  readonly idempotent: boolean
  readonly criticality: Criticality
  /** The caller's own times for each attempt. */
  readonly timeouts: AttemptTimes | undefined
  /** Clock time at which the call fails with TIMEOUT; Infinity for none. */
  readonly deadlineMs: number
  /** Clock time of the current pick: pickers read this instead of a clock. */
  readonly nowMs: number
  /** Picks made so far for this call, refused candidates included. */
  readonly picks: number
  readonly attempts: readonly Attempt[]
  /** Its `X-Request-Id`, or what `CallOptions.requestId` said; undefined without either. */
  readonly requestId: string | undefined
  /** Clock time of its start. */
  readonly startMs: number
  /** What it failed with; undefined before that, and if it was answered. */
  readonly error: unknown
  readonly canceled: boolean
  /** What it was cancelled with. */
  readonly reason: unknown
  /** Set by a policy: the next attempt goes to this backend, on a new connection. */
  again: Backend | undefined
  /** Set by a policy: the next attempt goes only to a backend not tried yet; there is none: NO_BACKEND. */
  elsewhere: boolean
  /**
   * Set by `only`, by a picker or by `prefer`, anew at every pick: the only backend that will do, of any priority, whether it may be
   * picked or not; null = there is none. Retries and hedges keep to it. Undefined: anybody.
   */
  sole: Backend | null | undefined
  tried(backend: Backend): boolean
  /** Ends every attempt in this tick. Blamed on the backends only if the reason is a BalancerError TIMEOUT. */
  cancel(reason: unknown): void
  /** Runs in the tick of the cancel, at most once. */
  onCancel(run: (reason: unknown) => void): Stop
  /** Runs once, when it was answered or has failed and its last attempt has ended. */
  onEnd(run: () => void): void
}

/** One send of a call to one backend. */
export interface Attempt {
  readonly call: Call
  readonly backend: Backend
  /** 1 for the first. */
  readonly number: number
  /** What this backend gets. Attempt policies may replace it before they call `next`. */
  request: BalancerRequest
  /** True if the transport must open a new connection for it (the last one died of old age). */
  readonly fresh: boolean
  /** Clock times in ms; NaN until it happened: made, on a connection, head received, first byte of the body, ended. */
  readonly startMs: number
  readonly sentMs: number
  readonly headMs: number
  readonly firstByteMs: number
  readonly endMs: number
  /** Last sign of life from the backend. */
  readonly activeMs: number
  /** Status of the head; 0 before it. */
  readonly status: number
  /** Set at the head, or at the end if there was none: what the policies decide by. */
  readonly class: OutcomeClass | undefined
  /** What the class means in this pool; set with it. */
  readonly rule: ClassRule | undefined
  /** Headers of the head; undefined before it. */
  readonly headers: RawHeaders | undefined
  /** Set at the end. */
  readonly outcome: Outcome | undefined
  readonly canceled: boolean
  /** Ends it now: before the head `send` rejects in this tick, afterwards the body fails. Not blamed on the backend. */
  cancel(reason: unknown): void
  /** For transports, until `send` settles: runs in the tick of the cancel, at most once. */
  onCancel(run: (reason: unknown) => void): Stop
  /** Why the next step was taken, in words: set by the policy that took it, shown by `explain`. */
  decision: string | undefined
  /** Its backend is to be left: see `Stages.drain`. */
  readonly draining: boolean
  /** For policies, before they call `next`, and for who holds the socket of a 101: be told of the stages as they are reached. */
  watch(stages: Stages): void
  /** For transports: the request has a connection and is being written. Call it at once if that cannot be known. */
  sent(): void
}

/**
 * One backend, lent for any protocol: end it with exactly one of `succeed`, `fail` and `cancel`; what comes after the first is
 * ignored. With `using` a lease that was not ended is cancelled.
 */
export interface Lease {
  readonly backend: Backend
  /** It went well: the time since `acquire` is what peak EWMA learns. */
  succeed(): void
  /** It went wrong. The error is classified by its `code` or `status`, never by its message. */
  fail(error: unknown): void
  /** It was given up, by no fault of the backend. */
  cancel(): void
  [Symbol.dispose](): void
}

/** The stages of an attempt, each told at most once and in this order; `end` always comes. */
export interface Stages {
  sent?(): void
  head?(): void
  /**
   * At any time before the end: its backend is drained or was removed, or the balancer is closing and waits. What has no end of its
   * own, as a tunnel, should come to one soon; anything else goes on.
   */
  drain?(): void
  end?(): void
}

/**
 * Chooses the backend of one attempt. It reads no clock (`call.nowMs`), allocates nothing, and is asked up to five times for
 * one attempt, while its choice was tried before or is refused by a gate; then the pool scans for itself. Undefined = nobody.
 */
export type Picker = (call: Call) => Backend | undefined

/**
 * Where a key comes from for calls that bring none: 'call' = nowhere; the client's address; the path without its query; a header
 * (repeats joined by ', '); the first cookie of that name; or whatever a function of yours says. What is missing or empty is no key.
 */
export type KeySource =
  | 'call'
  | 'ip'
  | 'path'
  | `header:${string}`
  | `cookie:${string}`
  | ((request: BalancerRequest, call: Call) => string | null | undefined)

/** A way of choosing. Stateless: one object may serve many pools. `name` shows in stats. */
export interface Strategy {
  readonly name: string
  /**
   * The key of a call that brings none; null, undefined and '' = none. Asked before every pick of such a call, for the request as
   * policies have made it; for `acquire` its path is ''. What it throws fails the call with CONFIG.
   */
  keyOf?(request: BalancerRequest, call: Call): string | null | undefined
  start(core: Core): Chooser
}

/** A strategy at work in one pool. State it keeps by Backend survives `build`. */
export interface Chooser {
  /** Called on every change of members, weights or eligibility, never on the request path. */
  build(members: Members): Picker
  /** The head of an answer arrived. */
  head?(attempt: Attempt): void
  /** The attempt ended, however it did. Exactly once per attempt. */
  settle?(attempt: Attempt): void
  /** What it thinks of a backend now, the very number that it goes by: shown in stats. Undefined if it has no opinion. */
  score?(backend: Backend): number | undefined
}

/** The better of two. It returns one of its arguments, so that no number crosses the call and none is boxed. */
export type Prefer = (a: Backend, b: Backend) => Backend

/** Sync admission after the pick. What `admit` took is given back by `release` exactly once. */
export interface Gate {
  readonly name: string
  admit(backend: Backend, call: Call): boolean
  /** At the attempt's end, or with undefined when a later gate refused. */
  release(backend: Backend, attempt: Attempt | undefined): void
}

/** Sees what happened, after it happened. Throwing in a sink is a bug of the sink: it is reported once and swallowed. */
export interface Sink {
  readonly name: string
  head?(attempt: Attempt): void
  attempt?(attempt: Attempt): void
  call?(call: Call): void
}

/** A part that watches a pool and writes reasons: an outlier detector, a breaker. A gate plus a sink, never a wrapper. */
export interface Watcher {
  readonly name: string
  start(core: Core): {
    readonly gate?: Gate
    readonly sink?: Sink
    /** After every change of the set of backends, the first one included. */
    members?(all: readonly Backend[]): void
    /** A reason against a backend was taken back; `backend.reasons` says what is left. What it weighs here counts at once. */
    unblocked?(backend: Backend, reason: Reason): void
    /** Resolves when it has seen enough of every backend for the pool to be relied on. */
    ready?(): Promise<void>
    readonly stats?: WatcherStats
    readonly stop: Stop
  }
}

/** What a watcher adds to `stats()`: asked when somebody looks, never on the request path. */
export interface WatcherStats {
  /** Calls that wait for their turn. */
  waiting?(): number
  /** The active checks of a backend. */
  checks?(backend: Backend): CheckStats | undefined
  breaker?(backend: Backend): BreakerPhase | undefined
}

export type BreakerPhase = 'closed' | 'open' | 'half-open' | 'isolated'

/** The active checks of one backend since they began. */
export interface CheckStats {
  /** Those that came to an end; one that never got a connection from the pool says nothing, and is not in it. */
  readonly checks: number
  readonly failures: number
  /** How long the last one took, ms; NaN before the first. */
  readonly lastMs: number
}

/** The connections to one backend. */
export interface ConnectionStats {
  readonly open: number
  /** Of the open ones, those that carry nothing. */
  readonly idle: number
}

/** name, value, name, value, ...; bytes are latin1; order and repeats are kept. */
export type RawHeaders = readonly (string | Uint8Array)[]

/** As RawHeaders; values that come from the configuration are secrets until a transport writes them (`wireHeaders`). */
export type RequestHeaders = readonly (string | Uint8Array | Secret)[]

/** A request body: nothing, bytes, or something that can be opened. */
export type RequestBody = null | Uint8Array | OpenBody

export interface OpenBody {
  /** Bytes in all, where known. */
  readonly length: number | undefined
  /** False once it can no longer be sent from its start. */
  readonly replayable: boolean
  /** True once all of it is kept: opening it again then ends no earlier iteration. */
  readonly complete?: boolean
  /** From the start, each time. Opening it again ends the earlier iteration. */
  open(): AsyncIterable<Uint8Array>
}

export interface BalancerRequest {
  readonly method: string
  /** Origin-form: starts with '/', query included. */
  readonly path: string
  readonly headers: RequestHeaders
  readonly body: RequestBody
  /** Called for each 1xx but 101. */
  readonly informational?: (status: number, headers: RawHeaders) => void
  /**
   * The protocol to change to, as in 'websocket' (RFC 9110 7.8): the transport asks for it and writes Connection and Upgrade. One that
   * cannot, sends a plain request; any answer but 101 is a plain answer.
   */
  readonly upgrade?: string
  /** Asked for once the body is sent, if its length was not known. Not every transport can send trailers: undici's cannot. */
  readonly trailers?: () => RawHeaders
}

export interface BalancerResponse {
  readonly status: number
  readonly headers: RawHeaders
  /** Of a 101: brings no chunks, and ends when the socket has closed. */
  readonly body: ResponseBody
  /**
   * Of a 101, the answer to an upgrade: the connection itself, a Duplex of node:stream, half of which may end before the other.
   * Whoever takes it, ends it; it is destroyed when the body is discarded or cancelled, or the call is.
   */
  readonly socket?: unknown
}

/**
 * A body that is pushed. Exactly one of the two verbs is called, once. Chunks that came before `consume` are delivered first,
 * from within it; so is the end or the failure, if that came too.
 */
export interface ResponseBody {
  consume(sink: BodySink): BodyControl
  /** Nobody wants it: what is small is read to its end so that the connection lives, what is large is cut. */
  discard(): void
}

export interface BodyControl {
  /** After `chunk` returned false: go on. It may come when nothing is paused. */
  resume(): void
  /** No more calls to the sink; the connection is given up unless the body had ended. */
  cancel(reason: unknown): void
}

export interface BodySink {
  /** False = paused until `resume`; what was already on its way may still come. Never empty. */
  chunk(data: Uint8Array): boolean
  end(trailers?: RawHeaders): void
  fail(error: unknown): void
}

/** How a send failed, by structure; what `Transport.send` rejects with and `BodySink.fail` gets. */
export interface SendFailure {
  /** Where it was: waiting for a connection, connecting, in the TLS handshake, before the head was complete, in the body. */
  readonly phase: 'wait' | 'connect' | 'tls' | 'head' | 'body'
  /** 'no' only if it is certain that the backend has seen nothing of the request. */
  readonly processed: 'no' | 'maybe'
  /** True if the connection had carried a request before. */
  readonly reused: boolean
  /**
   * The platform's or the library's error code, upper case: 'ECONNREFUSED', 'UND_ERR_SOCKET', ...; '' if there is none. Some
   * decide the class whatever the phase: 'REQUEST_BODY' (the body's source failed: the request's fault), 'EMFILE' and its like
   * (this process's), 'HPE_...' in 'head' (no HTTP). 'head' on a reused connection is 'stale': retried once on a new one.
   */
  readonly code: string
  readonly cause: unknown
}

/** Carries attempts to backends. */
export interface Transport {
  readonly name: string
  /**
   * Resolves with the head; reading goes on from there, before anybody consumes. Rejects with a SendFailure, always: any other
   * error counts as a reset and blames the backend. It rejects in the tick of a cancel (`attempt.onCancel`); a cancel that
   * comes after it has resolved must be ignored, `BodyControl.cancel` follows. `request.path` holds the base path already;
   * Host and Content-Length, if they are not among the headers, are the transport's to write. An `attempt.fresh` may take the
   * place of an idle connection at the limit, or wait.
   */
  send(attempt: Attempt): Promise<BalancerResponse>
  /** The backend was removed, no `send` to it follows: resolves when what is in flight is over and its connections closed. */
  forget?(backend: Backend): Promise<void>
  /** For `stats()`, where it is known. */
  connections?(backend: Backend): ConnectionStats | undefined
  /** Opens a connection as for a request, TLS included, and closes it: the 'tcp' health check. */
  reach?(backend: Backend, signal: AbortSignal): Promise<void>
  /** Closes every connection now. */
  close?(): Promise<void>
}

export type CallHandler = (call: Call, request: BalancerRequest) => Promise<BalancerResponse>
export type AttemptHandler = (attempt: Attempt) => Promise<BalancerResponse>

/** What is seen of an attempt when its class is decided: at its head, or when it failed. */
export interface Seen {
  readonly backend: Backend
  /** 0 without a head. */
  readonly status: number
  /** Of the head; undefined without one. */
  readonly headers: RawHeaders | undefined
  readonly phase: SendFailure['phase'] | 'done'
  /** The platform's error code; '' without one. */
  readonly code: string
  /** What it failed with. */
  readonly error: unknown
}

/**
 * Decides a class before the table does; undefined = as the table says. Not asked about what the caller cancelled, and may not
 * say 'cancelled'. Throwing is reported once, and the table decides.
 */
export type Classify = (seen: Seen) => OutcomeClass | undefined

/**
 * Asks one backend whether it is well. Resolving means yes, with 'degraded': yes, but others are to be preferred; the reason of a
 * rejection is told to the operator.
 */
export interface Probe {
  readonly name: string
  check(
    backend: Backend,
    use: { readonly send: Core['send']; readonly reach: Core['reach']; readonly signal: AbortSignal },
  ): // biome-ignore lint/suspicious/noConfusingVoidType: a check that returns nothing must be an async function without return
  Promise<'degraded' | void>
}

/** Wraps what comes after it. Composed once per configuration, outermost first. */
export type Policy =
  | { readonly name: string; readonly scope: 'balancer' | 'pool'; wrap(next: CallHandler, core: Core): CallHandler }
  | { readonly name: string; readonly scope: 'attempt'; wrap(next: AttemptHandler, core: Core): AttemptHandler }

/** Pushes whole values, never deltas. */
export interface Source<T> {
  readonly name: string
  subscribe(next: (value: T) => void, fail: (error: unknown) => void): Stop
}

/** Monotonic milliseconds. Timers are one-shot and keep the process alive only if `hold` is true: a caller waits for this one. */
export interface Clock {
  now(): number
  after(ms: number, run: () => void, hold?: boolean): Stop
  /** Ms since 1970, asked only to read dates in headers; without it only those are read that can be told without. */
  wall?(): number
}

/** A whole number in [0, below), below <= 2^30. */
export type Random = (below: number) => number
