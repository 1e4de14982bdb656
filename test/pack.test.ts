import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { entries } from '../scripts/entries.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const run = promisify(execFile)
const manifest = JSON.parse(readFileSync(`${ROOT}/package.json`, 'utf8')) as {
  readonly files: readonly string[]
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, string>>>>
}

/** What npm always packs, besides `files`. */
const ALWAYS = ['LICENSE', 'README.md', 'package.json']
/** A chunk of the build, its types or its source map. */
const BUILT = /^dist\/[\w.-]+\.(js|d\.ts|js\.map)$/

describe('the package', () => {
  test('names dist as all it has', () => {
    expect(manifest.files).toEqual(['dist'])
  })

  test('exports every entry with its types first, and its manifest', () => {
    const expected = Object.keys(entries).map((name) => [
      name === 'index' ? '.' : `./${name}`,
      { types: `./dist/${name}.d.ts`, default: `./dist/${name}.js` },
    ])
    expect(manifest.exports).toEqual({ ...Object.fromEntries(expected), './package.json': './package.json' })
    for (const [path, targets] of Object.entries(manifest.exports)) {
      if (typeof targets !== 'string') expect(Object.keys(targets), path).toEqual(['types', 'default'])
    }
  })

  test('packs its license, README, manifest and what was built, and nothing else; once built, every target of its exports', async () => {
    const args = ['pack', '--dry-run', '--json', '--ignore-scripts', '--loglevel=error']
    const { stdout } = await run('npm', args, { cwd: ROOT, shell: process.platform === 'win32' })
    const [packed] = JSON.parse(stdout) as readonly [{ readonly files: readonly { readonly path: string }[] }]
    const paths = packed.files.map(({ path }) => path)
    const built = paths.filter((path) => BUILT.test(path))
    expect(paths.filter((path) => !BUILT.test(path)).sort()).toEqual(ALWAYS)
    console.log(`packed: ${paths.length} files, ${built.length} of them built`)
    if (built.length === 0) return // a build is no part of the tests
    const targets = Object.values(manifest.exports).flatMap((to) => (typeof to === 'string' ? [to] : Object.values(to)))
    expect(paths).toEqual(expect.arrayContaining(targets.map((target) => target.slice('./'.length))))
  })
})
