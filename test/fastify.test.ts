import { randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import { BalancerError } from 'evenkeel'
import { type AppError, type FastifyProxyOptions, fastifyProxy, forward } from 'evenkeel/fastify'
import fastify, { type FastifyInstance, type FastifyRequest, type FastifyServerOptions } from 'fastify'
import { describe, expect, onTestFinished, test } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import {
  ask,
  balance,
  bytesOf,
  idle,
  keeper,
  MIB,
  nobody,
  rawClient,
  rawUpstream,
  sha256,
  type Upstream,
  until,
  upstream,
  valuesOf,
} from './support/upstreams.ts'

function appOf(options: FastifyServerOptions = {}): FastifyInstance {
  const app = fastify({ forceCloseConnections: true, ...options })
  onTestFinished(() => app.close())
  return app
}

/** The proxy under /api, on a port of its own. */
async function mounted(
  backend: Upstream | string,
  options: Partial<FastifyProxyOptions> = {},
  prepare?: (app: FastifyInstance) => void,
): Promise<Upstream & { readonly app: FastifyInstance; readonly balancer: ReturnType<typeof balance> }> {
  const app = appOf()
  const balancer = balance([backend])
  prepare?.(app)
  app.register(fastifyProxy, { prefix: '/api', balancer, close: false, ...options })
  return { ...(await listening(app)), app, balancer }
}

async function listening(app: FastifyInstance): Promise<Upstream> {
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, port }
}

