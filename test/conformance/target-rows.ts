import { expect } from 'vitest'
import { ask, keeper, OK, rawClient } from '../support/upstreams.ts'
import { get, isWhole, NOT_BY_WEB, passed, statusOf } from './passing.ts'
import type { Row } from './row.ts'

const unsafe = [
  [16, 'x'],
  [16, '*'],
  [16, '/a#b'],
  [16, '/\\..\\x'],
  [16, '/a\\b'],
  [16, '/a\x01b'],
  [16, '/a\x7fb'],
  [16, '/a b'],
  [16, '/\xe9'],
  [16, '/?q=\xe9'],
  [16, '/?q=a\\b'],
  [18, '/..'],
  [18, '/../x'],
  [18, '/a/../../x'],
  [18, '/%2e%2e/x'],
  [18, '/.%2E/x'],
  [18, '/a/..%2fx'],
  [18, '/a/..%5Cx'],
  [18, '/%2e%2e%2f%2e%2e%2fx'],
  [18, '/%252e%252e/x'],
  [18, '/..%252fx'],
  [18, '/%25252e%252e/x'],
  [18, '/%zz'],
  [18, '/%'],
  [18, '/a%2'],
] as const

const safe = [
  [17, '//evil.test/x'],
  [17, '///evil.test'],
  [17, '/@evil.test'],
  [18, '/...slug'],
  [18, '/a..b/..c/d..'],
  [18, '/.hidden/./x'],
  [18, '/%2e/%41%20%2F'],
  [19, '/?'],
  [19, '/a?b=1&b=2;c&&=%zz&up=../..'],
  [19, '/a?x=1&x=2;y'],
  [19, '/a?%41=+&='],
  [19, '/a??b?/c'],
  [19, `/?${'x'.repeat(8_000)}`],
] as const

