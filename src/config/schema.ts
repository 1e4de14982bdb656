/** What options may look like, and what becomes of them. The only file that imports zod. */
import { z } from 'zod'
import { UNREAD_BYTES } from '../core/body.ts'
import type { Route } from '../core/call.ts'
import { MAX_DELAY_MS } from '../core/clock.ts'
import type { Clock, Policy, Random, Sink, Strategy, Transport, Watcher } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import type { BalancerOptions, PoolSettings, ResolvedOptions, ResolvedSettings, StrategyName } from '../core/options.ts'
import { ACTIVE_DEFAULTS, DEFAULT_NAME, DEFAULT_POOL, DEFAULTS } from './defaults.ts'
import * as fields from './fields.ts'
import { configError, type Finding, isPlain, nearest, type Path } from './issues.ts'
import { merge } from './merge.ts'
import { contradictions } from './rules.ts'
import { isStatusList } from './status.ts'

const { MAYBE_VERB, NAME, SCOPE, VERB } = fields
const STRATEGY_NAMES = [
  'peak-ewma',
  'p2c',
  'least',
  'round-robin',
  'weighted-round-robin',
  'random',
  'weighted-random',
] as const satisfies readonly StrategyName[]
const ORIGIN_TEXT = 'an http: or https: origin, such as https://api.example.com'

// ---- Building blocks. The message of every check is what was expected, in words.

type Settled<T> = { readonly [Key in keyof T]: Exclude<T[Key], undefined> }

/** Frozen, and without the keys that were spelled out as undefined. */
function settled<T extends object>(value: T): Settled<T> {
  const given = Object.entries(value).filter(([, inner]) => inner !== undefined)
  return Object.freeze(Object.fromEntries(given)) as Settled<T>
}

/** The issue by which `findingsOf` sees that a branch of a union was not meant at all. */
function wrongKind(input: unknown, message: string): z.core.$ZodRawIssue {
  return { code: 'invalid_type', expected: 'object', input, message }
}

function complained(input: unknown, path: string[], { expected, found }: fields.Complaint): z.core.$ZodRawIssue {
  return { code: 'custom', input, path, message: expected, params: { found } }
}

function shape<Fields extends z.core.$ZodLooseShape>(known: Fields) {
  const object = z.strictObject(known, {
    // zod puts all unknown keys of an object into one issue: its message carries the known ones to `findingsOf`.
    error: (issue) => (issue.code === 'unrecognized_keys' ? Object.keys(known).join(' ') : 'an object'),
  })
  // zod takes a Map or a URL for an object that has none of the keys.
  const plain = z.custom<z.input<typeof object>>().check(({ value, issues }) => {
    if (!isPlain(value)) issues.push(wrongKind(value, 'an object'))
  })
  return plain.pipe(object).transform(settled)
}

/** A record of the user's own keys; its values are passed on as they are. */
function record<T>(expected: string, check: (key: string, value: unknown) => fields.Complaint | undefined) {
  return z
    .custom<Readonly<Record<string, T>>>()
    .check(({ value, issues }) => {
      const complaints = fields.recordComplaints(value, check)
      if (complaints === undefined) issues.push(wrongKind(value, expected))
      else for (const [key, complaint] of complaints) issues.push(complained(value, [key], complaint))
    })
    .transform((value): Readonly<Record<string, T>> => Object.freeze({ ...value }))
}

/** Not `z.readonly()`: that freezes the caller's own value when it is no array. */
function list<Element extends z.ZodType>(
  element: Element,
  expected: string,
  least = 0,
): z.ZodType<readonly z.output<Element>[], readonly z.input<Element>[]> {
  const array = z.array(element, expected).refine((value) => value.length >= least, `at least ${least} of them`)
  return array.transform((value) => Object.freeze(value))
}

/** A live object: looked at, and handed on as it is. */
function part<T extends object>(what: string, needs: Readonly<Record<string, fields.Need>>) {
  const required = Object.keys(needs).filter((key) => needs[key] !== MAYBE_VERB)
  return z.custom<T>().check(({ value, issues }) => {
    if (!fields.isObject(value)) {
      issues.push(wrongKind(value, `${what}: an object with ${required.join(', ')}`))
      return
    }
    for (const [key, need] of Object.entries(needs)) {
      if (!need.test(value[key])) issues.push(complained(value, [key], need))
    }
  })
}

function number(expected: string, test: (value: number) => boolean) {
  return z.number(expected).refine(test, expected)
}

function atLeast(least: number) {
  return number(`a number >= ${least}`, (value) => value >= least)
}

