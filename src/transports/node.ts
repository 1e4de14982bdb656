import { once } from 'node:events'
import http, { type Agent, type ClientRequest } from 'node:http'
import https from 'node:https'
import net, { type Socket } from 'node:net'
import tls, { type ConnectionOptions } from 'node:tls'
import type { Backend, ConnectionStats, SendFailure, Transport } from '../core/contracts.ts'
import { settled } from './connection-settings.ts'
import { Exchange, type Line } from './node-exchange.ts'

export interface HttpTransportOptions {
  /** Most connections per backend; default 256. */
  readonly connections?: number
  /** Idle connections are closed after this, ms, or a second before the backend's own Keep-Alive limit; default 4 000. */
  readonly keepAliveMs?: number
  /** Most of an answer's head, bytes; default 16 384. */
  readonly maxHeaderBytes?: number
  /** What `tls.connect` takes. */
  readonly tls?: Readonly<Record<string, unknown>>
  /** Path of the unix socket behind a backend's URL; undefined: the URL's host and port. */
  readonly socketPath?: (backend: Backend) => string | undefined
  /** An agent of your own per backend, as for a proxy in between. You destroy it; `connections` and the rest above are its own. */
  readonly agent?: (backend: Backend) => Agent
}

type Settings = Required<Omit<HttpTransportOptions, 'agent' | 'socketPath'>> &
  Pick<HttpTransportOptions, 'agent' | 'socketPath'>

/**
 * Carries attempts by node:http and node:https: for trailers of requests, agents of other packages, unix sockets, and whatever
 * patches or watches these modules. HTTP/1.1 only. Each backend has an agent of its own; who waits for a connection waits in its
 * queue, from where a request can be withdrawn.
 */
export function httpTransport(options: HttpTransportOptions = {}): Transport {
  const settings: Settings = settled(options)
  const lines = new Map<Backend, OwnLine>()
  /** They end with what they carry: nothing new joins them. */
  const leaving = new Set<OwnLine>()
  const lineOf = (backend: Backend): OwnLine => {
    const known = lines.get(backend)
    if (known !== undefined) return known
    const line = new OwnLine(backend, settings)
    if (!backend.removed) lines.set(backend, line)
    return line
  }
  const finish = async (line: OwnLine): Promise<void> => {
    leaving.add(line)
    await line.finish()
    leaving.delete(line)
  }
  return {
    name: 'http',
    send: (attempt) =>
      new Promise((resolve, reject) => {
        const line = lineOf(attempt.backend)
        try {
          new Exchange(attempt, line, resolve, reject)
        } catch (cause) {
          // node:http throws at what it would not write: the request's fault, and nothing was sent.
          reject({ phase: 'wait', processed: 'no', reused: false, code: 'REQUEST_BODY', cause } satisfies SendFailure)
        }
        // Removed between its pick and now: nobody will forget this line, so it ends with what it carries.
        if (!lines.has(attempt.backend)) void finish(line)
      }),
    async forget(backend) {
      const line = lines.get(backend)
      if (line === undefined) return
      lines.delete(backend)
      await finish(line)
    },
    // What an agent of the user's connects, and how, nobody here knows.
    ...(options.agent === undefined && {
      connections: (backend: Backend) => lines.get(backend)?.connections ?? { open: 0, idle: 0 },
      reach: (backend: Backend, signal: AbortSignal) => reach(backend, signal, settings),
    }),
    async close() {
      for (const line of [...lines.values(), ...leaving]) line.close()
      lines.clear()
    },
  }
}

/** What belongs to one backend: its connections, and the exchanges under way on them. */
class OwnLine implements Line {
  readonly live: Set<Exchange> = new Set()
  readonly used: WeakSet<Socket> = new WeakSet()
  readonly host: string
  readonly agent: Agent
  readonly maxHeaderBytes: number
  readonly keepAliveMs: number
  readonly request: (options: http.RequestOptions) => ClientRequest
  readonly #isOwn: boolean
  #whenIdle: (() => void) | undefined

