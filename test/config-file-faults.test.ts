import { configOf, issueText, parseConfig } from 'evenkeel/config'
import { describe, expect, test } from 'vitest'
import { complaintsOf, refusedFile, warningsOf } from './support/config-files.ts'

const TWO = 'backends = ["http://127.0.0.1:3001", "http://127.0.0.1:3002"]\n'
const SPARE = '[[backends]]\nurl = "http://127.0.0.1:3009"\n'

/** Every line that has something wrong says in its comment what is said of it. */
const FAULTY = `
setings = 1 # setings: expected settings, found an unknown key
[settings]
name = "" # settings.name: expected a string that is not empty, found a string of 0 characters
strategy = "round_robbin" # settings.strategy: expected "round-robin"
max_retries = 11 # settings.max_retries: expected a whole number from 0 to 10, found 11
timeout = "3s" # settings.timeout: expected timeouts, found an unknown key
[settings.retry]
atempts = 3 # settings.retry.atempts: expected attempts, found an unknown key
jitter = "some" # settings.retry.jitter: expected "full", "equal", "decorrelated" or "none"
max = "5" # settings.retry.max: expected a duration such as "250ms"
[settings.health.passive]
success_rate = { min_backends = 1 } # settings.health.passive.success_rate.min_backends: expected a whole number >= 2
base = "10s"
max = "9s" # settings.health.passive.max: expected at least "10s", which is settings.health.passive.base, found "9s"
[providers.openai]
name = "OpenAI"
base_url = "ftp://api.openai.com" # providers.openai.base_url: expected an http: or https: URL
api_key = "sk-1" # providers.openai.api_key: expected a key of at least 10 characters, found a string of 4 characters
models = [
  "gpt-4",
  "" # providers.openai.models[1]: expected a string that is not empty
]
header = { a = "b" } # providers.openai.header: expected headers, found an unknown key
[models.gpt]
nmae = "gpt" # models.gpt.nmae: expected name, found an unknown key
name = """\\
gpt"""
[[models.gpt.backends]]
provider = "opnai" # models.gpt.backends[0].provider: expected "openai", found an unknown one
model = "gpt-4"
[[models.gpt.backends]]
provider = "openai"
model = "gpt-5" # models.gpt.backends[1].model: expected one of the models of its provider, found an unknown one
weight = -1 # models.gpt.backends[1].weight: expected a number > 0 and <= 100, found -1
[pools.a]
backends = [
  { url = "http://a", wieght = 1 }, # pools.a.backends[0].wieght: expected weight, found an unknown key
  "http://a", # pools.a.backends[1].id: expected an id of its own within the pool, found duplicate id … (also pools.a.backends[0])
  'http://b?c', # pools.a.backends[2]: expected a URL without a query, found a query of 1 character
]
[users.u]
name = "U"
token = "short" # users.u.token: expected a token of at least 16 characters without white space
enabled = "yes" # users.u.enabled: expected true or false, found a string of 3 characters
rate_limit.requests_per_hour = 0 # users.u.rate_limit.requests_per_hour: expected a whole number from 1 to 60000, found 0
`

/** What stands at the place that a text means: its last key, or the element that starts the line. */
function keyOf(text: string): string {
  const path = text.slice(0, text.indexOf(':'))
  if (path.endsWith('.id')) return '"'
  return path.endsWith(']') ? (/URL/.test(text) ? "'" : '"') : path.slice(path.lastIndexOf('.') + 1)
}

describe('one file', () => {
  test('with 24 faults is told all of them in one error, each at its place', async () => {
    const lines = FAULTY.split('\n')
    const wanted = lines.flatMap((line, index) => {
      const told = / # (.*)$/.exec(line)?.[1]?.split(' | ') ?? []
      return told.map((text) => `${index + 1}:${line.indexOf(keyOf(text)) + 1}: ${text}`)
    })
    const { message, issues } = await refusedFile(FAULTY, { name: 'lb.toml' })
    const texts = issues!.map((issue) => issueText(issue))
    expect(texts).toEqual(wanted.map((text) => expect.stringContaining(text)))
    expect(texts.length).toBe(24)
    expect(message).toBe(['24 things are wrong with lb.toml:', ...texts.map((text) => `  lb.toml:${text}`)].join('\n'))
  })

  test('is told in the order of its lines, with its warnings behind', async () => {
    const { message, warnings } = await refusedFile(`[settings]\nnme = 1\n${SPARE}wieght = 2\n`, { name: 'lb.toml' })
    expect(message).toBe(
      [
        '2 things are wrong with lb.toml:',
        '  lb.toml:2:1: settings.nme: expected name, found an unknown key',
        '  lb.toml:5:1: backends[0].wieght: expected weight, found an unknown key',
        'and 1 warning:',
        '  lb.toml:3:3: backends: expected two or more backends: with one there is nobody to fail over to, found 1',
      ].join('\n'),
    )
    expect(warnings).toHaveLength(1)
  })
})

