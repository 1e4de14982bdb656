/** WebSockets on real ports, for tests: the package ws on both ends. */
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { onTestFinished } from 'vitest'
import WebSocket, { type ServerOptions, WebSocketServer } from 'ws'
import { type Upstream, upstream } from './upstreams.ts'

export interface SocketUpstream extends Upstream {
  /** Its ends of the connections, in the order they came. */
  readonly sockets: readonly WebSocket[]
  /** The requests they began with. */
  readonly requests: readonly IncomingMessage[]
}

/** A WebSocket server that does with each connection what is said; by default it echoes. */
export async function socketUpstream(
  serve: (socket: WebSocket) => void = echo,
  options: ServerOptions = {},
): Promise<SocketUpstream> {
  const made = await upstream((_, response) => response.end('plain'))
  const sockets: WebSocket[] = []
  const requests: IncomingMessage[] = []
  const server = new WebSocketServer({ server: made.server, ...options })
  server.on('connection', (socket, request) => {
    sockets.push(socket)
    requests.push(request)
    socket.on('error', () => {}) // its 'close' follows
    serve(socket)
  })
  onTestFinished(() => {
    for (const socket of sockets) socket.terminate()
  })
  return { ...made, sockets, requests }
}

export function echo(socket: WebSocket): void {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
}

/** A WebSocket that is open, gone with the test. */
export async function socketTo(
  { port }: Upstream,
  path = '/',
  options: WebSocket.ClientOptions = {},
): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { perMessageDeflate: false, ...options })
  onTestFinished(() => socket.terminate())
  await once(socket, 'open')
  socket.on('error', () => {}) // its 'close' follows
  return socket
}

/** Status and reason of its end. */
export async function closeOf(socket: WebSocket): Promise<{ readonly code: number; readonly reason: string }> {
  if (socket.readyState === WebSocket.CLOSED) throw new Error('it is closed already')
  const [code, reason] = (await once(socket, 'close')) as [number, Buffer]
  return { code, reason: String(reason) }
}

/** The next message as text. */
export async function messageOf(socket: WebSocket): Promise<string> {
  const [data] = (await once(socket, 'message')) as [Buffer]
  return String(data)
}
