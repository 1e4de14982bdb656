import type { Socket } from 'node:net'
import { buildConnector, Client, type Dispatcher } from 'undici'
import { UNREAD_BYTES } from '../core/body.ts'
import type {
  Attempt,
  Backend,
  BalancerResponse,
  BodyControl,
  BodySink,
  RawHeaders,
  ResponseBody,
  SendFailure,
  Transport,
} from '../core/contracts.ts'
import { CONNECTION_DEFAULTS } from '../core/options.ts'
import { Lane, type LaneConnection, type LaneRequest } from './lane.ts'
import { asError, Upload } from './upload.ts'
import { codeOf, headersOf, type Parsed, rawOf, withoutData } from './wire.ts'

export interface UndiciTransportOptions {
  /** Most connections per backend; default 256. */
  readonly connections?: number
  /** Requests per HTTP/1.1 connection at once; default 1. */
  readonly pipelining?: number
  /** Idle connections are closed after this, ms; default 4 000. */
  readonly keepAliveMs?: number
  /** Offer HTTP/2 to https: backends; default false. */
  readonly allowH2?: boolean
  /** What `tls.connect` takes. */
  readonly tls?: Readonly<Record<string, unknown>>
  /** A dispatcher of your own per backend, for sockets of other kinds. You close it. */
  readonly dispatcher?: (backend: Backend) => Dispatcher
}

type Settings = Required<Omit<UndiciTransportOptions, 'dispatcher'>> & Pick<UndiciTransportOptions, 'dispatcher'>

/** Streams of one HTTP/2 connection at once: what Node's servers allow. */
const H2_STREAMS = 100
/** Idle connections go this much before the backend's own Keep-Alive limit, ms, so that they are not closed under a request. */
const KEEP_ALIVE_MARGIN_MS = 1_000
/** Most that a backend's own Keep-Alive header may ask for, ms (undici's default). */
const KEEP_ALIVE_MOST_MS = 600_000

/**
 * The default transport. undici never queues for us: a request that waits in undici cannot be withdrawn, so each backend has
 * a FIFO of its own in front of its connections, and every connection is an undici `Client` we know the state of.
 */
export function undici(options: UndiciTransportOptions = {}): Transport {
  const settings: Settings = { ...CONNECTION_DEFAULTS, ...options }
  const most = options.dispatcher === undefined ? settings.connections : 1
  const lanes = new Map<Backend, Lane<Connection>>()
  const laneOf = (backend: Backend): Lane<Connection> => {
    const known = lanes.get(backend)
    if (known !== undefined) return known
    const lane: Lane<Connection> = new Lane(most, () => new Connection(settings, backend, lane))
    if (!backend.removed) lanes.set(backend, lane)
    return lane
  }
  return {
    name: 'undici',
    send(attempt) {
      const lane = laneOf(attempt.backend)
      const answer = new Promise<BalancerResponse>((resolve, reject) => {
        lane.add(new Exchange(attempt, lane, resolve, reject))
      })
      // Removed between its pick and now: nobody will forget this lane, so it ends with what it carries.
      if (attempt.backend.removed && !lanes.has(attempt.backend)) void lane.finish()
      return answer
    },
    async forget(backend) {
      const lane = lanes.get(backend)
      if (lane === undefined) return
      await lane.finish()
      lanes.delete(backend)
    },
    // Over a dispatcher of the user's nobody knows how to connect, nor what is connected.
    ...(options.dispatcher === undefined && {
      connections: (backend: Backend) => lanes.get(backend)?.connections ?? { open: 0, idle: 0 },
      reach: (backend: Backend, signal: AbortSignal) => reach(backend, signal, settings),
    }),
    async close() {
      const all = [...lanes.values()]
      lanes.clear()
      await Promise.all(all.map((lane) => lane.destroy()))
    },
  }
}

