import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { CALL, type CallOptions, type FaceHost, type Sending } from '../core/call.ts'
import type { BalancerResponse, BodyControl, BodySink, RawHeaders, RequestBody } from '../core/contracts.ts'
import { BalancerError, type BalancerErrorCode } from '../core/errors.ts'
import { LATENCY_HEADER, PROBE_HEADER, RIF_HEADER } from '../core/load.ts'
import { ReplayBody } from '../core/replay.ts'
import { checkTarget } from '../core/target.ts'
import { Affinity, type AffinityOptions, type Tie } from './affinity.ts'

export type { AffinityOptions } from './affinity.ts'

export interface ProxyOptions {
  /** Name in `Via`; never a host name by default; default 'evenkeel'. */
  readonly via?: string
  /**
   * Gives each request an id in `X-Request-Id`: the client's, if it is 1 to 128 letters, digits, '.', '_' or '-', else a new one, which
   * is unique but no secret. The answer carries it too. Default true; with false that header is passed on like any other, both ways.
   */
  readonly requestIds?: boolean
  /** Most of a request body kept for a repeat, bytes; default 65 536. */
  readonly bufferBytes?: number
  /** What the balancer should know about a request; default: nothing. */
  readonly call?: (request: IncomingMessage) => CallOptions
  /** Keeps each client on one backend by a cookie, whatever the strategy; default: not. */
  readonly affinity?: AffinityOptions
}

/** A handler for `http.createServer` and for `app.use` in Express. */
export type NodeProxy = (request: IncomingMessage, response: ServerResponse, next?: (error?: unknown) => void) => void

/** Fields of one connection (RFC 9110 7.6.1), never forwarded; and what the transport or this proxy writes itself. */
const HOP_BY_HOP = new Set([
  'connection',
  'expect',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'trailers',
  'transfer-encoding',
  'upgrade',
])
/** What a `Connection` header may not nominate for removal: meant for every recipient, or set by us. */
const KEPT = new Set([
  'authorization',
  'content-length',
  'cookie',
  'forwarded',
  'host',
  'via',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-proto',
  'x-real-ip',
  'x-request-id',
])
/** Set by this proxy or this balancer: a client's own copies are not passed on. */
const OURS = new Set([
  PROBE_HEADER,
  'forwarded',
  'host',
  'via',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-proto',
  'x-real-ip',
])
/** What a backend says of its load is for this balancer; the server that this proxy is part of may have a load of its own to report. */
const LOAD = new Set([RIF_HEADER, LATENCY_HEADER, 'endpoint-load-metrics', 'endpoint-load-metrics-bin'])
const REQUEST_ID = /^[A-Za-z0-9._-]{1,128}$/

const STATUS: Readonly<Record<BalancerErrorCode, readonly [status: number, title: string]>> = {
  CONFIG: [500, 'Internal Server Error'],
  NO_BACKEND: [503, 'Service Unavailable'],
  OVERLOADED: [503, 'Service Unavailable'],
  CLOSED: [503, 'Service Unavailable'],
  TIMEOUT: [504, 'Gateway Timeout'],
  CONNECT: [502, 'Bad Gateway'],
  TLS: [502, 'Bad Gateway'],
  RESET: [502, 'Bad Gateway'],
  PROTOCOL: [502, 'Bad Gateway'],
  TRUNCATED: [502, 'Bad Gateway'],
  BODY_TOO_LARGE: [413, 'Content Too Large'],
}
/** Told with a 503 when nobody knows better, s. */
const RETRY_AFTER_S = 1

/** A streaming reverse proxy in front of a balancer: `http.createServer(createProxy(balancer))`. */
export function createProxy(balancer: Pick<FaceHost, 'send'>, options: ProxyOptions = {}): NodeProxy {
  const via = `1.1 ${options.via ?? 'evenkeel'}`
  const idOf = options.requestIds === false ? () => undefined : requestIds()
  const bufferBytes = options.bufferBytes ?? 65_536
  const affinity = options.affinity === undefined ? undefined : new Affinity(options.affinity)
  return (request, response) => {
    const method = request.method ?? 'GET'
    const path = request.url ?? '/'
    const id = idOf(request)
    const refuse = (error: unknown): void => answerError(error, id, response)
    // About the server as a whole: undici cannot send it, and behind a base path it would be another path.
    if (path === '*' && method === 'OPTIONS') return void response.writeHead(204).end()
    try {
      checkTarget(path, method)
    } catch {
      return answerProblem(400, 'Bad Request', 'PROTOCOL', id, undefined, response)
    }
    const body = bodyOf(request, bufferBytes)
    const address = addressOf(request)
    const outgoing = { method, path, headers: requestHeaders(request, address, id, via, body, affinity), body }
    let sending: Sending
    let tie: Tie | undefined
    try {
      const said = options.call?.(request)
      // Who says it is sent there on its account, not the client's.
      if (said?.prefer === undefined && said?.only === undefined) tie = affinity?.tie(request)
      sending = balancer.send(outgoing, {
        ...said,
        address: said?.address ?? address,
        prefer: said?.prefer ?? tie?.prefer,
      })
    } catch (error) {
      return refuse(error)
    }
    const { call } = sending
    ;(response as { [CALL]?: unknown })[CALL] = call // for balancer.explain(response)
    if (body !== null) {
      call.onEnd(() => (body as ReplayBody).close())
      response.on('finish', () => {
        if (!request.complete) drain(request)
      })
    }
    response.on('close', () => {
      if (!response.writableFinished) call.cancel(new Error('the client closed its connection'))
    })
    sending.response.then((answer) => relay(answer, tie?.setCookie(call, answer), id, via, request, response), refuse)
  }
}

