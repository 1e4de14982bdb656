import type { Route } from './call.ts'
import type { Clock, Endpoint, Policy, Random, Sink, Strategy, Transport, Watcher } from './contracts.ts'

/** Names of the built-in strategies. */
export type StrategyName =
  | 'round-robin'
  | 'weighted-round-robin'
  | 'random'
  | 'weighted-random'
  | 'least'
  | 'p2c'
  | 'peak-ewma'

export interface PassiveHealthOptions {
  /** Failures in a row that eject a backend; default 5 (Envoy, Finagle); 0 = off. */
  readonly consecutive?: number
  /** First ejection, ms; the n-th in a row lasts n times as long, +-10 %; default 5 000. */
  readonly baseMs?: number
  /** Longest ejection, ms; default 300 000. */
  readonly maxMs?: number
  /** Most of the pool that may be ejected at once, 0..1; default 0.5 below ten backends, else 0.1; always at least one. */
  readonly maxShare?: number
}

export interface ActiveHealthOptions {
  /** 'http': a GET of `path`; 'tcp': a connection, TLS included; default 'http'. */
  readonly type?: 'http' | 'tcp'
  /** default '/'; the backend's base path is put in front. */
  readonly path?: string
  /** Statuses that mean well: '200', '200-399', '200,204'; default '200-399'. */
  readonly status?: string
  /** default 5 000. */
  readonly intervalMs?: number
  /** The interval is shifted by up to this share either way, 0..1; default 0.1. */
  readonly jitter?: number
  /** default 2 000. */
  readonly timeoutMs?: number
  /** Good checks in a row that bring a backend back; default 2. */
  readonly rise?: number
  /** Bad checks in a row that take it out; the very first check decides alone; default 3. */
  readonly fall?: number
}

export interface HealthOptions {
  /** Checks beside the traffic, over the pool's own transport and TLS; off unless given. */
  readonly active?: ActiveHealthOptions | false
  /** Ejection by what real traffic meets; false = off. */
  readonly passive?: PassiveHealthOptions | false
  /** Below this share of healthy backends, soft reasons are ignored, 0..1; default 0.5 (Envoy); 0 = off. */
  readonly panicBelow?: number
}

export interface RetryOptions {
  /** Sends in all, the first included; default 3; 1 = no retries. */
  readonly attempts?: number
  /** Statuses worth another backend; default [502, 503, 504]. */
  readonly status?: readonly number[]
  /** Pause before the n-th retry: a random part of baseMs * 2^(n-1), at most maxMs (full jitter); default 25. */
  readonly baseMs?: number
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

/** All in ms; 0 = off. */
export interface TimeoutOptions {
  /** Until the request has a connection: waiting, DNS, TCP and TLS; default 5 000. */
  readonly connectMs?: number
  /** From there until the head of the final answer; default 30 000. 1xx do not restart it. */
  readonly headersMs?: number
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
  /** What `tls.connect` takes: ca, cert, key, rejectUnauthorized, servername, ... */
  readonly tls?: Readonly<Record<string, unknown>>
}

/** What every transport with connections of its own starts from; docs/defaults.md gives the reasons. */
export const CONNECTION_DEFAULTS: Required<UndiciOptions> = Object.freeze({
  connections: 256,
  pipelining: 1,
  keepAliveMs: 4_000,
  allowH2: false,
  tls: Object.freeze({}),
})

/** What can be said per balancer and per pool; a pool's word wins. */
export interface PoolSettings {
  readonly strategy?: StrategyName | Strategy
  readonly health?: HealthOptions
  readonly retry?: RetryOptions
  readonly timeouts?: TimeoutOptions
  readonly undici?: UndiciOptions
  /** Instead of the built-in undici transport. */
  readonly transport?: Transport
  /** Your own policies, outermost first. */
  readonly policies?: readonly Policy[]
  readonly watchers?: readonly Watcher[]
  readonly sinks?: readonly Sink[]
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
  /** `fetch` refuses absolute URLs of any other origin; default: every origin is taken, and replaced by the backend's. */
  readonly origins?: readonly string[]
  /** Time, for tests. */
  readonly clock?: Clock
  /** Chance, for tests. */
  readonly random?: Random
}

type Settled<T> = { readonly [K in keyof T]-?: NonNullable<T[K]> }

/** A pool's settings with every default filled in. */
export interface ResolvedSettings {
  readonly strategy: StrategyName | Strategy
  readonly health: {
    readonly passive:
      | (Omit<Settled<PassiveHealthOptions>, 'maxShare'> & { readonly maxShare: number | undefined })
      | false
    readonly panicBelow: number
    readonly active: Settled<ActiveHealthOptions> | false
  }
  readonly retry: Omit<Settled<RetryOptions>, 'budget'> & {
    readonly budget: Settled<NonNullable<RetryOptions['budget']>>
  }
  readonly timeouts: Settled<TimeoutOptions>
  readonly undici: Settled<UndiciOptions>
  readonly transport: Transport | undefined
  readonly policies: readonly Policy[]
  readonly watchers: readonly Watcher[]
  readonly sinks: readonly Sink[]
}

export interface ResolvedPool {
  readonly name: string
  readonly endpoints: readonly Endpoint[]
  readonly settings: ResolvedSettings
}

export interface ResolvedOptions {
  readonly name: string
  readonly pools: readonly ResolvedPool[]
  readonly origins: readonly string[] | undefined
  readonly route: Route | undefined
  readonly clock: Clock
  readonly random: Random
}
