// What users of a proxy change on its way: headers, paths, cookies, bodies, by options and by functions.
import { gzipSync } from 'node:zlib'
import { Secret } from 'evenkeel'
import { createProxy, type ProxyOptions } from 'evenkeel/node'
import { describe, expect, test } from 'vitest'
import { get, isWhole, statusOf, values } from './conformance/passing.ts'
import {
  type Answer,
  ask,
  balance,
  front,
  idle,
  keeper,
  OK,
  rawClient,
  rawUpstream,
  says,
  statsOf,
  until,
  upstream,
  valuesOf,
} from './support/upstreams.ts'

/** What a backend got, and its client of the answer. */
async function through(
  options: ProxyOptions,
  request: string = get('/'),
  answer: string = OK,
): Promise<{ readonly sent: string; readonly got: string }> {
  const backend = await rawUpstream(says(answer))
  const client = await rawClient(await front(balance([backend]), options))
  client.write(request)
  const got = await client.until(isWhole)
  return { sent: backend.wires[0]?.received ?? '', got }
}

function problemOf({ status, body }: Answer): readonly unknown[] {
  const { code, detail } = JSON.parse(body.toString()) as Record<string, unknown>
  return [status, code, detail]
}

describe('headers by options', () => {
  test('of requests are set, added and removed', async () => {
    const { sent } = await through(
      {
        requestHeaders: {
          set: { Authorization: new Secret('Bearer key'), 'X-Set': 'é' },
          add: { 'x-more': '2' },
          remove: ['X-Gone', 'cookie'],
        },
      },
      get('/', 'authorization: mine', 'X-Set: 1', 'x-set: 2', 'X-More: 1', 'x-gone: 1', 'Cookie: a=1', 'X-Kept: 1'),
    )
    expect(values(sent, 'authorization')).toEqual(['Bearer key'])
    expect(values(sent, 'x-set')).toEqual(['é'])
    expect(values(sent, 'x-more')).toEqual(['1', '2'])
    expect([...values(sent, 'x-gone'), ...values(sent, 'cookie')]).toEqual([])
    expect(values(sent, 'x-kept')).toEqual(['1'])
  })

  test('of answers are set, added and removed', async () => {
    const { got } = await through(
      { responseHeaders: { set: { 'X-Frame-Options': 'DENY' }, add: { vary: 'b' }, remove: ['server', 'via'] } },
      get('/'),
      OK.replace('\r\n', '\r\nServer: x\r\nserver: y\r\nx-frame-options: ALLOW\r\nVary: a\r\n'),
    )
    expect(values(got, 'x-frame-options')).toEqual(['DENY'])
    expect(values(got, 'vary')).toEqual(['a', 'b'])
    expect([...values(got, 'server'), ...values(got, 'via')]).toEqual([])
    expect(got).toMatch(/\r\n\r\nok$/)
  })

  test('show their values nowhere but on the wire', async () => {
    const shown: string[] = []
    await through({
      requestHeaders: { set: { 'x-key': 'canary' } },
      onRequest: ({ headers }) => void shown.push(headers.get('x-key')!, JSON.stringify([...headers])),
    })
    expect(shown).toHaveLength(2)
    expect(shown.join()).not.toContain('canary')
  })
})

