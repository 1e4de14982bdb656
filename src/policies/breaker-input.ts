/** What users hand to a breaker, checked by hand: the schema of the configuration does not see it. */

import { MAX_DELAY_MS } from '../core/clock.ts'
import type { BreakerPhase } from '../core/contracts.ts'
import { BalancerError, type ConfigIssue } from '../core/errors.ts'
import { BREAKER_DEFAULTS, BREAKER_FIELDS, type BreakerOptions, type BreakerSettings } from '../core/options.ts'
import type { TripBucket, TripState } from './trip-rules.ts'

/** What a breaker remembers of one backend. */
export interface BackendBreakerState {
  readonly phase: BreakerPhase
  /** Until it lets trials through, ms from the export; 0 unless it is open. */
  readonly leftMs: number
  /** How often it opened since it was last closed. */
  readonly opens: number
  /** What the trip rule remembers. */
  readonly seen: TripState
}

/** Pool -> backend id -> what the breaker remembers of it. Plain data, to be kept as JSON. */
export type BreakerState = Readonly<Record<string, Readonly<Record<string, BackendBreakerState>>>>

interface Check {
  readonly expected: string
  fits(value: unknown): boolean
}

function number(expected: string, fits: (value: number) => boolean): Check {
  return { expected, fits: (value) => typeof value === 'number' && fits(value) }
}

function whole(least: number, most: number = Number.MAX_SAFE_INTEGER): Check {
  const expected = `a whole number >= ${least}${most < Number.MAX_SAFE_INTEGER ? ` and <= ${most}` : ''}`
  return number(expected, (value) => Number.isSafeInteger(value) && value >= least && value <= most)
}

function oneOf(words: readonly string[]): Check {
  return { expected: words.join(' or '), fits: (value) => words.includes(value as string) }
}

const TIME = number(`ms > 0 and <= ${MAX_DELAY_MS}`, (value) => value > 0 && value <= MAX_DELAY_MS)
const AGE = number('ms >= 0', (value) => value >= 0 && value < Infinity)
const PHASE = oneOf(['closed', 'open', 'half-open', 'isolated'])
const COUNT = whole(0)
const FLAG: Check = { expected: 'true or false', fits: (value) => typeof value === 'boolean' }

const LIST: Check = { expected: 'an array', fits: Array.isArray }
const OBJECT: Check = {
  expected: 'an object',
  fits: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
}

/** As in the schema of the configuration. */
const OPTIONS: Readonly<Record<keyof BreakerOptions, Check>> = {
  trip: oneOf(['consecutive', 'count', 'window']),
  consecutive: whole(1),
  threshold: number('a number > 0 and < 1', (value) => value > 0 && value < 1),
  size: whole(1, 10_000),
  windowMs: TIME,
  minRequests: whole(1),
  openMs: TIME,
  maxOpenMs: TIME,
  jitter: number('a number from 0 to 1', (value) => value >= 0 && value <= 1),
  trials: whole(1),
}

const UNKNOWN: Check = { expected: `one of ${Object.keys(OPTIONS).join(', ')}`, fits: () => false }

/** The options with every default filled in; throws one BalancerError CONFIG that lists all that is wrong. */
export function settingsOf(options: BreakerOptions): BreakerSettings {
  const settings: BreakerSettings = { ...BREAKER_DEFAULTS, ...options }
  const issues: ConfigIssue[] = []
  for (const [path, value] of Object.entries(settings)) {
    const check = Object.hasOwn(OPTIONS, path) ? OPTIONS[path as keyof BreakerOptions] : UNKNOWN
    if (!check.fits(value)) issues.push({ path, expected: check.expected, found: foundText(value) })
  }
  if (OPTIONS.trip.fits(settings.trip)) issues.push(...unread({ ...options }, settings, issues))
  if (issues.length > 0) throw refusal('circuitBreaker', issues)
  return settings
}

