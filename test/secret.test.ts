import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import http from 'node:http'
import { format, inspect } from 'node:util'
import {
  type Attempt,
  type Backend,
  type BalancerEvents,
  type BalancerOptions,
  createBalancer,
  grpcProbe,
  httpProbe,
  memory,
  Secret,
  type Sink,
  type Watcher,
  wireHeaders,
} from 'evenkeel'
import { createProxy } from 'evenkeel/node'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { foundText } from '../src/config/issues.ts'
import { isDeepEqual } from '../src/core/equal.ts'
import { digestOf } from '../src/core/secret.ts'
import { outlineOf } from './support/imports.ts'
import { freePort } from './support/ports.ts'
import { balancerError } from './support/scripted.ts'
import { keeper, until, upstream } from './support/upstreams.ts'

const SRC = new URL('../src/', import.meta.url)

/** As long and as random as a key. */
function canary(): string {
  return `sk-${randomBytes(18).toString('base64url')}`
}

/** Every way of looking at something. */
function views(thing: unknown): string[] {
  const everything = { depth: 20, showHidden: true, getters: true, maxArrayLength: null, maxStringLength: null }
  const seen = new WeakSet()
  const once = (_: string, value: unknown): unknown => {
    if (typeof value === 'bigint') return String(value)
    if (typeof value !== 'object' || value === null) return value
    if (seen.has(value)) return undefined
    seen.add(value)
    return value
  }
  return [
    inspect(thing, everything),
    inspect(thing, { ...everything, customInspect: false }),
    inspect(thing),
    JSON.stringify(thing, once) ?? '',
    format('%s %o %O %j', thing, thing, thing, null),
    String(thing),
  ]
}

function expectHidden(secret: string, thing: unknown): void {
  for (const view of views(thing)) expect(view).not.toContain(secret)
}

