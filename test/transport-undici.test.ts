// What the kit of transports does not ask: undici's own holes, the advisories about it, and TLS.
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import tls from 'node:tls'
import { type Attempt, BalancerError, type BalancerRequest, httpTransport, undici } from 'evenkeel'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { balanceH2, h2Backend, tell } from './support/h2.ts'
import { CERT, KEY } from './support/tls.ts'
import { ask, balance, front, idle, keeper, OK, pause, rawUpstream, says, statsOf, until } from './support/upstreams.ts'

const GET: BalancerRequest = { method: 'GET', path: '/', headers: [], body: null }

afterEach(() => vi.restoreAllMocks())

describe('nothing that is sent can hold another request', () => {
  const injected = ['\r\nX-Evil: 1', '\n', '\r', '\0', ' HTTP/1.1\r\n\r\nGET /evil HTTP/1.1\r\nX: ']
  const places: Record<string, (text: string) => Partial<BalancerRequest>> = {
    'the method': (text) => ({ method: `GET${text}` }),
    'the path': (text) => ({ path: `/a${text}` }),
    'a header’s name': (text) => ({ headers: [`x-a${text}`, '1'] }),
    'a header’s value': (text) => ({ headers: ['x-a', `1${text}`] }),
    'bytes of a header': (text) => ({ headers: ['x-a', new TextEncoder().encode(`1${text}`)] }),
    'the type of a body': (text) => ({
      method: 'POST',
      headers: ['content-type', `a/b${text}`],
      body: new Uint8Array(1),
    }),
    Host: (text) => ({ headers: ['host', `a${text}`] }),
    'the length': (text) => ({ method: 'POST', headers: ['content-length', `1${text}`], body: new Uint8Array(1) }),
    'the protocol to change to': (text) => ({ upgrade: `websocket${text}` }),
  }
  test.each(Object.keys(places))('in %s', async (place) => {
    const backend = await rawUpstream(() => {})
    const balancer = balance([backend])
    for (const text of injected) {
      const sent = balancer.send({ ...GET, ...places[place]!(text) })
      await expect(sent.response, JSON.stringify(text)).rejects.toMatchObject({ code: 'PROTOCOL' })
    }
    await idle(balancer)
    expect(backend.wires.map(({ received }) => received).join('')).toBe('')
    expect(statsOf(balancer).failures).toBe(0)
  })

  test('a length in two cases, or one that the body has not', async () => {
    const backend = await rawUpstream(() => {})
    const balancer = balance([backend])
    const body = new Uint8Array(5)
    for (const headers of [
      ['Content-Length', '5', 'content-length', '6'],
      ['content-length', '6'],
      ['content-length', '-1'],
    ]) {
      const sent = balancer.send({ method: 'POST', path: '/', headers, body })
      await expect(sent.response, headers.join()).rejects.toMatchObject({ code: 'PROTOCOL' })
    }
    expect(backend.wires.map(({ received }) => received).join('')).toBe('')
  })

  test('a length where there is no body is not said', async () => {
    const backend = await keeper()
    const balancer = balance([backend])
    for (const body of [null, new Uint8Array()]) {
      const { response } = balancer.send({ ...GET, headers: ['content-length', '5'], body })
      expect((await response).status).toBe(200)
    }
    expect(backend.got.map(({ headers }) => headers['content-length'])).toEqual([undefined, undefined])
  })
})

