import type { OpenBody } from '../core/contracts.ts'

/** A body that a client library iterates and that ends when the exchange does, whatever its source is waiting for. */
export class Upload implements AsyncIterable<Uint8Array>, AsyncIterator<Uint8Array> {
  readonly #body: OpenBody
  #source: AsyncIterator<Uint8Array> | undefined
  #pending: ((result: IteratorResult<Uint8Array>) => void) | undefined
  #stopped = false
  /** Set if the body itself failed, which is not the backend's fault. */
  error: Error | undefined

  constructor(body: OpenBody) {
    this.#body = body
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return this
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    return new Promise((resolve, reject) => {
      if (this.#stopped) return resolve({ done: true, value: undefined })
      this.#pending = resolve
      this.#source ??= this.#body.open()[Symbol.asyncIterator]()
      this.#source.next().then(resolve, (error: unknown) => {
        this.error = asError(error)
        reject(this.error)
      })
    })
  }

  return(): Promise<IteratorResult<Uint8Array>> {
    this.stop()
    return Promise.resolve({ done: true, value: undefined })
  }

  stop(): void {
    if (this.#stopped) return
    this.#stopped = true
    this.#pending?.({ done: true, value: undefined })
    void this.#source?.return?.().catch(() => {})
  }
}

export function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}
