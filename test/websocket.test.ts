import { once } from 'node:events'
import type http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { type Balancer, createBalancer, httpTransport, memory, undici } from 'evenkeel'
import { expressProxy } from 'evenkeel/express'
import { createProxy, type NodeProxy, type ProxyOptions } from 'evenkeel/node'
import express from 'express'
import { describe, expect, onTestFinished, test } from 'vitest'
import WebSocket, { WebSocketServer } from 'ws'
import { closeOf, echo, messageOf, type SocketUpstream, socketTo, socketUpstream } from './support/sockets.ts'
import { CERT, KEY } from './support/tls.ts'
import {
  ask,
  balance,
  idle,
  inflight,
  kept,
  nobody,
  rawClient,
  rawUpstream,
  standstill,
  statsOf,
  type Upstream,
  until,
  upstream,
} from './support/upstreams.ts'

const ASKED = [
  'GET / HTTP/1.1',
  'Host: front.test',
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  '',
  '',
].join('\r\n')
const AGREED = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n'
/** Close frames with status 1001, to clients and to servers. */
const BYE = '\x88\x02\x03\xe9'
const BYE_MASKED = '\x88\x82\0\0\0\0\x03\xe9'

interface Front extends Upstream {
  readonly server: http.Server
  readonly proxy: NodeProxy
}

async function frontOf(balancer: Balancer, options: ProxyOptions = {}): Promise<Front> {
  const proxy = createProxy(balancer, options)
  const made = await upstream(proxy)
  proxy.attach(made.server)
  return { ...made, proxy }
}

/** Status of the answer to a WebSocket that is not to be. */
async function refusal(to: Upstream, path = '/', headers: Record<string, string> = {}): Promise<number> {
  const socket = new WebSocket(`ws://127.0.0.1:${to.port}${path}`, { headers })
  socket.on('error', () => {})
  const [request, response] = (await once(socket, 'unexpected-response')) as [http.ClientRequest, http.IncomingMessage]
  request.destroy()
  return response.statusCode!
}

/** A WebSocket with the head of its 101. */
async function opened(to: Upstream, path: string): Promise<[socket: WebSocket, answer: http.IncomingMessage]> {
  const socket = new WebSocket(`ws://127.0.0.1:${to.port}${path}`)
  const [[answer]] = await Promise.all([once(socket, 'upgrade'), once(socket, 'open')])
  return [socket, answer as http.IncomingMessage]
}

function connectionsOf(balancer: Balancer): number {
  return balancer.stats().pools.default!.backends.reduce((sum, { connections }) => sum + (connections?.open ?? 0), 0)
}

function idOf({ port }: Upstream): string {
  return `127.0.0.1:${port}`
}

