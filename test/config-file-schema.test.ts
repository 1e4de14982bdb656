import { readFileSync } from 'node:fs'
import { createBalancer } from 'evenkeel'
import { configSchema, type JsonSchema, loadConfig, parseConfig } from 'evenkeel/config'
import { parse } from 'smol-toml'
import { describe, expect, test } from 'vitest'
import { configurationPage, schemaPage } from '../scripts/print-configuration.ts'

const ROOT = new URL('../', import.meta.url)
const textOf = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8')
const SCHEMA = configSchema()
const FILES = ['examples/evenkeel.toml', 'test/fixtures/berry.toml']

/** All that a schema allows at one place: its alternatives, and what it refers to. */
function alternatives(schema: JsonSchema): readonly JsonSchema[] {
  const { $ref, anyOf = [] } = schema
  const named = $ref === undefined ? [] : [SCHEMA.$defs![$ref.slice('#/$defs/'.length)]!]
  return [schema, ...[...anyOf, ...named].flatMap(alternatives)]
}

/** The paths of values that a schema has no word for, as an editor would mark them. */
function marked(value: unknown, schema: JsonSchema, path: string): readonly string[] {
  const all = alternatives(schema)
  if (Array.isArray(value)) {
    const items = all.find((it) => it.items !== undefined)?.items
    return items === undefined ? [path] : value.flatMap((item, index) => marked(item, items, `${path}[${index}]`))
  }
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value).flatMap(([key, inner]) => {
      const known = all.flatMap(({ properties, additionalProperties: other }) => {
        if (properties !== undefined) return Object.hasOwn(properties, key) ? [properties[key]!] : []
        return typeof other === 'object' ? [other] : []
      })
      const isFree = all.some(({ type, properties, additionalProperties }) => {
        return type === 'object' && properties === undefined && typeof additionalProperties !== 'object'
      })
      if (known.length === 0) return isFree ? [] : [`${path}.${key}`]
      return marked(inner, known.length === 1 ? known[0]! : { anyOf: known }, `${path}.${key}`)
    })
  }
  const fits = all.some((it) => {
    if (it.const !== undefined) return it.const === value
    if (it.enum !== undefined) return it.enum.includes(value)
    if (it.pattern !== undefined) return typeof value === 'string' && new RegExp(it.pattern).test(value)
    return it.type === typeof value || Object.keys(it).length === 0
  })
  return fits ? [] : [path]
}

describe('the JSON Schema', () => {
  test('is what docs/evenkeel.schema.json says: npm run docs prints it', () => {
    expect(textOf('docs/evenkeel.schema.json')).toBe(schemaPage())
  })

  test.each(FILES)('marks nothing in %s, and what is wrong elsewhere', (file) => {
    const tables = parse(textOf(file))
    expect(marked(tables, SCHEMA, '')).toEqual([])
    expect(marked({ ...tables, settings: { retry: { atempts: 1, base: '5' }, strategy: 'p3c' } }, SCHEMA, '')).toEqual([
      '.settings.retry.atempts',
      '.settings.retry.base',
      '.settings.strategy',
    ])
  })

  test('has the meaning, form and default of settings', () => {
    const { properties } = SCHEMA.$defs!.timeouts!
    expect(properties!.connect).toEqual({
      anyOf: [{ type: 'string', pattern: expect.any(String) }, { const: 0 }],
      description: expect.stringContaining('a duration such as "250ms"'),
      default: '5s',
    })
    expect(properties!.connect_ms).toMatchObject({ type: 'number', default: 5000 })
    expect(properties!.connect_seconds).toMatchObject({ type: 'number', default: 5 })
  })

  test('offers nothing that a file cannot hold', () => {
    const keys = Object.keys(SCHEMA.$defs!)
    expect(keys).toContain('retry')
    for (const live of [
      'clock',
      'random',
      'route',
      'transport',
      'policies',
      'watchers',
      'sinks',
      'classify',
      'logger',
    ]) {
      expect(keys).not.toContain(live)
    }
  })
})

describe('examples/evenkeel.toml', () => {
  test('loads without a warning, and is taken by createBalancer', async () => {
    const { options, models, users, warnings } = await loadConfig(new URL('examples/evenkeel.toml', ROOT).pathname)
    expect(warnings.filter(({ path }) => path !== 'the file')).toEqual([])
    expect(Object.keys(options.pools!)).toEqual(['orders', 'search', 'chat'])
    expect(models).toEqual([{ pool: 'chat', name: 'chat' }])
    expect(users.map(({ id, allowedPools }) => [id, allowedPools])).toEqual([['ann', ['chat']]])
    const balancer = createBalancer(options)
    expect(Object.keys(balancer.stats().pools)).toEqual(['orders', 'search', 'chat'])
    await balancer.close()
  })
})

describe('docs/configuration.md', () => {
  const page = textOf('docs/configuration.md')

  test('has the table of settings that npm run docs prints', () => {
    expect(page).toBe(configurationPage(page))
    expect(page).toContain('| `retry.budget.per_second` | ')
    expect(page).toContain('| `timeouts.connect` | duration | `"5s"` |')
  })

  test.each([...page.matchAll(/^```toml\n([\s\S]*?)^```/gm)].map(([, text]) => text!))(
    'has an example that loads: %j',
    async (text) => {
      await expect(parseConfig(text, { env: { OPENAI_API_KEY: 'sk-1234567890' } })).resolves.toBeDefined()
    },
  )

  test('names every key of the tables that are not settings', () => {
    for (const section of ['providers', 'models', 'users']) {
      const table = SCHEMA.properties![section]!.additionalProperties as JsonSchema
      const own = Object.keys(table.properties!).filter((key) => SCHEMA.$defs![key] === undefined)
      for (const key of own) expect(page, `${section}.${key}`).toContain(`\`${key}`)
    }
    for (const key of Object.keys(SCHEMA.properties!.settings!.properties!))
      expect(page).toContain(key.replace(/_ms$|_seconds$/, ''))
  })
})
