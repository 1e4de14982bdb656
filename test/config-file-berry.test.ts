import { readFileSync } from 'node:fs'
import { createBalancer, type Secret } from 'evenkeel'
import { issueText, parseConfig } from 'evenkeel/config'
import { describe, expect, onTestFinished, test } from 'vitest'
import { complaintsOf, warningsOf } from './support/config-files.ts'
import { keeper, until } from './support/upstreams.ts'

const BERRY = readFileSync(new URL('fixtures/berry.toml', import.meta.url), 'utf8')

/** One more model. */
function namesake(id: string, name: string): string {
  const backend = `[[models.${id}.backends]]\nprovider = "p"\n`
  return `[models.${id}]\nname = "${name}"\n${backend}model = "m"\n${backend}model = "n"\n`
}

/** One provider and one model, with more lines in each of their tables. */
function small({ settings = '', provider = '', model = '', backend = '', more = '' } = {}): string {
  return `
[settings]
${settings}
[providers.p]
name = "P"
base_url = "http://localhost:1"
api_key = "key-0123456789"
models = ["m", "n"]
${provider}
[models.a]
name = "a-1"
${model}
[[models.a.backends]]
provider = "p"
model = "m"
${backend}
[[models.a.backends]]
provider = "p"
model = "n"
${more}`
}