describe('something wrong', () => {
  test.each([
    ['', '', 'the file: expected backends, pools or models, found none of them'],
    [`${TWO}[pools.a]\n${TWO}`, '', '2:2: pools: expected either backends or pools, found both'],
    [`[pools.__proto__]\n${TWO}`, '', '1:8: pools.__proto__: expected another key, found a reserved one'],
    ['backends = 5', '', '1:1: backends: expected an array of backends, found 5'],
    ['backends = []', '', '1:1: backends: expected at least 1 of them, found an array of 0'],
    ['[[backends]]\nid = "a"', '', '1:3: backends[0].url: expected a URL, found nothing'],
    [`settings = 5\n${TWO}`, '', '1:1: settings: expected a table, found 5'],
    [`pools = 5`, '', '1:1: pools: expected a table of pools by name, found 5'],
    [`${TWO}[settings.retry]\nbase = 5`, '', '3:1: settings.retry.base: expected a duration such as'],
    [`${TWO}[settings.undici.tls]\nca = 1`, undefined, ''],
    [`${TWO}[settings]\nroute = "a"`, '', '3:1: settings.route: expected one of'],
    [`${TWO}[settings]\ntransport = {}`, '', '3:1: settings.transport: expected one of'],
    [`${TWO}[settings]\nlog.requests = true`, '', '3:1: settings.log: expected'],
    [
      `${TWO}[settings.hedge]\ndelay = "9s"\npercentile = 0.5`,
      '',
      '4:1: settings.hedge.percentile: expected nothing, since settings.hedge.delay says',
    ],
  ])('in %j', async (text, _, complaint) => {
    if (complaint === '') await expect(parseConfig(text)).resolves.toBeDefined()
    else expect((await complaintsOf(text)).join('\n')).toContain(complaint)
  })

  test('that is no TOML is told without a word of it', async () => {
    for (const [text, place, found] of [
      ['a = sk-canary-123', '1:5', 'invalid value'],
      ['a = "sk-canary-123', '1:5', 'unfinished string'],
      ['\n\nsk-canary-123', '3:1', 'incomplete key-value: cannot find end of key'],
      ['[a]\nb = 1\nb = "sk-canary-123"', '3:1', 'trying to redefine an already defined table or value'],
      ['a = "\\q sk-canary-123"', '1:7', 'unrecognised escape sequence'],
      ['a = 2024-13-45', '1:5', 'something else'],
      [`a = ${'['.repeat(100)}`, '1:69', 'document contains excessively nested structures. aborting.'],
    ] as const) {
      const error = await refusedFile(text)
      expect(error.message).not.toContain('canary')
      expect(error.cause).toBeUndefined()
      const texts = error.issues!.map((issue) => issueText(issue))
      expect(texts, text.slice(0, 40)).toEqual([
        expect.stringMatching(`^${place}: the file: expected valid TOML, found ${found}`),
      ])
    }
  })

  test('may be how deep it is', async () => {
    for (const [text, format] of [
      [`a = ${'['.repeat(60)}${'{ a = ['.repeat(2)}1${'] }'.repeat(2)}${']'.repeat(60)}`, 'toml'],
      [`${Array(20_000).fill('a').join('.')} = 1`, 'toml'],
      [`${'['.repeat(100_000)}${']'.repeat(100_000)}`, 'json'],
    ] as const) {
      expect((await complaintsOf(text, { format })).join('\n')).toContain('expected at most 64 levels, found more')
    }
    const circle: Record<string, unknown> = { backends: ['http://a', 'http://b'] }
    circle.settings = circle
    await expect(configOf(circle)).rejects.toThrow('  settings: expected at most 64 levels, found more')
  })

  test('is told of a hundred times, and that there is more', async () => {
    const wrong = Array.from({ length: 20_000 }, (_, n) => `wrong${n} = 1`).join('\n')
    const startMs = performance.now()
    const { message, issues } = await refusedFile(`${TWO}[settings]\n${wrong}`)
    expect(message.split('\n')).toHaveLength(102)
    expect(message.endsWith('\n  and 19900 more')).toBe(true)
    expect(issues).toHaveLength(20_000)
    expect(performance.now() - startMs).toBeLessThan(20_000)
  })

  test('has its limit in the unit of its key', async () => {
    const of = async (line: string): Promise<string> =>
      (await complaintsOf(`${TWO}[settings.timeouts]\n${line}`)).join()
    expect(await of('total_ms = -1')).toContain('expected ms >= 0 and <= 2147483647, found -1')
    expect(await of('total_seconds = -1')).toContain('expected seconds >= 0 and <= 2147483.647, found -1')
    expect(await of('total = "9999h"')).toContain('expected a duration >= 0 and <= "2147483647ms", found "9999h"')
  })

  test('may be a key that JSON has twice', async () => {
    const json = '{"backends": ["http://a", "http://b"],\n "settings": {"name": "a", "n\\u0061me": "sk-canary"}}'
    const { message } = await refusedFile(json, { format: 'json', name: 'lb.json' })
    expect(message).toContain('lb.json:2:28: the file: expected each key once in its object')
    expect(message).not.toContain('canary')
    const twins = '{"backends": [{"url": "http://a", "meta": {"url": "{\\"url\\":1"}}, {"url": "http://b"}]}'
    expect((await parseConfig(twins, { format: 'json' })).options.backends).toHaveLength(2)
    const long = JSON.stringify({ backends: ['http://a', 'http://b'], settings: { name: '\\"'.repeat(200_000) } })
    await expect(parseConfig(long, { format: 'json' })).resolves.toBeDefined()
  })

  test('is no order mark', async () => {
    const json = '\uFEFF{"backends": ["http://a", "http://b"]}'
    expect((await parseConfig(json, { format: 'json' })).options.backends).toHaveLength(2)
    expect((await parseConfig(`\uFEFF${TWO}`)).options.backends).toHaveLength(2)
  })

  test('in plain data is told by its path alone', async () => {
    // @ts-expect-error: a misspelt key
    await expect(configOf({ backends: ['http://a', 'http://b'], setings: {} })).rejects.toThrow(
      '  setings: expected settings, found an unknown key',
    )
  })
})

