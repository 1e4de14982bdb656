// Every ```ts block of the pages below runs and prints what the ```text block behind it says. `…` in there stands for anything;
// `ts file=x.ts` is also kept under that name for the blocks after it; `ts fragment` is not run.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import http, { type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import ts from 'typescript'
import { afterAll, describe, expect, test } from 'vitest'
import { sources } from '../scripts/entries.ts'
import { cachedEnv } from './support/compile-cache.ts'

interface Block {
  /** Of the code's first line, in its page. */
  readonly line: number
  readonly file: string | undefined
  readonly code: string
  readonly output: string | undefined
}

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const ARGS = ['--disable-warning=ExperimentalWarning', '--import', join(ROOT, 'scripts/from-source.mjs')]
const PAGES = [
  'getting-started',
  'affinity',
  'failure-handling',
  'prequal',
  'proxy',
  'writing-a-strategy',
  'writing-a-transport',
  'transports',
  'reload',
  'logging',
  'metrics',
]
const FENCE = /^```ts(?: file=(\S+))?\n([\s\S]*?)^```\n(?:\n^```text\n([\s\S]*?)^```\n)?/gm
const run = promisify(execFile)

/** A folder outside the repository; the blocks find in it what an install would have put there. */
const folder = mkdtempSync(join(tmpdir(), 'evenkeel-docs-'))
symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
const env = cachedEnv()
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function blocksOf(path: string): readonly Block[] {
  const text = readFileSync(join(ROOT, path), 'utf8')
  return [...text.matchAll(FENCE)].map(({ index, 1: file, 2: code, 3: output }) => {
    return { line: text.slice(0, index).split('\n').length + 1, file, code: code!, output }
  })
}

function write(name: string, code: string): string {
  const path = join(folder, name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, code)
  return path
}

function patternOf(output: string): RegExp {
  const parts = output.trimEnd().split('…')
  return new RegExp(`^${parts.map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).join('[\\s\\S]*?')}$`)
}

describe.each(PAGES)('docs/%s.md', (page) => {
  const blocks = blocksOf(`docs/${page}.md`).map((block) => {
    return { ...block, path: write(`${page}/${block.file ?? `line-${block.line}.ts`}`, block.code) }
  })

  test('has code, and shows what it prints', () => {
    expect(blocks.length).toBeGreaterThan(2)
    for (const { file, output, line } of blocks) expect(file ?? output, `line ${line}`).toBeDefined()
  })

  test.each(blocks)('line $line', async ({ path, output }) => {
    // Rejects when the exit code is not 0, or when it has not ended in time.
    const { stdout, stderr } = await run(process.execPath, [...ARGS, path], { cwd: folder, env, timeout: 20_000 })
    expect(stderr).toBe('')
    expect(stdout.trimEnd()).toMatch(patternOf(output ?? ''))
  })
})

/** What a block of the README needs around it, and what must come of it. Ports are replaced by free ones. */
const README: readonly {
  readonly has: string
  readonly around?: (code: string) => string
  readonly check: (block: ChildProcess, port: number) => Promise<void>
}[] = [
  {
    has: 'const { fetch } = balancer',
    check: async (block) => expect(await said(block)).toBe("200 { url: '/users/1' }\n"),
  },
  {
    has: 'createProxy(balancer)).listen(8080)',
    async check(block, port) {
      const answer = await askUntilUp(`http://127.0.0.1:${port}/users/1`)
      expect(await answer.json()).toEqual({ url: '/users/1' })
      block.kill()
      await once(block, 'exit')
    },
  },
  {
    has: 'balancer.acquire(',
    around: (code) => `
      import { createBalancer } from 'evenkeel'
      import * as undici from 'undici'
      const backends = ['http://127.0.0.1:3001', 'http://127.0.0.1:3002']
      const balancer = createBalancer({ backends })
      const talkTo = async (url: string): Promise<void> => console.log(backends.includes(url))
      ${code.replace('[...]', 'backends')}
      console.log(statusCode, users, balancer.stats().pools.default!.inflight)
      await balancer.close()`,
    check: async (block) => expect(await said(block)).toBe("true\n200 { url: '/users/1' } 0\n"),
  },
  {
    has: 'watchConfig(',
    around: (code) => `
      import { writeFileSync } from 'node:fs'
      const file = new URL('evenkeel.toml', import.meta.url).pathname
      const text = (url: string): string => '[[backends]]\\nurl = "' + url + '"\\n'
      writeFileSync(file, text('http://127.0.0.1:3001') + text('http://127.0.0.1:3002'))
      ${code.replaceAll("'evenkeel.toml'", 'file')}
      console.log((await balancer.fetch('/')).status, balancer.revisions().length)
      balancer.on('configured', ({ origin }) => {
        console.log(origin)
        void balancer.close()
      })
      writeFileSync(file, text('http://127.0.0.1:3001') + text('http://127.0.0.1:3003'))`,
    check: async (block) => expect(await said(block)).toBe('200 1\nfile\n'),
  },
  {
    has: "balancer.on('blocked'",
    around: (code) => `
      import { createBalancer } from 'evenkeel'
      const log = { warn: console.log, info: console.log }
      const balancer = createBalancer({ backends: ['http://127.0.0.1:3001', { url: 'http://127.0.0.1:3002', id: 'b' }] })
      const response = await balancer.fetch('/')
      await response.text()
      ${code}
      balancer.disable('b')
      balancer.enable('b')
      await balancer.close()`,
    check: async (block) => expect(await said(block)).toBe('b is out: operator \nb is back\n'),
  },
]

