import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { BalancerError, createBalancer, Secret } from 'evenkeel'
import { issueText, loadConfig, type ParseOptions, parseConfig } from 'evenkeel/config'
import fc from 'fast-check'
import { stringify } from 'smol-toml'
import { describe, expect, onTestFinished, test } from 'vitest'
import { complaintsOf, refusedFile } from './support/config-files.ts'

const BERRY = readFileSync(new URL('fixtures/berry.toml', import.meta.url), 'utf8')
const TWO = 'backends = ["http://127.0.0.1:3001", "http://127.0.0.1:3002"]\n'

function folder(files: Readonly<Record<string, string>>): string {
  const path = mkdtempSync(join(tmpdir(), 'evenkeel-secrets-'))
  onTestFinished(() => rmSync(path, { recursive: true }))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text, { mode: 0o600 })
  return path
}

/** The name of a balancer whose file says it is `text`. */
async function nameOf(text: string, options: ParseOptions = {}): Promise<string | undefined> {
  return (await parseConfig(`settings.name = ${JSON.stringify(text)}\n${TWO}`, options)).options.name
}

describe('a string', () => {
  const env = { NAME: 'shop', EMPTY: '', NESTED: `\${env:NAME}` }

  test.each([
    [`\${env:NAME}`, 'shop'],
    [`a-\${env:NAME}-\${env:NAME}`, 'a-shop-shop'],
    [`a\${env:EMPTY}`, 'a'],
    [`$\${env:NAME}`, `\${env:NAME}`],
    [`$\${`, `\${`],
    [`$$\${env:NAME}`, `$\${env:NAME}`],
    [`$\${x \${env:NAME}`, `\${x shop`], // no dollar of the one is part of the other
    [`$\${\${env:NAME}}`, `\${shop}`],
    ['$NAME {x} $', '$NAME {x} $'],
    [`\${env:NESTED}`, `\${env:NAME}`], // what comes in is not looked at again
  ])('of %j is %j', async (text, name) => {
    expect(await nameOf(text, { env })).toBe(name)
  })

  test.each([
    [`\${env:MISSING}`, 'the environment variable MISSING to be set, found none'],
    [`\${env:__proto__}`, 'the environment variable __proto__ to be set, found none'],
    [`\${env:not a name}`, 'found another form'],
    [`\${env:}`, 'found another form'],
    [`\${NAME}`, 'found another form'],
    [`\${}`, 'found another form'],
    [`\${env:NAME`, 'found another form'],
    [`\${vault:NAME}`, 'found another form'],
    [`\${file:missing}`, 'the file missing to be a regular one of at most 64 KiB that can be read, found none'],
    [`\${env:OPENAI_API_KEY2}`, 'the environment variable OPENAI_API_KEY2 to be set'],
    [`\${env:A1B2C3D4E5F6G7H8I9J0}`, 'the environment variable A1B2C3D4E5F6G7H8I9J0 to be set'],
    [`\${env:aB3dE5gH7jK9mN1pQ3rS}`, 'the environment variable aB3d…(20) to be set'],
    [`\${file:keys/openai2024production}`, 'the file keys/openai2024production to be a regular one'],
    [`\${file:/run/0a1b2c3d4e5f60718293/aB3dE5gH7jK9mN1p}`, 'the file /run/0a1b2c3d4e5f60718293/…(16) to be a regular'],
    [`\${file:.}`, 'that can be read, found something else'],
    [`\${file:/dev/zero}`, 'that can be read, found something else'],
  ])('of %j is refused', async (text, complaint) => {
    const complaints = await complaintsOf(`settings.name = ${JSON.stringify(text)}\n${TWO}`, { env })
    expect(complaints).toEqual([expect.stringContaining(`1:10: settings.name: expected`)])
    expect(complaints[0]).toContain(complaint)
  })

  test('takes files from beside the configuration, without the last line break, up to 64 KiB', async () => {
    const most = 'x'.repeat(64 * 1024)
    const path = folder({ key: 'k-1\r\n', two: 'a\n\n', most, more: `${most}x` })
    mkdirSync(join(path, 'inner'))
    symlinkSync(join(path, 'key'), join(path, 'inner/link'))
    const name = async (file: string): Promise<string | undefined> => nameOf(`\${file:${file}}`, { folder: path })
    expect(await name('key')).toBe('k-1')
    expect(await name('two')).toBe('a\n')
    expect(await name(join(path, 'key'))).toBe('k-1')
    expect(await name('inner/link')).toBe('k-1')
    expect((await name('most'))?.length).toBe(64 * 1024)
    await expect(name('more')).rejects.toThrow('found 65537 bytes')
    writeFileSync(
      join(path, 'lb.json'),
      JSON.stringify({ settings: { name: `\${file:key}` }, backends: ['http://a', 'http://b'] }),
    )
    const { options, files } = await loadConfig(join(path, 'lb.json'))
    expect([options.name, files]).toEqual(['k-1', [join(path, 'key')]])
    const { folder: none } = {} as { readonly folder?: string }
    // @ts-expect-error: whoever passes on what is not there means nothing by it
    expect((await loadConfig(join(path, 'lb.json'), { folder: none })).options.name).toBe('k-1')
  })

  test('of which nothing is left but the word before it is a warning', async () => {
    const text = `backends = ["http://a", { url = "https://b", headers.authorization = "Bearer \${env:EMPTY}" }]`
    expect((await parseConfig(text, { env })).warnings.map((it) => issueText(it))).toEqual([
      '1:54: backends[1].headers.authorization: expected a secret that is not empty, found an empty one',
    ])
  })

  test('may be filled wherever it stands, and nowhere else', async () => {
    const { options } = await parseConfig(
      `[[backends]]\nurl = "http://\${env:HOST}:1"\ntags = ["\${env:HOST}"]\nmeta."\${env:HOST}" = 1\nheaders.x = "\${env:HOST}"`,
      { env: { HOST: 'h' } },
    )
    const [backend] = options.backends!
    expect(backend).toMatchObject({ url: 'http://h:1', tags: ['h'], meta: Object.fromEntries([[`\${env:HOST}`, 1]]) })
    expect(typeof backend === 'object' && (backend.headers!.x as Secret).reveal()).toBe('h')
  })
})