/** Writes the head and lets the body flow: a small answer that is already there goes out in one write. */
function relay(
  answer: BalancerResponse,
  setCookie: string | undefined,
  id: string | undefined,
  via: string,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  if (response.destroyed) return answer.body.consume(new Relay(response)).cancel(new Error('the client is gone'))
  try {
    response.writeHead(answer.status, responseHeaders(answer, setCookie, id, via, request))
  } catch {
    answer.body.discard()
    return answerProblem(502, 'Bad Gateway', 'PROTOCOL', id, undefined, response)
  }
  const sink = new Relay(response)
  sink.start(answer.body.consume(sink))
}

class Relay implements BodySink {
  readonly #response: ServerResponse
  /** The first chunk waits for what comes in the same tick, so that head, body and end leave together. */
  #first: Uint8Array | undefined
  #control: BodyControl | undefined
  #over = false

  constructor(response: ServerResponse) {
    this.#response = response
  }

  start(control: BodyControl): void {
    if (this.#over) return
    this.#control = control
    const first = this.#first
    this.#first = undefined
    if (first === undefined) this.#response.flushHeaders()
    else this.#write(first)
  }

  chunk(data: Uint8Array): boolean {
    if (this.#control !== undefined) return this.#write(data)
    if (this.#first !== undefined) this.#response.write(this.#first)
    this.#first = data
    return true
  }

  end(trailers?: RawHeaders): void {
    this.#over = true
    if (trailers !== undefined) this.#response.addTrailers(trailersOf(trailers))
    if (this.#first === undefined) this.#response.end()
    else this.#response.end(this.#first)
  }

  #write(data: Uint8Array): boolean {
    if (this.#response.write(data)) return true
    this.#response.once('drain', () => this.#control?.resume())
    return false
  }

  /** Cut off is never a clean end: the client's connection is broken too. */
  fail(): void {
    this.#over = true
    const { req, socket } = this.#response
    // To HTTP/1.0 the end of the connection is the end of a body without a length: only a reset says otherwise.
    if (req.httpVersionMinor === 0 && socket !== null && !('encrypted' in socket)) socket.resetAndDestroy()
    this.#response.destroy()
  }
}

function bodyOf(request: IncomingMessage, bufferBytes: number): RequestBody & (ReplayBody | null) {
  const { headers } = request
  const length = headers['content-length']
  if (headers['transfer-encoding'] === undefined && (length === undefined || length === '0')) return null
  const known = length === undefined ? undefined : Number(length)
  // The request outlives the iteration: a client that gets an answer early keeps its connection.
  return new ReplayBody(request.iterator({ destroyOnReturn: false }), known, bufferBytes)
}

/** An answer came before the upload's end. A little of the rest is taken in, so that the connection lives; with more it ends. */
function drain(request: IncomingMessage): void {
  let left = 1_048_576
  request.on('data', (chunk: Buffer) => {
    left -= chunk.length
    if (left < 0) request.socket.destroy()
  })
}

/** The client's, or one at the price of a counter: 72 random bits per proxy make it unique, but who sees one can tell the next. */
function requestIds(): (request: IncomingMessage) => string {
  const prefix = `${randomBytes(9).toString('base64url')}-`
  let count = 0
  return ({ headers }) => {
    const given = headers['x-request-id']
    return typeof given === 'string' && REQUEST_ID.test(given) ? given : prefix + (count++).toString(36)
  }
}

/** Of the client's end of the connection; IPv4 in its own form, whatever the socket calls it. */
function addressOf({ socket }: IncomingMessage): string | undefined {
  const address = socket.remoteAddress
  return address?.startsWith('::ffff:') ? address.slice(7) : address
}

/** Client's connection headers out first, ours in afterwards: never the other way round. */
function requestHeaders(
  request: IncomingMessage,
  address: string | undefined,
  id: string | undefined,
  via: string,
  body: RequestBody,
  affinity: Affinity | undefined,
): string[] {
  const { rawHeaders, headers, socket } = request
  const nominated = nominations(headers.connection)
  const out: string[] = []
  let viaBefore = ''
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    const lower = name.toLowerCase()
    if (lower === 'via') viaBefore += `${rawHeaders[i + 1]!}, `
    if (HOP_BY_HOP.has(lower) || OURS.has(lower) || nominated?.has(lower) === true) continue
    if (lower === 'content-length' && body === null) continue
    if (lower === 'x-request-id' && id !== undefined) continue
    const value = lower === 'cookie' && affinity !== undefined ? affinity.strip(rawHeaders[i + 1]!) : rawHeaders[i + 1]!
    if (value !== undefined) out.push(name, value)
  }
  const { host } = headers
  const te = headers.te as string | undefined // Node joins repeats
  if (te?.split(',').some((member) => member.trim().toLowerCase() === 'trailers')) {
    out.push('te', 'trailers')
  }
  if (address !== undefined) out.push('x-forwarded-for', address)
  if (host !== undefined) out.push('x-forwarded-host', host)
  out.push('x-forwarded-proto', 'encrypted' in socket ? 'https' : 'http')
  if (id !== undefined) out.push('x-request-id', id)
  out.push('via', viaBefore + via)
  return out
}

function responseHeaders(
  { status, headers }: BalancerResponse,
  setCookie: string | undefined,
  id: string | undefined,
  via: string,
  request: IncomingMessage,
): string[] {
  const out: string[] = []
  let connection: string | undefined
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i]!.length === 10 && text(headers[i]!).toLowerCase() === 'connection') {
      connection = connection === undefined ? text(headers[i + 1]!) : `${connection},${text(headers[i + 1]!)}`
    }
  }
  const nominated = nominations(connection)
  for (let i = 0; i < headers.length; i += 2) {
    const name = text(headers[i]!)
    const lower = name.toLowerCase()
    if (status === 204 && lower === 'content-length') continue // RFC 9110 8.6
    if (HOP_BY_HOP.has(lower) || LOAD.has(lower) || nominated?.has(lower) === true) continue
    if (lower === 'x-request-id' && id !== undefined) continue
    out.push(name, text(headers[i + 1]!))
  }
  if (setCookie !== undefined) out.push('set-cookie', setCookie)
  if (id !== undefined) out.push('x-request-id', id)
  out.push('via', via)
  if (request.httpVersionMinor === 0) out.push('connection', 'close')
  return out
}

