import { type IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { linger } from './node-wire.ts'

/** Most of what a client may send before it has its answer, bytes: then it has to wait. */
const EARLY_BYTES = 16_384

/** On the response: this. */
const LET_GO: unique symbol = Symbol('evenkeel.let-go')

/** A client's connection that its server has let go of, for a request to change its protocol: `response` is the last answer to it. */
export class LetGo {
  readonly response: ServerResponse
  readonly socket: Duplex
  readonly #early: Uint8Array[]
  #earlyBytes: number

  /** `head` = what the server has read beyond the request. */
  constructor(request: IncomingMessage, socket: Duplex, head: Uint8Array) {
    this.socket = socket
    this.#early = head.length > 0 ? [head] : []
    this.#earlyBytes = head.length
    if (socket instanceof Socket) socket.setTimeout(0) // the server's, for requests
    const response = new ServerResponse(request)
    response.shouldKeepAlive = false
    response.assignSocket(socket as Socket)
    response.on('finish', () => this.#finish())
    this.response = Object.assign(response, { [LET_GO]: this })
    // Read from now on: only so it is seen that a client goes.
    socket.on('data', this.#keep).on('end', this.#gone).on('drain', this.#drained)
  }

  /** What a response is written to; undefined if a server still looks after that. */
  static of(response: object): LetGo | undefined {
    return (response as { readonly [LET_GO]?: LetGo })[LET_GO]
  }

  /** The connection is somebody else's from now on; returns what came on it so far. Nothing is lost between this call and the next tick. */
  take(): readonly Uint8Array[] {
    const { socket } = this
    this.response.detachSocket(socket as Socket)
    socket.off('data', this.#keep).off('end', this.#gone).off('drain', this.#drained)
    socket.resume()
    return this.#early
  }

  #finish(): void {
    this.take()
    linger(this.socket)
    this.response.emit('close') // as servers do
  }

  readonly #keep = (bytes: Uint8Array): void => {
    this.#early.push(bytes)
    this.#earlyBytes += bytes.length
    if (this.#earlyBytes > EARLY_BYTES) this.socket.pause()
  }

  readonly #gone = (): void => void this.socket.destroy()

  readonly #drained = (): void => void this.response.emit('drain')
}
