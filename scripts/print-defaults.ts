// npm run docs: prints docs/defaults.md from src/config/defaults.ts, so that the page cannot be wrong.
import { writeFileSync } from 'node:fs'
import { DEFAULT_ROWS, DEFAULTS } from '../src/config/defaults.ts'

/** The whole page. */
export function defaultsPage(): string {
  const rows = DEFAULT_ROWS.map(({ path, unit, meaning, reason }) => {
    return `| \`${path}\` | ${shown(valueAt(path))} | ${unit} | ${meaning} | ${reason} |`
  })
  return [
    '# Defaults',
    '',
    'Printed from `src/config/defaults.ts` by `npm run docs`; do not edit. Each of these can be said for the balancer and',
    'for each pool; a pool’s word wins over the balancer’s, and that over the default, setting by setting.',
    '',
    '| setting | default | unit | meaning | why |',
    '| --- | --- | --- | --- | --- |',
    ...rows,
    '',
  ].join('\n')
}

function valueAt(path: string): unknown {
  return path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], DEFAULTS)
}

function shown(value: unknown): string {
  if (value === undefined) return 'unset'
  return Array.isArray(value) ? `\`[${value.join(', ')}]\`` : `\`${JSON.stringify(value)}\``
}

if (import.meta.main) writeFileSync(new URL('../docs/defaults.md', import.meta.url), defaultsPage())
