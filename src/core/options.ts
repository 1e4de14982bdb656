import type { Route } from './call.ts'
import type {
  AttemptTimes,
  Call,
  Classify,
  Clock,
  Endpoint,
  Policy,
  Probe,
  Random,
  Sink,
  Strategy,
  Transport,
  Watcher,
} from './contracts.ts'
import type { ClassChanges } from './outcome.ts'
import type { Secret } from './secret.ts'
import type { StrategySettings, StrategyWord } from './strategy-options.ts'

/** Ejects who succeeds far less often than the others (Envoy's success-rate outliers). */
export interface SuccessRateOptions {
  /** Below the mean by so many standard deviations; default 1.9. */
  readonly deviations?: number
  /** Backends with enough requests that it takes; default 5: below, no single one can deviate so far. */
  readonly minBackends?: number
  /** Requests per interval that are enough; default 100. */
  readonly minRequests?: number
}

/** Ejects who fails more than a fixed share of its requests (Envoy's failure percentage). */
export interface FailureShareOptions {
  /** From this share of failures on, 0..1; default 0.85. */
  readonly share?: number
  /** Backends with enough requests that it takes; default 5. */
  readonly minBackends?: number
  /** Requests per interval that are enough; default 50. */
  readonly minRequests?: number
}

export interface PassiveHealthOptions {
  /** Failures in a row that eject a backend, whatever the failure; default 5 (Envoy, Finagle); 0 = off. */
  readonly consecutive?: number
  /** Of these in a row: 502, 503, 504 and failures without an answer; default 0 = off. */
  readonly consecutiveGateway?: number
  /**
   * Failures without an answer in a row, counted apart: they then no longer count as `consecutive`, which is for answers; default
   * 0 = all failures are counted together.
   */
  readonly consecutiveLocal?: number
  /** Looked at every `intervalMs`; default on. */
  readonly successRate?: SuccessRateOptions | false
  /** Looked at every `intervalMs`; default off. */
  readonly failureShare?: FailureShareOptions | false
  /** Statistics are looked at this often while there is traffic, ms; each time without an ejection forgives one; default 10 000. */
  readonly intervalMs?: number
  /** First ejection, ms; the n-th in a row lasts n times as long; default 5 000. */
  readonly baseMs?: number
  /** Longest ejection, ms; default 300 000. */
  readonly maxMs?: number
  /** Most of the pool that may be ejected at once, 0..1; default 0.5 below ten backends, else 0.1; always at least one. */
  readonly maxShare?: number
  /** Ejections are shifted by up to this share either way, 0..1; default 0.1. */
  readonly jitter?: number
  /** Ejects nobody, but tells `wouldBlock`; default false. */
  readonly dryRun?: boolean
}

/** A backend that comes back, or is added to others, gets its full share only after a while (Envoy's slow start). */
export interface SlowStartOptions {
  /**
   * What the share grows with. 'time': as below. 'success': 10 %, then 30, 50 and 100 % after 1, 3 and 5 successes in a row; a
   * failure puts it back to 10 % (Berry). A small share may keep a backend from proving itself: after five times `dwellMs`
   * without a failure it goes one step up all the same. Default 'time'.
   */
  readonly by?: 'time' | 'success'
  /** For 'time': until the full share, ms; default 10 000. */
  readonly windowMs?: number
  /** For 'time': the share grows as (age / windowMs) ^ (1 / aggression), > 0; default 1 = straight. */
  readonly aggression?: number
  /** For 'time': where it starts, above 0, at most 1; default 0.1. */
  readonly minShare?: number
  /** For 'success': a share lasts at least this long, ms, so that no burst jumps to the full one; default 2 000. */
  readonly dwellMs?: number
}

/** A backend that says it had enough gets nothing for a while. That is no failure of its health. */
export interface CooldownOptions {
  /** After a 429 that does not say how long, ms; default 1 000. */
  readonly rateLimitMs?: number
  /** After 401 or 402 to a credential among the backend's own `headers`, ms; default 300 000. */
  readonly credentialMs?: number
  /** Most that a Retry-After is believed, ms; default 60 000. */
  readonly maxMs?: number
}

