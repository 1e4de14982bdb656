import { BalancerError } from '../core/errors.ts'
import { CUT, type Refusal, TOO_LARGE, TOO_SLOW } from './guard.ts'

export interface IntakeLimits {
  readonly bodyBytes: number
  /** Longest silence of the client while somebody waits for it, ms; 0 = no limit. */
  readonly idleMs: number
}

/** The body of a request as it comes in: no longer than allowed, and never waited for without end. */
export class Intake implements AsyncIterable<Uint8Array>, AsyncIterator<Uint8Array> {
  readonly #source: AsyncIterator<Uint8Array>
  readonly #limits: IntakeLimits
  readonly #begin: (() => void) | undefined
  #bytes = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  #giveUp: ((error: unknown) => void) | undefined
  #isBegun = false
  /** Why it came to nothing, which is the client's fault. */
  failure: Refusal | undefined

  /** `begin` is called when somebody first wants it. */
  constructor(source: AsyncIterable<Uint8Array>, limits: IntakeLimits, begin?: () => void) {
    this.#source = source[Symbol.asyncIterator]()
    this.#limits = limits
    this.#begin = begin
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    if (!this.#isBegun) {
      this.#isBegun = true
      this.#begin?.()
    }
    return new Promise((resolve, reject) => {
      this.#wait(reject)
      this.#source.next().then(
        (result) => {
          this.#giveUp = undefined
          if (result.done === true) this.#over()
          else this.#bytes += result.value.length
          if (this.#bytes <= this.#limits.bodyBytes) return resolve(result)
          this.#fail(TOO_LARGE, reject)
        },
        (error) => {
          this.#over()
          this.failure ??= CUT
          reject(error)
        },
      )
    })
  }

  async return(): Promise<IteratorResult<Uint8Array>> {
    this.#over()
    await this.#source.return?.()
    return { done: true, value: undefined }
  }

  /** One timer for a body, set anew for each wait: it may ring while nobody waits. */
  #wait(reject: (error: unknown) => void): void {
    const { idleMs } = this.#limits
    if (idleMs === 0) return
    this.#giveUp = reject
    if (this.#timer !== undefined) return void this.#timer.refresh()
    this.#timer = setTimeout(() => {
      if (this.#giveUp !== undefined) this.#fail(TOO_SLOW, this.#giveUp)
    }, idleMs)
    this.#timer.unref()
  }

  #fail(failure: Refusal, reject: (error: unknown) => void): void {
    this.#over()
    this.failure ??= failure
    reject(new BalancerError(failure === TOO_SLOW ? 'TIMEOUT' : 'BODY_TOO_LARGE', failure.detail))
  }

  #over(): void {
    clearTimeout(this.#timer)
    this.#giveUp = undefined
  }
}