describe('row 67: mounted in Fastify', () => {
  test.each([
    ['/api', ['/api', '/api/', '/api/users/1?x=1&x=', '/api?x=1', '/api//evil.test/x', '/api/%2F']],
    ['/api/', ['/api', '/api/', '/api/users/1?x=1&x=', '/api?x=1', '/api//evil.test/x', '/api/%2F']],
    [
      '/:tenant/api',
      ['/a/api', '/b/api/', '/c-%2f/api/users/1?x=1&x=', '/d/api?x=1', '/e/api//evil.test/x', '/f/api/%2F'],
    ],
  ])('at %s, the backend gets paths without the prefix', async (prefix, paths) => {
    const backend = await keeper()
    const proxy = await mounted(`${backend.url}/v1`, { prefix })
    // Of a prefix that ends in a slash, Fastify itself does not take the path without it.
    const taken = prefix === '/api/' ? paths.filter((path) => path.startsWith('/api/')) : paths
    for (const path of taken) expect((await ask(proxy, path)).status, path).toBe(200)
    const all = ['/v1/', '/v1/', '/v1/users/1?x=1&x=', '/v1/?x=1', '/v1//evil.test/x', '/v1/%2F']
    expect(backend.got.map(({ path }) => path)).toEqual(all.filter((_, i) => taken.includes(paths[i]!)))
    expect((await ask(proxy, '/apiary')).status).toBe(404)
  })

  test('twice, and within another prefix, each scope has its own', async () => {
    const [a, b] = [await keeper(), await keeper()]
    const app = appOf()
    app.register(
      (scope, _, done) => {
        scope.register(fastifyProxy, { prefix: '/a', balancer: balance([a]), close: false })
        scope.register(fastifyProxy, { prefix: '/b', balancer: balance([b]), close: false, path: { add: '/deep' } })
        done()
      },
      { prefix: '/v1' },
    )
    const proxy = await listening(app)
    for (const path of ['/v1/a/x', '/v1/b/x']) await ask(proxy, path)
    expect([a.got[0]!.path, b.got[0]!.path]).toEqual(['/x', '/deep/x'])
  })

  test('bodies of any type stream, whatever the app around parses', async () => {
    const bytes = randomFillSync(Buffer.alloc(4 * MIB))
    const backend = await keeper((_, response) => response.end('ok'))
    const proxy = await mounted(backend, {}, (app) => {
      app.post('/own', (request) => ({ got: request.body }))
    })
    for (const type of ['application/json', 'text/plain', 'multipart/form-data; boundary=x', 'a/b']) {
      const headers = { 'content-type': type, 'transfer-encoding': 'chunked' }
      expect((await ask(proxy, '/api/', { method: 'POST', body: bytes, headers })).status).toBe(200)
    }
    const framed = { 'content-length': bytes.length }
    await ask(proxy, '/api/', { method: 'DELETE', body: bytes, headers: framed })
    expect(backend.got).toHaveLength(5)
    expect(new Set(backend.got.map(({ body }) => sha256(body)))).toEqual(new Set([sha256(bytes)]))
    const own = { method: 'POST', body: '{"a":1}', headers: { 'content-type': 'application/json' } }
    expect((await ask(proxy, '/own', own)).body.toString()).toBe('{"got":{"a":1}}')
    expect((await ask(proxy, '/own', { ...own, headers: { 'content-type': 'a/b' } })).status).toBe(415)
  })

  test('hooks may refuse before it, and what they set is part of the answer', async () => {
    const backend = await keeper((_, response) => {
      response.setHeader('set-cookie', ['a=1', 'b=2'])
      response.writeHead(200, { vary: 'accept', 'x-both': 'backend' }).end('ok')
    })
    const sent: string[] = []
    const proxy = await mounted(backend, {}, (app) => {
      app.addHook('onRequest', async (request, reply) => {
        reply.headers({ 'access-control-allow-origin': '*', vary: 'origin', 'x-both': 'app', 'set-cookie': 'c=3' })
        if (request.headers.authorization === undefined) return reply.code(401).send({ who: 'are you?' })
      })
      app.addHook('onSend', async (request) => void sent.push(`onSend ${request.url}`))
      app.addHook(
        'onResponse',
        async (request, reply) => void sent.push(`onResponse ${request.url} ${reply.statusCode}`),
      )
    })
    expect((await ask(proxy, '/api/no')).status).toBe(401)
    expect(backend.got).toEqual([])
    const { rawHeaders, body } = await ask(proxy, '/api/yes', { headers: { authorization: 'me' } })
    expect(body.toString()).toBe('ok')
    expect(valuesOf(rawHeaders, 'access-control-allow-origin')).toEqual(['*'])
    expect(valuesOf(rawHeaders, 'vary')).toEqual(['accept', 'origin'])
    expect(valuesOf(rawHeaders, 'set-cookie')).toEqual(['a=1', 'b=2', 'c=3'])
    expect(valuesOf(rawHeaders, 'x-both')).toEqual(['backend'])
    await until(() => sent.length === 3, 'a hook was not run')
    // The proxy's answers are not sent by Fastify.
    expect(sent).toEqual(['onSend /api/no', 'onResponse /api/no 401', 'onResponse /api/yes 200'])
  })

  test('functions of the user get Fastify’s request', async () => {
    const backend = await keeper()
    const app = appOf()
    app.register(fastifyProxy<FastifyRequest>, {
      prefix: '/:tenant',
      balancer: balance([backend]),
      close: false,
      onRequest: ({ headers }, { params }) => headers.set('x-tenant', (params as { tenant: string }).tenant),
    })
    await ask(await listening(app), '/me/x')
    expect([backend.got[0]!.path, backend.got[0]!.headers['x-tenant']]).toEqual(['/x', 'me'])
  })

  test('locations of backends become paths under the prefix', async () => {
    const backend = await keeper((_, response) =>
      response.writeHead(302, { location: `${backend.url}/v1/next?x` }).end(),
    )
    const proxy = await mounted(`${backend.url}/v1`, { locations: true, path: { strip: '/old', add: '/new' } })
    expect((await ask(proxy, '/api/old/x')).headers.location).toBe(`${backend.url}/v1/next?x`)
    expect(backend.got[0]!.path).toBe('/v1/new/x')
    const plain = await mounted(`${backend.url}/v1`, { locations: true })
    expect((await ask(plain, '/api/x')).headers.location).toBe('/api/next?x')
  })

  test('over HTTP/2 it serves the same', async () => {
    const backend = await keeper((_, response) => {
      response.setHeader('set-cookie', ['a=1', 'b=2'])
      response.writeHead(201).end('made')
    })
    const app = fastify({ http2: true })
    onTestFinished(() => app.close())
    app.addHook('onRequest', async (_, reply) => void reply.header('set-cookie', 'c=3'))
    // Typed for HTTP/1.1, whose requests and responses HTTP/2's are made to look like.
    app.register(fastifyProxy as never, { prefix: '/api', balancer: balance([backend]), close: false } as never)
    await app.listen({ host: '127.0.0.1', port: 0 })
    const session = http2.connect(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
    onTestFinished(() => session.destroy())
    for (const body of [undefined, '{"a":1}']) {
      const endStream = body === undefined
      const stream = session.request({ ':path': '/api/x', ':method': endStream ? 'GET' : 'POST' }, { endStream })
      if (!endStream) stream.end(body)
      const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders & { ':status': number }]
      expect([headers[':status'], headers['set-cookie'], (await bytesOf(stream)).toString()]).toEqual([
        201,
        ['a=1', 'b=2', 'c=3'],
        'made',
      ])
    }
    expect(backend.got.map(({ method, path, body }) => [method, path, body.toString()])).toEqual([
      ['GET', '/x', ''],
      ['POST', '/x', '{"a":1}'],
    ])
  })

  test('by inject it answers as by a socket', async () => {
    const backend = await keeper((_, response) => {
      response.setHeader('set-cookie', ['a=1', 'b=2'])
      response.writeHead(201, { 'x-a': 'b' }).end('made')
    })
    const app = appOf()
    app.register(fastifyProxy, { prefix: '/api', balancer: balance([backend]), close: false })
    const answer = await app.inject({ method: 'POST', url: '/api/x?y', payload: { a: 1 } })
    expect([answer.statusCode, answer.payload, answer.headers['x-a'], answer.headers['set-cookie']]).toEqual([
      201,
      'made',
      'b',
      ['a=1', 'b=2'],
    ])
    expect(backend.got.map(({ path, body }) => [path, body.toString()])).toEqual([['/x?y', '{"a":1}']])
    const refused = await app.inject({ url: '/api/', headers: { 'max-forwards': 'x' }, method: 'OPTIONS' })
    expect([refused.statusCode, refused.json().code]).toEqual([400, 'PROTOCOL'])
  })
})

