import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { expect } from 'vitest'
import { closeOf, messageOf, socketTo, socketUpstream } from '../support/sockets.ts'
import { ask, MIB, nobody, OK, rawClient, rawUpstream, sha256, until, type Wire } from '../support/upstreams.ts'
import { get, isWhole, refused, statusOf, values } from './passing.ts'
import type { Front, FrontOptions, Row } from './row.ts'

const UPGRADE = [
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
]
const AGREED = [
  'HTTP/1.1 101 Switching Protocols',
  'Upgrade: websocket',
  'Connection: Upgrade',
  'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=',
  '',
  '',
].join('\r\n')
/** So that nothing is waited for. */
const ONCE: FrontOptions = { balancer: { retry: { attempts: 1 } } }
const SECRET = 'GET /secret HTTP/1.1\r\nHost: front.test\r\n\r\n'

/** Rows 58 to 61: requests that change the protocol of their connection. */
export const UPGRADE_ROWS: readonly Row[] = (
  [
    {
      number: 58,
      says: 'a backend is asked for a WebSocket by one Connection and one Upgrade field, and by the handshake as it is',
      async run(front) {
        const { sent, got } = await tunnel(front, {
          request: get(
            '/chat?x=1',
            'Connection: keep-alive, Upgrade',
            'Upgrade: WebSocket',
            'Sec-WebSocket-Version: 13',
            'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
            'Sec-WebSocket-Protocol: chat, superchat',
            'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits',
            'Keep-Alive: timeout=5',
          ),
        })
        expect(sent).toMatch(/^GET \/chat\?x=1 HTTP\/1\.1\r\n/)
        expect(values(sent, 'connection').map((value) => value.toLowerCase())).toEqual(['upgrade'])
        expect(values(sent, 'upgrade').map((value) => value.toLowerCase())).toEqual(['websocket'])
        expect(values(sent, 'keep-alive')).toEqual([])
        expect(values(sent, 'sec-websocket-key')).toEqual(['dGhlIHNhbXBsZSBub25jZQ=='])
        expect(values(sent, 'sec-websocket-version')).toEqual(['13'])
        expect(values(sent, 'sec-websocket-protocol')).toEqual(['chat, superchat'])
        expect(values(sent, 'sec-websocket-extensions')).toEqual(['permessage-deflate; client_max_window_bits'])
        expect(statusOf(got)).toBe(101)
        expect(values(got, 'connection').map((value) => value.toLowerCase())).toEqual(['upgrade'])
        expect(values(got, 'upgrade').map((value) => value.toLowerCase())).toEqual(['websocket'])
        expect(values(got, 'sec-websocket-accept')).toEqual(['s3pPLMBiTxaQ9kYGzzhZRbK+xOo='])
        for (const name of ['content-length', 'transfer-encoding']) expect(values(got, name)).toEqual([])
      },
    },
    {
      number: 58,
      says: 'of several protocols that are asked for, the backend hears of one',
      async run(front) {
        const { sent } = await tunnel(front, {
          request: get(
            '/',
            'Connection: Upgrade, HTTP2-Settings',
            'HTTP2-Settings: AAMAAABk',
            'Upgrade: h2c',
            ...UPGRADE,
          ),
        })
        expect(values(sent, 'upgrade').map((value) => value.toLowerCase())).toEqual(['websocket'])
        expect(values(sent, 'http2-settings')).toEqual([])
      },
    },
    ...[
      [
        'for another protocol',
        get('/', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABk'),
      ],
      ['over HTTP/1.0', get('/', ...UPGRADE).replace('HTTP/1.1', 'HTTP/1.0')],
      ['that is no GET', get('/', ...UPGRADE).replace('GET', 'DELETE')],
    ].map(
      ([which, request]): Row => ({
        number: 58,
        says: `a request to upgrade ${which} is answered as a plain one`,
        async run(front) {
          const backend = await rawUpstream(async (wire) => {
            await wire.until('\r\n\r\n')
            wire.write(OK)
          })
          const client = await rawClient(await front([backend]))
          client.write(request!)
          const got = await client.until(isWhole)
          expect(statusOf(got)).toBe(200)
          expect(got.endsWith('ok')).toBe(true)
          for (const name of ['upgrade', 'http2-settings']) {
            expect(values((await backend.wire()).received, name)).toEqual([])
          }
        },
      }),
    ),
    {
      number: 58,
      says: 'a handshake without a key is refused by the backend, and the next one is none the worse',
      async run(front) {
        const backend = await socketUpstream()
        const proxy = await front([backend])
        const client = await rawClient(proxy)
        client.write(get('/', ...UPGRADE.slice(0, 3)))
        await client.closed()
        expect(statusOf(client.received)).toBe(400)
        const socket = await socketTo(proxy)
        socket.send('hello')
        expect(await messageOf(socket)).toBe('hello')
      },
    },
    {
      number: 59,
      says: 'an upgrade whose target names another host goes to no other backend',
      async run(front) {
        const elsewhere = await rawUpstream(() => {})
        const { sent, backend } = await tunnel(front, {
          request: get(`http://127.0.0.1:${elsewhere.port}/chat`, ...UPGRADE),
        })
        expect(sent).toMatch(/^GET \/chat HTTP\/1\.1\r\n/)
        expect(values(sent, 'host')).toEqual([`127.0.0.1:${backend.port}`])
        expect(elsewhere.wires).toEqual([])
      },
    },
    {
      number: 59,
      says: 'who asks for an upgrade is told to the backend as for any request',
      async run(front) {
        const { sent } = await tunnel(front, {
          request: get(
            '/',
            ...UPGRADE,
            'X-Forwarded-For: 192.0.2.1',
            'X-Forwarded-Proto: https',
            'Proxy-Authorization: x',
          ),
        })
        expect(values(sent, 'x-forwarded-for')).toEqual(['127.0.0.1'])
        expect(values(sent, 'x-forwarded-proto')).toEqual(['http'])
        expect(values(sent, 'via')).toEqual(['1.1 evenkeel'])
        expect(values(sent, 'proxy-authorization')).toEqual([])
      },
      about: 'ours',
    },
    ...(
      [
        ['out of its path', get('/%2e%2e/secret', ...UPGRADE), 400],
        ['with two hosts', get('/', 'Host: other.test', ...UPGRADE), 400],
        ['with 2 000 fields', get('/', ...UPGRADE, ...Array.from({ length: 2_000 }, () => 'a:')), 431],
        ['with a body', `${get('/', ...UPGRADE, `Content-Length: ${SECRET.length}`)}${SECRET}`, 400],
        ['with a chunked body', `${get('/', ...UPGRADE, 'Transfer-Encoding: chunked')}0\r\n\r\n${SECRET}`, 400],
      ] as const
    ).map(
      ([which, request, status]): Row => ({
        number: 59,
        says: `an upgrade ${which} is refused with ${status}, and no backend hears of it`,
        about: 'ours',
        async run(front) {
          expect(statusOf(await refused(front, request))).toBe(status)
        },
      }),
    ),
    ...(
      [
        ['200', OK, 200],
        ['403 in chunks', 'HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n', 403],
      ] as const
    ).map(
      ([which, answer, status]): Row => ({
        number: 60,
        says: `a ${which} in answer to an upgrade is passed on, then the connection ends; what the client sent on reaches nobody`,
        async run(front) {
          const { client, backend } = await asked(front, { answer, request: get('/', ...UPGRADE) + SECRET })
          await client.closed()
          expect(statusOf(client.received)).toBe(status)
          expect(isWhole(client.received)).toBe(true)
          expect(client.received).toContain('ok')
          expect(backend.wires.map(({ received }) => received).join('')).not.toContain('secret')
        },
      }),
    ),
    {
      number: 60,
      says: 'what comes with the heads, and right behind them, is delivered both ways and in order',
      async run(front) {
        const { client, wire } = await tunnel(front, { request: `${get('/', ...UPGRADE)}one`, answer: `${AGREED}eins` })
        client.write('two')
        wire.write('zwei')
        await wire.until((received) => received.endsWith('onetwo'))
        await client.until((received) => received.endsWith('\r\n\r\neinszwei'))
      },
    },
    {
      number: 60,
      says: 'an end of one side is passed on as such: the other may still speak',
      async run(front) {
        for (const first of ['client', 'wire'] as const) {
          const both = await tunnel(front, { allowHalfOpen: true })
          const [one, other] = first === 'client' ? [both.client, both.wire] : [both.wire, both.client]
          one.write('last words')
          one.socket.end()
          if (!other.socket.readableEnded) await once(other.socket, 'end')
          expect(other.received.endsWith('last words')).toBe(true)
          other.write('heard you')
          await one.until((received) => received.endsWith('heard you'))
          other.socket.end()
          expect(await Promise.all([one.closed(), other.closed()])).toEqual(['fin', 'fin'])
        }
      },
    },
    {
      number: 60,
      says: 'when one side breaks, the other is not kept',
      async run(front) {
        for (const first of ['client', 'wire'] as const) {
          const both = await tunnel(front)
          both[first].socket.resetAndDestroy()
          await both[first === 'client' ? 'wire' : 'client'].closed()
        }
      },
    },
    {
      number: 60,
      says: 'a client that goes before the backend has answered takes its request along',
      async run(front) {
        for (const how of ['destroy', 'resetAndDestroy', 'end'] as const) {
          const backend = await rawUpstream(() => {})
          const client = await rawClient(await front([backend]))
          client.write(get('/', ...UPGRADE))
          const wire = await backend.wire()
          await wire.until('\r\n\r\n')
          client.socket[how]()
          await wire.closed()
        }
      },
    },
    {
      number: 60,
      says: 'a backend that refuses connections is a 502, and one that hangs up too',
      async run(front) {
        const silent = await rawUpstream(async (wire) => {
          await wire.until('\r\n\r\n')
          wire.socket.destroy()
        })
        for (const backend of [await nobody(), silent]) {
          const client = await rawClient(await front([backend], ONCE))
          client.write(get('/', ...UPGRADE))
          await client.closed()
          expect(statusOf(client.received)).toBe(502)
        }
      },
    },
    {
      number: 60,
      says: 'a backend that changes to another protocol than was asked for is a 502',
      async run(front) {
        const { client } = await asked(front, { answer: AGREED.replace('websocket', 'h2c'), options: ONCE })
        await client.closed()
        expect(statusOf(client.received)).toBe(502)
      },
    },
    {
      number: 60,
      says: 'a backend that takes too long over a handshake is a 504',
      about: 'ours',
      async run(front) {
        const options = { balancer: { timeouts: { headersMs: 20 }, retry: { attempts: 1 } } } as const
        const { client } = await asked(front, { answer: '', options })
        await client.closed()
        expect(statusOf(client.received)).toBe(504)
      },
    },
    {
      number: 61,
      says: '10 MB of anything go both ways at once and stay the same bytes',
      async run(front) {
        const { client, wire } = await tunnel(front)
        const bytes = randomBytes(10 * MIB)
        const hashes = [client, wire].map(({ socket }) => hashOf(socket, bytes.length))
        client.socket.write(bytes)
        wire.socket.write(bytes)
        expect(await Promise.all(hashes)).toEqual([sha256(bytes), sha256(bytes)])
      },
    },
    {
      number: 61,
      says: 'messages of a WebSocket that come byte by byte, compressed or not, arrive whole',
      async run(front) {
        const backend = await socketUpstream(undefined, { perMessageDeflate: { threshold: 0 } })
        const proxy = await front([backend])
        for (const perMessageDeflate of [true, false]) {
          const socket = await socketTo(proxy, '/', { perMessageDeflate })
          const text = randomBytes(200).toString('base64')
          socket.send(text)
          expect(await messageOf(socket)).toBe(text)
          const wire = (socket as unknown as { readonly _socket: Socket })._socket
          const write = wire.write.bind(wire) as (bytes: Uint8Array) => boolean
          wire.write = (bytes: Uint8Array | string) => {
            for (const byte of bytes as Uint8Array) write(Uint8Array.of(byte))
            return true
          }
          socket.send(text)
          expect(await messageOf(socket)).toBe(text)
          socket.close(4321, 'enough')
          expect(await closeOf(socket)).toEqual({ code: 4321, reason: 'enough' })
        }
      },
    },
    {
      number: 61,
      says: 'a server that closes first is heard, and so is its reason',
      async run(front) {
        const backend = await socketUpstream((socket) => socket.on('message', () => socket.close(4001, 'go')))
        const proxy = await front([backend])
        const socket = await socketTo(proxy)
        socket.send('hello')
        expect(await closeOf(socket)).toEqual({ code: 4001, reason: 'go' })
        expect((await ask(proxy, '/')).status).toBe(200)
      },
    },
  ] satisfies Row[]
).map((row) => ({ ...row, not: { web: 'a handler of Request and Response has no connection to hand over' } }))

interface Asking {
  readonly request?: string
  readonly answer?: string
  readonly allowHalfOpen?: boolean
  readonly options?: FrontOptions
}

/** A client that has asked for a WebSocket, and the backend that answers with these bytes. */
async function asked(
  front: Front,
  { request = get('/', ...UPGRADE), answer = AGREED, allowHalfOpen = false, options }: Asking,
): Promise<{ readonly client: Wire; readonly backend: Awaited<ReturnType<typeof rawUpstream>> }> {
  const backend = await rawUpstream(
    async (wire) => {
      await wire.until('\r\n\r\n')
      wire.write(answer)
    },
    { allowHalfOpen },
  )
  const client = await rawClient(await front([backend], options), { allowHalfOpen })
  client.write(request)
  return { client, backend }
}

/** One that has got it, and both of its ends. */
async function tunnel(
  front: Front,
  asking: Asking = {},
): Promise<Awaited<ReturnType<typeof asked>> & { readonly wire: Wire; readonly sent: string; readonly got: string }> {
  const { client, backend } = await asked(front, asking)
  const got = await client.until('\r\n\r\n')
  const wire = await backend.wire()
  return { client, backend, wire, sent: wire.received, got }
}

async function hashOf(socket: Socket, length: number): Promise<string> {
  const hash = createHash('sha256')
  let seen = 0
  socket.removeAllListeners('data')
  socket.on('data', (bytes) => {
    hash.update(bytes)
    seen += bytes.length
  })
  await until(() => seen >= length, 'not all of it came')
  return hash.digest('hex')
}
