// What a proxy refuses, below the servers that refuse most of it themselves: the neutral form of a request, and hostile ones of every kind.
import { once } from 'node:events'
import http from 'node:http'
import { createBalancer } from 'evenkeel'
import { createProxy, type ProxyOptions } from 'evenkeel/node'
import { seededRandom } from 'evenkeel/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parseForwarded } from '../src/adapters/forwarded.ts'
import { Gateway } from '../src/adapters/gateway.ts'
import { type Incoming, inOriginForm } from '../src/adapters/incoming.ts'
import { isAuthority } from '../src/core/target.ts'
import { get, isWhole, statusOf, values } from './conformance/passing.ts'
import {
  ask,
  balance,
  front,
  keeper,
  nobody,
  rawClient,
  rawUpstream,
  type Upstream,
  until,
  upstream,
} from './support/upstreams.ts'

const nowhere = createBalancer({ backends: ['http://a'] })

/** The status of the proxy's own answer; undefined = it would be sent. */
function refusal(
  { fields = ['Host', 'a'], ...incoming }: Partial<Incoming> & { readonly fields?: readonly string[] },
  options: ProxyOptions = {},
): number | undefined {
  const request: Incoming = {
    method: 'GET',
    target: '/',
    version: '1.1',
    address: '127.0.0.1',
    isEncrypted: false,
    rawHeaders: fields,
    ...incoming,
  }
  return new Gateway(nowhere, options).open(request, {} as http.IncomingMessage).reply?.status
}

describe('the neutral form of a request', () => {
  test.each([
    ['as it should be', {}, undefined],
    ['two lengths by case', { fields: ['Host', 'a', 'Content-Length', '3', 'content-length', '3'] }, 400],
    ['a length that is a list', { fields: ['Host', 'a', 'Content-Length', '3,3'] }, 400],
    ['no length', { fields: ['Host', 'a', 'Content-Length', ''] }, 400],
    ['a signed length', { fields: ['Host', 'a', 'Content-Length', '-1'] }, 400],
    ['both framings', { fields: ['Host', 'a', 'Content-Length', '3', 'Transfer-Encoding', 'chunked'] }, 400],
    ['two codings by line', { fields: ['Host', 'a', 'Transfer-Encoding', 'chunked', 'transfer-encoding', 'x'] }, 501],
    ['a coding in HTTP/1.0', { version: '1.0', fields: ['Transfer-Encoding', 'chunked'] }, 400],
    ['a coding in HTTP/2', { version: '2', fields: [':authority', 'a', 'transfer-encoding', 'chunked'] }, 400],
    ['HTTP/2 without Host', { version: '2', fields: [':authority', 'a'] }, undefined],
    ['HTTP/2 with both, equal', { version: '2', fields: [':authority', 'a', 'host', 'a'] }, undefined],
    ['HTTP/2 with both, not equal', { version: '2', fields: [':authority', 'a', 'host', 'b'] }, 400],
    ['no version that is known', { version: '1.2' }, 505],
    ['CONNECT', { method: 'CONNECT', target: 'a:1' }, 405],
    ['TRACE', { method: 'TRACE' }, 405],
    ['a method named as every object has one', { method: '__proto__' }, undefined],
    [
      'fields named as every object has one',
      { fields: ['Host', 'a', '__proto__', 'x', 'constructor', 'y'] },
      undefined,
    ],
  ] as const)('with %s', (_, incoming, status) => {
    expect(refusal(incoming)).toBe(status)
  })

  test('with a method named as every object has one is not on a list', () => {
    for (const method of ['__proto__', 'constructor', 'toString', 'get', 'Get']) {
      expect(refusal({ method }, { methods: ['GET'] })).toBe(405)
    }
  })

  test('in absolute-form becomes one in origin-form, but only if it is one', () => {
    const asked = (target: string): string =>
      inOriginForm({ method: 'GET', target, version: '1.0', rawHeaders: [], address: '', isEncrypted: false }).target
    expect(['http://a/b', 'http://a', 'HTTPS://[::1]:1?x'].map(asked)).toEqual(['/b', '/', '/?x'])
    for (const odd of ['/http://a/b', 'http://a b/', 'http://@a/', 'http:/a', 'javascript://a/b', 'http://a#b@c/']) {
      const known = asked(odd)
      expect(known === odd || known.startsWith('/#')).toBe(true)
    }
  })
})