describe("Berry's documented configuration", () => {
  test('loads unchanged, and prints its warnings', async () => {
    expect(await warningsOf(BERRY)).toEqual([
      '7:1: settings.max_internal_retries: expected nothing: a pick never draws somebody unhealthy, so there is nothing to repeat, found a setting without effect',
      '13:11: settings.smart_ai: expected nothing: the strategy has numbers of its own, found a setting without effect',
      '30:11: settings.batch_metrics: expected nothing: numbers are kept in memory and written nowhere, found a setting without effect',
      '58:28: users.premium.allowed_models[1]: expected a model of this file, found an unknown one',
      '95:1: providers.gemini.api_key: expected a key that starts with "AIza", as those of this provider do, found another start',
      '131:1: models.gpt_4.backends[1].tags: expected the tags of the backends before it: whoever asks for tags gets backends that have all of them, found others',
      '166:16: models.llama.backends: expected a backend whose provider is enabled: this model is left out, found none',
    ])
  })

  test('means what its documentation says', async () => {
    const { options, models } = await parseConfig(BERRY)
    const { pools, ...settings } = options
    expect(settings).toEqual({
      retry: { attempts: 4 },
      breaker: { trip: 'consecutive', consecutive: 5, openMs: 60_000, maxOpenMs: 60_000 },
      health: {
        active: { intervalMs: 30_000, timeoutMs: 10_000 },
        passive: { baseMs: 120_000, maxMs: 300_000 },
      },
      timeouts: { headersMs: 30_000, attemptMs: 30_000 },
    })
    expect(models).toEqual([
      { pool: 'gpt_4', name: 'gpt-4' },
      { pool: 'gpt_3_5_turbo', name: 'gpt-3.5-turbo' },
      { pool: 'mixed', name: 'mixed' },
    ])
    expect(Object.values(pools!).map(({ strategy, health }) => [strategy, health])).toEqual([
      ['smart', { active: { path: '/v1/models' } }],
      ['round-robin', { active: false }], // one of its backends is paid per request
      ['peak-ewma', { active: { path: '/v1/models' } }],
    ])
    expect(Object.values(pools!).flatMap(({ backends }) => backends)).toMatchObject([
      { id: 'openai/gpt-4', url: 'https://api.openai.com', weight: 0.7, priority: 1, tags: ['premium'] },
      { id: 'azure/gpt-4', url: 'https://your-resource.openai.azure.com', weight: 0.3, priority: 2 },
      { id: 'openai/gpt-3.5-turbo', timeouts: { headersMs: 30_000, attemptMs: 30_000 } },
      { id: 'azure/gpt-35-turbo', meta: { provider: 'azure', model: 'gpt-35-turbo', billing: 'per_request' } },
      { id: 'anthropic/claude-3-opus', url: 'https://api.anthropic.com', meta: { api: 'claude' } },
      { id: 'gemini/gemini-pro', url: 'https://generativelanguage.googleapis.com', meta: { api: 'gemini' } },
    ])
    await createBalancer(options).close()
  })

  test('has its users beside it', async () => {
    const { users } = await parseConfig(BERRY)
    expect(users.map(({ token, ...user }) => [user, token.reveal()])).toEqual([
      [
        {
          ...{ id: 'admin', name: 'Administrator', enabled: true, tags: ['admin', 'unlimited'], allowedPools: [] },
          limits: { perMinute: undefined, perHour: undefined, perDay: undefined },
        },
        'berry-admin-token-12345',
      ],
      [
        {
          ...{
            id: 'user1',
            name: 'Regular User',
            enabled: true,
            tags: ['user', 'basic'],
            allowedPools: ['gpt_3_5_turbo'],
          },
          limits: { perMinute: 60, perHour: 1_000, perDay: 10_000 },
        },
        'berry-user1-token-67890',
      ],
      [expect.objectContaining({ id: 'premium', allowedPools: ['gpt_4', 'claude-3'] }), 'berry-premium-token-abcde'],
    ])
  })

  test('sends the traffic of its models to their backends, with their keys', async () => {
    const [openai, azure, anthropic, gemini] = [await keeper(), await keeper(), await keeper(), await keeper()]
    const { options } = await parseConfig(
      BERRY.replace('https://api.openai.com', openai.url)
        .replace('https://your-resource.openai.azure.com', azure.url)
        .replace('https://api.anthropic.com', anthropic.url)
        .replace('https://generativelanguage.googleapis.com', gemini.url),
    )
    const balancer = createBalancer(options)
    onTestFinished(() => balancer.close())
    const path = '/v1/chat/completions'
    for (const pool of ['gpt_4', 'gpt_3_5_turbo', 'gpt_3_5_turbo', 'mixed', 'mixed', 'mixed', 'mixed']) {
      const response = await balancer.fetch(path, {
        method: 'POST',
        body: '{}',
        headers: { authorization: 'x' },
        balancer: { pool },
      })
      expect(await response.text()).toBe('ok')
    }
    const asked = (seen: typeof openai.got): typeof openai.got => seen.filter(({ method }) => method === 'POST')
    expect(new Set([openai, azure, anthropic, gemini].flatMap(({ got }) => asked(got).map((it) => it.path)))).toEqual(
      new Set([path]),
    )
    // Priority 1 of gpt_4, and every other call of gpt_3_5_turbo.
    expect(asked(openai.got).map(({ headers }) => headers.authorization)).toEqual(
      Array(2).fill('Bearer sk-your-openai-key-here'),
    )
    expect(asked(azure.got).map(({ headers }) => headers['api-version'])).toEqual(['2024-02-01'])
    const mixed = [...asked(anthropic.got), ...asked(gemini.got)]
    expect(mixed).toHaveLength(4)
    for (const { headers } of asked(anthropic.got)) {
      expect(headers).toMatchObject({ 'x-api-key': 'sk-ant-your-key-here', 'anthropic-version': '2023-06-01' })
    }
    for (const { headers } of asked(gemini.got)) expect(headers['x-goog-api-key']).toBe('your-gemini-key-here')
    // The active checks go to the same places with the same keys, at no cost; nobody who is paid per request is asked.
    const checksOf = (seen: typeof openai.got): typeof openai.got => seen.filter(({ method }) => method === 'GET')
    await until(() => [openai, anthropic, gemini].every(({ got }) => checksOf(got).length > 0), 'no check came')
    expect(checksOf(anthropic.got)[0]).toMatchObject({
      path: '/v1/models',
      headers: { 'x-api-key': 'sk-ant-your-key-here' },
    })
    expect(checksOf(gemini.got)[0]).toMatchObject({ path: '/v1/models' })
  })
})

