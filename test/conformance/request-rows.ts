// Long, because it is one list: how requests are framed, refused, repeated and answered when nobody can serve them.
import { randomFillSync } from 'node:crypto'
import type { Strategy } from 'evenkeel'
import { expect } from 'vitest'
import {
  type Answer,
  ask,
  idle,
  keeper,
  MIB,
  nobody,
  OK,
  pause,
  rawClient,
  rawUpstream,
  says,
  sha256,
  type Upstream,
  valuesOf,
} from '../support/upstreams.ts'
import { get, isWhole, NOT_BY_WEB, passed, refused, statusOf, values } from './passing.ts'
import type { Front, Row } from './row.ts'

const POST = 'POST / HTTP/1.1\r\nHost: a\r\n'
const CHUNKED = '3\r\nabc\r\n0\r\n\r\n'

/** Requests that two readers may take for different ones. */
const ambiguous = [
  ['both lengths', `${POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED}`],
  ['two lengths', `${POST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`],
  ['two equal lengths', `${POST}Content-Length: 3\r\ncontent-length: 3\r\n\r\nabc`],
  ['a list of lengths', `${POST}Content-Length: 3, 3\r\n\r\nabc`],
  ['a signed length', `${POST}Content-Length: +3\r\n\r\nabc`],
  ['a length in hex', `${POST}Content-Length: 0x3\r\n\r\nabc`],
  ['an endless length', `${POST}Content-Length: 99999999999999999999\r\n\r\nabc`],
  ['a folded field', `${POST}X-A: 1\r\n 2\r\n\r\n`],
  ['a NUL in a field', `${POST}X-A: 1\0\r\n\r\n`],
  ['a CR in a field', `${POST}X-A: 1\rX-B: 2\r\n\r\n`],
  ['a control in a field', `${POST}X-A: 1\x01\r\n\r\n`],
  ['a space before the colon', `${POST}X-A : 1\r\n\r\n`],
  ['a name that is none', `${POST}X(A: 1\r\n\r\n`],
  ['a chunk of no length', `${POST}Transfer-Encoding: chunked\r\n\r\nz\r\nabc\r\n0\r\n\r\n`],
  ['a chunk that is too long', `${POST}Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n`],
] as const

const codings = ['gzip, chunked', 'chunked, chunked', 'chunked, gzip', 'gzip', 'identity', 'x', 'chunked;a=b', '']

/** Reads a request as a whole, then breaks the connection without a word. */
async function quitter(): Promise<Upstream & { readonly got: readonly { readonly body: Buffer }[] }> {
  return keeper((_, response) => response.socket!.resetAndDestroy())
}

/** Takes the backends in the order they were given: a row knows who is asked first. */
const inOrder: Strategy = {
  name: 'in order',
  start: () => ({
    build:
      ({ eligible }) =>
      (call) =>
        eligible.find((backend) => !call.tried(backend)),
  }),
}
const retry = { baseMs: 0 }

/** A problem that tells what and which request, and nothing of the inside. */
function isProblem(answer: Answer, status: number, code: string, secrets: readonly Upstream[]): void {
  expect(answer.status).toBe(status)
  expect(answer.headers['content-type']).toBe('application/problem+json')
  const problem = JSON.parse(answer.body.toString()) as Record<string, unknown>
  expect(problem).toMatchObject({ type: 'about:blank', status, code, requestId: answer.headers['x-request-id'] })
  expect(typeof problem.title).toBe('string')
  const all = `${answer.rawHeaders.join('\n')}\n${answer.body}`
  for (const { port } of secrets) expect(all).not.toContain(String(port))
  expect(all).not.toMatch(/127\.0\.0\.1|localhost|ECONN|\bbackend| at |\.ts/i)
}