describe('a WebSocket', () => {
  test('is in flight until it is closed, given back once, and went well', async () => {
    const backend = await socketUpstream()
    const balancer = balance([backend])
    const ends: string[] = []
    balancer.on('attempt', ({ outcome }) => ends.push(outcome!.class))
    const socket = await socketTo(await frontOf(balancer), '/chat')
    expect(inflight(balancer)).toBe(1)
    expect(ends).toEqual([])
    const closed = closeOf(socket)
    socket.close(4000, 'done')
    expect(await closed).toEqual({ code: 4000, reason: 'done' })
    await idle(balancer)
    expect(ends).toEqual(['ok'])
    expect(statsOf(balancer)).toMatchObject({ requests: 1, failures: 0, classes: { ok: 1 } })
    expect(connectionsOf(balancer)).toBe(0)
  })

  test('goes to another backend when one is not there', async () => {
    const alive = await socketUpstream()
    const balancer = balance([await nobody(), alive], { strategy: { name: 'round-robin' } })
    const front = await frontOf(balancer)
    for (let i = 0; i < 4; i++) {
      const socket = await socketTo(front)
      socket.send(`hello ${i}`)
      expect(await messageOf(socket)).toBe(`hello ${i}`)
    }
    expect(alive.sockets.length).toBe(4)
    for (const socket of alive.sockets) socket.close()
  })

  test('comes back to the backend its cookie names', async () => {
    const backends = [await socketUpstream(), await socketUpstream(), await socketUpstream()]
    const front = await frontOf(balance(backends), { affinity: { secret: 'x'.repeat(32) } })
    const [first, answer] = await opened(front, '/')
    const [line = ''] = answer.headers['set-cookie'] ?? []
    const home = backends.find(({ sockets }) => sockets.length === 1)!
    const others = await Promise.all(
      Array.from({ length: 6 }, () => socketTo(front, '/', { headers: { cookie: line.split(';')[0]! } })),
    )
    expect(home.sockets.length).toBe(7)
    for (const socket of [first, ...others]) socket.close()
  })

  test('passes the hooks of plain requests', async () => {
    const backend = await socketUpstream()
    const front = await frontOf(balance([backend]), {
      path: { strip: '/api', add: '/v1' },
      requestHeaders: { set: { 'x-key': 'k' } },
      responseHeaders: { set: { 'x-from': 'here' } },
      onRequest: async (sent) => sent.headers.set('x-hook', sent.path),
    })
    const [socket, answer] = await opened(front, '/api/chat?x=1')
    socket.close()
    expect(answer.headers['x-from']).toBe('here')
    expect(backend.requests[0]).toMatchObject({
      url: '/v1/chat?x=1',
      headers: { 'x-key': 'k', 'x-hook': '/v1/chat?x=1' },
    })
  })

  test('is one too many above limits.tunnels, until one has gone', async () => {
    const backend = await socketUpstream()
    const balancer = balance([backend])
    const front = await frontOf(balancer, { limits: { tunnels: 2 } })
    const [first, second] = [await socketTo(front), await socketTo(front)]
    expect(await refusal(front)).toBe(503)
    expect((await ask(front, '/')).status).toBe(200)
    const closed = closeOf(first)
    first.close()
    await closed
    await idleBut(balancer, 1)
    const third = await socketTo(front)
    for (const socket of [second, third]) socket.close()
  })

  test('is a plain request where upgrades are off, and to a server that nothing is attached to', async () => {
    const backend = await socketUpstream()
    const off = await frontOf(balance([backend]), { upgrades: [] })
    const bare = await upstream(createProxy(balance([backend])))
    for (const front of [off, bare]) {
      expect(front.server.listenerCount('upgrade')).toBe(0)
      expect(await refusal(front)).toBe(200)
    }
  })

  test('is no call for a balancer that is closed', async () => {
    const balancer = balance([await socketUpstream()])
    const front = await frontOf(balancer)
    await balancer.close()
    expect(await refusal(front)).toBe(503)
  })

  test('gets the bytes above ASCII of its 101 as they came', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.until('\r\n\r\n')
      wire.write(AGREED.replace('\r\n\r\n', '\r\nx-name: caf\xe9\r\n\r\n'))
    })
    const client = await rawClient(await frontOf(balance([backend])))
    client.write(ASKED)
    expect(await client.until('\r\n\r\n')).toContain('\r\nx-name: caf\xe9\r\n')
    client.socket.destroy()
  })

  test('other protocols are tunnels too where they are named', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.until('\r\n\r\n')
      wire.write(`${AGREED.replace('websocket', 'tcp')}hello`)
    })
    const client = await rawClient(await frontOf(balance([backend]), { upgrades: ['tcp'] }))
    client.write(ASKED.replace('websocket', 'TCP'))
    expect(await client.until('hello')).toMatch(/^HTTP\/1\.1 101 .*\r\nupgrade: tcp\r\n/is)
    expect((await backend.wire()).received).toMatch(/\r\nupgrade: tcp\r\n/i)
    client.socket.destroy()
  })
})

/** Resolves when so many are in flight. */
function idleBut(balancer: Balancer, count: number): Promise<void> {
  return until(() => inflight(balancer) === count, 'a lease was never given back')
}

test.each(['resetAndDestroy', 'destroy', 'end'] as const)(
  'a backend that agrees and is gone before the client hears of it takes the client along (%s)',
  async (how) => {
    const gone = Promise.withResolvers<void>()
    const backend = await rawUpstream(async (wire) => {
      await wire.until('\r\n\r\n')
      wire.socket.write(AGREED, () => {
        wire.socket[how]()
        gone.resolve()
      })
    })
    const balancer = balance([backend])
    const front = await frontOf(balancer, {
      async onResponse() {
        await gone.promise
        for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate)
      },
    })
    const client = await rawClient(front)
    client.write(ASKED)
    await client.closed()
    await idle(balancer)
    expect(connectionCount(front.server)).toBe(0)
  },
)

