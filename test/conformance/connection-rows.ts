import { expect } from 'vitest'
import { ask, keeper, OK, rawClient, rawUpstream, says } from '../support/upstreams.ts'
import { get, isWhole, NOT_BY_WEB, passed, refused, statusOf, values } from './passing.ts'
import type { Row } from './row.ts'

/** Named by Connection or not, these are of one connection only. */
const ALWAYS = [
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
const OURS = ['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-request-id', 'via']

const requestNominations = [
  ['as they are', ['Connection: keep-alive, X-A', 'Connection: X-B , ,x-c']],
  ['in other cases', ['CONNECTION: Keep-Alive, x-a', 'connection: X-b,X-C']],
  ['in one line', ['Connection: x-a,X-B, X-C']],
  ['with close', ['Connection: close, X-A, X-B, X-C']],
] as const

const answerNominations = [
  ['in one line', 'Connection: X-A, x-b ,,X-C\r\n'],
  ['in several lines', 'Connection: X-A\r\nconnection: x-b\r\nCONNECTION: x-c\r\n'],
  ['with close in the last', 'Connection: x-a, x-b, x-c\r\nConnection: close\r\n'],
] as const

const tes = [
  ['TE: trailers', ['trailers']],
  ['TE: gzip;q=0.5, Trailers', ['trailers']],
  ['te: gzip', []],
  ['TE: trailers-not', []],
  ['TE:', []],
] as const

/** Rows 1 to 8: fields that are about a connection. */
export const CONNECTION_ROWS: readonly Row[] = [
  ...requestNominations.map(
    ([how, connection]): Row => ({
      number: 1,
      says: `what Connection names is removed from the request, ${how}`,
      async run(front) {
        const { sent } = await passed(front, get('/', 'X-A: 1', 'x-B: 2', ...connection, 'X-C: 3', 'X-D: 4'))
        for (const name of ['x-a', 'x-b', 'x-c']) expect(values(sent, name)).toEqual([])
        expect(values(sent, 'x-d')).toEqual(['4'])
        expect(values(sent, 'connection').join()).not.toMatch(/x-/i)
      },
    }),
  ),
  ...answerNominations.map(
    ([how, connection]): Row => ({
      number: 1,
      says: `what Connection names is removed from the response, ${how}`,
      async run(front) {
        const { got } = await passed(
          front,
          get('/'),
          `HTTP/1.1 200 OK\r\nX-A: 1\r\nX-B: 2\r\n${connection}x-c: 3\r\nx-d: 4\r\ncontent-length: 2\r\n\r\nok`,
        )
        for (const name of ['x-a', 'x-b', 'x-c']) expect(values(got, name)).toEqual([])
        expect(values(got, 'x-d')).toEqual(['4'])
        expect(values(got, 'connection')).toEqual(['keep-alive'])
      },
    }),
  ),
  {
    number: 2,
    says: 'fields of one connection are removed from the request, named by Connection or not',
    async run(front) {
      const { sent } = await passed(front, get('/', ...ALWAYS, 'X-D: 4'))
      for (const line of ALWAYS) expect(values(sent, line.split(':')[0]!.toLowerCase()), line).toEqual([])
      expect(values(sent, 'x-d')).toEqual(['4'])
    },
  },
  {
    number: 2,
    says: 'fields of one connection are removed from the response, named by Connection or not',
    async run(front) {
      const { got } = await passed(
        front,
        get('/'),
        `HTTP/1.1 200 OK\r\n${ALWAYS.join('\r\n')}\r\nX-D: 4\r\ncontent-length: 2\r\n\r\nok`,
      )
      // Node's own server speaks of its own connection.
      expect(values(got, 'keep-alive').join()).not.toContain('60')
      for (const line of ALWAYS.slice(1)) expect(values(got, line.split(':')[0]!.toLowerCase()), line).toEqual([])
      expect(values(got, 'x-d')).toEqual(['4'])
    },
  },
  {
    number: 2,
    says: 'Transfer-Encoding is made anew for each connection',
    async run(front) {
      const { sent, got } = await passed(
        front,
        'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n',
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;ext=1\r\no\r\n1\r\nk\r\n0\r\n\r\n',
        { bodyEnd: '\r\n0\r\n\r\n' },
      )
      expect(values(sent, 'transfer-encoding')).toEqual(['chunked'])
      expect(values(got, 'transfer-encoding')).toEqual(['chunked'])
      expect(sent + got).not.toContain('ext=')
    },
  },
  {
    number: 3,
    says: 'Connection removes nothing that is meant for everyone',
    async run(front) {
      const { sent } = await passed(
        front,
        'POST / HTTP/1.1\r\nHost: front.test\r\nConnection: close, Authorization, COOKIE, host, content-length\r\n' +
          'Authorization: Bearer x\r\nCookie: a=1\r\nContent-Length: 3\r\n\r\nabc',
        OK,
        { bodyEnd: 'abc' },
      )
      expect(values(sent, 'authorization')).toEqual(['Bearer x'])
      expect(values(sent, 'cookie')).toEqual(['a=1'])
      expect(values(sent, 'content-length')).toEqual(['3'])
      expect(values(sent, 'host')).toHaveLength(1)
      expect(sent).toMatch(/\r\n\r\nabc$/)
    },
  },
  {
    number: 3,
    says: 'Connection removes nothing that the proxy or its user adds',
    about: 'ours',
    async run(front) {
      const { sent } = await passed(front, get('/', `Connection: close, ${OURS.join(', ')}, x-added, x-hooked`), OK, {
        proxy: {
          requestHeaders: { set: { 'x-added': 'by an option' } },
          onRequest: ({ headers }) => headers.set('x-hooked', 'by a hook'),
        },
      })
      for (const name of OURS) expect(values(sent, name), name).toHaveLength(1)
      expect([...values(sent, 'x-added'), ...values(sent, 'x-hooked')]).toEqual(['by an option', 'by a hook'])
    },
  },
  {
    number: 3,
    says: 'nor does the Connection of a response',
    about: 'ours',
    async run(front) {
      const { got } = await passed(
        front,
        get('/'),
        'HTTP/1.1 200 OK\r\nConnection: Via, x-request-id, Content-Length\r\nVia: 1.1 inner\r\nContent-Length: 2\r\n\r\nok',
      )
      expect(values(got, 'content-length')).toEqual(['2'])
      expect(values(got, 'via').join(', ')).toBe('1.1 inner, 1.1 evenkeel')
      expect(values(got, 'x-request-id')).toHaveLength(1)
    },
  },
  ...tes.map(
    ([field, te]): Row => ({
      number: 4,
      says: `of TE only the member "trailers" is passed on (${field})`,
      async run(front) {
        const { sent } = await passed(front, get('/', field, 'Connection: TE'))
        expect(values(sent, 'te')).toEqual(te)
      },
    }),
  ),
  {
    number: 5,
    says: 'trailers of a request are never merged into its head; its body is whole',
    async run(front) {
      const { sent } = await passed(
        front,
        'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n',
        OK,
        { bodyEnd: /\r\n0\r\n([^\r\n]+\r\n)*\r\n$/ },
      )
      const [head = '', body] = sent.split('\r\n\r\n')
      expect(body).toMatch(/^3\r\nabc\r\n0/)
      expect(values(head, 'x-sum')).toEqual([])
    },
  },
  {
    number: 6,
    says: 'Via is appended to, by a name that is no host',
    about: 'ours',
    async run(front) {
      const { sent, got } = await passed(
        front,
        get('/', 'Via: 1.0 fred', 'via: 1.1 p.example'),
        'HTTP/1.1 200 OK\r\nVia: 1.1 inner\r\ncontent-length: 2\r\n\r\nok',
      )
      expect(values(sent, 'via').join(', ')).toBe('1.0 fred, 1.1 p.example, 1.1 evenkeel')
      expect(values(got, 'via').join(', ')).toBe('1.1 inner, 1.1 evenkeel')
    },
  },
  {
    number: 6,
    says: 'its name is the user’s to choose',
    about: 'ours',
    async run(front) {
      const backend = await keeper()
      const answer = await ask(await front([backend], { proxy: { via: 'edge-1' } }), '/')
      expect([backend.got[0]!.headers.via, answer.headers.via]).toEqual(['1.1 edge-1', '1.1 edge-1'])
    },
  },
  {
    number: 6,
    says: 'a request that came by four times is a loop: 508',
    about: 'ours',
    async run(front) {
      const by = (times: number, name = 'evenkeel'): string => `Via: ${Array(times).fill(`1.1 ${name}`).join(', ')}`
      for (const via of [by(3), by(50, 'even'), by(4, 'evenkeel2')]) await passed(front, get('/', via))
      for (const via of [by(4), `${by(2)}\r\n${by(2)}`, by(4, 'evenkeel (a comment)')]) {
        expect(statusOf(await refused(front, get('/', via)))).toBe(508)
      }
    },
  },
  {
    number: 6,
    says: 'a proxy in front of itself ends in 508, not in a storm',
    about: 'ours',
    async run(front) {
      // The first hop knows the port of the second only afterwards: a backend that asks the front again.
      let url = ''
      let hops = 0
      const backend = await keeper(async (request, response) => {
        hops++
        const next = await fetch(url, { headers: { via: request.headers.via ?? '' } })
        response.writeHead(next.status).end(await next.text())
      })
      const proxy = await front([backend])
      url = proxy.url
      expect((await ask(proxy, '/')).status).toBe(508)
      expect(hops).toBe(4)
    },
  },
  ...(['OPTIONS', 'TRACE'] as const).map(
    (method): Row => ({
      number: 7,
      says: `Max-Forwards of ${method} counts down, and ends at 0 here`,
      about: 'ours',
      ...(method === 'TRACE' && { not: NOT_BY_WEB }),
      async run(front) {
        const proxy = { methods: ['GET', 'OPTIONS', 'TRACE'] }
        const ask = (fields: string): string => `${method} /a HTTP/1.1\r\nHost: a\r\n${fields}\r\n\r\n`
        const { sent } = await passed(front, ask('Max-Forwards: 7'), OK, { proxy })
        expect(values(sent, 'max-forwards')).toEqual(['6'])
        const here = await refused(front, ask('Max-Forwards: 0'), { proxy })
        expect(values(here, 'allow')).toEqual(['GET, OPTIONS, TRACE'])
        for (const odd of ['x', '-1', '1.5', '1\r\nMax-Forwards: 2']) {
          expect(statusOf(await refused(front, ask(`Max-Forwards: ${odd}`), { proxy })), odd).toBe(400)
        }
      },
    }),
  ),
  {
    number: 7,
    says: 'Max-Forwards of other methods is nobody’s business',
    async run(front) {
      for (const value of ['0', '7', 'x']) {
        const { sent } = await passed(front, get('/', `Max-Forwards: ${value}`))
        expect(values(sent, 'max-forwards')).toEqual([value])
      }
    },
  },
  {
    number: 7,
    says: 'TRACE, which shows credentials, is refused: 405',
    not: NOT_BY_WEB,
    async run(front) {
      const got = await refused(front, 'TRACE / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\n\r\n')
      expect(statusOf(got)).toBe(405)
      expect(values(got, 'allow').join()).toContain('GET')
    },
  },
  {
    number: 8,
    says: 'Date is the backend’s, or added if it gave none',
    async run(front) {
      const date = 'Sun, 06 Nov 1994 08:49:37 GMT'
      const kept = await passed(front, get('/'), OK.replace('\r\n', `\r\nDate: ${date}\r\n`))
      expect(values(kept.got, 'date')).toEqual([date])
      const added = await passed(front, get('/'))
      expect(values(added.got, 'date')).toHaveLength(1)
    },
  },
  {
    number: 8,
    says: 'a client’s connection is kept whatever the backend says of its own',
    async run(front) {
      const backend = await rawUpstream(says(OK.replace('\r\n', '\r\nConnection: close\r\nKeep-Alive: timeout=1\r\n')))
      const client = await rawClient(await front([backend]))
      client.write(get('/'))
      expect(values(await client.until(isWhole), 'connection')).toEqual(['keep-alive'])
      client.write(get('/next', 'Connection: close'))
      await client.closed()
      expect(client.received.match(/HTTP\/1\.1 200/g)).toHaveLength(2)
    },
  },
]