export interface ActiveHealthOptions {
  /** 'http': a request for `path`; 'tcp': a connection, TLS included; 'grpc': grpc.health.v1 over HTTP/2; default 'http'. */
  readonly type?: 'http' | 'tcp' | 'grpc'
  /** Your own check instead of `type`. */
  readonly probe?: Probe
  /** default '/'; the backend's base path is put in front. */
  readonly path?: string
  /** default 'GET'. */
  readonly method?: string
  /** Sent with each check; values become secrets. */
  readonly headers?: Readonly<Record<string, string | Secret>>
  /** Text that the first KiB of the body must hold; default: any body will do. */
  readonly match?: string
  /** Name of the service a 'grpc' check asks for; default '': the server as a whole. */
  readonly service?: string
  /** Statuses that mean well: '200', '200-399', '200,204'; default '200-399'. */
  readonly status?: string
  /** default 5 000. */
  readonly intervalMs?: number
  /** While checks disagree with the verdict, ms; default 1 000, or `intervalMs` if that is less. */
  readonly fastIntervalMs?: number
  /** While the pool has no traffic, ms; default: as `intervalMs`. */
  readonly idleIntervalMs?: number
  /**
   * Before the first verdict: 'probe' = gets traffic, the first check decides alone; 'up' = counts as well until `fall` bad checks;
   * 'down' = gets nothing until `rise` good ones; default 'probe'.
   */
  readonly initial?: 'up' | 'down' | 'probe'
  /** The interval is shifted by up to this share either way, 0..1; default 0.1. */
  readonly jitter?: number
  /** default 2 000. */
  readonly timeoutMs?: number
  /** Good checks in a row that bring a backend back; default 2. */
  readonly rise?: number
  /** Bad checks in a row that take it out; default 3. */
  readonly fall?: number
}

export interface HealthOptions {
  /** Checks beside the traffic, over the pool's own transport and TLS; off unless given. */
  readonly active?: ActiveHealthOptions | false
  /** Ejection by what real traffic meets; false = off. */
  readonly passive?: PassiveHealthOptions | false
  /** Below this share of healthy backends, soft reasons are ignored, 0..1; default 0.5 (Envoy); 0 = off. */
  readonly panicBelow?: number
  /** A returning or added backend starts with little; false = off. */
  readonly slowStart?: SlowStartOptions | false
  /** Rate limits and refused credentials; false = off. */
  readonly cooldown?: CooldownOptions | false
}

/** Takes a backend out by its failures, and lets it prove itself with a few requests. Off unless given. */
export interface BreakerOptions {
  /** What trips it: failures in a row, a share of the last `size` calls, or of the last `windowMs`; default 'window'. */
  readonly trip?: 'consecutive' | 'count' | 'window'
  /** For 'consecutive'; default 5. */
  readonly consecutive?: number
  /** For 'count' and 'window': trips above this share of failures, 0..1; default 0.5. */
  readonly threshold?: number
  /** For 'count'; default 20. */
  readonly size?: number
  /** For 'window', ms; default 30 000. */
  readonly windowMs?: number
  /** For 'window': fewer say nothing; default 20. */
  readonly minRequests?: number
  /** First time open, ms; doubles each time the trials fail; default 5 000. */
  readonly openMs?: number
  /** default 60 000. */
  readonly maxOpenMs?: number
  /** Times are shifted by up to this share either way, 0..1; default 0.2. */
  readonly jitter?: number
  /** Requests let through after that; all of them must succeed; default 3. */
  readonly trials?: number
}

/** A breaker's options with every default filled in. */
export type BreakerSettings = Required<BreakerOptions>

/** What every breaker starts from, in the configuration or made by hand. */
export const BREAKER_DEFAULTS: BreakerSettings = Object.freeze({
  trip: 'window', // judges the share, not the luck of a row
  consecutive: 5, // as the outlier detector
  threshold: 0.5, // half of them
  size: 20, // calls
  windowMs: 30_000, // long enough for little traffic
  minRequests: 20, // fewer say nothing
  openMs: 5_000, // long enough for a restart
  maxOpenMs: 60_000, // a repaired backend is noticed within a minute
  jitter: 0.2, // many clients must not return at once
  trials: 3, // one good answer may be luck
})

