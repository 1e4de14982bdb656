// Long, because it is one list: everything the node proxy promises; rows are those of the HTTP conformance list.
import assert from 'node:assert/strict'
import { randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import http, { type IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { createBalancer, type Strategy } from 'evenkeel'
import type { ProxyOptions } from 'evenkeel/node'
import { describe, expect, test } from 'vitest'
import {
  ask,
  balance,
  bytesOf,
  front,
  idle,
  inflight,
  keeper,
  kept,
  MIB,
  nobody,
  OK,
  pause,
  type RawUpstream,
  rawClient,
  rawUpstream,
  says,
  sha256,
  standstill,
  statsOf,
  type Upstream,
  until,
  upstream,
  valuesOf,
  type Wire,
} from './support/upstreams.ts'

const WELL_FORMED = /^[A-Za-z0-9._-]{8,128}$/

/** Takes the backends in the order they were given: a test knows who is asked first. */
const inOrder: Strategy = {
  name: 'in order',
  start: () => ({
    build:
      ({ eligible }) =>
      (call) =>
        eligible.find((backend) => !call.tried(backend)),
  }),
}

/** The backends in turn, from the first on; `roundRobin` may begin anywhere. */
function inTurn(): Strategy {
  let turn = 0
  return {
    name: 'in turn',
    start: () => ({
      build:
        ({ eligible }) =>
        () =>
          eligible[turn++ % eligible.length],
    }),
  }
}

/** The fields of a head, names in lower case. */
function fieldsOf(head: string): [name: string, value: string][] {
  const [lines = ''] = head.split('\r\n\r\n')
  return lines
    .split('\r\n')
    .slice(1)
    .map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()])
}

function values(head: string, name: string): string[] {
  return fieldsOf(head)
    .filter(([field]) => field === name)
    .map(([, value]) => value)
}

/** Whether an answer is there as a whole, by its own framing. */
function isWhole(received: string): boolean {
  const end = received.indexOf('\r\n\r\n')
  if (end < 0) return false
  const [length] = values(received, 'content-length')
  if (length !== undefined) return received.length >= end + 4 + Number(length)
  return values(received, 'transfer-encoding').includes('chunked')
    ? /\r\n0\r\n([^\r\n]+\r\n)*\r\n$/.test(received)
    : / (204|304) /.test(received.slice(0, 13))
}

/** Raw bytes through the proxy, seen from both of its sides. */
async function passed(
  request: string,
  answer = OK,
  options: { readonly bodyEnd?: string; readonly headers?: Record<string, string>; readonly proxy?: ProxyOptions } = {},
): Promise<{ readonly sent: string; readonly got: string; readonly client: Wire }> {
  const backend = await rawUpstream(async (wire) => {
    await wire.until(options.bodyEnd ?? '\r\n\r\n')
    wire.write(answer)
  })
  const { headers = {}, proxy } = options
  const client = await rawClient(
    await front(kept(createBalancer({ backends: [{ url: backend.url, headers }] })), proxy),
  )
  client.write(request)
  const got = await client.until(isWhole)
  return { sent: (await backend.wire()).received, got, client }
}

/** A request's head for raw clients. */
function get(path: string, ...fields: readonly string[]): string {
  return [`GET ${path} HTTP/1.1`, 'Host: front.test', ...fields, '', ''].join('\r\n')
}