/** Fields that its trip rule never reads. Complete settings, as the configuration makes them, say all there are. */
function unread(
  options: BreakerOptions,
  { trip }: BreakerSettings,
  wrong: readonly ConfigIssue[],
): readonly ConfigIssue[] {
  if (Object.keys(OPTIONS).every((path) => Object.hasOwn(options, path))) return []
  return Object.entries(BREAKER_FIELDS).flatMap(([path, takers]) => {
    const value = options[path as keyof BreakerOptions]
    if (value === undefined || takers.includes(trip) || wrong.some((issue) => issue.path === path)) return []
    const which = takers.map((taker) => JSON.stringify(taker)).join(' or ')
    const expected = `nothing, since only a breaker that trips by ${which} takes it`
    return [{ path, expected, found: foundText(value) }]
  })
}

/** A copy of a state, for a breaker of this trip rule; throws BalancerError CONFIG at the first thing that is wrong. */
export function stateOf(given: unknown, trip: BreakerSettings['trip']): BreakerState {
  return mapped(given, 'state', (backends, place) =>
    mapped(backends, place, (backend, path) => {
      const { phase, leftMs, opens, seen } = fields(backend, path)
      return {
        phase: read<BreakerPhase>(phase, `${path}.phase`, PHASE),
        leftMs: read<number>(leftMs, `${path}.leftMs`, AGE),
        opens: read<number>(opens, `${path}.opens`, COUNT),
        seen: seenOf(seen, `${path}.seen`, trip),
      }
    }),
  )
}

function seenOf(given: unknown, path: string, trip: BreakerSettings['trip']): TripState {
  const seen = fields(given, path)
  read(seen.trip, `${path}.trip`, oneOf([trip]))
  switch (trip) {
    case 'consecutive':
      return { trip, failures: read<number>(seen.failures, `${path}.failures`, COUNT) }
    case 'count':
      return { trip, outcomes: list(seen.outcomes, `${path}.outcomes`, (it, place) => read<boolean>(it, place, FLAG)) }
    case 'window':
      return { trip, buckets: list(seen.buckets, `${path}.buckets`, bucketOf) }
  }
}

function bucketOf(given: unknown, path: string): TripBucket {
  const { ageMs, successes, failures } = fields(given, path)
  return {
    ageMs: read<number>(ageMs, `${path}.ageMs`, AGE),
    successes: read<number>(successes, `${path}.successes`, COUNT),
    failures: read<number>(failures, `${path}.failures`, COUNT),
  }
}

/** The value, which a check that goes with its type has seen. */
function read<T>(value: unknown, path: string, { expected, fits }: Check): T {
  if (!fits(value)) throw refusal('import', [{ path, expected, found: foundText(value) }])
  return value as T
}

function fields(value: unknown, path: string): Readonly<Record<string, unknown>> {
  return read(value, path, OBJECT)
}

function mapped<T>(
  given: unknown,
  path: string,
  each: (value: unknown, path: string) => T,
): Readonly<Record<string, T>> {
  const entries = Object.entries(fields(given, path))
  return Object.fromEntries(entries.map(([name, value]) => [name, each(value, `${path}[${JSON.stringify(name)}]`)]))
}

function list<T>(given: unknown, path: string, each: (value: unknown, path: string) => T): readonly T[] {
  return read<unknown[]>(given, path, LIST).map((value, i) => each(value, `${path}[${i}]`))
}

function refusal(what: string, issues: readonly ConfigIssue[]): BalancerError {
  const texts = issues.map(({ path, expected, found }) => `${path}: expected ${expected}, found ${found}`)
  return new BalancerError('CONFIG', `${what} refused: ${texts.join('; ')}`, { issues })
}

const LONGEST = 60

function foundText(value: unknown): string {
  if (value === null || typeof value === 'number' || typeof value === 'boolean') return String(value)
  if (typeof value === 'string') return JSON.stringify(value.slice(0, LONGEST))
  return Array.isArray(value) ? 'an array' : typeof value
}
