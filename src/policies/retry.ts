import type { BalancerResponse, Call, Core, Policy, RequestBody } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { CLASSES, classOfStatus } from '../core/outcome.ts'

export interface RetrySettings {
  /** Sends in all. */
  readonly attempts: number
  readonly status: readonly number[]
  readonly baseMs: number
  readonly maxMs: number
}

/** Pauses are drawn with this resolution, per ms. */
const STEPS_PER_MS = 1_000
/** A draw is below 2^30: pauses above this are drawn with less resolution, ms. */
const FINE_MS = 1_000_000

/**
 * Sends a call again, elsewhere, where that is safe: nothing was processed, or the call is idempotent, or the status is
 * one of those listed and the call is idempotent. One budget bounds it all; the last real answer is returned when it ends.
 */
export function retry(settings: RetrySettings): Policy {
  return {
    name: 'retry',
    scope: 'pool',
    wrap(next, core) {
      return async (call, request) => {
        core.budget.deposit(call.nowMs)
        let answer: BalancerResponse | undefined
        let reconnected = false
        let sends = 0
        for (;;) {
          let failure: unknown
          try {
            const response = await next(call, request)
            if (!isWorthAnother(response.status, call, settings) || !replayable(request.body)) {
              answer?.body.discard()
              return response
            }
            answer?.body.discard()
            answer = response
          } catch (error) {
            failure = error
          }
          const attempt = call.attempts.at(-1)
          if (call.canceled) return fail(answer, call.reason)
          // Nobody left to ask: the last real answer says more than "no backend".
          if (attempt === undefined || isNobody(failure)) return answer ?? throwIt(failure)
          const why = `${attempt.class}${attempt.status > 0 ? ` (${attempt.status})` : ''}`
          const rule = CLASSES[attempt.class!].retry
          if (rule === 'fresh' && !reconnected && call.idempotent && replayable(request.body)) {
            attempt.decision = 'its connection was old: again on a new one'
            reconnected = true // the connection was old, not the backend bad: not counted against anything
            call.again = attempt.backend
            continue
          }
          sends++
          if (failure !== undefined && !mayRepeat(rule, call, request.body)) {
            attempt.decision = `${why}: not sent again, a repeat is not safe`
            return answer ?? throwIt(failure)
          }
          const pauseMs = pause(sends, settings, core)
          const limit = limitReached(sends, pauseMs, settings, call, core)
          if (limit !== undefined) {
            attempt.decision = `${why}: not sent again, ${limit}`
            core.emit('exhausted', call, failure)
            return answer ?? throwIt(failure)
          }
          attempt.decision = `${why}: sent again after ${Math.round(pauseMs)} ms`
          core.emit('retry', call, attempt, pauseMs)
          await sleep(pauseMs, call, core) // cancelled meanwhile: `next` throws the reason
        }
      }
    },
  }
}

/** What ends the retries, in words; undefined if nothing does. The budget is asked last: asking takes from it. */
function limitReached(
  sends: number,
  pauseMs: number,
  settings: RetrySettings,
  call: Call,
  core: Core,
): string | undefined {
  if (sends >= settings.attempts) return `${settings.attempts} attempts are used up`
  if (core.clock.now() + pauseMs >= call.deadlineMs) return 'the deadline is too near'
  return core.budget.withdraw() ? undefined : 'the retry budget is used up'
}

/** Judged by the answer, not by the attempt: a policy in between may have answered in its place. */
function isWorthAnother(status: number, call: Call, settings: RetrySettings): boolean {
  return settings.status.includes(status) && call.idempotent && CLASSES[classOfStatus(status)].retry === 'status'
}

function mayRepeat(rule: string, call: Call, body: RequestBody): boolean {
  if (!replayable(body)) return false
  return rule === 'always' || (rule !== 'never' && call.idempotent)
}

function replayable(body: RequestBody): boolean {
  return body === null || body instanceof Uint8Array || body.replayable
}

function isNobody(failure: unknown): boolean {
  return (
    failure instanceof BalancerError &&
    (failure.code === 'NO_BACKEND' || failure.code === 'OVERLOADED') &&
    failure.reasons !== undefined
  )
}

/** Full jitter: a random part of an exponentially growing pause, ms. */
function pause(sends: number, settings: RetrySettings, core: Core): number {
  const ms = Math.min(settings.maxMs, settings.baseMs * 2 ** (sends - 1))
  if (ms <= 0) return 0
  return ms < FINE_MS ? core.random(Math.ceil(ms * STEPS_PER_MS)) / STEPS_PER_MS : core.random(Math.ceil(ms))
}

function sleep(ms: number, call: Call, core: Core): Promise<void> | undefined {
  if (ms <= 0 || call.canceled) return undefined
  return new Promise((resolve) => {
    const over = (): void => {
      stopCancel()
      resolve()
    }
    const stopTimer = core.clock.after(ms, over, true) // a caller waits: the process must not end meanwhile
    const stopCancel = call.onCancel(() => {
      stopTimer()
      resolve()
    })
  })
}

function fail(answer: BalancerResponse | undefined, error: unknown): never {
  answer?.body.discard()
  throw error
}

function throwIt(error: unknown): never {
  throw error
}
