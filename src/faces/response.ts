import { Body } from '../core/body.ts'
import type { BalancerResponse, RawHeaders, ResponseBody } from '../core/contracts.ts'
import { latin1 } from '../core/headers.ts'

/** Buffered in a stream made from a body before its connection is paused, bytes. */
const STREAM_BYTES = 65_536
/** Statuses whose answers have no body (Fetch, "null body status"). */
const NO_BODY: ReadonlySet<number> = new Set([101, 204, 205, 304])

const decoder = new TextDecoder()

/** Makes Responses; those that are dropped unread give their connection back when they are collected. */
export class Responses {
  readonly #unread = new FinalizationRegistry<ResponseBody>((body) => body.discard())
  #poison: ReadableStream<Uint8Array> = new ReadableStream()
  #poisoned = true

  make(response: BalancerResponse, method: string, url: string): Response {
    const bare = NO_BODY.has(response.status) || method === 'HEAD'
    if (bare) response.body.discard()
    const made = new LazyResponse(bare ? null : this.#base(), response, url, (it) => this.#unread.unregister(it))
    if (!bare && response.body instanceof Body && !response.body.settled)
      this.#unread.register(made, response.body, made)
    return made as unknown as Response
  }

  /**
   * What the platform's own Response is constructed over: a stream that rejects whoever reads it. A call that goes past our
   * methods, `Response.prototype.text.call(response)`, then fails loudly instead of reading an empty body.
   */
  #base(): ReadableStream<Uint8Array> {
    if (!this.#poisoned && !this.#poison.locked) return this.#poison
    this.#poisoned = false
    this.#poison = new ReadableStream(
      {
        pull: (controller) => {
          this.#poisoned = true
          controller.error(new TypeError('this Response must be read through its own methods'))
        },
        cancel: () => {
          this.#poisoned = true
        },
      },
      { highWaterMark: 0 },
    )
    return this.#poison
  }
}

/** The platform's Response as what is overridden below sees it: its types call methods properties, which no class may override. */
const PlatformResponse = Response as unknown as new (
  body: ReadableStream<Uint8Array> | null,
  init: ResponseInit,
) => { readonly status: number }

/** A real Response whose headers and stream are only made when somebody asks for them. */
class LazyResponse extends PlatformResponse {
  readonly #raw: RawHeaders
  readonly #url: string
  readonly #touched: (response: LazyResponse) => void
  #body: ResponseBody | undefined
  #headers: Headers | undefined
  #real: Response | undefined
  #used = false

  constructor(
    base: ReadableStream<Uint8Array> | null,
    { status, headers, body }: BalancerResponse,
    url: string,
    touched: (response: LazyResponse) => void,
  ) {
    super(base, { status })
    this.#raw = headers
    this.#url = url
    this.#touched = touched
    this.#body = base === null ? undefined : body
  }

  get headers(): Headers {
    this.#headers ??= headersOf(this.#raw)
    return this.#headers
  }

  get url(): string {
    return this.#url
  }

  get body(): Response['body'] {
    return this.#whole().body
  }

  get bodyUsed(): boolean {
    return this.#used || this.#real?.bodyUsed === true
  }

  async text(): Promise<string> {
    const bytes = this.#collect()
    return bytes === undefined ? this.#whole().text() : decoder.decode(await bytes)
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text())
  }

  async bytes(): Promise<Uint8Array> {
    const bytes = this.#collect()
    return bytes === undefined ? this.#whole().bytes() : new Uint8Array(await bytes)
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    return (await this.bytes()).buffer as ArrayBuffer // always memory of its own
  }

  async blob(): Promise<Blob> {
    return this.#whole().blob()
  }

  async formData(): Promise<FormData> {
    return this.#whole().formData()
  }

  clone(): Response {
    const copy = this.#whole().clone()
    Object.defineProperty(copy, 'url', { value: this.#url })
    return copy
  }

  /** The bytes, straight from the backend; undefined if they must come from the platform's Response. */
  #collect(): Promise<Uint8Array> | undefined {
    const body = this.#body
    if (this.#used || this.#real !== undefined || body === undefined) return undefined
    this.#used = true
    this.#body = undefined
    this.#touched(this)
    return new Promise((resolve, reject) => {
      const chunks: Uint8Array[] = []
      body.consume({
        chunk(data) {
          chunks.push(data)
          return true
        },
        end: () => resolve(chunks.length === 1 ? chunks[0]! : concat(chunks)),
        fail: reject,
      })
    })
  }

  /** The platform's Response over a real stream: for everything that is not a fast path. */
  #whole(): Response {
    if (this.#real !== undefined) return this.#real
    if (this.#used) throw new TypeError('Body is unusable: Body has already been read')
    const body = this.#body
    this.#body = undefined
    this.#touched(this)
    const { status } = this
    this.#real = new Response(body === undefined ? null : bodyStream(body), { status, headers: this.headers })
    return this.#real
  }
}

function bodyStream(body: ResponseBody): ReadableStream<Uint8Array> {
  let control: { resume(): void; cancel(reason: unknown): void } | undefined
  return new ReadableStream(
    {
      type: 'bytes',
      start(controller) {
        control = body.consume({
          chunk(data) {
            controller.enqueue(new Uint8Array(data)) // a copy: a byte stream takes its chunks' memory away
            return (controller.desiredSize ?? 0) > 0
          },
          end() {
            controller.close()
            controller.byobRequest?.respond(0) // a reader of its own buffer is told of the end only this way
          },
          fail: (error) => controller.error(error),
        })
      },
      pull: () => control?.resume(),
      cancel: (reason) => control?.cancel(reason),
    },
    { highWaterMark: STREAM_BYTES },
  )
}

function headersOf(raw: RawHeaders): Headers {
  const headers = new Headers()
  for (let i = 0; i < raw.length; i += 2) headers.append(latin1(raw[i]!), latin1(raw[i + 1]!))
  return headers
}

function concat(chunks: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0))
  let at = 0
  for (const chunk of chunks) {
    out.set(chunk, at)
    at += chunk.length
  }
  return out
}
