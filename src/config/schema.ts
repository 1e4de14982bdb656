/** What options may look like, and what becomes of them. Longer than a file should be: one schema, and zod stays out of every other file but `berry-schema.ts`. */
import { z } from 'zod'
import { UNREAD_BYTES } from '../core/body.ts'
import type { Route } from '../core/call.ts'
import { MAX_DELAY_MS } from '../core/clock.ts'
import type {
  Classify,
  Clock,
  KeySource,
  Policy,
  Probe,
  Random,
  Sink,
  Strategy,
  Transport,
  Watcher,
} from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import type { BalancerOptions, Logger, LogOptions, PoolSettings } from '../core/options.ts'
import { CLASSES, type OutcomeClass } from '../core/outcome.ts'
import type { ResolvedOptions } from '../core/resolved.ts'
import { Secret } from '../core/secret.ts'
import { isKeySource, isPrime } from '../core/spelling.ts'
import type { Cost, ThompsonOptions } from '../core/strategy-options.ts'
import { DEFAULT_NAME, DEFAULT_POOL, DEFAULT_REVISIONS, DEFAULTS, fitted, WHEN_GIVEN } from './defaults.ts'
import * as fields from './fields.ts'
import { configError, type Finding, isPlain, nearest, type Path } from './issues.ts'
import type { JsonSchema } from './json-schema.ts'
import { merge } from './merge.ts'
import { contradictions } from './rules.ts'
import { isStatusList } from './status.ts'
import { KEY_TEXT, PLAIN_NAMES, settledStrategy, strategyText } from './strategies.ts'

const { MAYBE_VERB, NAME, SCOPE, VERB } = fields
const CLASS_NAMES = Object.keys(CLASSES) as OutcomeClass[]
const ORIGIN_TEXT = 'an http: or https: origin, such as https://api.example.com'

// ---- Building blocks. The message of every check is what was expected, in words.

type Known = Readonly<Record<string, z.ZodType>>
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