  constructor(backend: Backend, settings: Settings) {
    const { connections, keepAliveMs, maxHeaderBytes, agent } = settings
    const { origin } = backend
    const module = origin.startsWith('https:') ? https : http
    const to = addressOf(backend, settings)
    this.host = new URL(origin).host
    this.maxHeaderBytes = maxHeaderBytes
    this.keepAliveMs = keepAliveMs
    this.#isOwn = agent === undefined
    this.agent =
      agent?.(backend) ??
      new module.Agent({ keepAlive: true, maxSockets: connections, maxFreeSockets: connections, timeout: keepAliveMs })
    this.request = (options) => module.request({ ...to, ...options })
  }

  get connections(): ConnectionStats {
    const free = socketsOf(this.agent.freeSockets).filter(({ destroyed }) => !destroyed).length
    const busy = socketsOf(this.agent.sockets).filter((socket) => this.used.has(socket)).length
    const tunnels = [...this.live].filter(({ isTunnel }) => isTunnel).length
    return { open: free + busy + tunnels, idle: free }
  }

  /** For a request that must not go out on a connection as old as the one that died: without idle ones a new one is opened. */
  refresh(): void {
    if (this.#isOwn) for (const idle of socketsOf(this.agent.freeSockets)) idle.destroy()
  }

  /** An agent keeps what was destroyed, body and all, until its turn comes. */
  withdraw(request: ClientRequest): void {
    if (!this.#isOwn) return
    const queues = this.agent.requests as Record<string, ClientRequest[]>
    for (const [name, waiting] of Object.entries(queues)) {
      const place = waiting.indexOf(request)
      if (place < 0) continue
      waiting.splice(place, 1)
      if (waiting.length === 0) delete queues[name] // as the agent does: it takes the first of any queue it has
      request.emit('close') // as it would have then, for whoever watches
    }
  }

  ended(exchange: Exchange): void {
    this.live.delete(exchange)
    if (this.live.size === 0) this.#whenIdle?.()
  }

  /** Resolves when what is under way is over and the connections are closed. */
  async finish(): Promise<void> {
    if (this.live.size > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve))
    if (this.#isOwn) this.agent.destroy()
  }

  close(): void {
    for (const exchange of this.live) exchange.break(new Error('the transport was closed'))
    if (this.#isOwn) this.agent.destroy()
  }
}

function socketsOf(sockets: Agent['sockets'] | Agent['freeSockets']): readonly Socket[] {
  return Object.values(sockets).flatMap((some) => some ?? [])
}

/** Where a backend listens, and whose certificate counts there: never that of the Host a client wrote. */
function addressOf(backend: Backend, { tls, socketPath }: Settings): ConnectionOptions & http.RequestOptions {
  const { hostname, port, protocol } = new URL(backend.origin)
  const host = hostname.replace(/^\[(.*)\]$/, '$1') // an IPv6 address, as net.connect takes it
  const path = socketPath?.(backend)
  return {
    ...(protocol === 'https:' && { servername: net.isIP(host) > 0 ? '' : host, ...tls }),
    host,
    port: port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port),
    ...(path !== undefined && { socketPath: path }),
  }
}

/** A connection opened as for a request, and closed again. */
async function reach(backend: Backend, signal: AbortSignal, settings: Settings): Promise<void> {
  const { socketPath, ...to } = addressOf(backend, settings)
  const target = { ...to, ...(socketPath != null && { path: socketPath }) } as net.TcpNetConnectOpts
  const isSecure = backend.origin.startsWith('https:')
  const socket = isSecure ? tls.connect(target) : net.connect(target)
  try {
    await once(socket, isSecure ? 'secureConnect' : 'connect', { signal })
  } finally {
    socket.on('error', () => {})
    socket.destroy()
  }
}