describe('a model', () => {
  test('has the defaults of Berry where nothing is said, and what is said where something is', async () => {
    const poolOf = async (parts: Parameters<typeof small>[0]): Promise<unknown> => {
      const { options } = await parseConfig(small(parts))
      const { backends: _, ...settings } = options.pools!.a!
      return settings
    }
    const all = {
      strategy: 'smart',
      retry: { attempts: 4 },
      breaker: { trip: 'consecutive', consecutive: 5, openMs: 60_000, maxOpenMs: 60_000 },
      health: {
        active: { intervalMs: 30_000, timeoutMs: 10_000, path: '/v1/models' },
        passive: { baseMs: 120_000, maxMs: 300_000 },
      },
      timeouts: { headersMs: 30_000, attemptMs: 30_000 },
    }
    expect(await poolOf({})).toEqual(all)
    expect(await poolOf({ model: 'strategy = "least"\nbreaker = false\nhealth.passive = false' })).toEqual({
      ...all,
      strategy: 'least',
      breaker: false,
      health: { passive: false, active: all.health.active },
    })
    expect(await poolOf({ settings: 'retry.attempts = 2\nbreaker.trip = "window"\nhealth.active = false' })).toEqual({
      strategy: 'smart',
      health: { passive: all.health.passive },
      timeouts: all.timeouts,
    })
    expect(await poolOf({ provider: 'max_retries = 0' })).toEqual({ ...all, retry: { attempts: 1 } })
    expect(await poolOf({ settings: 'health.active.type = "tcp"' })).toEqual({
      ...all,
      health: { ...all.health, active: { intervalMs: 30_000, timeoutMs: 10_000 } }, // a connection asks for no path
    })
    expect(
      await poolOf({ settings: 'health_check_interval_seconds = 9', backend: 'billing_mode = "per_request"' }),
    ).toEqual({
      ...all,
      health: { passive: all.health.passive, active: false },
    })
  })

  test('has no default that breaks what is said', async () => {
    const bounds = 'timeouts.total = "10s"\nhealth.passive.max = "1m"'
    const { options } = await parseConfig(small({ settings: bounds }))
    expect(options.pools!.a).toMatchObject({ timeouts: { headersMs: 30_000 } })
    expect(options.pools!.a!.health).not.toHaveProperty('passive')
    expect(
      await warningsOf(small({ settings: 'recovery_check_interval_seconds = 9\nhealth.passive.max = "1m"' })),
    ).toEqual([])
    expect(
      await complaintsOf(small({ settings: 'recovery_check_interval_seconds = 90\nhealth.passive.max = "1m"' })),
    ).toEqual([expect.stringContaining('4:16: settings.health.passive.max: expected at least "90s"')])
  })

  test('has the defaults of Berry for each setting that nobody says, not for whole sections', async () => {
    const poolOf = async (model: string, settings = ''): Promise<unknown> => {
      const { options } = await parseConfig(small({ model, settings }))
      await createBalancer(options).close()
      return options.pools!.a
    }
    expect(await poolOf('health.active.path = "/up"')).toMatchObject({
      health: { active: { path: '/up', intervalMs: 30_000, timeoutMs: 10_000 } },
    })
    expect(await poolOf('breaker.open = "5s"')).toMatchObject({
      breaker: { trip: 'consecutive', consecutive: 5, openMs: 5_000 },
    })
    expect(await poolOf('breaker = {}')).toMatchObject({ breaker: { trip: 'consecutive', openMs: 60_000 } })
    // What counts otherwise is another breaker altogether.
    expect(await poolOf('breaker.trip = "count"')).toHaveProperty('breaker', { trip: 'count' })
    expect(await poolOf('breaker.threshold = 0.3')).toHaveProperty('breaker', { threshold: 0.3 })
    expect(await poolOf('', 'breaker.trip = "count"')).not.toHaveProperty('breaker')
    // Bounds that are said hold.
    expect(await poolOf('breaker.max_open = "30s"')).not.toHaveProperty('breaker.openMs')
    expect(await poolOf('health.active.idle_interval = "20s"')).not.toHaveProperty('health.active.intervalMs')
    expect(await poolOf('timeouts.headers = "90s"')).toHaveProperty('timeouts', { headersMs: 90_000 })
    expect(await poolOf('health.active.timeout = "20s"', 'health_check_interval_seconds = 9')).toMatchObject({
      health: { active: { timeoutMs: 20_000 } },
    })
  })

  test('is warned of nothing that nobody wrote, and of other settings by where they stand', async () => {
    expect(await warningsOf(small({ model: 'health.active.interval = "5s"\ntimeouts.attempt = "5s"' }))).toEqual([])
    expect(
      await warningsOf(small({ settings: 'timeouts.attempt_seconds = 2', model: 'timeouts.connect_ms = 2500' })),
    ).toEqual([
      '12:10: models.a.timeouts.connect_ms: expected at most 2000, which is settings.timeouts.attempt_seconds: nobody waits longer, found 2500',
    ])
  })

  test('repeats as often as the most patient of its providers, also if that one says nothing', async () => {
    const second = `[providers.q]\nname = "Q"\nbase_url = "http://localhost:2"\napi_key = "key-0123456789"\nmodels = ["n"]`
    const attemptsOf = async (one: string, other: string, settings = ''): Promise<unknown> => {
      const text = small({ settings, provider: one, more: `${second}\n${other}` })
      const { options } = await parseConfig(text.replace('provider = "p"\nmodel = "n"', 'provider = "q"\nmodel = "n"'))
      return options.pools!.a!.retry?.attempts ?? options.retry?.attempts
    }
    expect(await attemptsOf('max_retries = 0', '')).toBe(4)
    expect(await attemptsOf('', 'max_retries = 5')).toBe(6)
    expect(await attemptsOf('max_retries = 0', '', 'max_retries = 2')).toBe(3)
    expect(await attemptsOf('max_retries = 1', '', 'retry.attempts = 1')).toBe(2)
    expect(await attemptsOf('max_retries = 0', 'max_retries = 1')).toBe(2)
  })

  test('of ten thousand backends that are all one is read at once', async () => {
    const many = '[[models.a.backends]]\nprovider = "p"\nmodel = "m"\n'.repeat(10_000)
    const startMs = performance.now()
    const { options } = await parseConfig(small({ more: many }))
    expect(options.pools!.a!.backends.at(-1)).toMatchObject({ id: 'p/m#10001' })
    expect(performance.now() - startMs).toBeLessThan(20_000)
  })

  test.each([
    ['smart_ai', 'smart'],
    ['weighted_random', 'weighted-random'],
    ['round_robin', 'round-robin'],
    ['least_latency', 'peak-ewma'],
    ['failover', 'failover'],
    ['random', 'random'],
    ['weighted_failover', 'weighted-failover'],
    ['smart_weighted_failover', 'weighted-failover'],
    ['p2c', 'p2c'],
  ])('of strategy %s has a pool of strategy %s', async (berry, strategy) => {
    const { options } = await parseConfig(small({ model: `strategy = "${berry}"` }))
    expect(options.pools!.a!.strategy).toBe(strategy)
    await createBalancer(options).close()
  })

  test.each([
    ['https://a.example/v1', 'https://a.example'],
    ['https://a.example/v1/', 'https://a.example'],
    ['https://a.example', 'https://a.example'],
    ['https://a.example/v1beta', 'https://a.example'],
    ['https://a.example/proxy/v1', 'https://a.example/proxy'],
    ['https://a.example/v1/proxy', 'https://a.example/v1/proxy'],
  ])('at %s has backends at %s: the path of a request says /v1', async (base, url) => {
    const { options } = await parseConfig(small().replace('http://localhost:1', base))
    expect(options.pools!.a!.backends[0]).toMatchObject({ url })
  })

  test('may use one model of one provider twice, and names with colons', async () => {
    const text = small({ more: '[[models.a.backends]]\nprovider = "p"\nmodel = "m"' }).replaceAll('"m"', '"m:8b"')
    const { options } = await parseConfig(text)
    expect(options.pools!.a!.backends.map((it) => (typeof it === 'string' ? it : it.id))).toEqual([
      'p/m:8b',
      'p/n',
      'p/m:8b#2',
    ])
    await createBalancer(options).close()
  })

  test('sends the key in the header that the provider itself names', async () => {
    const headersOf = async (provider: string): Promise<unknown> => {
      const { options } = await parseConfig(small({ provider }))
      const [backend] = options.pools!.a!.backends
      if (typeof backend !== 'object') throw new Error('a URL')
      return Object.fromEntries(Object.entries(backend.headers!).map(([name, it]) => [name, (it as Secret).reveal()]))
    }
    expect(await headersOf('')).toEqual({ authorization: 'Bearer key-0123456789' })
    expect(await headersOf('headers = { Authorization = "Basic x" }')).toEqual({ Authorization: 'Basic x' })
    expect(await headersOf('backend_type = "claude"\nheaders = { Anthropic-Version = "1" }')).toEqual({
      'x-api-key': 'key-0123456789',
      'Anthropic-Version': '1',
    })
  })
})

