import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { CALL } from '../core/call.ts'
import type { Call } from '../core/contracts.ts'
import type { Answered } from './exchange.ts'
import type { LetGo } from './let-go.ts'
import { NOTHING } from './relay.ts'
import type { Tunnel } from './tunnel.ts'

/** Silence after which the system asks whether the other end is still there, ms; undici does so on its sockets. */
const KEEP_ALIVE_MS = 60_000

/** A request for another protocol, from its arrival until the backend agrees. */
export class Handshake {
  readonly protocol: string
  readonly #letGo: LetGo
  readonly #tunnel: (backend: Duplex, early: readonly Uint8Array[]) => Tunnel

  constructor(protocol: string, letGo: LetGo, tunnel: (backend: Duplex, early: readonly Uint8Array[]) => Tunnel) {
    this.protocol = protocol
    this.#letGo = letGo
    this.#tunnel = tunnel
  }

  /** The 101 as the client gets it: its connection changes to the same protocol. */
  agreed({ headers, ...answered }: Answered): Answered {
    return { ...answered, headers: [...headers, 'connection', 'Upgrade', 'upgrade', this.protocol], close: false }
  }

  /** The head of the 101 is in the response. */
  start({ socket: backend, body }: Answered): void {
    const { socket: client, response } = this.#letGo
    const { [CALL]: call } = response as { readonly [CALL]?: Call }
    client.setDefaultEncoding('latin1') // flushHeaders says none, and no header is UTF-8
    response.flushHeaders()
    if (client instanceof Socket) client.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_MS)
    body.consume(NOTHING) // of a tunnel, it brings nothing
    const tunnel = this.#tunnel(backend as Duplex, this.#letGo.take())
    const attempt = call?.attempts.findLast(({ status }) => status === 101)
    if (attempt?.draining === true) tunnel.drain()
    else attempt?.watch({ drain: () => tunnel.drain() })
  }
}
