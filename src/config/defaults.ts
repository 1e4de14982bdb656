import { BREAKER_DEFAULTS, CONNECTION_DEFAULTS, type PoolSettings } from '../core/options.ts'
import type { ResolvedSettings } from '../core/resolved.ts'
import type { BerrySettings } from './tables.ts'

/** Name of a balancer that was given none. */
export const DEFAULT_NAME = 'evenkeel'
/** Configurations that are kept for a rollback: a day of mistakes. */
export const DEFAULT_REVISIONS = 10
/** Name of the pool made of top-level `backends`. */
export const DEFAULT_POOL = 'default'

/** Nobody has asked yet what a strategy's name stands for. */
export interface MergedSettings extends Omit<ResolvedSettings, 'strategy'> {
  readonly strategy: NonNullable<PoolSettings['strategy']>
}

type Given<Section> = Exclude<Section, false>
type Passive = Given<ResolvedSettings['health']['passive']>

/** Where sections start from that are off until somebody asks for them, each in its place. */
export const WHEN_GIVEN: {
  readonly health: {
    readonly active: Given<ResolvedSettings['health']['active']>
    readonly passive: { readonly failureShare: Given<Passive['failureShare']> }
  }
  readonly hedge: Given<ResolvedSettings['hedge']>
  readonly breaker: Given<ResolvedSettings['breaker']>
  readonly limits: {
    readonly queue: Given<ResolvedSettings['limits']['queue']>
    readonly adaptive: Given<ResolvedSettings['limits']['adaptive']>
  }
} = deepFrozen({
  health: {
    active: {
      type: 'http', // says more than an open port
      probe: undefined, // one of the built-in ones
      path: '/', // the one path every server has
      method: 'GET', // what every server answers
      headers: {}, // none but the check's own
      match: undefined, // any body will do
      service: '', // the server as a whole
      status: '200-399', // a redirect is an answer of a working server
      intervalMs: 5_000, // a dead idle backend is found within a quarter of a minute
      fastIntervalMs: 1_000, // the second and third opinion come soon
      idleIntervalMs: undefined, // as intervalMs
      initial: 'probe', // a restart must not wait for checks
      jitter: 0.1, // many clients must not ask in step
      timeoutMs: 2_000, // a check that takes longer says enough
      rise: 2, // one good answer may be luck
      fall: 3, // one bad answer may be bad luck
    },
    passive: {
      failureShare: {
        share: 0.85, // nearly all
        minBackends: 5, // as for the success rate
        minRequests: 50, // enough for a share
      },
    },
  },
  hedge: {
    delayMs: undefined, // by percentile
    percentile: 0.95, // one call in twenty is slower
    minDelayMs: 1, // below, a second send is never the faster one
    warmUp: 100, // a quantile of fewer is noise
    maxShare: 0.2, // beyond it is not one backend that is slow
  },
  breaker: BREAKER_DEFAULTS, // shared with breakers made by hand
  limits: {
    queue: {
      size: 100, // a burst, not a backlog
      timeoutMs: 1_000, // who waits longer is better told
      order: 'adaptive', // under overload only the newest still have a caller who waits
      overloadMs: 100, // CoDel's interval
    },
    adaptive: {
      algorithm: 'gradient2', // follows latency alone
      initial: 20, // where it learns fast
      min: 1, // somebody must measure
      max: 200, // a bound, far above what one process sends
    },
  },
})