test.each([
  ['undici', undici({ tls: { ca: CERT } })],
  ['undici with allowH2', undici({ allowH2: true, tls: { ca: CERT } })],
  ['node:http', httpTransport({ tls: { ca: CERT } })],
] as const)('TLS on both sides and %s: messages and drain as without', async (_, transport) => {
  const secure = https.createServer({ key: KEY, cert: CERT })
  const own = new WebSocketServer({ server: secure })
  own.on('connection', echo)
  const balancer = kept(createBalancer({ backends: [`https://localhost:${await portOf(secure)}`], transport }))
  const proxy = createProxy(balancer)
  const server = https.createServer({ key: KEY, cert: CERT }, proxy)
  proxy.attach(server as unknown as http.Server)
  const socket = new WebSocket(`wss://localhost:${await portOf(server)}`, { ca: CERT })
  onTestFinished(() => socket.terminate())
  await once(socket, 'open')
  const long = 'x'.repeat(300_000)
  socket.send(long)
  expect(await messageOf(socket)).toBe(long)
  const ends = [socket, ...own.clients].map(closeOf)
  await balancer.drain(balancer.stats().pools.default!.backends[0]!.id)
  expect(await Promise.all(ends)).toEqual([1, 2].map(() => ({ code: 1001, reason: '' })))
  expect(statsOf(balancer).classes).toEqual({ ok: 1 })
})

/** Starts a server; it is gone with the test. */
async function portOf(server: https.Server): Promise<number> {
  server.listen(0)
  await once(server, 'listening')
  onTestFinished(async () => {
    server.close()
    server.closeAllConnections()
  })
  return (server.address() as AddressInfo).port
}

describe('a client that goes', () => {
  test('while a hook is waited for: nobody is asked', async () => {
    const backend = await socketUpstream()
    const asked = Promise.withResolvers<void>()
    const go = Promise.withResolvers<void>()
    const balancer = balance([backend])
    const front = await frontOf(balancer, {
      async onRequest() {
        asked.resolve()
        await go.promise
      },
    })
    const client = await rawClient(front)
    client.write(ASKED)
    await asked.promise
    client.socket.destroy()
    await until(() => connectionCount(front.server) === 0, 'the connection stayed')
    go.resolve()
    await standstill(() => statsOf(balancer).requests)
    expect(statsOf(balancer).requests).toBe(0)
  })

  test('while the backend is being connected: the attempt ends with it', async () => {
    const balancer = kept(
      createBalancer({ backends: ['http://a.test'], transport: memory({ 'a.test': { connectMs: 60_000 } }) }),
    )
    const front = await frontOf(balancer)
    const client = await rawClient(front)
    client.write(ASKED)
    await until(() => inflight(balancer) === 1, 'nothing was sent')
    client.socket.destroy()
    await idle(balancer)
    expect(statsOf(balancer).classes).toEqual({ cancelled: 1 })
  })

  test('in the middle of whatever it does: nothing is left of it', async () => {
    const backend = await socketUpstream()
    const balancer = balance([backend])
    const front = await frontOf(balancer)
    await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        const client = await rawClient(front)
        client.write(i % 3 === 0 ? ASKED.slice(0, -1 - i) : `${ASKED}\x81\x85\0\0\0\0hel`)
        for (let turn = 0; turn < i; turn++) await new Promise(setImmediate)
        client.socket[i % 2 === 0 ? 'destroy' : 'resetAndDestroy']()
      }),
    )
    await until(() => connectionCount(front.server) === 0, 'a client was kept')
    await idle(balancer)
    await until(() => backend.sockets.every(({ readyState }) => readyState === WebSocket.CLOSED), 'a backend was kept')
    expect(connectionsOf(balancer)).toBe(statsIdle(balancer))
  })
})

