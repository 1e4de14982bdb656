import { CALL, type CallOptions, type FaceHost } from '../core/call.ts'
import type { BalancerResponse, BodyControl, Call, RawHeaders, ResponseBody } from '../core/contracts.ts'
import { header, latin1 } from '../core/headers.ts'
import { checkTarget } from '../core/target.ts'
import { bodyOf, DROPPED, pathOf, start } from './outgoing.ts'
import { bodyStream, collect, Unread } from './read.ts'
import { type HeaderRecord, recordOf } from './record.ts'

export interface RequestOptions extends CallOptions {
  /** default 'GET' */
  readonly method?: string
  /** By name, or pairs as `Headers` has them. */
  readonly headers?: HeaderRecord | Iterable<readonly [name: string, value: string]>
  /** Whatever `fetch` takes as a body. */
  readonly body?: unknown
  readonly signal?: AbortSignal
}

/** What `balancer.request` resolves with, as undici's `request` does. */
export interface Answer {
  readonly statusCode: number
  readonly headers: HeaderRecord
  /** Filled when the body has ended. */
  readonly trailers: Readonly<Record<string, string>>
  readonly body: AnswerBody
}

export type RequestFace = (url: string | URL, options?: RequestOptions) => Promise<Answer>

const NO_OPTIONS: RequestOptions = {}
const decoder = new TextDecoder()
/** Read for `dump` before the connection is given up instead, bytes (undici's default). */
const DUMP_BYTES = 131_072
/** Chunks an iteration keeps before the connection is paused. */
const QUEUED_CHUNKS = 16

/** `fetch` without the platform's objects: no Headers, no Response, no stream unless asked for. */
export function createRequest(host: FaceHost): RequestFace {
  const unread = new Unread()
  return async (url, options = NO_OPTIONS) => {
    const { method = 'GET', signal } = options
    signal?.throwIfAborted()
    const path = pathOf(url, host)
    checkTarget(path, method)
    const { body, type } = bodyOf(options.body ?? null, host.bufferBytes(options.pool))
    const headers = rawHeaders(options.headers, type)
    const { call, response } = start(host, { method, path, headers, body }, options, signal)
    return new PlainAnswer(await response, call, unread)
  }
}

class PlainAnswer implements Answer {
  readonly statusCode: number
  readonly body: AnswerBody
  readonly #call: Call
  readonly #raw: RawHeaders
  #headers: HeaderRecord | undefined

  constructor({ status, headers, body }: BalancerResponse, call: Call, unread: Unread) {
    this.#call = call
    this.statusCode = status
    this.#raw = headers
    this.body = new AnswerBody(body, headers, unread)
  }

  get [CALL](): Call {
    return this.#call
  }

  get trailers(): Readonly<Record<string, string>> {
    return this.body.trailers
  }

  get headers(): HeaderRecord {
    this.#headers ??= recordOf(this.#raw)
    return this.#headers
  }
}

/** A body to be read once, in one of these ways. */
export class AnswerBody implements AsyncIterable<Uint8Array> {
  readonly #headers: RawHeaders
  readonly #unread: Unread
  #trailers: Record<string, string> | undefined
  #body: ResponseBody | undefined

  constructor(body: ResponseBody, headers: RawHeaders, unread: Unread) {
    this.#body = body
    this.#headers = headers
    this.#unread = unread
    unread.watch(this, body)
  }

  /** Filled when the body has ended: one object, so that who took it early sees them come. */
  get trailers(): Readonly<Record<string, string>> {
    this.#trailers ??= Object.create(null) as Record<string, string>
    return this.#trailers
  }

  get bodyUsed(): boolean {
    return this.#body === undefined
  }

  async text(): Promise<string> {
    return decoder.decode(await collect(this.#take(), (raw) => this.#note(raw)))
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text())
  }

  /** A copy of its own. */
  async bytes(): Promise<Uint8Array> {
    return new Uint8Array(await collect(this.#take(), (raw) => this.#note(raw)))
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    return (await this.bytes()).buffer as ArrayBuffer
  }

  /** Its type is the answer's Content-Type. */
  async blob(): Promise<Blob> {
    return new Blob([await this.arrayBuffer()], { type: header(this.#headers, 'content-type') ?? '' })
  }

  /** A byte stream; `stream.Readable.fromWeb` makes Node's of it. */
  stream(): ReadableStream<Uint8Array> {
    return bodyStream(this.#take(), this.#unread, (raw) => this.#note(raw))
  }

  /** Reads on without keeping anything, at most `limit` bytes (default 128 KiB): what is longer loses its connection. */
  dump({ limit = DUMP_BYTES }: { readonly limit?: number } = {}): Promise<void> {
    const body = this.#take()
    return new Promise((resolve, reject) => {
      let bytes = 0
      let control: BodyControl | undefined
      const enough = (): void => {
        control?.cancel(new Error('dumped'))
        resolve()
      }
      control = body.consume({
        chunk(data) {
          bytes += data.length
          if (bytes > limit && control !== undefined) enough()
          return true
        },
        end: (raw) => {
          this.#note(raw)
          resolve()
        },
        fail: reject,
      })
      if (bytes > limit) enough()
    })
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    const body = this.#take()
    const queue: Uint8Array[] = []
    let ended = false
    let failure: { readonly error: unknown } | undefined
    let wake = (): void => {}
    const control = body.consume({
      chunk(data) {
        queue.push(data)
        wake()
        return queue.length < QUEUED_CHUNKS
      },
      end: (raw) => {
        this.#note(raw)
        ended = true
        wake()
      },
      fail(error) {
        failure = { error }
        wake()
      },
    })
    try {
      for (;;) {
        const chunk = queue.shift()
        if (chunk !== undefined) {
          if (queue.length === 0) control.resume()
          yield chunk
        } else if (failure !== undefined) throw failure.error
        else if (ended) return
        else await new Promise<void>((resolve) => (wake = resolve))
      }
    } finally {
      if (!ended && failure === undefined) control.cancel(new Error('the iteration ended early'))
    }
  }

  /** The body, once. */
  #take(): ResponseBody {
    const body = this.#body
    if (body === undefined) throw new TypeError('Body is unusable: Body has already been read')
    this.#body = undefined
    this.#unread.touched(this)
    return body
  }

  #note(raw: RawHeaders | undefined): void {
    if (raw === undefined) return
    const trailers = this.trailers as Record<string, string>
    for (let i = 0; i < raw.length; i += 2) {
      trailers[latin1(raw[i]!).toLowerCase()] = latin1(raw[i + 1]!)
    }
  }
}

function rawHeaders(given: RequestOptions['headers'], type: string | null): RawHeaders {
  const raw: string[] = []
  let typed = type === null
  if (given !== undefined) {
    const headers = Symbol.iterator in given ? recordOf([...given].flat()) : (given as HeaderRecord)
    for (const name of Object.keys(headers)) {
      const value: unknown = headers[name]
      const lower = name.toLowerCase()
      if (value === undefined || DROPPED.has(lower)) continue
      if (lower === 'content-type') typed = true
      if (typeof value === 'string') raw.push(name, value)
      else if (Array.isArray(value)) for (const one of value) raw.push(name, one)
      else throw new TypeError(`header ${name}: expected a string or a list of strings, found ${typeof value}`)
    }
  }
  if (!typed) raw.push('content-type', type!)
  return raw
}
