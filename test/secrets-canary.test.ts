// Long, because it is one list: five secrets planted, every way to make something come out, and a search of all that did.
import { spawn } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  type Balancer,
  type BalancerEvents,
  type BalancerOptions,
  createBalancer,
  type Logger,
  memory,
  Secret,
  type Sink,
  type Source,
  type Watcher,
  wireHeaders,
} from 'evenkeel'
import { configOf, loadConfig, parseConfig, watchConfig } from 'evenkeel/config'
import { createProxy, type ProxyOptions } from 'evenkeel/node'
import { collect, metricsHandler } from 'evenkeel/prometheus'
import { Registry } from 'prom-client'
import { describe, expect, onTestFinished, test } from 'vitest'
import { ALL, CANARIES, formsOf, Outputs } from './support/canaries.ts'
import { wordOf, wrongFiles, wrongOptions } from './support/canary-mistakes.ts'
import { configured, FAULTS, trap, UNREACHED } from './support/canary-trap.ts'
import { cachedEnv } from './support/compile-cache.ts'
import { ask, bytesOf, until, upstream } from './support/upstreams.ts'

const { key, env, file, cookie, caller, user } = CANARIES

describe('the search', () => {
  const { value } = key
  const bytes = Buffer.from(value)
  const written: Readonly<Record<string, string>> = {
    'as it is': value,
    'in a header': `Bearer ${value}`,
    'in JSON': JSON.stringify({ a: `<${value}>` }),
    base64: bytes.toString('base64'),
    'base64 without padding': bytes.toString('base64').replace(/=+$/, ''),
    base64url: bytes.toString('base64url'),
    'base64 behind a user name of one byte': btoa(`u${value}`),
    'base64 of user and password': btoa(`me:${value}\n`),
    'percent-encoded': encodeURIComponent(value),
    'percent-encoded in lower case': encodeURIComponent(value).replace(/%../g, (code) => code.toLowerCase()),
    'form-encoded': String(new URLSearchParams({ q: value })),
    'every byte percent-encoded': bytes.toString('hex').replace(/../g, '%$&'),
    hex: bytes.toString('hex'),
    HEX: bytes.toString('hex').toUpperCase(),
    'its first half': value.slice(0, 13),
    'its second half, in base64': btoa(`..${value.slice(13)}`),
  }
  const places: Readonly<Record<string, (text: string) => unknown>> = {
    text: (text) => text,
    message: (text) => new Error(text),
    cause: (text) => new Error('x', { cause: new Error('y', { cause: text }) }),
    'own property': (text) => Object.assign(new Error('x'), { input: text }),
    'hidden property': (text) => Object.defineProperty(new Error('x'), 'input', { value: text }),
    'name of a property': (text) => ({ deep: [{ [text]: 1 }] }),
    'key of a map': (text) => new Map([[text, new Set([1])]]),
    bytes: (text) => ({ data: Buffer.from(text) }),
    'property under a symbol': (text) => ({ [Symbol('s')]: { text } }),
    'one of several errors': (text) => new AggregateError([new Error(text)]),
    'JSON alone': (text) => ({ toJSON: () => text }),
  }

  test('finds what is planted, in every form and place', () => {
    for (const [form, text] of Object.entries(written)) {
      for (const [place, make] of Object.entries(places)) {
        const outputs = new Outputs()
        outputs.add('here', make(text))
        expect(outputs.leaks([key]), `${form}, ${place}`).not.toEqual([])
        expect(outputs.leaks([env, file, cookie, caller, user])).toEqual([])
      }
    }
  })

  test('finds all there is to find of each secret, and nothing in a text without one', () => {
    for (const canary of ALL) {
      const outputs = new Outputs()
      for (const [form, text] of formsOf(canary.value)) outputs.text(form, `<${text}>`)
      expect(outputs.leaks([canary]).length).toBe(outputs.size.texts)
      expect(outputs.leaks(ALL.filter((other) => other !== canary))).toEqual([])
    }
    const nothing = new Outputs()
    nothing.add('here', { key: new Secret(key.value) })
    expect(nothing.leaks(ALL)).toEqual([])
  })
})

/** A folder of this test's own, with the secret that a file holds. */
async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'evenkeel-canary-'))
  onTestFinished(() => rm(path, { recursive: true }))
  await writeFile(join(path, 'key'), file.value, { mode: 0o600 })
  return path
}

async function failureOf(run: () => unknown): Promise<unknown> {
  try {
    return { none: await run() }
  } catch (error) {
    return error
  }
}