describe('a file that others can read', () => {
  test('is a warning if it holds a key, as is a file it takes one from', async () => {
    const path = folder({ key: 'k-1', 'a.toml': `${TWO}`, 'b.toml': BERRY })
    const warnings = async (name: string): Promise<readonly string[]> => {
      const { warnings: all } = await loadConfig(join(path, name))
      return all.map((it) => issueText(it)).filter((it) => it.includes('other accounts'))
    }
    writeFileSync(join(path, 'c.toml'), `[[backends]]\nurl = "http://a"\nheaders.authorization = "\${file:key}"`)
    expect([await warnings('a.toml'), await warnings('b.toml'), await warnings('c.toml')]).toEqual([[], [], []])
    for (const name of ['key', 'a.toml', 'b.toml', 'c.toml']) chmodSync(join(path, name), 0o644)
    const told = 'expected a file that other accounts can neither read nor change, found one they can'
    expect(await warnings('a.toml')).toEqual([])
    expect(await warnings('b.toml')).toEqual([`the file: ${told}`])
    expect(await warnings('c.toml')).toEqual([`3:9: backends[0].headers.authorization: ${told}`])
  })
})

test('the names of pools, providers and models make no secret of what is in them', async () => {
  const path = folder({ 'lb.toml': '' })
  const provider = `name = "P"\nbase_url = "http://localhost:1"\napi_key = "\${env:KEY}"\nmodels = ["m", "n"]`
  const backends = `[[models.authors.backends]]\nprovider = "keys"\nmodel =`
  const text = `[providers.keys]\n${provider}\n[models.authors]\nname = "authors"\nstrategy = { name = "ring-hash", key = "header:x-user" }\n${backends} "m"\n${backends} "n"\n`
  writeFileSync(join(path, 'lb.toml'), text)
  chmodSync(join(path, 'lb.toml'), 0o644)
  const { warnings } = await loadConfig(join(path, 'lb.toml'), { env: { KEY: 'key-0123456789' } })
  expect(warnings).toEqual([])
  expect(await complaintsOf(`${text}weight = -5`, { env: { KEY: 'key-0123456789' } })).toEqual([
    expect.stringContaining('found -5'),
  ])
})

