/** From the tables of a file to what `createBalancer` takes, and everything that is wrong on the way. */
import type { BalancerOptions } from '../core/options.ts'
import { isServed, poolOf } from './berry.ts'
import { berryContradictions } from './berry-rules.ts'
import { BERRY_KEYS, berryFindings } from './berry-schema.ts'
import { addBerrySettings } from './berry-settings.ts'
import { Draft } from './draft.ts'
import { badPaths, type Finding, isPlain, type Path } from './issues.ts'
import { type JsonSchema, propertiesOf } from './json-schema.ts'
import { type Table, tableAt, textOf } from './plain.ts'
import { findingsIn, optionsJsonSchema } from './schema.ts'
import { Origins, optionsOf, type Reading, SECTIONS, unknownKey } from './spelling.ts'
import type { ModelConfig, UserConfig } from './tables.ts'
import { usersOf } from './users.ts'
import { inFileWords } from './wording.ts'

/** What options may hold: made once, since it takes longer than all the rest of a load. */
const OPTIONS = propertiesOf(optionsJsonSchema())!

export interface Document {
  readonly options: BalancerOptions
  readonly models: readonly ModelConfig[]
  readonly users: readonly UserConfig[]
  /** With the paths of the file. */
  readonly findings: readonly Finding[]
  readonly origins: Origins
}

/** `tree` is a copy that nobody else has, with plain objects only. */
export function read(tree: unknown): Document {
  const reading: Reading = { findings: [], origins: new Origins() }
  const root = isPlain(tree) ? tree : {}
  if (root !== tree) reading.findings.push({ path: [], expected: 'a table' })
  for (const key of Object.keys(root)) {
    // Editors read `$schema` in a JSON file.
    if (!SECTIONS.includes(key) && key !== '$schema') reading.findings.push(unknownKey([key], SECTIONS))
  }
  const options = balancerOf(root, reading)
  const single = [...reading.findings, ...berryFindings(berryTables(root))]
  const own = [...single, ...berryContradictions(root)]
  return {
    options: options as unknown as BalancerOptions,
    models: servedModels(root).map((pool) => ({ pool, name: textOf(tableAt(tableAt(root, 'models'), pool).name) })),
    users: usersOf(root),
    findings: [...own, ...ofOptions(options, root, reading.origins, own)],
    origins: reading.origins,
  }
}

function balancerOf(root: Table, reading: Reading): Table {
  const { findings, origins } = reading
  const { backends, pools, ...rest } = OPTIONS
  const settings = tableAt(root, 'settings')
  if (root.settings !== undefined && root.settings !== settings) {
    findings.push({ path: ['settings'], expected: 'a table' })
  }
  const said = optionsOf(settings, { properties: rest }, ['settings'], [], reading, BERRY_KEYS.settings)
  const common = new Draft(said as Table, [], origins)
  findings.push(...addBerrySettings(common, settings))
  const listed =
    root.backends === undefined
      ? {}
      : { backends: optionsOf(root.backends, backends!, ['backends'], ['backends'], reading) }
  if (root.pools === undefined && root.models === undefined) return { ...common.settings, ...listed }
  const own = optionsOf(root.pools, pools!, ['pools'], ['pools'], reading)
  if (own === undefined) origins.set(['pools'], ['models'])
  else if (!isPlain(own)) return { ...common.settings, ...listed, pools: own }
  return { ...common.settings, ...listed, pools: { ...own, ...modelPools(root, common, pools!, reading) } }
}

function modelPools(root: Table, common: Draft, pools: JsonSchema, reading: Reading): Table {
  const { backends: _, ...properties } = propertiesOf(pools.additionalProperties as JsonSchema)!
  const models = tableAt(root, 'models')
  const served = new Set(servedModels(root))
  const all = Object.keys(models).map((id) => {
    const table = tableAt(models, id)
    const own = optionsOf(table, { properties }, ['models', id], ['pools', id], reading, BERRY_KEYS.model)
    return [id, poolOf(id, root, own as Table, common, reading.origins)] as const
  })
  return Object.fromEntries(all.filter(([id]) => served.has(id)))
}

function servedModels(root: Table): readonly string[] {
  return Object.keys(tableAt(root, 'models')).filter((id) => isServed(root, id))
}

/** What Berry's schema is for: of settings and models, the keys that are not evenkeel's own. */
function berryTables(root: Table): Table {
  const pick = (table: unknown, keys: readonly string[]): unknown => {
    if (!isPlain(table)) return table
    return Object.fromEntries(Object.entries(table).filter(([key]) => keys.includes(key)))
  }
  const { settings, models, providers, users } = root
  const own = isPlain(models)
    ? Object.fromEntries(Object.entries(models).map(([id, model]) => [id, pick(model, BERRY_KEYS.model)]))
    : models
  const tables = {
    settings: isPlain(settings) ? pick(settings, BERRY_KEYS.settings) : {},
    models: own,
    providers,
    users,
  }
  return Object.fromEntries(Object.entries(tables).filter(([, table]) => table !== undefined))
}

/** What the check of the options finds, in the words and at the places of the file. */
function ofOptions(options: Table, root: Table, origins: Origins, earlier: readonly Finding[]): readonly Finding[] {
  const isBad = badPaths(earlier)
  const hasNone = ['backends', 'pools', 'models'].every((key) => root[key] === undefined)
  const isTold = (path: Path): boolean => {
    if (path.length > 1) return isBad(origins.of(path))
    if (hasNone) return path[0] === 'backends'
    // That no model is left was told of each model.
    return (
      isBad(origins.of(path)) ||
      (path[0] === 'pools' && earlier.length > 0 && Object.keys(tableAt(options, 'pools')).length === 0)
    )
  }
  const none = { path: [], expected: 'backends, pools or models', found: 'none of them' }
  return [
    ...(hasNone ? [none] : []),
    ...findingsIn(options)
      .filter(({ path }) => !isTold(path))
      .map((finding) => inFileWords(finding, origins)),
  ]
}
