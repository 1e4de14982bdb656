/** What Berry's `[settings]` mean in evenkeel's words. */
import { BREAKER_FIELDS } from '../core/options.ts'
import { BERRY_DEFAULTS, DEFAULTS } from './defaults.ts'
import type { Draft } from './draft.ts'
import { type Finding, valueAt } from './issues.ts'
import type { Table } from './plain.ts'

type Numbers = Readonly<Record<keyof typeof BERRY_DEFAULTS, number>>

/** One setting. */
interface Meaning {
  /** What brings it; the first one is its own word, the others bring its default along. */
  readonly keys: readonly [keyof Numbers, ...(keyof Numbers)[]]
  readonly sets: readonly string[]
  /** What is said of these is not to be broken by a default. */
  readonly beside?: readonly (readonly string[])[]
  /** It gives way to what is said of it. */
  readonly yields?: true
  value(numbers: Numbers): unknown
}

const MEANINGS: readonly Meaning[] = [
  { keys: ['max_retries'], sets: ['retry', 'attempts'], value: (it) => it.max_retries + 1 },
  {
    keys: ['circuit_breaker_failure_threshold', 'circuit_breaker_timeout_seconds'],
    sets: ['breaker', 'trip'],
    value: () => 'consecutive',
  },
  {
    keys: ['circuit_breaker_failure_threshold', 'circuit_breaker_timeout_seconds'],
    sets: ['breaker', 'consecutive'],
    value: (it) => it.circuit_breaker_failure_threshold,
  },
  {
    keys: ['circuit_breaker_timeout_seconds', 'circuit_breaker_failure_threshold'],
    sets: ['breaker', 'openMs'],
    beside: [['breaker', 'maxOpenMs']],
    value: (it) => it.circuit_breaker_timeout_seconds * 1_000,
  },
  {
    keys: ['circuit_breaker_timeout_seconds', 'circuit_breaker_failure_threshold'],
    sets: ['breaker', 'maxOpenMs'],
    beside: [['breaker', 'openMs']],
    yields: true,
    value: (it) => it.circuit_breaker_timeout_seconds * 1_000,
  },
  {
    keys: ['health_check_interval_seconds', 'health_check_timeout_seconds'],
    sets: ['health', 'active', 'intervalMs'],
    beside: [['health', 'active', 'idleIntervalMs']],
    value: (it) => it.health_check_interval_seconds * 1_000,
  },
  {
    keys: ['health_check_timeout_seconds', 'health_check_interval_seconds'],
    sets: ['health', 'active', 'timeoutMs'],
    value: (it) => it.health_check_timeout_seconds * 1_000,
  },
  {
    keys: ['recovery_check_interval_seconds'],
    sets: ['health', 'passive', 'baseMs'],
    beside: [['health', 'passive', 'maxMs']],
    value: (it) => it.recovery_check_interval_seconds * 1_000,
  },
  {
    keys: ['recovery_check_interval_seconds'],
    sets: ['health', 'passive', 'maxMs'],
    beside: [['health', 'passive', 'baseMs']],
    yields: true,
    value: (it) => Math.max(LONGEST_EJECTION_MS, it.recovery_check_interval_seconds * 1_000),
  },
  {
    keys: ['request_timeout_seconds'],
    sets: ['timeouts', 'headersMs'],
    value: (it) => it.request_timeout_seconds * 1_000,
  },
  {
    keys: ['request_timeout_seconds'],
    sets: ['timeouts', 'attemptMs'],
    beside: [
      ['timeouts', 'totalMs'],
      ['timeouts', 'headersMs'],
    ],
    value: (it) => it.request_timeout_seconds * 1_000,
  },
]
/** Fields of a breaker that one of Berry's, which counts failures in a row, does not read. */
const OTHER_TRIPS = Object.entries(BREAKER_FIELDS).flatMap(([field, trips]) =>
  trips.includes('consecutive') ? [] : [field],
)
const LONGEST_EJECTION_MS = DEFAULTS.health.passive === false ? 0 : DEFAULTS.health.passive.maxMs

/** Adds what the file says in Berry's words to the settings of the balancer. Saying it in both is an error. */
export function addBerrySettings(common: Draft, table: Table): readonly Finding[] {
  const said = Object.keys(BERRY_DEFAULTS).filter((key) => typeof table[key] === 'number')
  const numbers = { ...BERRY_DEFAULTS, ...Object.fromEntries(said.map((key) => [key, table[key]])) }
  return MEANINGS.flatMap(({ keys, sets, yields, value }): readonly Finding[] => {
    const key = keys.find((it) => said.includes(it))
    if (key === undefined) return []
    const path = ['settings', key]
    if (!common.says(sets)) common.put(sets, value(numbers), path)
    else if (yields !== true && key === keys[0]) {
      return [{ path, expected: `either ${key} or ${common.originOf(sets).join('.')}`, found: 'both' }]
    }
    return []
  })
}

/**
 * Adds Berry's defaults to the settings of a model, where neither they nor those of the balancer say anything. Nobody wrote them:
 * they stand nowhere in the file.
 */
export function addBerryDefaults(own: Draft, common: Draft): void {
  const isSaid = (path: readonly string[]): boolean => own.says(path) || common.says(path)
  const trips = [own, common].map(({ settings }) => valueAt(settings, ['breaker', 'trip']))
  const trip = trips.find((it) => it !== undefined) ?? 'consecutive'
  const isOther = trip !== 'consecutive' || OTHER_TRIPS.some((field) => isSaid(['breaker', field]))
  const left = MEANINGS.filter(({ sets, beside = [] }) => ![sets, ...beside].some(isSaid))
  for (const { sets, value } of left) {
    if (!isOther || sets[0] !== 'breaker') own.put(sets, value(BERRY_DEFAULTS))
  }
}

/** Sends in all, for a provider that does not say how many repeats. */
export function usualAttempts(common: Draft): number {
  const said = valueAt(common.settings, ['retry', 'attempts'])
  return typeof said === 'number' ? said : BERRY_DEFAULTS.max_retries + 1
}