/** What goes wrong behind the proxy, and what its client is told. */
const failures: readonly {
  readonly when: string
  readonly status: number
  readonly code: string
  backend(): Promise<Upstream>
  readonly balancer?: Parameters<Front>[1] & object
}[] = [
  { when: 'the only backend refuses', status: 502, code: 'CONNECT', backend: nobody },
  {
    when: 'the backend hangs up without an answer',
    status: 502,
    code: 'RESET',
    backend: () => rawUpstream((wire) => wire.socket.end()),
  },
  {
    when: 'the backend speaks no HTTP',
    status: 502,
    code: 'PROTOCOL',
    backend: () => rawUpstream(says('SSH-2.0-OpenSSH_9.6\r\n\r\n')),
  },
  {
    when: 'the backend’s TLS fails',
    status: 502,
    code: 'TLS',
    async backend() {
      const { url, port } = await rawUpstream((wire) => wire.write('HTTP/1.1 400 Bad Request\r\n\r\n'))
      return { url: url.replace('http', 'https'), port }
    },
  },
  {
    when: 'the backend does not answer in time',
    status: 504,
    code: 'TIMEOUT',
    backend: () => rawUpstream(() => {}),
    balancer: { balancer: { timeouts: { headersMs: 30 }, retry: { attempts: 1 } } },
  },
]