test("Berry's settings are words for evenkeel's in every file, but its defaults are for models", async () => {
  const backends = 'backends = ["http://a", "http://b"]\n'
  const { options } = await parseConfig(`${backends}[settings]\nmax_retries = 1\nrecovery_check_interval_seconds = 900`)
  expect(options).toEqual({
    retry: { attempts: 2 },
    health: { passive: { baseMs: 900_000, maxMs: 900_000 } },
    backends: ['http://a', 'http://b'],
  })
  await createBalancer(options).close()
})

describe("Berry's rules", () => {
  const rows: readonly (readonly [parts: Parameters<typeof small>[0], path: string, expected: string])[] = [
    [{ provider: 'timeout_seconds = 0' }, 'providers.p.timeout_seconds', 'seconds from 1 to 300'],
    [{ provider: 'timeout_seconds = 301' }, 'providers.p.timeout_seconds', 'seconds from 1 to 300'],
    [{ provider: 'max_retries = 11' }, 'providers.p.max_retries', 'from 0 to 10'],
    [{ provider: 'headers = { x-a = "" }' }, 'providers.p.headers.x-a', 'not empty'],
    [{ provider: 'backend_type = "cohere"' }, 'providers.p.backend_type', '"openai", "claude" or "gemini"'],
    [{ model: 'strategy = "fastest"' }, 'models.a.strategy', '"auto", "p2c"'],
    [{ backend: 'weight = 0' }, 'models.a.backends[0].weight', 'a number > 0 and <= 100'],
    [{ backend: 'weight = 101' }, 'models.a.backends[0].weight', 'a number > 0 and <= 100'],
    [{ backend: 'priority = 11' }, 'models.a.backends[0].priority', 'from 0 to 10'],
    [{ backend: 'tags = ["a b"]' }, 'models.a.backends[0].tags[0]', 'without spaces'],
    [{ backend: 'billing_mode = "free"' }, 'models.a.backends[0].billing_mode', '"per_token" or "per_request"'],
    [
      { backend: 'enabled = false', more: 'enabled = false' },
      'models.a.backends',
      'at least one backend that is enabled',
    ],
    [{ provider: 'headers = { x-a = "1", X-A = "2" }' }, 'providers.p.headers.X-A', 'each header once'],
    [{ more: namesake('b', 'a-1') }, 'models.b.name', 'a name that no other model has'],
    [{ more: namesake('b', 'a') }, 'models.b.name', 'a name that no other model has'],
    [{ settings: 'request_timeout_seconds = 301' }, 'settings.request_timeout_seconds', 'seconds from 1 to 300'],
    [{ settings: 'max_retries = 11' }, 'settings.max_retries', 'from 0 to 10'],
    [{ settings: 'health_check_interval_seconds = 0' }, 'settings.health_check_interval_seconds', 'seconds > 0'],
    [{ settings: 'smart_ai.exploration_rate = 0.1' }, 'settings.smart_ai.exploration_rate', 'exploration_ratio'],
    [{ settings: 'smart_ai.min_confidence = 2' }, 'settings.smart_ai.min_confidence', 'a number from 0 to 1'],
    [{ settings: 'batch_metrics.batch = 1' }, 'settings.batch_metrics.batch', 'one of batch_size'],
    [
      { settings: 'max_retries = 1\nretry.attempts = 2' },
      'settings.max_retries',
      'either max_retries or settings.retry.attempts',
    ],
    [
      { settings: 'circuit_breaker_timeout_seconds = 9\nbreaker = false' },
      'settings.circuit_breaker_timeout_seconds',
      'settings.breaker',
    ],
    [{ more: '[users.u]\nname = ""\ntoken = "0123456789abcdef"' }, 'users.u.name', 'not empty'],
    [{ more: '[users.u]\nname = "U"\ntoken = "0123456789abcde"' }, 'users.u.token', 'at least 16 characters'],
    [{ more: '[users.u]\nname = "U"\ntoken = "0123456789 abcdef"' }, 'users.u.token', 'without white space'],
    [
      { more: '[users.u]\nname = "U"\ntoken = "0123456789abcdef"\nrate_limit = { requests_per_minute = 0 }' },
      'users.u.rate_limit.requests_per_minute',
      'from 1 to 1000',
    ],
    [
      {
        more: '[users.u]\nname = "U"\ntoken = "0123456789abcdef"\nrate_limit = { requests_per_minute = 9, requests_per_day = 8 }',
      },
      'users.u.rate_limit.requests_per_day',
      'at least 9, which is requests_per_minute',
    ],
    [{ more: '[pools.a]\nbackends = ["http://a"]' }, 'models.a', 'a name that no pool has'],
  ]

  test.each(rows)('%j', async (parts, path, expected) => {
    const complaints = await complaintsOf(small(parts))
    expect(complaints).toHaveLength(1)
    expect(complaints[0]).toContain(` ${path}: `)
    expect(complaints[0]).toContain(expected)
  })

  test.each([
    ['api_key = "key-0123456789"', 'api_key = "short"', 'providers.p.api_key: expected a key of at least 10'],
    ['models = ["m", "n"]', 'models = []', 'providers.p.models: expected at least one model'],
    ['name = "P"', 'name = ""', 'providers.p.name: expected a string that is not empty'],
    ['name = "a-1"', 'name = "a 1"', 'models.a.name: expected a name without white space'],
    ['http://localhost:1', 'localhost:1', 'providers.p.base_url: expected an http: or https: URL'],
    ['model = "n"', 'model = "nn"', 'models.a.backends[1].model: expected one of the models of its provider'],
    ['provider = "p"\nmodel = "n"', 'provider = "q"\nmodel = "n"', 'models.a.backends[1].provider: expected "p"'],
    ['[[models.a.backends]]\nprovider = "p"\nmodel = "n"', 'weight = 1', ''],
  ])('%s instead of %s', async (right, wrong, complaint) => {
    const text = small().replace(right, wrong)
    if (complaint === '') expect((await warningsOf(text))[0]).toContain('two or more backends')
    else expect((await complaintsOf(text))[0]).toContain(complaint)
  })

  test('forgive a disabled provider its missing key', async () => {
    const text = `${small()}\n[providers.off]\nname = "Off"\nbase_url = "http://a"\napi_key = ""\nmodels = ["x"]\nenabled = false`
    expect(await warningsOf(text)).toEqual([])
    expect((await complaintsOf(text.replace('enabled = false', 'enabled = true'))).join()).toContain('at least 10')
  })

  test('forgive a disabled model its name, but warn whom it is allowed', async () => {
    const user = '[users.u]\nname = "U"\ntoken = "0123456789abcdef"\nallowed_models = ["b"]'
    const off = namesake('b', 'a-1').replace('name =', 'enabled = false\nname =')
    expect(await warningsOf(small({ more: off + user }))).toEqual([
      expect.stringContaining(
        'users.u.allowed_models[0]: expected a model that is enabled, found one that is left out',
      ),
    ])
  })

  test.each(['/v1/chat/completions', '/v1/messages/'])('warn of a base URL that ends in %s', async (path) => {
    expect(await warningsOf(small().replace('localhost:1', `localhost:1${path}`))).toEqual([
      expect.stringContaining('providers.p.base_url: expected a URL that ends before the path of a request'),
    ])
  })

  test('find a model by its name where Berry wants its key', async () => {
    const user = '[users.u]\nname = "U"\ntoken = "0123456789abcdef"\nallowed_models = ["a", "a-1", "b"]'
    const { users, warnings } = await parseConfig(small({ more: user }))
    expect(users[0]!.allowedPools).toEqual(['a', 'a', 'b'])
    expect(warnings.map((it) => issueText(it))).toEqual([
      expect.stringContaining('users.u.allowed_models[2]: expected a model of this file'),
    ])
  })
})
