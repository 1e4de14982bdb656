import { once } from 'node:events'
import http2 from 'node:http2'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import type { Balancer } from 'evenkeel'
import { createProxy } from 'evenkeel/node'
import { describe, expect, onTestFinished, test } from 'vitest'
import { balanceH2, h2Backend, h2Frames, tell, together } from './support/h2.ts'
import { CERT, KEY } from './support/tls.ts'
import {
  ask,
  bytesOf,
  idle,
  MIB,
  rawUpstream,
  sha256,
  statsOf,
  until,
  upstream,
  valuesOf,
} from './support/upstreams.ts'

const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = http2.constants
/** The type of a frame. */
const HEADERS = 1

/** Answers each with its place. */
function numbered(all: readonly http2.ServerHttp2Stream[]): void {
  for (const [i, stream] of all.entries()) tell(stream, `${i}`)
}

function texts(balancer: Balancer, count: number): Promise<string[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const { body } = await balancer.request(`/${i}`)
      return body.text()
    }),
  )
}

describe('row 62: what goes to a backend over HTTP/2', () => {
  test('its pseudo fields are ours, names are in lower case, and what is of one connection stays here', async () => {
    const seen: { headers: http2.IncomingHttpHeaders; raw: readonly string[] }[] = []
    const backend = await h2Backend((stream, headers, _, raw) => {
      seen.push({ headers, raw })
      tell(stream, 'ok')
    })
    const proxy = await upstream(createProxy(balanceH2([`${backend.url}/base`])))
    const answer = await ask(proxy, '/a?b=1', {
      headers: {
        'X-Mixed': '1',
        Cookie: 'a=1; b=2',
        Connection: 'X-Gone',
        'X-Gone': '1',
        'Keep-Alive': 'timeout=5',
        'Proxy-Connection': 'keep-alive',
        TE: 'gzip, trailers',
        'HTTP2-Settings': 'AAMAAABkAAQAAP__',
      },
    })
    expect([answer.status, answer.body.toString()]).toEqual([200, 'ok'])
    const [{ headers, raw }] = seen as [(typeof seen)[number]]
    expect(headers).toMatchObject({
      ':method': 'GET',
      ':scheme': 'https',
      ':authority': `localhost:${backend.port}`,
      ':path': '/base/a?b=1',
      'x-mixed': '1',
      cookie: 'a=1; b=2',
      te: 'trailers',
    })
    const names = raw.filter((_, i) => i % 2 === 0)
    expect(names.filter((name) => name !== name.toLowerCase())).toEqual([])
    for (const gone of ['connection', 'x-gone', 'keep-alive', 'proxy-connection', 'http2-settings', 'host']) {
      expect(names).not.toContain(gone)
    }
  })

  test('fetch and request take the same way, both with bodies', async () => {
    const backend = await h2Backend(async (stream, { ':method': method }) =>
      tell(stream, `${method} ${await bytesOf(stream)}`),
    )
    const balancer = balanceH2([backend])
    const answer = await balancer.fetch('/', { method: 'POST', body: 'one' })
    expect([answer.status, await answer.text()]).toEqual([200, 'POST one'])
    const { body } = await balancer.request('/', {
      method: 'PUT',
      body: Readable.from([Buffer.from('t'), Buffer.from('wo')]),
    })
    expect(await body.text()).toBe('PUT two')
    expect(backend.sessions).toHaveLength(1)
  })

  test('cookies of several lines are one field with "; ", as are those of several fields of one line', async () => {
    const cookies: (string | undefined)[] = []
    const backend = await h2Backend((stream, { cookie }) => {
      cookies.push(cookie)
      tell(stream, 'ok')
    })
    const balancer = balanceH2([backend])
    const headers = [
      ['Cookie', 'a=1'],
      ['cookie', 'b=2'],
      ['COOKIE', 'c=3'],
    ] as const
    await (await balancer.request('/', { headers })).body.text()
    expect(cookies).toEqual(['a=1; b=2; c=3'])
  })

  test('answers keep their Set-Cookie lines and their trailers', async () => {
    const backend = await h2Backend((stream) => {
      const headers = { ':status': 200, 'set-cookie': ['a=1', 'b=2'], link: ['</a>', '</b>'] }
      stream.respond(headers, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '7' }))
      stream.end('ok')
    })
    const proxy = await upstream(createProxy(balanceH2([backend])))
    const answer = await ask(proxy, '/')
    expect(valuesOf(answer.rawHeaders, 'set-cookie')).toEqual(['a=1', 'b=2'])
    expect(answer.headers.link).toBe('</a>, </b>')
    expect(answer.rawTrailers).toEqual(['x-sum', '7'])
    expect(answer.body.toString()).toBe('ok')
  })

  test('bytes above ASCII arrive as they are, both ways', async () => {
    const backend = await h2Frames((frames, stream) =>
      frames.head(stream, { 'x-latin': Buffer.from([0xe9, 0xff]) }, true),
    )
    const { headers } = await balanceH2([backend]).request('/', { headers: { 'x-latin': '\xe9\xff' } })
    expect(headers['x-latin']).toBe('\xe9\xff')
    const { payload } = backend.connections[0]!.came.find(({ type }) => type === HEADERS)!
    expect(payload.toString('latin1')).toContain('\xe9\xff')
  })

  test.each([
    [
      'a field in two cases',
      [
        ['Content-Type', 'a/b'],
        ['content-type', 'c/d'],
      ],
    ],
    [
      'an Authorization in two cases',
      [
        ['Authorization', 'x'],
        ['authorization', 'y'],
      ],
    ],
    ['Proxy-Connection', [['Proxy-Connection', 'keep-alive']]],
    ['HTTP2-Settings', [['HTTP2-Settings', 'x']]],
    ['TE of another kind', [['TE', 'gzip']]],
    ['a length without a body', [['Content-Length', '5']]],
  ] as const)('%s costs nobody the connection', async (_, headers) => {
    const held = Promise.withResolvers<void>()
    const backend = await h2Backend(async (stream, { ':path': path }) => {
      if (path === '/held') await held.promise
      tell(stream, 'ok')
    })
    const balancer = balanceH2([backend], { retry: { attempts: 1 } })
    const other = balancer.request('/held')
    await until(() => backend.streams.length === 1, 'the first never came')
    const { statusCode, body } = await balancer.request('/', { headers: [...headers] })
    expect([statusCode, await body.text()]).toEqual([200, 'ok'])
    held.resolve()
    expect(await (await other).body.text()).toBe('ok')
    expect(backend.sessions).toHaveLength(1)
  })

  test('a Host of the client’s is its authority, and never the name in its certificate', async () => {
    const names: unknown[] = []
    const backend = await h2Backend((stream, { ':authority': authority }) => {
      names.push((stream.session!.socket as { servername?: unknown }).servername)
      tell(stream, String(authority))
    })
    const proxy = await upstream(createProxy(balanceH2([backend]), { host: 'preserve' } as object))
    const hosts = ['a.test', 'b.test', 'a.test']
    const answers = await Promise.all(hosts.map((host) => ask(proxy, '/', { headers: { host } })))
    expect(answers.map(({ body }) => body.toString())).toEqual(hosts)
    expect(names).toEqual(['localhost', 'localhost', 'localhost'])
    expect(backend.sessions).toHaveLength(1)
  })

  test('row 43: 103 is told to the client', async () => {
    const backend = await h2Backend((stream) => {
      stream.additionalHeaders({ ':status': 103, link: '</a>; rel=preload' })
      tell(stream, 'ok')
    })
    const early: number[] = []
    const sent = balanceH2([backend]).send({
      method: 'GET',
      path: '/',
      headers: [],
      body: null,
      informational: (status) => early.push(status),
    })
    ;(await sent.response).body.discard()
    expect(early).toEqual([103])
  })

  test('row 48: more interim answers, more fields or more bytes than are taken end one stream only', async () => {
    const backend = await h2Backend((stream, { ':path': path }) => {
      if (path === '/interim') for (let i = 0; i < 11; i++) stream.additionalHeaders({ ':status': 102 })
      if (path === '/bytes') stream.respond({ ':status': 200, 'x-long': 'x'.repeat(17_000) })
      else stream.respond({ ':status': 200 })
      stream.end('ok')
    })
    const balancer = balanceH2([backend], { retry: { attempts: 1 } })
    for (const path of ['/interim', '/bytes']) {
      await expect(balancer.request(path), path).rejects.toMatchObject({ code: 'PROTOCOL' })
    }
    expect(await (await balancer.request('/')).body.text()).toBe('ok')
    expect(backend.sessions).toHaveLength(1)
  })
})

