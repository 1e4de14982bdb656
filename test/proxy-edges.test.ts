import { once } from 'node:events'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import { fastifyProxy } from 'evenkeel/fastify'
import { createProxy, type ProxyOptions } from 'evenkeel/node'
import fastify from 'fastify'
import { describe, expect, onTestFinished, test } from 'vitest'
import { get } from './conformance/passing.ts'
import { socketTo, socketUpstream } from './support/sockets.ts'
import {
  ask,
  balance,
  bytesOf,
  front,
  inflight,
  keeper,
  nobody,
  OK,
  pause,
  type RawUpstream,
  rawClient,
  rawUpstream,
  says,
  statsOf,
  type Upstream,
  until,
  upstream,
} from './support/upstreams.ts'

const CONNECT = 'CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n'
const UPGRADE = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: abc'

/** A proxy with everything that `attach` does. */
async function attached(backend: Upstream, options: ProxyOptions = {}): Promise<Upstream> {
  const proxy = createProxy(balance([backend]), options)
  const made = await upstream(proxy)
  proxy.attach(made.server)
  return made
}

/** A client of the proxy over HTTP/2 without TLS. */
async function cleartext(backend: Upstream): Promise<http2.ClientHttp2Session> {
  const proxy = createProxy(balance([backend], { retry: { attempts: 1 } }))
  const server = http2.createServer(proxy as unknown as Parameters<typeof http2.createServer>[1] & object)
  proxy.attach(server as unknown as Parameters<typeof proxy.attach>[0])
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  client.on('error', () => {}) // its streams tell
  onTestFinished(() => {
    client.destroy()
    server.close()
  })
  return client
}