/** The trip rules that read a field; fields that are not here are for all of them. */
export const BREAKER_FIELDS: Readonly<Partial<Record<keyof BreakerOptions, readonly BreakerSettings['trip'][]>>> = {
  consecutive: ['consecutive'],
  threshold: ['count', 'window'],
  size: ['count'],
  windowMs: ['window'],
  minRequests: ['window'],
}

/** Asks a second backend when the first is slow. Off unless given. */
export interface HedgeOptions {
  /** Wait before the second send, ms; default: by `percentile`. */
  readonly delayMs?: number
  /** The wait is this quantile of recent latencies, 0..1; default 0.95: one call in twenty is sent twice. */
  readonly percentile?: number
  /** The wait is at least this, ms; default 1. */
  readonly minDelayMs?: number
  /** Answers it takes before a quantile says anything; default 100. */
  readonly warmUp?: number
  /** When more than this share of calls would be hedged, slowness is general, and none is; 0..1; default 0.2. */
  readonly maxShare?: number
}

export interface QueueOptions {
  /** Calls that may wait; default 100. */
  readonly size?: number
  /** Longest wait, ms; default 1 000. */
  readonly timeoutMs?: number
  /** Who is first: 'fifo', 'lifo', or 'adaptive': fifo, and lifo under overload; default 'adaptive'. */
  readonly order?: 'fifo' | 'lifo' | 'adaptive'
  /** Overload: the queue has not been empty for so long, ms; default 100 (CoDel). */
  readonly overloadMs?: number
}

/** A limit per backend that follows its latency. Off unless given. */
export interface AdaptiveLimitOptions {
  /** default 'gradient2'. */
  readonly algorithm?: 'gradient2' | 'aimd' | 'vegas'
  /** default 20. */
  readonly initial?: number
  /** default 1. */
  readonly min?: number
  /** default 200. */
  readonly max?: number
}

export interface LimitOptions {
  /** Most calls of the pool in flight at once; default: no limit. */
  readonly maxInflight?: number
  /** Where calls wait for their turn when the pool or all of its backends are full; default: they are refused at once. */
  readonly queue?: QueueOptions | false
  readonly adaptive?: AdaptiveLimitOptions | false
}

export interface RetryOptions {
  /** Sends in all, the first included, hedges apart; default 3; 1 = no retries. */
  readonly attempts?: number
  /** Statuses worth another backend; default [429, 502, 503, 504]. */
  readonly status?: readonly number[]
  /**
   * Pause before the n-th retry on another backend: drawn from baseMs * 2^(n-1), at most maxMs; default 25; 0 = no
   * pauses at all.
   */
  readonly baseMs?: number
  /** The same before it goes to the same backend, as in pools of one; default 250. */
  readonly sameBaseMs?: number
  /** 'full': from 0 up; 'equal': the upper half; 'decorrelated': up to three times the last pause; 'none'; default 'full'. */
  readonly jitter?: 'full' | 'equal' | 'decorrelated' | 'none'
  /** Longest that a call waits, in all, for backends that asked to be left alone when no other can be had, ms; default 10 000; 0 = never. */
  readonly waitMs?: number
  /** default 5 000. */
  readonly maxMs?: number
  /** Most of a request body that is kept for a repeat, bytes; default 65 536. */
  readonly bufferBytes?: number
  /** Answers to repeatable requests up to this Content-Length are handed over whole, so that a cut in them is retried, bytes; default 16 384; 0 = off. */
  readonly holdBytes?: number
  readonly budget?: {
    /** Retries per call, 0..1; default 0.2 (Finagle). */
    readonly share?: number
    /** Retries per second on top; default 10. */
    readonly perSecond?: number
    /** default 10 000. */
    readonly windowMs?: number
  }
}

/** All in ms; 0 = off. A backend's and a call's own `timeouts` come first. */
export interface TimeoutOptions extends AttemptTimes {
  /** Until the request has a connection: waiting, DNS, TCP and TLS; default 5 000. */
  readonly connectMs?: number
  /** From there until the head of the final answer; default 30 000. 1xx do not restart it. */
  readonly headersMs?: number
  /** From the head until the first byte of the body; default 0. */
  readonly firstByteMs?: number
  /** Longest silence within the body; default 300 000. */
  readonly idleMs?: number
  /** One attempt, until its head; default 0. */
  readonly attemptMs?: number
  /** The whole call, body included; default 0. */
  readonly totalMs?: number
  /** A lease of `acquire` that nobody ends; default 60 000. */
  readonly leaseMs?: number
}