describe('connection fields', () => {
  test.each([
    ['as they are', ['Connection: keep-alive, X-A', 'Connection: X-B , ,x-c']],
    ['in other cases', ['CONNECTION: Keep-Alive, x-a', 'connection: X-b,X-C']],
    ['in one line', ['Connection: x-a,X-B, X-C']],
    ['with close', ['Connection: close, X-A, X-B, X-C']],
  ])('row 1: what Connection names is removed from the request, %s', async (_, connection) => {
    const { sent } = await passed(get('/', 'X-A: 1', 'x-B: 2', ...connection, 'X-C: 3', 'X-D: 4'))
    for (const name of ['x-a', 'x-b', 'x-c']) expect(values(sent, name)).toEqual([])
    expect(values(sent, 'x-d')).toEqual(['4'])
    expect(values(sent, 'connection')).toEqual(['keep-alive'])
  })

  test.each([
    ['in one line', 'Connection: X-A, x-b ,,X-C\r\n'],
    ['in several lines', 'Connection: X-A\r\nconnection: x-b\r\nCONNECTION: x-c\r\n'],
    ['with close in the last', 'Connection: x-a, x-b, x-c\r\nConnection: close\r\n'],
  ])('row 1: what Connection names is removed from the response, %s', async (_, connection) => {
    const { got } = await passed(
      get('/'),
      `HTTP/1.1 200 OK\r\nX-A: 1\r\nX-B: 2\r\n${connection}x-c: 3\r\nx-d: 4\r\ncontent-length: 2\r\n\r\nok`,
    )
    for (const name of ['x-a', 'x-b', 'x-c']) expect(values(got, name)).toEqual([])
    expect(values(got, 'x-d')).toEqual(['4'])
    expect(values(got, 'connection')).toEqual(['keep-alive'])
  })

  const always = [
    'Keep-Alive: timeout=60',
    'PROXY-CONNECTION: keep-alive',
    'Te: gzip',
    'trailer: x-sum',
    'Trailers: x-sum',
    'Upgrade: h2c',
    'HTTP2-Settings: AAMAAABkAAQAAP__',
    'Proxy-Authorization: Basic eDp5',
    'Proxy-Authenticate: Basic',
  ]
  test('row 2: these are removed from the request, named by Connection or not', async () => {
    const { sent } = await passed(get('/', ...always, 'X-D: 4'))
    for (const line of always) expect(values(sent, line.split(':')[0]!.toLowerCase())).toEqual([])
    expect(values(sent, 'x-d')).toEqual(['4'])
  })

  test('row 2: these are removed from the response, named by Connection or not', async () => {
    const { got } = await passed(
      get('/'),
      `HTTP/1.1 200 OK\r\n${always.join('\r\n')}\r\nX-D: 4\r\ncontent-length: 2\r\n\r\nok`,
    )
    // Node's own server speaks of its own connection.
    expect(values(got, 'keep-alive')).toEqual(['timeout=5'])
    for (const line of always.slice(1)) expect(values(got, line.split(':')[0]!.toLowerCase())).toEqual([])
    expect(values(got, 'x-d')).toEqual(['4'])
  })

  test('no client passes for a probe', async () => {
    const { sent } = await passed(get('/lb-probe', 'X-LB-Probe: 1'))
    expect(values(sent, 'x-lb-probe')).toEqual([])
  })

  test('what a backend says of its load stays with the balancer', async () => {
    const load = ['X-LB-RIF: 3', 'X-LB-Lat-Ms: 12.5', 'Endpoint-Load-Metrics: TEXT cpu_utilization=0.3']
    const { got } = await passed(get('/'), `HTTP/1.1 200 OK\r\n${load.join('\r\n')}\r\ncontent-length: 2\r\n\r\nok`)
    for (const line of load) expect(values(got, line.split(':')[0]!.toLowerCase())).toEqual([])
  })

  test('row 2: Transfer-Encoding is made anew for each connection', async () => {
    const { sent, got } = await passed(
      'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;ext=1\r\no\r\n1\r\nk\r\n0\r\n\r\n',
      { bodyEnd: '\r\n0\r\n\r\n' },
    )
    expect(values(sent, 'transfer-encoding')).toEqual(['chunked'])
    expect(values(got, 'transfer-encoding')).toEqual(['chunked'])
    expect(sent + got).not.toContain('ext=')
  })

  const ours = ['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-request-id', 'via']
  test('row 3: Connection removes nothing that is meant for everyone, or set by the proxy', async () => {
    const named = [...ours, 'Authorization', 'COOKIE', 'host', 'content-length', 'x-added']
    const { sent } = await passed(
      `POST / HTTP/1.1\r\nHost: front.test\r\nConnection: close, ${named.join(', ')}\r\nAuthorization: Bearer x\r\nCookie: a=1\r\nContent-Length: 3\r\n\r\nabc`,
      OK,
      { bodyEnd: 'abc', headers: { 'x-added': 'by the balancer' } },
    )
    for (const name of ours) expect(values(sent, name), name).toHaveLength(1)
    expect(values(sent, 'authorization')).toEqual(['Bearer x'])
    expect(values(sent, 'cookie')).toEqual(['a=1'])
    expect(values(sent, 'content-length')).toEqual(['3'])
    expect(values(sent, 'host')).toHaveLength(1)
    expect(values(sent, 'x-added')).toEqual(['by the balancer'])
    expect(sent).toMatch(/\r\n\r\nabc$/)
  })

  test('row 3: nor does the Connection of a response', async () => {
    const { got } = await passed(
      get('/'),
      'HTTP/1.1 200 OK\r\nConnection: Via, x-request-id, Content-Length\r\nVia: 1.1 inner\r\nContent-Length: 2\r\n\r\nok',
    )
    expect(values(got, 'content-length')).toEqual(['2'])
    expect(values(got, 'via').join(', ')).toBe('1.1 inner, 1.1 evenkeel')
    expect(values(got, 'x-request-id')).toHaveLength(1)
  })

  test.each([
    ['TE: trailers', ['trailers']],
    ['TE: gzip;q=0.5, Trailers', ['trailers']],
    ['te: gzip', []],
    ['TE: trailers-not', []],
    ['TE:', []],
  ])('row 4: of TE only the member "trailers" is passed on (%s)', async (field, te) => {
    const { sent } = await passed(get('/', field, 'Connection: TE'))
    expect(values(sent, 'te')).toEqual(te)
  })

  test('row 5: trailers of a response reach the client, but none that would change its head', async () => {
    const forbidden = [
      'Transfer-Encoding: chunked',
      'set-cookie: a=1',
      'Authorization: x',
      'Host: b',
      'Content-Type: a/b',
    ]
    const { got } = await passed(
      get('/', 'TE: trailers'),
      `HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n${forbidden.join('\r\n')}\r\nx-more: \xe9\r\n\r\n`,
    )
    expect(got.slice(got.indexOf('\r\n\r\n') + 4)).toBe('2\r\nok\r\n0\r\nx-sum: 7\r\nx-more: \xe9\r\n\r\n')
  })

  test('row 5: a trailer that contradicts the framing breaks the answer off', async () => {
    const backend = await rawUpstream(
      says('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n'),
    )
    const client = await rawClient(await front(balance([backend])))
    client.write(get('/'))
    await client.closed()
    expect(isWhole(client.received)).toBe(false)
  })

  test('row 5: trailers of a request are dropped, never merged into its head; its body is whole', async () => {
    const { sent } = await passed(
      'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n',
      OK,
      { bodyEnd: '\r\n0\r\n\r\n' },
    )
    expect(sent).toMatch(/\r\n\r\n3\r\nabc\r\n0\r\n\r\n$/)
    expect(sent.toLowerCase()).not.toContain('x-sum')
  })

  test('row 6: Via is appended to, by a name that is no host', async () => {
    const { sent, got } = await passed(
      get('/', 'Via: 1.0 fred', 'via: 1.1 p.example'),
      'HTTP/1.1 200 OK\r\nVia: 1.1 inner\r\ncontent-length: 2\r\n\r\nok',
    )
    expect(values(sent, 'via').join(', ')).toBe('1.0 fred, 1.1 p.example, 1.1 evenkeel')
    expect(values(got, 'via').join(', ')).toBe('1.1 inner, 1.1 evenkeel')
  })

  test('row 6: its name is the user’s to choose', async () => {
    const backend = await keeper()
    const answer = await ask(await front(balance([backend]), { via: 'edge-1' }), '/')
    expect([backend.got[0]!.headers.via, answer.headers.via]).toEqual(['1.1 edge-1', '1.1 edge-1'])
  })

  test('row 8: Date is the backend’s, or added if it gave none', async () => {
    const date = 'Sun, 06 Nov 1994 08:49:37 GMT'
    const kept = await passed(get('/'), OK.replace('\r\n', `\r\nDate: ${date}\r\n`))
    expect(values(kept.got, 'date')).toEqual([date])
    const added = await passed(get('/'))
    expect(values(added.got, 'date')).toHaveLength(1)
  })
})

