import type { Socket } from 'node:net'
import { buildConnector, Client, type Dispatcher } from 'undici'
import { UNREAD_BYTES } from '../core/body.ts'
import type {
  Attempt,
  Backend,
  BalancerResponse,
  BodyControl,
  BodySink,
  OpenBody,
  RawHeaders,
  ResponseBody,
  SendFailure,
  Transport,
} from '../core/contracts.ts'
import { latin1 } from '../core/headers.ts'

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
/** Largest delay a timer takes, ms: no idle limit of a backend may exceed it. */
const KEEP_ALIVE_MOST_MS = 600_000

/**
 * The default transport. undici never queues for us: a request that waits in undici cannot be withdrawn, so each backend has
 * a FIFO of its own in front of its connections, and every connection is an undici `Client` we know the state of.
 */
export function undici(options: UndiciTransportOptions = {}): Transport {
  const settings: Settings = {
    connections: 256,
    pipelining: 1,
    keepAliveMs: 4_000,
    allowH2: false,
    tls: {},
    ...options,
  }
  const lanes = new Map<Backend, Lane>()
  return {
    name: 'undici',
    send(attempt) {
      let lane = lanes.get(attempt.backend)
      if (lane === undefined) {
        lane = new Lane(attempt.backend, settings)
        lanes.set(attempt.backend, lane)
      }
      return lane.send(attempt)
    },
    async forget(backend) {
      const lane = lanes.get(backend)
      if (lane === undefined) return
      await lane.finish()
      lanes.delete(backend)
    },
    async close() {
      const all = [...lanes.values()]
      lanes.clear()
      await Promise.all(all.map((lane) => lane.destroy()))
    },
  }
}

/** The connections to one backend and the requests that wait for one. */
class Lane {
  readonly backend: Backend
  readonly settings: Settings
  readonly #all = new Set<Connection>()
  /** Connections with room, the most recently used last: the others may go idle and close. */
  readonly #free: Connection[] = []
  readonly #waiting = new Set<Exchange>()
  #finished: (() => void) | undefined

  constructor(backend: Backend, settings: Settings) {
    this.backend = backend
    this.settings = settings
  }

  send(attempt: Attempt): Promise<BalancerResponse> {
    return new Promise((resolve, reject) => {
      const exchange = new Exchange(attempt, this, resolve, reject)
      const connection = this.#connectionFor(exchange)
      if (connection === undefined) this.#waiting.add(exchange)
      else this.#start(connection, exchange)
    })
  }

  withdraw(exchange: Exchange): void {
    this.#waiting.delete(exchange)
  }

  /** An exchange is over: its place goes to the one that has waited longest. */
  release(connection: Connection, healthy: boolean): void {
    connection.active--
    this.#list(connection, healthy)
    const next = this.#waiting.values().next().value
    if (next !== undefined) {
      this.#waiting.delete(next)
      this.#start(this.#connectionFor(next) ?? connection, next)
    }
    if (this.#finished !== undefined) this.#finishIfIdle()
  }

  /** The socket of an idle connection closed: the next request opens a new one. */
  dropped(connection: Connection): void {
    if (connection.active > 0) return
    this.#remove(connection)
  }

  /** Resolves when what is under way is over and the connections are closed. */
  async finish(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#finished = resolve
      this.#finishIfIdle()
    })
    await this.destroy()
  }

  async destroy(): Promise<void> {
    for (const exchange of this.#waiting) exchange.refuse(new Error('the transport was closed'))
    this.#waiting.clear()
    this.#free.length = 0
    await Promise.all([...this.#all].map((connection) => connection.close()))
    this.#all.clear()
  }

  #connectionFor(exchange: Exchange): Connection | undefined {
    if (exchange.attempt.fresh) {
      // Its last connection died of old age: an idle one may be as old, so it makes room for a new one.
      const idle = this.#free.find((connection) => connection.active === 0)
      if (idle?.used) {
        this.#remove(idle)
        void idle.close()
      }
    } else {
      const free = this.#free.at(-1)
      if (free !== undefined) return free
    }
    const most = this.settings.dispatcher === undefined ? this.settings.connections : 1
    if (this.#all.size >= most) return this.#free.at(-1)
    const connection = new Connection(this)
    this.#all.add(connection)
    this.#list(connection, true)
    return connection
  }

  #start(connection: Connection, exchange: Exchange): void {
    connection.active++
    connection.pending++
    if (connection.active >= connection.capacity) this.#unlist(connection)
    exchange.start(connection)
  }

  /** A connection whose socket just broke goes to the far end: it has to connect again. */
  #list(connection: Connection, healthy: boolean): void {
    if (connection.closed || connection.listed || connection.active >= connection.capacity) return
    connection.listed = true
    if (healthy) this.#free.push(connection)
    else this.#free.unshift(connection)
  }

  #unlist(connection: Connection): void {
    if (!connection.listed) return
    connection.listed = false
    if (this.#free.at(-1) === connection) this.#free.pop()
    else this.#free.splice(this.#free.indexOf(connection), 1)
  }

  #remove(connection: Connection): void {
    this.#unlist(connection)
    this.#all.delete(connection)
  }

  #finishIfIdle(): void {
    if (this.#waiting.size > 0) return
    for (const connection of this.#all) if (connection.active > 0) return
    this.#finished?.()
  }
}

