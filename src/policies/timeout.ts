import type { Attempt, Core, Policy, Stages } from '../core/contracts.ts'
import { Deadline } from '../core/deadlines.ts'
import { BalancerError } from '../core/errors.ts'

export interface AttemptTimeouts {
  readonly connectMs: number
  readonly headersMs: number
  readonly idleMs: number
  readonly attemptMs: number
}

/** The whole call: `timeoutMs` of the call, or `totalMs`. */
export function deadline(): Policy {
  return {
    name: 'deadline',
    scope: 'pool',
    wrap(next, core) {
      return (call, request) => {
        if (call.deadlineMs === Infinity) return next(call, request)
        const ms = Math.max(1, Math.round(call.deadlineMs - call.nowMs)) // 0 would be no limit
        const timer = new Deadline(core.deadlines, () =>
          call.cancel(new BalancerError('TIMEOUT', `no complete answer within ${ms} ms`)),
        )
        timer.set(ms, call.nowMs)
        call.onEnd(() => timer.clear())
        return next(call, request)
      }
    },
  }
}

/** Times of one attempt: one deadline object that moves from stage to stage. */
export function timeouts(ms: AttemptTimeouts): Policy {
  return {
    name: 'timeouts',
    scope: 'attempt',
    wrap(next, core) {
      return (attempt) => {
        attempt.watch(new AttemptTimer(attempt, ms, core))
        return next(attempt)
      }
    },
  }
}

class AttemptTimer extends Deadline implements Stages {
  readonly #attempt: Attempt
  readonly #ms: AttemptTimeouts
  readonly #core: Core
  readonly #whole: Deadline | undefined
  #waitingFor = 'a connection'

  constructor(attempt: Attempt, ms: AttemptTimeouts, core: Core) {
    super(core.deadlines)
    this.#attempt = attempt
    this.#ms = ms
    this.#core = core
    this.set(ms.connectMs, attempt.startMs)
    if (ms.attemptMs === 0) return
    this.#whole = new Deadline(core.deadlines, () => this.#fail('an answer', ms.attemptMs))
    this.#whole.set(ms.attemptMs, attempt.startMs)
  }

  sent(): void {
    this.#waitingFor = 'the head of the answer'
    this.set(this.#ms.headersMs, this.#attempt.sentMs)
  }

  head(): void {
    this.#whole?.clear()
    this.#waitingFor = 'more of the body'
    this.set(this.#ms.idleMs, this.#attempt.headMs)
  }

  end(): void {
    this.clear()
    this.#whole?.clear()
  }

  override expire(): void {
    if (this.#attempt.headMs >= 0) {
      // Chunks do not move the deadline, they only leave their time: looked at when it matters.
      const silentMs = this.#core.clock.now() - this.#attempt.activeMs
      if (silentMs < this.#ms.idleMs) return this.set(this.#ms.idleMs, this.#attempt.activeMs)
      return this.#fail(this.#waitingFor, this.#ms.idleMs)
    }
    this.#fail(this.#waitingFor, this.#attempt.sentMs >= 0 ? this.#ms.headersMs : this.#ms.connectMs)
  }

  #fail(what: string, ms: number): void {
    const { backend } = this.#attempt
    this.#attempt.cancel(
      new BalancerError('TIMEOUT', `backend ${backend.id}: waited ${ms} ms for ${what}`, { backend: backend.id }),
    )
  }
}
