import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import http, { type ServerResponse } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import {
  type Balancer,
  type BalancerRequest,
  createBalancer,
  type HttpTransportOptions,
  httpTransport,
  type Policy,
} from 'evenkeel'
import { transportContract } from 'evenkeel/testing'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { CERT, KEY } from './support/tls.ts'
import {
  ask,
  balance,
  front,
  inflight,
  keeper,
  kept,
  OK,
  pause,
  rawClient,
  rawUpstream,
  says,
  statsOf,
  type Upstream,
  until,
  upstream,
} from './support/upstreams.ts'

describe('the node:http transport keeps the contract', () => {
  const cases = transportContract(({ connections }) => httpTransport({ connections }))
  for (const { name, run } of cases) test(name, run)
})

const GET: BalancerRequest = { method: 'GET', path: '/', headers: [], body: null }

function overHttp(backend: Upstream | string, options: HttpTransportOptions = {}): Balancer {
  return balance([backend], { transport: httpTransport(options), retry: { attempts: 1 } })
}

/** An HTTPS server with a certificate for localhost, gone with the test; it keeps the names it was asked for. */
async function secure(): Promise<{ readonly url: string; readonly names: unknown[] }> {
  const names: unknown[] = []
  const server = https.createServer({ cert: CERT, key: KEY }, (request, response) => {
    names.push((request.socket as TLSSocket).servername)
    response.end('ok')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  })
  return { url: `https://localhost:${(server.address() as AddressInfo).port}`, names }
}