/** Rows 22 to 33 and 53 to 57. */
export const REQUEST_ROWS: readonly Row[] = [
  ...ambiguous.map(
    ([what, request]): Row => ({
      number: 22,
      says: `a request with ${what} is answered 400, and its connection ends`,
      async run(front) {
        const backend = await keeper()
        const client = await rawClient(await front([backend]))
        client.write(request + get('/smuggled'))
        await client.closed()
        expect(statusOf(client.received)).toBe(400)
        expect(client.received.match(/HTTP\/1\.1 /g)).toHaveLength(1)
        expect(backend.got).toEqual([])
      },
    }),
  ),
  ...codings.map(
    (coding): Row => ({
      number: 23,
      says: `a transfer coding of "${coding}" is refused, and the connection ends`,
      async run(front) {
        const backend = await keeper()
        const client = await rawClient(await front([backend]))
        client.write(`${POST}Transfer-Encoding: ${coding}\r\n\r\n${CHUNKED}${get('/smuggled')}`)
        await client.closed()
        expect([400, 501]).toContain(statusOf(client.received))
        expect([client.received.match(/HTTP\/1\.1 2/g), backend.got]).toEqual([null, []])
      },
    }),
  ),
  {
    number: 23,
    says: 'what is chunked behind another coding is answered 501',
    async run(front) {
      const got = await refused(front, `${POST}Transfer-Encoding: gzip, chunked\r\n\r\n${CHUNKED}`)
      expect([statusOf(got), ...values(got, 'connection')]).toEqual([501, 'close'])
    },
  },
  {
    number: 24,
    says: 'Transfer-Encoding in HTTP/1.0 is answered 400, and the connection ends',
    not: NOT_BY_WEB,
    async run(front) {
      const backend = await keeper()
      const client = await rawClient(await front([backend]))
      client.write(
        `POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED}`,
      )
      await client.closed()
      expect([statusOf(client.received), backend.got]).toEqual([400, []])
    },
  },
  ...['GET', 'DELETE', 'OPTIONS', 'PROPFIND'].map(
    (method): Row => ({
      number: 25,
      says: `${method} with a body is sent with it, framed`,
      ...(method === 'GET' && { not: NOT_BY_WEB }),
      async run(front) {
        const backend = await keeper()
        const proxy = await front([backend])
        await ask(proxy, '/', { method, body: 'abc', headers: { 'content-length': '3' } })
        await ask(proxy, '/', { method, body: 'abc', headers: { 'transfer-encoding': 'chunked' } })
        expect(backend.got.map(({ body }) => body.toString())).toEqual(['abc', 'abc'])
        const framings = backend.got.map(({ headers }) => [headers['content-length'], headers['transfer-encoding']])
        expect(framings).toEqual([
          ['3', undefined],
          [undefined, 'chunked'],
        ])
      },
    }),
  ),
  ...['GET', 'HEAD', 'DELETE', 'OPTIONS'].map(
    (method): Row => ({
      number: 25,
      says: `a backend that takes the body of ${method} for a request never gets another client’s behind it`,
      async run(front) {
        // It answers heads, and knows of no bodies.
        const backend = await rawUpstream(says('HTTP/1.1 204 No Content\r\n\r\n'))
        const proxy = await front([backend])
        const body = get('/smuggled')
        for (const framed of [
          `Content-Length: ${body.length}\r\n\r\n${body}`,
          `Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
        ]) {
          const client = await rawClient(proxy)
          client.write(`${method} / HTTP/1.1\r\nHost: a\r\n${framed}`)
          await client.until('\r\n\r\n')
          const next = await rawClient(proxy)
          next.write(get('/victim'))
          await next.until('\r\n\r\n')
        }
        const after = backend.wires.filter(({ received }) => /\/smuggled[\s\S]*\/victim/.test(received))
        expect(after).toEqual([])
      },
    }),
  ),
  {
    number: 25,
    says: 'or is refused on demand',
    about: 'ours',
    async run(front) {
      const options = { proxy: { strayBodies: 'reject' } } as const
      for (const framed of ['Content-Length: 3\r\n\r\nabc', `Transfer-Encoding: chunked\r\n\r\n${CHUNKED}`]) {
        expect(statusOf(await refused(front, `DELETE / HTTP/1.1\r\nHost: a\r\n${framed}`, options))).toBe(400)
      }
      await passed(front, `${POST}Content-Length: 3\r\n\r\nabc`, OK, { ...options, bodyEnd: 'abc' })
    },
  },
  ...['GET', 'DELETE', 'PROPFIND', 'POST'].map(
    (method): Row => ({
      number: 26,
      says: `${method} without a body is sent without one`,
      async run(front) {
        const backend = await keeper()
        await ask(await front([backend]), '/', { method })
        expect(backend.got[0]).toMatchObject({ method, body: Buffer.alloc(0) })
        expect(backend.got[0]!.headers['transfer-encoding']).toBeUndefined()
      },
    }),
  ),
  {
    number: 26,
    says: 'a body that ends before its length never looks whole',
    async run(front) {
      const backend = await rawUpstream(() => {})
      const client = await rawClient(await front([backend]))
      client.write(`${POST}Content-Length: 10\r\n\r\nhalf`)
      const wire = await backend.wire()
      await wire.until('half')
      client.socket.end()
      await wire.closed()
      await client.closed()
      expect(client.received === '' || statusOf(client.received) === 400).toBe(true)
      expect(wire.received.endsWith('half')).toBe(true)
      expect(backend.wires).toHaveLength(1)
    },
  },
  {
    number: 26,
    says: 'what follows a body is the next request, never part of it',
    async run(front) {
      const backend = await keeper((request, response) => response.end(request.url))
      const client = await rawClient(await front([backend]))
      client.write(`${POST}Content-Length: 3\r\n\r\nabc${get('/next', 'Connection: close')}`)
      await client.closed()
      expect(backend.got.map(({ path, body }) => [path, body.toString()])).toEqual([
        ['/', 'abc'],
        ['/next', ''],
      ])
    },
  },
  {
    number: 27,
    says: 'Expect: 100-continue is answered by the proxy, and the body follows',
    async run(front) {
      const backend = await keeper()
      const client = await rawClient(await front([backend]))
      client.write(`${POST}Expect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n`)
      await client.until('HTTP/1.1 100 Continue\r\n\r\n')
      client.write('abc')
      await client.closed()
      expect(client.received).toMatch(/HTTP\/1\.1 200 [\s\S]*\r\n\r\n/)
      expect([backend.got[0]!.body.toString(), backend.got[0]!.headers.expect]).toEqual(['abc', undefined])
    },
  },
  {
    number: 27,
    says: 'any other expectation is answered 417',
    async run(front) {
      expect(statusOf(await refused(front, get('/', 'Expect: 200-ok', 'Connection: close')))).toBe(417)
    },
  },
  {
    number: 28,
    says: 'pipelined requests are answered in order',
    async run(front) {
      const go = Promise.withResolvers<void>()
      const backend = await keeper(async (request, response) => {
        if (request.url === '/1') await go.promise
        if (request.url === '/3') go.resolve()
        response.end(request.url)
      })
      const client = await rawClient(await front([backend]))
      const post = 'POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc'
      client.write(get('/1') + post + get('/3') + get('/4', 'Connection: close'))
      await client.closed()
      expect(client.received.match(/(?<=\r\n\r\n(?:2\r\n)?)\/\d/g)).toEqual(['/1', '/2', '/3', '/4'])
    },
  },
  {
    number: 29,
    says: 'an answer that comes before the upload’s end reaches the client at once',
    async run(front) {
      const backend = await rawUpstream(async (wire) => {
        await wire.head()
        wire.socket.pause()
        wire.write('HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig')
      })
      const client = await rawClient(await front([backend]))
      client.write(`${POST}Content-Length: ${64 * MIB}\r\n\r\n`)
      client.socket.write(Buffer.alloc(MIB, 'x'))
      expect(statusOf(await client.until('\r\n\r\nbig'))).toBe(413)
      client.socket.destroy()
    },
  },
  {
    number: 29,
    says: 'and what is still to come of the upload is never taken for a request',
    async run(front) {
      const backend = await rawUpstream(async (wire) => {
        const head = await wire.head()
        wire.write(head.startsWith('POST') ? 'HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig' : OK)
      })
      const client = await rawClient(await front([backend]))
      const smuggled = get('/smuggled')
      client.write(`${POST}Content-Length: ${smuggled.length + 1}\r\n\r\nx`)
      await client.until('\r\n\r\nbig')
      client.write(smuggled + get('/next', 'Connection: close'))
      await client.closed()
      for (const { received } of backend.wires) expect(received).not.toMatch(/\r\n\r\n[\s\S]*GET \/smuggled/)
    },
  },
  {
    number: 30,
    says: 'CONNECT opens nothing, and what follows it is no request',
    async run(front) {
      const backend = await keeper()
      const client = await rawClient(await front([backend]))
      client.write(`CONNECT 127.0.0.1:${backend.port} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n${get('/smuggled')}`)
      await client.closed()
      expect(client.received).not.toMatch(/ 200 /)
      expect(client.received.match(/HTTP\/1\.1 /g) ?? []).toHaveLength(client.received === '' ? 0 : 1)
      expect(backend.got).toEqual([])
    },
  },
  ...['PROPFIND', 'QUERY', 'M-SEARCH', 'PATCH'].map(
    (method): Row => ({
      number: 31,
      says: `${method} is passed on as it is`,
      ...(method === 'QUERY' && { not: { fastify: 'it routes such methods only for apps that ask for it' } }),
      async run(front) {
        const { sent, got } = await passed(front, `${method} / HTTP/1.1\r\nHost: a\r\n\r\n`)
        expect([sent.split(' ')[0], statusOf(got)]).toEqual([method, 200])
      },
    }),
  ),
  {
    number: 31,
    says: 'a method that is not on the list is answered 405, with the list',
    about: 'ours',
    async run(front) {
      const options = { proxy: { methods: ['GET', 'HEAD'] } }
      const got = await refused(front, `${POST}Content-Length: 0\r\n\r\n`, options)
      expect([statusOf(got), ...values(got, 'allow')]).toEqual([405, 'GET, HEAD'])
      await passed(front, get('/'), OK, options)
    },
  },
  {
    number: 32,
    says: 'a target is as long as its limit, 8 KiB: above it 414',
    about: 'ours',
    async run(front) {
      await passed(front, get(`/${'x'.repeat(8_191)}`))
      expect(statusOf(await refused(front, get(`/${'x'.repeat(8_192)}`)))).toBe(414)
      const options = { proxy: { limits: { targetBytes: 10 } } }
      await passed(front, get('/23456789?'), OK, options)
      expect(statusOf(await refused(front, get('/23456789?b'), options))).toBe(414)
    },
  },
  {
    number: 32,
    says: 'fields are as many as their limit, 100: above it 431',
    about: 'ours',
    async run(front) {
      const fields = Array.from({ length: 99 }, (_, i) => `X-${i}: 1`)
      const { sent } = await passed(front, get('/', ...fields))
      expect(values(sent, 'x-98')).toEqual(['1'])
      expect(statusOf(await refused(front, get('/', ...fields, 'X-99: 1')))).toBe(431)
    },
  },
  {
    number: 32,
    says: 'fields are as long as their limit, of any server: above it 431',
    async run(front) {
      expect(statusOf(await refused(front, get('/', `X-A: ${'x'.repeat(17_000)}`)))).toBe(431)
    },
  },
  {
    number: 32,
    says: 'or of their own',
    about: 'ours',
    async run(front) {
      // 'Host' and 'front.test' are 14 bytes.
      const options = { proxy: { limits: { headerBytes: 20 } } }
      await passed(front, get('/', 'X-A: 123'), OK, options)
      expect(statusOf(await refused(front, get('/', 'X-A: 1234'), options))).toBe(431)
    },
  },
  {
    number: 32,
    says: 'a body is as long as its limit, announced or not: above it 413',
    about: 'ours',
    async run(front) {
      const backend = await keeper()
      const balancer = { retry: { attempts: 1 } }
      const proxy = await front([backend], { proxy: { limits: { bodyBytes: 1_000 } }, balancer })
      for (const headers of [{ 'content-length': 1_000 }, { 'transfer-encoding': 'chunked' }]) {
        expect((await ask(proxy, '/', { method: 'PUT', body: Buffer.alloc(1_000), headers })).status).toBe(200)
      }
      for (const headers of [{ 'content-length': 1_001 }, { 'transfer-encoding': 'chunked' }]) {
        const answer = await ask(proxy, '/', { method: 'PUT', body: Buffer.alloc(1_001), headers })
        isProblem(answer, 413, 'BODY_TOO_LARGE', [backend])
      }
      expect(backend.got.map(({ body }) => body.length)).toEqual([1_000, 1_000])
    },
  },
  {
    number: 32,
    says: 'a client that sends far more than is allowed still reads its 413',
    about: 'ours',
    not: NOT_BY_WEB,
    async run(front) {
      const backend = await keeper()
      const client = await rawClient(await front([backend], { proxy: { limits: { bodyBytes: 1_000 } } }))
      client.write(`${POST}Content-Length: ${8 * MIB}\r\n\r\n`)
      client.socket.write(Buffer.alloc(8 * MIB, 'x'))
      expect(statusOf(await client.until(isWhole))).toBe(413)
      expect(backend.got).toEqual([])
      client.socket.destroy()
    },
  },
  ...['2.0', '0.9', '1.9', '3.0'].map(
    (version): Row => ({
      number: 33,
      says: `a first line of HTTP/${version} is not served`,
      not: NOT_BY_WEB,
      async run(front) {
        const backend = await keeper()
        const client = await rawClient(await front([backend]))
        client.write(`GET / HTTP/${version}\r\nHost: a\r\n\r\n`)
        await client.closed()
        expect([400, 505]).toContain(statusOf(client.received))
        expect(backend.got).toEqual([])
      },
    }),
  ),
  {
    number: 33,
    says: 'a first line of HTTP/2.0 is answered 505',
    not: NOT_BY_WEB,
    async run(front) {
      expect(statusOf(await refused(front, 'GET / HTTP/2.0\r\nHost: a\r\n\r\n'))).toBe(505)
    },
  },
  ...(
    [
      ['nothing', 0, false],
      ['ten bytes', 10, false],
      ['ten bytes in chunks', 10, true],
      ['60 KiB in chunks', 60 * 1024, true],
      ['64 KiB, the limit', 65_536, false],
    ] as const
  ).map(
    ([what, length, chunked]): Row => ({
      number: 53,
      says: `a body that must be sent again arrives whole on the next backend (${what})`,
      about: 'ours',
      async run(front) {
        const [first, second] = [await quitter(), await keeper()]
        const proxy = await front([first, second], { balancer: { strategy: inOrder, retry } })
        const body = randomFillSync(Buffer.alloc(length))
        const headers: Record<string, string> = chunked
          ? { 'transfer-encoding': 'chunked' }
          : { 'content-length': `${length}` }
        expect((await ask(proxy, '/', { method: 'PUT', body, headers })).status).toBe(200)
        expect(first.got.map((got) => sha256(got.body))).toEqual([sha256(body)])
        expect(second.got.map((got) => sha256(got.body))).toEqual([sha256(body)])
      },
    }),
  ),
  ...[false, true].map(
    (chunked): Row => ({
      number: 53,
      says: `it is not sent again once it is larger than what is kept (${chunked ? 'in chunks' : 'with a length'})`,
      about: 'ours',
      async run(front) {
        const [first, second] = [await quitter(), await keeper()]
        const proxy = await front([first, second], {
          proxy: { bufferBytes: 1_000 },
          balancer: { strategy: inOrder, retry },
        })
        const headers: Record<string, string> = chunked
          ? { 'transfer-encoding': 'chunked' }
          : { 'content-length': '1001' }
        expect((await ask(proxy, '/', { method: 'PUT', body: Buffer.alloc(1_001), headers })).status).toBe(502)
        expect([first.got.length, second.got.length]).toEqual([1, 0])
      },
    }),
  ),
  {
    number: 54,
    says: 'a POST that a backend may have worked on is never sent twice',
    async run(front) {
      const backend = await quitter()
      const proxy = await front([backend, backend.url.replace('127.0.0.1', 'localhost')])
      expect((await ask(proxy, '/', { method: 'POST', body: 'pay 10' })).status).toBeGreaterThanOrEqual(500)
      expect(backend.got).toHaveLength(1)
    },
  },
  {
    number: 54,
    says: 'a POST that no backend has seen is sent to the next',
    about: 'ours',
    async run(front) {
      const second = await keeper()
      const proxy = await front([await nobody(), second], { balancer: { strategy: inOrder, retry } })
      expect((await ask(proxy, '/', { method: 'POST', body: 'pay 10' })).status).toBe(200)
      expect(second.got.map(({ body }) => body.toString())).toEqual(['pay 10'])
    },
  },
  {
    number: 54,
    says: 'each repeat carries the request’s own fields, once',
    about: 'ours',
    async run(front) {
      const [first, second] = [await keeper((_, response) => response.writeHead(503).end()), await keeper()]
      const proxy = await front([first, second], { balancer: { strategy: inOrder, retry } })
      await ask(proxy, '/', { method: 'PUT', body: 'x', headers: { 'content-type': 'a/b; c=d', 'X-Mine': '1' } })
      const [once, again] = [first, second].map(({ got }) =>
        ['content-type', 'x-mine', 'content-length', 'via', 'x-forwarded-for', 'x-request-id'].map((name) =>
          valuesOf(got[0]!.rawHeaders, name),
        ),
      )
      expect(once!.every(({ length }) => length === 1)).toBe(true)
      expect(again).toEqual(once)
    },
  },
  {
    number: 54,
    says: 'the last real answer is passed on when repeats end',
    about: 'ours',
    async run(front) {
      const backend = await keeper((_, response) => response.writeHead(503, { 'x-mine': '1' }).end('busy'))
      const answer = await ask(await front([backend], { balancer: { retry: { attempts: 2, baseMs: 0 } } }), '/')
      expect([answer.status, answer.headers['x-mine'], answer.body.toString()]).toEqual([503, '1', 'busy'])
      expect(backend.got).toHaveLength(2)
    },
  },
  ...(['GET', 'PUT', 'POST'] as const).map(
    (method): Row => ({
      number: 55,
      says: `a connection that dies of old age under ${method} is ${method === 'POST' ? 'a 502, never a repeat' : 'replaced once'}`,
      async run(front) {
        const backend = await rawUpstream(async (wire, number) => {
          await wire.head()
          wire.write(OK)
          if (number > 0) return
          await wire.until((received) => received.split('HTTP/1.1').length > 2)
          wire.socket.resetAndDestroy()
        })
        const proxy = await front([backend])
        expect((await ask(proxy, '/')).status).toBe(200)
        const body = method === 'GET' ? undefined : 'x'
        const { status } = await ask(proxy, '/', { method, ...(body !== undefined && { body }) })
        // The second answer comes before the body: what is asked is who gets it.
        if (method !== 'POST') return expect([status, backend.wires.length]).toEqual([200, 2])
        // Who uses no connection twice has none that could die of old age.
        expect(backend.wires.filter(({ received }) => received.includes('POST /'))).toHaveLength(1)
        expect(status).toBe(backend.wires.length === 1 ? 502 : 200)
      },
    }),
  ),
  ...failures.map(
    ({ when, status, code, backend, balancer }): Row => ({
      number: 56,
      says: `${status} and ${code} when ${when}, and nothing of the inside`,
      about: 'ours',
      async run(front) {
        const dead = await backend()
        const proxy = await front([dead], { balancer: { retry: { attempts: 1 } }, ...balancer })
        isProblem(await ask(proxy, '/', { method: 'POST', body: 'x' }), status, code, [dead])
      },
    }),
  ),
  {
    number: 56,
    says: 'a client that stops in the middle of its body gets 408, and is not waited for',
    about: 'ours',
    async run(front) {
      const backend = await rawUpstream(() => {})
      const proxy = await front([backend], { proxy: { clientIdleMs: 30 } })
      for (const framed of ['Content-Length: 10\r\n\r\nhalf', 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n']) {
        const client = await rawClient(proxy)
        client.write(`${POST}${framed}`)
        await client.closed()
        expect([statusOf(client.received), ...values(client.received, 'connection')]).toEqual([408, 'close'])
      }
      for (const wire of backend.wires) {
        await wire.closed()
        expect(wire.received).not.toContain('\r\n0\r\n\r\n')
      }
    },
  },
  {
    number: 56,
    says: 'a client that waits for a slow backend is not blamed for it',
    about: 'ours',
    async run(front) {
      const backend = await keeper(async (_, response) => {
        await pause(60)
        response.end('ok')
      })
      const proxy = await front([backend], { proxy: { clientIdleMs: 20 } })
      expect((await ask(proxy, '/', { method: 'POST', body: 'all of it' })).status).toBe(200)
    },
  },
  {
    number: 57,
    says: 'a problem has no body for HEAD, and the connection goes on',
    about: 'ours',
    async run(front) {
      const client = await rawClient(await front([await nobody()], { balancer: { retry: { attempts: 1 } } }))
      client.write(`HEAD / HTTP/1.1\r\nHost: a\r\n\r\n${get('/', 'Connection: close')}`)
      await client.closed()
      expect(client.received.match(/HTTP\/1\.1 502/g)).toHaveLength(2)
      expect(client.received.match(/\{"type"/g)).toHaveLength(1)
    },
  },
  {
    number: 57,
    says: 'with exposeErrors a problem tells the cause and the backend',
    about: 'ours',
    async run(front) {
      const dead = await nobody()
      const answer = await ask(
        await front([dead], {
          proxy: { exposeErrors: true, requestHeaders: { set: { authorization: 'Bearer canary-123456' } } },
          balancer: { retry: { attempts: 1 } },
        }),
        '/',
      )
      const { detail, backend } = JSON.parse(answer.body.toString()) as Record<string, string>
      expect([answer.status, backend]).toEqual([502, `127.0.0.1:${dead.port}`])
      expect(detail).toContain('ECONNREFUSED')
      expect(detail).not.toContain('canary')
    },
  },
  {
    number: 57,
    says: 'an error before an upload was taken leaves its client’s connection in order',
    about: 'ours',
    not: NOT_BY_WEB,
    async run(front) {
      const client = await rawClient(await front([await nobody()], { balancer: { retry: { attempts: 1 } } }))
      client.write(`${POST}Content-Length: ${MIB}\r\n\r\n`)
      client.socket.write(Buffer.alloc(MIB, 'x'))
      client.write(get('/next', 'Connection: close'))
      await client.closed()
      // Then the next one is answered, or the connection closed: what must not be is the rest of the body taken for a request.
      const [first = '', ...rest] = client.received.split(/(?=HTTP\/1\.1 )/)
      expect(isWhole(first)).toBe(true)
      for (const answer of [first, ...rest]) expect(statusOf(answer)).toBe(502)
    },
  },
  {
    number: 57,
    says: '503 once the balancer is closed, and clients are sent away',
    about: 'ours',
    async run(front) {
      const backend = await keeper()
      const { balancer, ...proxy } = await front([backend])
      await idle(balancer!)
      await balancer!.close()
      const client = await rawClient(proxy)
      client.write(get('/'))
      await client.closed()
      expect([statusOf(client.received), ...values(client.received, 'connection')]).toEqual([503, 'close'])
      isProblem(await ask(proxy, '/', { method: 'POST', body: 'x' }), 503, 'CLOSED', [backend])
    },
  },
]