describe('a warning', () => {
  test.each([
    [SPARE, '1:3: backends: expected two or more backends'],
    [`[pools.a]\nbackends = ["http://a"]`, '2:1: pools.a.backends: expected two or more backends'],
    [
      `${SPARE}weight = 0\n${SPARE}weight = 1\nid = "b"`,
      '3:1: backends[0].weight: expected a weight above 0: this backend is never',
    ],
    [
      `${SPARE}weight = 0\n${SPARE}weight = 0\nid = "b"`,
      '1:3: backends: expected a weight above 0: of these backends none',
    ],
    [
      `settings.strategy = "random"\n${SPARE}${SPARE}weight = 2\nid = "b"`,
      '6:1: backends[1].weight: expected equal weights, or "weighted-random"',
    ],
    [
      `${TWO}[settings.timeouts]\nconnect = "9s"\nattempt = "2s"`,
      '3:1: settings.timeouts.connect: expected at most "2s", which is settings.timeouts.attempt:',
    ],
    [
      `${TWO}[settings.timeouts]\nheaders = "9s"\ntotal = "2s"`,
      '3:1: settings.timeouts.headers: expected at most "2s", which is settings.timeouts.total:',
    ],
    [
      `${TWO}[settings.health.active]\ntimeout = "6s"`,
      '3:1: settings.health.active.timeout: expected at most "5s", which is the default of interval:',
    ],
    [
      `[[backends]]\nurl = "http://api.acme.io"\nheaders.authorization = "Bearer x"\n${SPARE}`,
      '2:1: backends[0].url: expected https: everybody on the way can read the key',
    ],
    [
      `[[backends]]\nurl = "https://api.openai.com"\nheaders.authorization = "Bearer sk-ant-1"\n${SPARE}`,
      '3:9: backends[0].headers.authorization: expected a key that starts with "sk-"',
    ],
    [
      `[[backends]]\nurl = "https://api.anthropic.com"\nheaders.X-Api-Key = "sk-1"\n${SPARE}`,
      '3:9: backends[0].headers.X-Api-Key: expected a key that starts with "sk-ant-"',
    ],
  ])('of %j', async (text, warning) => {
    const warnings = await warningsOf(text)
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toContain(warning)
  })

  test.each([
    TWO,
    `${TWO}[settings.timeouts]\nattempt = "2s"`, // below the default of connect, and meant
    `settings.strategy = "weighted-random"\n${SPARE}${SPARE}weight = 2\nid = "b"`,
    ...[
      'localhost:1',
      '127.0.0.1',
      '10.1.2.3',
      '172.20.0.1',
      '192.168.1.1',
      '[::1]',
      '[fd00::1]',
      'api',
      'api.internal',
    ].map((host) => `[[backends]]\nurl = "http://${host}"\nheaders.authorization = "Bearer x"\n${SPARE}`),
    `[[backends]]\nurl = "https://api.openai.com"\nheaders.authorization = "Bearer sk-1"\n${SPARE}`,
  ])('is not given of %j', async (text) => {
    expect(await warningsOf(text)).toEqual([])
  })

  test('is given of two users with one token', async () => {
    const user = (id: string): string => `[users.${id}]\nname = "${id}"\ntoken = "0123456789abcdef"\n`
    expect(await warningsOf(TWO + user('a') + user('b'))).toEqual([
      "7:1: users.b.token: expected a token of its own, found another user's",
    ])
  })
})