describe('a secret', () => {
  const value = canary()
  const secret = new Secret(value)

  test('shows nothing of itself, however it is looked at, until it is revealed', () => {
    expectHidden(value, secret)
    expectHidden(value, { deep: [new Map([['key', secret]]), new Set([secret])] })
    const texts = [
      `${secret}`,
      String(secret),
      `${secret.valueOf()}`,
      secret.toJSON(),
      inspect(secret),
      format('%s', secret),
    ]
    expect(texts).toEqual(Array(texts.length).fill('[redacted]'))
    expect(JSON.stringify({ secret })).toBe('{"secret":"[redacted]"}')
    expect([secret].join('+')).toBe('[redacted]')
    expect(Reflect.ownKeys(secret)).toEqual([])
    expect(Object.isFrozen(secret)).toBe(true)
    expect(() => structuredClone({ secret })).toThrow('could not be cloned')
    expect(secret.reveal()).toBe(value)
  })

  test('is compared, checked and hashed without being revealed', () => {
    expect(secret.equals(new Secret(value))).toBe(true)
    expect(secret.equals(new Secret(canary()))).toBe(false)
    expect(isDeepEqual({ a: [secret] }, { a: [new Secret(value)] })).toBe(true)
    expect(isDeepEqual({ a: [secret] }, { a: [new Secret(canary())] })).toBe(false)
    expect(isDeepEqual(secret, value)).toBe(false)
    expect(secret.matches(/^sk-/)).toBe(true)
    expect(digestOf(secret, (text) => `#${text.length}`)).toBe(`#${value.length}`)
    expect('digest' in secret).toBe(false) // whoever has a secret could ask it for the value itself
    expect(Secret.of(secret)).toBe(secret)
    expect(Secret.of(value).equals(secret)).toBe(true)
  })

  test('is taken out of texts that others wrote, also without its scheme, in base64 and percent-encoded', () => {
    const header = new Secret('Bearer k/e+y==of&many=words')
    const key = 'k/e+y==of&many=words'
    for (const form of [key, btoa(key), btoa(key).replace(/=+$/, ''), encodeURIComponent(key)]) {
      expect(header.redactIn(`Bearer: ${form}!`)).toBe('Bearer: [redacted]!')
    }
    expect(header.redactIn(`no ${header.reveal()} here, nor ${key}`)).toBe('no [redacted] here, nor [redacted]')
    expect(new Secret('short').redactIn('a short text')).toBe('a short text')
    expect(new Secret('').redactIn('a text')).toBe('a text')
    expect(new Secret('schlüssel').redactIn('der schlüssel')).toBe('der [redacted]')
  })

  test('is taken out in whatever way it was encoded, and each of its words', () => {
    const taken: readonly (readonly [value: string, text: string])[] = [
      ['abc+/def==12', 'abc%2b%2fdef%3d%3d12'],
      ['schlüssel-geheim', Buffer.from('schlüssel-geheim', 'latin1').toString('base64')],
      ['schlüssel-geheim', Buffer.from('schlüssel-geheim').toString('base64url')],
      ['pa"ss\\word123', JSON.stringify('pa"ss\\word123').slice(1, -1)],
      ['session=abcdef123456; other=1', 'abcdef123456'],
      ['first-key-1,second-key-2', 'second-key-2'],
      ['tab\tseparated', 'separated'],
      ['\ud800abcdefgh', '\ud800abcdefgh'],
    ]
    for (const [value, text] of taken) expect(new Secret(value).redactIn(`no ${text}!`)).toBe('no [redacted]!')
    expect(new Secret('x'.repeat(200_000)).redactIn('x')).toBe('x')
  })

  test('is found among hundreds of others in a time that goes by the length of the text', () => {
    const all = Array.from({ length: 500 }, (_, i) => new Secret(`Bearer sk-common-start-${i}-${'x'.repeat(i % 7)}`))
    const redact = Secret.redacting(all)
    for (const i of [1, 10, 100, 499]) {
      expect(redact(`no sk-common-start-${i}-${'x'.repeat(i % 7)}, sorry`)).toBe('no [redacted], sorry')
    }
    expect(redact('connect ECONNREFUSED 10.0.0.1:3000')).toBe('connect ECONNREFUSED 10.0.0.1:3000')
    const startMs = performance.now()
    for (let i = 0; i < 1_000; i++) redact('connect ECONNREFUSED 10.0.0.1:3000, backend a of pool default')
    console.log(`redacted 1000 messages from 500 keys in ${(performance.now() - startMs).toFixed(1)} ms`)
  })

  test('is prepared to be looked for once, however many revisions have it', async () => {
    const encode = vi.spyOn(globalThis, 'btoa')
    onTestFinished(() => encode.mockRestore())
    const transport = memory({})
    const key = (n: number): string => `Bearer key-${n}-0123456789`
    const optionsOf = (weight: number, keys: readonly string[]): BalancerOptions => ({
      transport,
      backends: keys.map((authorization, n) => ({ url: `http://${n}.test`, weight, headers: { authorization } })),
    })
    const first = Array.from({ length: 20 }, (_, n) => key(n))
    const balancer = createBalancer(optionsOf(1, first))
    onTestFinished(() => balancer.close())
    const encoded = (): number => {
      encode.mockClear()
      expect(balancer.redact(`no ${key(0)}, no ${key(19)}`)).toBe('no [redacted], no [redacted]')
      return encode.mock.calls.length
    }
    const each = encoded() / 20
    expect(each).toBeGreaterThan(0)
    for (let weight = 2; weight < 6; weight++) {
      await balancer.update(optionsOf(weight, first))
      expect(encoded()).toBe(0)
    }
    await balancer.update(optionsOf(6, [...first.slice(0, -1), key(20)]))
    expect(encoded()).toBe(each)
    expect(balancer.redact(key(20))).toBe('[redacted]')
  })

  test('is known by the name of its setting, and a setting that only sounds like one is none', () => {
    for (const key of ['passphrase', 'pwd', 'pass', 'password', 'bearer', 'apiKey', 'Token']) {
      expect(foundText('0123456789', [key])).toBe('a string of 10 characters')
    }
    for (const path of [['health', 'passive'], ['name']]) expect(foundText('text', path)).toBe('"text"')
  })

  test('is revealed in one place of the sources, where headers are written onto the wire', () => {
    const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'))
    expect(files.length).toBeGreaterThan(35)
    const revealing = files.filter((path) => /\.reveal\(/.test(readFileSync(new URL(path, SRC), 'utf8')))
    expect(revealing).toEqual(['core/headers.ts'])
    const wiring = files.filter((path) =>
      outlineOf(readFileSync(new URL(path, SRC), 'utf8')).taken.some(({ values }) => values.includes('wireHeaders')),
    )
    const elsewhere = wiring.filter((path) => !path.startsWith('transports/') && path !== 'index.ts')
    expect(elsewhere).toEqual([])
    expect(wiring).toContain('transports/wire.ts')
  })
})

describe('a configured header', () => {
  test('reaches the backend, and nobody else sees its value', async () => {
    const [key, checkKey] = [canary(), canary()]
    const backend = await keeper((request, response) => {
      if (request.url === '/refused') response.statusCode = 401
      // A backend that repeats what it was sent is not our doing, but must not get into our words.
      if (request.url === '/garbled') return void response.socket!.end(`HTTP/1.1 ${key} nonsense\r\n\r\n`)
      if (request.url === '/cut') return void response.writeHead(200, { 'content-length': 9 }).end('cut')
      response.end('ok')
    })
    const dead = `http://127.0.0.1:${await freePort()}`
    const looked: unknown[] = []
    const requests: Attempt['request'][] = []
    const sink: Sink = {
      name: 'curious',
      head: (attempt) => void looked.push(attempt),
      attempt: (attempt) => {
        requests.push(attempt.request)
        looked.push(attempt)
      },
      call: (call) => void looked.push(call),
    }
    const watcher: Watcher = {
      name: 'curious watcher',
      start(core) {
        looked.push(core)
        return { members: (all) => void looked.push(all), stop() {} }
      },
    }
    const headers = { authorization: `Bearer ${key}` }
    const balancer = createBalancer({
      pools: {
        one: {
          backends: [{ url: backend.url, id: 'alive', headers }],
          health: { active: { headers: { 'x-check': checkKey }, path: '/health' } },
        },
        two: { backends: [{ url: dead, id: 'dead', headers }], retry: { attempts: 2, sameBaseMs: 1 } },
      },
      sinks: [sink],
      watchers: [watcher],
    })
    onTestFinished(() => balancer.close())
    const names: (keyof BalancerEvents)[] = ['blocked', 'unblocked', 'added', 'removed', 'updated', 'attempt', 'retry']
    for (const name of [...names, 'exhausted', 'warning'] as const) {
      balancer.on(name, (...details: unknown[]) => void looked.push(details))
    }
    await balancer.ready()
    for (const path of ['/', '/garbled', '/cut', '/refused']) {
      const call = balancer.request(path, { method: 'POST', pool: 'one' })
      const answer = await call.then(
        (it) => it,
        (error: unknown) => error,
      )
      looked.push(answer, balancer.explain(answer))
      if (answer instanceof Error) continue
      looked.push(await (answer as Awaited<typeof call>).body.text().catch((error: unknown) => error))
    }
    const error = await balancerError(balancer.fetch('/', { balancer: { pool: 'two' } }))
    looked.push(error, balancer.explain(error))
    using lease = balancer.acquire({ pool: 'two' })
    looked.push(lease)
    await balancer.update({
      backends: [{ url: backend.url, id: 'alive', weight: 2, headers: { authorization: `Bearer ${key}` } }],
      sinks: [sink],
      watchers: [watcher],
    })
    looked.push(balancer, balancer.stats())
    expect(looked.length).toBeGreaterThan(20)
    for (const thing of looked) {
      // What the backend garbled is its own text, kept as the cause: of ours only the words must be clean.
      const garbled = inspect(thing, { depth: 20 }).includes('nonsense')
      if (!garbled) for (const secret of [key, checkKey]) expectHidden(secret, thing)
    }
    for (const request of requests) for (const secret of [key, checkKey]) expectHidden(secret, request)
    expect(backend.got.filter(({ path }) => path !== '/health').map((it) => it.headers.authorization)).toEqual(
      Array(4).fill(`Bearer ${key}`),
    )
    expect(backend.got.find(({ path }) => path === '/health')?.headers).toMatchObject({
      'x-check': checkKey,
      authorization: `Bearer ${key}`,
    })
  })

  test('may come as a secret already, and is checked all the same', async () => {
    const value = canary()
    const transport = memory({ a: {} })
    const options = {
      transport,
      backends: [{ url: 'http://a.test', id: 'a', headers: { 'x-key': new Secret(value) } }],
    }
    const balancer = createBalancer(options)
    onTestFinished(() => balancer.close())
    await (await balancer.fetch('/')).text()
    expect(transport.requests[0]!.headers).toContain(value)
    const broken = { url: 'http://a.test', headers: { 'x-key': new Secret(`${value}\r\nx: y`) } }
    const error = await balancerError(balancer.update({ backends: [broken] }))
    expect(error.message).toContain('backends[0].headers.x-key: expected a string of latin1 characters')
    expectHidden(value, error)
  })

  test('of an endpoint that a discovery part hands over is one too', async () => {
    const value = canary()
    const seen: Backend[] = []
    const discovery: Watcher = {
      name: 'discovery',
      start(core) {
        const stop = core.clock.after(0, () =>
          core.control.apply([{ url: 'http://b.test', id: 'b', headers: { 'x-key': value } }]),
        )
        return { members: (all) => void seen.push(...all), stop }
      },
    }
    const transport = memory({ b: {} })
    const balancer = createBalancer({ backends: ['http://a.test'], transport, watchers: [discovery] })
    onTestFinished(() => balancer.close())
    await until(() => seen.some(({ id }) => id === 'b'), 'it was not applied')
    await (await balancer.fetch('/')).text()
    expectHidden(value, seen)
    expect(transport.requests[0]!.headers).toContain(value)
  })

  test('of a probe made by hand is one too', async () => {
    const value = canary()
    const { url, got } = await keeper()
    const probe = httpProbe({ headers: { 'x-key': value } })
    expectHidden(value, [probe, grpcProbe('', { headers: { 'x-key': value } })])
    const balancer = createBalancer({ backends: [url], health: { active: { probe } } })
    onTestFinished(() => balancer.close())
    await balancer.ready()
    expect(got[0]!.headers['x-key']).toBe(value)
  })

  test('is not in a reason that the backend words itself', async () => {
    const value = canary()
    const balancer = createBalancer({
      backends: [{ url: 'http://a.test', id: 'a', headers: { authorization: `Bearer ${value}` } }],
      transport: memory({ a: {} }),
      health: {
        active: { probe: { name: 'wordy', check: () => Promise.reject(new Error(`no such key: ${value}`)) } },
        panicBelow: 0,
      },
    })
    onTestFinished(() => balancer.close())
    const told: unknown[] = []
    balancer.on('blocked', (_, reason) => void told.push(reason))
    await balancer.ready()
    const error = await balancerError(balancer.fetch('/'))
    expect(error.code).toBe('NO_BACKEND')
    expect(JSON.stringify(balancer.stats())).toContain('no such key: [redacted]')
    for (const thing of [told, error, balancer.stats()]) expectHidden(value, thing)
  })

  test('of a check is not in a reason either', async () => {
    const value = canary()
    const probe = grpcProbe('', { headers: { 'x-check': value } })
    const transport = memory({
      a: ({ headers }) => ({
        headers: { 'grpc-status': '16', 'grpc-message': `no such key: ${headers[headers.indexOf('x-check') + 1]}` },
      }),
    })
    const active = { type: 'grpc', headers: { 'x-check': value }, fall: 1 } as const
    const balancer = createBalancer({
      backends: [{ url: 'http://a.test', id: 'a' }],
      transport,
      health: { active, panicBelow: 0 },
    })
    onTestFinished(() => balancer.close())
    const told: unknown[] = []
    balancer.on('blocked', (_, reason) => void told.push(reason))
    await balancer.ready()
    const error = await balancerError(balancer.fetch('/'))
    expect(JSON.stringify(balancer.stats())).toContain('no such key: [redacted]')
    for (const thing of [probe, told, error, balancer.stats()]) expectHidden(value, thing)
  })

  test('is not in what a proxy answers when nothing works', async () => {
    const value = canary()
    const balancer = createBalancer({
      backends: [{ url: `http://127.0.0.1:${await freePort()}`, headers: { 'x-key': value } }],
      retry: { attempts: 1 },
    })
    onTestFinished(() => balancer.close())
    const { port } = await upstream(createProxy(balancer))
    const answer = await new Promise<http.IncomingMessage>((resolve) => http.get({ port, host: '127.0.0.1' }, resolve))
    const chunks = await answer.toArray()
    expect(answer.statusCode).toBe(502)
    expect(`${answer.rawHeaders.join()}${Buffer.concat(chunks).toString()}`).not.toContain(value)
  })

  test('stands in a request as a secret, until a transport makes text of it', async () => {
    const value = canary()
    const sent: string[][] = []
    const inner = memory({ a: {} })
    const balancer = createBalancer({
      backends: [{ url: 'http://a.test', id: 'a', headers: { 'x-key': value } }],
      transport: {
        name: 'mine',
        send(attempt) {
          expect(attempt.request.headers.filter((text) => text instanceof Secret)).toHaveLength(1)
          sent.push(wireHeaders(attempt.request.headers))
          return inner.send(attempt)
        },
      },
    })
    onTestFinished(() => balancer.close())
    await (await balancer.fetch('/', { headers: { accept: 'a/b' } })).text()
    expect(sent[0]!.slice(-2)).toEqual(['x-key', value])
  })
})
