import { BalancerError, type BalancerOptions, createBalancer, Secret } from 'evenkeel'
import { type ConfigTables, configOf, parseConfig } from 'evenkeel/config'
import { describe, expect, onTestFinished, test } from 'vitest'
import { deep } from './support/config-edits.ts'
import { complaintsOf, refusedFile } from './support/config-files.ts'
import { configFuzz } from './support/config-fuzz.ts'

const BACKENDS = ['http://a.test', 'http://b.test']

test('10 000 spoilt configurations: each is taken whole or refused in words, and nobody is the worse for it', async () => {
  const { kinds } = await configFuzz(10_000, 20_261_123)
  for (const [kind, { taken, refused }] of Object.entries(kinds)) {
    // Both ways are taken.
    expect(taken, kind).toBeGreaterThan(5)
    expect(refused, kind).toBeGreaterThan(5)
  }
  const all = Object.values(kinds)
  const sum = (key: keyof (typeof all)[number]): number => all.reduce((total, it) => total + it[key], 0)
  expect(sum('taken')).toBeGreaterThan(800)
  expect(sum('unreadable')).toBeGreaterThan(1_000)
  expect(sum('planted')).toBeGreaterThan(50)
  expect(sum('taken') + sum('refused') + sum('unreadable') + sum('planted')).toBe(10_000)
}, 120_000)

describe('data made by hand', () => {
  /** The same table twice in each, and that again: 2^40 of them for whoever does not notice. */
  const endless = deep(40, (inner) => ({ a: inner, b: inner }))
  const refusal = async (tables: unknown): Promise<readonly string[]> => {
    const error: unknown = await configOf(tables as ConfigTables).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(BalancerError)
    return (error as BalancerError).issues!.map(({ path, expected }) => `${path}: ${expected}`)
  }

  test('may be without end', async () => {
    const repeated = 'at most 1000000 values that stand in several places'
    expect(await refusal({ backends: BACKENDS, settings: endless })).toEqual([`the file: ${repeated}`])
    expect(await refusal({ backends: new Array(2 ** 32 - 1) })).toEqual(['backends: at most 1000000 elements'])
  })

  test('may be large', async () => {
    const timeouts = { attempt: '1s', headers: '1s' }
    const backends = Array.from({ length: 20_000 }, (_, n) => ({
      url: `http://10.0.${n >> 8}.${n & 255}:80`,
      timeouts,
      tags: ['a', 'b', 'c'],
      headers: { 'x-a': 'a', 'x-b': 'b', 'x-c': 'c' },
    }))
    const { options } = await configOf({ backends } as unknown as ConfigTables)
    expect(options.backends).toHaveLength(20_000)
  }, 60_000)

  test('may hold in meta and tls whatever is deep, large or shared', async () => {
    const made = (last: number): readonly unknown[] => [
      deep(100, (inner) => ({ a: inner, last })),
      deep(50_000, (inner) => [inner, last]),
      deep(40, (inner) => ({ a: inner, b: inner, last })),
      Array.from({ length: 501_000 }, (_, n) => ({ n: n + last })),
    ]
    const [first, second, third] = [made(1), made(1), made(2)]
    for (const place of first.keys()) {
      const optionsOf = (all: readonly unknown[]): BalancerOptions => ({
        backends: [{ url: 'http://a.test', meta: { mine: all[place] } }],
        ...(place < 3 && { undici: { tls: { mine: all[place] } } }), // the large one takes a second each time
      })
      const balancer = createBalancer(optionsOf(first))
      onTestFinished(() => balancer.close())
      expect((await balancer.update(optionsOf(second))).number).toBe(1)
      const { number, changes } = await balancer.update(optionsOf(third))
      expect(number).toBe(2)
      expect(changes.every(({ to }) => to === '"[redacted]"')).toBe(true)
    }
  }, 60_000)

  test('may throw when it is looked at', async () => {
    const meta = Object.defineProperty({}, 'a', {
      enumerable: true,
      get() {
        throw new Error('mine')
      },
    })
    expect(await refusal({ backends: BACKENDS, settings: { name: 'a', retry: meta } })).toEqual([
      'settings.retry: a value that can be read',
    ])
    expect(await refusal(meta)).toEqual(['the file: a value that can be read'])
    const options: BalancerOptions = { backends: [{ url: 'http://a.test', meta: { meta } }] }
    expect(() => createBalancer(options)).toThrow('expected an object that can be read, found one that throws')
  })

  test('may look like a promise, and is none', async () => {
    const pool = Object.fromEntries<unknown>([
      ['backends', BACKENDS],
      ['then', () => 1],
    ])
    expect(await refusal({ pools: { pool } })).toEqual([expect.stringContaining('pools.pool.then: ')])
  })

  test('may hold secrets that are wrapped already', async () => {
    const headers = { authorization: new Secret('Bearer x') }
    const tables = { backends: [BACKENDS[0]!, { url: BACKENDS[1]!, headers }] }
    const { options } = await configOf(tables as unknown as ConfigTables)
    const balancer = createBalancer(options)
    onTestFinished(() => balancer.close())
    expect(options.backends![1]).toMatchObject({ headers })
  })
})

