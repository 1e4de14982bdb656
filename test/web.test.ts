import { randomFillSync } from 'node:crypto'
import { createHandler, type WebHandler } from 'evenkeel/web'
import { Hono } from 'hono'
import { describe, expect, test } from 'vitest'
import {
  balance,
  idle,
  inflight,
  keeper,
  MIB,
  nobody,
  pause,
  rawUpstream,
  sha256,
  standstill,
  type Upstream,
  until,
  upstream,
} from './support/upstreams.ts'
import { webServer } from './support/web-server.ts'

function over(backend: Upstream | string): {
  readonly handler: WebHandler
  readonly balancer: ReturnType<typeof balance>
} {
  const balancer = balance([backend])
  return { handler: createHandler(balancer), balancer }
}

describe('a request', () => {
  test('goes to a backend by its path, with the client’s fields and what a proxy says', async () => {
    const backend = await keeper((_, response) => {
      response.setHeader('set-cookie', ['a=1', 'b=2'])
      response.writeHead(201, { 'x-a': 'b', 'content-type': 'a/b' }).end('made')
    })
    const { handler } = over(`${backend.url}/v1`)
    const headers = { accept: 'x/y', connection: 'x-secret', 'x-secret': '1', 'x-forwarded-for': '6.6.6.6' }
    const request = new Request('https://front.test/users?x=1&x=#here', { method: 'PUT', body: 'me', headers })
    const answer = await handler(request, { address: '192.0.2.1' })
    expect([answer.status, await answer.text(), answer.headers.get('content-type')]).toEqual([201, 'made', 'a/b'])
    expect(answer.headers.getSetCookie()).toEqual(['a=1', 'b=2'])
    const [got] = backend.got
    expect([got!.method, got!.path, got!.body.toString()]).toEqual(['PUT', '/v1/users?x=1&x=', 'me'])
    expect(got!.headers).toMatchObject({
      accept: 'x/y',
      'x-forwarded-for': '192.0.2.1',
      'x-forwarded-host': 'front.test',
      'x-forwarded-proto': 'https',
    })
    expect(got!.headers['x-secret']).toBeUndefined()
  })

  test('without an address says nothing of one', async () => {
    const backend = await keeper()
    await over(backend).handler(new Request('http://front.test/'))
    expect(backend.got[0]!.headers['x-forwarded-for']).toBeUndefined()
  })

  test('that is none to forward is answered with a problem', async () => {
    const backend = await keeper()
    const { handler } = over(backend)
    for (const path of ['/%zz', '/..%2fx', '/a%5c..']) {
      const answer = await handler(new Request(`http://front.test${path}`))
      expect([answer.status, answer.headers.get('content-type')]).toEqual([400, 'application/problem+json'])
    }
    expect(backend.got).toEqual([])
  })

  test('whose body was read before is a 500 that names the remedy', async () => {
    const backend = await keeper()
    const { handler } = over(backend)
    const request = new Request('http://front.test/', { method: 'POST', body: 'x' })
    const copy = request.clone()
    await request.text()
    const answer = await handler(request)
    expect([answer.status, await answer.json()]).toEqual([
      500,
      expect.objectContaining({ code: 'BODY_CONSUMED', detail: expect.stringContaining('clone()') }),
    ])
    expect((await handler(copy)).status).toBe(200)
    expect(backend.got.map(({ body }) => body.toString())).toEqual(['x'])
  })

  test('that nobody can serve is answered, never rejected', async () => {
    const dead = await nobody()
    const answer = await over(dead).handler(new Request('http://front.test/'))
    expect([answer.status, answer.headers.get('content-type')]).toEqual([502, 'application/problem+json'])
    expect(await answer.text()).not.toContain(String(dead.port))
  })
})

describe('an answer', () => {
  test.each([
    ['HEAD', 200, '5'],
    ['GET', 204, null],
    ['GET', 304, '5'],
    ['GET', 205, '0'],
  ])('to %s with %i has no body', async (method, status, length) => {
    const backend = await upstream((_, response) => {
      response.writeHead(status, status === 204 ? {} : { 'content-length': status === 205 ? 0 : 5 })
      response.end(status === 200 ? 'hello' : undefined)
    })
    const { handler, balancer } = over(backend)
    const answer = await handler(new Request('http://front.test/', { method }))
    expect([answer.status, answer.body, answer.headers.get('content-length')]).toEqual([status, null, length])
    await idle(balancer)
  })

  test('that breaks off fails its reader', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n')
    })
    const { handler } = over(backend)
    const reader = (await handler(new Request('http://front.test/'))).body!.getReader()
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('half')
    ;(await backend.wire()).socket.end()
    await expect(reader.read()).rejects.toMatchObject({ code: 'TRUNCATED' })
  })

  test('that nobody reads on pauses its backend', async () => {
    let sent = 0
    const chunk = Buffer.alloc(64 * 1024)
    const backend = await upstream((_, response) => {
      const more = (): void => {
        while (sent < 64 * MIB && response.write(chunk)) sent += chunk.length
      }
      response.on('drain', more)
      more()
    })
    const { handler, balancer } = over(backend)
    const answer = await handler(new Request('http://front.test/'))
    const reader = answer.body!.getReader()
    await reader.read()
    // What the sockets of this machine take in, and no more.
    expect(await standstill(() => sent)).toBeLessThan(32 * MIB)
    await reader.cancel()
    await idle(balancer)
  })

  test('is a stream from the first chunk on', async () => {
    const go = Promise.withResolvers<void>()
    const backend = await upstream(async (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n')
      await go.promise
      response.end('data: 2\n\n')
    })
    const reader = (await over(backend).handler(new Request('http://front.test/'))).body!.getReader()
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('data: 1\n\n')
    go.resolve()
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('data: 2\n\n')
    expect((await reader.read()).done).toBe(true)
  })
})