describe('who asked', () => {
  test('X-Forwarded-* say what the proxy knows, not what the client claims', async () => {
    const claims = ['For: 6.6.6.6', 'Host: evil.test', 'Proto: https', 'Port: 1'].map((it) => `X-Forwarded-${it}`)
    const { sent } = await passed(get('/', ...claims, 'x-forwarded-for: 7.7.7.7', 'X-Real-IP: 6.6.6.6'))
    expect(values(sent, 'x-forwarded-for')).toEqual(['127.0.0.1'])
    expect(values(sent, 'x-forwarded-host')).toEqual(['front.test'])
    expect(values(sent, 'x-forwarded-proto')).toEqual(['http'])
    expect(values(sent, 'x-real-ip')).not.toContain('6.6.6.6')
    expect(values(sent, 'x-forwarded-port')).not.toContain('1')
    expect(sent).not.toMatch(/evil|[67]\.[67]\./)
  })

  test('Host is the backend’s own', async () => {
    const backend = await keeper()
    await ask(await front(balance([backend])), '/', { headers: { host: 'front.test' } })
    expect(backend.got[0]!.headers.host).toBe(`127.0.0.1:${backend.port}`)
  })

  test.each(['a', 'A.b-c_9', '0'.repeat(128)])('a well-formed request id is kept: %s', async (id) => {
    const { sent, got } = await passed(get('/', `X-Request-Id: ${id}`))
    expect(values(sent, 'x-request-id')).toEqual([id])
    expect(values(got, 'x-request-id')).toEqual([id])
  })

  test.each([
    ['none', []],
    ['an empty one', ['X-Request-Id:']],
    ['one with other characters', ['X-Request-Id: a b']],
    ['one with "<"', ['X-Request-Id: <script>']],
    ['one too long', [`X-Request-Id: ${'0'.repeat(129)}`]],
    ['two', ['X-Request-Id: a', 'x-request-id: b']],
  ])('a new request id is made for %s, for both sides', async (_, fields) => {
    const { sent, got } = await passed(get('/', ...fields), OK.replace('\r\n', '\r\nX-Request-ID: backend\r\n'))
    const [id] = values(sent, 'x-request-id')
    expect(id).toMatch(WELL_FORMED)
    expect(fields.join()).not.toContain(id)
    expect(values(sent, 'x-request-id')).toEqual([id])
    expect(values(got, 'x-request-id')).toEqual([id])
  })

  test('no two requests are given one id', async () => {
    const backend = await keeper()
    const balancer = balance([backend])
    for (const proxy of [await front(balancer), await front(balancer)]) {
      for (let i = 0; i < 10; i++) await ask(proxy, '/')
    }
    expect(new Set(backend.got.map(({ headers }) => headers['x-request-id'])).size).toBe(20)
  })

  test.each([
    ['one that would be kept', 'client-1'],
    ['one that would be replaced', 'Root=1-67891233'],
  ])('without request ids the header is one like any other: %s', async (_, id) => {
    const answer = OK.replace('\r\n', '\r\nX-Request-ID: backend\r\n')
    const { sent, got } = await passed(get('/', `X-Request-Id: ${id}`), answer, { proxy: { requestIds: false } })
    expect(values(sent, 'x-request-id')).toEqual([id])
    expect(values(got, 'x-request-id')).toEqual(['backend'])
  })

  test('without request ids none is made, for errors neither', async () => {
    const { sent, got } = await passed(get('/'), OK, { proxy: { requestIds: false } })
    expect(values(sent, 'x-request-id')).toEqual([])
    expect(values(got, 'x-request-id')).toEqual([])
    const problem = await ask(await front(balance([await nobody()]), { requestIds: false }), '/')
    expect(problem.status).toBe(502)
    expect(problem.headers).not.toHaveProperty('x-request-id')
    expect(JSON.parse(problem.body.toString())).not.toHaveProperty('requestId')
  })

  test('a balancer may be told about a request', async () => {
    const [one, two] = [await keeper(), await keeper()]
    const balancer = kept(createBalancer({ pools: { one: { backends: [one.url] }, two: { backends: [two.url] } } }))
    const proxy = await front(balancer, { call: ({ headers }) => ({ pool: String(headers['x-pool']) }) })
    for (const pool of ['two', 'one', 'two']) await ask(proxy, `/${pool}`, { headers: { 'x-pool': pool } })
    expect([one.got.length, two.got.length]).toEqual([1, 2])
    const answer = await ask(proxy, '/', { headers: { 'x-pool': 'three' } })
    expect(answer.status).toBe(500)
    expect(answer.body.toString()).not.toMatch(/three|one|two/)
  })
})

