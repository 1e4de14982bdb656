import type { Duplex } from 'node:stream'
import { UNREAD_BYTES } from '../core/body.ts'
import type {
  Attempt,
  BalancerResponse,
  BodyControl,
  BodySink,
  RawHeaders,
  ResponseBody,
  SendFailure,
} from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { checkHead, checkSize, InterimCount } from './answer-head.ts'
import type { Lane, LaneRequest } from './lane.ts'
import { TunnelBody } from './tunnel.ts'
import { type Connection, type Outgoing, type Rider, WITHDRAWN } from './undici-connection.ts'
import { asError, Upload } from './upload.ts'
import {
  type Controller,
  codeOf,
  explained,
  headersOf,
  isOfStream,
  isUnprocessed,
  type Parsed,
  rawOf,
  withoutData,
} from './wire.ts'

/** One attempt on its way: the handler undici calls, and the body it pushes. Everything but its first end is ignored. */
export class Exchange implements LaneRequest<Connection>, Rider, ResponseBody, BodyControl {
  readonly attempt: Attempt
  readonly #lane: Lane<Connection>
  readonly #maxHeaderBytes: number
  readonly #resolve: (response: BalancerResponse) => void
  readonly #reject: (failure: SendFailure) => void
  #connection: Connection | undefined
  #controller: Controller | undefined
  #upload: Upload | undefined
  #sink: BodySink | undefined
  #early: Uint8Array[] | undefined
  #earlyBytes = 0
  #phase: SendFailure['phase'] = 'wait'
  #reused = false
  /** The caller has its rejection, or wants no more of the body: what undici still says is for nobody. */
  #dead = false
  #over = false
  #failure: SendFailure | undefined
  #trailers: RawHeaders | undefined
  #interim: InterimCount | undefined
  /** Over HTTP/2 only, where a connection may die unnoticed. */
  #sentMs = 0

