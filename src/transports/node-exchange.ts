import type { Agent, ClientRequest, IncomingMessage, RequestOptions } from 'node:http'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type {
  Attempt,
  BalancerResponse,
  BodyControl,
  BodySink,
  RawHeaders,
  RequestBody,
  ResponseBody,
  SendFailure,
} from '../core/contracts.ts'
import { header, latin1, wireHeaders } from '../core/headers.ts'
import { breach, checkHead, checkSize, InterimCount } from './answer-head.ts'
import { TunnelBody } from './tunnel.ts'
import { asError, Upload } from './upload.ts'
import { codeOf, withoutData } from './wire.ts'

/** The connections of one backend, as an exchange sees them. */
export interface Line {
  readonly live: Set<Exchange>
  /** Sockets that have carried a request. */
  readonly used: WeakSet<Socket>
  /** Of the backend's URL, as in Host. */
  readonly host: string
  readonly agent: Agent
  readonly maxHeaderBytes: number
  readonly keepAliveMs: number
  request(options: RequestOptions): ClientRequest
  refresh(): void
  /** It waits for no connection any more. */
  withdraw(request: ClientRequest): void
  ended(exchange: Exchange): void
}

/** One attempt: the request, and the body of its answer. Whatever happens after its end is ignored. */
export class Exchange implements ResponseBody, BodyControl {
  readonly #attempt: Attempt
  readonly #line: Line
  readonly #resolve: (response: BalancerResponse) => void
  readonly #reject: (failure: SendFailure) => void
  readonly #request: ClientRequest
  readonly #interim = new InterimCount()
  #socket: Socket | undefined
  #answer: IncomingMessage | undefined
  #upload: Upload | undefined
  #sink: BodySink | undefined
  #phase: SendFailure['phase'] = 'wait'
  #reused = false
  #over = false
  #failure: SendFailure | undefined
  isTunnel = false