/** An object with these keys and no others; all may be left out but the required ones. */
function shape<Fields extends Known, Required extends Known = Record<never, never>>(
  fields: Fields,
  required: Required = {} as Required,
) {
  const known = { ...required, ...optional(fields) }
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

function optional<Fields extends Known>(fields: Fields): { [Key in keyof Fields]: z.ZodOptional<Fields[Key]> } {
  const all = Object.entries(fields).map(([key, field]) => [key, z.optional(field)])
  return Object.fromEntries(all)
}

/** A section that `false` switches off. */
function section<Fields extends Known>(fields: Fields) {
  return z.union([z.literal(false), shape(fields)], 'an object ({} = the defaults), or false')
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
    .meta({ type: 'object' })
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
  return z.number(expected).refine(test, expected).describe(expected)
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

function timeUpTo(most: number) {
  return number(`ms >= 0 and <= ${most}`, (value) => value >= 0 && value <= most)
}

function text(expected: string, test: (value: string) => boolean) {
  return z.string(expected).refine(test, expected).describe(expected)
}

function oneOf<const Word extends string>(words: readonly Word[]) {
  return z.enum(words, fields.wordsText(words))
}

const share = number('a number from 0 to 1', (value) => value >= 0 && value <= 1)
const someShare = number('a number > 0 and <= 1', (value) => value > 0 && value <= 1)
const partShare = number('a number > 0 and < 1', (value) => value > 0 && value < 1)
const time = timeUpTo(MAX_DELAY_MS)
/** A time that cannot be switched off. */
const span = above0(MAX_DELAY_MS)
/** Times that end up to a tenth later, and are delays even then. */
const MAX_SHIFTED_MS = Math.floor(MAX_DELAY_MS / 1.1)
const shiftedSpan = above0(MAX_SHIFTED_MS)
const shiftedTime = timeUpTo(MAX_SHIFTED_MS)
const flag = z.boolean('true or false')
const word = text('a string that is not empty', (value) => value !== '')
const anything = (): undefined => undefined

// ---- The options.

/** A strategy's own settings beside its name. Another name is another branch of the union. */
function named<const Name extends string, Fields extends Known, Required extends Known = Record<never, never>>(
  names: readonly Name[],
  fields: Fields,
  required: Required = {} as Required,
) {
  const whole = shape(fields, { name: oneOf(names), ...required })
  const meant = z.custom<z.input<typeof whole>>().check(({ value, issues }) => {
    const input: unknown = value
    if (!isSettings(input) || !names.includes(input.name as Name)) issues.push(wrongKind(value, 'other settings'))
  })
  return meant.pipe(whole)
}

/** A strategy itself has a `start`. */
function isSettings(value: unknown): value is Readonly<Record<string, unknown>> {
  return isPlain(value) && !('start' in value)
}

/** Settings of a strategy that does not exist. */
function noSuchName(names?: readonly string[]) {
  return z.custom<never>().check(({ value, issues }) => {
    const input: unknown = value
    if (!isSettings(input)) issues.push(wrongKind(input, 'settings'))
    else issues.push(complained(input, ['name'], { expected: strategyText(input.name, names), found: undefined }))
  })
}

/** Said of a key beside a name that stands alone. */
const NO_SETTINGS = 'nothing beside name: this one has no settings'

const ownStrategy = part<Strategy>('a strategy', { name: NAME, start: VERB, keyOf: MAYBE_VERB })
const anyStrategy = z
  .custom<Strategy>()
  .check(({ value, issues }) => {
    if (isSettings(value)) issues.push(wrongKind(value, 'a strategy'))
  })
  .pipe(ownStrategy)

const cost = z.custom<Cost>(fields.isFunction, 'a function')
const hashed = [
  {
    whenOut: oneOf(['redistribute', 'fail']),
    bound: number('a number > 1', (value) => value > 1),
  },
  { key: z.custom<KeySource>(isKeySource, KEY_TEXT).meta({ type: 'string' }) },
] as const
const plainSettings = [
  named(['auto', 'round-robin', 'weighted-round-robin', 'random', 'weighted-random', 'least'], {}),
  named(['p2c', 'peak-ewma'], { choices: whole(2) }),
  named(['edf'], { bias: atLeast(0) }),
  named(['orca'], { blackoutMs: atLeast(0), expireMs: atLeast(0), updateMs: atLeast(0), errorPenalty: atLeast(0) }),
  named(['prequal'], {
    path: text("a path that starts with '/'", fields.isPath),
    probesPerRequest: number('a number from 0.1 to 100', (value) => value >= 0.1 && value <= 100),
    removalsPerRequest: number('a number from 0 to 100', (value) => value >= 0 && value <= 100),
    poolSize: whole(2, 256),
    maxAgeMs: atLeast(1),
    rifQuantile: share,
    timeoutMs: number(`ms >= 1 and <= ${MAX_DELAY_MS}`, (value) => value >= 1 && value <= MAX_DELAY_MS),
    maxProbesPerSecond: atLeast(1),
  }),
  named(
    ['ring-hash'],
    {
      ...hashed[0],
      like: oneOf(['envoy', 'nginx']),
      points: number('a number from 1 to 65536', (value) => value >= 1 && value <= 65_536),
      minSize: whole(1),
      maxSize: whole(1, 8_388_608),
    },
    hashed[1],
  ),
  named(
    ['maglev'],
    { ...hashed[0], size: number('a prime up to 5000011', (value) => value <= 5_000_011 && isPrime(value)) },
    hashed[1],
  ),
  named(['rendezvous', 'jump'], ...hashed),
  named(['smart'], { cost }),
  named(['thompson'], {
    cost,
    value: above0(),
    latencyCost: atLeast(0),
    discount: someShare,
    decayMs: above0(),
    prior: z
      .custom<ThompsonOptions['prior']>((it) => it === 'trusted' || fields.isFunction(it), '"trusted" or a function')
      .meta({ enum: ['trusted'] }),
  }),
] as const
/** Not `number`: Infinity means something here. */
const overprovisioning = z
  .custom<number>((value) => typeof value === 'number' && value >= 1, 'a number >= 1')
  .meta({
    type: 'number',
  })
const inner = z.union([z.string(), ...plainSettings, anyStrategy, noSuchName(PLAIN_NAMES)], {
  error: ({ input }) => strategyText(input, PLAIN_NAMES),
})
const strategy = z.union(
  [
    z.string(),
    ...plainSettings,
    named(['failover'], { overprovisioning, strategy: inner }),
    named(['weighted-failover'], { overprovisioning }),
    anyStrategy,
    noSuchName(),
  ],
  { error: ({ input }) => strategyText(input) },
)

const url = z.string('a URL').check(({ value, issues }) => {
  const complaint = fields.urlComplaint(value)
  if (complaint !== undefined) issues.push(complained(value, [], complaint))
})

const headers = record<string | Secret>('an object of header names and values', fields.headerComplaint).transform(
  (values): Readonly<Record<string, Secret>> =>
    Object.freeze(Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Secret.of(value)]))),
)

const attemptTimes = { connectMs: time, headersMs: time, firstByteMs: time, idleMs: time, attemptMs: time }

