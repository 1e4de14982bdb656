import { expect } from 'vitest'
import { ask, keeper, nobody, OK, rawClient, rawUpstream } from '../support/upstreams.ts'
import { get, isWhole, NOT_BY_WEB, passed, refused, statusOf, values } from './passing.ts'
import type { FrontOptions, Row } from './row.ts'

const WELL_FORMED = /^[A-Za-z0-9._-]{8,128}$/
const hosts = [
  ['none', ''],
  ['an empty one', 'Host:\r\n'],
  ['two', 'Host: a\r\nHost: b\r\n'],
  ['two that are equal', 'Host: a\r\nhost: a\r\n'],
  ['a list', 'Host: a, b\r\n'],
  ['one with a path', 'Host: a/b@c\r\n'],
  ['one with a user', 'Host: a@b\r\n'],
  ['one with a space', 'Host: a b\r\n'],
  ['one with a port that is none', 'Host: a:b\r\n'],
  ['one with two ports', 'Host: a:1:2\r\n'],
  ['an IPv6 address without brackets', 'Host: ::1\r\n'],
  ['one with a quote', 'Host: a"b\r\n'],
  ['one with bytes above ASCII', 'Host: \xe9\r\n'],
] as const

const ids = [
  ['none', []],
  ['an empty one', ['X-Request-Id:']],
  ['one with other characters', ['X-Request-Id: a b']],
  ['one with "<"', ['X-Request-Id: <script>']],
  ['one too long', [`X-Request-Id: ${'0'.repeat(129)}`]],
  ['two', ['X-Request-Id: a', 'x-request-id: b']],
] as const

/** Everything the clients of these tests can be: they come from the loopback. */
const TRUSTED: FrontOptions = { proxy: { trustedProxies: ['127.0.0.0/8', '::1', '10.0.0.0/8'] } }

/** X-Forwarded-For as a trusted peer says it, and who the client then is by it. */
const chains = [
  ['6.6.6.6', '6.6.6.6'],
  ['1.2.3.4, 6.6.6.6', '6.6.6.6'],
  ['1.2.3.4, 10.1.2.3', '1.2.3.4'],
  ['9.9.9.9, 1.2.3.4,10.1.2.3 , 127.0.0.9', '1.2.3.4'],
  ['10.9.9.9, 10.1.2.3', '10.9.9.9'],
  ['::ffff:6.6.6.6', '6.6.6.6'],
  ['9.9.9.9, ::ffff:10.1.2.3', '9.9.9.9'],
  ['[2001:DB8::1]:443, 10.1.2.3:80', '2001:db8::1'],
  ['2001:db8:0:0::1', '2001:db8::1'],
  // What is no address ends the walk: nobody vouches for what stands left of it.
  ['6.6.6.6, unknown', '127.0.0.1'],
  ['6.6.6.6, unknown, 10.1.2.3', '10.1.2.3'],
  ['6.6.6.6, 0177.0.0.1, 10.1.2.3', '10.1.2.3'],
  ['6.6.6.6, 127.1', '127.0.0.1'],
  ['', '127.0.0.1'],
  [', ,,', '127.0.0.1'],
] as const

/** The strategy by 'ip' of a pool shows which address a call had. */
async function addressOf(front: Parameters<Row['run']>[0], fields: readonly string[], proxy = TRUSTED.proxy!) {
  let address: string | undefined
  const key = (_: unknown, call: { readonly address: string | undefined }): undefined => {
    address = call.address
  }
  const { sent } = await passed(front, get('/', ...fields), OK, {
    proxy,
    balancer: { strategy: { name: 'ring-hash', key } },
  })
  return { address, sent }
}