function statsIdle(balancer: Balancer): number {
  return balancer.stats().pools.default!.backends.reduce((sum, { connections }) => sum + (connections?.idle ?? 0), 0)
}

/** Connections that a server has now, tunnels included. */
function connectionCount(server: http.Server): number {
  return (server as unknown as { readonly _connections: number })._connections
}

test('an upgrade behind other requests waits for their answers', async () => {
  const backend = await rawUpstream(async (wire) => {
    const head = await wire.head()
    if (head.includes('Upgrade') || head.includes('upgrade')) return wire.write(`${AGREED}tunnel`)
    await new Promise(setImmediate)
    wire.write('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain')
    await wire.head()
    wire.write(`${AGREED}tunnel`)
  })
  const client = await rawClient(await frontOf(balance([backend])))
  client.write(`GET / HTTP/1.1\r\nHost: front.test\r\n\r\n${ASKED}`)
  await client.until((received) => received.endsWith('tunnel'))
  expect(client.received).toMatch(/^HTTP\/1\.1 200 .*plainHTTP\/1\.1 101 .*tunnel$/s)
  client.socket.destroy()
})

describe('when its backend is to be left, a WebSocket is closed with 1001 at both ends', () => {
  const ways: Readonly<Record<string, (balancer: Balancer, backend: Upstream, other: Upstream) => Promise<unknown>>> = {
    'by balancer.drain(id)': (balancer, backend) => balancer.drain(idOf(backend)),
    'by an update without it': (balancer, _, other) => balancer.update({ backends: [other.url] }),
    'by balancer.close({ drainMs })': (balancer) => balancer.close({ drainMs: 30_000 }),
  }

  test.each(Object.entries(ways))('%s', async (how, leave) => {
    const backend = await socketUpstream()
    const other = await socketUpstream()
    const balancer = balance([backend, other])
    const front = await frontOf(balancer)
    const sockets: WebSocket[] = []
    while (backend.sockets.length === 0 || other.sockets.length === 0) sockets.push(await socketTo(front))
    const isAll = how.includes('close')
    const leaving = [backend, ...(isAll ? [other] : [])].flatMap(({ sockets: ends }) => ends)
    const ends = leaving.map(closeOf)
    const closes = Promise.all(sockets.map(async (socket) => (await once(socket, 'close'))[0] as number))
    await leave(balancer, backend, other)
    expect(await Promise.all(ends)).toEqual(leaving.map(() => ({ code: 1001, reason: '' })))
    if (!isAll) {
      await idleBut(balancer, other.sockets.length)
      expect(other.sockets.every(({ readyState }) => readyState === WebSocket.OPEN)).toBe(true)
      for (const socket of other.sockets) socket.close(1001)
    }
    expect(new Set(await closes)).toEqual(new Set([1001]))
  })

  test('drain resolves when the last tunnel is gone, and not before', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.until('\r\n\r\n')
      wire.write(AGREED)
    })
    const balancer = balance([backend])
    const client = await rawClient(await frontOf(balancer, { tunnelGraceMs: 40 }))
    client.write(ASKED)
    await client.until('\r\n\r\n')
    const startMs = performance.now()
    await balancer.drain(idOf(backend)) // both ends are deaf
    expect(performance.now() - startMs).toBeGreaterThanOrEqual(35)
    expect(inflight(balancer)).toBe(0)
    await client.closed()
    expect(client.received.endsWith(`\r\n\r\n${BYE}`)).toBe(true)
    expect((await backend.wire()).received.endsWith(`\r\n\r\n${BYE_MASKED}`)).toBe(true)
  })

  test('a drain that comes before the 101 counts as well', async () => {
    const backend = await rawUpstream(() => {})
    const balancer = balance([backend])
    const client = await rawClient(await frontOf(balancer))
    client.write(ASKED)
    const wire = await backend.wire()
    await wire.until('\r\n\r\n')
    const drained = balancer.drain(idOf(backend))
    wire.write(AGREED)
    await client.until((received) => received.endsWith(`\r\n\r\n${BYE}`))
    await wire.until((received) => received.endsWith(`\r\n\r\n${BYE_MASKED}`))
    client.write(BYE_MASKED)
    wire.write(BYE)
    await drained
  })

  test('close without drainMs ends it at once', async () => {
    const backend = await socketUpstream()
    const balancer = balance([backend])
    const socket = await socketTo(await frontOf(balancer))
    const closed = closeOf(socket)
    await balancer.close()
    expect((await closed).code).toBe(1006)
  })
})

