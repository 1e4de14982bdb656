import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import type { Revision } from 'evenkeel'
import { loadConfig } from 'evenkeel/config'
import { expect, onTestFinished, test } from 'vitest'
import { cachedEnv } from './support/compile-cache.ts'
import { valuesOf } from './support/exposition.ts'
import { freePort } from './support/ports.ts'
import { until, upstream } from './support/upstreams.ts'
import { folder, replace } from './support/watching.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const SERVICE = fileURLToPath(new URL('../examples/service/service.toml', import.meta.url))
const ENV = cachedEnv()
const ARGS = ['--disable-warning=ExperimentalWarning', '--import', './scripts/from-source.mjs']

/** A line of the service's log. */
type Line = Readonly<Record<string, unknown>> & { readonly level: number; readonly msg: string }

interface Example {
  readonly child: ChildProcess
  /** What it prints, line by line, as it comes. */
  readonly lines: readonly string[]
  readonly stderr: Promise<string>
  /** Exit code, or the signal that ended it. */
  readonly exit: Promise<number | string>
}

function startExample(name: string, ...args: string[]): Example {
  const child = spawn(process.execPath, [...ARGS, `examples/service/${name}`, ...args], {
    cwd: ROOT,
    env: { ...ENV, PORT: '0', ADMIN_PORT: '0' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const lines: string[] = []
  createInterface(child.stdout).on('line', (line) => lines.push(line))
  const exit = once(child, 'close').then(([code, signal]) => code ?? signal)
  return { child, lines, stderr: text(child.stderr), exit }
}

function logOf({ lines }: Example): readonly Line[] {
  return lines.map((line) => JSON.parse(line) as Line)
}

/** The first line that fits, when it is there. */
async function said(example: Example, fits: (line: Line) => boolean): Promise<Line> {
  const find = (): Line | undefined => logOf(example).find(fits)
  await expect.poll(find, { timeout: 20_000 }).toBeDefined()
  return find()!
}

/** A file like the example's own, with other backends. */
async function fileFor(...urls: readonly string[]): Promise<string> {
  const own = await readFile(SERVICE, 'utf8')
  const listed = own.replace(/^backends = \[.*\]/m, `backends = ${JSON.stringify(urls)}`)
  expect(listed).not.toBe(own)
  return listed
}

test('the service runs by its file, reloads it, tells of itself, and ends in order', { timeout: 60_000 }, async () => {
  let held: ServerResponse | undefined
  const [one, two, three] = await Promise.all(
    ['one', 'two', 'three'].map((name) =>
      upstream((request, response) => {
        if (request.url === '/held') held = response
        else response.end(name)
      }),
    ),
  )
  const file = join(await folder(), 'service.toml')
  await writeFile(file, await fileFor(one!.url, two!.url), { mode: 0o600 })
  const service = startExample('service.ts', file)
  const { proxy, admin } = await said(service, ({ msg }) => msg === 'service is up')
  let asked = 0
  const ask = async (): Promise<string> => {
    asked++
    return (await fetch(`${proxy}/`)).text()
  }
  const metric = async (name: string, label: string): Promise<Readonly<Record<string, number>>> => {
    return valuesOf(await (await fetch(`${admin}/metrics`)).text(), name, label)
  }
  const revisions = async (): Promise<readonly Revision[]> => {
    return (await fetch(`${admin}/revisions`)).json() as Promise<readonly Revision[]>
  }

  // Traffic flows to both backends, and metrics tell of it.
  const seen = new Set<string>()
  while (seen.size < 2) seen.add(await ask())
  expect([...seen].sort()).toEqual(['one', 'two'])
  const counts = await metric('evenkeel_backend_requests_total', 'backend')
  expect(Object.keys(counts).sort()).toEqual([one!.url, two!.url].map((url) => new URL(url).host).sort())
  expect(Object.values(counts).reduce((sum, count) => sum + count)).toBe(asked)
  expect((await fetch(`${admin}/else`)).status).toBe(404)

  // Another file moves it.
  await replace(file, await fileFor(three!.url))
  const reload = await said(service, ({ msg, revision }) => msg === 'configuration in force' && revision === 2)
  expect(reload).toMatchObject({ origin: 'file', level: 30 })
  expect([await ask(), await ask(), await ask()]).toEqual(['three', 'three', 'three'])
  const { msg: warning } = await said(service, ({ level }) => level === 40)
  expect(warning).toContain(`${file}:`)
  expect(warning).toContain('with one there is nobody to fail over to')

  // A bad one changes nothing, and the log says why.
  await replace(file, `${await fileFor(one!.url)}fall = "often"\n`)
  const failure = await said(service, ({ msg }) => msg === 'reload failed')
  expect(failure.level).toBe(50)
  expect(failure.error).toMatch(/service\.toml:\d+:\d+: settings\.health\.active\.fall: expected a whole number/)
  expect(await ask()).toBe('three')
  expect((await revisions()).map(({ number, origin }) => [number, origin])).toEqual([
    [1, 'start'],
    [2, 'file'],
  ])
  expect(await metric('evenkeel_config_reload_failures_total', 'balancer')).toEqual({ service: 1 })

  // SIGUSR2 goes back.
  service.child.kill('SIGUSR2')
  await said(service, ({ origin, restores }) => origin === 'rollback' && restores === 1)
  expect(['one', 'two']).toContain(await ask())

  // And no further than to the first one: not back to what it has just left.
  service.child.kill('SIGUSR2')
  await said(service, ({ msg }) => msg === 'there is no configuration to go back to')
  expect((await revisions()).map(({ restores }) => restores)).toEqual([undefined, undefined, 1])
  expect(['one', 'two']).toContain(await ask())

  // SIGTERM lets finish who is under way, on connections that are there already too, and takes nobody new.
  const last = fetch(`${proxy}/held`)
  await until(() => held !== undefined, 'the request did not arrive')
  service.child.kill('SIGTERM')
  const answers = new Set<string>()
  const askOn = (): Promise<string> =>
    ask().then(
      (name) => String(answers.add(name)),
      () => 'refused',
    )
  await expect.poll(askOn, { timeout: 20_000 }).toBe('refused')
  expect(['one', 'two']).toEqual(expect.arrayContaining([...answers]))
  held!.end('to its end')
  expect(await (await last).text()).toBe('to its end')
  expect(await service.exit).toBe(0)
  expect(logOf(service).at(-1)!.msg).toBe('balancer closed')
  expect(await service.stderr).toBe('')
})

test('a second signal ends the service at once, whichever came first', { timeout: 60_000 }, async () => {
  let isHeld = false
  const backend = await upstream(() => {
    isHeld = true // and is never answered
  })
  const file = join(await folder(), 'service.toml')
  await writeFile(file, await fileFor(backend.url))
  const service = startExample('service.ts', file)
  const { proxy } = await said(service, ({ msg }) => msg === 'service is up')
  const last = fetch(`${proxy}/`).catch(() => 'cut')
  await until(() => isHeld, 'the request did not arrive')
  service.child.kill('SIGTERM')
  const ask = (): Promise<unknown> =>
    fetch(`${proxy}/`, { signal: AbortSignal.timeout(1_000) }).catch(({ cause }) => cause?.code)
  await expect.poll(ask, { timeout: 20_000 }).toBe('ECONNREFUSED')
  service.child.kill('SIGINT')
  expect(await service.exit).toBe('SIGINT')
  expect(await last).toBe('cut')
})

test.each([
  ['that is wrong', 'backends = []\nstrateggy = "p2c"', 'strateggy'],
  ['that is not there', undefined, 'expected a regular file'],
])('the service does not start with a file %s, and says why in one line', async (_, toml, why) => {
  const file = join(await folder(), 'service.toml')
  if (toml !== undefined) await writeFile(file, toml)
  const service = startExample('service.ts', file)
  expect(await service.exit).toBe(1)
  expect(logOf(service).map(({ level }) => level)).toEqual([60])
  expect(logOf(service)[0]!.msg).toContain(why)
  expect(await service.stderr).toBe('')
})

test('its own file loads without a warning, and its upstreams are servers to try it with', async () => {
  const { options, warnings } = await loadConfig(SERVICE)
  expect(warnings).toEqual([])
  expect(options.backends).toHaveLength(2)

  const ports = [await freePort(), await freePort()]
  const upstreams = startExample('upstreams.ts', ...ports.map(String))
  await expect.poll(() => upstreams.lines.length, { timeout: 20_000 }).toBe(2)
  for (const port of ports) {
    const response = await fetch(`http://127.0.0.1:${port}/hello`)
    expect(await response.text()).toBe(`GET /hello came to ${port}\n`)
  }
})