describe('targets', () => {
  const unsafe = [
    ['16', 'x'],
    ['16', 'http://evil.test/p'],
    ['16', '*'],
    ['16', '/a#b'],
    ['16', '/\\..\\x'],
    ['16', '/a\\b'],
    ['16', '/a\x01b'],
    ['16', '/a\x7fb'],
    ['16', '/a b'],
    ['16', '/\xe9'],
    ['16', '/?q=\xe9'],
    ['16', '/?q=a\\b'],
    ['18', '/..'],
    ['18', '/../x'],
    ['18', '/a/../../x'],
    ['18', '/%2e%2e/x'],
    ['18', '/.%2E/x'],
    ['18', '/a/..%2fx'],
    ['18', '/a/..%5Cx'],
    ['18', '/%2e%2e%2f%2e%2e%2fx'],
    ['18', '/%252e%252e/x'],
    ['18', '/..%252fx'],
    ['18', '/%25252e%252e/x'],
    ['18', '/%zz'],
    ['18', '/%'],
    ['18', '/a%2'],
  ] as const
  test.each(unsafe)('row %s: %j is answered 400 and goes nowhere', async (_, target) => {
    const backend = await keeper()
    const proxy = await front(balance([`${backend.url}/base`]))
    const client = await rawClient(proxy)
    client.write(get(target))
    expect(await client.until((received) => received.includes('\r\n\r\n'))).toMatch(/^HTTP\/1\.1 400 /)
    expect(backend.got).toEqual([])
    expect((await ask(proxy, '/next')).status).toBe(200)
  })

  test('row 16: a refused request does not cost its client the connection', async () => {
    const client = await rawClient(await front(balance([await keeper()])))
    client.write(get('/%zz') + get('/next', 'Connection: close'))
    await client.closed()
    expect(client.received.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 400', 'HTTP/1.1 200'])
    expect(client.received).toContain('application/problem+json')
  })

  const safe = [
    ['17', '//evil.test/x'],
    ['17', '///evil.test'],
    ['17', '/@evil.test'],
    ['18', '/...slug'],
    ['18', '/a..b/..c/d..'],
    ['18', '/.hidden/./x'],
    ['18', '/%2e/%41%20%2F'],
    ['19', '/?'],
    ['19', '/a?b=1&b=2;c&&=%zz&up=../..'],
    ['19', '/a??b?/c'],
    ['19', `/?${'x'.repeat(8_000)}`],
  ] as const
  test.each(safe)('row %s: %j stays as it is, behind the base path of the chosen backend', async (_, target) => {
    const backend = await keeper()
    const proxy = await front(balance([`${backend.url}/base/`]))
    const client = await rawClient(proxy)
    client.write(get(target))
    expect(await client.until(isWhole)).toMatch(/^HTTP\/1\.1 200 /)
    expect(backend.got.map(({ path }) => path)).toEqual([`/base${target}`])
  })

  test('row 16: OPTIONS * is never a path, whoever answers it', async () => {
    const backend = await keeper()
    for (const url of [backend.url, `${backend.url}/base`]) {
      const client = await rawClient(await front(balance([url])))
      client.write('OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
      await client.closed()
      expect(client.received).toMatch(/^HTTP\/1\.1 (200|204|400|501) /)
    }
    expect(backend.got.map(({ path }) => path).filter((path) => path !== '*')).toEqual([])
  })
})

describe('answers', () => {
  test('row 40: repeated fields keep their number and order', async () => {
    const cookies = ['a=1; Expires=Sun, 22 Nov 2026 00:00:00 GMT', 'b=2', 'a=3']
    const { got } = await passed(
      get('/'),
      `HTTP/1.1 200 OK\r\nSet-Cookie: ${cookies[0]}\r\nLink: </a>\r\nset-cookie: ${cookies[1]}\r\nWWW-Authenticate: Basic\r\nLink: </b>\r\nSET-COOKIE: ${cookies[2]}\r\nwww-authenticate: Digest\r\nVary: a\r\nVary: b\r\ncontent-length: 2\r\n\r\nok`,
    )
    expect(values(got, 'set-cookie')).toEqual(cookies)
    expect(values(got, 'link')).toEqual(['</a>', '</b>'])
    expect(values(got, 'www-authenticate')).toEqual(['Basic', 'Digest'])
    expect(values(got, 'vary')).toEqual(['a', 'b'])
  })

  test('row 40: repeated fields of a request do, too', async () => {
    const { sent } = await passed(get('/', 'X-A: 1', 'Accept: a/b', 'x-a: 2', 'accept: c/d'))
    expect(values(sent, 'x-a')).toEqual(['1', '2'])
    expect(values(sent, 'accept')).toEqual(['a/b', 'c/d'])
  })

  test('row 41: bytes above ASCII pass unchanged, both ways', async () => {
    const bytes = Array.from({ length: 128 }, (_, i) => String.fromCharCode(128 + i)).join('')
    const { sent, got } = await passed(
      get('/', `X-Bytes: ${bytes}`),
      `HTTP/1.1 200 OK\r\nx-bytes: ${bytes}\r\nSet-Cookie: n=\xe9\r\ncontent-length: 2\r\n\r\nok`,
    )
    // Not through `trim`, which takes some of them for spaces.
    expect(sent).toContain(`X-Bytes: ${bytes}\r\n`)
    expect(got).toContain(`x-bytes: ${bytes}\r\n`)
    expect(values(got, 'set-cookie')).toEqual(['n=\xe9'])
  })

  test.each(['a\0b', 'a\x01b', 'a\x7fb'])('row 41: a backend’s field with %j is a 502, not a crash', async (value) => {
    const { got } = await passed(get('/'), `HTTP/1.1 200 OK\r\nx: ${value}\r\ncontent-length: 2\r\n\r\nok`)
    expect(got).toMatch(/^HTTP\/1\.1 502 /)
    expect(values(got, 'x')).toEqual([])
  })

  test.each(['a\0b', 'a\x01b'])('row 41: a client’s field with %j is a 400', async (value) => {
    const backend = await keeper()
    const client = await rawClient(await front(balance([backend])))
    client.write(get('/', `x: ${value}`))
    await client.closed()
    expect(client.received).toMatch(/^HTTP\/1\.1 400 /)
    expect(backend.got).toEqual([])
  })

  test('to HEAD, 204 and 304 have no body, and their client’s connection goes on', async () => {
    const backend = await rawUpstream(async (wire) => {
      for (;;) {
        const head = await wire.head()
        if (head.startsWith('HEAD')) wire.write('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n')
        else if (head.startsWith('GET /204')) wire.write('HTTP/1.1 204 No Content\r\n\r\n')
        else if (head.startsWith('GET /304'))
          wire.write('HTTP/1.1 304 Not\r\nETag: "a"\r\nContent-Length: 1000\r\n\r\n')
        else wire.write(OK)
      }
    })
    const client = await rawClient(await front(balance([backend])))
    client.write(`HEAD / HTTP/1.1\r\nHost: a\r\n\r\n${get('/204')}${get('/304')}${get('/', 'Connection: close')}`)
    await client.closed()
    const [head = '', none = '', same = '', last = '', ...rest] = client.received.split(/(?=HTTP\/1\.1 )/)
    expect(rest).toEqual([])
    for (const answer of [head, none, same]) expect(answer).toMatch(/\r\n\r\n$/)
    expect(head).toMatch(/^HTTP\/1\.1 200 /)
    expect(values(head, 'content-length')).toEqual(['1000'])
    expect(none).toMatch(/^HTTP\/1\.1 204 /)
    expect([...values(none, 'content-length'), ...values(none, 'transfer-encoding')]).toEqual([])
    expect(same).toMatch(/^HTTP\/1\.1 304 /)
    expect([...values(same, 'content-length'), ...values(same, 'etag')]).toEqual(['1000', '"a"'])
    expect(last).toMatch(/^HTTP\/1\.1 200 [\s\S]*\r\n\r\nok$/)
  })

  test('204 carries no framing of its backend’s', async () => {
    const { got } = await passed(get('/'), 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n')
    expect([...values(got, 'content-length'), ...values(got, 'transfer-encoding')]).toEqual([])
  })

  test('are not decoded, and keep what they say about themselves', async () => {
    const fields = ['Content-Encoding: gzip', 'ETag: "x"', 'Cache-Control: no-transform', 'X-Accel-Buffering: no']
    const { got } = await passed(
      get('/'),
      `HTTP/1.1 200 OK\r\n${fields.join('\r\n')}\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\xff`,
    )
    for (const field of fields) {
      const [name = '', value] = field.split(': ')
      expect(values(got, name.toLowerCase())).toEqual([value])
    }
    expect(got.endsWith('\r\n\r\n\x1f\x8b\x08\xff')).toBe(true)
  })

  test.each([200, 201, 206, 301, 404, 418, 500, 599])('%i passes as it is', async (status) => {
    const { got } = await passed(get('/'), `HTTP/1.1 ${status} X\r\nLocation: /next\r\ncontent-length: 2\r\n\r\nok`)
    expect(got.startsWith(`HTTP/1.1 ${status} `)).toBe(true)
    expect(values(got, 'location')).toEqual(['/next'])
    expect(got).toMatch(/\r\n\r\nok$/)
  })

  test('small ones leave in one write: head, body and end', async () => {
    const { port } = await upstream((_, response) => response.end('x'.repeat(1024)))
    const client = await rawClient(await front(balance([`http://127.0.0.1:${port}`])))
    for (let i = 1; i <= 20; i++) {
      client.write(get('/'))
      await client.until((received) => received.split('x'.repeat(1024)).length > i)
      expect(client.reads).toHaveLength(i)
    }
  })

  test('small ones in chunks leave in one write, too', async () => {
    const { got, client } = await passed(
      get('/'),
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    )
    expect(got).toMatch(/2\r\nok\r\n0\r\n\r\n$/)
    expect(client.reads).toHaveLength(1)
  })

  test('events are passed on one by one, as they come', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write(
        'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n',
      )
    })
    const client = await rawClient(await front(balance([backend])))
    client.write(get('/'))
    expect(values(await client.until('\r\n\r\n'), 'content-type')).toEqual(['text/event-stream; charset=utf-8'])
    const wire = await backend.wire()
    for (const event of ['data: 1\n\n', 'data: 2\n\n', 'data: 3\n\n']) {
      wire.write(`${event.length.toString(16)}\r\n${event}\r\n`)
      await client.until(event)
    }
    client.socket.destroy()
    await wire.closed()
  })
})

