import type { Duplex } from 'node:stream'
import type { BodyControl, BodySink, ResponseBody } from '../core/contracts.ts'

/** What is left of an answer once its connection speaks another protocol: it brings nothing, and ends when the socket has closed. */
export class TunnelBody implements ResponseBody, BodyControl {
  readonly #socket: Duplex
  #sink: BodySink | undefined

  constructor(socket: Duplex) {
    this.#socket = socket
    socket.allowHalfOpen = true // that one side has said everything is not the end of the other's words
    socket.on('error', () => {}) // whoever holds the socket hears of it as well; nobody may hold it yet
    socket.once('close', () => this.#sink?.end())
  }

  consume(sink: BodySink): BodyControl {
    if (this.#socket.closed) sink.end()
    else this.#sink = sink
    return this
  }

  discard(): void {
    this.#socket.destroy()
  }

  resume(): void {}

  cancel(): void {
    this.#sink = undefined
    this.#socket.destroy()
  }
}