describe('what a backend said wrong', () => {
  test.each([
    ['HTTP/1.1 100 Continue\r\n\r\n', 'HPE_UNEXPECTED_100', /100 Continue/],
    ['HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n', 'HPE_UNEXPECTED_101', /change of protocol/],
    ['HTTP/1.1 101 X\r\n\r\n', 'HPE_UNEXPECTED_101', /change of protocol/],
    ['HTTP/1.1 200 OK\r\ntransfer-encoding: foo\r\n\r\n', 'HPE_INVALID_TRANSFER_ENCODING', /foo/],
    ['HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n', 'HPE_INVALID_CONTENT_LENGTH', /contradicts/],
    ['HTTP/1.1 102 X\r\n\r\n'.repeat(11), 'HPE_TOO_MANY_INTERIM', /more than 10/],
    ['HTTP/1.1 099 X\r\n\r\n', 'HPE_INVALID_STATUS', /99/],
  ])('%j is told by a code and in words', async (answer, code, words) => {
    const attempts: Attempt[] = []
    const sinks = [{ name: 'keep', attempt: (attempt: Attempt) => void attempts.push(attempt) }]
    const balancer = balance([await rawUpstream(says(answer))], { retry: { attempts: 1 }, sinks })
    await expect(balancer.request('/')).rejects.toMatchObject({
      code: 'PROTOCOL',
      message: expect.stringMatching(words),
    })
    expect(attempts.map(({ outcome }) => [outcome!.class, outcome!.code])).toEqual([['protocol', code]])
  })

  test('a field of 15 000 tabs costs no time', async () => {
    const balancer = balance([await rawUpstream(says(OK.replace('\r\n', `\r\nx: ${'\t'.repeat(15_000)}a\r\n`)))])
    await (await balancer.request('/')).body.text()
    const from = performance.now()
    await (await balancer.request('/')).body.text()
    expect(performance.now() - from).toBeLessThan(500)
  })

  test('a body that was cut, then a refusal: what the client gets is the refusal, and nothing stays open', async () => {
    let answers = 0
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      if (++answers === 1)
        wire.socket.end('HTTP/1.1 206 X\r\ncontent-range: bytes 0-9/20\r\ncontent-length: 10\r\n\r\nhalf')
      else wire.write('HTTP/1.1 400 Bad\r\ncontent-length: 2\r\n\r\nno')
    })
    const balancer = balance([backend], { retry: { baseMs: 0 } })
    const answer = await ask(await front(balancer), '/')
    expect([answer.status, answer.body.toString(), answer.headers['content-length']]).toEqual([400, 'no', '2'])
    await idle(balancer)
  })
})

describe('options', () => {
  test.each([0, -1, 0.5, Number.NaN, Infinity])('maxHeaderBytes: %d is refused', (maxHeaderBytes) => {
    expect(() => undici({ maxHeaderBytes })).toThrow(/maxHeaderBytes: expected a whole number >= 1, found/)
  })

  test.each([undici, httpTransport])('of no use are refused, and undefined is as good as absent: %o', async (make) => {
    for (const name of ['connections', 'keepAliveMs', 'maxHeaderBytes']) {
      for (const value of [0, -1, Number.NaN, '1']) {
        expect(() => make({ [name]: value }), `${name} ${value}`).toThrow(new RegExp(`^${name}: expected`))
      }
    }
    for (const value of [0.5, Infinity]) expect(() => make({ connections: value })).toThrow(/connections: expected/)
    const absent = Object.fromEntries(
      ['connections', 'keepAliveMs', 'maxHeaderBytes', 'tls'].map((name) => [name, undefined]),
    )
    const transport = make(absent)
    const balancer = balance([await keeper()], { transport })
    expect((await balancer.fetch('/')).status).toBe(200)
  })

  test('a function that checks the server’s identity is asked, and believed', async () => {
    const backend = await h2Backend((stream) => tell(stream, 'ok'))
    const seen: string[] = []
    const checkServerIdentity = (host: string): Error | undefined => {
      seen.push(host)
      return seen.length === 1 ? new Error('not mine') : undefined
    }
    const settings = { undici: { allowH2: true, tls: { ca: CERT, checkServerIdentity } }, retry: { attempts: 1 } }
    await expect(balance([backend], settings).request('/')).rejects.toMatchObject({ code: 'TLS' })
    expect(await (await balance([backend], settings).request('/')).body.text()).toBe('ok')
    expect(seen).toEqual(['localhost', 'localhost'])
  })

  test('over HTTP/1.1, too, a Host of the client’s is no name in a certificate, and costs no new connection', async () => {
    const names: unknown[] = []
    const server = tls.createServer({ cert: CERT, key: KEY, ALPNProtocols: ['http/1.1'] }, (socket) => {
      names.push(socket.servername)
      socket.on('error', () => {}).on('data', () => socket.write(OK))
    })
    server.listen(0, 'localhost')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    const balancer = balance([`https://localhost:${port}`], { undici: { tls: { ca: CERT } } })
    for (const host of ['a.test', 'b.test', 'localhost']) {
      await (await balancer.request('/', { headers: { host } })).body.text()
    }
    expect(names).toEqual(['localhost'])
  })
})