describe('a secret', () => {
  test('is wrapped: neither what is printed of a configuration nor its JSON shows it', async () => {
    const config = await parseConfig(BERRY)
    const shown = inspect(config, { depth: Infinity, showHidden: true }) + JSON.stringify(config)
    const secrets = [...BERRY.matchAll(/^(?:api_key|token) = "(.+)"$/gm)].map(([, it]) => it!)
    expect(secrets).toHaveLength(7)
    for (const secret of secrets) expect(shown).not.toContain(secret)
    expect(config.users[0]!.token).toBeInstanceOf(Secret)
    const balancer = createBalancer(config.options)
    onTestFinished(() => balancer.close())
    expect(Object.keys(balancer.stats().pools)).toHaveLength(3)
  })

  const secret = fc.stringMatching(/^[A-Za-z0-9+/=_.@:?&%-]{12,40}$/).map((it) => `c4${it}`)
  const known = [
    'settings',
    'pools',
    'models',
    'providers',
    'users',
    'backends',
    'name',
    'strategy',
    'retry',
    'attempts',
  ]
    .concat([
      'health',
      'active',
      'passive',
      'interval',
      'interval_ms',
      'type',
      'headers',
      'meta',
      'url',
      'id',
      'weight',
    ])
    .concat(['provider', 'model', 'api_key', 'base_url', 'token', 'tags', 'allowed_models', 'rate_limit', 'timeouts'])
    .concat(['max_retries', 'breaker', 'trip', 'undici', 'tls', 'classes', 'enabled', 'billing_mode', 'zone', 'a', 'b'])
  const key = fc.constantFrom(...known)
  /** A tree with a secret in place of some of its values. */
  const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 5 },
      { weight: 3, arbitrary: secret },
      secret.map((it) => `http://${it}`),
      secret.map((it) => `\${env:S}${it}`),
      fc.constantFrom(1, -1, true, 'gpt', '3s'),
      fc.array(tie('tree'), { maxLength: 3 }),
      { weight: 5, arbitrary: fc.dictionary(key, tie('tree'), { maxKeys: 6 }) },
    ),
  }))
  const sections = fc.record(
    {
      settings: tree,
      backends: fc.oneof(
        tree,
        fc.array(fc.record({ url: tree, id: tree, headers: tree }, { requiredKeys: [] }), { maxLength: 3 }),
      ),
      pools: fc.dictionary(key, tree, { maxKeys: 3 }),
      providers: fc.dictionary(key, fc.record({ name: tree, base_url: tree, api_key: tree, models: tree }), {
        maxKeys: 3,
      }),
      models: fc.dictionary(
        key,
        fc.record({ name: tree, strategy: tree, backends: fc.array(tree, { maxLength: 3 }) }),
        { maxKeys: 3 },
      ),
      users: fc.dictionary(key, fc.record({ name: tree, token: tree, allowed_models: tree, tags: tree }), {
        maxKeys: 3,
      }),
    },
    { requiredKeys: [] },
  )

  /** The strings of a tree. */
  function stringsIn(value: unknown): readonly string[] {
    if (typeof value === 'string') return [value]
    return typeof value === 'object' && value !== null ? Object.values(value).flatMap(stringsIn) : []
  }

  test('in any string of any broken file shows up in no message', async () => {
    const told = { refused: 0, syntax: 0 }
    await fc.assert(
      fc.asyncProperty(
        sections,
        secret,
        fc.option(fc.nat(400), { freq: 2 }),
        fc.boolean(),
        async (tables, inEnv, cut, json) => {
          const whole = json ? JSON.stringify(tables, null, 1) : stringify(tables)
          // Half of the files are broken off, or have a stray quote in them.
          const text = cut === null ? whole : `${whole.slice(0, cut)}"${whole.slice(cut + 2)}`
          const secrets = [...stringsIn(tables), inEnv].flatMap((it) => /c4[^$]{10,}$/.exec(it)?.[0] ?? [])
          const error = await parseConfig(text, { env: { S: inEnv }, format: json ? 'json' : 'toml' }).then(
            (config) => config.warnings,
            (reason: unknown) => reason,
          )
          if (error instanceof BalancerError) {
            told.refused++
            if (error.issues!.some(({ expected }) => expected.startsWith('valid'))) told.syntax++
          }
          const shown = `${inspect(error, { depth: Infinity, showHidden: true })}${JSON.stringify(error)}${String(error)}`
          for (const it of secrets) expect(shown).not.toContain(it.slice(0, 10))
        },
      ),
      { numRuns: 500, seed: 7 },
    )
    expect(told.refused - told.syntax).toBeGreaterThan(150)
    expect(told.syntax).toBeGreaterThan(150)
  })
})