describe('onRequest', () => {
  test('changes path and headers of what is sent, and sees the request', async () => {
    const { sent } = await through(
      {
        path: { add: '/v1' },
        onRequest(sending, { url, headers }) {
          expect([sending.method, sending.path, url]).toEqual(['GET', '/v1/a?b', '/a?b'])
          sending.path = '/v2/a?c'
          sending.headers.set('x-user', String(headers.cookie))
          sending.headers.add('x-a', '2')
          sending.headers.remove('Cookie')
          expect([sending.headers.get('X-A'), sending.headers.all('x-a'), sending.headers.has('nothing')]).toEqual([
            '1, 2',
            ['1', '2'],
            false,
          ])
        },
      },
      get('/a?b', 'Cookie: a=1', 'X-A: 1'),
    )
    expect(sent.split('\r\n')[0]).toBe('GET /v2/a?c HTTP/1.1')
    expect([...values(sent, 'x-user'), ...values(sent, 'x-a'), ...values(sent, 'cookie')]).toEqual(['a=1', '1', '2'])
  })

  test('is waited for', async () => {
    const { sent } = await through({
      async onRequest({ headers }) {
        await new Promise(setImmediate)
        headers.set('authorization', 'Bearer fetched')
      },
    })
    expect(values(sent, 'authorization')).toEqual(['Bearer fetched'])
  })

  test.each<[string, NonNullable<ProxyOptions['onRequest']>]>([
    [
      'throws',
      () => {
        throw new Error('canary 127.0.0.1')
      },
    ],
    ['rejects', () => Promise.reject(new Error('canary 127.0.0.1'))],
    [
      'throws nothing at all',
      () => {
        throw undefined
      },
    ],
    ['sets what is no header', ({ headers }) => headers.set('x', 'a\r\nb: c')],
    ['sets what is no name', ({ headers }) => headers.add('a b', 'c')],
    ['sets what the proxy says itself', ({ headers }) => headers.set('X-Forwarded-For', '6.6.6.6')],
    ['sets how the message is framed', ({ headers }) => headers.set('Content-Length', '1')],
    [
      'leads out of the base path',
      (sending) => {
        sending.path = '/../x'
      },
    ],
    [
      'names another host',
      (sending) => {
        sending.path = 'http://evil.test/'
      },
    ],
    [
      'breaks the line',
      (sending) => {
        sending.path = '/ HTTP/1.1\r\nX: y'
      },
    ],
  ])('that %s is a 500, and no backend is asked', async (_, onRequest) => {
    const backend = await keeper()
    const proxy = await front(balance([backend]), { onRequest })
    for (const options of [{}, { method: 'POST', body: 'abc' }]) {
      const answer = await ask(proxy, '/', options)
      expect(problemOf(answer)).toEqual([500, 'CONFIG', undefined])
      expect(answer.body.toString()).not.toContain('canary')
    }
    expect(backend.got).toEqual([])
  })

  test('tells with exposeErrors what was thrown', async () => {
    const onRequest = (): never => {
      throw new Error('no session store')
    }
    const answer = await ask(await front(balance([await keeper()]), { onRequest, exposeErrors: true }), '/')
    expect(problemOf(answer)).toEqual([500, 'CONFIG', 'onRequest failed: no session store'])
  })

  test('of a client that is gone meanwhile sends nothing', async () => {
    const [asked, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const backend = await keeper()
    const balancer = balance([backend])
    const gone = Promise.withResolvers<void>()
    const handler = createProxy(balancer, {
      async onRequest() {
        asked.resolve()
        await go.promise
      },
    })
    const proxy = await upstream((request, response) => {
      response.on('close', () => gone.resolve())
      handler(request, response)
    })
    const client = await rawClient(proxy)
    client.write(get('/'))
    await asked.promise
    client.socket.destroy()
    await gone.promise
    go.resolve()
    await idle(balancer)
    expect([backend.got.length, statsOf(balancer).requests]).toEqual([0, 0])
  })
})

describe('onResponse', () => {
  test('changes headers of what is passed on, knows the backend, and sees the request', async () => {
    const backend = await keeper((_, response) =>
      response.writeHead(201, { 'x-a': '1', 'set-cookie': ['a=1', 'b=2'] }).end('made'),
    )
    const seen: unknown[] = []
    const proxy = await front(balance([backend]), {
      onResponse({ status, headers, backend: id }, { url }) {
        seen.push(status, id, url, headers.all('set-cookie'))
        headers.set('x-a', '2')
        headers.remove('date')
      },
    })
    const answer = await ask(proxy, '/x')
    expect(seen).toEqual([201, `127.0.0.1:${backend.port}`, '/x', ['a=1', 'b=2']])
    expect([answer.status, answer.headers['x-a'], answer.headers['set-cookie'], answer.body.toString()]).toEqual([
      201,
      '2',
      ['a=1', 'b=2'],
      'made',
    ])
  })

  test.each<[string, NonNullable<ProxyOptions['onResponse']>]>([
    [
      'throws',
      () => {
        throw new Error('canary')
      },
    ],
    ['rejects', () => Promise.reject(new Error('canary'))],
    ['frames the message', ({ headers }) => headers.set('transfer-encoding', 'x')],
    ['sets what is no header', ({ headers }) => headers.set('x', 'a\nb')],
  ])('that %s is a 500, and the backend’s connection is given back', async (_, onResponse) => {
    const backend = await rawUpstream(says(OK))
    const balancer = balance([backend])
    const proxy = await front(balancer, { onResponse })
    for (let i = 0; i < 2; i++) {
      expect(problemOf(await ask(proxy, '/'))).toEqual([500, 'CONFIG', undefined])
      await idle(balancer)
    }
    expect(backend.wires).toHaveLength(1)
  })
})

describe('paths', () => {
  test('without the prefix are for the next handler, if there is one', async () => {
    const backend = await keeper()
    const proxy = createProxy(balance([backend]), { path: { strip: '/api' } })
    const app = await upstream((request, response) => proxy(request, response, () => response.end('own')))
    expect((await ask(app, '/about')).body.toString()).toBe('own')
    expect((await ask(app, '/api/a')).body.toString()).toBe('ok')
    expect(problemOf(await ask(await front(balance([backend]), { path: { strip: '/api' } }), '/about'))).toEqual([
      404,
      'NOT_FOUND',
      'nothing is served under this path',
    ])
    expect(backend.got.map(({ path }) => path)).toEqual(['/a'])
  })

  test('without the prefix are not even judged', async () => {
    const proxy = createProxy(balance([await keeper()]), { path: { strip: '/api' }, methods: ['GET'] })
    const app = await upstream((request, response) => proxy(request, response, () => response.end('own')))
    expect((await ask(app, '/about', { method: 'DELETE' })).body.toString()).toBe('own')
  })
})

describe('cookies', () => {
  const line = 'a=1; Domain=backend.test; path=/base/x; Secure; HttpOnly; Expires=Sun, 22 Nov 2026 00:00:00 GMT'
  test.each<[NonNullable<ProxyOptions['cookies']>, string]>([
    [{}, line],
    [{ domain: 'front.test' }, line.replace('backend.test', 'front.test')],
    [{ domain: false }, line.replace(' Domain=backend.test;', '')],
    [{ path: true }, line.replace('path=/base/x', 'Path=/api/x')],
    [{ domain: false, path: true }, line.replace(' Domain=backend.test; path=/base/x', ' Path=/api/x')],
  ])('with %j', async (cookies, told) => {
    const plain = 'b=Path=/base; SameSite=Lax'
    const { url } = await keeper((_, response) => response.writeHead(200, { 'set-cookie': [line, plain] }).end())
    const answer = await ask(await front(balance([`${url}/base`]), { cookies, path: { strip: '/api' } }), '/api')
    expect(answer.headers['set-cookie']).toEqual([told, plain])
  })

  test.each([
    ['/', '/api'],
    ['/base', '/api'],
    ['/base/', '/api'],
    ['/base/x', '/api/x'],
    ['/base/x/', '/api/x/'],
    ['/elsewhere', '/elsewhere'],
    ['relative', 'relative'],
  ])('for %s are told as for %s', async (path, told) => {
    const { url } = await keeper((_, response) => response.writeHead(200, { 'set-cookie': `a=1; Path=${path}` }).end())
    const proxy = await front(balance([`${url}/base`]), { cookies: { path: true }, path: { strip: '/api' } })
    expect((await ask(proxy, '/api')).headers['set-cookie']).toEqual([`a=1; Path=${told}`])
  })

  test('for what `add` puts in front are for the prefix itself, which browsers ask for as well', async () => {
    const { url } = await keeper((_, response) => response.writeHead(200, { 'set-cookie': 'a=1; Path=/v2' }).end())
    for (const [strip, told] of [
      [{ strip: '/api' }, '/api'],
      [{}, '/'],
    ] as const) {
      const proxy = await front(balance([url]), { cookies: { path: true }, path: { ...strip, add: '/v2' } })
      expect((await ask(proxy, told)).headers['set-cookie']).toEqual([`a=1; Path=${told}`])
    }
  })

  test('of affinity are the proxy’s own, and stay as they are', async () => {
    const proxy = await front(balance([await keeper()]), {
      affinity: { secret: 'a secret of more than thirty-two bytes' },
      cookies: { path: true },
      path: { strip: '/api' },
    })
    expect((await ask(proxy, '/api')).headers['set-cookie']![0]).toContain('; Path=/;')
  })
})

describe('interceptBody', () => {
  const upper: NonNullable<ProxyOptions['interceptBody']> = {
    change: (body) => Buffer.from(body).toString().toUpperCase(),
  }

  test('sends another body, whose length is its own', async () => {
    const digests = [
      'ETag: "x"',
      'Digest: sha-256=x',
      'Content-Digest: sha-256=:x:',
      'Content-MD5: x',
      'Accept-Ranges: bytes',
    ]
    const { sent, got } = await through(
      { interceptBody: { change: (body) => `<${Buffer.from(body)}>é` } },
      get('/', 'Accept-Encoding: gzip, br', 'Range: bytes=0-1', 'If-Range: "x"'),
      OK.replace('\r\n', `\r\n${digests.join('\r\n')}\r\n`),
    )
    expect(values(sent, 'accept-encoding')).toEqual(['identity'])
    expect([...values(sent, 'range'), ...values(sent, 'if-range')]).toEqual([])
    expect(values(got, 'etag')).toEqual(['W/"x"'])
    for (const field of digests.slice(1)) expect(values(got, field.split(':')[0]!.toLowerCase())).toEqual([])
    expect(values(got, 'content-length')).toEqual(['6'])
    expect(got).toContain('<ok>')
  })

  test('takes bodies in chunks, and empty ones, and drops their trailers', async () => {
    const chunked = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\nx-sum: 1\r\n\r\n'
    const first = await through({ interceptBody: upper }, get('/', 'TE: trailers'), chunked)
    expect(first.got).toContain('AB')
    expect(first.got).not.toContain('x-sum')
    const empty = await through({ interceptBody: upper }, get('/'), 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')
    expect(statusOf(empty.got)).toBe(200)
  })

  test.each(['HEAD', '204', '304'])('knows that there is none: %s', async (kind) => {
    const backend = await keeper((_, response) => {
      response.writeHead(kind === 'HEAD' ? 200 : Number(kind), { etag: '"x"' }).end()
    })
    const asked: Uint8Array[] = []
    const change = (body: Uint8Array): string => String(asked.push(body))
    const proxy = await front(balance([backend]), { interceptBody: { change } })
    const answer = await ask(proxy, '/', { method: kind === 'HEAD' ? 'HEAD' : 'GET' })
    expect([answer.headers.etag, answer.headers['content-length'], asked]).toEqual(['W/"x"', undefined, []])
  })

  test('is for those answers only that are meant', async () => {
    const backend = await keeper(({ url }, response) => {
      response.writeHead(200, { 'content-type': url === '/html' ? 'text/html' : 'image/png', etag: '"x"' }).end('body')
    })
    const proxy = await front(balance([backend]), {
      interceptBody: { ...upper, when: ({ headers }) => headers.get('content-type') === 'text/html' },
    })
    const [html, image] = [await ask(proxy, '/html'), await ask(proxy, '/png')]
    expect([html.body.toString(), html.headers.etag]).toEqual(['BODY', 'W/"x"'])
    expect([image.body.toString(), image.headers.etag]).toEqual(['body', '"x"'])
  })

  test('may change headers as well', async () => {
    const { got } = await through({
      async interceptBody(): Promise<never> {
        throw new Error()
      },
    } as unknown as ProxyOptions).catch(() => ({ got: 'refused' }))
    expect(got).toBe('refused')
    const proxy = await front(balance([await keeper()]), {
      interceptBody: {
        async change(body, { headers }) {
          await new Promise(setImmediate)
          headers.set('x-bytes', String(body.length))
          return new Uint8Array([0xff, 0])
        },
      },
    })
    const answer = await ask(proxy, '/')
    expect([answer.headers['x-bytes'], answer.body]).toEqual(['2', Buffer.from([0xff, 0])])
  })

  const refused: readonly [string, string, NonNullable<ProxyOptions['interceptBody']>, unknown[]][] = [
    [
      'compressed all the same',
      `HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 22\r\n\r\n${gzipSync('ok').toString('latin1').slice(0, 22)}`,
      upper,
      [502, 'PROTOCOL', undefined],
    ],
    [
      'too long',
      `HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n${'x'.repeat(2_000)}`,
      { ...upper, limitBytes: 1_999 },
      [502, 'PROTOCOL', undefined],
    ],
    [
      'too long in chunks',
      `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n${'x'.repeat(2_000)}\r\n0\r\n\r\n`,
      { ...upper, limitBytes: 10 },
      [502, 'PROTOCOL', undefined],
    ],
    [
      'more than the function bears',
      OK,
      {
        change: () => {
          throw new Error('canary')
        },
      },
      [500, 'CONFIG', undefined],
    ],
    ['turned into nothing', OK, { change: () => undefined as unknown as string }, [500, 'CONFIG', undefined]],
  ]
  test.each(refused)('of one that is %s is an error, not half an answer', async (_, answer, interceptBody, problem) => {
    const balancer = balance([await rawUpstream(says(answer))], { retry: { attempts: 1 } })
    expect(problemOf(await ask(await front(balancer, { interceptBody }), '/'))).toEqual(problem)
    await idle(balancer)
  })

  test('of one that breaks off is a 502: nothing of it was sent', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write(`HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n${'x'.repeat(80_000)}`)
      wire.socket.end()
    })
    const proxy = await front(balance([backend], { retry: { attempts: 1 } }), { interceptBody: upper })
    expect(problemOf(await ask(proxy, '/'))).toEqual([502, 'TRUNCATED', undefined])
  })

  test('a limit is a length that is still taken', async () => {
    const answer = `HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n${'x'.repeat(2_000)}`
    const { got } = await through({ interceptBody: { ...upper, limitBytes: 2_000 } }, get('/'), answer)
    expect(got).toContain('X'.repeat(2_000))
  })
})