describe('streams', () => {
  const bytes = randomFillSync(Buffer.alloc(32 * MIB))

  test.each(['with a length', 'in chunks'])('32 MiB up and down again, %s, byte by byte', async (how) => {
    const backend = await upstream((request, response) => {
      if (how === 'with a length') response.setHeader('content-length', bytes.length)
      request.pipe(response)
    })
    const proxy = await front(balance([backend]))
    const headers: Record<string, number> = how === 'with a length' ? { 'content-length': bytes.length } : {}
    const request = http.request(proxy.url, { method: 'POST', agent: false, headers })
    Readable.from(parts()).pipe(request)
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    expect(response.headers['content-length']).toBe(how === 'with a length' ? String(bytes.length) : undefined)
    expect(sha256(await bytesOf(response))).toBe(sha256(bytes))
  })

  test('a client that stops reading stops the backend, and gets every byte in the end', async () => {
    let made = 0
    const backend = await upstream((_, response) => {
      response.writeHead(200, { 'content-length': bytes.length })
      const go = (): void => {
        while (made < bytes.length) {
          made += 65_536
          if (!response.write(bytes.subarray(made - 65_536, made))) return void response.once('drain', go)
        }
        response.end()
      }
      go()
    })
    const balancer = balance([backend])
    const proxy = await front(balancer)
    const request = http.get(proxy.url, { agent: false })
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    response.pause()
    expect(await standstill(() => made)).toBeLessThan(bytes.length / 1.5)
    expect(inflight(balancer)).toBe(1)
    expect(sha256(await bytesOf(response))).toBe(sha256(bytes))
  })

  test('a backend that stops reading stops the client, and gets every byte in the end', async () => {
    const go = Promise.withResolvers<void>()
    const backend = await upstream(async (request, response) => {
      await go.promise
      response.end(sha256(await bytesOf(request)))
    })
    const proxy = await front(balance([backend]))
    const request = http.request(proxy.url, { method: 'PUT', agent: false })
    let taken = 0
    Readable.from(parts((upTo) => (taken = upTo))).pipe(request)
    expect(await standstill(() => taken)).toBeLessThan(bytes.length / 1.5)
    go.resolve()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    expect((await bytesOf(response)).toString()).toBe(sha256(bytes))
  })

  function* parts(told: (upTo: number) => void = () => {}): Generator<Buffer, void, undefined> {
    for (let from = 0; from < bytes.length; from += 65_536) {
      told(from + 65_536)
      yield bytes.subarray(from, from + 65_536)
    }
  }
})

describe('client connections', () => {
  test('are kept alive, as are the backend’s', async () => {
    const backend = await rawUpstream(says(OK))
    const client = await rawClient(await front(balance([backend])))
    for (let i = 1; i <= 5; i++) {
      client.write(get(`/${i}`))
      await client.until((received) => received.split('\r\n\r\nok').length > i)
    }
    expect(client.ending).toBeUndefined()
    expect(backend.wires).toHaveLength(1)
    expect(backend.wires[0]!.received.match(/^GET \/\d/gm)).toHaveLength(5)
  })

  test('of HTTP/1.0 get a plain body that ends with the connection', async () => {
    const client = await rawClient(
      await front(
        balance([
          await rawUpstream(says('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: 1\r\n\r\n')),
        ]),
      ),
    )
    client.write('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
    expect(await client.closed()).toBe('fin')
    expect(values(client.received, 'transfer-encoding')).toEqual([])
    expect(values(client.received, 'connection')).toEqual(['close'])
    expect(client.received).toMatch(/\r\n\r\nok$/)
  })

  test('of HTTP/1.0 keep a length that is known', async () => {
    const client = await rawClient(await front(balance([await rawUpstream(says(OK))])))
    client.write('GET / HTTP/1.0\r\n\r\n')
    expect(await client.closed()).toBe('fin')
    expect(values(client.received, 'content-length')).toEqual(['2'])
    expect(client.received).toMatch(/\r\n\r\nok$/)
  })

  test('pipelined requests are balanced one by one and answered in order', async () => {
    const go = Promise.withResolvers<void>()
    const slow = await keeper(async (request, response) => {
      await go.promise
      response.end(`slow ${request.url}`)
    })
    const fast = await keeper((request, response) => response.end(`fast ${request.url}`))
    const balancer = balance([slow, fast], { strategy: inTurn() })
    const client = await rawClient(await front(balancer))
    const post = 'POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc'
    client.write(get('/1') + post + get('/3') + get('/4', 'Connection: close'))
    await until(() => slow.got.length === 2 && fast.got.length === 2, 'each backend should have two')
    expect(client.received).toBe('')
    go.resolve()
    await client.closed()
    const bodies = client.received.match(/(?:slow|fast) \/\d/g) ?? []
    expect(bodies.map((body) => body.split(' ')[1])).toEqual(['/1', '/2', '/3', '/4'])
    expect(bodies.map((body) => body.split(' ')[0]).sort()).toEqual(['fast', 'fast', 'slow', 'slow'])
  })

  test('pipelined requests are all given up when their client is gone', async () => {
    const balancer = balance([
      await rawUpstream(async (wire) => {
        const head = await wire.head()
        // The answer to the second waits for the first: it is more than is taken in unread.
        if (head.includes('/2')) wire.write(`HTTP/1.1 200 OK\r\ncontent-length: ${MIB}\r\n\r\n${'x'.repeat(500_000)}`)
      }),
    ])
    const client = await rawClient(await front(balancer))
    client.write(get('/1') + get('/2') + get('/3'))
    await until(() => statsOf(balancer).requests === 3, 'three should have been sent')
    client.socket.destroy()
    await idle(balancer)
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 3 } })
  })

  test('Expect: 100-continue is answered by the proxy, and the body follows', async () => {
    const backend = await keeper()
    const client = await rawClient(await front(balance([backend])))
    client.write('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n')
    await client.until('HTTP/1.1 100 Continue\r\n\r\n')
    client.write('abc')
    await client.closed()
    expect(client.received).toMatch(/HTTP\/1\.1 200 [\s\S]*\r\n\r\nok$/)
    expect([backend.got[0]!.body.toString(), backend.got[0]!.headers.expect]).toEqual(['abc', undefined])
  })

  test.each(['GET', 'DELETE', 'PROPFIND', 'POST'])('%s without a body is sent without one', async (method) => {
    const backend = await keeper()
    await ask(await front(balance([backend])), '/', { method })
    expect(backend.got[0]).toMatchObject({ method, body: Buffer.alloc(0) })
    expect(backend.got[0]!.headers['transfer-encoding']).toBeUndefined()
  })

  test.each(['GET', 'DELETE', 'OPTIONS', 'PROPFIND'])('%s with a body is sent with it, framed', async (method) => {
    const backend = await keeper()
    const proxy = await front(balance([backend]))
    await ask(proxy, '/', { method, body: 'abc', headers: { 'content-length': '3' } })
    await ask(proxy, '/', { method, body: 'abc', headers: { 'transfer-encoding': 'chunked' } })
    expect(backend.got.map(({ body }) => body.toString())).toEqual(['abc', 'abc'])
    const framings = backend.got.map(({ headers }) => [headers['content-length'], headers['transfer-encoding']])
    expect(framings).toEqual([
      ['3', undefined],
      [undefined, 'chunked'],
    ])
  })
})

