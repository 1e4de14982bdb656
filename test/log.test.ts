import { once } from 'node:events'
import http from 'node:http'
import { PassThrough } from 'node:stream'
import {
  type BalancerOptions,
  type Core,
  createBalancer,
  type Endpoint,
  type Logger,
  memory,
  type Source,
  type Transport,
  type Watcher,
} from 'evenkeel'
import { createProxy } from 'evenkeel/node'
import { manualClock } from 'evenkeel/testing'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { balancerBench } from './support/balancer-bench.ts'
import { status } from './support/plays.ts'
import { freePort } from './support/ports.ts'
import { keeper, until, upstream } from './support/upstreams.ts'

type Level = keyof Logger

/** A line as the caller's logger gets it. */
interface Line extends Record<string, unknown> {
  readonly level: Level
  readonly message: string
}

function keeping(): Logger & { readonly lines: readonly Line[]; of(message: string): readonly Line[] } {
  const lines: Line[] = []
  const at =
    (level: Level) =>
    (details: object, message: string): void =>
      void lines.push({ level, message, ...details })
  return {
    lines,
    of: (message) => lines.filter((line) => line.message === message),
    ...{ debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') },
  }
}

function balance(options: BalancerOptions): ReturnType<typeof createBalancer> {
  const balancer = createBalancer(options)
  onTestFinished(() => balancer.close())
  return balancer
}

const A = { url: 'http://a.test', id: 'a' }
const B = { url: 'http://b.test', id: 'b' }

describe('a logger', () => {
  test('gets a line for every change of state, at the level that it deserves', async () => {
    const logger = keeping()
    const clock = manualClock()
    const transport = memory({ a: { status: 500 }, b: {} }, { clock })
    const options: BalancerOptions = {
      backends: [A, B],
      transport,
      health: { passive: { consecutive: 1, jitter: 0 }, panicBelow: 0, slowStart: false },
      strategy: 'round-robin',
      retry: { attempts: 1 },
    }
    const balancer = createBalancer({ ...options, logger, clock })
    for (let i = 0; i < 2; i++) {
      const answer = balancer.fetch('/')
      await clock.advance(1)
      await (await answer).text()
    }
    await clock.advance(5_000)
    balancer.disable('b')
    balancer.enable('b')
    await balancer.update({
      ...options,
      backends: [
        { ...A, weight: 2 },
        { url: 'http://c.test', id: 'c' },
      ],
    })
    await balancer.close()
    expect(logger.lines).toEqual([
      {
        ...{ level: 'warn', message: 'backend blocked', backend: 'a', by: 'outlier', hard: false },
        ...{ detail: expect.stringContaining('1 failure'), forMs: 5_000 },
      },
      { level: 'info', message: 'backend unblocked', backend: 'a', by: 'outlier' },
      { level: 'info', message: 'backend blocked', backend: 'b', by: 'operator', hard: true },
      { level: 'info', message: 'backend unblocked', backend: 'b', by: 'operator' },
      { level: 'info', message: 'backend removed', backend: 'b' },
      { level: 'info', message: 'backend added', backend: 'c' },
      { level: 'debug', message: 'backend updated', backend: 'a' },
      {
        ...{ level: 'info', message: 'configuration in force', revision: 2, origin: 'update', changed: 5 },
        hash: balancer.revisions().at(-1)!.hash,
        changes: expect.arrayContaining(['pools.default.backends.a.weight: nothing -> 2']),
      },
      { level: 'info', message: 'balancer closed' },
    ])
  })

  test('hears of breakers, of checks and of what a detector in dry run would have done', async () => {
    const logger = keeping()
    const breaker = { trip: 'consecutive', consecutive: 1 } as const
    const active = { probe: { name: 'grumpy', check: () => Promise.reject(new Error('too hot')) }, fall: 1 }
    const passive = { consecutive: 1, dryRun: true }
    const retry = { attempts: 1 }
    const one = balancerBench(status(500), { logger, ids: 'a', breaker, health: { active }, retry })
    await one.call()
    const other = balancerBench(status(500), { logger, ids: 'bcd', health: { passive }, retry })
    await other.call()
    expect(logger.of('backend blocked')).toMatchObject([
      { level: 'warn', backend: 'a', by: 'breaker' },
      { level: 'warn', backend: 'a', by: 'probe', detail: expect.stringContaining('too hot') },
    ])
    expect(logger.of('backend would be blocked')).toMatchObject([{ level: 'info', backend: other.to(), by: 'outlier' }])
  })

  test('hears why a reload failed, and of parts that misbehave, in words without a secret', async () => {
    const key = 'sk-0123456789abcdef'
    const logger = keeping()
    const broken = (): never => {
      throw new Error(`I was given ${key}`)
    }
    const balancer = balance({
      backends: [{ ...A, headers: { authorization: `Bearer ${key}` } }],
      health: { active: { headers: { 'x-check': 'check-0123456789' }, intervalMs: 60_000 } },
      transport: memory({ a: {} }),
      sinks: [{ name: 'mine', head: broken }],
      logger,
    })
    const source: Source<BalancerOptions> = {
      name: 'vault',
      subscribe(next, fail) {
        next({ backends: [{ ...A, weight: -1 }] })
        fail(Object.assign(new Error(`EIO: ${btoa(key)}, check-0123456789`), { syscall: 'read', code: 'EIO' }))
        return () => {}
      },
    }
    balancer.follow(source)
    await (await balancer.fetch('/')).text()
    expect(logger.of('reload failed')).toEqual([
      {
        ...{ level: 'error', message: 'reload failed', code: 'CONFIG' },
        error: expect.stringContaining('backends[0].weight: expected a number >= 0 and <= 1000000000, found -1'),
      },
      {
        ...{ level: 'error', message: 'reload failed', code: 'CONFIG' },
        error: 'vault: EIO: [redacted], [redacted]',
      },
    ])
    expect(logger.of('a part misbehaved')).toEqual([
      {
        ...{ level: 'warn', message: 'a part misbehaved', code: 'CONFIG' },
        error: 'mine threw in pool default',
        cause: 'I was given [redacted]',
      },
    ])
  })

  test('shows no key that is in force no more, nor one that only discovery knows', async () => {
    const [old, young, found] = ['sk-old-0123456789', 'sk-young-0123456789', 'sk-found-0123456789']
    const logger = keeping()
    let fail: (error: Error) => void = () => {}
    const transport: Transport = {
      name: 'wordy',
      send: () => new Promise((_, reject) => (fail = reject)),
    }
    let discover: (endpoint: Endpoint) => void = () => {}
    const discovery: Watcher = {
      name: 'discovery',
      start(core) {
        discover = (endpoint) => core.control.apply([endpoint])
        return { stop() {} }
      },
    }
    const optionsWith = (key: string): BalancerOptions => ({
      backends: [{ ...A, headers: { authorization: `Bearer ${key}` } }],
      ...{ transport, watchers: [discovery], retry: { attempts: 1 }, log: { requests: true }, revisions: 1 },
    })
    const balancer = balance({ ...optionsWith(old), logger })
    const first = balancer.fetch('/').catch(() => {})
    await until(() => balancer.stats().pools.default!.inflight === 1, 'it was not sent')
    await balancer.update(optionsWith(young))
    fail(new Error(`bad key ${old}`))
    await first
    discover({ ...B, headers: { authorization: `Bearer ${found}` } })
    const second = balancer.fetch('/').catch(() => {})
    await until(() => balancer.stats().pools.default!.inflight === 1, 'it was not sent')
    expect(balancer.redact(`${young}, ${found}`)).toBe('[redacted], [redacted]')
    discover(A)
    fail(new Error(`bad key ${found}`))
    await second
    await until(() => logger.of('request').length === 2, 'not every call was told')
    const texts = logger.of('request').map(({ error, cause }) => `${error} ${cause}`)
    for (const text of texts) expect(text).toContain('bad key [redacted]')
    for (const key of [old, young, found]) expect(JSON.stringify(logger.lines)).not.toContain(key)
  })

  test('shows no key in the words of a part that blocks, or would', async () => {
    const key = 'sk-0123456789abcdef'
    const logger = keeping()
    let core: Core | undefined
    const watcher: Watcher = {
      name: 'wordy',
      start(given) {
        core = given
        return { stop() {} }
      },
    }
    const backend = { ...A, headers: { authorization: `Bearer ${key}` } }
    balance({ backends: [backend, B], watchers: [watcher], logger })
    const [, b] = core!.members().all
    const reason = { by: 'wordy', hard: false, detail: `it said ${key}` }
    core!.control.block(b!, reason) // whose own key it is not
    core!.emit('wouldBlock', b, reason)
    expect(logger.lines).toMatchObject([
      { message: 'backend blocked', backend: 'b', detail: 'it said [redacted]' },
      { message: 'backend would be blocked', backend: 'b', detail: 'it said [redacted]' },
    ])
  })

  test('tells twenty changes of a configuration, and how many there are', async () => {
    const logger = keeping()
    const balancer = balance({ backends: [A], logger })
    await balancer.update({ backends: [A, ...Array.from({ length: 50 }, (_, i) => `http://b${i}.test`)] })
    const [line] = logger.of('configuration in force')
    expect(line).toMatchObject({ changed: 50 })
    expect(line!.changes).toHaveLength(20)
  })

  test('that throws harms nobody', async () => {
    const broken = (): never => {
      throw new Error('the disk is full')
    }
    const logger = { debug: broken, info: broken, warn: broken, error: broken }
    const balancer = balance({ backends: [A], transport: memory({ a: {} }), logger, log: { requests: true } })
    const heard: string[] = []
    for (const event of ['blocked', 'unblocked', 'removed', 'added', 'configured', 'closed'] as const) {
      balancer.on(event, () => void heard.push(event))
    }
    balancer.on('warning', ({ message }) => void heard.push(message))
    balancer.disable('a')
    balancer.enable('a')
    const answer = await balancer.fetch('/')
    expect(answer.status).toBe(200)
    await answer.text()
    expect((await balancer.update({ backends: [B] })).number).toBe(2)
    await balancer.close()
    expect(heard).toEqual([
      ...['blocked', 'unblocked', 'log threw in pool default', 'removed', 'added', 'configured', 'closed'],
    ])
  })

  test('stays as given at the start, whatever an update says; pino is one', async () => {
    const stream = new PassThrough()
    const logger = pino({ level: 'debug' }, stream)
    const balancer = balance({ backends: [A], logger })
    await balancer.update({ backends: [B] })
    const lines = String(stream.read()).trimEnd().split('\n')
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { level: 30, msg: 'backend removed', backend: 'a' },
      { level: 30, msg: 'backend added', backend: 'b' },
      { level: 30, msg: 'configuration in force', revision: 2 },
    ])
  })

  test('is checked like any other option', () => {
    const logger = { info: () => {} } as unknown as Logger
    expect(() => createBalancer({ backends: [A], logger })).toThrow('logger.debug: expected a function')
    expect(() => createBalancer({ backends: [A], log: { requests: 'yes' as never } })).toThrow(
      'log.requests: expected true, false or a function, found "yes"',
    )
  })

  test('that is not there is asked nothing', async () => {
    let asked = 0
    const balancer = balance({ backends: [A], transport: memory({ a: {} }), log: { requests: () => ++asked > 0 } })
    await (await balancer.fetch('/')).text()
    expect(asked).toBe(0)
  })
})

