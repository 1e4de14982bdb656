import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, test } from 'vitest'
import { cachedEnv } from './support/compile-cache.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const BEFORE = [
  '--disable-warning=ExperimentalWarning',
  '--import',
  './scripts/from-source.mjs',
  'examples/demo/main.ts',
]
const env = cachedEnv()

interface Demo {
  readonly child: ChildProcess
  readonly stdout: Promise<string>
  readonly stderr: Promise<string>
  /** Exit code, or the signal that ended it. */
  readonly exit: Promise<number | string>
}

const children = new Set<ChildProcess>()

function startDemo(...args: string[]): Demo {
  const child = spawn(process.execPath, [...BEFORE, ...args], { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'pipe'] })
  children.add(child)
  const exit = once(child, 'exit').then(([code, signal]) => {
    children.delete(child)
    return code ?? signal
  })
  return { child, stdout: text(child.stdout), stderr: text(child.stderr), exit }
}

/** Resolves with the match as soon as the demo has printed it. */
function said({ child }: Demo, words: RegExp): Promise<RegExpExecArray> {
  let seen = ''
  return new Promise((resolve, reject) => {
    child.stdout!.on('data', (chunk: Buffer) => {
      seen += chunk
      const match = words.exec(seen)
      if (match !== null) resolve(match)
    })
    child.once('exit', () => reject(new Error(`ended without saying ${words}: ${seen}`)))
  })
}

afterEach(() => {
  for (const child of children) child.kill('SIGKILL')
})

describe('npm start', () => {
  test('--once tells the whole story in under 20 s without a failed request', { timeout: 40_000 }, async () => {
    const startMs = performance.now()
    const demo = startDemo('--once')
    const [exit, stdout, stderr] = await Promise.all([demo.exit, demo.stdout, demo.stderr])
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^failed {4}0$/m)
    expect(Number(/^requests +(\d+)$/m.exec(stdout)?.[1])).toBeGreaterThan(1_000)
    expect(stdout).toMatch(/^retries {3}[1-9]/m)
    expect(stdout).toMatch(/^shares {4}fast [\d.]+ %, steady [\d.]+ %, slow [\d.]+ %, flaky [\d.]+ %$/m)
    expect(stdout).toMatch(/fast is KILLED/)
    expect(stdout).toMatch(/fast +blocked .*probe/)
    expect(stdout).toMatch(
      /^outage {4}fast killed at [\d.]+ s, up again at [\d.]+ s, traffic again at [\d.]+ s: out for [\d.]+ s$/m,
    )
    expect(exit).toBe(0)
    expect(performance.now() - startMs).toBeLessThan(20_000)
  })

  test.each(['SIGINT', 'SIGTERM'] as const)('answers until %s ends it with code 0', async (signal) => {
    const demo = startDemo('--port', '0')
    const [, url] = await said(demo, /listens on (http:\/\/127\.0\.0\.1:\d+)/)
    const response = await fetch(`${url}/hello`)
    expect(response.status).toBe(200)
    expect(await response.json()).toMatchObject({ path: '/hello' })
    await said(demo, /steady up /)
    demo.child.kill(signal)
    demo.child.kill(signal) // npm sends a second one
    expect(await demo.exit).toBe(0)
    expect(await demo.stdout).toMatch(/^failed {4}0$/m)
    expect(await demo.stderr).toBe('')
    await expect(fetch(url!)).rejects.toThrow()
  })

  test('says in one line what to do about a taken port', async () => {
    const holder = createServer().listen(0, '127.0.0.1')
    await once(holder, 'listening')
    const { port } = holder.address() as AddressInfo
    try {
      const demo = startDemo('--port', String(port))
      expect(await demo.exit).toBe(1)
      expect(await demo.stderr).toMatch(
        new RegExp(`^evenkeel demo: port ${port} on 127.0.0.1 is taken; .*--port \\d+\\n$`),
      )
      expect(await demo.stdout).toBe('')
    } finally {
      holder.close()
    }
  })

  test.each([
    [['--port', '80x'], /^evenkeel demo: --port takes a number from 0 to 65535, not "80x"; .*--help.*\n$/],
    [['--port', '70000'], /^evenkeel demo: --port takes .*\n$/],
    [['--port'], /^evenkeel demo: Option '--port <value>' argument missing; .*\n$/],
    [['--twice'], /^evenkeel demo: Unknown option '--twice'; .*\n$/],
    [['now'], /^evenkeel demo: Unexpected argument 'now'; .*\n$/],
  ])('refuses %j in one line', async (args, line) => {
    const demo = startDemo(...args)
    expect(await demo.exit).toBe(1)
    expect(await demo.stderr).toMatch(line)
    expect(await demo.stdout).toBe('')
  })

  test('--help lists the options', async () => {
    const demo = startDemo('--help')
    expect(await demo.exit).toBe(0)
    const stdout = await demo.stdout
    for (const option of ['--port', '--once', '--help']) expect(stdout).toContain(option)
  })
})
