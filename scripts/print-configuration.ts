// npm run docs: prints docs/evenkeel.schema.json, what editors know of a configuration file, and the table of settings in
// docs/configuration.md, from the schema and the defaults.
import { readFileSync, writeFileSync } from 'node:fs'
import { configSchema, type JsonSchema } from 'evenkeel/config'
import { DEFAULT_ROWS, type DefaultRow, WHEN_GIVEN_ROWS } from '../src/config/default-rows.ts'
import { snakeOf, timesInFileWords } from '../src/config/spelling.ts'

const PAGE = new URL('../docs/configuration.md', import.meta.url)
const SCHEMA = new URL('../docs/evenkeel.schema.json', import.meta.url)
const TABLE = /(?<=<!-- settings -->\n)[\s\S]*(?=<!-- end of settings -->)/

export function schemaPage(): string {
  return `${JSON.stringify(configSchema(), null, 2)}\n`
}

/** The page with its table as it should be. */
export function configurationPage(page: string = readFileSync(PAGE, 'utf8')): string {
  const settings: JsonSchema = { properties: configSchema().$defs! }
  const rows = [...DEFAULT_ROWS, ...WHEN_GIVEN_ROWS.flatMap(([, more]) => more)]
  const table = [
    '| key | unit | default | meaning |',
    '| --- | --- | --- | --- |',
    ...rows.flatMap((row) => line(row, settings)),
    '',
  ]
  return page.replace(TABLE, () => table.join('\n'))
}

/** Nothing for what no file can hold. */
function line({ path, unit, meaning }: DefaultRow, settings: JsonSchema): readonly string[] {
  const key = snakeOf(path.replace(/Ms$/, ''))
  const schema = settingAt(key.split('.'), settings)
  if (schema === undefined) return []
  const value = schema.default === undefined ? '' : `\`${JSON.stringify(schema.default)}\``
  return [`| \`${key}\` | ${unit === 'ms' ? 'duration' : unit} | ${value} | ${timesInFileWords(meaning)} |`]
}

function settingAt(keys: readonly string[], settings: JsonSchema): JsonSchema | undefined {
  return keys.reduce<JsonSchema | undefined>((schema, key) => {
    const sections = [schema, ...(schema?.anyOf ?? [])]
    return sections.find((it) => it?.properties?.[key] !== undefined)?.properties?.[key]
  }, settings)
}

if (import.meta.main) {
  writeFileSync(SCHEMA, schemaPage())
  writeFileSync(PAGE, configurationPage())
}