/** Thrown from `onRequestStart`: undici drops the request and keeps the socket. */
const WITHDRAWN = new Error('withdrawn')

/** One undici Client, hence one socket at a time, or a dispatcher of the user's that counts as one. */
class Connection {
  readonly dispatcher: Dispatcher
  readonly #own: Client | undefined
  readonly #pipelining: number
  capacity: number
  /** Exchanges on it, those not yet written included. */
  active = 0
  /** Of these, the ones that wait for the socket and are still wanted. */
  pending = 0
  listed = false
  /** The socket has carried a request before. */
  used = false
  closed = false
  /** How far a new socket is; undefined once it is open. */
  stage: 'connect' | 'tls' | undefined = 'connect'
  #connecting: Socket | undefined
  #abandoned = false

  constructor(lane: Lane) {
    const { settings, backend } = lane
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
    this.#own.on('disconnect', () => lane.dropped(this))
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
    // buildConnector's function returns the socket it opens, which its types leave out.
    const socket = connect(options, (...[error, open]: Parameters<buildConnector.Callback>) => {
      this.#connecting = undefined
      if (error !== null) return callback(error, null)
      this.stage = undefined
      if (open !== null && 'alpnProtocol' in open && open.alpnProtocol === 'h2') this.capacity = H2_STREAMS
      else this.capacity = this.#pipelining
      callback(null, open as Socket)
    }) as unknown as Socket
    this.#connecting = socket
    if (this.#abandoned && this.pending === 0) socket.destroy(WITHDRAWN)
    this.#abandoned = false
    if (options.protocol === 'https:') socket.once('connect', () => (this.stage = 'tls'))
  }
}

/** One attempt on its way: the handler undici calls, and the body it pushes. Everything but its first end is ignored. */
class Exchange implements Dispatcher.DispatchHandler, ResponseBody, BodyControl {
  readonly attempt: Attempt
  readonly #lane: Lane
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
    lane: Lane,
    resolve: (response: BalancerResponse) => void,
    reject: (failure: SendFailure) => void,
  ) {
    this.attempt = attempt
    this.#lane = lane
    this.#resolve = resolve
    this.#reject = reject
    attempt.onCancel((reason) => this.#withdraw(reason))
  }

  start(connection: Connection): void {
    this.#connection = connection
    this.#phase = 'connect'
    const { backend, request } = this.attempt
    const { body } = request
    if (body !== null && !(body instanceof Uint8Array)) this.#upload = new Upload(body)
    connection.dispatcher.dispatch(
      {
        origin: backend.origin,
        path: request.path,
        method: request.method as Dispatcher.HttpMethod,
        headers: headersOf(request.headers),
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

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    const headers = controller.rawHeaders as RawHeaders
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
    this.#early ??= []
    this.#early.push(chunk)
    this.#earlyBytes += chunk.length
    if (this.#earlyBytes >= UNREAD_BYTES) controller.pause()
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    const trailers = controller.rawTrailers as RawHeaders | undefined
    this.#trailers = trailers !== undefined && trailers.length > 0 ? trailers : undefined
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
      this.#upload?.error ?? error,
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
    if (this.#connection !== undefined) this.#lane.release(this.#connection, this.#failure === undefined)
  }
}

/** A body that undici iterates and that ends when the exchange does, whatever its source is waiting for. */
class Upload implements AsyncIterable<Uint8Array>, AsyncIterator<Uint8Array> {
  readonly #body: OpenBody
  #source: AsyncIterator<Uint8Array> | undefined
  #pending: ((result: IteratorResult<Uint8Array>) => void) | undefined
  #stopped = false
  /** Set if the body itself failed, which is not the backend's fault. */
  error: Error | undefined

  constructor(body: OpenBody) {
    this.#body = body
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return this
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    return new Promise((resolve, reject) => {
      if (this.#stopped) return resolve({ done: true, value: undefined })
      this.#pending = resolve
      this.#source ??= this.#body.open()[Symbol.asyncIterator]()
      this.#source.next().then(resolve, (error: unknown) => {
        this.error = asError(error)
        reject(this.error)
      })
    })
  }

  return(): Promise<IteratorResult<Uint8Array>> {
    this.stop()
    return Promise.resolve({ done: true, value: undefined })
  }

  stop(): void {
    if (this.#stopped) return
    this.#stopped = true
    this.#pending?.({ done: true, value: undefined })
    void this.#source?.return?.().catch(() => {})
  }
}

function headersOf(headers: RawHeaders): string[] {
  return headers.map(latin1)
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}

function codeOf(error: Error): string {
  const code = 'code' in error ? error.code : undefined
  if (typeof code === 'string') return code
  if (error.name === 'HTTPParserError') return 'HPE_INVALID' // undici loses llhttp's own code
  // Several addresses were tried, each with its own failure (Node's happy eyeballs).
  if (error instanceof AggregateError && error.errors[0] instanceof Error) return codeOf(error.errors[0])
  return ''
}
