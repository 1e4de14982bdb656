import type { LiveAttempt } from './attempt.ts'
import type { Backend, Lease } from './contracts.ts'
import { Deadline, type Deadlines } from './deadlines.ts'
import { classOfError, statusOf } from './outcome.ts'

/** A lease on an attempt that no transport carries. */
export class LiveLease implements Lease {
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

  succeed(): void {
    this.#attempt.settle('ok', undefined)
  }

  fail(error: unknown): void {
    this.#attempt.settle(classOfError(error), error, statusOf(error))
  }

  cancel(): void {
    this.#attempt.settle('cancelled', undefined)
  }

  [Symbol.dispose](): void {
    this.cancel()
  }
}
