import { Dispatcher, errors, FormData as UndiciFormData, Response as UndiciResponse } from 'undici'
import type { CallOptions, FaceHost } from '../core/call.ts'
import type {
  BalancerRequest,
  BalancerResponse,
  BodyControl,
  BodySink,
  Call,
  RawHeaders,
  RequestHeaders,
} from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { ReplayBody } from '../core/replay.ts'
import { checkTarget } from '../core/target.ts'
import { bodyOf, DROPPED, pathOf, start } from './outgoing.ts'
import { recordOf } from './record.ts'

/** What undici's functions take, and what the balancer should know about this call. */
export interface BalancerDispatchOptions extends Dispatcher.DispatchOptions {
  readonly balancer?: CallOptions
}

/** Hands out one dispatcher; another once that was closed: who closes what he was given must not take it from the others. */
export function createDispatcher(host: FaceHost): () => BalancerDispatcher {
  let current: BalancerDispatcher | undefined
  return () => {
    if (current === undefined || current.closed) current = new BalancerDispatcher(host)
    return current
  }
}

/** The origin that 'drain' names: there are many behind it. */
const NOWHERE = new URL('http://backend')
/** Calls that wait for their heads before `dispatch` says that it has enough. */
const MOST_WAITING = 1_000

/**
 * The balancer as a Dispatcher of undici 8: for `request`, `stream`, `pipeline`, `upgrade`, `fetch({ dispatcher })`, interceptors and
 * `setGlobalDispatcher`. The origin of a request only has to be allowed (`origins`); where it goes is the balancer's choice, and so are
 * Host, retries and timeouts: `headersTimeout` and `bodyTimeout` become the times of each attempt. CONNECT is refused, and there are no
 * events of connections. `dispatch` returns false while 1 000 calls or more wait for their heads; 'drain' follows. `close` and `destroy`
 * end this dispatcher and what goes through it, never the balancer.
 */
export class BalancerDispatcher extends Dispatcher {
  readonly #host: FaceHost
  readonly #options: CallOptions
  readonly #live = new Set<Exchange>()
  #waiting = 0
  #isFull = false
  #whenIdle: (() => void) | undefined
  #closing: Promise<void> | undefined
  closed = false
  destroyed = false

  constructor(host: FaceHost, options: CallOptions = {}) {
    super()
    this.#host = host
    this.#options = options
  }