describe('a client that goes away', () => {
  test.each([
    ['before the head', ''],
    ['within the head of the answer', 'HTTP/1.1 200 OK\r\nx-half: '],
    ['before the body', 'HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n'],
    ['within the body', 'HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf'],
    ['within a chunked body', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n'],
  ])('%s takes its backend request along, and the backend is not blamed', async (_, begun) => {
    for (const how of ['destroy', 'resetAndDestroy'] as const) {
      const backend = await rawUpstream(async (wire) => {
        await wire.head()
        wire.write(begun)
      })
      const balancer = balance([backend])
      const client = await rawClient(await front(balancer))
      client.write(get('/'))
      const wire = await backend.wire()
      await wire.until('\r\n\r\n')
      if (begun.includes('\r\n\r\n') && !begun.endsWith('\r\n\r\n')) await client.until('half')
      client.socket[how]()
      await wire.closed()
      await idle(balancer)
      expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
      expect(balancer.stats().pools.default).toMatchObject({ attempts: 1, retries: 0, failed: 0 })
    }
  })

  test('while it does not read, takes its backend request along', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write(`HTTP/1.1 200 OK\r\ncontent-length: ${64 * MIB}\r\n\r\n`)
      wire.socket.write(Buffer.alloc(64 * MIB))
    })
    const balancer = balance([backend])
    const client = await rawClient(await front(balancer))
    client.write(get('/'))
    await client.until('\r\n\r\n')
    client.socket.pause()
    const wire = await backend.wire()
    await standstill(() => wire.socket.writableLength)
    client.socket.destroy()
    await wire.closed()
    await idle(balancer)
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
  })

  test.each([
    ['with a length', 'Content-Length: 10\r\n\r\nhalf'],
    ['in chunks', 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'],
  ])('within its upload (%s) takes its backend request along, never as a whole one', async (_, rest) => {
    const backend = await rawUpstream(() => {})
    const balancer = balance([backend])
    const client = await rawClient(await front(balancer))
    client.write(`PUT / HTTP/1.1\r\nHost: a\r\n${rest}`)
    const wire = await backend.wire()
    await wire.until('half')
    client.socket.destroy()
    await wire.closed()
    await idle(balancer)
    expect(wire.received).not.toContain('\r\n0\r\n\r\n')
    expect(statsOf(balancer)).toMatchObject({ requests: 1, failures: 0 })
    expect(backend.wires).toHaveLength(1)
  })
})

describe('a backend that dies within the body', () => {
  const MANY = 100_000 // more than is held back for a retry
  const framings = [
    ['of known length', `content-length: ${MANY}\r\n\r\nhalf`],
    ['in chunks', 'transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n'],
    ['in chunks, within one', 'transfer-encoding: chunked\r\n\r\nff\r\nhalf'],
  ] as const
  const deaths = [
    ['FIN', (wire: Wire) => wire.socket.end()],
    ['RST', (wire: Wire) => wire.socket.resetAndDestroy()],
  ] as const
  for (const [framing, rest] of framings) {
    for (const [death, die] of deaths) {
      test(`row 37: ${framing}, by ${death}: an HTTP/1.1 client is cut off, too`, async () => {
        const backend = await rawUpstream(async (wire) => {
          await wire.head()
          wire.write(`HTTP/1.1 200 OK\r\n${rest}`)
        })
        const balancer = balance([backend])
        const proxy = await front(balancer)
        const client = await rawClient(proxy)
        client.write(get('/'))
        await client.until('half')
        die(await backend.wire())
        await client.closed()
        expect(isWhole(client.received)).toBe(false)
        expect(client.received.match(/half/g)).toHaveLength(1)
        await idle(balancer)
        expect(statsOf(balancer)).toMatchObject({ requests: 1, failures: 1, classes: { truncated: 1 } })
      })

      test(`row 37: ${framing}, by ${death}: an HTTP/1.0 client, too, by a reset where nothing else tells`, async () => {
        const backend = await rawUpstream(async (wire) => {
          await wire.head()
          wire.write(`HTTP/1.1 200 OK\r\n${rest}`)
        })
        const client = await rawClient(await front(balance([backend])))
        client.write('GET / HTTP/1.0\r\n\r\n')
        await client.until('half')
        die(await backend.wire())
        const ending = await client.closed()
        if (framing !== 'of known length') expect(ending).toBe('reset')
        expect(isWhole(client.received)).toBe(false)
      })
    }
  }

  test('row 37: Node’s own clients see an error, never an end', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n')
      setImmediate(() => wire.socket.resetAndDestroy())
    })
    const proxy = await front(balance([backend]))
    await expect(ask(proxy, '/')).rejects.toMatchObject({ code: 'ECONNRESET' })
    await expect(fetch(proxy.url).then((response) => response.text())).rejects.toBeInstanceOf(TypeError)
  })
})