describe('row 64: one connection for many', () => {
  test('a hundred that come at once to a new backend are a hundred streams of one connection', async () => {
    const backend = await h2Backend(together(100, numbered))
    const balancer = balanceH2([backend])
    expect(new Set(await texts(balancer, 100)).size).toBe(100)
    expect(backend.sessions).toHaveLength(1)
  })

  test('the hundred and first gets a second connection', async () => {
    const backend = await h2Backend(together(101, numbered))
    expect(new Set(await texts(balanceH2([backend]), 101)).size).toBe(101)
    expect(backend.sessions).toHaveLength(2)
  })

  test('a backend that speaks HTTP/1.1 only gets that, each request on a connection of its own', async () => {
    const go = Promise.withResolvers<void>()
    let connections = 0
    let waiting = 0
    const server = https.createServer({ cert: CERT, key: KEY }, async (request, response) => {
      if (++waiting === 20) go.resolve()
      await go.promise
      response.end(request.httpVersion)
    })
    server.on('secureConnection', () => connections++)
    server.listen(0, 'localhost')
    await once(server, 'listening')
    onTestFinished(() => void server.close().closeAllConnections())
    const { port } = server.address() as AddressInfo
    const balancer = balanceH2([`https://localhost:${port}`])
    for (let i = 0; i < 2; i++) {
      expect(await texts(balancer, 20)).toEqual(Array(20).fill('1.1'))
      expect(connections).toBeLessThanOrEqual(21)
    }
    expect(statsOf(balancer)).toMatchObject({ requests: 40, failures: 0 })
  })

  test('a backend’s own word on streams at a time is kept', async () => {
    let now = 0
    let most = 0
    const backend = await h2Backend(
      async (stream) => {
        most = Math.max(most, ++now)
        await new Promise((resolve) => setImmediate(resolve))
        now--
        tell(stream, 'ok')
      },
      { settings: { maxConcurrentStreams: 5 } },
    )
    expect(await texts(balanceH2([backend]), 30)).toEqual(Array(30).fill('ok'))
    expect(most).toBeLessThanOrEqual(5)
  })

  test('one that allows none makes requests wait until it does', async () => {
    const backend = await h2Backend((stream) => tell(stream, 'ok'), { settings: { maxConcurrentStreams: 0 } })
    const balancer = balanceH2([backend])
    const all = texts(balancer, 3)
    await until(() => backend.sessions.length > 0, 'no connection')
    backend.sessions[0]!.settings({ maxConcurrentStreams: 10 })
    expect(await all).toEqual(['ok', 'ok', 'ok'])
  })

  test('one that was given up leaves the others alone, and its backend is told', async () => {
    const backend = await h2Backend(() => {})
    const balancer = balanceH2([backend])
    const abort = new AbortController()
    const first = balancer.request('/1', { signal: abort.signal })
    const second = balancer.request('/2')
    await until(() => backend.streams.length === 2, 'two streams')
    const closed = once(backend.streams[0]!, 'close')
    abort.abort()
    await expect(first).rejects.toMatchObject({ name: 'AbortError' })
    await closed
    expect(backend.streams[0]!.aborted).toBe(true)
    tell(backend.streams[1]!, 'still here')
    expect(await (await second).body.text()).toBe('still here')
    expect(backend.sessions).toHaveLength(1)
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1, ok: 1 } })
  })

  test('those given up while the connection is made leave no trace', async () => {
    const backend = await h2Backend((stream) => tell(stream, 'ok'))
    const balancer = balanceH2([backend])
    const abort = new AbortController()
    const gone = Array.from({ length: 10 }, (_, i) => balancer.request(`/${i}`, { signal: abort.signal }))
    const wanted = balancer.request('/wanted')
    abort.abort()
    for (const one of gone) await expect(one).rejects.toMatchObject({ name: 'AbortError' })
    expect(await (await wanted).body.text()).toBe('ok')
    await idle(balancer)
    expect(backend.streams.map((stream) => stream.sentHeaders[':status'])).toEqual([200])
    const all = new AbortController()
    const none = balanceH2([backend])
    const lost = Array.from({ length: 10 }, (_, i) => none.request(`/${i}`, { signal: all.signal }))
    all.abort()
    for (const one of lost) await expect(one).rejects.toMatchObject({ name: 'AbortError' })
    await idle(none)
    expect(await texts(none, 5)).toEqual(Array(5).fill('ok'))
  })

  test('a backend that cannot be connected fails all that wait for it', async () => {
    const backend = await rawUpstream(({ socket }) => void socket.destroy())
    const balancer = balanceH2([backend.url.replace('http', 'https')], { retry: { attempts: 1 } })
    const all = Array.from({ length: 10 }, (_, i) => balancer.request(`/${i}`))
    for (const one of all) await expect(one).rejects.toMatchObject({ code: 'TLS' })
    await idle(balancer)
  })

  test('a reader that stops holds up nobody else', async () => {
    const bytes = Buffer.alloc(4 * MIB, 'x')
    const backend = await h2Backend(
      (stream, { ':path': path }) => {
        stream.respond({ ':status': 200 })
        stream.end(path === '/large' ? bytes : 'small')
      },
      { maxSessionMemory: 100 },
    )
    const balancer = balanceH2([backend])
    const stalled = await Promise.all([1, 2, 3, 4].map(() => balancer.request('/large')))
    for (let i = 0; i < 3; i++) expect(await (await balancer.request('/small')).body.text()).toBe('small')
    for (const { body } of stalled) expect(sha256(Buffer.from(await body.arrayBuffer()))).toBe(sha256(bytes))
    expect(backend.sessions).toHaveLength(1)
  })
})