/** A connection opened as for a request, and closed again. */
function reach(backend: Backend, signal: AbortSignal, { tls, allowH2 }: Settings): Promise<void> {
  const { protocol, host, hostname: name, port } = new URL(backend.origin)
  const hostname = name.replace(/^\[(.*)\]$/, '$1') // an IPv6 address, as net.connect takes it
  return new Promise((resolve, reject) => {
    const connect = buildConnector({ ...tls, allowH2, timeout: 0 })
    const socket = connect({ protocol, host, hostname, port }, (...[error]: Parameters<buildConnector.Callback>) => {
      signal.removeEventListener('abort', abort)
      socket.destroy()
      if (error === null) resolve()
      else reject(error)
    }) as unknown as Socket // which its types leave out
    const abort = (): void => void socket.destroy(asError(signal.reason))
    signal.addEventListener('abort', abort, { once: true })
  })
}

/** Thrown from `onRequestStart`: undici drops the request and keeps the socket. */
const WITHDRAWN = new Error('withdrawn')

/** One undici Client, hence one socket at a time, or a dispatcher of the user's that counts as one. */
class Connection implements LaneConnection {
  readonly dispatcher: Dispatcher
  readonly #own: Client | undefined
  readonly #pipelining: number
  capacity: number
  active = 0
  /** Of the active ones, the ones that wait for the socket and are still wanted. */
  pending = 0
  listed = false
  used = false
  closed = false
  open = false
  /** How far a new socket is; undefined once it is open. */
  stage: 'connect' | 'tls' | undefined = 'connect'
  /** What its socket broke with. */
  broken: Error | undefined
  readonly #lane: Lane<Connection>
  #connecting: Socket | undefined
  #abandoned = false