describe('a line for each request', () => {
  test('is written only if asked for', async () => {
    const [silent, loud, some] = [keeping(), keeping(), keeping()]
    const transport = memory({ a: {} })
    const common = { backends: [A], transport }
    const all = [
      balance({ ...common, logger: silent }),
      balance({ ...common, logger: loud, log: { requests: true } }),
      balance({ ...common, logger: some, log: { requests: ({ method }) => method !== 'GET' } }),
    ]
    for (const balancer of all) {
      for (const method of ['GET', 'POST']) await (await balancer.fetch('/x', { method })).text()
    }
    expect(silent.lines).toEqual([])
    expect(loud.of('request').map(({ method }) => method)).toEqual(['GET', 'POST'])
    expect(some.of('request').map(({ method }) => method)).toEqual(['POST'])
    // It is part of the configuration: a file may turn it off.
    await all[1]!.update(common)
    await (await all[1]!.fetch('/')).text()
    expect(loud.of('request')).toHaveLength(2)
  })

  test('says what became of it, and shows no header, no body and no query', async () => {
    const logger = keeping()
    const { call, to } = balancerBench((send, number) => send.answer(number === 1 ? 503 : 200, 'text of the body'), {
      logger,
      log: { requests: true },
      retry: { baseMs: 10, jitter: 'none' },
    })
    const headers = ['x-request-id', 'id-1', 'authorization', 'Bearer of-the-caller']
    await call({ path: '/users?token=in-the-query', headers })
    const [line, ...others] = logger.of('request')
    expect(others).toEqual([])
    expect(line).toEqual({
      ...{ level: 'info', message: 'request', requestId: 'id-1', pool: 'default', method: 'GET', path: '/users' },
      ...{ backend: to().at(-1), status: 200, class: 'ok', attempts: 2, ms: 10 },
    })
    expect(JSON.stringify(logger.lines)).not.toMatch(/of-the-caller|in-the-query|of the body/)
  })

  test('warns of calls that got no answer, or half of one, and not of those that were given up', async () => {
    const logger = keeping()
    const backend = await keeper((request, response) => {
      if (request.url === '/cut')
        return void response.writeHead(200, { 'content-length': 9 }).write('cut', () => response.destroy())
      if (request.url !== '/never') response.end('ok')
    })
    const dead = `http://127.0.0.1:${await freePort()}`
    const balancer = balance({
      pools: { api: { backends: [{ id: 'a', url: backend.url }] }, gone: { backends: [{ id: 'gone', url: dead }] } },
      retry: { attempts: 1, holdBytes: 0 },
      logger,
      log: { requests: true },
    })
    const ask = (path: string, pool: string, signal: AbortSignal | null = null): Promise<unknown> =>
      balancer
        .fetch(path, { signal, balancer: { pool } })
        .then((answer) => answer.text())
        .catch(() => {})
    await ask('/', 'api')
    await ask('/cut', 'api')
    await ask('/never', 'api', AbortSignal.timeout(50))
    await ask('/', 'gone')
    balancer.disable('gone')
    await ask('/', 'gone')
    await until(() => logger.of('request').length === 5, 'not every call was told')
    expect(logger.of('request')).toEqual([
      expect.objectContaining({ level: 'info', path: '/', class: 'ok', status: 200 }),
      expect.objectContaining({ level: 'warn', path: '/cut', class: 'truncated', status: 200 }),
      expect.objectContaining({ level: 'info', path: '/never', class: 'cancelled', code: 'TimeoutError' }),
      expect.objectContaining({ level: 'warn', backend: 'gone', class: 'connect', code: 'CONNECT', attempts: 1 }),
      expect.objectContaining({ level: 'warn', pool: 'gone', code: 'NO_BACKEND', attempts: 0 }),
    ])
  })

  test('is never longer than a few KiB', async () => {
    const logger = keeping()
    const { call } = balancerBench(status(200), { logger, log: { requests: true } })
    await call({ path: `/${'x'.repeat(15_000)}`, headers: ['x-request-id', 'y'.repeat(15_000)] })
    expect(JSON.stringify(logger.of('request')[0]).length).toBeLessThan(8_192)
  })

  test('tells of a hedge what the winner did', async () => {
    const logger = keeping()
    const { call, to } = balancerBench((send, number) => (number === 1 ? send.connect() : send.answer(200, 'ok')), {
      logger,
      log: { requests: true },
      hedge: { delayMs: 5 },
    })
    await call()
    expect(logger.of('request')).toMatchObject([{ level: 'info', backend: to().at(-1), status: 200, attempts: 2 }])
  })
})

