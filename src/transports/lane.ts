import type { ConnectionStats } from '../core/contracts.ts'

/** A connection, as a lane sees it. */
export interface LaneConnection {
  /** Requests on it, those not yet written included. */
  active: number
  /** Requests it takes at once. */
  readonly capacity: number
  /** It has carried a request before. */
  readonly used: boolean
  readonly closed: boolean
  /** Kept by the lane: it is among the free ones. */
  listed: boolean
  /** Its socket is connected. */
  readonly open: boolean
  close(): Promise<void>
}

/** A socket that no longer speaks HTTP. */
export interface Tunnel {
  once(event: 'close', listener: () => void): unknown
  destroy(): unknown
}

/** A request, as a lane sees it. */
export interface LaneRequest<Connection> {
  /** It must not go out on a connection that was used before. */
  readonly fresh: boolean
  start(connection: Connection): void
  /** It will never be started. */
  refuse(cause: Error): void
}

/**
 * The connections to one backend and the requests that wait for one, first come first served. A waiting request can be
 * withdrawn at any time, which no connection pool of a client library offers.
 */
export class Lane<Connection extends LaneConnection> {
  readonly #most: number
  readonly #connect: () => Connection
  readonly #all = new Set<Connection>()
  /** Connections with room, the most recently used last: the others may go idle and close. */
  readonly #free: Connection[] = []
  readonly #waiting = new Set<LaneRequest<Connection>>()
  /** Sockets that left their connection for another protocol: still to this backend, without a place here. */
  readonly #handedOver = new Set<Tunnel>()
  #finished: (() => void) | undefined

  /** `connect` makes a connection that opens itself when it is first used. */
  constructor(most: number, connect: () => Connection) {
    this.#most = most
    this.#connect = connect
  }

  add(request: LaneRequest<Connection>): void {
    const connection = this.#connectionFor(request)
    if (connection === undefined) this.#waiting.add(request)
    else this.#start(connection, request)
  }

  withdraw(request: LaneRequest<Connection>): void {
    this.#waiting.delete(request)
  }

  /** A request is over: its place goes to those that have waited longest. */
  release(connection: Connection, healthy: boolean): void {
    connection.active--
    this.#list(connection, healthy)
    this.#serve()
    if (this.#finished !== undefined) this.#finishIfIdle()
  }

  /** Starts who waits, as far as there is room. */
  #serve(): void {
    for (const next of this.#waiting) {
      const connection = this.#connectionFor(next)
      if (connection === undefined) return
      this.#waiting.delete(next)
      this.#start(connection, next)
    }
  }

  /** A connection turned out to take more requests at a time than was known. */
  grew(connection: Connection): void {
    this.#list(connection, true)
    this.#serve()
  }

  /** The socket of an idle connection closed: the next request opens a new one. */
  dropped(connection: Connection): void {
    if (connection.active === 0) this.#remove(connection)
  }

  /** A connection's socket now carries another protocol, until it closes. */
  handOver(socket: Tunnel): void {
    this.#handedOver.add(socket)
    socket.once('close', () => {
      this.#handedOver.delete(socket)
      if (this.#finished !== undefined) this.#finishIfIdle()
    })
  }

  get connections(): ConnectionStats {
    const open = [...this.#all].filter((connection) => connection.open)
    const idle = open.filter(({ active }) => active === 0)
    return { open: open.length + this.#handedOver.size, idle: idle.length }
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
    for (const request of this.#waiting) request.refuse(new Error('the transport was closed'))
    this.#waiting.clear()
    this.#free.length = 0
    for (const socket of this.#handedOver) socket.destroy()
    await Promise.all([...this.#all].map((connection) => connection.close()))
    this.#all.clear()
  }

  #connectionFor({ fresh }: LaneRequest<Connection>): Connection | undefined {
    if (!fresh) {
      const free = this.#free.at(-1)
      if (free !== undefined) return free
    } else {
      // Its last connection died of old age: an idle one may be as old, so it makes room for a new one.
      const idle = this.#free.find((connection) => connection.active === 0)
      if (idle?.used) {
        this.#remove(idle)
        void idle.close()
      }
    }
    if (this.#all.size >= this.#most) return this.#free.at(-1)
    const connection = this.#connect()
    this.#all.add(connection)
    this.#list(connection, true)
    return connection
  }

  #start(connection: Connection, request: LaneRequest<Connection>): void {
    connection.active++
    if (connection.active >= connection.capacity) this.#unlist(connection)
    request.start(connection)
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
    if (this.#waiting.size > 0 || this.#handedOver.size > 0) return
    for (const connection of this.#all) if (connection.active > 0) return
    this.#finished?.()
  }
}
