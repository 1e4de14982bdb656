import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { BalancerError, createBalancer } from 'evenkeel'
import {
  type Config,
  type ConfigTables,
  configOf,
  issueText,
  loadConfig,
  parseConfig,
  watchConfig,
} from 'evenkeel/config'
import { describe, expect, expectTypeOf, onTestFinished, test } from 'vitest'
import { refusedFile } from './support/config-files.ts'
import { upstream } from './support/upstreams.ts'

const TWO = 'backends = ["http://127.0.0.1:3001", "http://127.0.0.1:3002"]\n'

function folder(files: Readonly<Record<string, string>>): string {
  const path = mkdtempSync(join(tmpdir(), 'evenkeel-config-'))
  onTestFinished(() => rmSync(path, { recursive: true }))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text, { mode: 0o600 })
  return path
}

describe('a TOML file', () => {
  const text = `
[settings]
name = "shop"
strategy = "round-robin"
origins = ["https://api.example.com"]

[settings.timeouts]
connect = "250ms"
headers_ms = 3000
idle_seconds = 1.5
total = 0

[settings.health]
panic_below = 0.25
slow_start = false

[settings.health.passive]
consecutive = 3
success_rate = { min_backends = 2 }

[settings.undici]
keep_alive = "5m"
allow_h2 = true

[settings.classes.timeout]
retry = "never"

[pools.api]
retry.attempts = 2

[[pools.api.backends]]
url = "http://127.0.0.1:3001"
id = "one"
weight = 3
max_inflight = 10
tags = ["fast"]
timeouts = { attempt = "2s" }
headers = { X-Tenant_Name = "a" }
meta = { rack_id = "r1" }

[[pools.api.backends]]
url = "http://127.0.0.1:3002"

[pools."static.files"]
backends = ["http://127.0.0.1:3003", "http://127.0.0.1:3004"]
`

  test('says in snake_case and with units what options say in camelCase and ms', async () => {
    const { options, models, users } = await parseConfig(text)
    expect(options).toEqual({
      name: 'shop',
      strategy: 'round-robin',
      origins: ['https://api.example.com'],
      timeouts: { connectMs: 250, headersMs: 3000, idleMs: 1500, totalMs: 0 },
      health: { panicBelow: 0.25, slowStart: false, passive: { consecutive: 3, successRate: { minBackends: 2 } } },
      undici: { keepAliveMs: 300_000, allowH2: true },
      classes: { timeout: { retry: 'never' } },
      pools: {
        api: {
          retry: { attempts: 2 },
          backends: [
            {
              url: 'http://127.0.0.1:3001',
              id: 'one',
              weight: 3,
              maxInflight: 10,
              tags: ['fast'],
              timeouts: { attemptMs: 2000 },
              headers: { 'X-Tenant_Name': expect.anything() },
              meta: { rack_id: 'r1' },
            },
            { url: 'http://127.0.0.1:3002' },
          ],
        },
        'static.files': { backends: ['http://127.0.0.1:3003', 'http://127.0.0.1:3004'] },
      },
    })
    expect(models).toEqual([])
    expect(users).toEqual([])
    await createBalancer(options).close()
  })

  test('may list the backends of one pool', async () => {
    const { options, warnings } = await parseConfig(TWO)
    expect(options).toEqual({ backends: ['http://127.0.0.1:3001', 'http://127.0.0.1:3002'] })
    expect(warnings).toEqual([])
  })

  test('is balanced over, with the headers it gives', async () => {
    const seen: unknown[] = []
    const one = await upstream((request, response) => {
      seen.push(request.headers['x-api-key'])
      response.end('one')
    })
    const path = join(
      folder({ 'lb.toml': `[[backends]]\nurl = "${one.url}"\nheaders.x-api-key = "\${file:key}"` }),
      'lb.toml',
    )
    writeFileSync(join(path, '../key'), 'k-1234\n', { mode: 0o600 })
    const { options, warnings } = await loadConfig(path)
    const balancer = createBalancer(options)
    onTestFinished(() => balancer.close())
    expect(await (await balancer.fetch('/')).text()).toBe('one')
    expect(seen).toEqual(['k-1234'])
    expect(warnings.map((warning) => issueText(warning, 'lb.toml'))).toEqual([
      'lb.toml:1:3: backends: expected two or more backends: with one there is nobody to fail over to, found 1',
    ])
  })

  test.each([
    ['interval = "250ms"', 250],
    ['interval = "1.5s"', 1500],
    ['interval = "5m"', 300_000],
    ['interval = "1h"', 3_600_000],
    ['interval_ms = 250.5', 250.5],
    ['interval_seconds = 0.2', 200],
  ])('%s is a time', async (line, intervalMs) => {
    const { options } = await parseConfig(`${TWO}[settings.health.active]\nfast_interval_ms = 1\n${line}`)
    expect(options.health).toEqual({ active: { fastIntervalMs: 1, intervalMs } })
  })

  test.each([
    ['interval = "250"', 'a duration such as', 'a string of 3 characters'],
    ['interval = 250', 'a duration such as', '250'],
    ['interval = "-1s"', 'a duration such as', 'a string of 3 characters'],
    ['interval = "1 day"', 'a duration such as', 'a string of 5 characters'],
    ['interval = "0s"', 'a duration > 0', '"0s"'],
    ['interval_ms = "250"', 'a number > 0', 'a string of 3 characters'],
    ['interval_seconds = "2"', 'seconds > 0', 'a string of 1 character'],
    ['interval_seconds = -2', 'seconds > 0', '-2'],
    ['interval_ms = inf', 'a number > 0', 'Infinity'],
    ['interval_ms = 1\ninterval = "1s"', 'either interval_ms or interval', 'both'],
    ['interval_sec = 1', 'interval', 'an unknown key'],
  ])('%s is no time', async (line, expected, found) => {
    const { issues } = await refusedFile(`${TWO}[settings.health.active]\n${line}`)
    expect(issues).toHaveLength(1)
    expect(issues![0]!.expected).toContain(expected)
    expect(issues![0]!.found).toBe(found)
    expect(issues![0]).toMatchObject({ line: line.includes('\n') ? 4 : 3, column: 1 })
  })
})