/** The fields a Connection header asks to be removed; undefined for the usual 'keep-alive' and 'close'. */
function nominations(connection: string | undefined): ReadonlySet<string> | undefined {
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return undefined
  const names = connection.split(',').map((name) => name.trim().toLowerCase())
  return new Set(names.filter((name) => !KEPT.has(name)))
}

function text(raw: string | Uint8Array): string {
  return typeof raw === 'string' ? raw : Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('latin1')
}

/** Trailers that could change what the head said are dropped (RFC 9110 6.5.1). */
function trailersOf(raw: RawHeaders): [string, string][] {
  const out: [string, string][] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = text(raw[i]!)
    const lower = name.toLowerCase()
    if (!HOP_BY_HOP.has(lower) && !KEPT.has(lower) && lower !== 'set-cookie' && !lower.startsWith('content-')) {
      out.push([name, text(raw[i + 1]!)])
    }
  }
  return out
}

function answerError(error: unknown, id: string | undefined, response: ServerResponse): void {
  const code = error instanceof BalancerError ? error.code : 'CONFIG'
  const [status, title] = STATUS[code]
  const after = error instanceof BalancerError ? error.retryAfterMs : undefined
  const seconds =
    status !== 503 ? undefined : after === undefined ? RETRY_AFTER_S : Math.max(1, Math.ceil(after / 1000))
  answerProblem(status, title, code, id, seconds, response)
}

/** A problem body (RFC 9457) that names no backend, no address and no cause. */
function answerProblem(
  status: number,
  title: string,
  code: string,
  id: string | undefined,
  retryAfterS: number | undefined,
  response: ServerResponse,
): void {
  if (response.headersSent || response.destroyed) return void response.destroy()
  const body = JSON.stringify({ type: 'about:blank', title, status, code, requestId: id })
  response.writeHead(status, {
    'content-type': 'application/problem+json',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    ...(id !== undefined && { 'x-request-id': id }),
    ...(retryAfterS !== undefined && { 'retry-after': String(retryAfterS) }),
  })
  response.end(body)
}