  /** Throws for what node:http would not write. */
  constructor(
    attempt: Attempt,
    line: Line,
    resolve: (response: BalancerResponse) => void,
    reject: (failure: SendFailure) => void,
  ) {
    this.#attempt = attempt
    this.#line = line
    this.#resolve = resolve
    this.#reject = reject
    if (attempt.fresh) line.refresh()
    const { method, path, body } = attempt.request
    const request = line.request({
      agent: line.agent,
      method,
      path,
      headers: headersOf(attempt, line.host),
      maxHeaderSize: line.maxHeaderBytes,
    })
    this.#request = request
    line.live.add(this)
    if (isStray(method, body)) request.shouldKeepAlive = false // whatever the backend says of it
    request.maxHeadersCount = 0 // the head is counted below: node:http would drop what is too much, and say nothing
    request.on('error', this.#broken)
    request.on('socket', (socket) => this.#connecting(socket))
    request.on('information', ({ statusCode, rawHeaders }) => this.#interrupted(statusCode, rawHeaders))
    request.on('response', (answer) => this.#answered(answer))
    request.on('upgrade', ({ rawHeaders }, socket, head) => this.#upgraded(rawHeaders, socket as Socket, head))
    attempt.onCancel((reason) => {
      if (this.#phase !== 'body') this.break(reason)
    })
    if (body === null || body instanceof Uint8Array) request.end(body ?? undefined)
    else {
      this.#upload = new Upload(body)
      request.flushHeaders() // the first chunk may be long in coming
      const told = header(attempt.request.headers, 'content-length')
      void this.#send(this.#upload, told === undefined ? body.length : Number(told))
    }
  }

  /** Ends it now, from this side. */
  break(reason: unknown): void {
    this.#fail(reason, '')
    if (this.isTunnel) this.#socket?.destroy()
  }

  consume(sink: BodySink): BodyControl {
    this.#sink = sink
    if (this.#failure !== undefined) sink.fail(this.#failure)
    else this.#answer!.on('data', (chunk: Uint8Array) => this.#data(chunk)) // it flows from here on
    return this
  }

  discard(): void {
    this.consume({ chunk: () => true, end: () => {}, fail: () => {} })
  }

  resume(): void {
    this.#answer!.resume()
  }

  cancel(): void {
    if (this.#over) return
    this.#finish()
    this.#request.destroy()
  }

  #connecting(socket: Socket): void {
    if (this.#over) return
    this.#socket = socket
    this.#reused = this.#line.used.has(socket)
    // Before node:http hears of it: that takes a reset for the end of a body that is told by the end of its connection.
    socket.prependListener('error', this.#broken)
    if (!socket.connecting) return this.#connected()
    this.#phase = 'connect'
    if (!(socket instanceof TLSSocket)) return void socket.once('connect', () => this.#connected())
    socket.once('connect', () => {
      if (!this.#over) this.#phase = 'tls'
    })
    socket.once('secureConnect', () => this.#connected())
  }

  /** What comes behind a whole answer is not about it, though its end may not have been read. */
  readonly #broken = (error: Error): void => {
    if (this.#answer?.complete !== true) this.#fail(error)
  }

  #connected(): void {
    if (this.#over) return
    this.#line.used.add(this.#socket!)
    this.#phase = 'head'
    this.#attempt.sent()
  }

  #interrupted(status: number, headers: RawHeaders): void {
    if (this.#over) return
    try {
      this.#interim.check(status, headers)
      const isAsked = header(this.#attempt.request.headers, 'expect') !== undefined
      if (status === 100 && !isAsked) throw breach('HPE_UNEXPECTED_100', 'a 100 Continue that nobody asked for')
    } catch (error) {
      return this.#fail(error)
    }
    this.#attempt.request.informational?.(status, headers)
  }

  #answered(answer: IncomingMessage): void {
    if (this.#over) return
    const { statusCode: status = 0, rawHeaders: headers } = answer
    try {
      checkHead(headers, this.#line.maxHeaderBytes)
    } catch (error) {
      return this.#fail(error)
    }
    this.#phase = 'body'
    this.#answer = answer
    answer.on('end', () => this.#ended(answer))
    answer.on('error', this.#broken)
    this.#resolve({ status, headers, body: this })
  }

  /** The socket has left its agent, which opens another in its place. */
  #upgraded(headers: RawHeaders, socket: Socket, head: Uint8Array): void {
    if (this.#over) return void socket.destroy()
    if (this.#attempt.request.upgrade === undefined) {
      this.#fail(breach('HPE_UNEXPECTED_101', 'a change of protocol that nobody asked for'))
      return void socket.destroy()
    }
    socket.removeListener('error', this.#broken)
    this.isTunnel = true
    this.#phase = 'body'
    socket.once('close', () => this.#finish())
    if (head.length > 0) socket.unshift(head)
    const body = new TunnelBody(socket)
    this.#resolve({ status: 101, headers, body, socket })
  }

  #data(chunk: Uint8Array): void {
    if (!this.#over && !this.#sink!.chunk(chunk)) this.#answer!.pause()
  }

  #ended({ rawTrailers }: IncomingMessage): void {
    if (this.#over) return
    try {
      checkSize(rawTrailers, this.#line.maxHeaderBytes)
    } catch (error) {
      return this.#fail(error)
    }
    this.#finish()
    const request = this.#request
    // Answered before it was asked in full: what is left of the body has nowhere to go, or only slowly.
    if (!request.writableEnded) request.destroy()
    else if (!request.writableFinished) this.#socket!.setTimeout(this.#line.keepAliveMs, () => void request.destroy())
    this.#sink!.end(rawTrailers.length > 0 ? rawTrailers : undefined)
  }

  async #send(upload: Upload, length: number | undefined): Promise<void> {
    const { trailers } = this.#attempt.request
    try {
      let bytes = 0
      for await (const chunk of upload) {
        if (this.#over) return
        bytes += chunk.length
        if (length !== undefined && bytes > length) break
        if (!this.#request.write(chunk)) await new Promise((drained) => this.#request.once('drain', drained))
      }
      if (this.#over) return
      if (length !== undefined && bytes !== length) throw new Error(`a body of ${length} bytes has ${bytes}`)
      if (trailers !== undefined && length === undefined) this.#request.addTrailers(pairsOf(trailers()))
      this.#request.end()
    } catch (error) {
      this.#fail(error, 'REQUEST_BODY')
    }
  }

  #fail(cause: unknown, code: string = codeOf(asError(cause))): void {
    if (this.#over) return
    const processed = this.#phase === 'head' || this.#phase === 'body' ? 'maybe' : 'no'
    this.#failure = { phase: this.#phase, processed, reused: this.#reused, code, cause }
    if (cause instanceof Error) withoutData(cause)
    this.#finish()
    this.#request.destroy()
    if (this.#socket === undefined) this.#line.withdraw(this.#request)
    if (this.#phase === 'body') this.#sink?.fail(this.#failure)
    else this.#reject(this.#failure)
  }

  /** Once: lets the body's source go, whatever it is waiting for, and tells the line. */
  #finish(): void {
    if (this.#over) return
    this.#over = true
    this.#upload?.stop()
    this.#socket?.removeListener('error', this.#broken)
    this.#line.ended(this)
  }
}

/** Methods whose body means nothing: who takes no body there takes it for another request (RFC 9110 9.3.1). */
const BODILESS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE'])

function isStray(method: string, body: RequestBody): boolean {
  return BODILESS.has(method) && lengthOf(body) !== 0
}

/** As node:http takes them: name, value, ... Host and the length of the body are the transport's to say. */
function headersOf({ request: { headers, method, body, upgrade } }: Attempt, host: string): string[] {
  const out = wireHeaders(headers)
  const length = lengthOf(body)
  if (header(headers, 'host') === undefined) out.push('host', host)
  if (upgrade !== undefined) out.push('connection', 'upgrade', 'upgrade', upgrade)
  else if (isStray(method, body)) out.push('connection', 'close')
  if (header(headers, 'content-length') !== undefined) return out
  if (length === undefined) out.push('transfer-encoding', 'chunked')
  else if (length > 0 || !BODILESS.has(method)) out.push('content-length', String(length))
  return out
}

function lengthOf(body: RequestBody): number | undefined {
  return body === null ? 0 : body.length
}

function pairsOf(raw: RawHeaders): [string, string][] {
  return Array.from({ length: raw.length / 2 }, (_, i) => [latin1(raw[2 * i]!), latin1(raw[2 * i + 1]!)])
}