describe('other forms', () => {
  const tables = {
    settings: { timeouts: { total: '3s' } },
    pools: { a: { backends: ['http://a', 'http://b'] } },
  } as const
  const options = { timeouts: { totalMs: 3000 }, pools: { a: { backends: ['http://a', 'http://b'] } } }

  test('are JSON and plain data of the same shape', async () => {
    const json = JSON.stringify({ $schema: 'x.json', ...tables })
    expect((await parseConfig(json, { format: 'json' })).options).toEqual(options)
    expect((await loadConfig(join(folder({ 'lb.json': json }), 'lb.json'))).options).toEqual(options)
    expect((await configOf(tables)).options).toEqual(options)
  })

  test('a file: URL is a path', async () => {
    const url = pathToFileURL(join(folder({ 'a b.json': JSON.stringify(tables) }), 'a b.json'))
    expect((await loadConfig(url)).options).toEqual(options)
    expect(watchConfig(url).name).toBe('file')
  })

  test.each([
    [new URL('https://a.test/lb.toml'), 'a URL'],
    [undefined, 'undefined'],
    [5, '5'],
  ])('%s is none', async (file, found) => {
    await expect(loadConfig(file as never)).rejects.toMatchObject({
      code: 'CONFIG',
      message: `1 thing is wrong with the configuration:\n  the file: expected a path or a file: URL, found ${found}`,
    })
    expect(() => watchConfig(file as never)).toThrow(expect.objectContaining({ code: 'CONFIG' }))
  })

  test('plain data is typed', () => {
    expectTypeOf(tables).toExtend<ConfigTables>()
    expectTypeOf<NonNullable<ConfigTables['settings']>['max_retries']>().toEqualTypeOf<number | undefined>()
    expectTypeOf<Config['warnings'][number]['line']>().toEqualTypeOf<number | undefined>()
    // @ts-expect-error: camelCase is for options
    void ({ settings: { timeouts: { totalMs: 1 } } } satisfies ConfigTables)
    // @ts-expect-error: no file can hold a function
    void ({ settings: { route: () => 'a' } } satisfies ConfigTables)
    // @ts-expect-error: nor what becomes of its log
    void ({ settings: { log: { requests: true } } } satisfies ConfigTables)
    void ({ settings: { strategy: { name: 'ring-hash', key: 'header:x-user', min_size: 1 } } } satisfies ConfigTables)
    void ({ settings: { strategy: { name: 'failover', strategy: 'p2c' } } } satisfies ConfigTables)
    void ({ settings: { strategy: { name: 'prequal', max_age: '1s' } } } satisfies ConfigTables)
    void ({ backends: [{ url: 'http://a', headers: { 'x-key': '1' }, meta: { mine: 1 } }] } satisfies ConfigTables)
    void ({
      settings: { undici: { tls: { ca: 'x' } }, classes: { 'client-error': { retry: 'never' } } },
    } satisfies ConfigTables)
    // @ts-expect-error: misspelt
    void ({ settings: { strategy: { name: 'ring-hash', key: 'path', minimum: 1 } } } satisfies ConfigTables)
    // @ts-expect-error: a function
    void ({ settings: { strategy: { name: 'ring-hash', key: () => 'a' } } } satisfies ConfigTables)
  })

  test('are refused when they cannot be read', async () => {
    const path = folder({
      'big.toml': '#'.repeat(1024 * 1024 + 1),
      'a.json': '{\n "a": sk-canary-123 }',
      'a.toml': TWO,
    })
    mkdirSync(join(path, 'directory'))
    writeFileSync(join(path, 'utf16.toml'), Buffer.from(`\ufeff${TWO}`, 'utf16le'))
    writeFileSync(join(path, 'latin1.toml'), Buffer.from(`${TWO}# caf\u00e9`, 'latin1'))
    const refused = async (name: string): Promise<string> => {
      const error = await loadConfig(join(path, name)).catch((it: unknown) => it)
      if (!(error instanceof BalancerError)) throw error
      expect(error.code).toBe('CONFIG')
      expect(error.cause).toBeUndefined()
      return error.message.replaceAll(path, '')
    }
    expect(await refused('none.toml')).toMatch(
      /1 thing is wrong with \/none.toml:\n.*1 MiB that can be read, found none$/,
    )
    expect(await refused('utf16.toml')).toContain('found a text that is not UTF-8')
    expect(await refused('latin1.toml')).toContain('found a text that is not UTF-8')
    expect(await refused('big.toml')).toContain('found 1048577 bytes')
    expect(await refused('directory')).toContain('found something else')
    expect(await refused('a.json')).toBe(
      '1 thing is wrong with /a.json:\n  /a.json: the file: expected valid JSON, found something else',
    )
    await expect(loadConfig(join(path, 'a.toml'))).resolves.toBeDefined()
    for (const text of [
      '[]',
      '5',
      'null',
      '"sk-canary-123"',
      '{"pools":[]}',
      '{"pools":5}',
      '{"settings":"sk-canary"}',
    ]) {
      const error = await parseConfig(text, { format: 'json' }).catch((it: unknown) => it)
      expect(error, text).toBeInstanceOf(BalancerError)
      expect(String(error)).not.toContain('canary')
    }
  })
})