describe('row 67: errors in Fastify', () => {
  test('go to the app’s error handler as BalancerErrors with a status', async () => {
    const errors: AppError[] = []
    const dead = await nobody()
    const proxy = await mounted(dead, {}, (app) => {
      app.setErrorHandler((error, _, reply) => {
        errors.push(error as AppError)
        return reply.code(502).send({ oops: true })
      })
    })
    const answer = await ask(proxy, '/api/x')
    expect([answer.status, answer.body.toString()]).toEqual([502, '{"oops":true}'])
    const [error] = errors
    expect(error).toBeInstanceOf(BalancerError)
    expect([error!.code, error!.statusCode, error!.message]).toEqual(['CONNECT', 502, 'Bad Gateway'])
    expect(error!.cause).toBeInstanceOf(BalancerError)
  })

  test('without one, Fastify tells the status and nothing of backends', async () => {
    const dead = await nobody()
    const proxy = await mounted(dead)
    const answer = await ask(proxy, '/api/x')
    expect([answer.status, JSON.parse(answer.body.toString())]).toEqual([
      502,
      { statusCode: 502, code: 'CONNECT', error: 'Bad Gateway', message: 'Bad Gateway' },
    ])
    for (const { id } of proxy.balancer.stats().pools.default!.backends) proxy.balancer.disable(id)
    const none = await ask(proxy, '/api/x')
    expect([none.status, none.headers['retry-after']]).toEqual([503, '1'])
    expect(none.body.toString()).not.toContain(String(dead.port))
  })

  test('or are answered by the proxy', async () => {
    const proxy = await mounted(await nobody(), { errors: 'proxy' })
    const answer = await ask(proxy, '/api/x')
    expect([answer.status, answer.headers['content-type']]).toEqual([502, 'application/problem+json'])
  })

  test('of the app’s own, as after its time for a handler, take the backend request along', async () => {
    const backend = await rawUpstream(() => {})
    const app = appOf({ handlerTimeout: 20 })
    const balancer = balance([backend])
    app.register(fastifyProxy, { prefix: '/api', balancer, close: false })
    expect((await ask(await listening(app), '/api/x')).status).toBe(503)
    await (await backend.wire()).closed()
    await idle(balancer)
  })

  test('within a body cut the client off, and nobody is told twice', async () => {
    const errors: unknown[] = []
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n')
    })
    const proxy = await mounted(backend, {}, (app) => app.setErrorHandler((error) => void errors.push(error)))
    const client = await rawClient(proxy)
    client.write('GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n')
    await client.until('half')
    ;(await backend.wire()).socket.end()
    await client.closed()
    expect(errors).toEqual([])
  })
})