describe('a configuration file', () => {
  test('that is wrong in any way tells none of its secrets', async () => {
    const outputs = new Outputs()
    const path = await folder()
    let refused = 0
    const words = ALL.map(({ name, value }) => ({ name: `${name}, its letters`, value: wordOf(value) }))
    const texts = ALL.map(({ value }) => wrongFiles(JSON.stringify(value)))
    for (const place of texts[0]!.keys()) {
      // Two of them in each place: all six take three times as long.
      for (const which of [place % ALL.length, (place + 3) % ALL.length]) {
        const text = texts[which]![place]!
        const options = { folder: path, env: { SECRET: ALL[which]!.value }, name: 'evenkeel.toml' }
        const error = await failureOf(() => parseConfig(text, options))
        if (error instanceof Error) refused++
        outputs.add(text.replaceAll('\n', ' ⏎ '), error)
      }
    }
    expect(refused).toBe(texts[0]!.length * 2)
    expect(outputs.leaks([...ALL, ...words])).toEqual([])
  })

  test('that is right shows none of them either, nor does what is said of it when it is of another shape', async () => {
    const outputs = new Outputs()
    const path = await folder()
    const tables = {
      providers: {
        p: {
          name: 'P',
          base_url: 'http://10.0.0.1/v1',
          api_key: key.value,
          models: ['m'],
          headers: { 'x-env': `\${env:SECRET}` },
        },
      },
      models: { m: { name: 'm', backends: [{ provider: 'p', model: 'm' }] } },
      users: { u: { name: 'U', token: user.value } },
      settings: { health: { active: { headers: { 'x-file': `\${file:key}` } } } },
    }
    const options = { folder: path, env: { SECRET: env.value } }
    const config = await configOf(tables, options)
    expect(config.warnings.length).toBeGreaterThan(0)
    outputs.add('a configuration', config)
    const json = JSON.stringify(tables, null, 1)
    for (const text of [
      json.replace('"m"', 'm'),
      json.replace('"users"', '"models"'),
      `${json}${user.value}`,
      json.slice(0, 150),
    ]) {
      outputs.add('JSON', await failureOf(() => parseConfig(text, { ...options, format: 'json' })))
    }
    expect(outputs.leaks(ALL)).toEqual([])
  })
})

describe('options', () => {
  test('that are wrong in any way tell none of their secrets, and leave what is in force', async () => {
    const outputs = new Outputs()
    const balancer = createBalancer({ backends: ['http://a.test'], transport: memory({}) })
    onTestFinished(() => balancer.close())
    const all = ALL.map(({ value }) => wrongOptions(value))
    for (const place of all[0]!.keys()) {
      const options = all[place % ALL.length]![place] as BalancerOptions
      const error = await failureOf(() => createBalancer(options))
      expect(error).toBeInstanceOf(Error)
      outputs.add(`options ${place}`, error)
      outputs.add(`options ${place} of an update`, await failureOf(() => balancer.update(options)))
    }
    expect(balancer.updates).toEqual({ applied: 1, refused: all[0]!.length })
    expect(outputs.leaks(ALL)).toEqual([])
  })

  test('of cookies that are wrong tell no secret', () => {
    const outputs = new Outputs()
    const { value: secret } = cookie
    const wrong: readonly unknown[] = [
      secret,
      [secret],
      { secret: secret.slice(0, 31) },
      { secret: [secret, secret.slice(1, 20)] },
      { secret: { value: secret } },
      { secert: secret },
      { secret, cookie: secret },
      { secret, path: secret, whenOut: secret, sameSite: secret, maxAgeS: secret, secure: secret },
      { secret, [secret]: secret },
    ]
    const proxies = wrong.map((affinity) => {
      const made = (): unknown =>
        createProxy(
          {
            send: () => {
              throw new Error('unused')
            },
          },
          { affinity } as ProxyOptions,
        )
      try {
        return made()
      } catch (error) {
        outputs.add('options of a proxy', error)
        return undefined
      }
    })
    expect(proxies.every((proxy) => proxy === undefined)).toBe(true)
    outputs.add(
      'a proxy',
      createProxy(
        {
          send: () => {
            throw new Error('unused')
          },
        },
        { affinity: { secret } },
      ),
    )
    expect(outputs.leaks(ALL)).toEqual([])
  })
})

