/** The JSON Schema of a configuration file, for editors. */
import { BERRY_STRATEGIES } from './berry.ts'
import { berryJsonSchema } from './berry-schema.ts'
import { DEFAULT_ROWS, type DefaultRow, WHEN_GIVEN_ROWS } from './default-rows.ts'
import { BERRY_DEFAULTS, DEFAULTS, WHEN_GIVEN } from './defaults.ts'
import { DURATION_PATTERN, durationText } from './durations.ts'
import { valueAt } from './issues.ts'
import { isUnwritable, type JsonSchema, propertiesOf } from './json-schema.ts'
import { optionsJsonSchema } from './schema.ts'
import { DURATION_TEXT, type Spelling, spellingsOf, timesInFileWords } from './spelling.ts'
import { STRATEGY_NAMES } from './strategies.ts'

type Properties = Readonly<Record<string, JsonSchema>>

/** Every key of a configuration file, with its meaning, unit and default, as JSON Schema (2020-12). */
export function configSchema(): JsonSchema {
  const { backends, pools, ...all } = propertiesOf(optionsJsonSchema())!
  const { backends: _, ...ofPool } = propertiesOf(pools!.additionalProperties as JsonSchema)!
  const berry = propertiesOf(berryJsonSchema())!
  const model = berry.models!.additionalProperties as JsonSchema
  const inFiles = fileProperties(all, '')
  const defined = {
    ...inFiles,
    strategy: {
      ...inFiles.strategy,
      anyOf: [NAMED, ...inFiles.strategy!.anyOf!.filter(({ type }) => type !== 'string')],
    },
    backends: inFile(backends!, 'backends'),
  }
  const settings = refs(Object.keys(defined).filter((key) => key !== 'backends'))
  const poolSettings = refs([...spellingsOf(ofPool).keys()])
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'evenkeel configuration',
    ...table({
      $schema: { type: 'string' },
      settings: table({ ...withDefaults(propertiesOf(berry.settings!)!), ...settings }),
      backends: refs(['backends']).backends!,
      pools: { type: 'object', additionalProperties: table({ ...refs(['backends']), ...poolSettings }, ['backends']) },
      providers: berry.providers!,
      models: {
        ...berry.models!,
        additionalProperties: { ...model, properties: { ...poolSettings, ...propertiesOf(model), strategy: STRATEGY } },
      },
      users: berry.users!,
    }),
    $defs: defined,
  }
}

/** A file cannot bring strategies of its own: there are no other names. */
const NAMED: JsonSchema = { enum: STRATEGY_NAMES }
const STRATEGY: JsonSchema = { anyOf: [{ $ref: '#/$defs/strategy' }, { enum: [...BERRY_STRATEGIES] }] }

/** The same settings may be said of the balancer, a pool and a model. */
function refs(keys: readonly string[]): Properties {
  return Object.fromEntries(keys.map((key) => [key, { $ref: `#/$defs/${key}` }]))
}

/** `path` is where the value stands among the settings, as in 'retry.budget'. */
function inFile(schema: JsonSchema, path: string): JsonSchema {
  const { properties, items, anyOf, additionalProperties, required, ...rest } = schema
  return {
    ...rest,
    ...(properties === undefined ? {} : table(fileProperties(properties, path), required)),
    ...(items === undefined ? {} : { items: inFile(items, path) }),
    ...(anyOf === undefined ? {} : { anyOf: anyOf.filter((it) => !isUnwritable(it)).map((it) => inFile(it, path)) }),
    ...(typeof additionalProperties === 'object' ? { additionalProperties: inFile(additionalProperties, path) } : {}),
  }
}

function table(properties: Properties, required?: readonly string[]): JsonSchema {
  return { type: 'object', properties, additionalProperties: false, ...(required === undefined ? {} : { required }) }
}

function fileProperties(properties: Properties, path: string): Properties {
  const all = [...spellingsOf(properties)].map(([key, spelling]) => {
    const inner = path === '' ? spelling.option : `${path}.${spelling.option}`
    return [key, { ...inFile(spelt(spelling), inner), ...explained(inner, spelling) }] as const
  })
  return Object.fromEntries(all)
}

function spelt({ unit, schema }: Spelling): JsonSchema {
  if (unit === 'duration') return { anyOf: [{ type: 'string', pattern: DURATION_PATTERN }, { const: 0 }] }
  return unit === 'seconds' ? { type: 'number' } : schema
}

/** What the page of defaults says of a setting. */
function explained(path: string, { unit, schema }: Spelling): JsonSchema {
  const row = ROWS.get(path)
  const form = unit === 'duration' ? DURATION_TEXT : unit === 'seconds' ? 'seconds' : schema.description
  const texts = [row && timesInFileWords(row.meaning).replaceAll('`', ''), form].filter((it) => it !== undefined)
  const value = valueAt(DEFAULTS, path.split('.')) ?? valueAt(WHEN_GIVEN, path.split('.'))
  const plain = ['string', 'number', 'boolean'].includes(typeof value) || Array.isArray(value)
  return {
    ...(texts.length === 0 ? {} : { description: texts.join(' ') }),
    ...(plain ? { default: inUnit(value, unit) } : {}),
  }
}

function inUnit(value: unknown, unit: Spelling['unit']): unknown {
  if (typeof value !== 'number') return value
  if (unit === 'seconds') return value / 1_000
  return unit === 'duration' && value !== 0 ? durationText(value) : value
}

function withDefaults(properties: Properties): Properties {
  const all = Object.entries(properties).map(([key, schema]) => {
    const value = valueAt(BERRY_DEFAULTS, [key])
    return [key, value === undefined ? schema : { ...schema, default: value }] as const
  })
  return Object.fromEntries(all)
}

const ROWS: ReadonlyMap<string, DefaultRow> = new Map(
  [...DEFAULT_ROWS, ...WHEN_GIVEN_ROWS.flatMap(([, rows]) => rows)].map((row) => [row.path, row]),
)
