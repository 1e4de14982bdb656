// npm run docs: prints docs/defaults.md from src/config/defaults.ts and default-rows.ts, so that the page cannot be wrong.
import { writeFileSync } from 'node:fs'
import { DEFAULT_ROWS, type DefaultRow, WHEN_GIVEN_ROWS } from '../src/config/default-rows.ts'
import { DEFAULTS, WHEN_GIVEN } from '../src/config/defaults.ts'

/** The whole page. */
export function defaultsPage(): string {
  return [
    '# Defaults',
    '',
    'Printed from `src/config/defaults.ts` and `default-rows.ts` by `npm run docs`; do not edit. Each of these can be said for',
    'the balancer and for each pool; a pool’s word wins over the balancer’s, and that over the default, setting by setting.',
    '',
    ...table(DEFAULT_ROWS, DEFAULTS),
    '',
    ...WHEN_GIVEN_ROWS.flatMap(([section, rows]) => [
      `Once \`${section}\` is given, even as \`{}\`:`,
      '',
      ...table(rows, WHEN_GIVEN),
      '',
    ]),
  ].join('\n')
}

function table(rows: readonly DefaultRow[], defaults: object): readonly string[] {
  return [
    '| setting | default | unit | meaning | why |',
    '| --- | --- | --- | --- | --- |',
    ...rows.map(({ path, unit, meaning, reason }) => {
      return `| \`${path}\` | ${shown(valueAt(path, defaults))} | ${unit} | ${meaning} | ${reason} |`
    }),
  ]
}

function valueAt(path: string, defaults: object): unknown {
  return path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], defaults)
}

function shown(value: unknown): string {
  if (value === undefined) return 'unset'
  return Array.isArray(value) ? `\`[${value.join(', ')}]\`` : `\`${JSON.stringify(value)}\``
}

if (import.meta.main) writeFileSync(new URL('../docs/defaults.md', import.meta.url), defaultsPage())
