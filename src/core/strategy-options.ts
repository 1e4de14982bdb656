/** What the built-in strategies can be told, in the configuration beside their names as well as to their factories. */
import type { Backend, KeySource, Strategy } from './contracts.ts'

/**
 * What a call to a backend costs, >= 0, in any unit; asked at every change of members, never on the request path. Make it once: an
 * update with another function object makes the strategy anew, and what it has learned is forgotten.
 */
export type Cost = (backend: Backend) => number

export interface P2cOptions {
  /** How many candidates are compared, a whole number >= 2; default 2. Each one more helps less (Mitzenmacher). */
  readonly choices?: number
}

export interface EdfOptions {
  /**
   * A weight counts as weight / (requests in flight + 1)^bias: 0 = plain weighted round robin, 1 = weighted least request, as in
   * Envoy (`active_request_bias`), more = the less loaded still more. Default 0.
   */
  readonly bias?: number
}

/** What all hash strategies have in common. */
export interface HashOptions {
  /**
   * What is hashed when a call brings no `key` of its own. Calls without any key: anyone eligible, by weight. Make a function once: an
   * update with another one makes the strategy, and its table, anew.
   */
  readonly key: KeySource
  /**
   * When the backend that has the key may not be picked: 'redistribute' = the next in the key's order, and so on with every retry;
   * 'fail' = the call fails with NO_BACKEND, or OVERLOADED if it is full, and retries stay with it. Default 'redistribute'.
   */
  readonly whenOut?: 'redistribute' | 'fail'
  /**
   * Bounded loads (Mirrokni, Thorup and Zadimoghaddam): nobody gets a request beyond this many times its fair share, by
   * weight, of what is in flight; it goes to the next in the key's order. Above 1; usual: 1.25. Default: not bounded. Not with
   * `whenOut: 'fail'`.
   */
  readonly bound?: number
}

export interface RingHashOptions extends HashOptions {
  /**
   * Whose ring to make, so that both send the same key to the same backend. Points are made of the backends' ids, which have
   * to be what the other calls them: 'host:port'.
   * - 'envoy' (gRPC too): xxHash64 of `id_0`, `id_1`, ...; at least `minSize` points in all. Another number of backends
   *   changes everybody's number of points, so keys of others move as well.
   * - 'nginx': `hash ... consistent` and pingora's ring: chained CRC-32 of host and port, `points` per weight.
   *
   * Default: xxHash64 with `points` per weight; when a backend comes or goes, only its keys move.
   */
  readonly like?: 'envoy' | 'nginx'
  /**
   * Points per 1 of weight, but for 'envoy'; default 160: shares within about 8 % (standard deviation; 1 / sqrt(points)).
   */
  readonly points?: number
  /** Least points in all for 'envoy'; default 1 024 (Envoy, gRPC). */
  readonly minSize?: number
  /** Most points in all, up to 8 388 608, the default (Envoy). Beyond it everybody gets fewer in proportion. gRPC: 4 096. */
  readonly maxSize?: number
}

export interface MaglevOptions extends HashOptions {
  /**
   * Slots of the table: a prime up to 5 000 011; default 65 537 (Envoy). At least 100 per backend keep the shares within 1 %.
   */
  readonly size?: number
}

export interface FailoverOptions {
  /**
   * A priority is given all the traffic while its healthy share, by weight, times this is at least 1; at least 1, default 1.4 (Envoy):
   * below 72 % healthy the next one takes over what is missing. Infinity: only when nobody is healthy.
   */
  readonly overprovisioning?: number
}

/** Times are in ms. */
export interface OrcaOptions {
  /** A backend's reports count only after it has been reporting for so long; default 10 000. */
  readonly blackoutMs?: number
  /** A report that is older does not count; default 180 000. */
  readonly expireMs?: number
  /** How often weights follow the reports, at least 100; default 1 000. */
  readonly updateMs?: number
  /** The share of errors, times this, counts as utilization; default 1. */
  readonly errorPenalty?: number
}