  constructor(settings: Settings, backend: Backend, lane: Lane<Connection>) {
    this.#lane = lane
    this.#pipelining = settings.pipelining
    this.capacity = settings.pipelining
    if (settings.dispatcher !== undefined) {
      this.dispatcher = settings.dispatcher(backend)
      this.capacity = settings.connections * settings.pipelining
      this.stage = undefined
      return
    }
    const { allowH2, tls, keepAliveMs, pipelining } = settings
    // Timeouts are evenkeel's own: undici's are off, they must never fire first.
    const connect = buildConnector({ ...tls, allowH2, timeout: 0 })
    this.#own = new Client(backend.origin, {
      allowH2,
      pipelining,
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: keepAliveMs,
      keepAliveMaxTimeout: KEEP_ALIVE_MOST_MS,
      keepAliveTimeoutThreshold: KEEP_ALIVE_MARGIN_MS,
      connect: (options, callback) => this.#connect(connect, options, callback),
    })
    this.#own.on('disconnect', () => {
      this.open = false
      lane.dropped(this)
    })
    this.#own.on('connectionError', () => lane.dropped(this))
    this.dispatcher = this.#own
  }

  /** A request is being written. Returns whether the socket has carried one before; of a user's dispatcher nobody knows. */
  begin(): boolean {
    this.pending--
    if (this.#own === undefined) return false
    const reused = this.used
    this.used = true
    return reused
  }

  /** A request that waited for the socket was given up: when it was the last one, so is a socket still connecting. */
  abandon(): void {
    this.pending--
    if (this.pending > 0 || this.stage === undefined) return
    this.#abandoned = true
    this.#connecting?.destroy(WITHDRAWN)
  }

  async close(): Promise<void> {
    this.closed = true
    this.#connecting?.destroy(new Error('closed'))
    await this.#own?.destroy()
  }

  #connect(
    connect: buildConnector.connector,
    options: buildConnector.Options,
    callback: buildConnector.Callback,
  ): void {
    this.stage = 'connect'
    this.used = false
    this.broken = undefined
    // buildConnector's function returns the socket it opens, which its types leave out.
    const socket = connect(options, (...[error, open]: Parameters<buildConnector.Callback>) => {
      this.#connecting = undefined
      if (error !== null) return callback(error, null)
      this.stage = undefined
      this.open = true
      // Before undici listens: it takes a reset for the end of a body that is told by the end of its connection.
      open?.once('error', (cause) => {
        this.broken = cause
      })
      const h2 = open !== null && 'alpnProtocol' in open && open.alpnProtocol === 'h2'
      this.capacity = h2 ? H2_STREAMS : this.#pipelining
      if (h2) queueMicrotask(() => this.#lane.grew(this)) // once undici has taken the socket
      callback(null, open as Socket)
    }) as unknown as Socket
    this.#connecting = socket
    if (this.#abandoned && this.pending === 0) socket.destroy(WITHDRAWN)
    this.#abandoned = false
    if (options.protocol === 'https:') socket.once('connect', () => (this.stage = 'tls'))
  }
}

/** One attempt on its way: the handler undici calls, and the body it pushes. Everything but its first end is ignored. */
class Exchange implements LaneRequest<Connection>, Dispatcher.DispatchHandler, ResponseBody, BodyControl {
  readonly attempt: Attempt
  readonly #lane: Lane<Connection>
  readonly #resolve: (response: BalancerResponse) => void
  readonly #reject: (failure: SendFailure) => void
  #connection: Connection | undefined
  #controller: Dispatcher.DispatchController | undefined
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

  constructor(
    attempt: Attempt,
    lane: Lane<Connection>,
    resolve: (response: BalancerResponse) => void,
    reject: (failure: SendFailure) => void,
  ) {
    this.attempt = attempt
    this.#lane = lane
    this.#resolve = resolve
    this.#reject = reject
    attempt.onCancel((reason) => this.#withdraw(reason))
  }

  get fresh(): boolean {
    return this.attempt.fresh
  }

  start(connection: Connection): void {
    this.#connection = connection
    connection.pending++
    this.#phase = 'connect'
    const { backend, request } = this.attempt
    const { body } = request
    if (body !== null && !(body instanceof Uint8Array)) this.#upload = new Upload(body)
    connection.dispatcher.dispatch(
      {
        origin: backend.origin,
        path: request.path,
        method: request.method as Dispatcher.HttpMethod,
        headers: headersOf(request),
        body: (this.#upload ?? body) as Uint8Array | null,
      },
      this,
    )
  }

  refuse(cause: Error): void {
    this.#fail(cause)
  }

  // --- what undici calls

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.#dead) throw WITHDRAWN
    this.#controller = controller
    this.#phase = 'head'
    this.#reused = this.#connection!.begin()
    this.attempt.sent()
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, parsed: Parsed): void {
    const headers = rawOf(parsed)
    if (status < 200) return this.attempt.request.informational?.(status, headers)
    this.#phase = 'body'
    this.#resolve({ status, headers, body: this })
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
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

  onResponseEnd(_controller: Dispatcher.DispatchController, trailers: Parsed): void {
    const { broken } = this.#connection!
    if (broken !== undefined) return this.#fail(broken)
    const raw = rawOf(trailers)
    this.#trailers = raw.length > 0 ? raw : undefined
    this.#finish()
    if (!this.#dead) this.#sink?.end(this.#trailers)
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
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
    this.#dead = true
    if (this.#connection === undefined) {
      this.#over = true
      this.#lane.withdraw(this)
    } else if (this.#controller !== undefined) this.#controller.abort(asError(reason))
    else this.#connection.abandon()
    this.#reject(failure)
  }

  #fail(error: Error): void {
    if (this.#over) return
    const failure = this.#failureOf(
      this.#upload?.error ?? withoutData(error),
      this.#upload?.error === undefined ? codeOf(error) : 'REQUEST_BODY',
    )
    this.#failure = failure
    const inBody = this.#phase === 'body'
    if (!this.#dead && this.#controller === undefined && this.#connection !== undefined) this.#connection.pending--
    this.#finish()
    if (this.#dead) return
    if (!inBody) this.#reject(failure)
    else this.#sink?.fail(failure)
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
