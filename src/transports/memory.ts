import { type Duplex, duplexPair } from 'node:stream'
import { concat } from '../core/body.ts'
import { systemClock } from '../core/clock.ts'
import type {
  Attempt,
  BalancerResponse,
  BodyControl,
  BodySink,
  Clock,
  RawHeaders,
  RequestBody,
  ResponseBody,
  SendFailure,
  Stop,
  Transport,
} from '../core/contracts.ts'
import { wireHeaders } from '../core/headers.ts'
import { TunnelBody } from './tunnel.ts'

/** How a backend answers, and when. Delays are on the transport's clock. */
export interface MemoryAnswer {
  /** default 200 */
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  /** Sent chunk by chunk if it is a list. A string or bytes bring their Content-Length. Default: none, of length 0. */
  readonly body?: string | Uint8Array | readonly (string | Uint8Array)[]
  readonly trailers?: Readonly<Record<string, string>>
  /** A request for another protocol is answered 101, and this gets the backend's end of the connection; other requests as without it. */
  readonly tunnel?: (socket: Duplex) => void
  /** Until the connection is there; default 0: at once. */
  readonly connectMs?: number
  /** From there until the head; default 0. */
  readonly headMs?: number
  /** Before each chunk and the end; default 0. */
  readonly chunkMs?: number
  /** Breaks there, after the delays that come before it; 'body': after all chunks, instead of the end. */
  readonly failure?: { readonly phase: SendFailure['phase']; readonly code?: string; readonly reused?: boolean }
}

/** What a backend was sent. */
export interface MemoryRequest {
  /** Id of the backend. */
  readonly backend: string
  /** 1 for the first request this backend got. */
  readonly number: number
  readonly method: string
  readonly path: string
  /** As on the wire: values from the configuration are in it. */
  readonly headers: RawHeaders
  readonly body: Uint8Array
  /** The protocol that it asks to change to. */
  readonly upgrade: string | undefined
}

export type MemoryBackend = MemoryAnswer | ((request: MemoryRequest) => MemoryAnswer | Promise<MemoryAnswer>)

export interface MemoryTransport extends Transport {
  /** Every request, in the order they came in. */
  readonly requests: readonly MemoryRequest[]
  /** Changes how a backend answers from now on. */
  set(id: string, backend: MemoryBackend): void
}

const encoder = new TextEncoder()

/**
 * Backends that are not there: what to test your own code with. Keys are backend ids; who is not named refuses connections.
 * With a manual clock nothing happens until it moves, with the default one delays are real.
 */
export function memory(
  backends: Readonly<Record<string, MemoryBackend>>,
  options: { readonly clock?: Clock } = {},
): MemoryTransport {
  const clock = options.clock ?? systemClock
  const answers = new Map(Object.entries(backends))
  const counts = new Map<string, number>()
  const requests: MemoryRequest[] = []
  return {
    name: 'memory',
    requests,
    set: (id, backend) => void answers.set(id, backend),
    send: (attempt) =>
      new Promise((resolve, reject) => {
        const exchange = new Exchange(attempt, clock, resolve, reject)
        const { id } = attempt.backend
        const backend = answers.get(id)
        if (backend === undefined) return exchange.play({ failure: { phase: 'connect', code: 'ECONNREFUSED' } })
        const { method, path, body, upgrade } = attempt.request
        const headers = wireHeaders(attempt.request.headers)
        const answered = async (): Promise<void> => {
          const bytes = await bytesOf(body)
          if (attempt.canceled) return // before it was on its way
          const number = (counts.get(id) ?? 0) + 1
          counts.set(id, number)
          const request = { backend: id, number, method, path, headers, body: bytes, upgrade }
          requests.push(request)
          exchange.play(typeof backend === 'function' ? await backend(request) : backend)
        }
        answered().catch((cause: unknown) => exchange.fail('head', 'REQUEST_BODY', false, cause))
      }),
  }
}

/** One attempt: its delays, one after the other, and the body it pushes. */
class Exchange implements ResponseBody, BodyControl {
  readonly #attempt: Attempt
  readonly #clock: Clock
  readonly #resolve: (response: BalancerResponse) => void
  readonly #reject: (failure: SendFailure) => void
  #stop: Stop | undefined
  #sink: BodySink | undefined
  /** Waits for a reader, or for the reader to go on. */
  #held: (() => void) | undefined
  #over = false
  #phase: SendFailure['phase'] = 'connect'