  constructor(
    attempt: Attempt,
    lane: Lane<Connection>,
    maxHeaderBytes: number,
    resolve: (response: BalancerResponse) => void,
    reject: (failure: SendFailure) => void,
  ) {
    this.attempt = attempt
    this.#lane = lane
    this.#maxHeaderBytes = maxHeaderBytes
    this.#resolve = resolve
    this.#reject = reject
    attempt.onCancel((reason) => this.#withdraw(reason))
  }

  get fresh(): boolean {
    return this.attempt.fresh
  }

  start(connection: Connection): void {
    this.#connection = connection
    this.#phase = 'connect'
    connection.take(this)
  }

  dispatch(): void {
    const connection = this.#connection!
    const { backend, request } = this.attempt
    const { body } = request
    if (body !== null && !(body instanceof Uint8Array)) this.#upload = new Upload(body)
    connection.dispatch(
      {
        origin: backend.origin,
        path: request.path,
        method: request.method as Outgoing['method'],
        headers: headersOf(request, connection.mayBeH2),
        body: (this.#upload ?? body) as Uint8Array | null,
        upgrade: request.upgrade ?? null,
        servername: connection.servername,
      },
      this,
    )
  }

  again(): void {
    this.#lane.release(this.#connection!, true)
    this.#connection = undefined
    this.#phase = 'wait'
    this.#lane.add(this)
  }

  refuse(cause: Error): void {
    this.#fail(cause)
  }

  // --- what undici calls

  onRequestStart(controller: Controller): void {
    if (this.#dead) throw WITHDRAWN
    const isAgain = this.#controller !== undefined // undici sends it once more when an HTTP/2 backend did nothing with it
    this.#controller = controller
    if (isAgain) return
    this.#phase = 'head'
    this.#reused = this.#connection!.begin()
    if (this.#connection!.h2) this.#sentMs = performance.now()
    this.attempt.sent()
  }

  onResponseStart(_controller: Controller, status: number, parsed: Parsed): void {
    this.#connection!.hear()
    const headers = rawOf(parsed)
    if (status < 200) {
      this.#interim ??= new InterimCount()
      this.#interim.check(status, headers)
      return this.attempt.request.informational?.(status, headers)
    }
    checkHead(headers, this.#maxHeaderBytes)
    this.#phase = 'body'
    this.#resolve({ status, headers, body: this })
  }

  /** The socket is no longer undici's: its place in the lane is free again, for a connection of its own. */
  onRequestUpgrade(_controller: Controller, _status: number, parsed: Parsed, socket: Duplex): void {
    const body = new TunnelBody(socket)
    this.#phase = 'body'
    this.#lane.handOver(socket)
    this.#connection!.handOver(socket)
    this.#finish()
    if (this.#dead) return body.cancel()
    this.#resolve({ status: 101, headers: rawOf(parsed), body, socket })
  }

  onResponseData(controller: Controller, chunk: Uint8Array): void {
    this.#connection!.hear()
    if (this.#dead) return
    if (this.#sink !== undefined) {
      if (!this.#sink.chunk(chunk)) controller.pause()
      return
    }
    if (this.#early === undefined) this.#early = [chunk]
    else this.#early.push(chunk)
    this.#earlyBytes += chunk.length
    if (this.#earlyBytes > UNREAD_BYTES) controller.pause()
  }

  onResponseEnd(_controller: Controller, trailers: Parsed): void {
    const { broken } = this.#connection!
    if (broken !== undefined) return this.#fail(broken)
    const raw = rawOf(trailers)
    try {
      checkSize(raw, this.#maxHeaderBytes)
    } catch (error) {
      return this.#fail(asError(error))
    }
    this.#trailers = raw.length > 0 ? raw : undefined
    this.#finish()
    if (!this.#dead) this.#sink?.end(this.#trailers)
  }

  onResponseError(_controller: Controller | null, error: Error): void {
    this.#fail(error)
  }

  // --- the body, for whoever reads

  consume(sink: BodySink): BodyControl {
    const early = this.#early
    this.#early = undefined
    let paused = false
    // Only core consumes at once, when little is there: chunks beyond its wish are still delivered here, it queues them.
    if (early !== undefined) for (const chunk of early) paused = !sink.chunk(chunk)
    if (this.#over) {
      if (this.#failure === undefined) sink.end(this.#trailers)
      else sink.fail(this.#failure)
      return this
    }
    this.#sink = sink
    if (paused) this.#controller?.pause()
    else this.#resumeSoon()
    return this
  }

  discard(): void {
    this.consume({ chunk: () => true, end: () => {}, fail: () => {} })
  }

  resume(): void {
    this.#resumeSoon()
  }

  cancel(reason: unknown): void {
    if (this.#dead || this.#over) return
    this.#dead = true
    this.#controller?.abort(asError(reason))
  }

  // --- inside

  /** undici's parser must not be entered while it is in a callback of any connection. */
  #resumeSoon(): void {
    const controller = this.#controller
    if (controller?.paused === true) queueMicrotask(() => controller.resume())
  }

  #withdraw(reason: unknown): void {
    if (this.#dead || this.#over || this.#phase === 'body') return
    const failure = this.#failureOf(reason, '')
    const connection = this.#connection
    this.#dead = true
    if (connection === undefined) {
      this.#over = true
      this.#lane.withdraw(this)
    } else if (this.#controller === undefined) {
      if (connection.abandon(this)) this.#finish()
    } else {
      if (reason instanceof BalancerError && reason.code === 'TIMEOUT') connection.doubt(this.#sentMs)
      this.#controller.abort(asError(reason))
    }
    this.#reject(failure)
  }

  #fail(error: Error): void {
    if (this.#over) return
    const own = this.#upload?.error
    const failure = own === undefined ? this.#judged(error) : this.#failureOf(own, 'REQUEST_BODY')
    this.#failure = failure
    const inBody = this.#phase === 'body'
    if (!this.#dead && this.#controller === undefined && this.#connection !== undefined) this.#connection.pending--
    this.#finish()
    if (this.#dead) return
    if (!inBody) this.#reject(failure)
    else this.#sink?.fail(failure)
  }

  #judged(error: Error): SendFailure {
    const inHead = this.#phase === 'head'
    const told = withoutData(error)
    const cause = inHead ? explained(told) : told
    const failure = this.#failureOf(cause, codeOf(cause))
    if (inHead && isUnprocessed(error)) return { ...failure, phase: 'wait', processed: 'no', reused: false }
    return isOfStream(error) ? { ...failure, reused: false } : failure
  }

  #failureOf(cause: unknown, code: string): SendFailure {
    const phase = this.#phase === 'connect' ? (this.#connection?.stage ?? 'connect') : this.#phase
    const unsent = phase !== 'head' && phase !== 'body'
    return { phase, processed: unsent ? 'no' : 'maybe', reused: this.#reused, code, cause }
  }

  #finish(): void {
    if (this.#over) return
    this.#over = true
    this.#upload?.stop()
    const connection = this.#connection
    if (connection === undefined) return
    // undici must not be given a request while it reports a failure to connect: it asserts that it has none left.
    if (this.#controller === undefined) queueMicrotask(() => this.#lane.release(connection, false))
    else this.#lane.release(connection, this.#failure === undefined)
  }
}