/** Rows 9 to 15 and 70: who asks whom. */
export const IDENTITY_ROWS: readonly Row[] = [
  ...hosts.map(
    ([which, lines]): Row => ({
      number: 9,
      says: `a request must have one valid Host, not ${which}: 400`,
      not: NOT_BY_WEB,
      async run(front) {
        expect(statusOf(await refused(front, `GET / HTTP/1.1\r\n${lines}Connection: close\r\n\r\n`))).toBe(400)
      },
    }),
  ),
  ...['a', 'a.b-c_d:8080', '127.0.0.1', '[::1]:80', 'a:', 'xn--e1afmkfd.test', '%41~!$&()*+;=.test'].map(
    (host): Row => ({
      number: 9,
      says: `${host} is a valid Host`,
      about: 'ours',
      not: NOT_BY_WEB,
      async run(front) {
        const { sent } = await passed(front, `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
        expect(values(sent, 'x-forwarded-host')).toEqual([host])
      },
    }),
  ),
  {
    number: 9,
    says: 'HTTP/1.0 may come without a Host',
    async run(front) {
      const { got } = await passed(front, 'GET / HTTP/1.0\r\n\r\n')
      expect(statusOf(got)).toBe(200)
    },
  },
  ...(
    [
      ['http://evil:1/p?x=1', '/p?x=1'],
      ['HTTP://Evil:1', '/'],
      ['https://evil:1?x', '/?x'],
      ['http://evil:1//p', '//p'],
    ] as const
  ).map(
    ([target, path]): Row => ({
      number: 10,
      says: `the authority of ${target} is its Host, and the backend gets ${path}`,
      not: NOT_BY_WEB,
      async run(front) {
        const { sent } = await passed(front, `GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`)
        expect(sent.split('\r\n')[0]).toBe(`GET ${path} HTTP/1.1`)
        expect(values(sent, 'x-forwarded-host').join().toLowerCase()).not.toBe('a')
      },
    }),
  ),
  {
    number: 10,
    says: 'and functions of the user see the request so',
    about: 'ours',
    not: NOT_BY_WEB,
    async run(front) {
      const seen: unknown[] = []
      const { sent } = await passed(front, 'GET http://evil:1/p HTTP/1.1\r\nHost: a\r\n\r\n', OK, {
        proxy: {
          call: ({ url, headers }) => {
            seen.push(url, headers.host)
            return {}
          },
        },
      })
      expect(seen).toEqual(['/p', 'evil:1'])
      expect(values(sent, 'x-forwarded-host')).toEqual(['evil:1'])
    },
  },
  ...[
    'http://',
    'http:///p',
    'http://user@evil/p',
    'http://a,b/p',
    'http://a\\b/p',
    'ftp://evil/p',
    'http:evil/p',
    'evil:1',
  ].map(
    (target): Row => ({
      number: 10,
      says: `${target} is no target`,
      not: NOT_BY_WEB,
      async run(front) {
        const got = await refused(front, `GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`)
        expect([400, 404]).toContain(statusOf(got))
      },
    }),
  ),
  {
    number: 11,
    says: 'Host is the backend’s own, or the client’s, or a fixed one',
    about: 'ours',
    async run(front) {
      const backend = await keeper()
      for (const host of ['target', 'preserve', 'fixed.test:1'] as const) {
        await ask(await front([backend], { proxy: { host } }), '/', { headers: { host: 'front.test' } })
      }
      const own = `127.0.0.1:${backend.port}`
      expect(backend.got.map(({ headers }) => headers.host)).toEqual([own, 'front.test', 'fixed.test:1'])
    },
  },
  {
    number: 11,
    says: 'by default Host is the backend’s own',
    about: 'ours',
    async run(front) {
      const backend = await keeper()
      await ask(await front([backend]), '/', { headers: { host: 'front.test' } })
      expect(backend.got[0]!.headers.host).toBe(`127.0.0.1:${backend.port}`)
    },
  },
  {
    number: 12,
    says: 'X-Forwarded-* say what the proxy knows, not what the client claims',
    about: 'ours',
    async run(front) {
      const claims = ['For: 6.6.6.6', 'Host: evil.test', 'Proto: https', 'Port: 1'].map((it) => `X-Forwarded-${it}`)
      const { sent } = await passed(front, get('/', ...claims, 'x-forwarded-for: 7.7.7.7', 'X-Real-IP: 6.6.6.6'))
      expect(values(sent, 'x-forwarded-for')).toEqual(['127.0.0.1'])
      expect(values(sent, 'x-forwarded-host')).toEqual(['front.test'])
      expect(values(sent, 'x-forwarded-proto')).toEqual(['http'])
      expect(values(sent, 'x-forwarded-port')).toEqual([])
      expect(sent).not.toMatch(/evil|[67]\.[67]\./)
    },
  },
  {
    number: 12,
    says: 'what a trusted peer says of X-Forwarded-* is kept and added to',
    about: 'ours',
    async run(front) {
      const claims = ['For: 6.6.6.6', 'Host: shop.test:1', 'Proto: HTTPS', 'Port: 8443'].map(
        (it) => `X-Forwarded-${it}`,
      )
      const { sent } = await passed(front, get('/', ...claims, 'x-forwarded-for: 7.7.7.7'), OK, TRUSTED)
      expect(values(sent, 'x-forwarded-for')).toEqual(['6.6.6.6, 7.7.7.7, 127.0.0.1'])
      expect(values(sent, 'x-forwarded-host')).toEqual(['shop.test:1'])
      expect(values(sent, 'x-forwarded-proto')).toEqual(['https'])
      expect(values(sent, 'x-forwarded-port')).toEqual(['8443'])
    },
  },
  {
    number: 12,
    says: 'and what it says that cannot be is not',
    about: 'ours',
    async run(front) {
      const claims = ['Host: a/b', 'Proto: gopher', 'Port: x'].map((it) => `X-Forwarded-${it}`)
      const { sent } = await passed(front, get('/', ...claims), OK, TRUSTED)
      expect(values(sent, 'x-forwarded-host')).toEqual(['front.test'])
      expect(values(sent, 'x-forwarded-proto')).toEqual(['http'])
      expect(values(sent, 'x-forwarded-port')).toEqual([])
    },
  },
  {
    number: 12,
    says: 'a peer is trusted by its own address only, and by default nobody is',
    about: 'ours',
    async run(front) {
      for (const trustedProxies of [undefined, [], ['127.0.0.2', '10.0.0.0/8', '2001:db8::/32']]) {
        const { address, sent } = await addressOf(front, ['X-Forwarded-For: 10.1.1.1'], {
          ...(trustedProxies && { trustedProxies }),
        })
        expect([address, ...values(sent, 'x-forwarded-for')]).toEqual(['127.0.0.1', '127.0.0.1'])
      }
    },
  },
  ...chains.map(
    ([chain, address]): Row => ({
      number: 12,
      says: `from a trusted peer, the client of "${chain}" is ${address}`,
      about: 'ours',
      async run(front) {
        expect((await addressOf(front, [`X-Forwarded-For: ${chain}`])).address).toBe(address)
      },
    }),
  ),
  {
    number: 12,
    says: 'of a long chain, the nearest twenty hops are looked at and passed on',
    about: 'ours',
    async run(front) {
      const chain = Array.from({ length: 40 }, (_, i) => `10.0.0.${i}`)
      const { address, sent } = await addressOf(front, [`X-Forwarded-For: ${chain.join(', ')}`])
      expect(address).toBe('10.0.0.21')
      expect(values(sent, 'x-forwarded-for')).toEqual([[...chain.slice(21), '127.0.0.1'].join(', ')])
    },
  },
  {
    number: 13,
    says: 'Forwarded is sent only if asked for, and a client’s own is not passed on',
    about: 'ours',
    async run(front) {
      const line = 'Forwarded: for=6.6.6.6;host=evil.test'
      const without = await passed(front, get('/', line))
      expect(values(without.sent, 'forwarded')).toEqual([])
      for (const forwarded of [true, 'trusted'] as const) {
        const { sent } = await passed(front, get('/', line), OK, { proxy: { forwarded } })
        expect(values(sent, 'forwarded')).toEqual(['for=127.0.0.1;host=front.test;proto=http'])
      }
    },
  },
  {
    number: 13,
    says: 'Forwarded tells what trusted proxies said of X-Forwarded-*',
    about: 'ours',
    async run(front) {
      const fields = ['X-Forwarded-For: 2001:db8::1, 10.1.1.1', 'X-Forwarded-Host: a:1', 'X-Forwarded-Proto: https']
      const { sent } = await passed(front, get('/', ...fields), OK, { proxy: { ...TRUSTED.proxy, forwarded: true } })
      expect(values(sent, 'forwarded')).toEqual(['for="[2001:db8::1]";host="a:1";proto=https'])
    },
  },
  {
    number: 13,
    says: 'trusted proxies may say it by Forwarded instead',
    about: 'ours',
    async run(front) {
      const said = 'for=9.9.9.9, For="[2001:DB8::1]:4711";Proto=https;host="a:1" , for=10.1.1.1;by=_x'
      const { address, sent } = await addressOf(front, [`Forwarded: ${said}`, 'X-Forwarded-For: 6.6.6.6'], {
        ...TRUSTED.proxy,
        forwarded: 'trusted',
      })
      expect(address).toBe('2001:db8::1')
      expect(values(sent, 'forwarded')).toEqual([`${said}, for=127.0.0.1;host=front.test;proto=http`])
      expect(values(sent, 'x-forwarded-for')).toEqual(['2001:db8::1, 10.1.1.1, 127.0.0.1'])
      expect([...values(sent, 'x-forwarded-host'), ...values(sent, 'x-forwarded-proto')]).toEqual(['a:1', 'https'])
    },
  },
  ...['for=1.2.3.4;for=5.6.7.8', 'for', 'for="a', 'for=a b', 'for=1.2.3.4;', 'for=unknown', 'for=_obf', '=x', '"'].map(
    (said): Row => ({
      number: 13,
      says: `a Forwarded of ${said} does not name a client`,
      about: 'ours',
      async run(front) {
        const { address } = await addressOf(front, [`Forwarded: ${said}`], { ...TRUSTED.proxy, forwarded: 'trusted' })
        expect(address).toBe(said === 'for=1.2.3.4;' ? '1.2.3.4' : '127.0.0.1')
      },
    }),
  ),
  {
    number: 14,
    says: 'the address of an IPv4 client is the same on a socket for both families',
    about: 'ours',
    async run(front) {
      const { address } = await addressOf(front, ['X-Forwarded-For: ::ffff:7f00:1, 10.2.2.2'])
      expect(address).toBe('127.0.0.1')
    },
  },
  {
    number: 15,
    says: 'no client passes for this proxy or its balancer, nor with "_" for "-"',
    about: 'ours',
    async run(front) {
      const names = [
        'X-Real-IP',
        'X-LB-Probe',
        'X-Lb-Whatever',
        'X_Real_IP',
        'X_LB_Probe',
        'X_Forwarded_For',
        'X-Forwarded_Proto',
        'X_Request_ID',
        'Forwarded',
      ]
      const { sent } = await passed(front, get('/', ...names.map((name) => `${name}: evil`), 'X_Mine: kept'))
      expect(sent.replace('x-forwarded-host: front.test', '')).not.toContain('evil')
      expect(values(sent, 'x_mine')).toEqual(['kept'])
    },
  },
  ...['a', 'A.b-c_9', '0'.repeat(128)].map(
    (id): Row => ({
      number: 70,
      says: `a well-formed request id is kept: ${id}`,
      about: 'ours',
      async run(front) {
        const { sent, got } = await passed(front, get('/', `X-Request-Id: ${id}`))
        expect([values(sent, 'x-request-id'), values(got, 'x-request-id')]).toEqual([[id], [id]])
      },
    }),
  ),
  ...ids.map(
    ([which, fields]): Row => ({
      number: 70,
      says: `a new request id is made for ${which}, for both sides`,
      about: 'ours',
      async run(front) {
        const answer = OK.replace('\r\n', '\r\nX-Request-ID: backend\r\n')
        const { sent, got } = await passed(front, get('/', ...fields), answer)
        const [id] = values(sent, 'x-request-id')
        expect(id).toMatch(WELL_FORMED)
        expect(fields.join()).not.toContain(id)
        expect(values(sent, 'x-request-id')).toEqual([id])
        expect(values(got, 'x-request-id')).toEqual([id])
      },
    }),
  ),
  {
    number: 70,
    says: 'whose request id is kept can be said: of trusted proxies, of everybody, of nobody',
    about: 'ours',
    async run(front) {
      const kept = async (proxy: FrontOptions['proxy'] & object): Promise<boolean> => {
        const { sent } = await passed(front, get('/', 'X-Request-Id: given'), OK, { proxy })
        return values(sent, 'x-request-id').includes('given')
      }
      expect(await kept({ requestId: 'new' })).toBe(false)
      expect(await kept({ requestId: 'trusted' })).toBe(false)
      expect(await kept({ trustedProxies: ['10.0.0.0/8'] })).toBe(false)
      expect(await kept({ trustedProxies: ['10.0.0.0/8'], requestId: 'keep' })).toBe(true)
      expect(await kept({ trustedProxies: ['127.0.0.1'] })).toBe(true)
    },
  },
  {
    number: 70,
    says: 'without request ids that header is one like any other, and none is made',
    about: 'ours',
    async run(front) {
      const proxy = { requestId: false } as const
      const answer = OK.replace('\r\n', '\r\nX-Request-ID: backend\r\n')
      const { sent, got } = await passed(front, get('/', 'X-Request-Id: Root=1-6789'), answer, { proxy })
      expect([values(sent, 'x-request-id'), values(got, 'x-request-id')]).toEqual([['Root=1-6789'], ['backend']])
      const without = await passed(front, get('/'), OK, { proxy })
      for (const head of [without.sent, without.got]) expect(values(head, 'x-request-id')).toEqual([])
      const problem = await ask(await front([await nobody()], { proxy }), '/')
      expect(problem.status).toBe(502)
      expect(problem.headers).not.toHaveProperty('x-request-id')
      expect(JSON.parse(problem.body.toString())).not.toHaveProperty('requestId')
    },
  },
  {
    number: 70,
    says: 'no two requests are given one id',
    about: 'ours',
    async run(front) {
      const backend = await keeper()
      for (const proxy of [await front([backend]), await front([backend])]) {
        for (let i = 0; i < 5; i++) await ask(proxy, '/')
      }
      expect(new Set(backend.got.map(({ headers }) => headers['x-request-id'])).size).toBe(10)
    },
  },
  {
    number: 70,
    says: 'traceparent, tracestate and baggage are passed on unchanged',
    async run(front) {
      const fields = [
        'traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        'tracestate: a=1,b=2',
        'Baggage: x=1',
      ]
      const { sent } = await passed(front, get('/', ...fields))
      for (const field of fields) {
        const [name = '', value] = field.split(': ')
        expect(values(sent, name.toLowerCase())).toEqual([value])
      }
    },
  },
  {
    number: 11,
    says: 'no header of a request picks its backend',
    async run(front) {
      const [backend, other] = [await keeper(), await rawUpstream(() => {})]
      const proxy = await front([backend])
      const at = `127.0.0.1:${other.port}`
      const client = await rawClient(proxy)
      const names = [
        'X-Forwarded-Host',
        'X-Original-Host',
        'X-Host',
        'Forwarded: host',
        'X-Original-URL',
        'X-Rewrite-URL',
      ]
      client.write(
        `GET /a HTTP/1.1\r\nHost: ${at}\r\n${names.map((name) => `${name}: http://${at}/`).join('\r\n')}\r\n\r\n`,
      )
      expect(statusOf(await client.until(isWhole))).toBe(200)
      expect([backend.got.map(({ path }) => path), other.wires]).toEqual([['/a'], []])
    },
  },
]