describe('what no file can hold is not offered', () => {
  const strategyOf = async (text: string): Promise<readonly string[]> =>
    complaintsOf(`${TWO}[settings]\nstrategy = ${text}\n`)

  test.each([
    ['{ name = "smart", choices = 2 }', 'expected nothing beside name: this one has no settings'],
    ['{ name = "thompson", choices = 2 }', 'expected one of name, value, latency_cost, discount, decay, prior'],
    ['{ name = "thompson", prior = 1 }', 'expected "trusted", found'],
    [
      '{ name = "maglev" }',
      'expected what to hash: "call", "ip", "path", "header:NAME" (any but host), "cookie:NAME", found',
    ],
    ['5', '"thompson" or such a name with settings, found'],
  ])('with strategy = %s', async (text, complaint) => {
    expect(await strategyOf(text)).toEqual([expect.stringContaining(complaint)])
  })

  test('and what is an object in code is a table', async () => {
    const text = `${TWO}[settings]\nbreaker = true\nretry = 5\n`
    expect(await complaintsOf(text)).toEqual([
      '3:1: settings.breaker: expected a table (an empty one = the defaults), or false, found true',
      expect.stringContaining('4:1: settings.retry: expected a table, found'),
    ])
  })
})

test('failover within failover is not offered', async () => {
  const [complaint] = await complaintsOf(`${TWO}[settings]\nstrategy = { name = "failover", strategy = "nope" }\n`)
  expect(complaint).toContain('settings.strategy.strategy: expected "auto"')
  expect(complaint).not.toContain('failover"')
})

test('sections within a table are told where they belong', async () => {
  expect(await complaintsOf(`[settings]\nname = "x"\n${TWO}`)).toEqual([
    expect.stringContaining('expected backends, pools or models'),
    '3:1: settings.backends: expected backends at the top of the file, above the first table or as [[backends]], found one within a table',
  ])
  const user = 'name = "U"\ntoken = "t-0123456789"'
  expect(await complaintsOf(`${TWO}[settings.users.u]\n${user}\n[settings.retry.settings]\nattempts = 2`)).toEqual([
    '2:11: settings.users: expected users at the top of the file, as in [users.NAME], found one within a table',
    '5:17: settings.retry.settings: expected settings at the top of the file, as in [settings], found one within a table',
  ])
  expect(await complaintsOf(`[pools.x]\n${TWO}[pools.x.settings.retry]\nattempts = 2`)).toEqual([
    '3:10: pools.x.settings: expected what is in it without this table, right in [pools.NAME], found one within a table',
  ])
})