describe('time goes by the length of what is read', () => {
  const long = 65_536
  const parsers: readonly [name: string, read: (text: string) => unknown][] = [
    ['Forwarded', parseForwarded],
    ['Forwarded, quoted', (text) => parseForwarded(`for="${text}`)],
    [
      'X-Forwarded-For',
      (text) => refusal({ fields: ['Host', 'a', 'X-Forwarded-For', text] }, { trustedProxies: ['127.0.0.1'] }),
    ],
    ['Via', (text) => refusal({ fields: ['Host', 'a', 'Via', text] }, { limits: { headerBytes: 1e6 } })],
    ['Connection', (text) => refusal({ fields: ['Host', 'a', 'Connection', text] }, { limits: { headerBytes: 1e6 } })],
    ['Host', isAuthority],
    ['absolute-form', (text) => refusal({ target: `http://${text}` }, { limits: { targetBytes: 1e6 } })],
    ['a target', (text) => refusal({ target: `/${text}` }, { limits: { targetBytes: 1e6 } })],
  ]
  const texts = ['\t', ' ', ',', '"', ';', '=', '%25', '../', '/', 'a', '\\"', ', "', 'for=a,', '[:', 'a.']

  test.each(parsers)('%s', (_, read) => {
    for (const text of texts) {
      const whole = text.repeat(long / text.length)
      read(whole)
      const startMs = performance.now()
      read(whole)
      // Quadratic would be minutes; a loaded machine is forgiven much.
      expect(performance.now() - startMs, JSON.stringify(text)).toBeLessThan(1_000)
    }
  })
})

describe('hostile requests', () => {
  test('10 000 random targets: nobody crashes, none is a 500, none leaves its base path', async () => {
    const unhandled: unknown[] = []
    const note = (error: unknown): void => void unhandled.push(error)
    process.on('unhandledRejection', note)
    onTestFinished(() => void process.off('unhandledRejection', note))
    const seen: string[] = []
    const backend = await upstream((request, response) => {
      seen.push(request.url!)
      response.end()
    })
    const proxy = await front(balance([`${backend.url}/base`]))
    const random = seededRandom(7)
    const pieces = [
      '/',
      '.',
      '..',
      '%2e',
      '%2F',
      '%5c',
      '%25',
      '%',
      '\\',
      '#',
      '?',
      'a',
      ';',
      ':',
      '@',
      '//',
      'http:',
      '*',
      '&',
    ]
    pieces.push('=', '%zz', '[', '"', '__proto__')
    const statuses: number[] = []
    while (statuses.length < 10_000) {
      // Over two '#' Node ends the connection itself.
      const targets = Array.from({ length: 100 }, () => {
        return `/${Array.from({ length: 1 + random(8) }, () => pieces[random(pieces.length)]).join('')}`
      }).filter((target) => !/#.*#/.test(target))
      const client = await rawClient(proxy)
      client.write(targets.map((target) => get(target)).join('') + get('/last', 'Connection: close'))
      await client.closed()
      const lines = client.received.match(/(?<=^|\n|\})HTTP\/1\.1 \d{3}/g)!
      expect(lines).toHaveLength(targets.length + 1)
      statuses.push(...lines.map((line) => Number(line.slice(9))))
    }
    expect([...new Set(statuses)].sort()).toEqual([200, 400])
    expect(seen.every((path) => path.startsWith('/base/') && !path.split('?')[0]!.split('/').includes('..'))).toBe(true)
    expect(seen.length).toBeGreaterThan(1_000)
    expect(unhandled).toEqual([])
  })

  test('what no parser takes for a request is answered or cut, and the next client is served', async () => {
    const backend = await keeper()
    const proxy = await front(balance([backend]))
    const random = seededRandom(11)
    const pieces = [
      'GET ',
      '/ ',
      'HTTP/1.1',
      '\r\n',
      '\n',
      '\0',
      ':',
      ' ',
      'Host: a',
      '\x7f',
      '\xff',
      'Content-Length: 1',
      'Transfer-Encoding: chunked',
      '0',
    ]
    for (let i = 0; i < 200; i++) {
      const client = await rawClient(proxy)
      client.socket.end(Array.from({ length: 1 + random(12) }, () => pieces[random(pieces.length)]).join(''), 'latin1')
      await client.closed()
      expect(client.received).toMatch(/^$|^HTTP\/1\.1 [2345]/)
    }
    expect((await ask(proxy, '/')).status).toBe(200)
  })

  test('60 KB of tabs in a field are refused, or read, at once', async () => {
    const backend = await keeper()
    const handler = createProxy(balance([backend]), { limits: { headerBytes: 100_000 } })
    const server = http.createServer({ maxHeaderSize: 100_000 }, handler)
    const port = await listening(server)
    const client = await rawClient({ url: '', port })
    const startMs = performance.now()
    for (const name of ['X-A', 'Connection', 'Via', 'TE', 'Forwarded', 'X-Forwarded-For', 'Cookie', 'Expect']) {
      client.write(get('/', `${name}: a${'\t'.repeat(60_000)}b`))
    }
    await until(() => client.received.split('HTTP/1.1 ').length === 9, 'eight answers should have come')
    expect(performance.now() - startMs).toBeLessThan(2_000)
  })

  test('fields named as every object has them go through, both ways', async () => {
    const names = ['__proto__', 'constructor', 'hasOwnProperty', 'toString']
    const lines = names.map((name) => `${name}: of ${name}`)
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write(`HTTP/1.1 200 OK\r\n${lines.join('\r\n')}\r\ncontent-length: 2\r\n\r\nok`)
    })
    const client = await rawClient(await front(balance([backend])))
    client.write(get('/', ...lines))
    const got = await client.until(isWhole)
    const sent = (await backend.wire()).received
    for (const name of names) {
      expect(values(sent, name.toLowerCase())).toEqual([`of ${name}`])
      expect(values(got, name.toLowerCase())).toEqual([`of ${name}`])
    }
    expect(statusOf(got)).toBe(200)
    expect(({} as Record<string, unknown>).of).toBeUndefined()
  })

  test('with Node’s lenient parser nothing ambiguous gets through', async () => {
    const backend = await keeper()
    const server = http.createServer({ insecureHTTPParser: true }, createProxy(balance([backend])))
    const port = await listening(server)
    const bodies = [
      'Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc',
      'Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
      'Transfer-Encoding: chunked, x\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
    ]
    for (const body of bodies) {
      const client = await rawClient({ url: '', port })
      client.write(`POST / HTTP/1.1\r\nHost: a\r\n${body}${get('/smuggled')}`)
      await client.closed()
      expect([400, 501]).toContain(statusOf(client.received))
    }
    expect(backend.got).toEqual([])
  })
})