describe('row 64: what ends', () => {
  test('GOAWAY: who was not processed goes on a new connection, the others finish on the old one', async () => {
    const backend = await h2Backend((stream, _, number) => {
      if (stream.session !== backend.sessions[0]) return tell(stream, 'new')
      if (number !== 3) return
      stream.session!.goaway(NGHTTP2_NO_ERROR, 1)
      tell(backend.streams[0]!, 'old')
    })
    const balancer = balanceH2([backend], { retry: { attempts: 1 } })
    const first = balancer.request('/1')
    await until(() => backend.streams.length === 1, 'the first never came')
    const others = [balancer.request('/2'), balancer.request('/3', { method: 'POST', body: 'x' })]
    expect(await (await first).body.text()).toBe('old')
    for (const other of others) expect(await (await other).body.text()).toBe('new')
    expect(backend.sessions).toHaveLength(2)
    expect(statsOf(balancer)).toMatchObject({ requests: 3, failures: 0 })
  })

  test('GOAWAY to everything: elsewhere, and nobody is blamed', async () => {
    const refusing = await h2Frames((frames) => frames.goaway(0, NGHTTP2_NO_ERROR))
    const well = await h2Backend(async (stream) => tell(stream, String(await bytesOf(stream))))
    const balancer = balanceH2([refusing, well])
    for (let i = 0; i < 6; i++) {
      const { body } = await balancer.request('/', {
        method: 'POST',
        body: Readable.from([Buffer.from('pay')]) as never,
      })
      expect(await body.text()).toBe('pay')
    }
    expect(statsOf(balancer, 0).failures).toBe(0)
  })

  test.each([
    ['GET', undefined],
    ['POST', 'pay 10'],
  ])('REFUSED_STREAM: %s is sent again, though it is in doubt of no other failure', async (method, body) => {
    const backend = await h2Backend((stream, _, number) => {
      if (number === 1) stream.close(NGHTTP2_REFUSED_STREAM)
      else tell(stream, 'ok')
    })
    const balancer = balanceH2([backend])
    const answer = await balancer.request('/', { method, body })
    expect(await answer.body.text()).toBe('ok')
    expect(backend.streams).toHaveLength(2)
    expect(backend.sessions).toHaveLength(1)
    expect(statsOf(balancer).failures).toBe(0)
  })

  test('REFUSED_STREAM to everything: elsewhere, POST or not', async () => {
    const refusing = await h2Backend((stream) => stream.close(NGHTTP2_REFUSED_STREAM))
    const well = await h2Backend((stream) => tell(stream, 'ok'))
    const balancer = balanceH2([refusing, well])
    for (let i = 0; i < 6; i++) {
      expect(await (await balancer.request('/', { method: 'POST', body: 'pay 10' })).body.text()).toBe('ok')
    }
    expect(statsOf(balancer, 0).failures).toBe(0)
    expect(balancer.stats().pools.default!.backends[0]!.classes).toMatchObject({ overloaded: expect.any(Number) })
  })

  test('RST_STREAM fails its stream alone, and is no sign of old age', async () => {
    const backend = await h2Backend((stream, { ':path': path }) => {
      if (path === '/reset') stream.close(NGHTTP2_INTERNAL_ERROR)
    })
    const balancer = balanceH2([backend], { retry: { attempts: 1 } })
    const other = balancer.request('/other')
    await until(() => backend.streams.length === 1, 'the first never came')
    await expect(balancer.request('/reset')).rejects.toMatchObject({ code: 'RESET' })
    tell(backend.streams[0]!, 'ok')
    expect(await (await other).body.text()).toBe('ok')
    expect(backend.sessions).toHaveLength(1)
    expect(statsOf(balancer).classes).toEqual({ reset: 1, ok: 1 })
  })

  // Of CANCEL and NO_ERROR Node's streams tell nothing, and undici takes them for an end: only a length gives them away.
  test.each([
    ['INTERNAL_ERROR', NGHTTP2_INTERNAL_ERROR, {}],
    ['CANCEL', NGHTTP2_CANCEL, { 'content-length': Buffer.from('10') }],
    ['NO_ERROR', NGHTTP2_NO_ERROR, { 'content-length': Buffer.from('10') }],
  ])('RST_STREAM %s within a body is no end of it', async (_, code, fields) => {
    const backend = await h2Frames((frames, stream) => {
      frames.head(stream, fields)
      frames.data(stream, 'half')
    })
    const balancer = balanceH2([backend], { retry: { attempts: 1 } })
    const text = balancer.request('/').then(({ body }) => body.text())
    await until(() => backend.connections[0]?.came.some(({ type }) => type === HEADERS) === true, 'no request')
    backend.connections[0]!.reset(1, code)
    await expect(text).rejects.toMatchObject({ code: 'TRUNCATED' })
    expect(backend.connections).toHaveLength(1)
  })

  test('a client of the proxy sees a cut as one', async () => {
    const backend = await h2Frames((frames, stream) => {
      frames.head(stream)
      frames.data(stream, 'half')
      frames.reset(stream, NGHTTP2_INTERNAL_ERROR)
    })
    const proxy = await upstream(createProxy(balanceH2([backend])))
    await expect(ask(proxy, '/')).rejects.toMatchObject({ code: 'ECONNRESET' })
  })

  test.each([
    ['short', 'half'],
    ['long', 'more than ten'],
  ])('a length that is not kept is a cut (%s)', async (_, text) => {
    const backend = await h2Frames((frames, stream) => {
      frames.head(stream, { 'content-length': Buffer.from('10') })
      frames.data(stream, text, true)
    })
    const sent = balanceH2([backend], { retry: { attempts: 1 } })
      .request('/')
      .then(({ body }) => body.text())
    await expect(sent).rejects.toMatchObject({ code: expect.stringMatching(/TRUNCATED|RESET/) })
  })

  test('a connection that breaks ends its streams, and the next request opens another', async () => {
    const backend = await h2Backend((stream, { ':path': path }) => {
      if (path === '/next') tell(stream, 'ok')
      if (path === '/body') {
        stream.respond({ ':status': 200 })
        stream.write('half')
      }
    })
    const balancer = balanceH2([backend], { retry: { attempts: 1 } })
    const { body } = await balancer.request('/body')
    const head = [balancer.request('/1'), balancer.request('/2')]
    await until(() => backend.streams.length === 3, 'three streams')
    backend.sockets[0]!.destroy()
    for (const one of head) await expect(one).rejects.toMatchObject({ code: 'RESET' })
    await expect(body.text()).rejects.toMatchObject({ code: 'TRUNCATED' })
    expect(await (await balancer.request('/next')).body.text()).toBe('ok')
    expect(statsOf(balancer).classes).toMatchObject({ reset: 2, truncated: 1, ok: 1 })
  })

  test('a backend that breaks the protocol fails who waits, and no process', async () => {
    const backend = await h2Frames((frames) => void frames.socket.write('SSH-2.0-OpenSSH_9.6\r\n'.repeat(9)))
    const balancer = balanceH2([backend], { retry: { attempts: 1 } })
    await expect(balancer.request('/')).rejects.toMatchObject({ code: expect.stringMatching(/RESET|PROTOCOL/) })
  })
})
