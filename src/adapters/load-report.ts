import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { systemClock } from '../core/clock.ts'
import type { Clock } from '../core/contracts.ts'
import { type Ending, LATENCY_HEADER, Load, PROBE_PATH, RIF_HEADER } from '../core/load.ts'
import { OrcaMeter } from './orca-meter.ts'

export interface LoadReportOptions {
  /** Where probes are answered, whatever their query; default '/lb-probe'. */
  readonly path?: string
  /**
   * Also write `endpoint-load-metrics` (ORCA, as text) for the strategy `orca` and other balancers: `cpu_utilization`, the CPU time of
   * this process by the time that passed (1 = one core, all that JavaScript has), `rps_fractional` and `eps`, requests and
   * failures per second, each of the last second or more; default false.
   */
  readonly orca?: boolean
  /** Time, for tests. */
  readonly clock?: Clock
}

type Listener = (request: IncomingMessage, response: ServerResponse) => void

/** What Fastify hands to a plugin, as far as it is used here. */
interface FastifyLike {
  addHook(
    name: 'onRequest',
    hook: (
      request: { readonly raw: IncomingMessage },
      reply: { readonly raw: ServerResponse; hijack(): unknown },
      done: () => void,
    ) => void,
  ): unknown
}

/** The load of one server process, however it is attached: in one of three ways, once. */
export interface LoadReport {
  /** For `node:http`: `createServer(report.listener(handler))`. */
  listener(handler: Listener): Listener
  /** For Express and Connect: `app.use(report.middleware)`, before everything else. */
  readonly middleware: (request: IncomingMessage, response: ServerResponse, next: () => void) => void
  /** For Fastify: `app.register(report.plugin)`, before the routes. */
  readonly plugin: (app: FastifyLike, options: unknown, done: () => void) => void
  /** Requests in flight now (RIF). */
  readonly inflight: number
}

/**
 * The server half of `prequal` (NSDI '24). Counts requests in flight, each until its last byte or the end of its connection, and
 * remembers how long they took. Every answer gets `x-lb-rif`, the others in flight, and `x-lb-lat-ms`, the median of what recent
 * requests took at about that many, ms; left out when none has ended within the last second. Failures (5xx, 429) count as at least
 * 1 s. GET and HEAD of `path` are answered with a 204 and the same, at once, and are not counted. Streams count as long as they
 * last. No timers.
 */
export function loadReport({
  path = PROBE_PATH,
  orca = false,
  clock = systemClock,
}: LoadReportOptions = {}): LoadReport {
  const load = new Load()
  const meter = orca ? new OrcaMeter(clock.now()) : undefined
  const sockets = new WeakMap<Socket, Set<() => void>>()

  const write = (response: ServerResponse, own: number): void => {
    if (response.headersSent) return
    const { rif, latencyMs } = load.report(clock.now(), own)
    response.setHeader(RIF_HEADER, String(rif))
    if (latencyMs !== undefined) response.setHeader(LATENCY_HEADER, latencyMs.toFixed(2))
    const metrics = meter?.read(clock.now())
    if (metrics !== undefined) response.setHeader('endpoint-load-metrics', metrics)
  }

  const count = (request: IncomingMessage, response: ServerResponse): void => {
    if (request.socket.destroyed) return // it closed while something before this waited: nothing would tell its end
    const startMs = clock.now()
    const met = load.begin()
    let isOver = false
    const end = (): void => {
      if (isOver) return
      isOver = true
      left()
      const nowMs = clock.now()
      const ending = endingOf(response)
      load.end(met, nowMs - startMs, nowMs, ending)
      meter?.count(ending)
    }
    const left = onClose(request.socket, end, sockets)
    response.once('close', end)
    atHead(response, () => write(response, isOver ? 0 : 1))
  }

  /** False if it was a probe, and is answered. */
  const begin = (request: IncomingMessage, response: ServerResponse): boolean => {
    if (!isProbe(request, path)) {
      count(request, response)
      return true
    }
    write(response, 0)
    response.writeHead(204, { 'cache-control': 'no-store' }).end()
    return false
  }

  const plugin: LoadReport['plugin'] = (app, _, done) => {
    app.addHook('onRequest', (request, reply, next) => {
      if (isProbe(request.raw, path)) reply.hijack()
      if (begin(request.raw, reply.raw)) next()
    })
    done()
  }
  return {
    listener: (handler) => (request, response) => {
      if (begin(request, response)) handler(request, response)
    },
    middleware(request, response, next) {
      if (begin(request, response)) next()
    },
    // As fastify-plugin does it: the hook is for the routes of whoever registers it.
    plugin: Object.assign(plugin, { [Symbol.for('skip-override')]: true }),
    get inflight() {
      return load.inflight
    },
  }
}

function isProbe({ method, url = '' }: IncomingMessage, path: string): boolean {
  if (method !== 'GET' && method !== 'HEAD') return false
  return url === path || url.startsWith(`${path}?`)
}

function endingOf({ writableFinished, statusCode }: ServerResponse): Ending {
  if (!writableFinished) return 'aborted'
  return statusCode >= 500 || statusCode === 429 ? 'failed' : 'served'
}

/** Before the head is written, whoever writes it: Node calls the same method when nobody did. */
function atHead(response: ServerResponse, run: () => void): void {
  const writeHead = response.writeHead
  response.writeHead = ((...args: Parameters<typeof writeHead>) => {
    response.writeHead = writeHead
    run()
    return writeHead.apply(response, args)
  }) as typeof writeHead
}

/**
 * Not every Node tells a response that waits behind another one on its connection (pipelining) that this was closed. One listener
 * a connection, since it may have many.
 */
function onClose(socket: Socket, run: () => void, sockets: WeakMap<Socket, Set<() => void>>): () => void {
  let waiting = sockets.get(socket)
  if (waiting === undefined) {
    const all = new Set<() => void>()
    waiting = all
    sockets.set(socket, all)
    socket.once('close', () => {
      for (const end of all) end()
    })
  }
  waiting.add(run)
  return () => waiting.delete(run)
}
