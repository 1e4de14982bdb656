import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { systemClock } from '../core/clock.ts'
import type { Clock } from '../core/contracts.ts'
import { type Ending, LATENCY_HEADER, Load, PROBE_HEADER, PROBE_PATH, RIF_HEADER } from '../core/load.ts'
import { OrcaMeter } from './orca-meter.ts'

export interface LoadReportOptions {
  /**
   * Where whoever asks is answered, whatever the query; default '/lb-probe'. Probes of `prequal` are told by their header, and
   * answered behind any prefix of it.
   */
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

const ORCA_HEADER = 'endpoint-load-metrics'

/**
 * The server half of `prequal` (NSDI '24). Counts requests in flight, each until its last byte or the end of its connection, and
 * remembers how long they took until their head: a stream lasts as long as its reader likes. Every answer gets `x-lb-rif`, the
 * others in flight, and `x-lb-lat-ms`, the median of what recent requests took at about that many, ms; left out when none was
 * answered within the last second. Failures (5xx, 429) count as at least 1 s. GET and HEAD of `path` are answered with a 204 and the
 * same, at once. Neither they nor other probes of `prequal` are counted. No timers.
 */
export function loadReport({
  path = PROBE_PATH,
  orca = false,
  clock = systemClock,
}: LoadReportOptions = {}): LoadReport {
  const load = new Load()
  const meter = orca ? new OrcaMeter(clock.now()) : undefined
  const sockets = new WeakMap<Socket, Set<() => void>>()
  const known = new WeakSet<ServerResponse>()
  /** Nobody else's: those of a server behind this one must not be passed on as its own. */
  const own = new Set([RIF_HEADER, LATENCY_HEADER, ...(orca ? [ORCA_HEADER, `${ORCA_HEADER}-bin`] : [])])

  const write = (response: ServerResponse, counted: number): void => {
    if (response.headersSent) return
    for (const name of own) response.removeHeader(name)
    const { rif, latencyMs } = load.report(clock.now(), counted)
    response.setHeader(RIF_HEADER, String(rif))
    if (latencyMs !== undefined) response.setHeader(LATENCY_HEADER, latencyMs.toFixed(2))
    const metrics = meter?.read(clock.now())
    if (metrics !== undefined) response.setHeader(ORCA_HEADER, metrics)
  }

  const count = (request: IncomingMessage, response: ServerResponse): void => {
    if (request.socket.destroyed) return // it closed while something before this waited: nothing would tell its end
    const startMs = clock.now()
    const met = load.begin()
    let isOver = false
    let hasHead = false
    const end = (): void => {
      if (isOver) return
      isOver = true
      left()
      const nowMs = clock.now()
      const ending = endingOf(response)
      if (hasHead) load.leave()
      else load.end(met, nowMs - startMs, nowMs, ending)
      meter?.count(ending)
    }
    const left = onClose(request.socket, end, sockets)
    response.once('close', end)
    atHead(response, own, {
      before: () => write(response, isOver ? 0 : 1),
      after() {
        if (isOver) return
        hasHead = true
        const nowMs = clock.now()
        load.learn(met, nowMs - startMs, nowMs, isFailure(response) ? 'failed' : 'served')
      },
    })
  }

  /** False if it was a probe, and is answered. */
  const begin = (request: IncomingMessage, response: ServerResponse): boolean => {
    if (isAsking(request, path)) {
      write(response, 0)
      response.writeHead(204, { 'cache-control': 'no-store' }).end()
      return false
    }
    if (known.has(response)) return true // attached twice
    known.add(response)
    if (isProbe(request)) atHead(response, own, { before: () => write(response, 0) })
    else count(request, response)
    return true
  }

  const plugin: LoadReport['plugin'] = (app, _, done) => {
    app.addHook('onRequest', (request, reply, next) => {
      if (isAsking(request.raw, path)) reply.hijack()
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

/** A probe of `prequal`, wherever it goes. */
function isProbe({ method, headers }: IncomingMessage): boolean {
  return (method === 'GET' || method === 'HEAD') && headers[PROBE_HEADER] !== undefined
}

/** Somebody wants to know the load. A probe comes with the base path of its backend in front. */
function isAsking(request: IncomingMessage, path: string): boolean {
  const { method, url = '' } = request
  if (method !== 'GET' && method !== 'HEAD') return false
  const [asked = ''] = url.split('?', 1)
  return asked === path || (isProbe(request) && asked.endsWith(path))
}

function endingOf(response: ServerResponse): Ending {
  if (!response.writableFinished) return 'aborted'
  return isFailure(response) ? 'failed' : 'served'
}

function isFailure({ statusCode }: ServerResponse): boolean {
  return statusCode >= 500 || statusCode === 429
}

/** Around the writing of the head, whoever writes it: Node calls the same method when nobody did. Headers of `own` are not passed. */
function atHead(
  response: ServerResponse,
  own: ReadonlySet<string>,
  { before, after }: { before(): void; after?(): void },
): void {
  const writeHead = response.writeHead
  response.writeHead = ((...args: unknown[]) => {
    response.writeHead = writeHead
    before()
    const given = args.map((it) => withoutOwn(it, own)) as Parameters<typeof writeHead>
    writeHead.apply(response, given)
    after?.()
    return response
  }) as typeof writeHead
}

/** Headers as `writeHead` takes them: by name, or names and values by turns. Whatever else it takes stays. */
function withoutOwn(given: unknown, own: ReadonlySet<string>): unknown {
  const isOwn = (name: unknown): boolean => own.has(String(name).toLowerCase())
  if (Array.isArray(given)) return given.filter((_, at) => !isOwn(given[at - (at % 2)]))
  if (typeof given !== 'object' || given === null) return given
  return Object.fromEntries(Object.entries(given).filter(([name]) => !isOwn(name)))
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
