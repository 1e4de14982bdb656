import { isIP, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { buildConnector, Client, type Dispatcher } from 'undici'
import type { Backend } from '../core/contracts.ts'
import type { UndiciOptions } from '../core/options.ts'
import type { Lane, LaneConnection } from './lane.ts'
import { asError } from './upload.ts'

export interface UndiciTransportOptions {
  /** Most connections per backend; default 256. With `allowH2` upgrades have as many of their own; open tunnels do not count. */
  readonly connections?: number
  /** Requests per HTTP/1.1 connection at once; default 1. */
  readonly pipelining?: number
  /** Idle connections are closed after this, ms; default 4 000. */
  readonly keepAliveMs?: number
  /**
   * Offer HTTP/2 to https: backends: up to 100 requests at a time on one connection. One that takes HTTP/1.1 only gets that. Upgrades
   * always go over HTTP/1.1. Default false.
   */
  readonly allowH2?: boolean
  /** Most bytes of an answer's header fields, and of its trailers: more is a breach of the protocol; default 16 384. */
  readonly maxHeaderBytes?: number
  /** What `tls.connect` takes. */
  readonly tls?: Readonly<Record<string, unknown>>
  /** A dispatcher of your own per backend, for sockets of other kinds. You close it. */
  readonly dispatcher?: (backend: Backend) => Dispatcher
}

export type Settings = Required<UndiciOptions> & { readonly dispatcher: ((backend: Backend) => Dispatcher) | undefined }

/** What the connections to one backend have found out about it: whether it speaks HTTP/2. */
export interface Known {
  h2: boolean | undefined
}

/** A request, as a connection sees it. */
export interface Rider {
  /** Goes out on it. */
  dispatch(): void
  /** Waits for another connection instead: this one takes fewer at a time than was hoped. */
  again(): void
  /** It cannot be connected. */
  refuse(cause: Error): void
}

/** A request in undici's terms: one object with always the same keys. */
export interface Outgoing extends Dispatcher.DispatchOptions {
  readonly servername: string | undefined
}

/** Streams of one HTTP/2 connection at once, or fewer if the backend says so: what Node's servers allow. */
const H2_STREAMS = 100
/** HTTP/2 connections that bring nothing for so long while somebody waits are not trusted any more. */
const SILENT_MS = 5_000
/** Idle connections go this much before the backend's own Keep-Alive limit, ms, so that they are not closed under a request. */
const KEEP_ALIVE_MARGIN_MS = 1_000
/** Most that a backend's own Keep-Alive header may ask for, ms (undici's default). */
const KEEP_ALIVE_MOST_MS = 600_000

/** Thrown from `onRequestStart`: undici drops the request and keeps the socket. */
export const WITHDRAWN: Error = new Error('withdrawn')

/** How undici opens sockets here. Time is evenkeel's own: undici must never be the first to give up. */
function connectorOf({ tls, allowH2 }: Pick<Settings, 'tls' | 'allowH2'>): buildConnector.connector {
  return buildConnector({ ...tls, allowH2, preferH2: allowH2, timeout: 0 })
}

/** One undici Client, hence one socket at a time, or a dispatcher of the user's that counts as one. */
export class Connection implements LaneConnection {
  readonly #dispatcher: Dispatcher
  /** Of every request: whatever its Host, it is this backend's certificate that counts, on one and the same connection. */
  readonly servername: string | undefined
  readonly #own: Client | undefined
  readonly #pipelining: number
  readonly #known: Known
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
  /** What its socket broke with, if it speaks HTTP/1.1. */
  broken: Error | undefined
  /** Streams share it. */
  h2 = false
  #heardMs = 0
  readonly #lane: Lane<Connection>
  #connecting: Socket | undefined
  #abandoned = false
  /** They wait until it is known how many fit: of many that come at once to HTTP/2, all go on one connection. */
  readonly #held = new Set<Rider>()

  constructor(settings: Settings, backend: Backend, lane: Lane<Connection>, known: Known) {
    this.#lane = lane
    this.#known = known
    this.#pipelining = settings.pipelining
    this.capacity = settings.pipelining
    if (settings.dispatcher !== undefined) {
      this.#dispatcher = settings.dispatcher(backend)
      this.capacity = settings.connections * settings.pipelining
      this.stage = undefined
      return
    }
    const { allowH2, tls, keepAliveMs, pipelining, maxHeaderBytes } = settings
    const connect = connectorOf(settings)
    const name = typeof tls.servername === 'string' ? tls.servername : hostnameOf(backend)
    this.servername = name
    if (known.h2 !== false) this.capacity = H2_STREAMS
    this.#own = new Client(backend.origin, {
      allowH2,
      pipelining,
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: keepAliveMs,
      keepAliveMaxTimeout: KEEP_ALIVE_MOST_MS,
      keepAliveTimeoutThreshold: KEEP_ALIVE_MARGIN_MS,
      maxHeaderSize: maxHeaderBytes,
      h2Options: { maxConcurrentStreams: H2_STREAMS },
      connect: (options, callback) =>
        // An address is no name to ask for (RFC 6066 3).
        this.#connect(connect, { ...options, servername: isIP(name) === 0 ? name : '' }, callback),
    })
    this.#own.on('disconnect', () => {
      this.open = false
      lane.dropped(this)
      if (this.capacity === 0) lane.grew(this) // it makes room for another
    })
    this.#own.on('connectionError', () => lane.dropped(this))
    this.#dispatcher = this.#own
  }

  /** Sends it on, now or as soon as it is known how many fit. */
  take(rider: Rider): void {
    if (this.active > this.capacity) return rider.again()
    this.pending++
    const isUnknown = this.stage !== undefined && this.mayBeH2
    if (isUnknown && (this.pending > 1 || this.#abandoned)) this.#held.add(rider)
    else rider.dispatch()
  }

  /** Hands a request to undici. */
  dispatch(outgoing: Outgoing, handler: Dispatcher.DispatchHandler): void {
    this.#dispatcher.dispatch(outgoing, handler)
  }

  /** A request is being written. Returns whether the socket has carried one before; of a user's dispatcher nobody knows. */
  begin(): boolean {
    this.pending--
    if (this.#own === undefined) return false
    // One that carries others does not close of old age: what ends it is no race with its idle timeout.
    const reused = this.used && (!this.h2 || this.active - this.pending === 1)
    this.used = true
    return reused
  }

  /**
   * A request that waited for the socket was given up: when it was the last one, so is a socket still connecting. Returns true if
   * nobody but this connection knew of it.
   */
  abandon(rider: Rider): boolean {
    this.pending--
    const wasHeld = this.#held.delete(rider)
    if (this.pending > 0 || this.stage === undefined) return wasHeld
    this.#abandoned = true
    this.#connecting?.destroy(WITHDRAWN)
    return wasHeld
  }

  /** Its socket speaks another protocol from now on: what becomes of it is no matter of the next one's. */
  handOver(socket: Duplex): void {
    socket.off('error', this.#broke)
    this.used = false
  }

  /** Before it is open nobody knows. */
  get mayBeH2(): boolean {
    return this.#known.h2 !== false
  }

  /** A sign of life. */
  hear(): void {
    if (this.h2) this.#heardMs = performance.now()
  }

  /**
   * A request that waits since then was given up. Where nothing else came meanwhile the connection may be dead, which HTTP/2 would not
   * notice: nothing new goes on it, and what it carries may still end.
   */
  doubt(sinceMs: number): void {
    if (!this.h2 || performance.now() - Math.max(sinceMs, this.#heardMs) < SILENT_MS) return
    this.capacity = 0
    this.#own?.close().catch(() => {}) // it may be destroyed already
  }

  async close(): Promise<void> {
    this.closed = true
    this.#connecting?.destroy(new Error('closed'))
    await this.#own?.destroy()
  }

  readonly #broke = (cause: Error): void => {
    this.broken = cause
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
      if (error !== null) {
        callback(error, null)
        return this.#failed(error)
      }
      this.#opened(open as Socket)
      callback(null, open as Socket)
      if (this.h2) for (const rider of this.#unheld()) rider.dispatch()
      else this.#disperse()
    }) as unknown as Socket
    this.#connecting = socket
    if (this.#abandoned && this.pending === 0) socket.destroy(WITHDRAWN)
    this.#abandoned = false
    if (options.protocol === 'https:') socket.once('connect', () => (this.stage = 'tls'))
  }

  #opened(socket: Socket): void {
    this.stage = undefined
    this.open = true
    this.h2 = 'alpnProtocol' in socket && socket.alpnProtocol === 'h2'
    this.#known.h2 = this.h2
    this.capacity = this.h2 ? H2_STREAMS : this.#pipelining
    if (this.h2)
      queueMicrotask(() => this.#lane.grew(this)) // once undici has taken the socket
    // Before undici listens: it takes a reset for the end of a body that is told by the end of its connection.
    else socket.once('error', this.#broke)
  }

  #failed(error: Error): void {
    this.#abandoned = false
    if (error === WITHDRAWN) return this.#disperse()
    for (const rider of this.#unheld()) rider.refuse(error)
  }

  /** Not at once: undici must not be given a request while it reports on a connection. */
  #disperse(): void {
    if (this.#held.size === 0) return
    queueMicrotask(() => {
      const riders = this.#unheld()
      this.pending -= riders.length
      for (const rider of riders) rider.again()
    })
  }

  #unheld(): Rider[] {
    const riders = [...this.#held]
    this.#held.clear()
    return riders
  }
}

/** As `net.connect` takes it. */
function hostnameOf({ origin }: Backend): string {
  return new URL(origin).hostname.replace(/^\[(.*)\]$/, '$1')
}

/** A connection opened as for a request, and closed again. */
export function reach(backend: Backend, signal: AbortSignal, settings: Settings): Promise<void> {
  const { protocol, host, port } = new URL(backend.origin)
  const hostname = hostnameOf(backend)
  return new Promise((resolve, reject) => {
    const connect = connectorOf(settings)
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