/** Every default of a pool's settings. Only what transports of their own start from stands elsewhere, in core. */
export const DEFAULTS: MergedSettings = deepFrozen({
  strategy: 'auto', // steers around slow backends by itself
  health: {
    active: false, // only you know what to ask
    passive: {
      consecutive: 5, // one hiccup is no outage; five in a row are
      consecutiveGateway: 0, // every failure counts already
      consecutiveLocal: 0, // a reset says as much as a 500
      successRate: {
        deviations: 1.9, // one of five that always fails is two away from the mean
        minBackends: 5, // fewer cannot be that far away
        minRequests: 100, // enough for a rate
      },
      failureShare: false, // the other two find it sooner
      intervalMs: 10_000, // a rate needs requests
      baseMs: 5_000, // long enough for a restart
      maxMs: 300_000, // a repaired backend is noticed within minutes
      maxShare: undefined, // depends on the size of the pool: 0.5 under ten backends, else 0.1
      jitter: 0.1, // many clients must not return at once
      dryRun: false, // ejecting is the point
    },
    panicBelow: 0.5, // when half are out, the detector is more likely wrong than they
    slowStart: {
      by: 'time', // needs no traffic to end
      windowMs: 10_000, // caches and pools of connections fill
      aggression: 1, // straight
      minShare: 0.1, // enough to be measured
      dwellMs: 2_000, // a burst of good answers is one good answer
    },
    cooldown: {
      rateLimitMs: 1_000, // the shortest window of any limit
      credentialMs: 300_000, // a person has to mend it
      maxMs: 60_000, // a mistaken header must not cost a day
    },
  },
  classify: undefined, // the table
  classes: {}, // as they are
  retry: {
    attempts: 3, // the first and two others
    status: [429, 502, 503, 504], // said by whoever stands in front of the work
    baseMs: 25, // below what a person notices
    sameBaseMs: 250, // whoever just failed needs a moment
    maxMs: 5_000, // a longer pause is a failure to the caller
    jitter: 'full', // spreads a crowd best
    waitMs: 10_000, // longer than that nobody sits and waits
    bufferBytes: 65_536, // nearly every JSON request
    holdBytes: 16_384, // usually arrives with the head
    budget: {
      share: 0.2, // an outage costs a fifth more, not three times as much
      perSecond: 10, // little traffic may retry too
      windowMs: 10_000, // what was saved up in quiet hours does not fuel a storm
    },
  },
  hedge: false, // costs load: yours to spend
  breaker: false, // ejection is on already
  limits: {
    maxInflight: undefined, // none
    queue: false, // refusing at once is honest
    adaptive: false, // the server owns its limit
  },
  timeouts: {
    connectMs: 5_000, // survives a lost SYN and its repeats after 1 s and 3 s
    headersMs: 30_000, // nobody waits longer for a first byte
    firstByteMs: 0, // idleMs bounds it
    idleMs: 300_000, // slow streams live
    attemptMs: 0, // only the caller knows
    totalMs: 0, // only the caller knows
    leaseMs: 60_000, // a lease nobody ends must not count for ever
  },
  undici: CONNECTION_DEFAULTS, // one connection a request; under the 5 s after which Node's server hangs up
  transport: undefined, // the built-in one
  policies: [], // nothing of yours
  watchers: [], // nothing of yours
  sinks: [], // nothing of yours
})

/** What Berry's files mean by what they do not say; evenkeel's own pools start from `DEFAULTS`. */
export const BERRY_DEFAULTS: Required<
  Omit<BerrySettings, 'max_internal_retries' | 'smart_ai' | 'batch_metrics' | 'database'>
> = Object.freeze({
  health_check_interval_seconds: 30,
  health_check_timeout_seconds: 10,
  request_timeout_seconds: 30,
  max_retries: 3,
  circuit_breaker_failure_threshold: 5,
  circuit_breaker_timeout_seconds: 60,
  recovery_check_interval_seconds: 120,
})

/** A default gives way to the bounds that are said around it. */
export function fitted(settings: MergedSettings): MergedSettings {
  const { limits } = settings
  if (limits.adaptive === false) return settings
  const { initial, min, max } = limits.adaptive
  const adaptive = Object.freeze({ ...limits.adaptive, initial: Math.max(min, Math.min(max, initial)) })
  return Object.freeze({ ...settings, limits: Object.freeze({ ...limits, adaptive }) })
}

function deepFrozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  for (const inner of Object.values(value)) deepFrozen(inner)
  return Object.freeze(value)
}