function above0(most = Number.MAX_VALUE) {
  const limit = most === Number.MAX_VALUE ? '' : ` and <= ${most}`
  return number(`a number > 0${limit}`, (value) => value > 0 && value <= most)
}

function whole(least: number, most: number = Number.MAX_SAFE_INTEGER, why = '') {
  const limit = most === Number.MAX_SAFE_INTEGER ? '' : ` and <= ${most}`
  const expected = `a whole number >= ${least}${limit}${why}`
  return number(expected, (value) => Number.isSafeInteger(value) && value >= least && value <= most)
}

function text(expected: string, test: (value: string) => boolean) {
  return z.string(expected).refine(test, expected)
}

const share = number('a number from 0 to 1', (value) => value >= 0 && value <= 1)
const time = number(`ms >= 0 and <= ${MAX_DELAY_MS}`, (value) => value >= 0 && value <= MAX_DELAY_MS)
const word = text('a string that is not empty', (value) => value !== '')
const anything = (): undefined => undefined

// ---- The options.

const strategy = z.union([z.enum(STRATEGY_NAMES), part<Strategy>('a strategy', { name: NAME, start: VERB })], {
  error: ({ input }) => {
    const meant = typeof input === 'string' ? nearest(input, STRATEGY_NAMES) : undefined
    const names = [...STRATEGY_NAMES].sort((a, b) => Number(b === meant) - Number(a === meant))
    return `${names.map((name) => `"${name}"`).join(', ')}, or an object with name and start`
  },
})

const url = z.string('a URL').check(({ value, issues }) => {
  const complaint = fields.urlComplaint(value)
  if (complaint !== undefined) issues.push(complained(value, [], complaint))
})

const endpoint = shape({
  url,
  id: text('1 to 256 visible ASCII characters', fields.isId).optional(),
  weight: atLeast(0).optional(),
  priority: whole(0).optional(),
  zone: z.string('a string').optional(),
  tags: list(word, 'an array of strings').optional(),
  maxInflight: whole(1).optional(),
  headers: record<string>('an object of header names and values', fields.headerComplaint).optional(),
  meta: record<unknown>('an object', anything).optional(),
})

const shortEndpoint = url.transform((it): z.output<typeof endpoint> => Object.freeze({ url: it }))
const backends = list(
  z.union([shortEndpoint, endpoint], 'a URL as a string, or an object with a url'),
  'an array of backends',
  1,
)

const passive = shape({
  consecutive: whole(0).optional(),
  baseMs: above0().optional(),
  maxMs: above0().optional(),
  maxShare: number('a number > 0 and <= 1', (value) => value > 0 && value <= 1).optional(),
})

const active = shape({
  type: z.enum(['http', 'tcp'], '"http" or "tcp"').optional(),
  path: text("a path that starts with '/'", fields.isPath).optional(),
  status: text("statuses like '200', '200-399' or '200,204'", isStatusList).optional(),
  intervalMs: above0(MAX_DELAY_MS).optional(),
  jitter: share.optional(),
  timeoutMs: above0(MAX_DELAY_MS).optional(),
  rise: whole(1).optional(),
  fall: whole(1).optional(),
})

const settings = {
  strategy: strategy.optional(),
  health: shape({
    passive: z.union([z.literal(false), passive], 'an object, or false').optional(),
    active: z.union([z.literal(false), active], 'an object, or false').optional(),
    panicBelow: share.optional(),
  }).optional(),
  retry: shape({
    attempts: whole(1, 100).optional(),
    status: list(whole(400, 599), 'an array of statuses').optional(),
    baseMs: atLeast(0).optional(),
    maxMs: atLeast(0).optional(),
    bufferBytes: whole(0).optional(),
    holdBytes: whole(0, UNREAD_BYTES, ' (no more is read ahead, so no more can be held)').optional(),
    budget: shape({
      share: share.optional(),
      perSecond: atLeast(0).optional(),
      windowMs: atLeast(100).optional(),
    }).optional(),
  }).optional(),
  timeouts: shape({
    connectMs: time.optional(),
    headersMs: time.optional(),
    idleMs: time.optional(),
    attemptMs: time.optional(),
    totalMs: time.optional(),
    leaseMs: time.optional(),
  }).optional(),
  undici: shape({
    connections: whole(1).optional(),
    pipelining: whole(1).optional(),
    keepAliveMs: above0(MAX_DELAY_MS).optional(),
    allowH2: z.boolean('true or false').optional(),
    tls: record<unknown>('an object of what tls.connect takes', anything).optional(),
  }).optional(),
  transport: part<Transport>('a transport', {
    name: NAME,
    send: VERB,
    forget: MAYBE_VERB,
    reach: MAYBE_VERB,
    close: MAYBE_VERB,
  }).optional(),
  policies: list(part<Policy>('a policy', { name: NAME, scope: SCOPE, wrap: VERB }), 'an array of policies').optional(),
  watchers: list(part<Watcher>('a watcher', { name: NAME, start: VERB }), 'an array of watchers').optional(),
  sinks: list(
    part<Sink>('a sink', { name: NAME, head: MAYBE_VERB, attempt: MAYBE_VERB, call: MAYBE_VERB }),
    'an array of sinks',
  ).optional(),
}

