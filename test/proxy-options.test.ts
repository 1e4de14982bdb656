import { BalancerError, createBalancer, Secret } from 'evenkeel'
import { createProxy, type ProxyOptions } from 'evenkeel/node'
import { describe, expect, test } from 'vitest'

const balancer = createBalancer({ backends: ['http://a'] })

/** What is wrong with options, path by path. */
function issuesOf(options: unknown): readonly string[] {
  try {
    createProxy(balancer, options as ProxyOptions)
    return []
  } catch (error) {
    if (!(error instanceof BalancerError)) throw error
    expect(error.code).toBe('CONFIG')
    for (const { path, expected, found } of error.issues!) {
      expect(error.message).toContain(`${path || 'options'}: expected ${expected}, found ${found}`)
    }
    return error.issues!.map(({ path, found }) => `${path}: ${found}`)
  }
}

const wrong: readonly [path: string, options: unknown, found: string][] = [
  ['', 7, '7'],
  ['', null, 'null'],
  ['hots', { hots: 'target' }, 'an unknown key'],
  ['bufferBytes', { bufferBytes: -1 }, '-1'],
  ['call', { call: {} }, 'a value of type object'],
  ['clientIdleMs', { clientIdleMs: 2 ** 31 }, '2147483648'],
  ['clientIdleMs', { clientIdleMs: Number.NaN }, 'NaN'],
  ['cookies', { cookies: true }, 'true'],
  ['cookies.domain', { cookies: { domain: 'a;b' } }, '"a;b"'],
  ['cookies.path', { cookies: { path: '/' } }, '"/"'],
  ['exposeErrors', { exposeErrors: 'yes' }, '"yes"'],
  ['forwarded', { forwarded: 'yes' }, '"yes"'],
  ['host', { host: 'a/b' }, '"a/b"'],
  ['host', { host: 'a\r\nb' }, '"a\\r\\nb"'],
  ['interceptBody.change', { interceptBody: {} }, 'a value of type undefined'],
  ['interceptBody.limitBytes', { interceptBody: { change: String, limitBytes: 0 } }, '0'],
  ['limits.targetBytes', { limits: { targetBytes: 0 } }, '0'],
  ['limits.bodyByte', { limits: { bodyByte: 1 } }, 'an unknown key'],
  ['locations', { locations: 1 }, '1'],
  ['methods', { methods: 'GET' }, '"GET"'],
  ['methods[1]', { methods: ['GET', 'CONNECT'] }, '"CONNECT"'],
  ['methods[0]', { methods: ['GE T'] }, '"GE T"'],
  ['onRequest', { onRequest: 'x' }, '"x"'],
  ['onResponse', { onResponse: null }, 'null'],
  ['path.strip', { path: { strip: 'api' } }, '"api"'],
  ['path.strip', { path: { strip: '/a/../b' } }, '"/a/../b"'],
  ['path.add', { path: { add: '/a?b' } }, '"/a?b"'],
  ['path.add', { path: { add: '/a\r\nb' } }, '"/a\\r\\nb"'],
  ['path.to', { path: { to: '/a' } }, 'an unknown key'],
  ['requestHeaders.set.via', { requestHeaders: { set: { via: 'x' } } }, '"via"'],
  ['requestHeaders.set.a b', { requestHeaders: { set: { 'a b': 'x' } } }, '"a b"'],
  ['requestHeaders.add.X_Forwarded_For', { requestHeaders: { add: { X_Forwarded_For: 'x' } } }, '"X_Forwarded_For"'],
  ['requestHeaders.add.a', { requestHeaders: { add: { a: 'canary\r\nb: c' } } }, 'a text with other characters'],
  ['requestHeaders.add.a', { requestHeaders: { add: { a: new Secret('canary\0') } } }, 'a value of type object'],
  ['requestHeaders.add.a', { requestHeaders: { add: { a: 7 } } }, 'a value of type number'],
  ['requestHeaders.remove[0]', { requestHeaders: { remove: [7] } }, '7'],
  ['responseHeaders.set.Content-Length', { responseHeaders: { set: { 'Content-Length': '1' } } }, '"Content-Length"'],
  ['requestId', { requestId: 'always' }, '"always"'],
  ['strayBodies', { strayBodies: 'drop' }, '"drop"'],
  ['trustedProxies', { trustedProxies: '10.0.0.0/8' }, '"10.0.0.0/8"'],
  ['trustedProxies[1]', { trustedProxies: ['::1', '10.0.0.0/33'] }, '"10.0.0.0/33"'],
  ['trustedProxies[0]', { trustedProxies: ['0177.0.0.1'] }, '"0177.0.0.1"'],
  ['trustedProxies[0]', { trustedProxies: ['10.1'] }, '"10.1"'],
  ['trustedProxies[0]', { trustedProxies: ['localhost'] }, '"localhost"'],
  ['trustedProxies[0]', { trustedProxies: ['fe80::1%eth0'] }, '"fe80::1%eth0"'],
  ['trustedProxies[0]', { trustedProxies: ['::1/'] }, '"::1/"'],
  ['trustedProxies[0]', { trustedProxies: ['::1/64/3'] }, '"::1/64/3"'],
  ['via', { via: 'a b' }, '"a b"'],
]

describe('options of a proxy', () => {
  test.each(wrong)('%s is checked: %j', (path, options, found) => {
    expect(issuesOf(options)).toEqual([`${path}: ${found}`])
  })

  test('are told all at once, those of affinity as well', () => {
    const options = { via: '', affinity: { secret: 'short' }, limits: { headerCount: 0.5 }, methods: [''] }
    expect(issuesOf(options).map((issue) => issue.split(':')[0])).toEqual([
      'via',
      'affinity.secret',
      'limits.headerCount',
      'methods[0]',
    ])
  })

  test('show no value of a header when they are wrong', () => {
    expect(issuesOf({ requestHeaders: { set: { authorization: 'canary\n' } } }).join()).not.toContain('canary')
  })

  test('of every kind are taken when they are right', () => {
    const right: ProxyOptions = {
      via: 'edge',
      bufferBytes: 0,
      limits: { targetBytes: 1, headerCount: 1, headerBytes: 1, bodyBytes: 0 },
      methods: ['GET', 'TRACE', 'm-search'],
      strayBodies: 'reject',
      clientIdleMs: 0,
      trustedProxies: ['127.0.0.1', '10.0.0.0/8', '::1', 'fd00::/8', '0.0.0.0/0'],
      forwarded: 'trusted',
      requestId: 'new',
      path: { strip: '/', add: '/v1/' },
      host: '[::1]:80',
      requestHeaders: { set: { a: 'é', b: new Secret('x') }, add: { c: '' }, remove: ['d'] },
      responseHeaders: { set: { a: 'x' }, remove: ['server'] },
      locations: true,
      cookies: { domain: '.example.com', path: true },
      interceptBody: { change: (body) => body },
      exposeErrors: true,
    }
    expect(issuesOf(right)).toEqual([])
    expect(issuesOf({ via: undefined, limits: { bodyBytes: undefined } })).toEqual([])
  })
})