// Comparing each with each, or long names letter by letter, takes minutes: the time limit of tests is bound enough.
test('an unknown provider costs little, however many there are and however long its name', async () => {
  const provider = (name: string): string =>
    `[providers.${name}]\nname = "P"\nbase_url = "http://localhost:1"\napi_key = "key-0123456789"\nmodels = ["m"]\n`
  const model = (provider: string, n: number): string => `{ provider = "${provider}", model = "m${n}" }`
  const many = Array.from({ length: 3_000 }, (_, n) => `provider-${n}`)
  const wrong = many.map((name, n) => model(`${name}x`, n)).join(', ')
  const { issues } = await refusedFile(`${many.map(provider).join('')}[models.m]\nname = "m"\nbackends = [${wrong}]\n`)
  expect(issues!.filter(({ path }) => path.endsWith('.provider'))).toHaveLength(3_000)
  const long = 'p'.repeat(100_000)
  const { message } = await refusedFile(
    `${provider(long)}[models.m]\nname = "m"\nbackends = [${model(`${long}x`, 1)}]\n`,
  )
  expect(message).toContain('expected the name of a provider')
  expect(message.length).toBeLessThan(1_000)
  const near = await refusedFile(`${provider('openai')}[models.m]\nname = "m"\nbackends = [${model('opnai', 1)}]\n`)
  expect(near.message).toContain('expected "openai"')
})

test('a message lists a hundred, and says how many more there are', () => {
  const options = { backends: BACKENDS, ...Object.fromEntries(Array.from({ length: 150 }, (_, n) => [`x${n}`, 1])) }
  const error = (() => {
    try {
      createBalancer(options)
    } catch (reason) {
      return reason as BalancerError
    }
    throw new Error('accepted')
  })()
  expect(error.issues).toHaveLength(150)
  expect(error.message.split('\n')).toHaveLength(102)
  expect(error.message).toContain('\n  and 50 more')
})

test('a ring that is smaller than the least by default is refused where it is said', async () => {
  const text = `backends = ["http://a.test", "http://b.test"]\n[settings.strategy]\nname = "ring-hash"\nkey = "path"\nlike = "envoy"\n`
  expect(await complaintsOf(`${text}max_size = 256\n`)).toEqual([
    '6:1: settings.strategy.max_size: expected at least 1024, which is the default of min_size, found 256',
  ])
  const { options } = await parseConfig(`${text}max_size = 1024\n`)
  await createBalancer(options).close()
})

test.each([
  '[models.m]\nname = { toString = 1 }\nbackends = [{ provider = { toString = 1 }, model = { toString = 1 }, tags = [{ toString = 1 }] }]',
  '[users.u]\nname = "u"\ntoken = { toString = 1 }\nallowed_models = [{ toString = 1 }]',
  '[settings]\nstrategy = [{ toString = 1 }]\n[[backends]]\nurl = "http://a.test"\n[[backends]]\nurl = "http://b.test"\nweight = 2',
])('a table where a text belongs is told, even one that cannot be made a text: %j', async (text) => {
  expect(await complaintsOf(text)).not.toEqual([])
})
