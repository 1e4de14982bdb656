import type {
  Attempt,
  Backend,
  BalancerResponse,
  BodyControl,
  BodySink,
  RawHeaders,
  RequestBody,
  ResponseBody,
  SendFailure,
  Transport,
} from '../core/contracts.ts'
import { header, wireHeaders } from '../core/headers.ts'
import { checkHead } from './answer-head.ts'
import { asError, Upload } from './upload.ts'
import { codeOf, explained } from './wire.ts'

/** Any `fetch` of the platform, of a library or of yours. */
export type FetchLike = (url: string, init: RequestInit) => Promise<Response>

export interface FetchTransportOptions {
  /** More for every request of a backend, such as a `dispatcher` or `cf`: what the transport says itself comes first. */
  readonly init?: (backend: Backend) => Readonly<Record<string, unknown>>
}

/** What belongs to a connection, or is for fetch alone to say: some throw at these, others drop them. */
const DROPPED: ReadonlySet<string> = new Set([
  'accept-encoding',
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])
/** Content codings that every fetch takes off. No other is asked for, so that what is left on is what nobody knows. */
const DECODED: ReadonlySet<string> = new Set(['gzip', 'x-gzip', 'deflate', 'br'])
/** Errors of Node and Bun that only come before a connection is there. */
const UNCONNECTED: ReadonlySet<string> = new Set([
  ...['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'UND_ERR_CONNECT_TIMEOUT', 'ConnectionRefused'],
])
/** OpenSSL's and Node's words for a handshake that failed: nothing was sent. */
const NO_HANDSHAKE =
  /^(?:ERR_TLS_CERT|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_(?:GET|VERIFY)|HOSTNAME_MISMATCH|ERR_SSL_(?:WRONG_VERSION|UNSUPPORTED_PROTOCOL|\w+_ALERT_(?:HANDSHAKE|PROTOCOL)))/
/** Methods that fetch forbids, and what is no method. */
const UNSENDABLE = /^(?:CONNECT|TRACE|TRACK)$|[^\w!#$%&'*+.^`|~-]|^$/i
const MAX_HEAD_BYTES = 65_536

/**
 * Carries attempts by a WHATWG fetch: for runtimes without sockets, and for a fetch that does more than the platform's. It knows
 * less than the others. There are no 1xx, no trailers and no upgrades (such a request goes out as a plain one); Host is the
 * backend's; encoded answers come decoded, without their Content-Encoding and Content-Length; the path goes through a URL parser;
 * connections are fetch's own: no limit, `forget`, `reach` or `connections`, `fresh` has no effect, and time to connect counts as
 * time to the head. An answer without length or chunks that is cut looks whole. Redirects are handed over as they are.
 */
export function fetchTransport(fetch: FetchLike = globalThis.fetch, { init }: FetchTransportOptions = {}): Transport {
  const live = new Set<Exchange>()
  return {
    name: 'fetch',
    send: (attempt) =>
      new Promise((resolve, reject) => {
        const exchange = new Exchange(attempt, live, resolve, reject)
        // Nothing of what is cancelled in the tick of its send goes out: from then on it costs its connection.
        queueMicrotask(() => exchange.start(fetch, init))
      }),
    async close() {
      for (const exchange of live) exchange.break(new Error('the transport was closed'))
    },
  }
}

/** One attempt, and the body of its answer. Everything but its first end is ignored. */
class Exchange implements ResponseBody, BodyControl {
  readonly #attempt: Attempt
  readonly #live: Set<Exchange>
  readonly #resolve: (response: BalancerResponse) => void
  readonly #reject: (failure: SendFailure) => void
  readonly #abort = new AbortController()
  #upload: Upload | undefined
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined
  #sink: BodySink | undefined
  #resume: (() => void) | undefined
  #phase: SendFailure['phase'] = 'wait'
  #over = false
  #failure: SendFailure | undefined

  constructor(
    attempt: Attempt,
    live: Set<Exchange>,
    resolve: (response: BalancerResponse) => void,
    reject: (failure: SendFailure) => void,
  ) {
    this.#attempt = attempt
    this.#live = live
    this.#resolve = resolve
    this.#reject = reject
    live.add(this)
    attempt.onCancel((reason) => {
      if (this.#phase !== 'body') this.break(reason)
    })
  }

  start(fetch: FetchLike, more: FetchTransportOptions['init']): void {
    if (this.#over) return
    const { backend, request } = this.#attempt
    const { method, path, body } = request
    try {
      checkSendable(method, path, body)
      const init = {
        ...more?.(backend),
        method,
        headers: headersOf(this.#attempt),
        body: this.#bodyOf(body),
        redirect: 'manual',
        signal: this.#abort.signal,
        ...(this.#upload !== undefined && { duplex: 'half' }),
      }
      const answer = fetch(backend.origin + path, init as RequestInit)
      this.#phase = 'head'
      this.#attempt.sent()
      answer.then(
        (response) => this.#answered(response),
        (error: unknown) => this.#failed(error),
      )
    } catch (error) {
      this.#fail(error, 'REQUEST_BODY') // nothing has begun: it is what was to be sent that does not do
    }
  }

  /** Ends it now, from this side. */
  break(reason: unknown): void {
    if (this.#over) return
    this.#fail(reason, '')
    this.#drop(reason)
  }

  consume(sink: BodySink): BodyControl {
    this.#sink = sink
    if (this.#failure !== undefined) sink.fail(this.#failure)
    else void this.#read(sink)
    return this
  }

  discard(): void {
    this.consume({ chunk: () => true, end: () => {}, fail: () => {} })
  }

  resume(): void {
    this.#resume?.()
  }

  cancel(reason: unknown): void {
    if (this.#over) return
    this.#finish()
    this.#drop(reason)
  }

  #answered(response: Response): void {
    try {
      const { status, body } = response // a fetch of the user's may give what is no Response, or one that is read already
      this.#reader = body?.getReader()
      if (this.#over) return this.#drop(new Error('nobody waits for it any more'))
      const headers = rawOf(response)
      // A browser's fetch hides what a redirect says.
      if (status === 0) throw Object.assign(new Error('a redirect nobody may see'), { code: 'BAD_STATUS' })
      checkHead(headers, MAX_HEAD_BYTES)
      this.#phase = 'body'
      this.#resolve({ status, headers, body: this })
    } catch (error) {
      this.#fail(error)
      this.#drop(error)
    }
  }

  async #read(sink: BodySink): Promise<void> {
    try {
      for (let next = await this.#reader?.read(); next?.done === false; next = await this.#reader?.read()) {
        if (this.#over) return
        if (!sink.chunk(next.value)) await new Promise<void>((resolve) => (this.#resume = resolve))
        if (this.#over) return
      }
    } catch (error) {
      return this.#failed(error)
    }
    if (this.#over) return
    this.#finish()
    sink.end()
  }

  /** By fetch: what is of use stands in the cause, where there is one. */
  #failed(error: unknown): void {
    const cause = error instanceof TypeError && error.cause instanceof Error ? error.cause : error
    this.#fail(this.#phase === 'head' && cause instanceof Error ? explained(cause) : cause)
  }

  #fail(cause: unknown, code: string = codeOf(asError(cause))): void {
    if (this.#over) return
    const failure = this.#failureOf(
      this.#upload?.error ?? cause,
      this.#upload?.error === undefined ? code : 'REQUEST_BODY',
    )
    this.#failure = failure
    this.#finish()
    if (this.#phase === 'body') this.#sink?.fail(failure)
    else this.#reject(failure)
  }

  #failureOf(cause: unknown, code: string): SendFailure {
    const phase = this.#phase === 'head' ? phaseOf(cause, code) : this.#phase
    return { phase, processed: phase === 'head' || phase === 'body' ? 'maybe' : 'no', reused: false, code, cause }
  }

  #bodyOf(body: RequestBody): Uint8Array | ReadableStream<Uint8Array> | null {
    if (body === null || body instanceof Uint8Array) return body
    const upload = new Upload(body)
    this.#upload = upload
    return new ReadableStream(
      {
        async pull(controller) {
          const { done, value } = await upload.next()
          if (done === true) controller.close()
          else controller.enqueue(value)
        },
        cancel: () => upload.stop(),
      },
      { highWaterMark: 0 },
    )
  }

  /** Gives the connection up. Not every fetch heeds its signal once it has answered. */
  #drop(reason: unknown): void {
    this.#abort.abort(reason)
    this.#reader?.cancel(reason).catch(() => {})
  }

  #finish(): void {
    this.#over = true
    this.#resume?.()
    this.#upload?.stop()
    this.#live.delete(this)
  }
}

/** Where a fetch failed that had not answered: as far as its error tells. */
function phaseOf(cause: unknown, code: string): SendFailure['phase'] {
  const error = cause instanceof AggregateError ? cause.errors[0] : cause // several addresses were tried
  const call = error instanceof Error && 'syscall' in error ? error.syscall : undefined
  if (UNCONNECTED.has(code) || call === 'connect' || call === 'getaddrinfo') return 'connect'
  return NO_HANDSHAKE.test(code) ? 'tls' : 'head'
}

/** Throws for what fetch would reject as if the backend had failed. */
function checkSendable(method: string, path: string, body: RequestBody): void {
  // Another first character could end the authority before the path.
  if (!path.startsWith('/')) throw new TypeError('fetch sends no request without a path')
  if (UNSENDABLE.test(method)) throw new TypeError(`fetch sends no ${method}`)
  if (body !== null && /^(?:GET|HEAD)$/i.test(method)) throw new TypeError(`fetch sends no body with ${method}`)
}

/** Throws for a header that is none. A length is said for streams alone: of bytes fetch knows it. */
function headersOf({ request: { headers, body } }: Attempt): Headers {
  const wire = wireHeaders(headers)
  const out = new Headers({ 'accept-encoding': codingsOf(header(headers, 'accept-encoding')) })
  for (let i = 0; i < wire.length; i += 2) {
    if (!DROPPED.has(wire[i]!.toLowerCase())) out.append(wire[i]!, wire[i + 1]!)
  }
  if (body === null || body instanceof Uint8Array) return out
  const length = header(headers, 'content-length') ?? body.length
  if (length !== undefined) out.set('content-length', String(length))
  return out
}

/** Of what is accepted, what fetch takes off: what it would hand over encoded, others might take for decoded. */
function codingsOf(accepted: string | undefined): string {
  const known = accepted?.split(',').filter((member) => DECODED.has(member.split(';')[0]!.trim().toLowerCase()))
  return known === undefined || known.length === 0 ? 'identity' : known.map((member) => member.trim()).join(', ')
}

function rawOf({ headers, body }: Response): RawHeaders {
  const codings = headers.get('content-encoding')?.split(',') ?? []
  const isDecoded =
    body !== null && codings.length > 0 && codings.every((coding) => DECODED.has(coding.trim().toLowerCase()))
  const raw: string[] = []
  for (const [name, value] of headers) {
    if (isDecoded && (name === 'content-encoding' || name === 'content-length')) continue
    raw.push(name, value)
  }
  return raw
}
