/** What a configuration file may hold, as plain data, and what becomes of it. */

import type { Clock, Policy, Probe, Sink, Strategy, Transport, Watcher } from '../core/contracts.ts'
import type { ConfigIssue } from '../core/errors.ts'
import type { BalancerOptions, PoolOptions } from '../core/options.ts'
import type { Secret } from '../core/secret.ts'
import type { StrategySettings } from '../core/strategy-options.ts'

/** Berry's `[settings]`. What is not said here is so for models only; pools have evenkeel's defaults. */
export interface BerrySettings {
  /** Between two active checks, s; default 30. */
  readonly health_check_interval_seconds?: number
  /** Longest active check, s; default 10. */
  readonly health_check_timeout_seconds?: number
  /** Until the head of an answer, 1 to 300 s; default 30. */
  readonly request_timeout_seconds?: number
  /** Repeats after the first attempt, at most 10; default 3. */
  readonly max_retries?: number
  /** Does nothing: a pick never draws somebody unhealthy. */
  readonly max_internal_retries?: number
  /** Failures in a row that open the breaker; default 5. */
  readonly circuit_breaker_failure_threshold?: number
  /** How long it stays open, s; default 60. */
  readonly circuit_breaker_timeout_seconds?: number
  /** How long an ejected backend is left alone the first time, s; default 120. */
  readonly recovery_check_interval_seconds?: number
  /** Does nothing: the strategy has numbers of its own. */
  readonly smart_ai?: SmartAiTable
  /** Does nothing: numbers are kept in memory. */
  readonly batch_metrics?: {
    readonly batch_size?: number
    readonly flush_interval_seconds?: number
    readonly buffer_size?: number
    readonly enable_compression?: boolean
  }
  /** Does nothing: there is no database. */
  readonly database?: { readonly url?: string; readonly max_connections?: number; readonly timeout_seconds?: number }
}

/** Berry's `[settings.smart_ai]`. */
export interface SmartAiTable {
  readonly initial_confidence?: number
  readonly min_confidence?: number
  readonly enable_time_decay?: boolean
  readonly lightweight_check_interval_seconds?: number
  readonly exploration_ratio?: number
  readonly non_premium_stability_bonus?: number
  readonly confidence_adjustments?: {
    readonly success_boost?: number
    readonly network_error_penalty?: number
    readonly auth_error_penalty?: number
    readonly rate_limit_penalty?: number
    readonly server_error_penalty?: number
    readonly model_error_penalty?: number
    readonly timeout_penalty?: number
  }
}

/** One account at a service behind an API key. */
export interface ProviderTable {
  readonly name: string
  /** With or without `/v1` at its end. */
  readonly base_url: string
  /** At least 10 characters, unless the provider is disabled. */
  readonly api_key: string
  /** Names that its models have there. */
  readonly models: readonly string[]
  /** Sent with every request; each once, in whatever case. */
  readonly headers?: Readonly<Record<string, string>>
  /** default true. */
  readonly enabled?: boolean
  /** As `request_timeout_seconds`, for this provider. */
  readonly timeout_seconds?: number
  /** Repeats, at most 10; default: as in the settings. A model repeats as often as the provider of its backends with the most. */
  readonly max_retries?: number
  /** In which header the key goes; default 'openai'. */
  readonly backend_type?: 'openai' | 'claude' | 'gemini'
}

export interface ModelBackendTable {
  /** Name of a table of `[providers]`. */
  readonly provider: string
  /** One of that provider's `models`. */
  readonly model: string
  /** Above 0, at most 100; default 1. */
  readonly weight?: number
  /** 0 is tried first, at most 10; default 0. */
  readonly priority?: number
  /** default true. */
  readonly enabled?: boolean
  /** A call that asks for tags gets backends that have all of them; default []. */
  readonly tags?: readonly string[]
  /** A model with a backend that is paid per request gets no active checks; default 'per_token'. */
  readonly billing_mode?: 'per_token' | 'per_request'
}

/** The keys of a model that are Berry's own; it may have every setting of a pool besides. */
export interface ModelTable {
  /** What clients call it: the name and the key of no other model that is enabled. */
  readonly name: string
  /** Berry's names or evenkeel's; default 'smart_ai'. */
  readonly strategy?: unknown
  /** default true. */
  readonly enabled?: boolean
  readonly backends: readonly ModelBackendTable[]
}