test('while the balancer drains, answers, refusals and errors send their clients away', async () => {
  const go = Promise.withResolvers<void>()
  const backend = await keeper(async ({ url }, response) => {
    if (url === '/kept') return void response.end('ok')
    await go.promise
    if (url === '/broken') response.socket!.resetAndDestroy()
    else response.end('ok')
  })
  const balancer = balance([backend], { retry: { attempts: 1 } })
  const proxy = await front(balancer)
  const paths = ['/', '/broken', '/..', '/late']
  const clients = await Promise.all(paths.map(() => rawClient(proxy)))
  for (const client of clients) {
    client.write(get('/kept'))
    expect(values(await client.until(isWhole), 'connection')).toEqual(['keep-alive'])
  }
  const ask = (i: number): void => clients[i]!.write(get(paths[i]!))
  ask(0)
  ask(1)
  await until(() => backend.got.length === 6, 'two should be under way')
  const closed = balancer.close({ drainMs: 10_000 })
  ask(2)
  ask(3)
  await Promise.all([clients[2]!.closed(), clients[3]!.closed()])
  go.resolve()
  await Promise.all([closed, clients[0]!.closed(), clients[1]!.closed()])
  const answers = clients.map(({ received }) => received.slice(received.lastIndexOf('HTTP/1.1 ')))
  expect(answers.map((answer) => [statusOf(answer), ...values(answer, 'connection')])).toEqual([
    [200, 'close'],
    [502, 'close'],
    [400, 'close'],
    [503, 'close'],
  ])
})

test('a host that is preserved is the one of the request, whatever trusted proxies say', async () => {
  const backend = await keeper()
  const proxy = await front(balance([backend]), { host: 'preserve', trustedProxies: ['127.0.0.1'] })
  await ask(proxy, '/', { headers: { host: 'inner.test', 'x-forwarded-host': 'outer.test' } })
  const { rawHeaders } = backend.got[0]!
  expect([valuesOf(rawHeaders, 'host'), valuesOf(rawHeaders, 'x-forwarded-host')]).toEqual([
    ['inner.test'],
    ['outer.test'],
  ])
})