const endpoint = shape(
  {
    id: text('1 to 256 visible ASCII characters', fields.isId),
    weight: atLeast(0),
    priority: whole(0),
    zone: z.string('a string'),
    tags: list(word, 'an array of strings'),
    maxInflight: whole(1),
    timeouts: shape(attemptTimes),
    headers,
    meta: record<unknown>('an object', anything),
  },
  { url },
)
const shortEndpoint = url.transform((it): z.output<typeof endpoint> => Object.freeze({ url: it }))
const backends = list(
  z.union([shortEndpoint, endpoint], 'a URL as a string, or an object with a url'),
  'an array of backends',
  1,
)

const passive = section({
  consecutive: whole(0),
  consecutiveGateway: whole(0),
  consecutiveLocal: whole(0),
  successRate: section({ deviations: above0(), minBackends: whole(2), minRequests: whole(1) }),
  failureShare: section({ share: someShare, minBackends: whole(1), minRequests: whole(1) }),
  intervalMs: span,
  baseMs: shiftedSpan,
  maxMs: shiftedSpan,
  maxShare: someShare,
  jitter: share,
  dryRun: flag,
})

const active = section({
  type: oneOf(['http', 'tcp', 'grpc']),
  probe: part<Probe>('a probe', { name: NAME, check: VERB }),
  path: text("a path that starts with '/'", fields.isPath),
  method: text('a method in capitals, such as GET', fields.isMethod),
  headers,
  match: text('1 to 1024 bytes of UTF-8', fields.isMatch),
  service: z.string('a string'),
  status: text("statuses like '200', '200-399' or '200,204'", isStatusList),
  intervalMs: span,
  fastIntervalMs: span,
  idleIntervalMs: span,
  initial: oneOf(['up', 'down', 'probe']),
  jitter: share,
  timeoutMs: span,
  rise: whole(1),
  fall: whole(1),
})

const health = shape({
  active,
  passive,
  panicBelow: share,
  slowStart: section({
    by: oneOf(['time', 'success']),
    windowMs: span,
    aggression: above0(),
    minShare: someShare,
    dwellMs: time,
  }),
  cooldown: section({ rateLimitMs: shiftedTime, credentialMs: shiftedTime, maxMs: shiftedTime }),
})

const rule = shape({
  retry: oneOf(['never', 'always', 'safe', 'status', 'fresh']),
  health: oneOf(['success', 'failure', 'none']),
  latency: oneOf(['sample', 'slow', 'none']),
  cool: oneOf(['none', 'hint', 'rate-limit', 'credential']),
})

const retry = shape({
  attempts: whole(1, 100),
  status: list(whole(400, 599), 'an array of statuses'),
  baseMs: atLeast(0),
  sameBaseMs: atLeast(0),
  maxMs: atLeast(0),
  jitter: oneOf(['full', 'equal', 'decorrelated', 'none']),
  waitMs: time,
  bufferBytes: whole(0),
  holdBytes: whole(0, UNREAD_BYTES, ' (no more is read ahead, so no more can be held)'),
  budget: shape({ share, perSecond: atLeast(0), windowMs: atLeast(100) }),
})

const breaker = section({
  trip: oneOf(['consecutive', 'count', 'window']),
  consecutive: whole(1),
  threshold: partShare,
  size: whole(1, 10_000),
  windowMs: span,
  minRequests: whole(1),
  openMs: span,
  maxOpenMs: span,
  jitter: share,
  trials: whole(1),
})

const adaptive = section({
  algorithm: oneOf(['gradient2', 'aimd', 'vegas']),
  initial: whole(1),
  min: whole(1),
  max: whole(1),
})

const undici = shape({
  connections: whole(1),
  pipelining: whole(1),
  keepAliveMs: span,
  allowH2: flag,
  tls: record<unknown>('an object of what tls.connect takes', anything),
})

const settings = {
  strategy,
  health,
  classify: z.custom<Classify>(fields.isFunction, 'a function'),
  classes: shape(Object.fromEntries(CLASS_NAMES.map((name) => [name, rule])) as Record<OutcomeClass, typeof rule>),
  retry,
  hedge: section({ delayMs: time, percentile: partShare, minDelayMs: time, warmUp: whole(1), maxShare: someShare }),
  breaker,
  limits: shape({
    maxInflight: whole(1),
    queue: section({ size: whole(1), timeoutMs: span, order: oneOf(['fifo', 'lifo', 'adaptive']), overloadMs: span }),
    adaptive,
  }),
  timeouts: shape({ ...attemptTimes, totalMs: time, leaseMs: time }),
  undici,
  transport: part<Transport>('a transport', {
    name: NAME,
    send: VERB,
    forget: MAYBE_VERB,
    reach: MAYBE_VERB,
    close: MAYBE_VERB,
  }),
  policies: list(part<Policy>('a policy', { name: NAME, scope: SCOPE, wrap: VERB }), 'an array of policies'),
  watchers: list(part<Watcher>('a watcher', { name: NAME, start: VERB }), 'an array of watchers'),
  sinks: list(
    part<Sink>('a sink', { name: NAME, head: MAYBE_VERB, attempt: MAYBE_VERB, call: MAYBE_VERB }),
    'an array of sinks',
  ),
}