describe('row 68: upgrades and the server they come to', () => {
  test('go through the app around, its checks and its mounts, by one listener', async () => {
    const [a, b] = [await socketUpstream(), await socketUpstream()]
    const app = express()
    app.use((request, response, next) => {
      if (request.headers.authorization === 'yes') next()
      else response.status(401).end('who are you?')
    })
    const mounts = { '/a': expressProxy(balance([a])), '/b': expressProxy(balance([b])) }
    for (const [path, proxy] of Object.entries(mounts)) app.use(path, proxy)
    const front = await upstream(app)
    const stops = Object.values(mounts).map((proxy) => proxy.attach(front.server))
    expect(front.server.listenerCount('upgrade')).toBe(1)
    expect(await refusal(front, '/a/chat')).toBe(401)
    const headers = { authorization: 'yes' }
    expect(await refusal(front, '/c', headers)).toBe(404)
    for (const path of ['/a/chat', '/b/chat']) (await socketTo(front, path, { headers })).close()
    expect([a, b].map(({ requests }) => requests.map(({ url }) => url))).toEqual([['/chat'], ['/chat']])
    for (const stop of stops) {
      expect(front.server.listenerCount('upgrade')).toBe(1)
      stop()
      stop()
    }
    expect(front.server.listenerCount('upgrade')).toBe(0)
  })

  test('one proxy may serve several servers, and be attached to one more than once', async () => {
    const backend = await socketUpstream()
    const proxy = createProxy(balance([backend]))
    const fronts = [await upstream(proxy), await upstream(proxy)]
    for (const { server } of fronts) {
      proxy.attach(server)
      proxy.attach(server)
      expect(server.listenerCount('upgrade')).toBe(1)
    }
    for (const front of fronts) (await socketTo(front)).close()
    expect(backend.sockets.length).toBe(2)
  })

  test('what is under another path is left to whoever else listens', async () => {
    for (const [options, attach] of [
      [{}, { path: '/api' }],
      [{ path: { strip: '/api' } }, {}],
    ] as const) {
      const backend = await socketUpstream()
      const proxy = createProxy(balance([backend]), options)
      const front = await upstream(proxy)
      const own = beside(front.server, '/socket.io/')
      proxy.attach(front.server, attach)
      const [theirs, ours] = [await socketTo(front, '/socket.io/?x'), await socketTo(front, '/api/chat')]
      theirs.send('ping')
      expect(await messageOf(theirs)).toBe('their own')
      ours.send('ping')
      expect(await messageOf(ours)).toBe('ping')
      expect([own.clients.size, backend.sockets.length]).toEqual([1, 1])
      for (const socket of [theirs, ours]) socket.close()
    }
  })

  test('a path that is none is refused when it is said', async () => {
    const front = await upstream(() => {})
    const proxy = createProxy(balance([front]))
    expect(() => proxy.attach(front.server, { path: 'api' })).toThrow(/expected one that starts with '\/', found "api"/)
  })

  test('who is the only one that listens says 404', async () => {
    const front = await frontOf(balance([await socketUpstream()]), { path: { strip: '/api' } })
    expect(await refusal(front, '/other')).toBe(404)
  })

  test('as a plain listener a proxy takes what has its prefix, whatever app is around', async () => {
    const [a, b] = [await socketUpstream(), await socketUpstream()]
    const front = await upstream((_, response) => response.writeHead(418).end())
    front.server.on('upgrade', createProxy(balance([a]), { path: { strip: '/a' } }).upgrade)
    front.server.on('upgrade', createProxy(balance([b]), { path: { strip: '/b' } }).upgrade)
    for (const path of ['/a/x', '/b/x']) (await socketTo(front, path)).close()
    expect([a, b].map(({ requests }) => requests[0]!.url)).toEqual(['/x', '/x'])
    expect(await refusal(front, '/c')).toBe(404)
    expect((await ask(front, '/a/x')).status).toBe(418)
    for (const { sockets } of [a, b]) expect(sockets.length).toBe(1)
  })
})