describe('README.md', () => {
  const blocks = blocksOf('README.md').map((block) => ({
    ...block,
    play: README.find(({ has }) => block.code.includes(has)),
  }))

  test('each of its blocks is known here', () => {
    expect(blocks.filter(({ play }) => play === undefined).map(({ code }) => code)).toEqual([])
    expect(blocks.length).toBe(README.length)
  })

  test.each(blocks)('line $line', async ({ line, code, play }) => {
    const servers = await Promise.all([startServer(), startServer(), startServer(), startServer()])
    const ports = servers.map((server) => (server.address() as AddressInfo).port)
    const proxy = servers.pop()!
    proxy.close() // only its port is wanted
    const whole = (play?.around?.(code) ?? code)
      .replace(/127\.0\.0\.1:300([123])/g, (_, n) => `127.0.0.1:${ports[n - 1]}`)
      .replace('8080', String(ports[3]))
    const block = spawn(process.execPath, [...ARGS, write(`readme/line-${line}.ts`, whole)], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env,
    })
    try {
      await play!.check(block, ports[3]!)
    } finally {
      block.kill()
      for (const server of servers) server.close()
    }
  })
})

test('all of it type-checks', () => {
  const paths = Object.fromEntries([...sources].map(([name, url]) => [name, [fileURLToPath(url)]]))
  const typeRoots = [join(ROOT, 'node_modules/@types')]
  const compilerOptions = { paths, typeRoots, declaration: false, isolatedDeclarations: false }
  const include = PAGES.map((page) => `${page}/*.ts`)
  const config = write(
    'tsconfig.json',
    JSON.stringify({ extends: join(ROOT, 'tsconfig.json'), compilerOptions, include }),
  )
  const { fileNames, options, errors } = ts.parseJsonConfigFileContent(
    ts.readConfigFile(config, ts.sys.readFile).config,
    ts.sys,
    folder,
  )
  expect(fileNames.length).toBeGreaterThan(PAGES.length)
  // The blocks alone, and of the sources what they take: `npm run types` checks the rest.
  const program = ts.createProgram(fileNames, options)
  const wrong = [
    ...errors,
    ...program.getOptionsDiagnostics(),
    ...program.getGlobalDiagnostics(),
    ...fileNames.flatMap((name) => {
      const file = program.getSourceFile(name)!
      return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]
    }),
  ]
  expect(ts.formatDiagnostics(wrong, { ...ts.sys, getNewLine: () => '\n', getCanonicalFileName: (it) => it })).toBe('')
}, 120_000) // a compiler run of ten seconds, on a machine that does other things

/** Everything it prints, if it ends well. */
async function said(block: ChildProcess): Promise<string> {
  let text = ''
  block.stdout!.on('data', (data) => {
    text += data
  })
  const [code] = await once(block, 'close')
  expect(code).toBe(0)
  return text
}

async function askUntilUp(url: string): Promise<Response> {
  for (let tries = 0; ; tries++) {
    try {
      return await fetch(url)
    } catch (error) {
      if (tries === 100) throw error
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
}

/** A backend that says which URL it was asked for. */
async function startServer(): Promise<Server> {
  const server = http.createServer((request, response) => {
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ url: request.url }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}
