import { expect } from 'vitest'
import {
  ask,
  idle,
  OK,
  pause,
  type RawUpstream,
  rawClient,
  rawUpstream,
  says,
  statsOf,
  type Wire,
} from '../support/upstreams.ts'
import { get, isWhole, passed, refused, statusOf, values } from './passing.ts'
import type { Row } from './row.ts'

const FINAL = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'
const NO_INTERIM = { web: 'a Response has no 1xx' }

/** Backends that must not be believed, in one word each: the client gets 502. */
const breaches: readonly (readonly [number: number, says: string, answer: string])[] = [
  [35, 'an unknown Transfer-Encoding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\n\r\nraw'],
  [35, 'a Transfer-Encoding beside chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n'],
  [
    35,
    'chunked that is not the last',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n',
  ],
  [
    35,
    'chunked twice',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
  ],
  [35, 'identity', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\ncontent-length: 2\r\n\r\nok'],
  [36, 'two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok'],
  [
    36,
    'a length and chunks',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
  ],
  [36, 'a length that is none', 'HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok'],
  [36, 'a negative length', 'HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok'],
  [41, 'a field with NUL', 'HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok'],
  [41, 'a field with a control character', 'HTTP/1.1 200 OK\r\nx: a\x01b\r\ncontent-length: 2\r\n\r\nok'],
  [41, 'a field with DEL', 'HTTP/1.1 200 OK\r\nx: a\x7fb\r\ncontent-length: 2\r\n\r\nok'],
  [41, 'a field with a bare CR', 'HTTP/1.1 200 OK\r\nx: a\rb: c\r\ncontent-length: 2\r\n\r\nok'],
  [42, 'status 600', 'HTTP/1.1 600 X\r\ncontent-length: 2\r\n\r\nok'],
  [42, 'status 999', 'HTTP/1.1 999 X\r\ncontent-length: 2\r\n\r\nok'],
  [42, 'status 099', 'HTTP/1.1 099 X\r\ncontent-length: 2\r\n\r\nok'],
  [42, 'status 000', 'HTTP/1.1 000 X\r\ncontent-length: 2\r\n\r\nok'],
  [42, 'a status of four digits', 'HTTP/1.1 2000 X\r\ncontent-length: 2\r\n\r\nok'],
  [
    46,
    '101 that nobody asked for',
    'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
  ],
  [46, '101 without a protocol', 'HTTP/1.1 101 Switching Protocols\r\n\r\n'],
  [48, 'fields of 64 KiB', `HTTP/1.1 200 OK\r\nx: ${'x'.repeat(65_536)}\r\ncontent-length: 2\r\n\r\nok`],
  [48, '5 000 fields', `HTTP/1.1 200 OK\r\n${'x: 1\r\n'.repeat(5_000)}content-length: 2\r\n\r\nok`],
]
/** Rows after whose breach nobody knows where the next answer would begin. */
const closing = new Set([35, 36, 46, 48])
/** What an answer without a body must not end with a body of its backend's. */
const empty = [
  ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello'],
  ['GET /204', 'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello'],
  ['GET /204', 'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'],
  ['GET /304', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello'],
] as const

const framings = [
  ['of known length', 'content-length: 100000\r\n\r\nhalf'],
  ['in chunks', 'transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n'],
  ['in chunks, within one', 'transfer-encoding: chunked\r\n\r\nff\r\nhalf'],
] as const
const deaths = [
  ['FIN', (wire: Wire) => void wire.socket.end()],
  ['RST', (wire: Wire) => void wire.socket.resetAndDestroy()],
] as const

/** Begins an answer, and leaves the rest to the test. */
function begins(rest: string): Promise<RawUpstream> {
  return rawUpstream(async (wire) => {
    await wire.head()
    wire.write(`HTTP/1.1 200 OK\r\n${rest}`)
  })
}

/** Asks until the answer is whole or the connection has ended. */
async function told(client: Wire, request: string): Promise<string> {
  client.write(request)
  return client.until(isWhole).catch(() => client.received)
}

/** Rows 5 and 34 to 48: what of an answer is believed, and what its client gets of it. */
export const RESPONSE_ROWS: readonly Row[] = [
  {
    number: 5,
    says: 'trailers of a response reach the client, but none that would change its head',
    not: { web: 'a Response has no trailers' },
    async run(front) {
      const forbidden = [
        'Transfer-Encoding: chunked',
        'set-cookie: a=1',
        'Authorization: x',
        'Host: b',
        'Content-Type: a/b',
      ]
      const { got } = await passed(
        front,
        get('/', 'TE: trailers'),
        `HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n${forbidden.join('\r\n')}\r\nx-more: \xe9\r\n\r\n`,
      )
      expect(got.slice(got.indexOf('\r\n\r\n') + 4)).toBe('2\r\nok\r\n0\r\nx-sum: 7\r\nx-more: \xe9\r\n\r\n')
    },
  },
  {
    number: 5,
    says: 'Trailer announces those that are passed on, where some can come',
    not: { web: 'a Response has no trailers' },
    async run(front) {
      const answer = 'HTTP/1.1 200 OK\r\nTrailer: X-Sum, Content-Length,set-cookie\r\nTrailer: x-more\r\n'
      const chunks = 'Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n'
      const { got } = await passed(front, get('/'), answer + chunks)
      expect(values(got, 'trailer')).toEqual(['X-Sum, x-more'])
      const sized = await passed(front, get('/'), `${answer}Content-Length: 2\r\n\r\nok`)
      expect([statusOf(sized.got), ...values(sized.got, 'trailer')]).toEqual([200])
      const old = await rawClient(await front([await rawUpstream(says(answer + chunks))]))
      old.write('GET / HTTP/1.0\r\n\r\n')
      await old.closed()
      expect([statusOf(old.received), ...values(old.received, 'trailer')]).toEqual([200])
    },
  },
  {
    number: 5,
    says: 'a trailer that contradicts the framing, or is no HTTP, breaks the answer off',
    async run(front) {
      for (const trailer of ['Content-Length: 9', 'x-sum: a\x01b']) {
        const chunks = `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n${trailer}\r\n\r\n`
        const client = await rawClient(await front([await rawUpstream(says(chunks))]))
        const got = await told(client, get('/'))
        if (!got.startsWith('HTTP/1.1 502 ')) expect(got).not.toContain(trailer)
      }
    },
  },
  {
    number: 34,
    says: 'answers to HEAD, 204 and 304 have no body, and their client’s connection goes on',
    async run(front) {
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
      const client = await rawClient(await front([backend]))
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
    },
  },
  {
    number: 34,
    says: '204 carries no framing of its backend’s',
    async run(front) {
      const { got } = await passed(front, get('/'), 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n')
      expect([...values(got, 'content-length'), ...values(got, 'transfer-encoding')]).toEqual([])
    },
  },
  ...empty.map(
    ([line, answer]): Row => ({
      number: 34,
      says: `a body where none may be is nobody’s answer (${answer.slice(9, answer.indexOf('\r\n', answer.indexOf('\r\n') + 2)).replace('\r\n', ', ')}, to ${line})`,
      async run(front) {
        const backend = await rawUpstream(async (wire) => {
          for (;;) wire.write((await wire.head()).startsWith('GET /next') ? OK : answer)
        })
        const proxy = await front([backend])
        const client = await rawClient(proxy)
        client.write(`${line.includes('/') ? line : `${line} /`} HTTP/1.1\r\nHost: a\r\n\r\n`)
        await client.until('\r\n\r\n')
        client.write(get('/next', 'Connection: close'))
        await client.closed()
        expect(client.received).not.toContain('hello')
        expect(client.received).toMatch(/HTTP\/1\.1 200 [\s\S]*\r\n\r\nok$/)
      },
    }),
  ),
  ...breaches.map(
    ([number, what, answer]): Row => ({
      number,
      says: closing.has(number) ? `${what} is a 502, and costs the backend its connection` : `${what} is a 502`,
      async run(front) {
        const backend = await rawUpstream(says(answer))
        const proxy = await front([backend], { balancer: { retry: { attempts: 1 } } })
        const got = await told(await rawClient(proxy), get('/'))
        expect(statusOf(got)).toBe(502)
        if (closing.has(number)) await (await backend.wire()).closed()
        expect(got).not.toContain('\r\n\r\nok')
      },
    }),
  ),
  ...[35, 36, 42, 45, 46, 48].map(
    (number): Row => ({
      number,
      says: 'such an answer is the backend’s fault, as a breach of the protocol, on a used connection as on a new one',
      about: 'ours',
      async run(front) {
        const bad = number === 45 ? 'HTTP/1.1 100 Continue\r\n\r\n' : breaches.find((one) => one[0] === number)![2]
        const backend = await rawUpstream(async (wire) => {
          for (;;) wire.write((await wire.head()).startsWith('GET /well') ? OK : bad)
        })
        const proxy = await front([backend], { balancer: { retry: { attempts: 1 }, health: { passive: false } } })
        for (const path of ['/new', '/well', '/used']) {
          const { body } = await ask(proxy, path)
          if (path !== '/well') expect(JSON.parse(body.toString())).toMatchObject({ status: 502, code: 'PROTOCOL' })
        }
        await idle(proxy.balancer!)
        expect(statsOf(proxy.balancer!)).toMatchObject({ requests: 3, failures: 2, classes: { protocol: 2, ok: 1 } })
      },
    }),
  ),
  ...framings.flatMap(([framing, rest]) =>
    deaths.flatMap(([death, die]): Row[] => [
      {
        number: 37,
        says: `an answer ${framing} that ends by ${death} is cut off for an HTTP/1.1 client, too`,
        async run(front) {
          const backend = await begins(rest)
          const client = await rawClient(await front([backend]))
          client.write(get('/'))
          await client.until('half')
          die(await backend.wire())
          await client.closed()
          expect(isWhole(client.received)).toBe(false)
          expect(client.received.match(/half/g)).toHaveLength(1)
        },
      },
      {
        number: 37,
        says: `and for one of HTTP/1.0, by a reset where nothing else tells (${framing}, ${death})`,
        not: { web: 'its server does not know of it' },
        async run(front) {
          const backend = await begins(rest)
          const client = await rawClient(await front([backend]))
          client.write('GET / HTTP/1.0\r\n\r\n')
          await client.until('half')
          die(await backend.wire())
          const ending = await client.closed()
          if (framing !== 'of known length') expect(ending).toBe('reset')
          expect(isWhole(client.received)).toBe(false)
        },
      },
    ]),
  ),
  {
    number: 37,
    says: 'Node’s own clients see an error, never an end',
    async run(front) {
      const backend = await begins('transfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n4\r\nhalf\r\n')
      const proxy = await front([backend])
      const [asked, fetched] = [ask(proxy, '/'), fetch(proxy.url).then((response) => response.text())]
      for (const number of [0, 1]) {
        const wire = await backend.wire(number)
        await wire.until('\r\n\r\n')
        setTimeout(() => wire.socket.resetAndDestroy(), 20)
      }
      await expect(asked).rejects.toMatchObject({ code: 'ECONNRESET' })
      await expect(fetched).rejects.toBeInstanceOf(TypeError)
    },
  },
  {
    number: 37,
    says: 'a cut is the backend’s failure, once',
    about: 'ours',
    async run(front) {
      const backend = await begins(framings[0][1])
      const proxy = await front([backend])
      const client = await rawClient(proxy)
      client.write(get('/'))
      await client.until('half')
      ;(await backend.wire()).socket.destroy()
      await client.closed()
      await idle(proxy.balancer!)
      expect(statsOf(proxy.balancer!)).toMatchObject({ requests: 1, failures: 1, classes: { truncated: 1 } })
    },
  },
  {
    number: 37,
    says: 'an HTTP/1.0 client gets a plain body that ends with its connection, or a length that is known',
    not: { web: 'its server writes' },
    async run(front) {
      const chunks = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: 1\r\n\r\n'
      for (const [answer, lengths] of [
        [chunks, []],
        [OK, ['2']],
      ] as const) {
        const client = await rawClient(await front([await rawUpstream(says(answer))]))
        client.write('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
        expect(await client.closed()).toBe('fin')
        expect(values(client.received, 'transfer-encoding')).toEqual([])
        expect(values(client.received, 'content-length')).toEqual(lengths)
        expect(values(client.received, 'connection')).toEqual(['close'])
        expect(client.received).toMatch(/\r\n\r\nok$/)
      }
    },
  },
  {
    number: 38,
    says: 'a body that the end of its connection ends is whole by FIN',
    async run(front) {
      const backend = await rawUpstream(async (wire) => {
        await wire.head()
        wire.write('HTTP/1.1 200 OK\r\n\r\nwhole')
        wire.socket.end()
      })
      const answer = await ask(await front([backend]), '/')
      expect(answer.body.toString()).toBe('whole')
    },
  },
  {
    number: 38,
    says: 'and cut off by RST',
    async run(front) {
      const backend = await begins('\r\nhalf')
      const client = await rawClient(await front([backend]))
      client.write(get('/'))
      await client.until('half')
      ;(await backend.wire()).socket.resetAndDestroy()
      await client.closed()
      expect(isWhole(client.received)).toBe(false)
    },
  },
  ...(
    [
      ['right behind an answer', 0],
      ['later, on an idle connection', 20],
    ] as const
  ).map(
    ([when, ms]): Row => ({
      number: 39,
      says: `bytes that nobody asked for, ${when}, are never the next request’s answer`,
      async run(front) {
        const stray = 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray'
        const backend = await rawUpstream(async (wire) => {
          for (let first = true; ; first = false) {
            await wire.head()
            if (!first || wire !== backend.wires[0]) {
              wire.write(OK)
              continue
            }
            if (ms === 0) wire.write(OK + stray)
            else {
              wire.write(OK)
              setTimeout(() => wire.write(stray), ms)
            }
          }
        })
        const proxy = await front([backend])
        const client = await rawClient(proxy)
        const bodies = (): string[] => client.received.match(/\r\n\r\n(ok|stray)/g) ?? []
        client.write(get('/1'))
        await client.until(() => bodies().length === 1)
        if (ms > 0) await pause(2 * ms)
        for (let number = 2; number <= 4; number++) {
          client.write(get(`/${number}`))
          await client.until(() => bodies().length === number)
        }
        expect(client.received).not.toContain('stray')
      },
    }),
  ),
  {
    number: 40,
    says: 'repeated fields keep their number and order',
    async run(front) {
      const cookies = ['a=1; Expires=Sun, 22 Nov 2026 00:00:00 GMT', 'b=2', 'a=3']
      const { got } = await passed(
        front,
        get('/'),
        `HTTP/1.1 200 OK\r\nSet-Cookie: ${cookies[0]}\r\nLink: </a>\r\nset-cookie: ${cookies[1]}\r\nWWW-Authenticate: Basic\r\nLink: </b>\r\nSET-COOKIE: ${cookies[2]}\r\nwww-authenticate: Digest\r\nVary: a\r\nVary: b\r\ncontent-length: 2\r\n\r\nok`,
      )
      expect(values(got, 'set-cookie')).toEqual(cookies)
      // In one line they say the same (RFC 9110 5.3), but for cookies.
      expect(values(got, 'link').join(', ')).toBe('</a>, </b>')
      expect(values(got, 'www-authenticate').join(', ')).toBe('Basic, Digest')
      expect(values(got, 'vary').join(', ')).toBe('a, b')
    },
  },
  {
    number: 40,
    says: 'repeated fields of a request do, too',
    async run(front) {
      const { sent } = await passed(front, get('/', 'X-A: 1', 'Accept: a/b', 'x-a: 2', 'accept: c/d'))
      expect(values(sent, 'x-a').join(', ')).toBe('1, 2')
      expect(values(sent, 'accept').join(', ')).toBe('a/b, c/d')
    },
  },
  {
    number: 40,
    says: 'fields with names that every object has are fields like any other, both ways',
    async run(front) {
      const fields = ['__proto__: a', 'constructor: b', 'hasOwnProperty: c', 'toString: d', '__proto__: e']
      const { sent, got } = await passed(
        front,
        get('/', ...fields.filter((line) => !line.startsWith('__proto__'))),
        `HTTP/1.1 200 OK\r\n${fields.join('\r\n')}\r\ncontent-length: 2\r\n\r\nok`,
      )
      for (const name of ['constructor', 'hasownproperty', 'tostring']) {
        expect([values(sent, name), values(got, name)]).toEqual([expect.any(Array), expect.any(Array)])
        expect([values(sent, name).length, values(got, name).length]).toEqual([1, 1])
      }
      expect(values(got, '__proto__').join(', ')).toBe('a, e')
    },
  },
  {
    number: 41,
    says: 'bytes above ASCII pass unchanged, both ways',
    async run(front) {
      const bytes = Array.from({ length: 128 }, (_, i) => String.fromCharCode(128 + i)).join('')
      const { sent, got } = await passed(
        front,
        get('/', `X-Bytes: ${bytes}`),
        `HTTP/1.1 200 OK\r\nx-bytes: ${bytes}\r\nSet-Cookie: n=\xe9\r\ncontent-length: 2\r\n\r\nok`,
      )
      // Not through `trim`, which takes some of them for spaces.
      expect(sent.toLowerCase()).toContain(`x-bytes: ${bytes}\r\n`.toLowerCase())
      expect(sent).toContain(bytes)
      expect(got).toContain(`x-bytes: ${bytes}\r\n`)
      expect(values(got, 'set-cookie')).toEqual(['n=\xe9'])
    },
  },
  ...['a\0b', 'a\x01b'].map(
    (value): Row => ({
      number: 41,
      says: `a client’s field with ${JSON.stringify(value)} is a 400`,
      async run(front) {
        expect(statusOf(await refused(front, get('/', `x: ${value}`)))).toBe(400)
      },
    }),
  ),
  {
    number: 41,
    says: 'also when the body is long in coming',
    async run(front) {
      const backend = await begins(
        'X-Bytes: \xe9\xff\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n',
      )
      const client = await rawClient(await front([backend]))
      client.write(get('/'))
      expect(values(await client.until('\r\n\r\n'), 'x-bytes')).toEqual(['\xe9\xff'])
      ;(await backend.wire()).write('0\r\n\r\n')
      await client.until(isWhole)
    },
  },
  ...[200, 201, 206, 301, 404, 418, 500, 599].map(
    (status): Row => ({
      number: 42,
      says: `${status} passes as it is`,
      async run(front) {
        const { got } = await passed(
          front,
          get('/'),
          `HTTP/1.1 ${status} X\r\nLocation: /next\r\ncontent-length: 2\r\n\r\nok`,
        )
        expect(statusOf(got)).toBe(status)
        expect(values(got, 'location')).toEqual(['/next'])
        expect(got).toMatch(/\r\n\r\nok$/)
      },
    }),
  ),
  {
    number: 42,
    says: 'an answer without a reason phrase is an answer',
    async run(front) {
      for (const line of ['HTTP/1.1 200 ', 'HTTP/1.1 200', 'HTTP/1.1 200 \xe9\t<b>']) {
        const { got } = await passed(front, get('/'), `${line}\r\ncontent-length: 2\r\n\r\nok`)
        expect(got).toMatch(/^HTTP\/1\.1 200 [\s\S]*\r\n\r\nok$/)
      }
    },
  },
  {
    number: 43,
    says: '103 and 102 are passed on before the answer, without what is of one connection',
    not: NO_INTERIM,
    async run(front) {
      const early =
        'HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload; as=style\r\nConnection: x-gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=9\r\nx-kept: 1\r\n\r\n' +
        'HTTP/1.1 102 Processing\r\n\r\n'
      const backend = await rawUpstream(async (wire) => {
        await wire.head()
        wire.write(early)
      })
      const client = await rawClient(await front([backend]))
      client.write(get('/'))
      await client.until((received) => received.includes(' 103 ') && received.includes(' 102 '))
      ;(await backend.wire()).write(FINAL)
      const got = await client.until('\r\n\r\nok')
      const [hints = '', processing = '', last = ''] = got.split(/(?=HTTP\/1\.1 )/)
      expect([hints, processing, last].map(statusOf)).toEqual([103, 102, 200])
      expect(values(hints, 'link')).toEqual(['</a>; rel=preload; as=style'])
      expect(values(hints, 'x-kept')).toEqual(['1'])
      expect([...values(hints, 'x-gone'), ...values(hints, 'keep-alive'), ...values(hints, 'connection')]).toEqual([])
    },
  },
  {
    number: 43,
    says: 'to HTTP/1.0 there is no 1xx',
    async run(front) {
      const backend = await rawUpstream(says(`HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n${FINAL}`))
      const client = await rawClient(await front([backend]))
      client.write('GET / HTTP/1.0\r\n\r\n')
      await client.closed()
      expect(client.received).toMatch(/^HTTP\/1\.1 200 [\s\S]*\r\n\r\nok$/)
    },
  },
  {
    number: 43,
    says: 'those to a request that waits behind another come in its turn and before its answer, or not at all',
    async run(front) {
      const backend = await rawUpstream(async (wire) => {
        const head = await wire.head()
        if (head.startsWith('GET /2')) wire.write(`HTTP/1.1 103 Early Hints\r\nLink: </2>; rel=preload\r\n\r\n${FINAL}`)
      })
      const client = await rawClient(await front([backend]))
      client.write(get('/1'))
      const first = await backend.wire(0)
      client.write(get('/2'))
      await (await backend.wire(1)).head()
      await pause(10)
      expect(client.received).toBe('')
      first.write('HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none')
      const got = await client.until('\r\n\r\nok')
      const came = got.split(/(?=HTTP\/1\.1 )/).map(statusOf)
      expect([
        [200, 200],
        [200, 103, 200],
      ]).toContainEqual(came)
    },
  },
  {
    number: 43,
    says: 'ten are passed on, the eleventh is a breach of the protocol',
    about: 'ours',
    async run(front) {
      const interim = (count: number): string => 'HTTP/1.1 102 Processing\r\n\r\n'.repeat(count) + FINAL
      const backend = await rawUpstream(async (wire) => {
        for (;;) wire.write(interim((await wire.head()).includes('/10') ? 10 : 11))
      })
      const proxy = await front([backend], { balancer: { retry: { attempts: 1 } } })
      expect((await ask(proxy, '/10')).status).toBe(200)
      const answer = await ask(proxy, '/11')
      expect([answer.status, JSON.parse(answer.body.toString())]).toEqual([
        502,
        expect.objectContaining({ code: 'PROTOCOL' }),
      ])
    },
  },
  {
    number: 43,
    says: 'as are more than 16 KiB of them',
    about: 'ours',
    async run(front) {
      const one = `HTTP/1.1 103 Early Hints\r\nlink: <${'a'.repeat(6_000)}>; rel=preload\r\n\r\n`
      const proxy = await front([await rawUpstream(says(one.repeat(3) + FINAL))], {
        balancer: { retry: { attempts: 1 } },
      })
      expect((await ask(proxy, '/')).status).toBe(502)
    },
  },
  {
    number: 44,
    says: 'a backend that says 1xx again and again is not waited for any longer',
    about: 'ours',
    async run(front) {
      const backend = await rawUpstream(async (wire) => {
        await wire.head()
        const timer = setInterval(() => wire.write('HTTP/1.1 102 Processing\r\n\r\n'), 20)
        await wire.closed()
        clearInterval(timer)
      })
      const proxy = await front([backend], { balancer: { timeouts: { headersMs: 100 }, retry: { attempts: 1 } } })
      const answer = await ask(proxy, '/')
      expect([answer.status, JSON.parse(answer.body.toString()).code]).toEqual([504, 'TIMEOUT'])
    },
  },
  {
    number: 45,
    says: '100 that nobody asked for is no answer: what follows it is, or a 502',
    async run(front) {
      const backend = await rawUpstream(says(`HTTP/1.1 100 Continue\r\n\r\n${FINAL}`))
      const proxy = await front([backend], { balancer: { retry: { attempts: 1 } } })
      expect([200, 502]).toContain((await ask(proxy, '/')).status)
    },
  },
  {
    number: 46,
    says: 'a plain answer that offers other protocols is a plain answer',
    async run(front) {
      const { got } = await passed(
        front,
        get('/'),
        'HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2,h2c\r\ncontent-length: 2\r\n\r\nok',
      )
      expect(got).toMatch(/^HTTP\/1\.1 200 [\s\S]*\r\n\r\nok$/)
      expect(values(got, 'upgrade')).toEqual([])
    },
  },
  {
    number: 47,
    says: 'answers are not decoded, and keep what they say about themselves',
    async run(front) {
      const fields = ['Content-Encoding: gzip', 'ETag: "x"', 'Cache-Control: no-transform', 'X-Accel-Buffering: no']
      const { got } = await passed(
        front,
        get('/', 'Accept-Encoding: gzip'),
        `HTTP/1.1 200 OK\r\n${fields.join('\r\n')}\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\xff`,
      )
      for (const field of fields) {
        const [name = '', value] = field.split(': ')
        expect(values(got, name.toLowerCase())).toEqual([value])
      }
      expect(got.endsWith('\r\n\r\n\x1f\x8b\x08\xff')).toBe(true)
    },
  },
  {
    number: 47,
    says: 'nor are ranges, validators and digests touched',
    async run(front) {
      const fields = [
        'Content-Range: bytes 0-1/10',
        'Accept-Ranges: bytes',
        'Content-Digest: sha-256=:AA==:',
        'Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT',
      ]
      const { sent, got } = await passed(
        front,
        get('/', 'Range: bytes=0-1', 'If-Range: "x"', 'If-None-Match: "y", W/"z"'),
        `HTTP/1.1 206 Partial Content\r\n${fields.join('\r\n')}\r\ncontent-length: 2\r\n\r\nok`,
      )
      expect([values(sent, 'range'), values(sent, 'if-range'), values(sent, 'if-none-match')]).toEqual([
        ['bytes=0-1'],
        ['"x"'],
        ['"y", W/"z"'],
      ])
      expect(statusOf(got)).toBe(206)
      for (const field of fields) {
        const at = field.indexOf(': ')
        expect(values(got, field.slice(0, at).toLowerCase())).toEqual([field.slice(at + 2)])
      }
    },
  },
  {
    number: 48,
    says: '500 fields pass, and heads of no more bytes than the balancer allows',
    about: 'ours',
    async run(front) {
      const head = (count: number): string =>
        `HTTP/1.1 200 OK\r\n${'x: 1\r\n'.repeat(count - 1)}content-length: 2\r\n\r\nok`
      const options = { balancer: { retry: { attempts: 1 } } }
      expect((await ask(await front([await rawUpstream(says(head(500)))], options), '/')).status).toBe(200)
      expect((await ask(await front([await rawUpstream(says(head(501)))], options), '/')).status).toBe(502)
      const small = { balancer: { ...options.balancer, undici: { maxHeaderBytes: 100 } } }
      const backend = await rawUpstream(says(`HTTP/1.1 200 OK\r\nx: ${'x'.repeat(100)}\r\ncontent-length: 2\r\n\r\nok`))
      expect((await ask(await front([backend], small), '/')).status).toBe(502)
      expect((await ask(await front([backend], options), '/')).status).toBe(200)
    },
  },
  {
    number: 48,
    says: 'a chunk extension without end is a silence, and ends by its deadline',
    about: 'ours',
    async run(front) {
      const backend = await rawUpstream(async (wire) => {
        await wire.head()
        wire.write(
          'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n4\r\nhalf\r\n2;',
        )
        const timer = setInterval(() => wire.write('x'.repeat(1_000)), 10)
        await wire.closed()
        clearInterval(timer)
      })
      const proxy = await front([backend], { balancer: { timeouts: { idleMs: 100 } } })
      await expect(ask(proxy, '/')).rejects.toMatchObject({ code: 'ECONNRESET' })
    },
  },
]