/** A URL has none of these: they were resolved when the Request was made. */
const RESOLVED = /[#\\]|^\*|\/\.|%2e|\.\.\//i

/** What backends say of places, and what clients are told; '@' is the backend's own origin, its base path is /base. */
const locations = [
  ['@/base/a?b=1#c', '/a?b=1#c'],
  ['@/base', '/'],
  ['@/base?x', '/?x'],
  ['/base/a', '/a'],
  ['@/base//evil.test', '/.//evil.test'],
  ['@/other', '@/other'],
  ['@/basement', '@/basement'],
  ['/other', '/other'],
  ['a/b', 'a/b'],
  ['?x', '?x'],
  ['//evil.test/base/a', '//evil.test/base/a'],
  ['http://evil.test/base/a', 'http://evil.test/base/a'],
  ['@.evil.test/base', '@.evil.test/base'],
  ['http://user@evil.test/base', 'http://user@evil.test/base'],
  ['@/base/\\evil.test', '@/base/\\evil.test'],
  ['@/base/\t/evil.test', '@/base/\t/evil.test'],
  ['', ''],
] as const

/** Rows 16 to 21: which path of which backend a request reaches. */
export const TARGET_ROWS: readonly Row[] = [
  ...unsafe.map(
    ([number, target]): Row => ({
      number,
      says: `${JSON.stringify(target)} is answered 400 and goes nowhere`,
      ...(/%25/.test(target) && { about: 'ours' }), // no RFC asks anybody to decode twice
      ...(RESOLVED.test(target) && { not: NOT_BY_WEB }),
      async run(front) {
        const backend = await keeper()
        const proxy = await front([`${backend.url}/base`])
        const client = await rawClient(proxy)
        client.write(get(target))
        expect(statusOf(await client.until('\r\n\r\n'))).toBe(400)
        expect(backend.got).toEqual([])
        expect((await ask(proxy, '/next')).status).toBe(200)
      },
    }),
  ),
  {
    number: 16,
    says: 'a refused target does not cost its client the connection',
    about: 'ours',
    not: { fastify: 'its router refuses it before the proxy does' },
    async run(front) {
      const client = await rawClient(await front([await keeper()]))
      client.write(get('/%zz') + get('/next', 'Connection: close'))
      await client.closed()
      expect(client.received.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 400', 'HTTP/1.1 200'])
      expect(client.received).toContain('application/problem+json')
    },
  },
  ...safe.map(
    ([number, target]): Row => ({
      number,
      says: `${JSON.stringify(target.slice(0, 40))} stays as it is, behind the base path of the chosen backend`,
      ...(RESOLVED.test(target) && { not: NOT_BY_WEB }),
      async run(front) {
        const backend = await keeper()
        const client = await rawClient(await front([`${backend.url}/base/`]))
        client.write(get(target))
        expect(statusOf(await client.until(isWhole))).toBe(200)
        expect(backend.got.map(({ path }) => path)).toEqual([`/base${target}`])
      },
    }),
  ),
  {
    number: 16,
    says: 'OPTIONS * is never a path, whoever answers it',
    not: NOT_BY_WEB,
    async run(front) {
      const backend = await keeper()
      for (const url of [backend.url, `${backend.url}/base`]) {
        const client = await rawClient(await front([url]))
        client.write('OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
        await client.closed()
        expect([200, 204, 400, 501]).toContain(statusOf(client.received))
      }
      expect(backend.got.map(({ path }) => path).filter((path) => path !== '*')).toEqual([])
    },
  },
  ...locations.map(
    ([said, told]): Row => ({
      number: 19,
      says: `on demand, a Location of ${JSON.stringify(said)} is told as ${JSON.stringify(told)}`,
      about: 'ours',
      async run(front) {
        const backend = await keeper((_, response) => {
          const url = said.replace('@', here)
          response.writeHead(301, ['Location', url, 'Content-Location', url, 'Refresh', `5; url=${url}`]).end()
        })
        const here = backend.url
        const proxy = await front([`${backend.url}/base`], { proxy: { locations: true } })
        const { headers } = await ask(proxy, '/')
        const url = told.replace('@', here)
        expect([headers.location, headers['content-location'], headers.refresh]).toEqual([
          url,
          url,
          `5; url=${url}`.trim(),
        ])
      },
    }),
  ),
  {
    number: 19,
    says: 'without demand no Location is touched',
    async run(front) {
      const backend = await keeper((_, response) =>
        response.writeHead(301, { location: `${backend.url}/base/a` }).end(),
      )
      const { headers } = await ask(await front([`${backend.url}/base`]), '/')
      expect(headers.location).toBe(`${backend.url}/base/a`)
    },
  },
  {
    number: 20,
    says: 'backends whose base paths begin alike are not taken for each other',
    async run(front) {
      const backend = await keeper()
      for (const [base, path] of [
        ['/a', '/b/c'],
        ['/a/b', '/c'],
        ['', '/a/b/c'],
      ] as const) {
        await ask(await front([backend.url + base]), path)
      }
      expect(backend.got.map(({ path }) => path)).toEqual(['/a/b/c', '/a/b/c', '/a/b/c'])
    },
  },
  {
    number: 21,
    says: 'a prefix is compared on the very path that is forwarded',
    about: 'ours',
    async run(front) {
      const backend = await keeper()
      const proxy = await front([`${backend.url}/base`], { proxy: { path: { strip: '/api/', add: '/v1' } } })
      const statuses: number[] = []
      const paths = ['/api', '/api/', '/api?x=/api', '/api/a/b?c', '/api//evil.test', '/api/api/x']
      const others = ['/', '/apis', '/API/a', '/%61pi/a', '//api/a', '/api;x/a', '/a/api/b']
      for (const path of [...paths, ...others]) statuses.push((await ask(proxy, path)).status)
      expect(statuses).toEqual([...paths.map(() => 200), ...others.map(() => 404)])
      expect(backend.got.map(({ path }) => path)).toEqual([
        '/base/v1/',
        '/base/v1/',
        '/base/v1/?x=/api',
        '/base/v1/a/b?c',
        '/base/v1//evil.test',
        '/base/v1/api/x',
      ])
    },
  },
  {
    number: 21,
    says: 'what clients are told of paths is turned back the same way',
    about: 'ours',
    async run(front) {
      const backend = await keeper((request, response) => {
        response.writeHead(201, ['Location', request.url!, 'Set-Cookie', `a=1; Path=${request.url}; Secure`]).end()
      })
      const proxy = await front([`${backend.url}/base`], {
        proxy: { path: { strip: '/api', add: '/v1' }, locations: true, cookies: { path: true } },
      })
      const { headers } = await ask(proxy, '/api/things?x')
      expect(headers.location).toBe('/api/things?x')
      expect(headers['set-cookie']).toEqual(['a=1; Path=/api/things?x; Secure'])
    },
  },
  {
    number: 18,
    says: 'a prefix taken off leaves no way up',
    about: 'ours',
    not: NOT_BY_WEB,
    async run(front) {
      for (const path of ['/api/../x', '/api/%2e%2e/x', '/api..%2fx', '/api/..;a/x']) {
        const backend = await keeper()
        const client = await rawClient(await front([backend], { proxy: { path: { strip: '/api' } } }))
        client.write(get(path))
        expect([400, 404]).toContain(statusOf(await client.until('\r\n\r\n')))
        expect(backend.got).toEqual([])
      }
    },
  },
  {
    number: 19,
    says: 'a query is part of no path',
    async run(front) {
      const { sent } = await passed(front, get('/a?/../..'), OK, { basePath: '/base' })
      expect(sent.split('\r\n')[0]).toBe('GET /base/a?/../.. HTTP/1.1')
    },
  },
]