  /** Another one, whose calls have these options: for `fetch` and whoever else cannot give `balancer` with a request. */
  with(options: CallOptions): BalancerDispatcher {
    return new BalancerDispatcher(this.#host, { ...this.#options, ...options })
  }

  override dispatch(options: BalancerDispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    if (typeof handler?.onRequestStart !== 'function') {
      throw new errors.InvalidArgumentError('a handler must have onRequestStart') // undici's before version 7 have not
    }
    try {
      if (this.destroyed) throw new errors.ClientDestroyedError()
      if (this.closed) throw new errors.ClientClosedError()
      const request = requestOf(options, this.#host, { ...this.#options, ...options.balancer })
      this.#run(new Exchange(handler), request, options)
    } catch (error) {
      if (handler.onResponseError === undefined) throw error
      handler.onResponseError(null as unknown as Dispatcher.DispatchController, error as Error) // as undici does
      return false
    }
    this.#isFull ||= this.#waiting >= MOST_WAITING
    return !this.#isFull
  }

  override close(): Promise<void>
  override close(callback: () => void): void
  override close(callback?: (error: Error | null, nothing: null) => void): Promise<void> | void {
    if (this.#closing === undefined && this.destroyed) {
      return settled(Promise.reject(new errors.ClientDestroyedError()), callback)
    }
    this.closed = true
    this.#closing ??= new Promise((resolve) => {
      if (this.#live.size === 0) resolve()
      else this.#whenIdle = resolve
    })
    return settled(this.#closing, callback)
  }

  override destroy(): Promise<void>
  override destroy(error: Error | null): Promise<void>
  override destroy(callback: () => void): void
  override destroy(error: Error | null, callback: () => void): void
  override destroy(
    given?: Error | null | (() => void),
    callback: (() => void) | undefined = typeof given === 'function' ? given : undefined,
  ): Promise<void> | void {
    const error = given instanceof Error ? given : new errors.ClientDestroyedError()
    this.closed = true
    this.destroyed = true
    for (const exchange of this.#live) exchange.abort(error)
    return settled(Promise.resolve(), callback)
  }

  #run(exchange: Exchange, request: BalancerRequest, options: BalancerDispatchOptions): void {
    this.#live.add(exchange)
    this.#waiting++
    exchange.run(this.#host, request, callOptions(options, this.#options), {
      answered: () => this.#answered(),
      ended: () => {
        this.#live.delete(exchange)
        if (this.#live.size === 0) this.#whenIdle?.()
      },
    })
  }

  #answered(): void {
    this.#waiting--
    if (!this.#isFull || this.#waiting >= MOST_WAITING) return
    this.#isFull = false
    queueMicrotask(() => this.emit('drain', NOWHERE)) // whose listener may dispatch
  }
}

/** Headers by name, as undici's types have them. */
type Fields = Parameters<NonNullable<Dispatcher.DispatchHandler['onResponseEnd']>>[1]

/** Whom an exchange tells, each once: it waits for no head any more; it is over. */
interface Watch {
  answered(): void
  ended(): void
}

/** One request: the controller its handler holds, and the reader of the answer's body. Nothing is told to the handler after its end. */
class Exchange implements Dispatcher.DispatchController, BodySink {
  readonly #handler: Dispatcher.DispatchHandler
  #watch: Watch | undefined
  #call: Call | undefined
  #control: BodyControl | undefined
  /** Starts the body: it waits for a handler that paused at the head. */
  #begin: (() => void) | undefined
  #isWaiting = true
  #over = false
  aborted = false
  paused = false
  reason: Error | null = null
  rawHeaders: Fields | null = null
  rawTrailers: Fields | null = null

  constructor(handler: Dispatcher.DispatchHandler) {
    this.#handler = handler
  }

  run(host: FaceHost, request: BalancerRequest, options: CallOptions, watch: Watch): void {
    this.#watch = watch
    // Before it has a connection, so that a request that waits can be given up.
    this.#tell(() => this.#handler.onRequestStart!(this, null))
    if (this.#over) return release(request)
    const informational = (status: number, headers: RawHeaders): void => {
      if (!this.#over) this.#tell(() => this.#handler.onResponseStart?.(this, status, this.#headed(headers), ''))
    }
    try {
      const { call, response } = start(host, { ...request, informational }, options, undefined)
      this.#call = call
      response.then(
        (answer) => this.#answered(answer),
        (error: Error) => this.#fail(error),
      )
    } catch (error) {
      release(request)
      this.#fail(error as Error)
    }
  }

  // --- what the handler calls

  abort(reason?: Error): void {
    if (this.#over) return
    this.aborted = true
    this.reason = reason ?? new errors.RequestAbortedError()
    this.#giveUp(this.reason)
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    const begin = this.#begin
    this.#begin = undefined
    if (begin !== undefined) begin()
    else this.#control?.resume()
  }

  // --- what the body calls

  chunk(data: Uint8Array): boolean {
    if (this.#over) return true
    const chunk = Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength)
    this.#tell(() => this.#handler.onResponseData?.(this, chunk))
    return !this.paused
  }

  end(trailers?: RawHeaders): void {
    if (this.#over) return
    const fields = recordOf(trailers ?? []) as Fields
    this.rawTrailers = fields
    this.#tell(() => this.#handler.onResponseEnd?.(this, fields))
    this.#finish()
  }

  fail(error: unknown): void {
    this.#fail(error as Error)
  }

  // --- inside

  #answered({ status, headers, body, socket }: BalancerResponse): void {
    if (this.#over) return body.discard()
    this.#headIsIn()
    if (socket !== undefined) {
      this.#tell(() => this.#handler.onRequestUpgrade!(this, status, this.#headed(headers), socket as never))
      body.consume({ chunk: () => true, end: () => {}, fail: () => {} })
      return this.#finish()
    }
    this.#tell(() => this.#handler.onResponseStart?.(this, status, this.#headed(headers), ''))
    if (this.#over) return // it aborted, and the call with it
    const begin = (): void => {
      this.#control = body.consume(this)
    }
    if (this.paused) this.#begin = begin
    else begin()
  }

  #headed(headers: RawHeaders): Fields {
    const fields = recordOf(headers) as Fields
    this.rawHeaders = fields
    return fields
  }

  /** A handler that throws has given up. */
  #tell(run: () => void): void {
    try {
      run()
    } catch (error) {
      if (!this.#over) this.#giveUp(error as Error) // not `aborted`: interceptors that retry throw
    }
  }

  #giveUp(reason: Error): void {
    this.#fail(reason)
    this.#call?.cancel(reason)
  }

  #fail(error: Error): void {
    if (this.#over) return
    this.#finish()
    this.#handler.onResponseError?.(this, error)
  }

  #headIsIn(): void {
    if (this.#isWaiting) this.#watch?.answered()
    this.#isWaiting = false
  }

  #finish(): void {
    if (this.#over) return
    this.#over = true
    this.#begin = undefined
    this.#headIsIn()
    this.#watch?.ended()
  }
}

/** As promises, and as callbacks: one of them is wanted. */
function settled(
  promise: Promise<void>,
  callback: ((error: Error | null, nothing: null) => void) | undefined,
): Promise<void> | void {
  if (callback === undefined) return promise
  promise.then(
    () => queueMicrotask(() => callback(null, null)),
    (error: Error) => queueMicrotask(() => callback(error, null)), // out of here: what it throws is its own
  )
}

function callOptions(options: BalancerDispatchOptions, own: CallOptions): CallOptions {
  const { headersTimeout, bodyTimeout, idempotent, balancer } = options
  const timeouts = {
    ...own.timeouts,
    ...(headersTimeout != null && { headersMs: headersTimeout }),
    ...(bodyTimeout != null && { idleMs: bodyTimeout }),
    ...balancer?.timeouts,
  }
  return { ...own, ...(idempotent != null && { idempotent }), ...balancer, timeouts }
}

/** Throws for what the balancer would not send, or not where it says. */
function requestOf(options: BalancerDispatchOptions, host: FaceHost, { pool }: CallOptions): BalancerRequest {
  const { method, origin, query, upgrade } = options
  if (typeof method !== 'string' || typeof options.path !== 'string') {
    throw new errors.InvalidArgumentError('method and path must be strings')
  }
  if (method === 'CONNECT') throw new BalancerError('PROTOCOL', 'CONNECT names its own host: it cannot be balanced')
  if (origin != null) {
    const url = URL.parse(String(origin))
    if (url === null) throw new TypeError('Failed to parse URL') // the platform's error holds it all, a password too
    host.checkOrigin(url.origin)
  }
  const whole = options.path.startsWith('/') ? options.path : pathOf(options.path, host)
  const path = query == null ? whole : withQuery(whole, query)
  checkTarget(path, method)
  const { headers, length } = headersOf(options.headers)
  const { content, type } = contentOf(options.body)
  const { body } = bodyOf(content, host.bufferBytes(pool), length)
  if (type !== null && !headers.some((text, i) => i % 2 === 0 && String(text).toLowerCase() === 'content-type')) {
    headers.push('content-type', type)
  }
  return { method, path, headers, body, ...(typeof upgrade === 'string' && { upgrade }) }
}

/** In any of the shapes undici takes. What belongs to a connection is left out; the length counts for bodies that tell none. */
function headersOf(given: unknown): {
  readonly headers: (RequestHeaders[number] & string)[]
  readonly length: number | undefined
} {
  const headers: string[] = []
  let length: number | undefined
  for (const [name, value] of pairsOf(given)) {
    const lower = name.toLowerCase()
    if (lower === 'content-length') length = Number(value)
    if (DROPPED.has(lower) || value === undefined) continue
    for (const one of Array.isArray(value) ? value : [value]) headers.push(name, String(one ?? ''))
  }
  return { headers, length: length !== undefined && Number.isSafeInteger(length) ? length : undefined }
}

function pairsOf(given: unknown): Iterable<readonly [name: string, value: unknown]> {
  if (given == null) return []
  if (typeof given !== 'object') throw new errors.InvalidArgumentError('headers must be an object or an array')
  if (!Array.isArray(given) || Array.isArray(given[0])) {
    return Symbol.iterator in given ? (given as Iterable<[string, unknown]>) : Object.entries(given)
  }
  if (given.length % 2 !== 0) throw new errors.InvalidArgumentError('headers array must be even')
  return Array.from({ length: given.length / 2 }, (_, i) => [String(given[2 * i]), given[2 * i + 1]])
}

/** As node:querystring writes it. */
function withQuery(path: string, query: Readonly<Record<string, unknown>>): string {
  if (/[?#]/.test(path)) throw new errors.InvalidArgumentError('a path with a query, and a query')
  const text = (value: unknown): string =>
    value == null || typeof value === 'object' ? '' : encodeURIComponent(String(value))
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map((one) => `${encodeURIComponent(name)}=${text(one)}`),
  )
  return pairs.length === 0 ? path : `${path}?${pairs.join('&')}`
}

/** A body as `bodyOf` takes it, and the type that undici would say. */
function contentOf(body: unknown): { readonly content: unknown; readonly type: string | null } {
  if (body === undefined) return { content: null, type: null }
  if (body instanceof FormData || body instanceof UndiciFormData) {
    const written = body instanceof FormData ? new Response(body) : new UndiciResponse(body)
    return { content: written.body, type: written.headers.get('content-type') }
  }
  if (body instanceof Blob) return { content: body, type: body.type === '' ? null : body.type }
  const isPlain = typeof body !== 'object' || body === null || ArrayBuffer.isView(body) || Symbol.asyncIterator in body
  return { content: !isPlain && Symbol.iterator in body ? eachOf(body as Iterable<unknown>) : body, type: null }
}

async function* eachOf(chunks: Iterable<unknown>): AsyncGenerator<unknown, void, undefined> {
  yield* chunks
}

function release({ body }: BalancerRequest): void {
  if (body instanceof ReplayBody) body.close()
}