describe('a request id', () => {
  test('of a call is sent to the backend, and stands in its line and its explanation', async () => {
    const logger = keeping()
    const backend = await keeper()
    const balancer = balance({ backends: [backend.url], logger, log: { requests: true } })
    const one = await balancer.fetch('/', { balancer: { requestId: 'given' } })
    await one.text()
    const two = await balancer.request('/', { requestId: 'given too' })
    await two.body.text()
    // What already stands among the headers comes first: it has come from somewhere.
    const three = await balancer.fetch('/', { headers: { 'X-Request-Id': 'sent' }, balancer: { requestId: 'given' } })
    await three.text()
    const four = await balancer.fetch('/')
    await four.text()
    const ids = ['given', 'given too', 'sent', undefined]
    expect(backend.got.map(({ headers }) => headers['x-request-id'])).toEqual(ids)
    expect(logger.of('request').map(({ requestId }) => requestId)).toEqual(ids)
    expect([one, two, three, four].map((answer) => balancer.explain(answer)?.requestId)).toEqual(ids)
  })

  test('goes through a proxy from end to end, into the line of the request', async () => {
    const logger = keeping()
    const backend = await keeper()
    const balancer = balance({ backends: [backend.url], logger, log: { requests: true } })
    const { port } = await upstream(createProxy(balancer))
    const ask = async (headers: http.OutgoingHttpHeaders): Promise<string | undefined> => {
      const request = http.get({ host: '127.0.0.1', port, path: '/?q=1', headers, agent: false })
      const [answer] = (await once(request, 'response')) as [http.IncomingMessage]
      await answer.toArray()
      return answer.headers['x-request-id'] as string | undefined
    }
    const ids = [await ask({ 'x-request-id': 'client-1' }), await ask({}), await ask({ 'x-request-id': 'not\tone' })]
    expect(ids[0]).toBe('client-1')
    expect(ids[1]).toMatch(/^[\w-]{12,}$/)
    expect(new Set(ids).size).toBe(3)
    expect(backend.got.map(({ headers }) => headers['x-request-id'])).toEqual(ids)
    expect(logger.of('request').map(({ requestId, path }) => [requestId, path])).toEqual(ids.map((id) => [id, '/']))
  })

  test('that is no header value fails its call, and puts nothing onto the wire', async () => {
    const backend = await keeper()
    const balancer = balance({ backends: [backend.url] })
    await expect(balancer.fetch('/', { balancer: { requestId: 'a\r\nx-evil: 1' } })).rejects.toMatchObject({
      code: 'PROTOCOL',
    })
    expect(backend.got).toEqual([])
  })
})
