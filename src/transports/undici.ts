import type { Backend, BalancerResponse, ConnectionStats, Transport } from '../core/contracts.ts'
import { settled } from './connection-settings.ts'
import { Lane } from './lane.ts'
import { Connection, type Known, reach, type Settings, type UndiciTransportOptions } from './undici-connection.ts'
import { Exchange } from './undici-exchange.ts'

export type { UndiciTransportOptions } from './undici-connection.ts'

/**
 * The default transport. undici never queues for us: a request that waits in undici cannot be withdrawn, so each backend has
 * a FIFO of its own in front of its connections, and every connection is an undici `Client` we know the state of.
 */
export function undici(options: UndiciTransportOptions = {}): Transport {
  const settings: Settings = { dispatcher: undefined, ...settled(options) }
  const { maxHeaderBytes } = settings
  const own = settings.dispatcher === undefined
  const lanes = new Lanes(settings)
  // A socket that changes its protocol must be one's own: over HTTP/2 it would be a stream among others.
  const upgrades = settings.allowH2 && own ? new Lanes({ ...settings, allowH2: false }) : lanes
  const all = upgrades === lanes ? [lanes] : [lanes, upgrades]
  return {
    name: 'undici',
    send(attempt) {
      const { backend, request } = attempt
      const some = request.upgrade === undefined ? lanes : upgrades
      const lane = some.of(backend)
      const answer = new Promise<BalancerResponse>((resolve, reject) => {
        lane.add(new Exchange(attempt, lane, maxHeaderBytes, resolve, reject))
      })
      // Removed between its pick and now: nobody will forget this lane, so it ends with what it carries.
      if (backend.removed && !some.has(backend)) void some.finish(lane)
      return answer
    },
    async forget(backend) {
      await Promise.all(all.map((some) => some.forget(backend)))
    },
    // Over a dispatcher of the user's nobody knows how to connect, nor what is connected.
    ...(own && {
      connections: (backend: Backend) => all.map((some) => some.connections(backend)).reduce(sum),
      reach: (backend: Backend, signal: AbortSignal) => reach(backend, signal, settings),
    }),
    async close() {
      await Promise.all(all.map((some) => some.close()))
    },
  }
}

/** A lane for each backend. */
class Lanes {
  readonly #settings: Settings
  readonly #most: number
  readonly #lanes = new Map<Backend, Lane<Connection>>()
  /** They end with what they carry: nothing new joins them, not even if their backend comes back. */
  readonly #leaving = new Set<Lane<Connection>>()

  constructor(settings: Settings) {
    this.#settings = settings
    this.#most = settings.dispatcher === undefined ? settings.connections : 1
  }

  has(backend: Backend): boolean {
    return this.#lanes.has(backend)
  }

  of(backend: Backend): Lane<Connection> {
    const there = this.#lanes.get(backend)
    if (there !== undefined) return there
    const { allowH2, dispatcher } = this.#settings
    const mayBeH2 = allowH2 && dispatcher === undefined && backend.origin.startsWith('https:')
    const known: Known = { h2: mayBeH2 ? undefined : false }
    const lane: Lane<Connection> = new Lane(this.#most, () => new Connection(this.#settings, backend, lane, known))
    if (!backend.removed) this.#lanes.set(backend, lane)
    return lane
  }

  connections(backend: Backend): ConnectionStats {
    return this.#lanes.get(backend)?.connections ?? { open: 0, idle: 0 }
  }

  async forget(backend: Backend): Promise<void> {
    const lane = this.#lanes.get(backend)
    if (lane === undefined) return
    this.#lanes.delete(backend)
    await this.finish(lane)
  }

  async finish(lane: Lane<Connection>): Promise<void> {
    this.#leaving.add(lane)
    await lane.finish()
    this.#leaving.delete(lane)
  }

  async close(): Promise<void> {
    const all = [...this.#lanes.values(), ...this.#leaving]
    this.#lanes.clear()
    await Promise.all(all.map((lane) => lane.destroy()))
  }
}

function sum(a: ConnectionStats, b: ConnectionStats): ConnectionStats {
  return { open: a.open + b.open, idle: a.idle + b.idle }
}
