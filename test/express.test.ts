import type { RequestListener } from 'node:http'
import { gzipSync } from 'node:zlib'
import { BalancerError } from 'evenkeel'
import { type AppError, type ExpressProxyOptions, expressProxy } from 'evenkeel/express'
import { createProxy } from 'evenkeel/node'
import express, { type Express } from 'express'
// @ts-expect-error The types of 5 do for what is used of it here.
import express4 from 'express4'
import { describe, expect, test } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import {
  ask,
  balance,
  idle,
  inflight,
  keeper,
  nobody,
  rawClient,
  rawUpstream,
  type Upstream,
  upstream,
  valuesOf,
} from './support/upstreams.ts'

const VERSIONS: readonly (readonly [name: string, make: typeof express])[] = [
  ['Express 5', express],
  ['Express 4', express4 as typeof express],
]
const JSON_HEADERS = { 'content-type': 'application/json' }

/** Before the proxy, after it, and how it is made. */
interface Plan {
  readonly before?: (app: Express) => void
  readonly after?: (app: Express) => void
  readonly options?: ExpressProxyOptions
}

describe.each(VERSIONS)('in %s', (_, make) => {
  async function appOver(
    backend: Upstream | string,
    { before, after, options }: Plan = {},
  ): Promise<{ readonly app: Upstream; readonly balancer: ReturnType<typeof balance> }> {
    const balancer = balance([backend], { retry: { attempts: 2, baseMs: 0 } })
    const app: Express = make()
    before?.(app)
    app.use('/api', expressProxy(balancer, options))
    after?.(app)
    return { app: await upstream(app as RequestListener), balancer }
  }

  test('the backend gets paths without the mount path', async () => {
    const backend = await keeper()
    const { app } = await appOver(`${backend.url}/v1`)
    for (const path of ['/api', '/api/', '/api/users/1?x=1&x=', '/api?x=1', '/API/a', '/api/b//evil.test/x']) {
      expect((await ask(app, path)).status).toBe(200)
    }
    expect(backend.got.map(({ path }) => path)).toEqual([
      '/v1/',
      '/v1/',
      '/v1/users/1?x=1&x=',
      '/v1/?x=1',
      '/v1/a',
      '/v1/b//evil.test/x',
    ])
    // Of two slashes Express 4 takes one for itself.
    await ask(app, '/api//evil.test/x')
    expect(backend.got.at(-1)!.path).toMatch(/^\/v1\/{1,2}evil\.test\/x$/)
  })

  test('or with it, by `originalUrl`', async () => {
    const backend = await keeper()
    const { app } = await appOver(backend, { options: { originalUrl: true } })
    for (const path of ['/api', '/api/', '/api/users/1?x=1']) await ask(app, path)
    expect(backend.got.map(({ path }) => path)).toEqual(['/api', '/api/', '/api/users/1?x=1'])
  })

  test('mounted twice, within a router and at a path with parameters, each gets its own', async () => {
    const [a, b] = [await keeper(), await keeper()]
    const app: Express = make()
    const router = make.Router()
    router.use('/:tenant/a', expressProxy(balance([a])))
    app.use('/v1', router)
    app.use(expressProxy(balance([b]), { path: { strip: '/b' } }))
    app.use(expressProxy(balance([a]), { path: { strip: '/c', add: '/d' } }))
    const server = await upstream(app as RequestListener)
    for (const path of ['/v1/me/a/x', '/b/x', '/c/x']) expect((await ask(server, path)).status).toBe(200)
    expect((await ask(server, '/bb/x')).status).toBe(404)
    expect([a.got.map(({ path }) => path), b.got.map(({ path }) => path)]).toEqual([['/x', '/d/x'], ['/x']])
  })

  test('other routes are the app’s own, and a parser after the proxy is theirs alone', async () => {
    const backend = await keeper((_, response) => response.writeHead(201, { 'content-type': 'a/b' }).end('made'))
    const { app } = await appOver(backend, {
      after(app) {
        app.use(make.json())
        app.get('/about', (_, response) => void response.json({ mine: true }))
        app.post('/echo', (request, response) => void response.json({ got: request.body as unknown }))
      },
    })
    expect((await ask(app, '/about')).body.toString()).toBe('{"mine":true}')
    expect((await ask(app, '/apiary')).status).toBe(404)
    const options = { method: 'POST', body: '{"a":1}', headers: JSON_HEADERS }
    expect((await ask(app, '/echo', options)).body.toString()).toBe('{"got":{"a":1}}')
    expect(backend.got).toEqual([])
    const proxied = await ask(app, '/api/things', options)
    expect([proxied.status, proxied.headers['content-type'], proxied.body.toString()]).toEqual([201, 'a/b', 'made'])
    expect(backend.got.map(({ path, body }) => [path, body.toString()])).toEqual([['/things', '{"a":1}']])
  })

  test('what middleware has set stays: beside the backend’s cookies and Vary, behind its word on anything else', async () => {
    const backend = await upstream((_, response) => {
      response.setHeader('set-cookie', ['a=1', 'b=2'])
      response.writeHead(200, { vary: 'accept', 'x-both': 'backend' }).end()
    })
    const { app } = await appOver(backend, {
      before: (app) =>
        app.use((_, response, next) => {
          response.set({ 'access-control-allow-origin': '*', vary: 'origin', 'x-both': 'app' })
          response.cookie('c', '3')
          next()
        }),
    })
    const { rawHeaders } = await ask(app, '/api/')
    expect(valuesOf(rawHeaders, 'access-control-allow-origin')).toEqual(['*'])
    expect(valuesOf(rawHeaders, 'vary')).toEqual(['accept', 'origin'])
    expect(valuesOf(rawHeaders, 'set-cookie')).toEqual(['a=1', 'b=2', 'c=3; Path=/'])
    expect(valuesOf(rawHeaders, 'x-both')).toEqual(['backend'])
  })

  test('answers to HEAD and 304s keep what they say, and get no ETag of Express', async () => {
    const backend = await upstream((request, response) => {
      if (request.headers['if-none-match'] === '"x"') response.writeHead(304, { etag: '"x"' }).end()
      else response.writeHead(200, { 'content-length': 5 }).end('hello')
    })
    const { app } = await appOver(backend)
    const head = await ask(app, '/api/', { method: 'HEAD' })
    expect([head.headers['content-length'], head.headers.etag, head.body.length]).toEqual(['5', undefined, 0])
    const known = await ask(app, '/api/', { headers: { 'if-none-match': '"x"' } })
    expect([known.status, known.headers.etag]).toEqual([304, '"x"'])
  })

  describe('row 66: a body that a parser before it has read', () => {
    const parsers = (app: Express): void => {
      app.use(make.json({ strict: false }), make.urlencoded({ extended: true }), make.text(), make.raw())
    }
    const FORM = 'application/x-www-form-urlencoded'
    const ROWS: readonly (readonly [type: string, sent: string | Buffer, got: string])[] = [
      ['application/json', '{ "a": [1, "ä"] }', '{"a":[1,"ä"]}'],
      ['application/json; charset=utf-8', '[ ]', '[]'],
      ['application/json', '"x"', '"x"'],
      ['application/json', 'null', 'null'],
      [FORM, 'a=1&a=2&b[c]=%C3%A4%26&d[0][e]=f&g', 'a=1&a=2&b%5Bc%5D=%C3%A4%26&d%5B0%5D%5Be%5D=f&g='],
      ['text/plain', 'grüß', 'grüß'],
      ['application/octet-stream', Buffer.from([0, 13, 1]), '\0\r\u0001'],
      ['multipart/form-data; boundary=x', '--x--', '--x--'],
      ['image/png', 'not read', 'not read'],
    ]

    test.each(ROWS)('is written again, once (%s %s)', async (type, sent, got) => {
      const backend = await keeper()
      const { app } = await appOver(backend, { before: parsers })
      const answer = await ask(app, '/api/', { method: 'POST', body: sent, headers: { 'content-type': type } })
      expect(answer.status).toBe(200)
      expect(backend.got.map(({ body }) => body.toString())).toEqual([got])
      const { headers } = backend.got[0]!
      expect(headers['content-type']).toBe(type)
      // What was not read comes as it came.
      const isStreamed = headers['transfer-encoding'] === 'chunked'
      if (!isStreamed) expect(headers['content-length']).toBe(String(Buffer.byteLength(got)))
    })

    test('is sent without the coding that the parser has undone', async () => {
      const backend = await keeper()
      const { app } = await appOver(backend, { before: parsers })
      const headers = { ...JSON_HEADERS, 'content-encoding': 'gzip', 'content-digest': 'sha-256=:AAAA:' }
      await ask(app, '/api/', { method: 'POST', body: gzipSync('{"a":1}'), headers })
      const [{ body, headers: got }] = backend.got as [(typeof backend.got)[0]]
      expect([body.toString(), got['content-encoding'], got['content-digest']]).toEqual([
        '{"a":1}',
        undefined,
        undefined,
      ])
    })

    test('is sent again to the next backend', async () => {
      const backend = await keeper()
      const dead = await rawUpstream(({ socket }) => void socket.destroy())
      const app: Express = make()
      app.use(make.json(), expressProxy(balance([dead, backend], { strategy: 'round-robin', retry: { baseMs: 0 } })))
      const server = await upstream(app as RequestListener)
      for (let i = 0; i < 2; i++) await ask(server, '/', { method: 'PUT', body: '{"a":1}', headers: JSON_HEADERS })
      expect(backend.got.map(({ body }) => body.toString())).toEqual(['{"a":1}', '{"a":1}'])
    })

    test('empty, and framed in chunks, is none to send', async () => {
      const backend = await keeper()
      const { app } = await appOver(backend, { before: parsers })
      const headers = { ...JSON_HEADERS, 'transfer-encoding': 'chunked' }
      expect((await ask(app, '/api/', { method: 'POST', headers })).status).toBe(200)
      expect(backend.got.map(({ body }) => body.length)).toEqual([0])
    })

    const drained = (app: Express): void => {
      app.use((request, _, next) => void request.on('end', next).resume())
    }
    const circular = (app: Express): void => {
      app.use(make.json(), (request, _, next) => {
        request.body.self = request.body
        next()
      })
    }
    const LOST: readonly (readonly [what: string, before: (app: Express) => void, type: string])[] = [
      ['something that is no parser', drained, 'application/json'],
      ['what takes multipart apart', drained, 'multipart/form-data; boundary=x'],
      ['a parser, and was made to hold itself', circular, 'application/json'],
    ]

    test.each(LOST)('by %s is a 500 that names the remedy, and no backend is asked', async (_, before, type) => {
      const backend = await keeper()
      const errors: AppError[] = []
      const { app } = await appOver(backend, {
        before,
        after: (app) =>
          app.use((error: AppError, _request: unknown, response: express.Response, next: () => void) => {
            errors.push(error)
            if (response.headersSent) next()
            else response.status(error.status).end()
          }),
      })
      const asked = { method: 'POST', body: '{"a":1}', headers: { 'content-type': type } }
      expect((await ask(app, '/api/', asked)).status).toBe(500)
      expect(errors[0]).toBeInstanceOf(BalancerError)
      expect(errors[0]!.message).toContain('mount the proxy in front of it')
      expect(backend.got).toEqual([])
    })

    test('told by the proxy itself, it has a name', async () => {
      const { app } = await appOver(await keeper(), { before: drained, options: { errors: 'proxy' } })
      const answer = await ask(app, '/api/', { method: 'POST', body: 'x' })
      expect(JSON.parse(answer.body.toString())).toMatchObject({ status: 500, code: 'BODY_CONSUMED' })
    })

    test('a request without a body is not held up by parsers', async () => {
      const backend = await keeper()
      const { app } = await appOver(backend, { before: drained })
      expect((await ask(app, '/api/x')).status).toBe(200)
      expect(backend.got[0]!.headers['content-length']).toBeUndefined()
    })

    test.each([
      ['before a parser', parsers],
      ['without one', undefined],
    ])('an upload that is broken off leaves nothing behind (%s)', async (_, before) => {
      const backend = await rawUpstream(() => {})
      const { app, balancer } = await appOver(backend, before === undefined ? {} : { before })
      const client = await rawClient(app)
      client.write('POST /api/ HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"a"')
      if (before === undefined) await (await backend.wire()).until('{"a"')
      client.socket.destroy()
      await idle(balancer)
      expect((await ask(app, '/nowhere')).status).toBe(404)
    })
  })

  describe('errors', () => {
    test('go to the app’s error handler as BalancerErrors with a status', async () => {
      const errors: AppError[] = []
      const { app } = await appOver(await nobody(), {
        after: (app) =>
          app.use((error: AppError, _request: unknown, response: express.Response, _next: () => void) => {
            errors.push(error)
            response.status(error.status).json({ oops: error.code })
          }),
      })
      const answer = await ask(app, '/api/x')
      expect([answer.status, answer.body.toString()]).toEqual([502, '{"oops":"CONNECT"}'])
      const [error] = errors
      expect(error).toBeInstanceOf(BalancerError)
      expect([error!.message, error!.statusCode]).toEqual(['Bad Gateway', 502])
      expect(error!.cause).toBeInstanceOf(BalancerError)
      expect((error!.cause as BalancerError).backend).toBe(error!.backend)
    })

    test('without a handler, Express tells the status and nothing of backends', async () => {
      const dead = await nobody()
      const { app, balancer } = await appOver(dead)
      const answer = await ask(app, '/api/x')
      expect(answer.status).toBe(502)
      expect(answer.body.toString()).not.toContain(String(dead.port))
      for (const { id } of balancer.stats().pools.default!.backends) balancer.disable(id)
      const none = await ask(app, '/api/x')
      expect([none.status, none.headers['retry-after']]).toEqual([503, '1'])
    })

    test('or are answered by the proxy, which answers what is wrong with a request anyhow', async () => {
      const { app } = await appOver(await nobody(), { options: { errors: 'proxy' } })
      const answer = await ask(app, '/api/x')
      expect([answer.status, answer.headers['content-type']]).toEqual([502, 'application/problem+json'])
      const { app: other } = await appOver(await nobody())
      expect((await ask(other, '/api/%zz')).headers['content-type']).toBe('application/problem+json')
      expect((await ask(other, '/api/..%2fabout')).status).toBe(400)
    })

    test('within a body go to nobody: the client is cut off', async () => {
      const errors: unknown[] = []
      const backend = await rawUpstream(async (wire) => {
        await wire.head()
        wire.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n')
      })
      const { app } = await appOver(backend, {
        after: (app) =>
          app.use((error: unknown, _request: unknown, _response: unknown, next: () => void) => {
            errors.push(error)
            next()
          }),
      })
      const client = await rawClient(app)
      client.write('GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n')
      await client.until('half')
      ;(await backend.wire()).socket.end()
      await client.closed()
      expect(client.received).toContain('200 OK')
      expect(errors).toEqual([])
    })

    test('of a client that is gone go to nobody, and its backend request goes with it', async () => {
      const errors: unknown[] = []
      const backend = await rawUpstream(() => {})
      const { app, balancer } = await appOver(backend, {
        after: (app) =>
          app.use((error: unknown, _request: unknown, _response: unknown, next: () => void) => {
            errors.push(error)
            next()
          }),
      })
      const client = await rawClient(app)
      client.write('GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n')
      const wire = await backend.wire()
      await wire.until('\r\n\r\n')
      expect(inflight(balancer)).toBe(1)
      client.socket.destroy()
      await wire.closed()
      await idle(balancer)
      expect(errors).toEqual([])
    })
  })

  test('functions of the user get Express’s request', async () => {
    const backend = await keeper()
    const { app } = await appOver(backend, {
      before: (app) => app.use((request, _, next) => next(Object.assign(request, { user: 'me' }) && undefined)),
      options: {
        onRequest({ headers }, request) {
          const { user, originalUrl } = request as typeof request & { readonly user: string }
          headers.set('x-seen', `${user} ${originalUrl}`)
        },
      },
    })
    await ask(app, '/api/x')
    expect(backend.got[0]!.headers['x-seen']).toBe('me /api/x')
  })

  test('WebSockets go through the app to where it is mounted', async () => {
    const backend = await upstream((_, response) => void response.end())
    const sockets = new WebSocketServer({ server: backend.server })
    sockets.on('connection', (socket, request) => socket.send(request.url!))
    const app: Express = make()
    app.use((request, response, next) => {
      if (request.query.token === 'no') response.status(401).end()
      else next()
    })
    const proxy = expressProxy(balance([backend]))
    app.use('/api', proxy)
    const server = await upstream(app as RequestListener)
    proxy.attach(server.server, { path: '/api' })
    const url = `ws://127.0.0.1:${server.port}/api/room`
    const socket = new WebSocket(url)
    const said = await new Promise((resolve) => socket.once('message', (data) => resolve(String(data))))
    expect(said).toBe('/room')
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.close()
    await closed
    const refused = new WebSocket(`${url}?token=no`)
    const error = await new Promise<Error>((resolve) => refused.once('error', resolve))
    expect(error.message).toContain('401')
  })
})

test('createProxy is a middleware, too: it answers its errors itself', async () => {
  const app = express()
  app.use('/api', createProxy(balance([await nobody()])))
  const answer = await ask(await upstream(app), '/api/x')
  expect([answer.status, answer.headers['content-type']]).toEqual([502, 'application/problem+json'])
})
