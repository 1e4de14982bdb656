import { CALL } from '../core/call.ts'
import type { BalancerResponse, Call, RawHeaders, ResponseBody } from '../core/contracts.ts'
import { latin1 } from '../core/headers.ts'
import { decoded } from './decode.ts'
import { bodyStream, collect, Unread } from './read.ts'

/** Statuses whose answers have no body (Fetch, "null body status"). */
const NO_BODY: ReadonlySet<number> = new Set([101, 204, 205, 304])

const decoder = new TextDecoder()

/** Makes Responses; those that are dropped unread give their connection back when they are collected. */
export class Responses {
  readonly #unread = new Unread()
  #poison: ReadableStream<Uint8Array> = new ReadableStream()
  #poisoned = true

  make(response: BalancerResponse, call: Call, url: string, redirected: boolean): Response {
    const bare = NO_BODY.has(response.status) || call.method === 'HEAD'
    if (bare) response.body.discard()
    const body = bare ? undefined : decoded(response.body, response.headers)
    const made = new LazyResponse(bare ? null : this.#base(), response, body, call, { url, redirected }, this.#unread)
    if (!bare) this.#unread.watch(made, response.body)
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

/** What only a fetch knows of a Response. */
interface From {
  readonly url: string
  readonly redirected: boolean
}

/** A real Response whose headers and stream are only made when somebody asks for them. */
class LazyResponse extends PlatformResponse {
  readonly #call: Call
  readonly #raw: RawHeaders
  readonly #from: From
  readonly #unread: Unread
  #body: ResponseBody | undefined
  #headers: Headers | undefined
  #real: Response | undefined
  #used = false

  constructor(
    base: ReadableStream<Uint8Array> | null,
    { status, headers }: BalancerResponse,
    body: ResponseBody | undefined,
    call: Call,
    from: From,
    unread: Unread,
  ) {
    super(base, { status })
    this.#call = call
    this.#raw = headers
    this.#from = from
    this.#unread = unread
    this.#body = body
  }

  get [CALL](): Call {
    return this.#call
  }

  get headers(): Headers {
    this.#headers ??= headersOf(this.#raw)
    return this.#headers
  }

  get url(): string {
    return this.#from.url
  }

  get redirected(): boolean {
    return this.#from.redirected
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
    Object.defineProperties(copy, { url: { value: this.url }, redirected: { value: this.redirected } })
    return copy
  }

  /** The bytes, straight from the backend; undefined if they must come from the platform's Response. */
  #collect(): Promise<Uint8Array> | undefined {
    const body = this.#body
    if (this.#used || this.#real !== undefined || body === undefined) return undefined
    this.#used = true
    this.#body = undefined
    this.#unread.touched(this)
    return collect(body)
  }

  /** The platform's Response over a real stream: for everything that is not a fast path. */
  #whole(): Response {
    if (this.#real !== undefined) return this.#real
    const body = this.#body
    this.#body = undefined
    this.#unread.touched(this)
    const { status, headers } = this
    if (this.#used) {
      // Read by a fast path: what is left is a body that was read.
      this.#real = new Response('', { status, headers })
      void this.#real.body!.cancel()
    } else this.#real = new Response(body === undefined ? null : bodyStream(body, this.#unread), { status, headers })
    return this.#real
  }
}

function headersOf(raw: RawHeaders): Headers {
  const headers = new Headers()
  for (let i = 0; i < raw.length; i += 2) headers.append(latin1(raw[i]!), latin1(raw[i + 1]!))
  return headers
}