export interface UserTable {
  readonly name: string
  /** At least 16 characters without white space. */
  readonly token: string
  /** Keys or names of models; default []: all of them. */
  readonly allowed_models?: readonly string[]
  /** default true. */
  readonly enabled?: boolean
  /** default []: every backend. */
  readonly tags?: readonly string[]
  readonly rate_limit?: RateLimitTable
}

/** default: no limit. */
export interface RateLimitTable {
  /** At most 1 000. */
  readonly requests_per_minute?: number
  /** At most 60 000. */
  readonly requests_per_hour?: number
  /** At most 1 440 000. */
  readonly requests_per_day?: number
}

/** What a Berry API file consists of. */
export interface BerryTables {
  readonly settings?: BerrySettings
  readonly providers?: Readonly<Record<string, ProviderTable>>
  readonly models?: Readonly<Record<string, ModelTable>>
  readonly users?: Readonly<Record<string, UserTable>>
}

/** Parts and functions: no file can hold them. */
type Live = ((...given: never[]) => unknown) | Clock | Policy | Probe | Sink | Strategy | Transport | Watcher | Secret
type Snake<Key> = string extends Key
  ? Key // any name, as of a header
  : Key extends `${infer Head}${infer Tail}`
    ? `${Head extends Uppercase<Head> ? (Head extends Lowercase<Head> ? Head : `_${Lowercase<Head>}`) : Head}${Snake<Tail>}`
    : ''
type Writable<Key, Value> = [Exclude<Value, undefined | Live | readonly Live[]>] extends [never] ? never : Key

/** Options as a file spells them: in snake_case; `intervalMs` as `interval`, `interval_ms` or `interval_seconds`. */
export type Spelt<T> = T extends string
  ? T
  : T extends StrategySettings // with nothing but a name it would pass for a sink
    ? SpeltKeys<T>
    : T extends Live
      ? never
      : T extends readonly (infer Element)[]
        ? readonly Spelt<Element>[]
        : T extends object
          ? SpeltKeys<T>
          : T

type SpeltKeys<T> = {
  readonly [Key in keyof T as Key extends `${string}Ms` ? never : Snake<Writable<Key, T[Key]>>]: Spelt<T[Key]>
} & {
  readonly [Key in keyof T as Key extends `${infer Stem}Ms` ? Snake<Stem> : never]?: string | 0
} & {
  readonly [Key in keyof T as Key extends `${infer Stem}Ms`
    ? `${Snake<Stem>}_ms` | `${Snake<Stem>}_seconds`
    : never]?: number
}

/** A whole configuration file. */
export interface ConfigTables extends Omit<BerryTables, 'settings'> {
  readonly settings?: Spelt<Omit<BalancerOptions, 'backends' | 'pools' | 'logger' | 'log'>> & BerrySettings
  /** The backends of the only pool. */
  readonly backends?: readonly (string | Spelt<Exclude<PoolOptions['backends'][number], string>>)[]
  readonly pools?: Readonly<Record<string, Spelt<PoolOptions>>>
}

/** A model that is enabled: its pool has the name of its table. */
export interface ModelConfig {
  readonly pool: string
  /** What clients call it. */
  readonly name: string
}

export interface UserConfig {
  /** Name of its table. */
  readonly id: string
  readonly name: string
  readonly token: Secret
  readonly enabled: boolean
  readonly tags: readonly string[]
  /** Pools of models; empty: all of them. */
  readonly allowedPools: readonly string[]
  readonly limits: {
    readonly perMinute: number | undefined
    readonly perHour: number | undefined
    readonly perDay: number | undefined
  }
}

/** What a configuration file comes to. */
export interface Config {
  /** For `createBalancer`. */
  readonly options: BalancerOptions
  readonly models: readonly ModelConfig[]
  /** Read and checked; nothing enforces them yet. */
  readonly users: readonly UserConfig[]
  /** What loads, but will hurt. */
  readonly warnings: readonly ConfigIssue[]
  /** Absolute paths of what `${file:path}` took in: a change of one of them changes the configuration. */
  readonly files: readonly string[]
}