/** What socket.io is to a server: a listener that takes a path, and leaves what it does not know. */
function beside(server: http.Server, path: string): WebSocketServer {
  const own = new WebSocketServer({ noServer: true })
  onTestFinished(() => own.close())
  server.on('upgrade', (request, socket, head) => {
    if (!request.url?.startsWith(path)) return
    own.handleUpgrade(request, socket, head, (one) => one.on('message', () => one.send('their own')))
  })
  return own
}

test('what becomes of a tunnel is nothing to the next request in its place', async () => {
  const backend = await rawUpstream(async (wire) => {
    const head = await wire.head()
    if (/upgrade/i.test(head)) return wire.write(AGREED)
    wire.write('HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nha')
  })
  const balancer = balance([backend], { transport: undici({ connections: 1 }) })
  const front = await frontOf(balancer)
  const client = await rawClient(front)
  client.write(ASKED)
  await client.until('\r\n\r\n')
  const answer = ask(front, '/')
  const plain = await backend.wire(1)
  await plain.until('\r\n\r\n')
  const tunnel = await backend.wire(0)
  tunnel.socket.resetAndDestroy()
  await client.closed()
  plain.socket.end('lf')
  expect(String((await answer).body)).toBe('half')
})

describe('a memory transport', () => {
  test('gives tests the backend end of a tunnel', async () => {
    let end: Duplex | undefined
    const transport = memory({
      'a.test': {
        tunnel(socket) {
          end = socket
          socket.on('data', (bytes) => socket.write(Buffer.concat([Buffer.from('echo '), bytes as Buffer])))
          socket.on('end', () => socket.end())
        },
      },
    })
    const balancer = kept(createBalancer({ backends: ['http://a.test'], transport }))
    const client = await rawClient(await frontOf(balancer))
    client.write(ASKED)
    await client.until('\r\n\r\n')
    client.write('\x81\x82\0\0\0\0hi')
    await client.until('echo \x81\x82\0\0\0\0hi')
    expect(transport.requests[0]).toMatchObject({ upgrade: 'websocket', path: '/' })
    client.socket.end()
    await idle(balancer)
    await until(() => end!.destroyed, 'the end stayed open')
    expect((await balancer.request('/')).statusCode).toBe(200)
  })
})

test('an answer to an upgrade that nobody wants gives its connection back', async () => {
  const backend = await socketUpstream()
  const balancer = balance([backend])
  const headers = ['sec-websocket-version', '13', 'sec-websocket-key', 'dGhlIHNhbXBsZSBub25jZQ==']
  const { response } = balancer.send({ method: 'GET', path: '/', headers, body: null, upgrade: 'websocket' })
  const answer = await response
  expect(answer.status).toBe(101)
  answer.body.discard()
  await idle(balancer)
  await until(() => connectionsOf(balancer) === 0, 'the connection was kept')
})

test('100 WebSockets at once keep their messages in order, and leave nothing behind', async () => {
  const backends: SocketUpstream[] = [await socketUpstream(), await socketUpstream()]
  const balancer = balance(backends)
  const front = await frontOf(balancer)
  const sockets = await Promise.all(Array.from({ length: 100 }, () => socketTo(front)))
  expect(inflight(balancer)).toBe(100)
  await Promise.all(
    sockets.map(async (socket, i) => {
      const got: string[] = []
      const done = new Promise<void>((resolve) => {
        socket.on('message', (data) => {
          if (got.push(String(data)) === 20) resolve()
        })
      })
      const sent = Array.from({ length: 20 }, (_, n) => `${i}: ${n} ${'x'.repeat((i * n) % 300)}`)
      for (const text of sent) socket.send(text)
      await done
      expect(got).toEqual(sent)
    }),
  )
  const closes = sockets.map(closeOf)
  for (const socket of sockets) socket.close(1000)
  await Promise.all(closes)
  await idle(balancer)
  expect(connectionsOf(balancer)).toBe(0)
  await until(() => connectionCount(front.server) === 0, 'a client was kept')
})
