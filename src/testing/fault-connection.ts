import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type SecureContext, TLSSocket, type TlsOptions } from 'node:tls'
import { answerOf, type Cut, type Fault, INTERIM, lengthUntil } from './fault.ts'
import { fieldOf, RequestReader } from './request-reader.ts'

/** What a connection asks its server, and tells it. */
export interface FaultSource {
  /** The fault that the next connection or request meets. */
  fault(): Fault
  /** What to handshake with, if at all. */
  secure(fault: Fault): [TlsOptions, SecureContext] | undefined
  requested(id: string | undefined): void
  readonly idHeader: string
}

/** Interim answers written at once: one by one, a flood would keep the event loop from everything else. */
const BATCH = 100

const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'
const BAD_REQUEST = 'HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n'

/** One accepted connection: it answers one request after the other, as the fault says that each of them meets. */
export class FaultConnection {
  readonly #source: FaultSource
  readonly #raw: Socket
  /** TLS over the raw socket, or that itself. */
  #stream: Socket
  readonly #gone = new AbortController()
  /** Answers, one after the other. */
  #turns: Promise<void> = Promise.resolve()
  /** Nothing is said any more. */
  #over = false
  #current: { readonly fault: Fault; readonly head: string } = { fault: {}, head: '' }

  constructor(socket: Socket, source: FaultSource) {
    this.#source = source
    this.#raw = socket.setNoDelay(true)
    this.#stream = socket
    socket.on('error', () => {})
    socket.once('close', () => this.#gone.abort())
    const fault = source.fault()
    if (fault.cut?.at === 'accept') this.#cut(fault.cut.by)
    else if (fault.cut?.at === 'hello') socket.once('data', () => this.#cut(fault.cut!.by))
    else this.#serve(fault)
  }

  destroy(): void {
    this.#stream.destroy()
    this.#raw.destroy()
  }

  #serve(fault: Fault): void {
    const secure = this.#source.secure(fault)
    if (secure !== undefined) {
      const [options, secureContext] = secure
      this.#stream = new TLSSocket(this.#raw, { ...options, isServer: true, secureContext })
      this.#stream.on('error', () => this.#raw.destroy())
    }
    const reader = new RequestReader({
      head: (head) => this.#begin(head),
      end: () => this.#current.fault.early || this.#answerNext(),
      nonsense: () => this.#refuse(),
    })
    this.#stream.on('data', (data) => this.#over || reader.feed(data))
  }

  #begin(head: string): void {
    const fault = this.#source.fault()
    this.#current = { fault, head }
    this.#source.requested(fieldOf(head, this.#source.idHeader))
    if (fault.early) this.#answerNext()
    else if (/100-continue/i.test(fieldOf(head, 'expect') ?? '')) this.#stream.write(CONTINUE)
  }

  #answerNext(): void {
    const { fault, head } = this.#current
    // A client that goes away in the middle of an answer ends it; there is nobody to tell.
    this.#turns = this.#turns.then(() => this.#answer(fault, head)).catch(() => {})
  }

  #refuse(): void {
    this.#turns = this.#turns.then(() => {
      if (this.#over) return
      this.#stream.write(BAD_REQUEST)
      this.#cut('fin')
    })
  }

  async #answer(fault: Fault, request: string): Promise<void> {
    if (this.#over) return
    const answer = answerOf(fault, request.slice(0, request.indexOf(' ')))
    const length = lengthUntil(fault.cut?.at, answer)
    if (fault.afterMs !== undefined) await this.#pause(fault.afterMs)
    if (length > 0) await this.#sayInterim(fault.interim)
    await this.#say(answer.head.slice(0, length), fault.drip?.of === 'head' ? fault.drip.everyMs : undefined)
    const rest = answer.body.slice(0, Math.max(0, length - answer.head.length))
    await this.#say(rest, fault.drip?.of === 'body' ? fault.drip.everyMs : undefined)
    const close = answer.last || /close/i.test(fieldOf(request, 'connection') ?? '')
    if (fault.cut !== undefined) this.#cut(fault.cut.by)
    else if (close) this.#cut('fin')
  }

  async #sayInterim({ count, everyMs }: { count: number; everyMs?: number } = { count: 0 }): Promise<void> {
    const batch = everyMs === undefined ? BATCH : 1
    for (let said = 0; said < count; said += batch) {
      if (said > 0 && everyMs !== undefined) await this.#pause(everyMs)
      await this.#say(INTERIM.repeat(Math.min(batch, count - said)))
    }
  }

  /** Resolves when the kernel has it: what is not sent yet would be lost with a reset. */
  async #say(text: string, everyMs?: number): Promise<void> {
    if (everyMs === undefined) return this.#write(text)
    for (const [i, byte] of [...text].entries()) {
      if (i > 0) await this.#pause(everyMs)
      await this.#write(byte)
    }
  }

  #write(text: string): Promise<void> {
    if (text === '') return Promise.resolve()
    return new Promise((resolve, reject) => {
      this.#stream.write(text, 'latin1', (error) => (error ? reject(error) : resolve()))
    })
  }

  /** Does not hold up the process, and ends with the connection. */
  #pause(ms: number): Promise<void> {
    return sleep(ms, undefined, { ref: false, signal: this.#gone.signal })
  }

  #cut(by: Cut['by']): void {
    this.#over = true
    // Even who says nothing reads on: a socket that nobody reads does not notice that its client is gone.
    this.#stream.resume()
    if (by === 'reset') this.#raw.resetAndDestroy()
    else if (by === 'fin') this.#stream.end()
  }
}
