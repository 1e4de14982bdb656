/** A configuration in a file, a text or plain data, read and checked. */
import { berryWarnings } from './berry-warnings.ts'
import { read } from './document.ts'
import { filePath, folderOf, MOST_CONFIG_BYTES, MOST_VALUE_BYTES, pathFrom, readText } from './files.ts'
import { badPaths, type Finding, foundText, isPlain } from './issues.ts'
import { parseJson } from './json.ts'
import { positionsOf } from './positions.ts'
import { prepare } from './prepare.ts'
import { fileError, issuesOf, type Told } from './report.ts'
import type { Config, ConfigTables } from './tables.ts'
import { parseToml } from './toml.ts'
import { poolWarnings } from './warnings.ts'

export type ConfigFormat = 'toml' | 'json'

/** Where `${…}` in a configuration comes from. */
export interface SubstitutionOptions {
  /** For `${env:NAME}`; default `process.env`. */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** What the paths of `${file:path}` start from; default: the folder of the file, or the current one. */
  readonly folder?: string
}

export interface ParseOptions extends SubstitutionOptions {
  /** default 'toml'. */
  readonly format?: ConfigFormat
  /** What messages call the text; default: nothing. */
  readonly name?: string
}

/**
 * Reads and checks a configuration file, by its path or `file:` URL: TOML, or JSON if its name ends in `.json`; at most 1 MiB.
 * Rejects with one BalancerError `CONFIG` whose `issues` and `warnings` list everything, in a TOML file with line and column.
 *
 * @example
 * const { options, warnings } = await loadConfig('evenkeel.toml')
 * const balancer = createBalancer(options)
 */
export async function loadConfig(file: string | URL, options: SubstitutionOptions = {}): Promise<Config> {
  const path = filePath(file)
  if (path === undefined) {
    throw fileError([{ path: 'the file', expected: 'a path or a file: URL', found: foundText(file, []) }], [])
  }
  const { text, isOpen } = await readText(path, MOST_CONFIG_BYTES).catch((error: Error) => {
    const expected = 'a regular file of at most 1 MiB that can be read'
    throw fileError([{ path: 'the file', expected, found: error.message }], [], path)
  })
  const format = path.endsWith('.json') ? 'json' : 'toml'
  return configIn(text, { ...options, folder: options.folder ?? folderOf(path), format, name: path }, isOpen)
}

/** As `loadConfig`, for a text that was read already. */
export async function parseConfig(text: string, options: ParseOptions = {}): Promise<Config> {
  return configIn(text, options, false)
}

/** As `loadConfig`, for plain data in the shape of a file. */
export async function configOf(tables: ConfigTables, options: SubstitutionOptions = {}): Promise<Config> {
  return configFrom(tables, options, false, undefined, () => new Map())
}

const OPEN: Finding = {
  path: [],
  expected: 'a file that other accounts can neither read nor change',
  found: 'one they can',
}

/** `isOpen`: others can read the text where it comes from. */
async function configIn(text: string, options: ParseOptions, isOpen: boolean): Promise<Config> {
  const { format = 'toml', name } = options
  const { tree, fault } = format === 'json' ? parseJson(text) : parseToml(text)
  if (fault !== undefined) {
    const { expected, found, at } = fault
    throw fileError([{ path: 'the file', expected, found, ...at }], [], name)
  }
  return configFrom(tree, options, isOpen, name, () => (format === 'toml' ? positionsOf(text) : new Map()))
}

async function configFrom(
  given: unknown,
  { env = process.env, folder = '.' }: SubstitutionOptions,
  isOpen: boolean,
  name: string | undefined,
  places: () => Told['places'],
): Promise<Config> {
  const open: Finding[] = []
  const files = new Set<string>()
  const {
    tree,
    findings,
    warnings: early,
    holdsSecrets,
  } = await prepare(given, {
    env: (variable) => (Object.hasOwn(env, variable) ? env[variable] : undefined),
    async file(path, place) {
      const absolute = pathFrom(folder, path)
      files.add(absolute)
      const value = await readText(absolute, MOST_VALUE_BYTES)
      if (value.isOpen) open.push({ ...OPEN, path: place })
      return value.text.replace(/\r?\n$/, '')
    },
  })
  if (tree === undefined && findings.length > 0)
    throw fileError(issuesOf(findings, { tree, places: new Map() }), [], name)
  const { options, models, users, findings: later, origins } = read(tree)
  const isUnread = badPaths(findings)
  const errors = [...findings, ...later.filter(({ path }) => !isUnread(path))]
  const isBad = badPaths(errors)
  const all = [
    ...(isOpen && holdsSecrets ? [OPEN] : []),
    ...open,
    ...early,
    ...(isPlain(tree) ? berryWarnings(tree) : []),
    ...poolWarnings({ options, origins }),
  ]
  const hints = all.filter(({ path }) => !isBad(path))
  // Only those who have something to say need to know where.
  const told: Told = { tree, places: errors.length + hints.length === 0 ? new Map() : places() }
  const warnings = Object.freeze(issuesOf(hints, told))
  if (errors.length > 0) throw fileError(issuesOf(errors, told), warnings, name)
  return Object.freeze({
    options,
    models: Object.freeze(models),
    users: Object.freeze(users),
    warnings,
    files: Object.freeze([...files]),
  })
}