const origin = text(ORIGIN_TEXT, fields.isOrigin).transform((it) => new URL(it).origin)

const schema = shape({
  name: word,
  backends,
  pools: z.record(z.string(), shape(settings, { backends }), 'an object of pools by name'),
  origins: list(origin, 'an array of origins'),
  route: z.custom<Route>(fields.isFunction, 'a function'),
  strategies: list(ownStrategy, 'an array of strategies'),
  clock: part<Clock>('a clock', { now: VERB, after: VERB, wall: MAYBE_VERB }),
  random: z.custom<Random>(fields.isFunction, 'a function'),
  revisions: whole(1, 1000),
  logger: part<Logger>('a logger', { debug: VERB, info: VERB, warn: VERB, error: VERB }),
  log: shape({ requests: z.custom<LogOptions['requests'] & {}>(fields.isFlagOrFunction, 'true, false or a function') }),
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
  const {
    name = DEFAULT_NAME,
    backends,
    pools,
    origins,
    route,
    strategies = [],
    clock,
    random,
    revisions,
    logger,
    log,
    ...common
  } = parsed(options)
  const named = Object.entries(pools ?? { [DEFAULT_POOL]: { backends: backends! } }).map(
    ([pool, { backends: endpoints, ...own }]) => {
      const merged = fitted(merge(DEFAULTS, [common, own] satisfies PoolSettings[], WHEN_GIVEN))
      const settings = Object.freeze({ ...merged, strategy: settledStrategy(merged.strategy, strategies) })
      return Object.freeze({ name: pool, endpoints, settings })
    },
  )
  return Object.freeze({
    name,
    pools: Object.freeze(named),
    origins,
    route,
    revisions: revisions ?? DEFAULT_REVISIONS,
    logger,
    log: log ?? Object.freeze({}),
    clock: clock ?? builtins.clock,
    random: random ?? builtins.random(),
  })
}

/** Everything that is wrong with options. */
export function findingsIn(options: unknown): readonly Finding[] {
  return checked(options).findings
}

/** What options may look like, as a JSON Schema: parts and functions, which no file can hold, are `{}`. */
export function optionsJsonSchema(): JsonSchema {
  return jsonSchemaOf(schema)
}

function jsonSchemaOf(type: z.core.$ZodType): JsonSchema {
  return z.toJSONSchema(type, {
    io: 'input',
    unrepresentable: 'any',
    override({ zodSchema: { _zod }, jsonSchema }) {
      // What `shape` looks at first says nothing: the object behind it does.
      if (_zod.def.type === 'pipe' && ['object', 'pipe'].includes(_zod.def.out._zod.def.type)) {
        const { $schema: _, ...object } = jsonSchemaOf(_zod.def.out)
        Object.assign(jsonSchema, object)
      }
    },
  }) as JsonSchema
}

function checked(options: unknown): {
  readonly data: z.output<typeof schema> | undefined
  findings: readonly Finding[]
} {
  // jitless: compiling the schema costs more than the one use of it, and fails where code from strings is forbidden.
  // The casts prove, when compiled, that schema and hand-written options know the same.
  const result = schema.safeParse(options as BalancerOptions satisfies z.input<typeof schema>, { jitless: true })
  const single = result.success ? [] : result.error.issues.flatMap((issue) => findingsOf(issue, []))
  return { data: result.data, findings: [...single, ...contradictions(options, single)] }
}

function parsed(options: unknown): z.output<typeof schema> {
  try {
    const { data, findings } = checked(options)
    if (findings.length > 0) throw configError(options, findings)
    return data!
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
export function findingsOf(issue: z.core.$ZodIssue, base: Path): readonly Finding[] {
  const path = [...base, ...issue.path]
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = issue.message.split(' ')
      return issue.keys.map((key) => ({
        path: [...path, key],
        expected: nearest(key, known) ?? (known.join() === 'name' ? NO_SETTINGS : `one of ${known.join(', ')}`),
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
