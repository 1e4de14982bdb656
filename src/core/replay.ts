import type { OpenBody, RequestBody } from './contracts.ts'

/**
 * A body that can be read once, made repeatable: what was read is kept up to a limit, and opening it again starts with
 * that. Past the limit nothing is kept and `replayable` turns false. Only the latest opening goes on, until all of it is kept.
 */
export class ReplayBody implements OpenBody {
  readonly length: number | undefined
  readonly #source: AsyncIterator<Uint8Array>
  readonly #limit: number
  #kept: Uint8Array[] = []
  #keptBytes = 0
  #opening = 0
  #pulling: Promise<void> | undefined
  #done = false
  #failure: { readonly error: unknown } | undefined
  replayable = true

  constructor(source: AsyncIterable<Uint8Array>, length: number | undefined, limitBytes: number) {
    this.#source = source[Symbol.asyncIterator]()
    this.length = length
    this.#limit = limitBytes
  }

  get complete(): boolean {
    return this.#done && this.replayable && this.#failure === undefined && this.#opening > 0
  }

  open(): AsyncIterable<Uint8Array> {
    this.#opening++
    return this.#read(this.#opening)
  }

  /** The call is over: lets the source go, read to its end or not. */
  close(): void {
    this.#opening = 0
    this.#kept = []
    if (this.#done) return
    this.#done = true
    void this.#source.return?.().catch(() => {})
  }

  async *#read(opening: number): AsyncGenerator<Uint8Array, void, undefined> {
    let next = 0
    while (opening === this.#opening || this.complete) {
      const chunk = this.#kept[next]
      if (chunk !== undefined) {
        next++
        yield chunk
        // Only once the reader came back for more, and only if nobody began anew: the start must not be lost to a retry.
        if (!this.replayable && opening === this.#opening) {
          this.#kept.splice(0, next)
          next = 0
        }
      } else if (this.#failure !== undefined) throw this.#failure.error
      else if (this.#done) return
      else {
        // A pull begun for an earlier opening is waited for, not repeated: its chunk belongs to whoever reads now.
        this.#pulling ??= this.#pull()
        await this.#pulling
      }
    }
  }

  async #pull(): Promise<void> {
    try {
      const { done, value } = await this.#source.next()
      if (done === true) {
        this.#done = true
        return
      }
      this.#kept.push(value)
      this.#keptBytes += value.length
      if (this.#keptBytes > this.#limit) this.replayable = false
    } catch (error) {
      this.#failure = { error } // half a body must never look like a whole one
    } finally {
      this.#pulling = undefined
    }
  }
}

/** Whether it can be sent from its start once more. */
export function isReplayable(body: RequestBody): boolean {
  return body === null || body instanceof Uint8Array || body.replayable
}