  constructor(
    attempt: Attempt,
    clock: Clock,
    resolve: (response: BalancerResponse) => void,
    reject: (failure: SendFailure) => void,
  ) {
    this.#attempt = attempt
    this.#clock = clock
    this.#resolve = resolve
    this.#reject = reject
    attempt.onCancel((reason) => this.fail(this.#phase, '', false, reason))
  }

  play(answer: MemoryAnswer): void {
    const { failure } = answer
    const breaks = (phase: SendFailure['phase']): boolean => {
      if (failure?.phase !== phase) return false
      this.fail(phase, failure.code ?? '', failure.reused ?? false, new Error(failure.code ?? `failed in ${phase}`))
      return true
    }
    if (breaks('wait')) return
    this.#after(answer.connectMs, () => {
      if (breaks('connect') || breaks('tls')) return
      this.#phase = 'head'
      this.#attempt.sent()
      this.#after(answer.headMs, () => {
        if (breaks('head')) return
        this.#phase = 'body'
        const { upgrade } = this.#attempt.request
        if (upgrade !== undefined && answer.tunnel !== undefined) return this.#change(upgrade, answer.tunnel, answer)
        const { status = 200 } = answer
        const chunks = chunksOf(answer)
        const headers = [...lengthOf(answer, chunks), ...rawOf(answer.headers)]
        this.#resolve({ status, headers, body: this })
        const isBare = this.#attempt.request.method === 'HEAD' || status === 204 || status === 304
        this.#push(isBare ? [] : chunks, answer.chunkMs ?? 0, () => {
          if (breaks('body')) return
          this.#over = true
          this.#sink!.end(answer.trailers === undefined ? undefined : rawOf(answer.trailers))
        })
      })
    })
  }

  fail(phase: SendFailure['phase'], code: string, reused: boolean, cause: unknown): void {
    if (this.#over) return
    this.#over = true
    this.#stop?.()
    const unsent = phase === 'wait' || phase === 'connect' || phase === 'tls'
    const failure: SendFailure = { phase, processed: unsent ? 'no' : 'maybe', reused, code, cause }
    if (phase === 'body') this.#sink?.fail(failure)
    else this.#reject(failure)
  }

  consume(sink: BodySink): BodyControl {
    this.#sink = sink
    this.resume()
    return this
  }

  discard(): void {
    this.cancel()
  }

  resume(): void {
    const held = this.#held
    this.#held = undefined
    held?.()
  }

  cancel(): void {
    this.#over = true
    this.#stop?.()
  }

  #change(upgrade: string, tunnel: (socket: Duplex) => void, answer: MemoryAnswer): void {
    const [socket, other] = duplexPair()
    // As one connection: if an end of it breaks off, so does the other.
    const tie = (one: Duplex, another: Duplex): void => {
      one.once('close', () => {
        if (!one.readableEnded || !one.writableFinished) another.destroy()
      })
    }
    tie(socket, other)
    tie(other, socket)
    this.#over = true
    const headers = ['connection', 'Upgrade', 'upgrade', upgrade, ...rawOf(answer.headers)]
    this.#resolve({ status: 101, headers, body: new TunnelBody(socket), socket })
    tunnel(other)
  }

  /** Chunk by chunk, each after its delay, as far as the reader takes them; a loop: a list may be longer than the stack is deep. */
  #push(chunks: readonly Uint8Array[], chunkMs: number, end: () => void): void {
    let next = 0
    let due = chunkMs <= 0
    const go = (): void => {
      while (!this.#over) {
        if (!due) {
          due = true
          return this.#after(chunkMs, go)
        }
        if (this.#sink === undefined) return this.#hold(go)
        const chunk = chunks[next++]
        if (chunk === undefined) return end()
        due = chunkMs <= 0
        if (chunk.length > 0 && !this.#sink.chunk(chunk)) return this.#hold(go)
      }
    }
    go()
  }

  #hold(go: () => void): void {
    this.#held = go
  }

  #after(ms: number | undefined, run: () => void): void {
    if (this.#over) return
    if (ms === undefined || ms <= 0) return run()
    this.#stop = this.#clock.after(ms, run, true) // a caller waits
  }
}

function chunksOf({ body = '' }: MemoryAnswer): readonly Uint8Array[] {
  return typeof body === 'string' || body instanceof Uint8Array ? [asBytes(body)] : body.map(asBytes)
}

/** A list is sent in chunks, and a 204 has no length; who sets one means it. */
function lengthOf({ status, headers = {}, body }: MemoryAnswer, chunks: readonly Uint8Array[]): RawHeaders {
  if (Array.isArray(body) || status === 204) return []
  if (Object.keys(headers).some((name) => name.toLowerCase() === 'content-length')) return []
  return ['content-length', String(chunks[0]!.length)]
}

function asBytes(text: string | Uint8Array): Uint8Array {
  return typeof text === 'string' ? encoder.encode(text) : text
}

function rawOf(headers: Readonly<Record<string, string>> = {}): RawHeaders {
  return Object.entries(headers).flat()
}

async function bytesOf(body: RequestBody): Promise<Uint8Array> {
  if (body === null) return new Uint8Array(0)
  if (body instanceof Uint8Array) return body
  const chunks: Uint8Array[] = []
  for await (const chunk of body.open()) chunks.push(chunk)
  return concat(chunks)
}
