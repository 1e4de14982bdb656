/** Between node:http and the proxy's neutral values. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Incoming } from './incoming.ts'
import { type Reply, wireText } from './problem.ts'

/** How long the client of a connection that is over may take to read why, ms. */
const LINGER_MS = 1_000
/** On sockets whose last word was said. */
const LINGERS: unique symbol = Symbol('evenkeel.lingers')

export function incomingOf(request: IncomingMessage): Incoming {
  const { method = 'GET', url = '/', httpVersion, rawHeaders, socket } = request
  const version = isHttp2(request) ? '2' : httpVersion
  const address = socket.remoteAddress
  return { method, target: url, version, rawHeaders, address, isEncrypted: 'encrypted' in socket }
}

/** Over node:http a first line may claim any version: what is HTTP/2 has a stream. */
export function isHttp2(request: IncomingMessage): boolean {
  return 'stream' in request
}

/** What node:http keeps on a socket: the answer that is being written to it. */
interface Writing {
  readonly _httpMessage: ServerResponse | null
}

/** Of a connection that its server has let go of: calls back when what it still writes there is written, but not after a last answer. */
export function whenWritten(socket: Duplex, then: () => void): void {
  socket.on('error', ignore)
  const next = (): void => {
    const { _httpMessage: before } = socket as Duplex & Partial<Writing>
    if (before) before.once('finish', () => setImmediate(next))
    else if (socket.writable) then()
  }
  next()
}

/** Of a socket's errors: its 'close' says enough. Out here, where it holds on to nothing: tunnels last long. */
function ignore(): void {}

/** The last word on a connection. */
export function endWith(socket: Duplex, reply: Reply): void {
  socket.on('error', ignore)
  if (socket.writable) linger(socket, wireText(reply))
}

/** Ends a connection, with a last word or without; it is gone once the client had time to read all of it. */
export function linger(socket: Duplex, last?: string): void {
  Object.assign(socket, { [LINGERS]: true }).end(last)
  socket.resume()
  setTimeout(() => socket.destroy(), LINGER_MS).unref()
}

/** Whether its last word was said: the rest takes care of itself. */
export function lingers(socket: Duplex): boolean {
  return LINGERS in socket
}
