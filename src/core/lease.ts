import type { LiveAttempt } from './attempt.ts'
import type { Backend } from './contracts.ts'
import { Deadline, type Deadlines } from './deadlines.ts'
import { classOfError } from './outcome.ts'

/**
 * One backend, lent for any protocol: end it with exactly one of `succeed`, `fail` and `cancel`; what comes after the first is
 * ignored. With `using` a lease that was not ended is cancelled.
 */
export class Lease {
  readonly #attempt: LiveAttempt
  readonly #deadline: Deadline

  /** `expired` is told when nobody ended it within `timeoutMs` (0 = never). */
  constructor(attempt: LiveAttempt, timeoutMs: number, deadlines: Deadlines, expired: () => void) {
    this.#attempt = attempt
    this.#deadline = new Deadline(deadlines, () => {
      expired()
      this.cancel()
    })
    this.#deadline.set(timeoutMs, attempt.startMs)
    attempt.watch({ end: () => this.#deadline.clear() })
  }

  get backend(): Backend {
    return this.#attempt.backend
  }

  /** It went well: the time since `acquire` is what peak EWMA learns. */
  succeed(): void {
    this.#attempt.settle('ok', undefined)
  }

  /** It went wrong. The error is classified by its `code` or `status`, never by its message. */
  fail(error: unknown): void {
    this.#attempt.settle(classOfError(error), error)
  }

  /** It was given up, by no fault of the backend. */
  cancel(): void {
    this.#attempt.settle('cancelled', undefined)
  }

  [Symbol.dispose](): void {
    this.cancel()
  }
}
