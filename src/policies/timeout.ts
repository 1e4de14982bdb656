import type { Attempt, AttemptTimes, Core, Policy, Stages } from '../core/contracts.ts'
import { Deadline } from '../core/deadlines.ts'
import { BalancerError } from '../core/errors.ts'

/** All of them, ms; 0 = off. */
export type AttemptTimeouts = Required<AttemptTimes>

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
        if (request.upgrade === undefined) return next(call, request)
        return next(call, request).then((response) => {
          if (response.socket !== undefined) timer.clear() // a tunnel has no end that is due
          return response
        })
      }
    },
  }
}

/** Times of one attempt, the call's own first, then the backend's: one deadline object that moves from stage to stage. */
export function timeouts(settings: AttemptTimeouts): Policy {
  return {
    name: 'timeouts',
    scope: 'attempt',
    wrap(next, core) {
      return (attempt) => {
        attempt.watch(new AttemptTimer(attempt, timesOf(attempt, settings), core))
        return next(attempt)
      }
    },
  }
}

function timesOf({ backend, call }: Attempt, settings: AttemptTimeouts): AttemptTimeouts {
  const own = backend.endpoint.timeouts
  const said = call.timeouts
  if (own === undefined && said === undefined) return settings
  return {
    connectMs: said?.connectMs ?? own?.connectMs ?? settings.connectMs,
    headersMs: said?.headersMs ?? own?.headersMs ?? settings.headersMs,
    firstByteMs: said?.firstByteMs ?? own?.firstByteMs ?? settings.firstByteMs,
    idleMs: said?.idleMs ?? own?.idleMs ?? settings.idleMs,
    attemptMs: said?.attemptMs ?? own?.attemptMs ?? settings.attemptMs,
  }
}

class AttemptTimer extends Deadline implements Stages {
  readonly #attempt: Attempt
  readonly #ms: AttemptTimeouts
  readonly #core: Core
  readonly #whole: Deadline | undefined

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
    this.set(this.#ms.headersMs, this.#attempt.sentMs)
  }

  head(): void {
    this.#whole?.clear()
    if (this.#attempt.status === 101) return this.clear() // nothing is to come that would be an answer
    const { firstByteMs, idleMs } = this.#ms
    const awaitsFirst = firstByteMs > 0 && (firstByteMs < idleMs || idleMs === 0)
    this.set(awaitsFirst ? firstByteMs : idleMs, this.#attempt.headMs)
  }

  end(): void {
    this.clear()
    this.#whole?.clear()
  }

  override expire(): void {
    const { headMs, sentMs, activeMs, firstByteMs: firstAtMs } = this.#attempt
    const { connectMs, headersMs, firstByteMs, idleMs } = this.#ms
    if (!(headMs >= 0)) {
      if (sentMs >= 0) return this.#fail('the head of the answer', headersMs)
      return this.#fail('a connection', connectMs)
    }
    const nowMs = this.#core.clock.now()
    if (firstByteMs > 0 && !(firstAtMs >= 0)) {
      const atMs = headMs + firstByteMs
      if (nowMs < atMs) return nowMs + idleMs < atMs ? this.set(idleMs, nowMs) : this.set(firstByteMs, headMs)
      return this.#fail('the first byte of the body', firstByteMs)
    }
    // Chunks do not move the deadline, they only leave their time: looked at when it matters.
    if (idleMs === 0 || nowMs - activeMs < idleMs) return this.set(idleMs, activeMs)
    this.#fail('more of the body', idleMs)
  }

  #fail(what: string, ms: number): void {
    const { backend } = this.#attempt
    this.#attempt.cancel(
      new BalancerError('TIMEOUT', `backend ${backend.id}: waited ${ms} ms for ${what}`, { backend: backend.id }),
    )
  }
}
