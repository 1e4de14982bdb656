import type { IncomingMessage } from 'node:http'
import { systemClock } from '../core/clock.ts'
import { Deadlines } from '../core/deadlines.ts'
import { Handshake } from './handshake.ts'
import type { LetGo } from './let-go.ts'
import type { ProxyOptions } from './proxy-options.ts'
import { Tunnel, type TunnelTimes } from './tunnel.ts'

const WEBSOCKET = 'websocket'
const MOST_TUNNELS = 10_000
/** As is usual for HAProxy's `timeout tunnel`. */
const IDLE_MS = 3_600_000
/** A closing handshake takes one way there and back; who is not done then is cut, well before a deployment's 30 s are over. */
const GRACE_MS = 5_000

type TunnelOptions = Pick<ProxyOptions, 'upgrades' | 'tunnelIdleMs' | 'tunnelGraceMs' | 'limits'>

/** The tunnels of one proxy. */
export class Tunnels {
  readonly #protocols: readonly string[]
  readonly #times: TunnelTimes
  readonly #most: number
  readonly #deadlines: Deadlines = new Deadlines(systemClock)
  readonly #running = new Set<Tunnel>()
  #open = 0

  constructor({ upgrades = [WEBSOCKET], tunnelIdleMs, tunnelGraceMs, limits }: TunnelOptions) {
    this.#protocols = upgrades.map((protocol) => protocol.toLowerCase())
    this.#times = { idleMs: tunnelIdleMs ?? IDLE_MS, graceMs: tunnelGraceMs ?? GRACE_MS }
    this.#most = limits?.tunnels ?? MOST_TUNNELS
  }

  /** Whether there is a protocol that requests may change to. */
  get isUsed(): boolean {
    return this.#protocols.length > 0
  }

  get isFull(): boolean {
    return this.#open >= this.#most
  }

  /** Of those asked for, the first that is served. HTTP/1.0 knows none, and a WebSocket begins with a GET (RFC 6455 4.1). */
  protocolOf({ headers, httpVersion, method }: IncomingMessage): string | undefined {
    if (httpVersion !== '1.1') return undefined
    const asked = headers.upgrade?.split(',').map((protocol) => protocol.trim().toLowerCase()) ?? []
    const protocol = asked.find((one) => this.#protocols.includes(one))
    return protocol === WEBSOCKET && method !== 'GET' ? undefined : protocol
  }

  /** Asks each to come to an end. */
  drain(): void {
    for (const tunnel of this.#running) tunnel.drain()
  }

  /** Counts from now until the client's connection is closed, whatever becomes of it. */
  handshake(protocol: string, letGo: LetGo): Handshake {
    const { socket } = letGo
    this.#open++
    socket.once('close', () => this.#open--)
    return new Handshake(protocol, letGo, (backend, early) => {
      const isFramed = protocol === WEBSOCKET
      const tunnel = new Tunnel(socket, backend, early, isFramed, this.#times, systemClock, this.#deadlines)
      this.#running.add(tunnel)
      socket.once('close', () => this.#running.delete(tunnel))
      return tunnel
    })
  }
}
