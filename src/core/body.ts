import type { BodyControl, BodySink, RawHeaders, ResponseBody } from './contracts.ts'

/** Taken in while nobody reads, bytes: small answers end by themselves, larger ones pause their connection. */
export const UNREAD_BYTES = 65_536

/** Never pushed to: an array that is made with its first element takes a tenth of the memory of one that grows. */
const NO_CHUNKS: Uint8Array[] = []

/** Whom a body tells what became of it: its attempt. */
export interface BodyOwner {
  /** A sign of life. */
  active(): void
  /** The backend's last byte is in. */
  ended(): void
  /** The transport failed; returns the error the reader gets. */
  failed(failure: unknown): unknown
  /** The reader gives up. */
  cancel(reason: unknown): void
}

/**
 * Stands between a transport and whoever reads. It consumes the transport's body at once, whether or not somebody reads, so
 * that the end of every body is seen exactly once and a lease can end without a reader.
 */
export class Body implements ResponseBody, BodySink, BodyControl {
  readonly #owner: BodyOwner
  /** It has no end of its own: nobody can wait for it. */
  readonly #isEndless: boolean
  #source: BodyControl | undefined
  #sink: BodySink | undefined
  #early: Uint8Array[] = NO_CHUNKS
  #earlyBytes = 0
  #state: 'open' | 'ended' | 'failed' = 'open'
  #mode: 'unread' | 'read' | 'discarded' = 'unread'
  /** The sink asked to wait. */
  #paused = false
  /** The sink called resume while it was being given a chunk. */
  #resumed = false
  #delivering = false
  /** Nothing is waited for any more, whatever the reader answered to its last chunk. */
  #aborted = false
  #trailers: RawHeaders | undefined
  #error: unknown
  #settled: (() => void) | undefined
  /** The transport was asked to wait. */
  blocked = false

  constructor(owner: BodyOwner, source: ResponseBody, isEndless = false) {
    this.#owner = owner
    this.#isEndless = isEndless
    const control = source.consume(this)
    if (this.#state === 'open') this.#source = control
  }

  // --- the transport's side

  chunk(data: Uint8Array): boolean {
    if (this.#state !== 'open') return true
    if (data.length === 0) return !this.blocked // parsers make them; readers could take one for the end
    this.#owner.active()
    if (this.#mode === 'read' && !this.#paused && this.#early.length === 0 && !this.#delivering) {
      this.#give(data)
      if (this.settled) this.#flush() // aborted from within the chunk
      this.blocked = this.#paused
      return !this.blocked
    }
    this.#earlyBytes += data.length
    if (this.#mode === 'discarded') {
      if (this.#earlyBytes > UNREAD_BYTES) this.#owner.cancel(new Error('discarded'))
      return true
    }
    if (this.#early.length === 0) this.#early = [data]
    else this.#early.push(data)
    this.blocked = this.#mode === 'read' || this.#earlyBytes > UNREAD_BYTES
    return !this.blocked
  }

  end(trailers?: RawHeaders): void {
    if (this.#state !== 'open') return
    this.#trailers = trailers
    this.#finish('ended')
    this.#owner.ended()
    this.#flush()
  }

  fail(failure: unknown): void {
    if (this.#state !== 'open') return
    this.#finish('failed')
    this.#error = this.#owner.failed(failure)
    this.#flush()
  }

  // --- the attempt's side

  /** Ends it now: the transport lets go, the reader gets `error` in this tick. Returns false if it had ended before. */
  abort(reason: unknown, error: unknown): boolean {
    if (this.#state !== 'open') return false
    const source = this.#source
    this.#finish('failed')
    this.#error = error
    this.#early = NO_CHUNKS
    this.#paused = false
    this.#aborted = true
    source?.cancel(reason)
    this.#flush()
    return true
  }

  /** The backend's last byte is in, or never will be. */
  get settled(): boolean {
    return this.#state !== 'open'
  }

  /** Resolves when the whole body is in, rejects when it broke; undefined if it is in already. */
  whole(): Promise<void> | undefined {
    if (this.#state === 'ended') return undefined
    return new Promise((resolve, reject) => {
      const settle = (): void => (this.#state === 'ended' ? resolve() : reject(this.#error))
      if (this.#state === 'failed') return settle()
      this.#settled = () => void Promise.resolve().then(settle) // the owner hears of the end first
    })
  }

  // --- the reader's side

  consume(sink: BodySink): BodyControl {
    this.#claim('read')
    this.#sink = sink
    this.#flush()
    return this
  }

  discard(): void {
    this.#claim('discarded')
    if (this.#isEndless) return this.cancel(new Error('discarded'))
    this.#early = NO_CHUNKS
    this.#unblock()
  }

  resume(): void {
    this.#resumed = true
    if (!this.#paused) return
    this.#paused = false
    this.#flush()
  }

  cancel(reason: unknown): void {
    this.#sink = undefined
    this.#early = NO_CHUNKS
    this.#mode = 'discarded'
    if (this.#state === 'open') this.#owner.cancel(reason)
  }

  // --- inside

  #claim(mode: 'read' | 'discarded'): void {
    if (this.#mode !== 'unread') throw new Error('the body was consumed or discarded before')
    this.#mode = mode
  }

  #finish(state: 'ended' | 'failed'): void {
    this.#state = state
    this.#source = undefined
    const settled = this.#settled
    this.#settled = undefined
    settled?.()
  }

  #give(data: Uint8Array): void {
    this.#resumed = false
    this.#delivering = true
    let more = true
    try {
      more = this.#sink!.chunk(data)
    } catch (error) {
      this.cancel(error) // a reader that throws has given up
    }
    this.#delivering = false
    this.#paused = !more && !this.#resumed && !this.#aborted
  }

  /** Hands over what is waiting, in order, as far as the sink takes it; then the end, once. */
  #flush(): void {
    if (this.#sink === undefined || this.#delivering) return
    let next = 0
    while (next < this.#early.length && !this.#paused) {
      this.#give(this.#early[next++]!)
      if (this.#sink === undefined) return
    }
    if (next > 0) this.#early = next < this.#early.length ? this.#early.slice(next) : NO_CHUNKS
    if (this.#paused || this.#early.length > 0) return
    if (this.#state === 'open') return this.#unblock()
    const sink = this.#sink
    this.#sink = undefined
    if (this.#state === 'ended') sink.end(this.#trailers)
    else sink.fail(this.#error)
  }

  #unblock(): void {
    if (!this.blocked) return
    this.blocked = false
    this.#owner.active() // the silence until now was the reader's
    this.#source?.resume()
  }
}

/** A body that is already there: what a policy answers with when it sends nothing, and what tests use. */
export function bodyOf(chunks: readonly Uint8Array[] = [], trailers?: RawHeaders): ResponseBody {
  return {
    consume(sink) {
      let next = 0
      let open = true
      const flow = (): void => {
        while (open && next < chunks.length) if (!sink.chunk(chunks[next++]!)) return
        if (!open) return
        open = false
        sink.end(trailers)
      }
      flow()
      return {
        resume: flow,
        cancel: () => {
          open = false
        },
      }
    },
    discard() {},
  }
}

/** Chunks in one piece, copied. */
export function concat(chunks: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0))
  let at = 0
  for (const chunk of chunks) {
    out.set(chunk, at)
    at += chunk.length
  }
  return out
}