describe('over node:http', () => {
  test('trailers of a request go out behind a body of unknown length', async () => {
    let trailers: readonly string[] = []
    const backend = await upstream(async (request, response) => {
      for await (const _ of request);
      trailers = request.rawTrailers
      response.end()
    })
    async function* open(): AsyncGenerator<Uint8Array, void, undefined> {
      yield new Uint8Array(3)
    }
    const balancer = overHttp(backend)
    for (const length of [undefined, 3]) {
      const body = { length, replayable: false, open }
      const request = { ...GET, method: 'POST', body, trailers: () => ['X-Sum', '7'] }
      const answer = await balancer.send(request).response
      answer.body.discard()
      assert.deepEqual(trailers, length === undefined ? ['X-Sum', '7'] : [])
    }
  })

  test('trailers of a client go on through a proxy, but none that would change the head', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.until((received) => /\r\n0\r\n(.+\r\n)*\r\n$/.test(received))
      wire.write(OK)
    })
    const client = await rawClient(await front(overHttp(backend)))
    const head = 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n'
    const forbidden = ['Host: b', 'Authorization: x', 'Content-Type: a/b', 'X_Forwarded_For: 6.6.6.6', 'X-LB-RIF: 1']
    client.write(`${head}3\r\nabc\r\n0\r\nX-Sum: 7\r\n${forbidden.join('\r\n')}\r\nX-Last: \xe9\r\n\r\n`)
    await client.until('\r\n\r\nok')
    expect((await backend.wire()).received).toMatch(/\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-Last: \xe9\r\n\r\n$/)
  })

  test('a body that is longer or shorter than it says is a fault of the request', async () => {
    const balancer = overHttp(await keeper())
    async function* open(): AsyncGenerator<Uint8Array, void, undefined> {
      yield new Uint8Array(3)
      yield new Uint8Array(3)
    }
    for (const length of [5, 7]) {
      const { response } = balancer.send({ ...GET, method: 'POST', body: { length, replayable: false, open } })
      await assert.rejects(response, { code: 'PROTOCOL' })
    }
    assert.equal(statsOf(balancer).classes.request, 2)
  })

  test.each([
    ['a header', { headers: ['a b', '1'] }],
    ['a value', { headers: ['a', '1\r\nb: 2'] }],
    ['a method', { method: 'G T' }],
    ['a path', { path: '/ HTTP/1.1\r\n' }],
  ])('%s that cannot be written never reaches the backend', async (_, wrong) => {
    const backend = await keeper()
    await assert.rejects(overHttp(backend).send({ ...GET, ...wrong }).response, { code: 'PROTOCOL' })
    assert.equal(backend.got.length, 0)
  })

  test('an upgrade hands the socket over, with what came behind the head', async () => {
    const backend = await upstream(() => {})
    backend.server.on('upgrade', (request, socket: Duplex) => {
      socket.write(`HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: ${request.headers.upgrade}\r\n\r\nearly `)
      socket.pipe(socket)
    })
    const balancer = overHttp(backend, { connections: 1 })
    const { status, headers, socket, body } = await balancer.send({ ...GET, upgrade: 'echo' }).response
    assert.equal(status, 101)
    assert.ok(headers.includes('echo'))
    const tunnel = socket as Duplex
    tunnel.write('words')
    let got = ''
    tunnel.on('data', (data) => {
      got += data
    })
    await until(() => got === 'early words', 'the bytes did not come')
    assert.equal(statsOf(balancer).requests, 1)
    const ended = Promise.withResolvers<void>()
    body.consume({ chunk: () => true, end: () => ended.resolve(), fail: ended.reject })
    // Its place is free for another connection meanwhile.
    const second = await balancer.send({ ...GET, upgrade: 'echo' }).response
    assert.equal(second.status, 101)
    second.body.discard()
    tunnel.end()
    await ended.promise
  })

  test('an upgrade that is refused is a plain answer, and one nobody asked for is no HTTP', async () => {
    const backend = await keeper((_, response) => response.writeHead(426).end('no'))
    const answer = await overHttp(backend).send({ ...GET, upgrade: 'echo' }).response
    assert.equal(answer.status, 426)
    answer.body.discard()
    const odd = await rawUpstream(says('HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'))
    await assert.rejects(overHttp(odd).send(GET).response, { code: 'PROTOCOL' })
  })

  test('forgetting waits for a tunnel, closing does not', async () => {
    const backend = await upstream(() => {})
    backend.server.on('upgrade', (_, socket: Duplex) => {
      socket
        .on('error', () => {})
        .on('end', () => socket.end())
        .resume()
      socket.write('HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n')
    })
    const transport = httpTransport()
    const balancer = kept(createBalancer({ backends: [backend.url], transport }))
    const { socket } = await balancer.send({ ...GET, upgrade: 'echo' }).response
    const tunnel = socket as Duplex
    const other = await keeper()
    await balancer.update({ backends: [other.url], transport })
    await balancer.fetch('/')
    assert.equal(tunnel.destroyed, false)
    await balancer.close()
    assert.equal(tunnel.destroyed, true)
  })

  test.each([
    ['a coding nobody knows', 'HTTP/1.1 200 OK\r\ntransfer-encoding: foo\r\n\r\n'],
    ['too many fields', `HTTP/1.1 200 OK\r\n${'a: 1\r\n'.repeat(501)}content-length: 0\r\n\r\n`],
    ['too large a head', `HTTP/1.1 200 OK\r\na: ${'x'.repeat(17_000)}\r\ncontent-length: 0\r\n\r\n`],
    ['a 100 nobody asked for', 'HTTP/1.1 100 Continue\r\n\r\n'],
    ['too many 1xx', `${'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(11)}${OK}`],
  ])('%s is a breach of the protocol', async (_, bytes) => {
    await assert.rejects(overHttp(await rawUpstream(says(bytes))).send(GET).response, { code: 'PROTOCOL' })
  })

  test('a body told by the end of its connection that is reset is no whole one', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\n\r\nhalf')
      setTimeout(() => wire.socket.resetAndDestroy(), 20)
    })
    const answer = await overHttp(backend).request('/')
    await assert.rejects(answer.body.text(), { code: 'TRUNCATED' })
  })

  test('an idle connection that died is found out by the next request, which gets a new one', async () => {
    let connections = 0
    const backend = await rawUpstream(async (wire) => {
      connections++
      for (let i = 0; ; i++) {
        await wire.head()
        if (i > 0) return void wire.socket.resetAndDestroy()
        wire.write(OK)
      }
    })
    const balancer = balance([backend], { transport: httpTransport() })
    for (let i = 0; i < 2; i++) assert.equal(await (await balancer.fetch('/')).text(), 'ok')
    assert.equal(connections, 2)
    assert.equal(statsOf(balancer).classes.stale, 1)
  })

  test('connections are counted, and closed when they have been idle', async () => {
    const backend = await keeper()
    const balancer = overHttp(backend, { keepAliveMs: 50 })
    const connections = (): unknown => balancer.stats().pools.default!.backends[0]!.connections
    const answer = await balancer.request('/')
    await answer.body.text()
    await until(() => JSON.stringify(connections()) === '{"open":1,"idle":1}', 'it did not become idle')
    await until(() => JSON.stringify(connections()) === '{"open":0,"idle":0}', 'it stayed open')
  })

  test('an answer that comes before the body was sent gives the connection up', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.socket.pause()
      wire.write('HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno')
    })
    const balancer = overHttp(backend, { keepAliveMs: 50 })
    for (const body of [new Uint8Array(32 << 20), new ReadableStream({ pull: () => new Promise(() => {}) })]) {
      const answer = await balancer.request('/', { method: 'POST', body })
      assert.equal(answer.statusCode, 413)
      assert.equal(await answer.body.text(), 'no')
      const open = (): unknown => balancer.stats().pools.default!.backends[0]!.connections?.open
      await until(() => open() === 0, 'the connection stayed open')
    }
  })

  test('a body where none is expected costs its connection, and none is made up where there is none', async () => {
    const backend = await rawUpstream(says(OK))
    const { request } = overHttp(backend)
    for (const method of ['DELETE', 'OPTIONS']) await (await request('/', { method, body: 'x' })).body.text()
    for (const method of ['PROPFIND', 'POST', 'GET']) await (await request('/', { method })).body.text()
    assert.equal(backend.wires.length, 3)
    assert.match(backend.wires[0]!.received, /connection: close/)
    assert.doesNotMatch(backend.wires[2]!.received, /transfer-encoding|connection: close/i)
    assert.match(backend.wires[2]!.received, /POST \/ [\s\S]*content-length: 0\r\n/)
  })

  test('bytes behind an answer to HEAD are nobody’s', async () => {
    const backend = await rawUpstream(says('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello'))
    const { request } = overHttp(backend)
    for (let i = 0; i < 2; i++) {
      const { statusCode, body } = await request('/', { method: 'HEAD' })
      assert.deepEqual([statusCode, await body.text()], [200, ''])
    }
    assert.equal(backend.wires.length, 2)
  })

  test('a unix socket stands behind the URL', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'evenkeel-'))
    const socketPath = join(directory, 'backend.sock')
    const server = http.createServer((request, response) => response.end(request.headers.host)).listen(socketPath)
    await once(server, 'listening')
    onTestFinished(() => {
      server.close()
      server.closeAllConnections()
      rmSync(directory, { recursive: true })
    })
    const options = { health: { active: { type: 'tcp', intervalMs: 60_000 } }, retry: { attempts: 1 } } as const
    const transport = httpTransport({ socketPath: ({ id }) => (id === 'here' ? socketPath : undefined) })
    const balancer = kept(createBalancer({ backends: [{ url: 'http://app.test', id: 'here' }], transport, ...options }))
    await balancer.ready()
    assert.equal(await (await balancer.fetch('/')).text(), 'app.test')
    const [backend] = balancer.stats().pools.default!.backends
    expect(backend?.checks).toMatchObject({ failures: 0 })
  })

  test('the name of the backend is asked for and checked, whatever Host the client wrote', async () => {
    const backend = await secure()
    const balancer = overHttp(backend.url, { tls: { ca: CERT } })
    const proxy = await front(balancer, { host: 'preserve' })
    const answer = await ask(proxy, '/', { headers: { host: 'other.test' } })
    assert.equal(String(answer.body), 'ok')
    assert.deepEqual(backend.names, ['localhost'])
    await assert.rejects(overHttp(backend.url).fetch('/'), { code: 'TLS' })
    const elsewhere = backend.url.replace('localhost', '127.0.0.1')
    assert.equal((await overHttp(elsewhere, { tls: { ca: CERT } }).fetch('/')).status, 200)
  })

  test('a request given up while it waits leaves the queue of its agent with its body', async () => {
    const queues: http.Agent['requests'][] = []
    const { addRequest } = http.Agent.prototype as never as { addRequest(this: http.Agent, ...rest: unknown[]): void }
    const spy = vi.spyOn(http.Agent.prototype as never as { addRequest: typeof addRequest }, 'addRequest')
    onTestFinished(() => spy.mockRestore())
    spy.mockImplementation(function (this: http.Agent, ...rest) {
      queues.push(this.requests)
      return addRequest.apply(this, rest)
    })
    const held: ServerResponse[] = []
    const backend = await keeper((_, response) => void held.push(response))
    const balancer = overHttp(backend, { connections: 1 })
    const first = balancer.send(GET)
    await until(() => held.length === 1, 'it did not arrive')
    const waiting = Array.from({ length: 4 }, () => balancer.send({ ...GET, method: 'POST', body: new Uint8Array(9) }))
    await until(() => Object.values(queues[0]!)[0]?.length === 4, 'they do not wait')
    for (const { call } of waiting.slice(1)) call.cancel(new Error('no more'))
    await Promise.all(waiting.slice(1).map(({ response }) => assert.rejects(response, /no more/)))
    assert.equal(Object.values(queues[0]!)[0]!.length, 1)
    held[0]!.end()
    ;(await first.response).body.discard()
    await until(() => held.length === 2, 'who still waits is not served')
    waiting[0]!.call.cancel(new Error('no more'))
    await assert.rejects(waiting[0]!.response, /no more/)
    assert.deepEqual(Object.keys(queues[0]!), [])
  })

  test('the last to wait may give up, and its connection is still of use', async () => {
    const held: ServerResponse[] = []
    const backend = await keeper((_, response) => void held.push(response))
    const balancer = overHttp(backend, { connections: 1 })
    const first = balancer.send(GET)
    await until(() => held.length === 1, 'it did not arrive')
    const second = balancer.send(GET)
    await pause(5)
    second.call.cancel(new Error('no more'))
    await assert.rejects(second.response, /no more/)
    held[0]!.destroy() // its agent looks for who waits
    await assert.rejects(first.response)
    const third = balancer.send(GET)
    await until(() => held.length === 2, 'the next did not arrive')
    held[1]!.end()
    ;(await third.response).body.discard()
  })

  test('closing ends what goes to a backend that was removed between its pick and its send', async () => {
    const backend = await rawUpstream(says('HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\nsome'))
    const transport = httpTransport()
    const removing: Policy = {
      name: 'removing',
      scope: 'attempt',
      wrap: (next) => (attempt) => {
        void balancer.update({ backends: ['http://b.test'], ...options })
        return next(attempt)
      },
    }
    const options = { transport, policies: [removing], retry: { attempts: 1 } }
    const balancer = kept(createBalancer({ backends: [backend.url], ...options }))
    const { body } = await balancer.request('/')
    await transport.close!()
    await assert.rejects(body.text())
    const wire = await backend.wire()
    await until(() => wire.socket.destroyed || wire.socket.readableEnded, 'its connection stayed open')
  })

  test('a backend that is sent to again while it is forgotten keeps its new connections', async () => {
    const held: ServerResponse[] = []
    const backend = await keeper((_, response) => void held.push(response))
    const transport = httpTransport()
    const other = httpTransport()
    const options = { backends: [backend.url], retry: { attempts: 1 } }
    const balancer = kept(createBalancer({ ...options, transport }))
    const one = balancer.send(GET)
    await until(() => held.length === 1, 'the first did not arrive')
    await balancer.update({ ...options, transport: other })
    await balancer.update({ ...options, transport })
    const two = balancer.send(GET)
    await until(() => held.length === 2, 'the second did not arrive')
    held[0]!.end()
    ;(await one.response).body.discard()
    await until(() => inflight(balancer) === 1, 'the first did not end')
    held[1]!.end('ok')
    ;(await two.response).body.discard()
    await until(() => balancer.stats().pools.default!.backends[0]!.connections?.idle === 1, 'it was closed')
  })

  test('an agent of the user’s is used, and left alone', async () => {
    const agent = new http.Agent({ keepAlive: true })
    onTestFinished(() => agent.destroy())
    const backend = await keeper()
    const balancer = createBalancer({ backends: [backend.url], transport: httpTransport({ agent: () => agent }) })
    await (await balancer.fetch('/')).text()
    await balancer.close()
    assert.equal(Object.keys(agent.freeSockets).length, 1)
  })
})