describe('errors', () => {
  /** A problem that tells what and which request, and nothing of the inside. */
  function isProblem(answer: Awaited<ReturnType<typeof ask>>, status: number, code: string, secrets: Upstream[]): void {
    expect(answer.status).toBe(status)
    expect(answer.headers['content-type']).toBe('application/problem+json')
    expect(Number(answer.headers['content-length'])).toBe(answer.body.length)
    const problem = JSON.parse(answer.body.toString()) as Record<string, unknown>
    expect(problem).toMatchObject({ type: 'about:blank', status, code, requestId: answer.headers['x-request-id'] })
    expect(typeof problem.title).toBe('string')
    const all = `${answer.rawHeaders.join('\n')}\n${answer.body}`
    for (const { port } of secrets) expect(all).not.toContain(String(port))
    expect(all).not.toMatch(/127\.0\.0\.1|localhost|ECONN|\bbackend| at |\.ts/i)
  }

  test('row 57: 502 when the only backend refuses', async () => {
    const dead = await nobody()
    const answer = await ask(await front(balance([dead])), '/')
    isProblem(answer, 502, 'CONNECT', [dead])
    expect(answer.headers['retry-after']).toBeUndefined()
  })

  test('row 57: 502 when the backend hangs up without an answer', async () => {
    const backend = await rawUpstream((wire) => wire.socket.end())
    isProblem(await ask(await front(balance([backend])), '/', { method: 'POST', body: 'x' }), 502, 'RESET', [backend])
  })

  test('row 57: 502 when the backend speaks no HTTP', async () => {
    const backend = await rawUpstream(says('SSH-2.0-OpenSSH_9.6\r\n\r\n'))
    isProblem(await ask(await front(balance([backend])), '/'), 502, 'PROTOCOL', [backend])
  })

  test('row 57: 502 when the backend’s TLS fails', async () => {
    const backend = await rawUpstream((wire) => wire.write('HTTP/1.1 400 Bad Request\r\n\r\n'))
    const balancer = balance([backend.url.replace('http', 'https')])
    isProblem(await ask(await front(balancer), '/'), 502, 'TLS', [backend])
  })

  test('row 57: 504 when the backend does not answer in time', async () => {
    const backend = await rawUpstream(() => {})
    const balancer = balance([backend], { timeouts: { headersMs: 30 }, retry: { attempts: 1 } })
    isProblem(await ask(await front(balancer), '/'), 504, 'TIMEOUT', [backend])
    await (await backend.wire()).closed()
    expect(statsOf(balancer)).toMatchObject({ failures: 1, classes: { timeout: 1 } })
  })

  test('row 57: 503 with Retry-After when nobody may be picked', async () => {
    const backend = await keeper()
    const balancer = kept(createBalancer({ backends: [{ url: backend.url, weight: 0, id: 'secret' }] }))
    const answer = await ask(await front(balancer), '/')
    isProblem(answer, 503, 'NO_BACKEND', [backend])
    expect(answer.headers['retry-after']).toBe('1')
    expect(answer.body.toString()).not.toContain('secret')
    expect(backend.got).toEqual([])
  })

  test('row 57: Retry-After is when the first backend comes back, if that is known', async () => {
    const dead = await nobody()
    const balancer = balance([dead], {
      health: { passive: { consecutive: 1, baseMs: 20_000, maxShare: 1 }, panicBelow: 0 },
      retry: { attempts: 1 },
    })
    const proxy = await front(balancer)
    isProblem(await ask(proxy, '/'), 502, 'CONNECT', [dead])
    const answer = await ask(proxy, '/')
    isProblem(answer, 503, 'NO_BACKEND', [dead])
    expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(18)
    expect(Number(answer.headers['retry-after'])).toBeLessThanOrEqual(22)
  })

  test('row 57: 503 when every backend is at its limit', async () => {
    const backend = await rawUpstream(() => {})
    const balancer = kept(createBalancer({ backends: [{ url: backend.url, maxInflight: 1 }] }))
    const proxy = await front(balancer)
    const client = await rawClient(proxy)
    client.write(get('/'))
    await backend.wire()
    const answer = await ask(proxy, '/')
    isProblem(answer, 503, 'OVERLOADED', [backend])
    expect(answer.headers['retry-after']).toBe('1')
    client.socket.destroy()
  })

  test('row 57: 503 once the balancer is closed', async () => {
    const backend = await keeper()
    const balancer = createBalancer({ backends: [backend.url] })
    const proxy = await front(balancer)
    await balancer.close()
    const answer = await ask(proxy, '/', { method: 'POST', body: 'x' })
    isProblem(answer, 503, 'CLOSED', [backend])
    expect(answer.headers['retry-after']).toBe('1')
  })

  test('row 57: 500 when what the balancer is told cannot be had', async () => {
    const proxy = await front(balance([await keeper()]), {
      call: () => {
        throw new Error('backend 127.0.0.1 said no')
      },
    })
    isProblem(await ask(proxy, '/'), 500, 'CONFIG', [])
  })

  test('the last real answer is passed on when retries end', async () => {
    const backend = await keeper((_, response) => response.writeHead(503, { 'x-mine': '1' }).end('busy'))
    const answer = await ask(await front(balance([backend], { retry: { attempts: 2, baseMs: 0 } })), '/')
    expect([answer.status, answer.headers['x-mine'], answer.body.toString()]).toEqual([503, '1', 'busy'])
    expect(backend.got).toHaveLength(2)
  })

  test('to HEAD have no body, and the connection goes on', async () => {
    const client = await rawClient(await front(balance([await nobody()], { retry: { attempts: 1 } })))
    client.write(`HEAD / HTTP/1.1\r\nHost: a\r\n\r\n${get('/', 'Connection: close')}`)
    await client.closed()
    expect(client.received.match(/HTTP\/1\.1 502/g)).toHaveLength(2)
    expect(client.received.match(/\{"type"/g)).toHaveLength(1)
  })

  test('before an upload was taken leave its client’s connection in order', async () => {
    const client = await rawClient(await front(balance([await nobody()], { retry: { attempts: 1 } })))
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${4 * MIB}\r\n\r\n`)
    client.socket.write(Buffer.alloc(4 * MIB, 'x'))
    client.write(get('/next', 'Connection: close'))
    await client.closed()
    // Then the next one is answered, or the connection closed: what must not be is the rest of the body taken for a request.
    const [first = '', ...rest] = client.received.split(/(?=HTTP\/1\.1 )/)
    expect(isWhole(first)).toBe(true)
    for (const answer of [first, ...rest]) expect(answer).toMatch(/^HTTP\/1\.1 502 /)
  })
})

describe('an answer that comes before the upload is done', () => {
  const REFUSED = 'HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig'
  const early = (close: boolean): Promise<RawUpstream> =>
    rawUpstream(async (wire) => {
      const head = await wire.head()
      if (head.startsWith('GET')) return wire.write(OK)
      wire.socket.pause()
      wire.write(REFUSED)
      if (close) wire.socket.end()
    })

  test.each([
    ['keeps its connection', false],
    ['hangs up', true],
  ])('reaches the client at once (the backend %s)', async (_, close) => {
    const balancer = balance([await early(close)])
    const client = await rawClient(await front(balancer))
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${64 * MIB}\r\n\r\n`)
    client.socket.write(Buffer.alloc(MIB, 'x'))
    expect(await client.until('\r\n\r\nbig')).toMatch(/^HTTP\/1\.1 413 /)
    await idle(balancer)
    client.socket.destroy()
  })

  test.each([8 * MIB, 64])('and leaves no client hanging that goes on sending %i bytes', async (length) => {
    const balancer = balance([await early(false)])
    const client = await rawClient(await front(balancer))
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\nx`)
    await client.until('\r\n\r\nbig')
    client.socket.write(Buffer.alloc(length - 1, 'x'))
    client.write(get('/next'))
    // Either way is right: the rest is drained and the next request answered, or the connection closed.
    const next = client.until('\r\n\r\nok').then(
      () => 'answered',
      () => 'closed',
    )
    const outcome = await Promise.race([next, pause(3_000).then(() => 'hanging')])
    expect(outcome).not.toBe('hanging')
    client.socket.destroy()
  })
})

describe('a request body that must be sent again', () => {
  /** Reads a request as a whole, then breaks the connection without a word. */
  async function quitter(): Promise<Upstream & { readonly got: readonly { readonly body: Buffer }[] }> {
    return keeper((_, response) => response.socket!.resetAndDestroy())
  }
  const retry = { baseMs: 0 }

  test.each([
    ['nothing', 0, false],
    ['ten bytes', 10, false],
    ['ten bytes in chunks', 10, true],
    ['60 KiB', 60 * 1024, false],
    ['60 KiB in chunks', 60 * 1024, true],
    ['64 KiB, the limit', 65_536, false],
  ])('arrives whole on the next backend (%s)', async (_, length, chunked) => {
    const [first, second] = [await quitter(), await keeper()]
    const proxy = await front(balance([first, second], { strategy: inOrder, retry }))
    const body = randomFillSync(Buffer.alloc(length))
    const headers: Record<string, string> = chunked
      ? { 'transfer-encoding': 'chunked' }
      : { 'content-length': `${length}` }
    const answer = await ask(proxy, '/', { method: 'PUT', body, headers })
    expect([answer.status, answer.body.toString()]).toEqual([200, 'ok'])
    expect(first.got.map((got) => sha256(got.body))).toEqual([sha256(body)])
    expect(second.got.map((got) => sha256(got.body))).toEqual([sha256(body)])
  })

  test('arrives whole though the first backend broke off while it came', async () => {
    const first = await rawUpstream(async (wire) => {
      await wire.until('first,')
      wire.socket.resetAndDestroy()
    })
    const second = await keeper()
    const balancer = balance([first, second], { strategy: inOrder, retry })
    const client = await rawClient(await front(balancer))
    client.write('PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nConnection: close\r\n\r\nfirst,')
    await until(() => statsOf(balancer, 1).requests === 1, 'the second backend should have been asked')
    client.write('second')
    await client.closed()
    expect(client.received).toMatch(/^HTTP\/1\.1 200 /)
    expect(second.got.map(({ body }) => body.toString())).toEqual(['first,second'])
  })

  test.each([
    ['with a length', false],
    ['in chunks', true],
  ])('is not sent again once it is larger than what is kept (%s)', async (_, chunked) => {
    const [first, second] = [await quitter(), await keeper()]
    const proxy = await front(balance([first, second], { strategy: inOrder, retry }), { bufferBytes: 1_000 })
    const body = Buffer.alloc(1_001)
    const headers: Record<string, string> = chunked ? { 'transfer-encoding': 'chunked' } : { 'content-length': '1001' }
    const answer = await ask(proxy, '/', { method: 'PUT', body, headers })
    expect(answer.status).toBe(502)
    expect(first.got.map((got) => got.body.length)).toEqual([1_001])
    expect(second.got).toEqual([])
  })

  test('is never sent twice when it is a POST the first backend may have worked on', async () => {
    const [first, second] = [await quitter(), await keeper()]
    const proxy = await front(balance([first, second], { strategy: inOrder, retry }))
    for (let i = 1; i <= 3; i++) {
      const answer = await ask(proxy, '/', { method: 'POST', body: 'pay 10' })
      expect(answer.status).toBe(502)
      expect(first.got).toHaveLength(i)
    }
    expect(second.got).toEqual([])
  })

  test('is never sent twice when it is a POST on a connection that had been used before', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write(OK)
      await wire.until('pay 10')
      wire.socket.resetAndDestroy()
    })
    const proxy = await front(balance([backend], { retry }))
    expect((await ask(proxy, '/')).status).toBe(200)
    expect((await ask(proxy, '/', { method: 'POST', body: 'pay 10' })).status).toBe(502)
    expect(backend.wires).toHaveLength(1)
  })

  test('is sent elsewhere, POST or not, when the first backend never saw it', async () => {
    const second = await keeper()
    const proxy = await front(balance([await nobody(), second], { strategy: inOrder, retry }))
    const answer = await ask(proxy, '/', { method: 'POST', body: 'pay 10' })
    expect(answer.status).toBe(200)
    expect(second.got.map(({ body }) => body.toString())).toEqual(['pay 10'])
  })

  test('arrives with its type and other fields, each time', async () => {
    const [first, second] = [await keeper((_, response) => response.writeHead(503).end()), await keeper()]
    const proxy = await front(balance([first, second], { strategy: inOrder, retry }))
    await ask(proxy, '/', { method: 'PUT', body: 'x', headers: { 'content-type': 'a/b; c=d', 'X-Mine': '1' } })
    for (const { got } of [first, second]) {
      expect(got).toHaveLength(1)
      expect(valuesOf(got[0]!.rawHeaders, 'content-type')).toEqual(['a/b; c=d'])
      expect(valuesOf(got[0]!.rawHeaders, 'x-mine')).toEqual(['1'])
      expect(valuesOf(got[0]!.rawHeaders, 'content-length')).toEqual(['1'])
    }
    const ids = [first, second].map(({ got }) => got[0]!.headers['x-request-id'])
    assert.equal(ids[0], ids[1])
  })
})
