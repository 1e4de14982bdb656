import { randomInt } from 'node:crypto'
import dgram from 'node:dgram'
import { once } from 'node:events'
import net from 'node:net'
import { createSecureContext, type SecureContext, type TlsOptions } from 'node:tls'
import type { Random } from '../core/contracts.ts'
import type { Fault } from './fault.ts'
import { FaultConnection } from './fault-connection.ts'
import { seededRandom } from './seeded-random.ts'

export interface FaultServerOptions {
  /** Key, certificate and whatever else `tls.createServer` takes, for a server that speaks TLS; default: plaintext. */
  readonly tls?: TlsOptions
  /** Decides whom a fault with a `share` strikes; default `seededRandom(1)`. */
  readonly random?: Random
  /** Header that tells requests apart in `seen`, lower case; default 'x-request-id'. */
  readonly idHeader?: string
}

/** An HTTP/1.1 server on 127.0.0.1 that can be made to fail in every way a backend does, at any time. */
export interface FaultServer {
  /** `http:` or `https:`, without a trailing slash. */
  readonly url: string
  /** Its own for as long as it is not closed, also while nobody listens. */
  readonly port: number
  /**
   * From now on requests meet this fault; nothing or `{}` for good health. Answers that have begun, and connections that stall,
   * go on as they were. It is in force on return; resolves once the server listens, or everything is closed, as it should, and
   * rejects if it cannot.
   */
  play(fault?: Fault): Promise<void>
  /** Requests of which it got the head, answered or not. */
  readonly requests: number
  /** How often it got each request, by the value of its id header. More than once is a second send. */
  readonly seen: ReadonlyMap<string, number>
  /** Connections accepted so far. */
  readonly accepted: number
  /** Of them, those not yet closed. */
  readonly open: number
  /** Breaks every connection and gives back the port. */
  close(): Promise<void>
}

/** Below what systems hand out by themselves (Linux from 32 768, others from 49 152), so that nobody is given one by chance. */
const PORTS = [10_000, 16_000] as const

const HOST = '127.0.0.1'

/** Steps in which a share is drawn. */
const SHARES = 1_000_000

/** Starts a server in good health: it answers 200 with 16 bytes, and keeps connections alive. */
export async function faultServer(options: FaultServerOptions = {}): Promise<FaultServer> {
  for (;;) {
    const server = new Server(options, randomInt(...PORTS))
    try {
      await server.start()
      return server
    } catch (error) {
      await server.close()
      if (!isTaken(error)) throw error
    }
  }
}

function isTaken(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EADDRINUSE' || error.code === 'EACCES')
}

class Server implements FaultServer {
  readonly url: string
  readonly port: number
  readonly seen: Map<string, number> = new Map()
  requests = 0
  accepted = 0
  readonly #options: FaultServerOptions
  readonly #random: Random
  /** On the same port as TCP: while nobody listens there, no other fault server of any process takes it. */
  readonly #lock: dgram.Socket = dgram.createSocket('udp4').unref()
  /** Those open, each with its end. */
  readonly #connections = new Map<FaultConnection, Promise<void>>()
  readonly #contexts = new WeakMap<TlsOptions, SecureContext>()
  #listener: net.Server | undefined
  /** It listens, or has hung up. */
  #settled: Promise<unknown> = Promise.resolve()
  #fault: Fault = {}
  /** False in the good times of a fault that flaps. */
  #inForce = true
  #flapping: NodeJS.Timeout | undefined
  #closing: Promise<void> | undefined

  constructor(options: FaultServerOptions, port: number) {
    this.#options = options
    this.#random = options.random ?? seededRandom(1)
    this.port = port
    this.url = `${options.tls === undefined ? 'http' : 'https'}://${HOST}:${port}`
  }

  get open(): number {
    return this.#connections.size
  }

  async start(): Promise<void> {
    await once(this.#lock.bind({ port: this.port, address: HOST, exclusive: true }), 'listening')
    await this.play()
  }

  async play(fault: Fault = {}): Promise<void> {
    if (this.#closing !== undefined) throw new Error(`the fault server on port ${this.port} is closed`)
    this.#secure(fault) // what is wrong with a certificate is told here, not to a connection
    clearTimeout(this.#flapping)
    this.#fault = fault
    this.#turn(true)
    await this.#settled
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  #turn(inForce: boolean): void {
    this.#inForce = inForce
    const { flap } = this.#fault
    if (flap !== undefined) {
      this.#flapping = setTimeout(() => this.#turn(!inForce), inForce ? flap.downMs : flap.upMs).unref()
    }
    if (this.#listener === undefined) this.#settled = this.#wanted ? this.#listen() : this.#hangUp()
    else if (this.#listener.listening && !this.#wanted) this.#settled = this.#hangUp()
    this.#settled.catch(() => {}) // told to who plays; a turn of a flapping one has nobody to tell
  }

  get #wanted(): boolean {
    return this.#closing === undefined && !(this.#inForce && this.#fault.refuse)
  }

  async #listen(): Promise<void> {
    const listener = net.createServer((socket) => this.#accept(socket)).on('error', () => {}) // accept has some, too
    this.#listener = listener
    try {
      await once(listener.listen(this.port, HOST), 'listening')
    } catch (error) {
      this.#listener = undefined // the next turn tries again
      throw error
    }
    if (!this.#wanted) await this.#hangUp() // it can be closed only now
  }

  /** Nobody listens any more on return; resolves when everything is closed. */
  async #hangUp(): Promise<void> {
    this.#listener?.close()
    this.#listener = undefined
    const closed = [...this.#connections.values()]
    for (const connection of this.#connections.keys()) connection.destroy()
    await Promise.all(closed)
  }

  #accept(socket: net.Socket): void {
    this.accepted++
    const connection = new FaultConnection(socket, {
      fault: () => this.#draw(),
      secure: (fault) => this.#secure(fault),
      requested: (id) => this.#count(id),
      idHeader: this.#options.idHeader ?? 'x-request-id',
    })
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    this.#connections.set(
      connection,
      closed.then(() => void this.#connections.delete(connection)),
    )
  }

  #draw(): Fault {
    const { share = 1 } = this.#fault
    const struck = this.#inForce && (share >= 1 || this.#random(SHARES) < share * SHARES)
    return struck ? this.#fault : {}
  }

  #secure({ tls = this.#options.tls ?? false }: Fault): [TlsOptions, SecureContext] | undefined {
    if (tls === false) return undefined
    const context = this.#contexts.get(tls) ?? createSecureContext(tls)
    this.#contexts.set(tls, context)
    return [tls, context]
  }

  #count(id: string | undefined): void {
    this.requests++
    if (id !== undefined) this.seen.set(id, (this.seen.get(id) ?? 0) + 1)
  }

  async #close(): Promise<void> {
    clearTimeout(this.#flapping)
    await this.#settled.catch(() => {}) // a listener that is just starting cannot be closed
    await this.#hangUp()
    await once(this.#lock.close(), 'close')
  }
}