describe('attached to a server', () => {
  async function attached(
    options: ProxyOptions = {},
    backend?: Upstream,
  ): Promise<Upstream & { readonly server: http.Server }> {
    const proxy = createProxy(balance([backend ?? (await keeper())]), options)
    const server = http.createServer()
    proxy.attach(server)
    const port = await listening(server)
    return { url: `http://127.0.0.1:${port}`, port, server }
  }

  test('a proxy serves its requests if nobody else does', async () => {
    expect((await ask(await attached(), '/')).status).toBe(200)
  })

  test('a proxy leaves requests to who serves them, and takes everything back', async () => {
    const proxy = createProxy(balance([await keeper()]))
    const own: http.RequestListener = (_, response) => response.end('own')
    const server = http.createServer(own)
    const stop = proxy.attach(server)
    expect(server.listeners('request')).toEqual([own])
    expect(server.listenerCount('checkContinue')).toBe(0)
    expect(server.listenerCount('connect')).toBe(1)
    stop()
    stop()
    for (const event of ['connect', 'clientError', 'checkContinue', 'upgrade'])
      expect(server.listenerCount(event)).toBe(0)
    expect(server.listeners('request')).toEqual([own])
  })

  test('CONNECT gets a 405 with a problem body, and what it sends early is nothing', async () => {
    const backend = await keeper()
    const client = await rawClient(await attached({}, backend))
    client.write(`CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n${get('/early')}`)
    await client.closed()
    expect(statusOf(client.received)).toBe(405)
    expect(values(client.received, 'allow').join()).toContain('GET')
    expect(values(client.received, 'connection')).toEqual(['close'])
    expect(JSON.parse(client.received.split('\r\n\r\n')[1]!)).toMatchObject({ status: 405, code: 'METHOD' })
    expect(backend.got).toEqual([])
  })

  test.each([
    ['no HTTP', 'hello\r\n\r\n', 400, 'PROTOCOL'],
    ['a head without end', `GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}`, 431, 'HEADERS_TOO_LARGE'],
    ['a field with a NUL', 'GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n', 400, 'PROTOCOL'],
  ])('%s gets a problem body, too', async (_, bytes, status, code) => {
    const client = await rawClient(await attached())
    client.write(bytes)
    await client.closed()
    expect(statusOf(client.received)).toBe(status)
    expect(JSON.parse(client.received.split('\r\n\r\n')[1]!)).toMatchObject({ status, code })
  })

  test('what is no HTTP never breaks into an answer that has begun', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf') // more than is held back for a repeat
    })
    const client = await rawClient(await attached({}, backend))
    client.write(get('/'))
    await client.until('half')
    client.write('no HTTP\r\n\r\n')
    await client.closed()
    expect(client.received.match(/HTTP\/1\.1/g)).toHaveLength(1)
    expect(client.received.endsWith('half')).toBe(true)
  })

  test('a body that is expected to be too long is refused before it is sent', async () => {
    const client = await rawClient(await attached({ limits: { bodyBytes: 10 } }))
    client.write('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n')
    await client.closed()
    expect(client.received).not.toContain('100 Continue')
    expect([statusOf(client.received), ...values(client.received, 'connection')]).toEqual([413, 'close'])
  })

  test('nor is one sent for which there is no backend', async () => {
    const client = await rawClient(await attached({}, await nobody()))
    client.write('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n')
    await client.closed()
    expect(client.received).not.toContain('100 Continue')
    expect(statusOf(client.received)).toBe(502)
  })

  test('one that is wanted follows its 100, and the connection goes on', async () => {
    const backend = await keeper()
    const client = await rawClient(await attached({}, backend))
    client.write('POST /1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n')
    await client.until('HTTP/1.1 100 Continue\r\n\r\n')
    client.write(`abc${get('/2', 'Connection: close')}`)
    await client.closed()
    expect(client.received.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 100', 'HTTP/1.1 200', 'HTTP/1.1 200'])
    expect(backend.got.map(({ path, body }) => [path, body.toString()])).toEqual([
      ['/1', 'abc'],
      ['/2', ''],
    ])
  })
})

async function listening(server: http.Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  })
  return (server.address() as { port: number }).port
}
