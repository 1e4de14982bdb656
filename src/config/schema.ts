/** What options may look like, and what becomes of them. */
import { z } from 'zod'
import { UNREAD_BYTES } from '../core/body.ts'
import type { Route } from '../core/call.ts'
import type { Classify, Clock, Policy, Probe, Random, Sink, Transport, Watcher } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import type { BalancerOptions, Logger, LogOptions, PoolSettings } from '../core/options.ts'
import { CLASSES, type OutcomeClass } from '../core/outcome.ts'
import type { ResolvedOptions } from '../core/resolved.ts'
import { Secret } from '../core/secret.ts'
import { DEFAULT_NAME, DEFAULT_POOL, DEFAULT_REVISIONS, DEFAULTS, fitted, WHEN_GIVEN } from './defaults.ts'
import * as fields from './fields.ts'
import { configError, type Finding, UNREADABLE } from './issues.ts'
import type { JsonSchema } from './json-schema.ts'
import { merge } from './merge.ts'
import { contradictions } from './rules.ts'
import {
  above0,
  atLeast,
  flag,
  list,
  oneOf,
  part,
  partShare,
  record,
  section,
  shape,
  share,
  shiftedSpan,
  shiftedTime,
  someShare,
  span,
  text,
  time,
  whole,
  word,
} from './shapes.ts'
import { isStatusList } from './status.ts'
import { settledStrategy } from './strategies.ts'
import { ownStrategy, strategy } from './strategy-schema.ts'
import { complained, findingsOf } from './zod-issues.ts'

const { MAYBE_VERB, NAME, SCOPE, VERB } = fields
const CLASS_NAMES = Object.keys(CLASSES) as OutcomeClass[]
/** Nine million of them, if whole, add up without a rounding error: shares stay what the weights say. */
const MOST_WEIGHT = 1e9
/** One more would be no limit to a backend. */
const MOST_INFLIGHT = 2 ** 31 - 2
const ORIGIN_TEXT = 'an http: or https: origin, such as https://api.example.com'

const anything = (): undefined => undefined

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
    weight: atLeast(0, MOST_WEIGHT),
    priority: whole(0),
    zone: z.string('a string'),
    tags: list(word, 'an array of strings'),
    maxInflight: whole(1, MOST_INFLIGHT),
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
  path: text(fields.PATH_TEXT, fields.isPath),
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
  maxHeaderBytes: whole(1),
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
    throw configError(undefined, [UNREADABLE], error)
  }
}