describe('a client that goes away', () => {
  test('before the head takes its backend request along, and the backend is not blamed', async () => {
    const backend = await rawUpstream(() => {})
    const { handler, balancer } = over(backend)
    const gone = new AbortController()
    const answer = handler(new Request('http://front.test/', { signal: gone.signal }))
    const wire = await backend.wire()
    await wire.until('\r\n\r\n')
    expect(inflight(balancer)).toBe(1)
    gone.abort()
    expect((await answer).status).toBe(499)
    await wire.closed()
    await idle(balancer)
    expect(balancer.stats().pools.default!.backends[0]!.failures).toBe(0)
  })

  test('before it is asked has no backend asked', async () => {
    const backend = await keeper()
    const { handler, balancer } = over(backend)
    expect((await handler(new Request('http://front.test/', { signal: AbortSignal.abort() }))).status).toBe(499)
    await idle(balancer)
    expect(backend.got).toEqual([])
  })

  test('within the body, by its signal or by its stream, takes it along, too', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n')
    })
    const { handler, balancer } = over(backend)
    const gone = new AbortController()
    const first = (await handler(new Request('http://front.test/', { signal: gone.signal }))).body!.getReader()
    await first.read()
    gone.abort()
    await expect(first.read()).rejects.toBeDefined()
    await (await backend.wire(0)).closed()
    const second = (await handler(new Request('http://front.test/'))).body!.getReader()
    await second.read()
    await second.cancel()
    await (await backend.wire(1)).closed()
    await idle(balancer)
  })
})

describe('an upload', () => {
  test('streams, no faster than the backend takes it', async () => {
    const go = Promise.withResolvers<void>()
    const backend = await rawUpstream(({ socket }) => void socket.pause())
    const { handler, balancer } = over(backend)
    let pulled = 0
    const body = new ReadableStream({
      pull(controller) {
        pulled++
        controller.enqueue(new Uint8Array(64 * 1024))
      },
    })
    const gone = new AbortController()
    const request = new Request('http://front.test/', { method: 'POST', body, duplex: 'half', signal: gone.signal })
    const answer = handler(request)
    expect(await standstill(() => pulled)).toBeLessThan(512)
    gone.abort()
    go.resolve()
    await answer
    await idle(balancer)
  })

  test('arrives whole', async () => {
    const bytes = randomFillSync(Buffer.alloc(4 * MIB))
    const backend = await upstream((request, response) => void request.pipe(response))
    const { handler } = over(backend)
    const answer = await handler(new Request('http://front.test/', { method: 'POST', body: bytes }))
    expect(sha256(await answer.bytes())).toBe(sha256(bytes))
  })

  test('whose answer comes early is left to the server', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.until('\r\n\r\n')
      wire.write('HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!')
    })
    let canceled = false
    const body = new ReadableStream({
      async pull(controller) {
        await pause(1)
        controller.enqueue(new Uint8Array(1024))
      },
      cancel() {
        canceled = true
      },
    })
    const { handler, balancer } = over(backend)
    const answer = await handler(new Request('http://front.test/', { method: 'POST', body, duplex: 'half' }))
    expect([answer.status, await answer.text()]).toEqual([413, 'no!'])
    await idle(balancer)
    expect(canceled).toBe(false)
  })
})

describe('in Hono', () => {
  test('it is one route among others, behind middleware', async () => {
    const backend = await keeper()
    const proxy = createHandler(balance([backend]), { path: { strip: '/api' } })
    const app = new Hono()
    app.use(async (context, next) => {
      if (context.req.header('authorization') === undefined) return context.text('who are you?', 401)
      await next()
      context.header('x-mine', 'yes')
    })
    app.get('/about', (context) => context.text('mine'))
    app.all('/api/*', ({ req }) => proxy(req.raw))
    app.mount('/mounted', proxy)
    const headers = { authorization: 'me' }
    expect((await app.request('/api/users')).status).toBe(401)
    expect(await (await app.request('/about', { headers })).text()).toBe('mine')
    const answer = await app.request('/api/users?x', { method: 'POST', body: 'b', headers })
    expect([answer.status, answer.headers.get('x-mine'), await answer.text()]).toEqual([200, 'yes', 'ok'])
    // `mount` takes its path off, and this proxy its prefix.
    expect((await app.request('/mounted/api/x', { headers })).status).toBe(200)
    expect((await app.request('/mounted/x', { headers })).status).toBe(404)
    expect(backend.got.map(({ path, body }) => [path, body.toString()])).toEqual([
      ['/users?x', 'b'],
      ['/x', ''],
    ])
  })

  test('over a real server, a client that goes away takes its backend request along', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n')
    })
    const balancer = balance([backend])
    const proxy = createHandler(balancer)
    const app = new Hono()
    app.all('*', ({ req }) => proxy(req.raw))
    const server = await webServer(async (request) => app.fetch(request))
    const gone = new AbortController()
    const answer = await fetch(server.url, { signal: gone.signal })
    await answer.body!.getReader().read()
    gone.abort()
    await (await backend.wire()).closed()
    await until(() => inflight(balancer) === 0, 'the lease was never given back')
  })
})