describe("an object's prototype", () => {
  const NAMES = ['__proto__', 'constructor', 'prototype']

  test.each(NAMES)('is out of reach of %s, at any depth, in TOML and JSON', async (name) => {
    const bad = { polluted: 1 }
    const wrap: readonly ((inner: string) => string)[] = [
      (inner) => `{"${name}":${inner}}`,
      (inner) => `{"settings":{"${name}":${inner}}}`,
      (inner) => `{"settings":{"health":{"active":{"headers":{"${name}":${inner}}}}}}`,
      (inner) => `{"pools":{"${name}":${inner}}}`,
      (inner) => `{"models":{"m":{"backends":[{"${name}":${inner}}]}}}`,
      (inner) => `{"backends":[{"url":"http://a","meta":{"a":[{"${name}":${inner}}]}}]}`,
      (inner) => `{"providers":{"${name}":${inner}},"users":{"${name}":${inner}}}`,
    ]
    for (const text of wrap.map((it) => it(JSON.stringify(bad)))) {
      const { issues } = await refusedFile(text, { format: 'json' })
      expect(
        issues!.some(({ path, found }) => path.includes(name) && found === 'a reserved one'),
        text,
      ).toBe(true)
    }
    for (const text of [
      `[${name}]\npolluted = 1`,
      `[settings.${name}]\npolluted = 1`,
      `settings.health."${name}".polluted = 1`,
      `[[${name}]]\npolluted = 1`,
      `[pools.a]\nbackends = [{ url = "http://a", meta = { ${name} = { polluted = 1 } } }]`,
      `[models.${name}]\nname = "a"`,
    ]) {
      const { issues } = await refusedFile(text)
      const issue = issues!.find(({ path, found }) => path.includes(name) && found === 'a reserved one')
      expect(issue, text).toMatchObject({ line: expect.any(Number), column: expect.any(Number) })
    }
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
    expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false)
  })

  test('gives no word a meaning', async () => {
    const model = `[models.m]\nname = "m"\nstrategy = "toString"\n[[models.m.backends]]\nprovider = "valueOf"\nmodel = "m"`
    expect(await complaintsOf(model)).toEqual([
      expect.stringContaining('models.m.strategy: expected "auto"'),
      expect.stringContaining('models.m.backends[0].provider: expected the name of a provider'),
    ])
    expect(await complaintsOf(`${TWO}[settings]\nhasOwnProperty = 1`)).toEqual([
      expect.stringContaining('settings.hasOwnProperty: expected one of'),
    ])
  })
})
