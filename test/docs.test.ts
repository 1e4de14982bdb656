import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import http, { type Server } from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Block, blocksOf, patternOf } from './support/markdown.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const ARGS = ['--disable-warning=ExperimentalWarning', '--import', join(ROOT, 'scripts/from-source.mjs')]
const PAGES = ['docs/getting-started.md', 'docs/writing-a-strategy.md', 'docs/writing-a-transport.md']
const run = promisify(execFile)

const pages = PAGES.map((page) => ({ page, blocks: blocksOf(join(ROOT, page)) }))
const readme = blocksOf(join(ROOT, 'README.md')).filter(({ kind }) => kind !== 'fragment')

/** A folder outside the repository where the blocks find what an `npm install` would have put there. */
let folder = ''

const fileOf = (page: string, { name, line }: Block): string => join(folder, page, name ?? `line-${line}.ts`)

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'evenkeel-docs-'))
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  await writeFile(join(folder, 'package.json'), JSON.stringify({ type: 'module' }))
})

afterAll(() => rm(folder, { recursive: true, force: true }))
