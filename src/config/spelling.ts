/**
 * How options are spelt in a file: in snake_case, and times with their unit. Which options there are is read off their JSON Schema,
 * so that whatever `createBalancer` takes can be said in a file.
 */
import { Secret } from '../core/secret.ts'
import { durationMs } from './durations.ts'
import { type Finding, isPlain, nearest, type Path, pathKey, pathText } from './issues.ts'
import { isUnwritable, itemsOf, type JsonSchema, propertiesOf } from './json-schema.ts'

export type Unit = 'none' | 'ms' | 'seconds' | 'duration'

/** One way to write one option. */
export interface Spelling {
  readonly option: string
  readonly unit: Unit
  readonly schema: JsonSchema
}

/** What stands at the top of a file. */
export const SECTIONS: readonly string[] = ['settings', 'backends', 'pools', 'providers', 'models', 'users']

export const DURATION_TEXT = 'a duration such as "250ms", "30s" or "5m"'

/** 'keepAliveMs' is 'keep_alive_ms'. */
export function snakeOf(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** A text that names times as options do, in the words of a file: 'baseMs' is 'base'. */
export function timesInFileWords(text: string): string {
  return text.replace(/\b([a-z][A-Za-z]*)Ms\b/g, (_, stem: string) => snakeOf(stem))
}

/** Every key that a table may have, with what it means. `intervalMs` is `interval`, `interval_ms` or `interval_seconds`. */
export function spellingsOf(properties: Readonly<Record<string, JsonSchema>>): ReadonlyMap<string, Spelling> {
  const writable = Object.entries(properties).filter(([, schema]) => !isUnwritable(schema))
  return new Map(
    writable.flatMap(([option, schema]): (readonly [string, Spelling])[] => {
      if (!option.endsWith('Ms')) return [[snakeOf(option), { option, unit: 'none', schema }]]
      const stem = snakeOf(option.slice(0, -2))
      return [
        [stem, { option, unit: 'duration', schema }],
        [`${stem}_ms`, { option, unit: 'ms', schema }],
        [`${stem}_seconds`, { option, unit: 'seconds', schema }],
      ]
    }),
  )
}

/** From where in the options to where in the file. */
export class Origins {
  readonly #known = new Map<string, readonly [option: Path, origin: Path]>()
  #texts: ReadonlyMap<string, Path> | undefined

  set(option: Path, origin: Path): void {
    this.#known.set(pathKey(option), [option, origin])
    this.#texts = undefined
  }

  /** Whether somebody wrote it. */
  has(option: Path): boolean {
    return this.#known.has(pathKey(option))
  }

  of(option: Path): Path {
    for (let depth = option.length; depth > 0; depth--) {
      const known = this.#known.get(pathKey(option.slice(0, depth)))
      if (known === undefined) continue
      return [...known[1], ...option.slice(depth).map((key) => (typeof key === 'string' ? snakeOf(key) : key))]
    }
    return []
  }

  /** As `of`, for an option that a text names; undefined if nobody wrote it. */
  ofText(option: string): Path | undefined {
    this.#texts ??= new Map([...this.#known.values()].map(([known, origin]) => [pathText(known), origin]))
    return this.#texts.get(option)
  }
}

/** What is found out while a file is read. */
export interface Reading {
  readonly findings: Finding[]
  readonly origins: Origins
}

/**
 * The options that a value of the file means. `path` is where it stands, `option` where it goes; `beside` are keys that somebody
 * else reads. What is wrong with the values themselves is left to the check of the options.
 */
export function optionsOf(
  value: unknown,
  schema: JsonSchema,
  path: Path,
  option: Path,
  reading: Reading,
  beside: readonly string[] = [],
): unknown {
  reading.origins.set(option, path)
  if (Array.isArray(value)) {
    const items = itemsOf(schema)
    if (items === undefined) return value
    return value.map((item, index) => optionsOf(item, items, [...path, index], [...option, index], reading))
  }
  if (!isPlain(value)) return value
  const properties = propertiesOf(schema)
  if (properties !== undefined) return tableOf(value, spellingsOf(properties), path, option, reading, beside)
  const { additionalProperties: named } = schema
  const entries = Object.entries(value).map(([key, inner]) => {
    reading.origins.set([...option, key], [...path, key])
    if (typeof named !== 'object') return [key, isSecretly(option, inner) ? new Secret(inner) : inner]
    return [key, optionsOf(inner, named, [...path, key], [...option, key], reading)]
  })
  return Object.fromEntries(entries)
}

function tableOf(
  table: Readonly<Record<string, unknown>>,
  spellings: ReadonlyMap<string, Spelling>,
  path: Path,
  option: Path,
  reading: Reading,
  beside: readonly string[],
): unknown {
  const { findings, origins } = reading
  const options: Record<string, unknown> = {}
  const said = new Map<string, string>()
  const known = [...spellings.keys(), ...beside]
  for (const [key, value] of Object.entries(table)) {
    if (beside.includes(key)) continue
    const spelling = spellings.get(key)
    const place = [...path, key]
    const first = spelling === undefined ? undefined : said.get(spelling.option)
    if (spelling === undefined) findings.push(unknownKey(place, known))
    else if (first !== undefined) findings.push({ path: place, expected: `either ${first} or ${key}`, found: 'both' })
    else {
      said.set(spelling.option, key)
      const to = [...option, spelling.option]
      const inner = optionsOf(value, spelling.schema, place, to, reading)
      const given = spelling.unit === 'none' ? inner : millisecondsOf(inner, spelling.unit, place, findings)
      if (given !== undefined) options[spelling.option] = given
      origins.set(to, place)
    }
  }
  return options
}

/** The values of headers are secrets from here on. */
function isSecretly(option: Path, value: unknown): value is string {
  return option.at(-1) === 'headers' && typeof value === 'string'
}

/** A time of the file in ms; undefined if something is wrong with it that only the file knows. */
function millisecondsOf(value: unknown, unit: Unit, path: Path, findings: Finding[]): unknown {
  if (unit === 'ms') return value
  if (unit === 'seconds') return typeof value === 'number' ? value * 1_000 : value
  if (value === 0) return 0
  const ms = typeof value === 'string' ? durationMs(value) : undefined
  if (ms === undefined) findings.push({ path, expected: DURATION_TEXT })
  return ms
}

export function unknownKey(path: Path, known: readonly string[]): Finding {
  const key = String(path.at(-1))
  if (path.length > 1 && SECTIONS.includes(key)) {
    return { path, expected: belonging(key, path), found: 'one within a table' }
  }
  return { path, expected: nearest(key, known) ?? `one of ${shortest(known).join(', ')}`, found: 'an unknown key' }
}

/** Where a section belongs that stands within a table. */
function belonging(section: string, path: Path): string {
  if (section === 'backends') return 'backends at the top of the file, above the first table or as [[backends]]'
  if (section !== 'settings') return `${section} at the top of the file, as in [${section}.NAME]`
  const isOfPool = path.length === 3 && ['pools', 'models'].includes(String(path[0]))
  return isOfPool
    ? `what is in it without this table, right in [${String(path[0])}.NAME]`
    : 'settings at the top of the file, as in [settings]'
}

/** Of the spellings of a time, the shortest. */
function shortest(known: readonly string[]): readonly string[] {
  const all = new Set(known)
  return known.filter((it) => !/_(ms|seconds)$/.test(it) || !all.has(it.replace(/_(ms|seconds)$/, '')))
}