export interface UndiciOptions {
  /** Most connections per backend; default 256. */
  readonly connections?: number
  /** Requests per HTTP/1.1 connection at once; default 1. */
  readonly pipelining?: number
  /** Idle connections are closed after this, ms; a backend's Keep-Alive header wins; default 4 000. */
  readonly keepAliveMs?: number
  /** Offer HTTP/2 to https: backends; default false. */
  readonly allowH2?: boolean
  /** Most bytes of an answer's header fields; default 16 384. */
  readonly maxHeaderBytes?: number
  /** What `tls.connect` takes: ca, cert, key, rejectUnauthorized, servername, ... */
  readonly tls?: Readonly<Record<string, unknown>>
}

/** What every transport with connections of its own starts from; docs/defaults.md gives the reasons. */
export const CONNECTION_DEFAULTS: Required<UndiciOptions> = Object.freeze({
  connections: 256,
  pipelining: 1,
  keepAliveMs: 4_000,
  allowH2: false,
  maxHeaderBytes: 16_384,
  tls: Object.freeze({}),
})

/** What can be said per balancer and per pool; a pool's word wins. */
export interface PoolSettings {
  /** A name, a name with settings, or a strategy of your own; default 'auto'. */
  readonly strategy?: StrategyWord | StrategySettings | Strategy
  readonly health?: HealthOptions
  /** How the class of an attempt is decided, before the table. */
  readonly classify?: Classify
  /** Changes to what the classes mean: `{ timeout: { retry: 'never' } }`. */
  readonly classes?: ClassChanges
  readonly retry?: RetryOptions
  readonly hedge?: HedgeOptions | false
  readonly breaker?: BreakerOptions | false
  readonly limits?: LimitOptions
  readonly timeouts?: TimeoutOptions
  readonly undici?: UndiciOptions
  /** Instead of the built-in undici transport. */
  readonly transport?: Transport
  /** Your own policies, outermost first. */
  readonly policies?: readonly Policy[]
  readonly watchers?: readonly Watcher[]
  readonly sinks?: readonly Sink[]
}

/** Where lines go, in pino's shape: `logger: pino()`. */
export interface Logger {
  debug(details: object, message: string): void
  info(details: object, message: string): void
  warn(details: object, message: string): void
  error(details: object, message: string): void
}

export interface LogOptions {
  /** A line for each call that is over, or for those that a function says yes to; default false. */
  readonly requests?: boolean | ((call: Call) => boolean)
}

export type EndpointOptions = string | Endpoint

export interface PoolOptions extends PoolSettings {
  /** A URL is short for `{ url }`. */
  readonly backends: readonly EndpointOptions[]
}

export interface BalancerOptions extends PoolSettings {
  /** Tells several balancers in one process apart; default 'evenkeel'. */
  readonly name?: string
  /** The backends of the only pool, named 'default'. Either this or `pools`. */
  readonly backends?: readonly EndpointOptions[]
  /** Name -> pool. Calls name theirs; the first is the default. */
  readonly pools?: Readonly<Record<string, PoolOptions>>
  /** Chooses the pool of a request that names none; default: the first pool. */
  readonly route?: Route
  /** Your own strategies, for `strategy` to name: useful where the rest comes from a file. */
  readonly strategies?: readonly Strategy[]
  /** `fetch` refuses absolute URLs of any other origin; default: every origin is taken, and replaced by the backend's. */
  readonly origins?: readonly string[]
  /** Gets a line for every change of state; it stays as given at the start, whatever updates say; default: none. */
  readonly logger?: Logger
  /** What it gets besides. */
  readonly log?: LogOptions
  /** How many configurations that were in force are kept for `rollback`, the one in force included; default 10. As given at the start. */
  readonly revisions?: number
  /** Time, for tests. */
  readonly clock?: Clock
  /** Chance, for tests. */
  readonly random?: Random
}