const origin = text(ORIGIN_TEXT, fields.isOrigin).transform((it) => new URL(it).origin)

const schema = shape({
  name: word.optional(),
  backends: backends.optional(),
  pools: z.record(z.string(), shape({ backends, ...settings }), 'an object of pools by name').optional(),
  origins: list(origin, 'an array of origins').optional(),
  route: z.custom<Route>(fields.isFunction, 'a function').optional(),
  clock: part<Clock>('a clock', { now: VERB, after: VERB }).optional(),
  random: z.custom<Random>(fields.isFunction, 'a function').optional(),
  ...settings,
})

// ---- From options to resolved options.

/** Stands in for what is not given. */
export interface Builtins {
  readonly clock: Clock
  /** Makes a source of chance; called at most once, and only if none is given. */
  random(): Random
}

/**
 * Checks options, fills in every default and returns frozen plain data; parts stay the objects they are. Pools come in
 * the order they were given. Throws one BalancerError with code CONFIG, whose `issues` list everything that is wrong.
 */
export function resolveOptions(options: unknown, builtins: Builtins): ResolvedOptions {
  const { name = DEFAULT_NAME, backends, pools, origins, route, clock, random, ...common } = parsed(options)
  const named = pools ?? { [DEFAULT_POOL]: { backends: backends! } }
  return Object.freeze({
    name,
    pools: Object.freeze(
      Object.entries(named).map(([pool, { backends: endpoints, ...own }]) =>
        Object.freeze({ name: pool, endpoints, settings: settingsOf([common, own]) }),
      ),
    ),
    origins,
    route,
    clock: clock ?? builtins.clock,
    random: random ?? builtins.random(),
  })
}

/** A pool's settings: active checks are off unless somebody asks for them, and then start from defaults of their own. */
function settingsOf(layers: readonly PoolSettings[]): ResolvedSettings {
  const merged = merge(DEFAULTS, layers)
  const asked = layers.flatMap(({ health }) => (health?.active === undefined ? [] : [health.active]))
  const last = asked.at(-1) ?? false
  const checks = last === false ? false : merge(ACTIVE_DEFAULTS, asked)
  return Object.freeze({ ...merged, health: Object.freeze({ ...merged.health, active: checks }) })
}

function parsed(options: unknown): z.output<typeof schema> {
  try {
    // jitless: compiling the schema costs more than the one use of it, and fails where code from strings is forbidden.
    // The casts prove, when compiled, that schema and hand-written options know the same.
    const result = schema.safeParse(options as BalancerOptions satisfies z.input<typeof schema>, { jitless: true })
    const single = result.success ? [] : result.error.issues.flatMap((issue) => findingsOf(issue, []))
    const findings = [...single, ...contradictions(options, single)]
    if (findings.length > 0) throw configError(options, findings)
    return result.data!
  } catch (error) {
    if (error instanceof BalancerError) throw error
    // A getter or a proxy threw.
    throw configError(
      undefined,
      [{ path: [], expected: 'an object that can be read', found: 'one that throws' }],
      error,
    )
  }
}

/** zod's issues in our words. `base` is where the schema that told them stands. */
function findingsOf(issue: z.core.$ZodIssue, base: Path): readonly Finding[] {
  const path = [...base, ...issue.path]
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = issue.message.split(' ')
      return issue.keys.map((key) => ({
        path: [...path, key],
        expected: nearest(key, known) ?? `one of ${known.join(', ')}`,
        found: 'an unknown key',
      }))
    }
    case 'invalid_union': {
      const meant = issue.errors.find((branch) => !branch.some(isWrongKind))
      return meant?.flatMap((inner) => findingsOf(inner, path)) ?? [{ path, expected: issue.message }]
    }
    case 'invalid_key':
      return [{ path, expected: 'a string as the key', found: 'another key' }]
    case 'custom':
      return [{ path, expected: issue.message, found: issue.params?.found as string | undefined }]
    default:
      return [{ path, expected: issue.message }]
  }
}

function isWrongKind({ code, path }: z.core.$ZodIssue): boolean {
  return path.length === 0 && (code === 'invalid_type' || code === 'invalid_value')
}
