/** Options with every default filled in: what parts are made from. */
import type { Route } from './call.ts'
import type { Classify, Clock, Endpoint, Policy, Random, Sink, Strategy, Transport, Watcher } from './contracts.ts'
import type {
  ActiveHealthOptions,
  AdaptiveLimitOptions,
  BreakerSettings,
  CooldownOptions,
  FailureShareOptions,
  HedgeOptions,
  Logger,
  LogOptions,
  PassiveHealthOptions,
  QueueOptions,
  RetryOptions,
  SlowStartOptions,
  SuccessRateOptions,
  TimeoutOptions,
  UndiciOptions,
} from './options.ts'
import type { ClassChanges } from './outcome.ts'
import type { PlainStrategySettings, StrategySettings } from './strategy-options.ts'

type Settled<T> = { readonly [K in keyof T]-?: NonNullable<T[K]> }

/** Settled, but for what has no default. */
type Unset<T, Key extends keyof T> = Omit<Settled<T>, Key> & { readonly [K in keyof Pick<T, Key>]-?: T[K] | undefined }

/** Names have become settings, the one within `failover` too. */
export type ResolvedStrategySettings =
  | Exclude<StrategySettings, { readonly name: 'failover' }>
  | (Extract<StrategySettings, { readonly name: 'failover' }> & {
      readonly strategy?: PlainStrategySettings | Strategy
    })

/** A pool's settings with every default filled in. */
export interface ResolvedSettings {
  readonly strategy: ResolvedStrategySettings | Strategy
  readonly health: {
    readonly passive:
      | (Omit<Unset<PassiveHealthOptions, 'maxShare'>, 'successRate' | 'failureShare'> & {
          readonly successRate: Settled<SuccessRateOptions> | false
          readonly failureShare: Settled<FailureShareOptions> | false
        })
      | false
    readonly panicBelow: number
    readonly slowStart: Settled<SlowStartOptions> | false
    readonly cooldown: Settled<CooldownOptions> | false
    readonly active: Unset<ActiveHealthOptions, 'probe' | 'match' | 'idleIntervalMs'> | false
  }
  readonly classify: Classify | undefined
  readonly classes: ClassChanges
  readonly retry: Omit<Settled<RetryOptions>, 'budget'> & {
    readonly budget: Settled<NonNullable<RetryOptions['budget']>>
  }
  readonly hedge: Unset<HedgeOptions, 'delayMs'> | false
  readonly breaker: BreakerSettings | false
  readonly limits: {
    readonly maxInflight: number | undefined
    readonly queue: Settled<QueueOptions> | false
    readonly adaptive: Settled<AdaptiveLimitOptions> | false
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
  readonly revisions: number
  readonly logger: Logger | undefined
  readonly log: LogOptions
  readonly clock: Clock
  readonly random: Random
}