describe('CONNECT', () => {
  test('behind a refused request, from a client that breaks off, harms nobody', async () => {
    const proxy = await attached(await keeper())
    for (let i = 0; i < 10; i++) {
      const client = await rawClient(proxy)
      client.write(`GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n${CONNECT}`)
      if (i % 2 === 0) await client.until('HTTP/1.1 400')
      client.socket.resetAndDestroy()
      await client.closed()
    }
    expect((await ask(proxy, '/')).status).toBe(200)
  })

  test('waits for the answer in front of it', async () => {
    const go = Promise.withResolvers<void>()
    const backend = await keeper(async (_, response) => {
      await go.promise
      response.end('first')
    })
    const client = await rawClient(await attached(backend))
    client.write(get('/') + CONNECT)
    await until(() => backend.got.length === 1, 'the first should have been sent')
    await pause(20) // an answer that came too early would be there
    expect(client.received).toBe('')
    go.resolve()
    await client.closed()
    expect(client.received.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 405'])
    expect(client.received.indexOf('first')).toBeLessThan(client.received.indexOf('405'))
  })

  test('does not keep the request in front of it alive when their client goes', async () => {
    const backend = await rawUpstream(() => {})
    const client = await rawClient(await attached(backend))
    client.write(get('/') + CONNECT)
    const wire = await backend.wire()
    await wire.until('\r\n\r\n')
    client.socket.resetAndDestroy()
    await wire.closed()
  })

  test('over HTTP/2 is answered on its stream', async () => {
    const stream = (await cleartext(await keeper())).request({ ':method': 'CONNECT', ':authority': 'a:80' })
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    expect(headers[':status']).toBe(405)
    expect(JSON.parse(String(await bytesOf(stream)))).toMatchObject({ status: 405, code: 'METHOD' })
  })
})

test('what is no HTTP gets its answer as a whole from a server with two proxies, and time to read it', async () => {
  const made = await upstream(() => {})
  for (let i = 0; i < 2; i++) createProxy(balance([made])).attach(made.server)
  const client = await rawClient(made, { allowHalfOpen: true })
  client.write('no HTTP\r\n\r\n')
  await client.until('"code":"PROTOCOL"')
  client.write('more of it')
  await once(client.socket, 'end')
  client.write('and more')
  client.socket.end()
  expect(await client.closed()).toBe('fin')
  expect(client.received.match(/HTTP/g)).toHaveLength(1)
})

describe('to HTTP/2 clients', () => {
  test('a body that breaks off breaks its own stream, and no other', async () => {
    const begun = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n'
    const backend = await rawUpstream(says(begun))
    const client = await cleartext(backend)
    const whole = client.request({ ':path': '/whole' })
    const broken = client.request({ ':path': '/broken' })
    await Promise.all([once(whole, 'data'), once(broken, 'data')])
    const wireOf = (path: string) => backend.wires.find(({ received }) => received.includes(path))!
    const failed = once(broken, 'end')
    wireOf('/broken').socket.resetAndDestroy()
    await expect(failed).rejects.toThrow('INTERNAL_ERROR')
    const rest = once(whole, 'data')
    wireOf('/whole').write('3\r\nall\r\n0\r\n\r\n')
    expect(String(await rest)).toBe('all')
    await once(whole, 'end')
  })

  test('trailers come with all their values', async () => {
    const chunks = '2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Part: a\r\nX-Part: b\r\n\r\n'
    const backend = await rawUpstream(says(`HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${chunks}`))
    const stream = (await cleartext(backend)).request({ ':path': '/' })
    stream.resume()
    const [trailers] = (await once(stream, 'trailers')) as [http2.IncomingHttpHeaders]
    expect(trailers).toMatchObject({ 'x-sum': '1', 'x-part': 'a, b' })
  })
})

describe('what the app has answered meanwhile', () => {
  /** The app says 'app', the backend does as it likes, and the app goes on. */
  async function answeredBoth(backend: RawUpstream, act: () => void): Promise<string> {
    const balancer = balance([backend], { retry: { attempts: 1 } })
    const proxy = createProxy(balancer)
    const app = await upstream(async (request, response) => {
      proxy(request, response)
      await until(() => backend.wires[0]?.received.includes('\r\n\r\n') === true, 'the backend should have been asked')
      response.write('app ')
      act()
      await until(() => inflight(balancer) === 0, 'the call should be over')
      response.end('and all')
    })
    return String((await ask(app, '/')).body)
  }

  test('stays free of the backend’s body', async () => {
    const backend = await rawUpstream(() => {})
    expect(await answeredBoth(backend, () => backend.wires[0]!.write(OK))).toBe('app and all')
  })

  test('is not cut off when the call fails', async () => {
    const backend = await rawUpstream(() => {})
    expect(await answeredBoth(backend, () => backend.wires[0]!.socket.resetAndDestroy())).toBe('app and all')
  })
})

test('a client that leaves before the proxy has its turn takes no tunnel along, and no backend hears of it', async () => {
  const backend = await socketUpstream()
  const balancer = balance([backend])
  const proxy = createProxy(balancer, { limits: { tunnels: 1 } })
  const came = Promise.withResolvers<void>()
  const served = Promise.withResolvers<void>()
  const app = await upstream((request, response) => {
    if (request.url === '/now') return proxy(request, response)
    response.on('close', () => {
      proxy(request, response)
      served.resolve()
    })
    came.resolve()
  })
  proxy.attach(app.server)
  const client = await rawClient(app)
  client.write(get('/later', UPGRADE))
  await came.promise
  client.socket.resetAndDestroy()
  await served.promise
  const socket = await socketTo(app, '/now')
  expect(statsOf(balancer).requests).toBe(1)
  socket.close()
})

test('a header of a Fastify hook that is none is an answer or an end, never a hang', async () => {
  const app = fastify({ forceCloseConnections: true })
  onTestFinished(() => app.close())
  app.addHook('onRequest', async (_, reply) => void reply.header('x-note', '→'))
  app.register(fastifyProxy, { prefix: '/api', balancer: balance([await keeper()]), close: false })
  app.register(fastifyProxy, { prefix: '/gone', balancer: balance([await nobody()]), close: false })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
  const proxy = { url, port: Number(new URL(url).port) }
  const answer = await ask(proxy, '/api/')
  expect([answer.status, JSON.parse(String(answer.body)).code]).toEqual([502, 'PROTOCOL'])
  expect((await ask(proxy, '/gone/')).status).toBe(502)
  await expect(ask(proxy, '/api/', { method: 'OPTIONS', headers: { 'max-forwards': 'x' } })).rejects.toThrow()
})

test('a body that was changed has its length', async () => {
  const chunks = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n'
  const backend = await rawUpstream(says(chunks))
  const proxy = await front(balance([backend]), { interceptBody: { change: (body) => `${body} dokey ö` } })
  const { headers, body } = await ask(proxy, '/')
  expect([headers['content-length'], headers['transfer-encoding']]).toEqual([String(body.length), undefined])
})