describe('over HTTP/2', () => {
  test('who asks to change the protocol goes over HTTP/1.1, beside the others', async () => {
    const backend = await h2Backend((stream) => tell(stream, 'ok'), { allowHTTP1: true })
    backend.server.on('upgrade', (_request, socket: tls.TLSSocket) => {
      socket.write('HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n')
    })
    const balancer = balanceH2([backend])
    await (await balancer.request('/')).body.text()
    const { status, socket } = await balancer.send({ ...GET, upgrade: 'websocket' }).response
    expect(status).toBe(101)
    expect(balancer.stats().pools.default!.backends[0]!.connections).toEqual({ open: 2, idle: 1 })
    ;(socket as tls.TLSSocket).destroy()
    await idle(balancer)
    expect(backend.sessions).toHaveLength(1)
  })

  test('a connection that dies of old age under a request costs nothing and nobody', async () => {
    const backend = await h2Backend((stream, { ':path': path }) => {
      if (path === '/old' && stream.session === backend.sessions[0]) backend.sockets[0]!.destroy()
      else tell(stream, 'ok')
    })
    const balancer = balanceH2([backend])
    await (await balancer.request('/')).body.text()
    await pause(5)
    expect(await (await balancer.request('/old')).body.text()).toBe('ok')
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { stale: 1, ok: 2 } })
  })

  test('one on which nothing comes for long is left for a new one, and what it carries goes on', async () => {
    const backend = await h2Backend((stream, { ':path': path }) => {
      if (path === '/ok') tell(stream, 'ok')
    })
    const balancer = balanceH2([backend], { retry: { attempts: 1 } })
    const held = balancer.request('/held')
    await until(() => backend.streams.length === 1, 'no stream')
    const now = performance.now.bind(performance)
    const silent = balancer.request('/silent', { timeoutMs: 50 })
    await until(() => backend.streams.length === 2, 'no second stream')
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 6_000)
    await expect(silent).rejects.toMatchObject({ code: 'TIMEOUT' })
    expect(await (await balancer.request('/ok')).body.text()).toBe('ok')
    expect(backend.sessions).toHaveLength(2)
    tell(backend.streams[0]!, 'still here')
    expect(await (await held).body.text()).toBe('still here')
    await once(backend.sessions[0]!, 'close')
    expect(balancer.stats().pools.default!.backends[0]!.connections!.open).toBe(1)
  })

  test('one left for silence while its transport closes is nobody’s error', async () => {
    const backend = await h2Backend(() => {})
    const transport = undici({ allowH2: true, tls: { ca: CERT } })
    const balancer = balance([backend], { transport, retry: { attempts: 1 } })
    const { call, response } = balancer.send(GET)
    await until(() => backend.streams.length === 1, 'no stream')
    const now = performance.now.bind(performance)
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 6_000)
    const closed = transport.close!()
    call.cancel(new BalancerError('TIMEOUT', 'late'))
    await expect(response).rejects.toBeDefined()
    await closed
  })

  test('one left for silence makes room where no other may be opened', async () => {
    const backend = await h2Backend((stream, { ':path': path }) => {
      if (path === '/ok') tell(stream, 'ok')
    })
    const balancer = balanceH2([backend], { retry: { attempts: 1 }, undici: { connections: 1 } })
    const now = performance.now.bind(performance)
    const silent = balancer.request('/silent', { timeoutMs: 50 })
    await until(() => backend.streams.length === 1, 'no stream')
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 6_000)
    await expect(silent).rejects.toMatchObject({ code: 'TIMEOUT' })
    expect(await (await balancer.request('/ok')).body.text()).toBe('ok')
    expect(backend.sessions).toHaveLength(2)
  })

  test('an idle connection is closed after its time, and the next request opens another', async () => {
    const backend = await h2Backend((stream) => tell(stream, 'ok'))
    const balancer = balanceH2([backend], { undici: { keepAliveMs: 30 } })
    await (await balancer.request('/')).body.text()
    await once(backend.sessions[0]!, 'close')
    expect(await (await balancer.request('/')).body.text()).toBe('ok')
    expect(backend.sessions).toHaveLength(2)
  })

  test('more fields than Node’s client takes end one stream only', async () => {
    const backend = await h2Backend((stream, { ':path': path }) => {
      const many = Object.fromEntries(Array.from({ length: 600 }, (_, i) => [`x-${i}`, '1']))
      stream.respond({ ':status': 200, ...(path === '/many' && many) })
      stream.end('ok')
    })
    const balancer = balanceH2([backend], { retry: { attempts: 1 } })
    await expect(balancer.request('/many')).rejects.toMatchObject({ name: 'BalancerError' })
    expect(await (await balancer.request('/')).body.text()).toBe('ok')
  })
})