const EVENTS: Readonly<Record<keyof BalancerEvents, true>> = {
  blocked: true,
  unblocked: true,
  added: true,
  removed: true,
  updated: true,
  attempt: true,
  wouldBlock: true,
  retry: true,
  exhausted: true,
  hedge: true,
  hedgeWon: true,
  queued: true,
  shed: true,
  configured: true,
  reloadFailed: true,
  warning: true,
  closed: true,
}

/** What a balancer says from now on: events, and what it was made of. */
function listen(balancer: Balancer, outputs: Outputs): Set<string> {
  const heard = new Set<string>()
  for (const name of Object.keys(EVENTS) as (keyof BalancerEvents)[]) {
    balancer.on(name, (...details: unknown[]) => {
      heard.add(name)
      outputs.keep(`event ${name}`, details)
    })
  }
  return heard
}

function logging(outputs: Outputs): Logger & { readonly lines: Set<string> } {
  const lines = new Set<string>()
  const at = (level: string) => (details: object, message: string) => {
    lines.add(message)
    outputs.add(`log line, ${level}: ${message}`, [details, message])
  }
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/** Everything that can be asked of a balancer. */
async function survey(balancer: Balancer, outputs: Outputs): Promise<void> {
  outputs.add('balancer', balancer)
  outputs.add('stats', balancer.stats())
  outputs.add('updates', balancer.updates)
  outputs.add('revisions', balancer.revisions())
  const registry = new Registry()
  const stop = collect(balancer, { registry })
  outputs.text('metrics', await registry.metrics())
  outputs.add('metrics', await registry.getMetricsAsJSON())
  const served = await ask(await upstream(metricsHandler(registry) as never), '/metrics')
  expect(served.status).toBe(200)
  outputs.text('metrics handler', `${served.rawHeaders.join('\n')}\n${served.body}`)
  stop()
}

/** Everything that callers may do wrong, or give up. */
async function misused(balancer: Balancer, outputs: Outputs): Promise<void> {
  const { value } = caller
  const authorization = `Bearer ${value}`
  const wrong: Readonly<Record<string, () => unknown>> = {
    'a header with a line break': () => balancer.fetch('/', { headers: { authorization: `${value}\n${value}` } }),
    'the same of request': () => balancer.request('/', { headers: { authorization: `${value}\n${value}` } }),
    'a header that is no latin1': () => balancer.fetch('/', { headers: { authorization: `${value}€` } }),
    'the same by request': () => balancer.request('/', { headers: { authorization: `${value}€` } }),
    'the same beside a Request': () =>
      balancer.fetch(new Request('http://a.test'), { headers: { authorization: `${value}\n${value}` } }),
    'a name of a header': () => balancer.fetch('/', { headers: { [value]: 'x' } }),
    'the same by the name of request': () => balancer.request('/', { headers: { [value]: 'x' } }),
    'a header of another type': () => balancer.request('/', { headers: { authorization: { value } as never } }),
    'no URL': () => balancer.fetch(`http://[${value}`),
    'no URL either': () => balancer.fetch(`\\\\[${value}`),
    'no URL of request': () => balancer.request(`\\\\[${value}`),
    'another scheme': () => balancer.fetch(`ftp://u:${encodeURIComponent(value)}@h/${value}`),
    'an origin with credentials': () => balancer.fetch(`http://u:${encodeURIComponent(value)}@127.0.0.1:1/?${value}`),
    'a path that goes up': () => balancer.request(`/%2e%2e/${value}`),
    'a body of a GET': () => balancer.fetch('/', { body: value }),
    'a body that fails': () =>
      balancer.fetch('/', { method: 'POST', body: failing() as never, headers: { authorization } }),
    'no such pool': () => balancer.fetch('/', { headers: { authorization }, balancer: { pool: 'none' } }),
    'no such backend': () => balancer.fetch('/', { headers: { authorization }, balancer: { only: 'none' } }),
    'an abort before': () =>
      balancer.fetch('/', { headers: { authorization }, signal: AbortSignal.abort(new Error('given up')) }),
    'an abort': () =>
      balancer.fetch(`/silent?${encodeURIComponent(value)}`, {
        headers: { authorization },
        signal: AbortSignal.timeout(5),
      }),
    'the time of a call': () => balancer.request('/silent', { headers: { authorization }, timeoutMs: 5 }),
    'a drain of nobody': () => balancer.drain('nobody'),
    'a lease in a pool that has nobody': () => balancer.acquire({ pool: 'm', only: 'none', key: 'k' }),
    'a rollback to what there is not': () => balancer.rollback(99),
  }
  for (const [what, run] of Object.entries(wrong)) {
    const error = await failureOf(run)
    expect(error, what).toBeInstanceOf(Error)
    outputs.add(what, error)
    outputs.add(`${what}, explained`, balancer.explain(error))
  }
  const lease = balancer.acquire({ pool: 'm', key: caller.value })
  outputs.keep('a lease', lease)
  lease.fail(Object.assign(new Error('it broke'), { code: 'ECONNRESET' }))
  const late = new Promise((resolve) => balancer.once('warning', resolve))
  balancer.acquire({ timeoutMs: 1 })
  outputs.add('a lease that nobody ended', await late)
  balancer.disable('p/m')
  outputs.add('a pool without anybody', await failureOf(() => balancer.fetch('/', { headers: { authorization } })))
  balancer.enable('p/m')
}

async function* failing(): AsyncGenerator<Uint8Array> {
  yield Buffer.from('part')
  throw new Error('the source of the body broke')
}

/** Other configurations: wrong ones, others, and back. */
async function changed(balancer: Balancer, options: BalancerOptions, url: string, outputs: Outputs): Promise<void> {
  for (const wrong of wrongOptions(key.value)) {
    outputs.add('update', await failureOf(() => balancer.update(wrong as BalancerOptions)))
  }
  const headers = { authorization: env.value, 'x-file': file.value, 'x-other': `${user.value} ${cookie.value}` }
  const other: BalancerOptions = {
    ...options,
    name: 'other',
    pools: {
      m: {
        backends: [
          { id: 'p/m', url, weight: 2, headers, meta: { note: key.value } },
          { id: 'new', url, headers },
        ],
      },
      hedged: { backends: [{ id: 'only', url, headers }], health: { active: { headers: { 'x-check': file.value } } } },
    },
  }
  outputs.add('update', await balancer.update(other))
  await failureOf(() => balancer.fetch('/garbage'))
  outputs.add('rollback', await balancer.rollback(1))
  outputs.add('rollback', await balancer.rollback(2))
  outputs.add('rollback', await balancer.rollback(1))
  const source: Source<BalancerOptions> = {
    name: 'source',
    subscribe(next, fail) {
      const { value } = key
      fail(failureAt(() => JSON.parse(`{"api_key": "${value}"`)))
      fail(new Error(`cannot read ${value}`))
      fail(Object.assign(new TypeError(value), { text: value }))
      fail(value)
      next({ backends: [value] })
      next({ backends: [{ url, headers: { x: `${value}\n` } }] })
      return () => {
        throw new Error('of the stop')
      }
    },
  }
  balancer.follow(source)()
}

function failureAt(run: () => unknown): unknown {
  try {
    return run()
  } catch (error) {
    return error
  }
}

/** A file that is followed and written badly, with the secrets in it. */
async function reloaded(balancer: Balancer, name: string, heard: ReadonlySet<string>, outputs: Outputs): Promise<void> {
  const load = (path: string): ReturnType<typeof loadConfig> => loadConfig(path, { env: { SECRET: env.value } })
  const failed: unknown[] = []
  balancer.on('reloadFailed', (error) => failed.push(error))
  for (const text of [`api_key = "${key.value}`, `[users.u]\ntoken = ["${user.value}"]`]) {
    await writeFile(name, text)
    const before = failed.length
    const stop = balancer.follow(watchConfig(name, { load, debounceMs: 1 }))
    await until(() => failed.length > before, 'no failure was told')
    stop()
  }
  expect(heard).toContain('reloadFailed')
  outputs.add('reloads that failed', failed)
}

describe('a balancer', () => {
  test('tells no secret, whatever fails and whoever is told', async () => {
    const outputs = new Outputs()
    const path = await folder()
    const backend = await trap()
    const place = await configured(path, backend)
    const config = await loadConfig(place, { env: { SECRET: env.value } })
    outputs.add('configuration', config)
    const logger = logging(outputs)
    const sink: Sink = {
      name: 'curious',
      head: (attempt) => outputs.keep('sink, head', attempt),
      attempt: (attempt) => outputs.keep('sink, attempt', attempt),
      call: (call) => outputs.keep('sink, call', call),
    }
    const watcher: Watcher = {
      name: 'curious watcher',
      start(core) {
        outputs.keep('core', core)
        return { members: (all) => outputs.keep('members', all), stop() {} }
      },
    }
    const thrower: Sink = {
      name: 'thrower',
      attempt: () => {
        throw new Error('of the sink')
      },
    }
    const parts = {
      log: { requests: true },
      logger,
      sinks: [sink, thrower],
      watchers: [watcher],
      classify: () => {
        throw new Error('of the hook')
      },
    }
    const balancer = createBalancer({ ...config.options, ...parts })
    onTestFinished(() => balancer.close())
    const heard = listen(balancer, outputs)
    balancer.on('attempt', () => {
      throw new Error('of a listener')
    })
    const front = await upstream(
      createProxy(balancer, {
        affinity: { secret: cookie.value },
        call: ({ headers }) => ({ pool: String(headers['x-pool']) }),
      }),
    )
    const headers = {
      authorization: `Bearer ${caller.value}`,
      cookie: `sid=${caller.value}`,
      'x-api-key': caller.value,
    }
    const query = `?access_token=${encodeURIComponent(caller.value)}`
    const asked = async (pool: string, fault: string): Promise<void> => {
      const target = `/${fault}${query}`
      const options = { headers, balancer: { pool } }
      const where = `${pool} ${fault}`
      const met = (face: string, thing: unknown): void => {
        if (thing instanceof Error) outputs.add(`${face} of ${where}`, thing)
        outputs.add(`${face} of ${where} explained`, balancer.explain(thing))
      }
      await Promise.all([
        balancer.fetch(target, options).then(
          async (answer) => {
            met('fetch', await answer.text().catch((error: unknown) => error))
            met('fetch', answer)
          },
          (error: unknown) => met('fetch', error),
        ),
        balancer.request(target, { headers, pool, method: 'POST' }).then(
          async (answer) => {
            met('request', await answer.body.text().catch((error: unknown) => error))
            met('request', answer)
          },
          (error: unknown) => met('request', error),
        ),
        ask(front, target, { headers: { ...headers, 'x-pool': pool } }).then(
          ({ status, rawHeaders, body }) =>
            outputs.text(`proxy of ${where}`, `${status}\n${rawHeaders.join('\n')}\n${body}`),
          () => {}, // broken off
        ),
      ])
    }
    await Promise.all(FAULTS.map((fault) => asked('m', fault)))
    for (const fault of ['garbage', 'cut', '401', 'ok']) await asked('bare', fault)
    await Promise.all(UNREACHED.map((pool) => asked(pool, 'ok')))
    for (const fault of ['401', '429', '500', 'garbage', 'ok']) await asked('strict', fault)
    await Promise.all(Array.from({ length: 3 }, () => asked('narrow', 'slow')))
    const token = createHmac('sha256', cookie.value).update('m\0p/m').digest('base64url')
    // On a busy machine it takes more than one try.
    for (let i = 0; i < 20 && !outputs.includes(token); i++) await asked('m', 'ok')
    for (let i = 0; i < 20 && !heard.has('hedgeWon'); i++) await asked('hedged', 'slow')
    for (let i = 0; i < 20 && !heard.has('wouldBlock'); i++) await asked('dry', '500')
    await survey(balancer, outputs)
    await misused(balancer, outputs)
    await changed(balancer, { ...config.options, ...parts }, backend.url, outputs)
    await reloaded(balancer, place, heard, outputs)
    await survey(balancer, outputs)
    const underWay = ['fetch', 'request'] as const
    const cut = underWay.map((face) => failureOf(() => balancer[face](`/silent${query}`, { headers })))
    const lease = balancer.acquire()
    await balancer.close()
    for (const error of await Promise.all(cut)) outputs.add('closed while under way', error)
    outputs.add('a lease of a closed balancer', lease)
    outputs.add('closed', await failureOf(() => balancer.fetch('/', { headers })))
    outputs.add('a closed balancer', balancer)
    expect(outputs.places.length).toBeGreaterThan(150)
    expect([...heard].sort()).toEqual(Object.keys(EVENTS).sort())

    // They have all arrived where they are meant to.
    const wire = backend.wires.map(({ received }) => received).join('\n')
    for (const value of [
      `Bearer ${key.value}`,
      `x-env: ${env.value}`,
      `x-file: ${file.value}`,
      `Bearer ${env.value}`,
    ]) {
      expect(wire).toContain(value)
    }
    for (const value of [
      `Bearer ${caller.value}`,
      `sid=${caller.value}`,
      `/ok${query}`,
      `x-api-key: ${caller.value}`,
    ]) {
      expect(wire).toContain(value)
    }
    expect(outputs.includes(token)).toBe(true)
    expect(outputs.leaks(ALL)).toEqual([])
  })
})

describe('words of others', () => {
  const { value } = key
  const bytes = Buffer.from(value)
  const basic = Buffer.from(`me:${value}:you`)
  const repeated: Readonly<Record<string, string>> = {
    'as it is': value,
    'as a part of something': `<${value}>`,
    base64: bytes.toString('base64'),
    base64url: bytes.toString('base64url'),
    'base64 as a password': basic.toString('base64'),
    'base64url as a password': basic.toString('base64url'),
    'base64 in another place': Buffer.from(`m${value}`).toString('base64'),
    'percent-encoded': encodeURIComponent(value),
    'in a URL': encodeURI(value),
    'in a form': String(new URLSearchParams({ q: value })),
    'every byte percent-encoded': bytes.toString('hex').replace(/../g, '%$&'),
    hex: bytes.toString('hex'),
    HEX: bytes.toString('hex').toUpperCase(),
    'in JSON': JSON.stringify([value]),
  }

  test.each(Object.entries(repeated))('that repeat a key %s do not get into ours', async (_, text) => {
    const outputs = new Outputs()
    const logger = logging(outputs)
    let sent = (): void => {}
    const isSent = new Promise<void>((resolve) => (sent = resolve))
    const check = async (): Promise<void> => {
      await isSent
      throw new Error(`refused ${text}, sorry`)
    }
    const balancer = createBalancer({
      backends: [{ id: 'a', url: 'http://a.test', headers: { authorization: `Bearer ${value}` } }],
      transport: {
        name: 'wordy',
        async send(attempt) {
          expect(wireHeaders(attempt.request.headers)).toContain(`Bearer ${value}`)
          throw new Error(`no such key: ${text}`)
        },
      },
      health: {
        active: { probe: { name: 'wordy', check }, initial: 'up', fall: 1 },
        panicBelow: 0,
      },
      retry: { attempts: 2, sameBaseMs: 1 },
      logger,
      log: { requests: true },
    })
    onTestFinished(() => balancer.close())
    const { message, stack } = (await failureOf(() => balancer.fetch('/'))) as Error
    sent()
    outputs.text('message', message)
    outputs.text('stack', String(stack))
    await until(() => balancer.stats().pools.default!.backends[0]!.state === 'blocked', 'it was not blocked')
    outputs.add('nobody is left', await failureOf(() => balancer.request('/')))
    outputs.add('stats', balancer.stats())
    expect(JSON.stringify(balancer.stats())).toContain('[redacted]')
    expect(message).toContain('no such key: ')
    outputs.text('redacted by hand', balancer.redact(text))
    expect(outputs.leaks([key])).toEqual([])
  })
})

describe('a process', () => {
  const cached = cachedEnv()

  /** What a careless program writes until it breaks down. */
  async function printed(file: string): Promise<string> {
    const script = fileURLToPath(new URL('support/canary-child.ts', import.meta.url))
    const vars = { ...cached, SECRET: env.value, CALLER: caller.value, FORCE_COLOR: '0', NODE_OPTIONS: '' }
    const child = spawn(process.execPath, ['--trace-warnings', '--trace-uncaught', script, file], { env: vars })
    onTestFinished(() => void child.kill('SIGKILL'))
    const [out, error, [code]] = await Promise.all([bytesOf(child.stdout), bytesOf(child.stderr), once(child, 'close')])
    expect(code, `${error}`.slice(-2_000)).toBe(1)
    return `${out}${error}`
  }

  test('that prints everything, warns and dies of an error prints no secret', async () => {
    const outputs = new Outputs()
    const path = await folder()
    const backend = await trap()
    const good = await configured(path, backend)
    const bad = join(path, 'bad.toml')
    await writeFile(bad, `[users.u]\ntoken = "${user.value}\napi_key = "${key.value}"`)
    const ran = await printed(good)
    const refused = await printed(bad) // with what the first has compiled
    const wanted = ['[redacted]', 'HTTPParserError', '(node:', 'RESET', 'was not ended', 'Uncaught']
    expect(wanted.filter((text) => !ran.includes(text))).toEqual([])
    expect(refused).toContain('bad.toml:2:')
    expect(backend.wires.map(({ received }) => received).join('')).toContain(`Bearer ${key.value}`)
    outputs.text('a process', ran)
    outputs.text('a process with a bad file', refused)
    expect(outputs.leaks(ALL)).toEqual([])
  })
})
