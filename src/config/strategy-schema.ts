/** What a strategy may be: a name, a name with settings, or one of the user's own. */
import { z } from 'zod'
import { MAX_DELAY_MS } from '../core/clock.ts'
import type { KeySource, Strategy } from '../core/contracts.ts'
import type { PoolSettings } from '../core/options.ts'
import { isKeySource, isPrime } from '../core/spelling.ts'
import type { Cost, ThompsonOptions } from '../core/strategy-options.ts'
import * as fields from './fields.ts'
import { isPlain } from './issues.ts'
import { above0, atLeast, type Known, number, oneOf, part, shape, share, someShare, text, whole } from './shapes.ts'
import { KEY_TEXT, PLAIN_NAMES, strategyText } from './strategies.ts'
import { complained, wrongKind } from './zod-issues.ts'

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

/** A strategy of the user's own. */
export const ownStrategy: z.ZodType<Strategy, Strategy> = part<Strategy>('a strategy', {
  name: fields.NAME,
  start: fields.VERB,
  keyOf: fields.MAYBE_VERB,
})
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
    path: text(fields.PATH_TEXT, fields.isPath),
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
const union = z.union(
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

type Chosen = NonNullable<PoolSettings['strategy']>
type Taking<Type, Given> = [Given] extends [z.input<Type>] ? Type : never

/** A name, settings, or a strategy itself. Compiles only while it takes all that the hand-written types allow, and gives no more. */
export const strategy: z.ZodType<Chosen> = union satisfies Taking<typeof union, Chosen>