/** Times are in ms. */
export interface PrequalOptions {
  /** What a probe asks for with GET, query included; the backend's base path is put in front; default '/lb-probe'. */
  readonly path?: string
  /**
   * Backends looked at per request, 0.1 to 100, distinct, drawn by weight (r_probe); a fraction by lot; default 3. A probe goes to
   * those that have said nothing for `maxAgeMs`; of the others their last word is taken.
   */
  readonly probesPerRequest?: number
  /**
   * Reports thrown away per request, 0 to 100, by turns the oldest and the worst (r_remove); a fraction by lot; default 1. Where fewer
   * reports come in than `probesPerRequest`, in proportion fewer.
   */
  readonly removalsPerRequest?: number
  /** Most reports kept, 2 to 256 (m); default 16. Never more than half of the backends. */
  readonly poolSize?: number
  /** An older report says nothing; default 1 000. */
  readonly maxAgeMs?: number
  /**
   * Backends with more requests in flight than this quantile of the reports are hot, 0 to 1 (Q_RIF); default 0.84. 0: only requests in
   * flight count, for equal backends; 1: only latency, which herds.
   */
  readonly rifQuantile?: number
  /**
   * Longest wait for the answer to a probe, and then the backend counts as failing; default 250: more than a pause of garbage
   * collection or a lost packet. Nobody waits for it, so the 3 ms of the paper, for one data centre, would only lose reports.
   */
  readonly timeoutMs?: number
  /** Most probes per second of this pool, >= 1; default 200. What is not known for lack of them is chosen by what this process sees. */
  readonly maxProbesPerSecond?: number
}

export interface SmartOptions {
  /** What a call costs, in any unit. Of backends that hardly ever fail, cheap ones get up to 5 % more; default: all alike. */
  readonly cost?: Cost
}

/** Results as they are believed, each >= 0; fractions too. */
export interface Prior {
  readonly successes: number
  readonly failures: number
}

export interface ThompsonOptions {
  /** What a call costs, in any unit; default: nothing, which leaves the share of successes to decide. */
  readonly cost?: Cost
  /** What a success is worth, in the unit of `cost`, > 0; default: ten times the highest cost. More looks less at prices. */
  readonly value?: number
  /** What a millisecond of the latency is worth, in the unit of `cost`, >= 0; default 0. */
  readonly latencyCost?: number
  /** How much of what is known is left after one more result in the pool, in (0, 1]; default 0.99, a memory of 100 results. */
  readonly discount?: number
  /** Time constant by which it is forgotten as well, ms; default 300 000: for little traffic. */
  readonly decayMs?: number
  /**
   * What to believe of a backend before its first result, for instance what was seen of it by a process before this one; it
   * fades like any result. 'trusted': 4 successes and 0.2 failures. Default: nothing, so that it is tried. Asked once per backend. Make a
   * function once, as for `cost`.
   */
  readonly prior?: 'trusted' | ((backend: Backend) => Prior)
}

type Named<Name extends string, Options = unknown> = { readonly name: Name } & Options

/** Those that leave priorities to the pool. */
export type PlainStrategySettings =
  | Named<'auto' | 'round-robin' | 'weighted-round-robin' | 'random' | 'weighted-random' | 'least'>
  | Named<'p2c' | 'peak-ewma', P2cOptions>
  | Named<'edf', EdfOptions>
  | Named<'orca', OrcaOptions>
  | Named<'prequal', PrequalOptions>
  | Named<'ring-hash', RingHashOptions>
  | Named<'maglev', MaglevOptions>
  | Named<'rendezvous' | 'jump', HashOptions>
  | Named<'smart', SmartOptions>
  | Named<'thompson', ThompsonOptions>

/** A built-in strategy with settings of its own, as `{ name: 'maglev', key: 'header:x-user' }`. */
export type StrategySettings =
  | PlainStrategySettings
  | (Named<'failover', FailoverOptions> & {
      /** What chooses within a priority; default 'auto'. */
      readonly strategy?: StrategyWord | PlainStrategySettings | Strategy
    })
  | Named<'weighted-failover', FailoverOptions>

/** Names of the built-in strategies. Those that hash need settings: `{ name: 'maglev', key: 'call' }`. */
export type StrategyName = StrategySettings['name']

/** The name of a built-in strategy, or of one of your own (`strategies` of the balancer). `string & {}`: editors suggest the names. */
export type StrategyWord = StrategyName | (string & {})
