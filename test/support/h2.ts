import { once } from 'node:events'
import http2 from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import tls from 'node:tls'
import type { Balancer, BalancerOptions } from 'evenkeel'
import { onTestFinished } from 'vitest'
import { CERT, KEY } from './tls.ts'
import { balance, type Upstream } from './upstreams.ts'

export interface H2Backend extends Upstream {
  /** Those there ever were, first first. */
  readonly sessions: readonly http2.ServerHttp2Session[]
  readonly streams: readonly http2.ServerHttp2Stream[]
  readonly sockets: readonly Socket[]
  readonly server: http2.Http2SecureServer
}

/** An HTTP/2 server over TLS on localhost, gone with the test. */
export async function h2Backend(
  onStream: (
    stream: http2.ServerHttp2Stream,
    headers: http2.IncomingHttpHeaders,
    number: number,
    rawHeaders: readonly string[],
  ) => unknown,
  options: http2.SecureServerOptions = {},
): Promise<H2Backend> {
  const sessions: http2.ServerHttp2Session[] = []
  const streams: http2.ServerHttp2Stream[] = []
  const sockets: Socket[] = []
  const server = http2.createSecureServer({ cert: CERT, key: KEY, ...options })
  server.on('sessionError', () => {})
  server.on('secureConnection', (socket: Socket) => void sockets.push(socket.on('error', () => {})))
  server.on('session', (session: http2.ServerHttp2Session) => void sessions.push(session.on('error', () => {})))
  server.on(
    'stream',
    (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders, _: number, rawHeaders: readonly string[]) => {
      stream.on('error', () => {})
      onStream(stream, headers, streams.push(stream), rawHeaders)
    },
  )
  server.listen(0, 'localhost')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const session of sessions) session.destroy()
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { url: `https://localhost:${port}`, port, sessions, streams, sockets, server }
}

/** A balancer that offers HTTP/2 and trusts the tests' certificate. */
export function balanceH2(
  backends: readonly (Upstream | string)[],
  { undici, ...options }: Omit<BalancerOptions, 'backends'> = {},
): Balancer {
  return balance(backends, { undici: { allowH2: true, tls: { ca: CERT }, ...undici }, ...options })
}

/** Says 200 and the number of the stream. */
export function tell(stream: http2.ServerHttp2Stream, text: string): void {
  stream.respond({ ':status': 200 })
  stream.end(text)
}

/** All that were asked for at once, when so many have come. */
export function together(count: number, then: (all: http2.ServerHttp2Stream[]) => void): H2Handler {
  const waiting: http2.ServerHttp2Stream[] = []
  return (stream) => {
    if (waiting.push(stream) === count) then(waiting)
  }
}

export type H2Handler = (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void

/** One HTTP/2 connection by hand: what the server side of a test sees and says, frame by frame. */
export class Frames {
  readonly socket: Socket
  readonly #onHead: (frames: Frames, stream: number) => void
  #rest = Buffer.alloc(0)
  #hasPreface = false
  /** Types of the frames that came, with their streams. */
  readonly came: { readonly type: number; readonly stream: number; readonly payload: Buffer }[] = []

  constructor(socket: Socket, onHead: (frames: Frames, stream: number) => void) {
    this.socket = socket
    this.#onHead = onHead
    socket.on('error', () => {}).on('data', (data: Buffer) => this.#take(data))
    this.send(4, 0, 0) // our SETTINGS
  }

  send(type: number, flags: number, stream: number, payload: Uint8Array = new Uint8Array()): void {
    const head = Buffer.alloc(9)
    head.writeUIntBE(payload.length, 0, 3)
    head.writeUInt8(type, 3)
    head.writeUInt8(flags, 4)
    head.writeUInt32BE(stream, 5)
    this.socket.write(Buffer.concat([head, payload]))
  }

  /** `:status: 200`, and fields as bytes, none of them compressed. */
  head(stream: number, fields: Readonly<Record<string, Uint8Array>> = {}, ends = false): void {
    const literals = Object.entries(fields).map(([name, value]) =>
      Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), value]),
    )
    this.send(1, ends ? 5 : 4, stream, Buffer.concat([Buffer.from([0x88]), ...literals]))
  }

  data(stream: number, text: string, ends = false): void {
    this.send(0, ends ? 1 : 0, stream, Buffer.from(text))
  }

  reset(stream: number, code: number): void {
    this.send(3, 0, stream, uint32(code))
  }

  goaway(last: number, code: number): void {
    this.send(7, 0, 0, Buffer.concat([uint32(last), uint32(code)]))
  }

  #take(data: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, data])
    if (!this.#hasPreface) {
      if (this.#rest.length < 24) return
      this.#hasPreface = true
      this.#rest = this.#rest.subarray(24)
    }
    while (this.#rest.length >= 9 && this.#rest.length >= 9 + this.#rest.readUIntBE(0, 3)) {
      const end = 9 + this.#rest.readUIntBE(0, 3)
      const type = this.#rest.readUInt8(3)
      const flags = this.#rest.readUInt8(4)
      const stream = this.#rest.readUInt32BE(5)
      this.came.push({ type, stream, payload: this.#rest.subarray(9, end) })
      this.#rest = this.#rest.subarray(end)
      if (type === 4 && flags === 0) this.send(4, 1, 0)
      if (type === 1) this.#onHead(this, stream)
    }
  }
}

/** An HTTP/2 server by hand, gone with the test. */
export async function h2Frames(
  onHead: (frames: Frames, stream: number) => void,
): Promise<Upstream & { readonly connections: readonly Frames[] }> {
  const connections: Frames[] = []
  const server = tls.createServer({ cert: CERT, key: KEY, ALPNProtocols: ['h2'] }, (socket) => {
    connections.push(new Frames(socket, onHead))
  })
  server.listen(0, 'localhost')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const { socket } of connections) socket.destroy()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { url: `https://localhost:${port}`, port, connections }
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