describe('forward', () => {
  test('serves single routes, with the whole path and bodies that the app has parsed', async () => {
    const backend = await keeper()
    const app = appOf()
    const balancer = balance([backend])
    app.post('/users/:id', { preHandler: async (_, reply) => void reply.header('x-mine', 'yes') }, forward(balancer))
    app.get('/health', () => ({ mine: true }))
    const proxy = await listening(app)
    const json = { 'content-type': 'application/json' }
    const answer = await ask(proxy, '/users/1?x', { method: 'POST', body: '{ "a": 1 }', headers: json })
    expect([answer.status, answer.headers['x-mine']]).toEqual([200, 'yes'])
    await ask(proxy, '/users/2', { method: 'POST', body: '"x"', headers: json })
    await ask(proxy, '/users/3', { method: 'POST', body: 'plain', headers: { 'content-type': 'text/plain' } })
    expect(backend.got.map(({ path, body }) => [path, body.toString()])).toEqual([
      ['/users/1?x', '{"a":1}'],
      ['/users/2', '"x"'],
      ['/users/3', 'plain'],
    ])
    expect((await ask(proxy, '/health')).body.toString()).toBe('{"mine":true}')
  })

  test('a body that a hook takes away is a 500 that names the remedy', async () => {
    const backend = await keeper()
    const proxy = await mounted(backend, {}, (app) => {
      app.addHook('preParsing', (_request, _reply, payload, done) => {
        payload.resume().on('end', () => done(null, payload))
      })
    })
    const answer = await ask(proxy, '/api/', { method: 'POST', body: 'x' })
    expect([answer.status, JSON.parse(answer.body.toString()).message]).toEqual([
      500,
      expect.stringContaining('mount the proxy in front of it'),
    ])
    expect(backend.got).toEqual([])
  })
})

describe('row 67: when the app closes', () => {
  test('what is under way comes to its end, then the balancer is closed', async () => {
    const go = Promise.withResolvers<void>()
    const backend = await upstream(async (_, response) => {
      response.write('a')
      await go.promise
      response.end('b')
    })
    const app = appOf({ forceCloseConnections: false })
    const balancer = balance([backend])
    app.register(fastifyProxy, { prefix: '/api', balancer })
    const proxy = await listening(app)
    const client = await rawClient(proxy)
    client.write('GET /api/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    await client.until('\r\na\r\n')
    const closed = app.close()
    await new Promise((resolve) => setImmediate(resolve))
    expect(balancer.stats().pools.default!.inflight).toBe(1)
    go.resolve()
    await closed
    await client.closed()
    expect(client.received).toContain('\r\nb\r\n')
    await expect(balancer.fetch('/')).rejects.toMatchObject({ code: 'CLOSED' })
  })

  test('a balancer that serves others too may stay', async () => {
    const { app, balancer } = await mounted(await keeper())
    await app.close()
    expect((await balancer.fetch('/')).status).toBe(200)
  })
})

describe('WebSockets in Fastify', () => {
  test('pass the hooks, become tunnels, and end with the app', async () => {
    const backend = await upstream((_, response) => void response.end())
    new WebSocketServer({ server: backend.server }).on('connection', (socket, { url }) => {
      socket.send(url!)
      socket.on('message', (data) => socket.send(`${data}!`))
    })
    const { app, port } = await mounted(backend, { websocket: true }, (app) => {
      app.addHook('onRequest', async ({ url }, reply) => {
        if (url.endsWith('token=no')) return reply.code(401).send()
      })
    })
    const url = `ws://127.0.0.1:${port}/api/room`
    const refused = new WebSocket(`${url}?token=no`)
    expect((await new Promise<Error>((resolve) => refused.once('error', resolve))).message).toContain('401')
    const socket = new WebSocket(url)
    const said: string[] = []
    socket.on('message', (data) => {
      said.push(String(data))
      if (said.length === 1) socket.send('hello')
    })
    await until(() => said.length === 2, 'no answer came')
    expect(said).toEqual(['/room', 'hello!'])
    const ended = new Promise<number>((resolve) => socket.once('close', resolve))
    await app.close()
    expect(await ended).toBe(1001)
  })
})
