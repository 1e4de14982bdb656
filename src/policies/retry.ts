import { answeredBy } from '../core/call.ts'
import type { Attempt, BalancerResponse, Call, Core, Policy, RequestBody } from '../core/contracts.ts'
import { BalancerError, type BalancerErrorCode } from '../core/errors.ts'
import { type ClassRule, classOfStatus } from '../core/outcome.ts'
import { isReplayable } from '../core/replay.ts'
import { retryAfterMs } from '../core/retry-after.ts'
import { fits } from '../core/selection.ts'

export interface RetrySettings {
  /** Sends in all. */
  readonly attempts: number
  readonly status: readonly number[]
  /** First pause before another backend gets it, ms; 0 = no pauses at all. */
  readonly baseMs: number
  /** First pause before the same backend gets it again, ms. */
  readonly sameBaseMs: number
  readonly maxMs: number
  readonly jitter: 'full' | 'equal' | 'decorrelated' | 'none'
  /** Longest time that backends may ask to be left alone for a call to wait it out, ms. */
  readonly waitMs: number
}

/** Timers are told in whole ms: one that was set later may run a moment before one that is due then, ms. */
const LATER_MS = 2
/** Pauses are drawn with this resolution, per ms. */
const STEPS_PER_MS = 1_000
/** Nobody has to be left alone. */
const NOT_ASKED = { askedMs: 0, waitMs: 0 } as const
/** A cool-down lasts at most this many times as long as was said (health/cooldown.ts). */
const MOST_DRAWN = 1.1
/** A draw is below 2^30: pauses above this are drawn with less resolution, ms. */
const FINE_MS = 1_000_000

/**
 * Sends a call again, elsewhere, where the class of its attempt allows it: nothing was processed, or the call is idempotent and,
 * for an answer, its status is listed. One budget bounds it all; the last real answer is returned when it ends.
 */
export function retry(settings: RetrySettings): Policy {
  return {
    name: 'retry',
    scope: 'pool',
    wrap(next, core) {
      return async (call, request) => {
        let answer: BalancerResponse | undefined
        let reconnected = false
        let waitedMs = 0
        let sends = 0
        let pauseMs = 0
        for (;;) {
          let failure: unknown
          let attempt: Attempt | undefined
          const before = call.attempts.length
          try {
            const response = await next(call, request)
            attempt = answeredBy(call, response)
            const rule = attempt?.rule ?? core.classes[classOfStatus(response.status)]
            if (!isWorthAnother(rule, response.status, call, settings) || !isReplayable(request.body)) {
              answer?.body.discard()
              return response
            }
            answer?.body.discard()
            answer = response
          } catch (error) {
            failure = error
            attempt = failed(call, before)
          } finally {
            if (before === 0 && call.attempts.length > 0) core.budget.deposit(call.attempts[0]!.startMs)
          }
          if (call.canceled) return fail(answer, call.reason)
          if (isNobody(failure, 'NO_BACKEND')) {
            // Everybody asked to be left alone, and soon it is over: no request was made, so none is repeated by it.
            const waitMs = coolMs(call, core)
            if (waitMs !== undefined && waitedMs + waitMs <= settings.waitMs && isInTime(waitMs, call, core)) {
              const spreadMs = LATER_MS + drawn(settings.sameBaseMs, core)
              waitedMs += waitMs + spreadMs
              await sleep(waitMs + spreadMs, call, core)
              continue
            }
          }
          // Nobody left to ask: the last real answer says more than "no backend". Or a policy did not wait for its attempt.
          if (attempt?.rule === undefined || isNobody(failure)) return answer ?? throwIt(failure)
          const why = `${attempt.class}${attempt.status > 0 ? ` (${attempt.status})` : ''}`
          const rule = attempt.rule.retry
          if (rule === 'fresh' && !reconnected && call.idempotent && isReplayable(request.body)) {
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
          const elsewhere = hasAnother(attempt, core)
          pauseMs = pause(sends, pauseMs, elsewhere, settings, core)
          const { askedMs, waitMs } = elsewhere ? NOT_ASKED : leftAlone(attempt, core)
          const sleepMs = waitMs + pauseMs // drawn, so that not everybody returns in the same moment
          const limit =
            askedMs > Math.max(0, settings.waitMs - waitedMs)
              ? `it asks to be left alone for ${Math.round(askedMs)} ms`
              : limitReached(sends, sleepMs, settings, call, core)
          if (limit !== undefined) {
            attempt.decision = `${why}: not sent again, ${limit}`
            core.emit('exhausted', call, failure)
            return answer ?? throwIt(failure)
          }
          attempt.decision = `${why}: sent again after ${Math.round(sleepMs)} ms`
          waitedMs += waitMs
          core.emit('retry', call, attempt, sleepMs)
          await sleep(sleepMs, call, core) // cancelled meanwhile: `next` throws the reason
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
  if (!isInTime(pauseMs, call, core)) return 'the deadline is too near'
  return core.budget.withdraw() ? undefined : 'the retry budget is used up'
}

/** The attempt a failure is about: the last one that was not given up in favour of another. */
function failed({ attempts }: Call, before: number): Attempt | undefined {
  const ours = attempts.slice(before)
  return ours.findLast((attempt) => attempt.class !== 'cancelled') ?? ours.at(-1)
}

function isWorthAnother({ retry: rule }: ClassRule, status: number, call: Call, settings: RetrySettings): boolean {
  if (rule === 'status') return call.idempotent && settings.status.includes(status)
  return rule === 'always' || (rule === 'safe' && call.idempotent)
}

function mayRepeat(rule: string, call: Call, body: RequestBody): boolean {
  if (!isReplayable(body)) return false
  return rule === 'always' || (rule !== 'never' && call.idempotent)
}

/** Whether nobody could be picked, by the given code or any. */
function isNobody(failure: unknown, code?: BalancerErrorCode): boolean {
  if (!(failure instanceof BalancerError) || failure.reasons === undefined) return false
  return code === undefined ? failure.code === 'NO_BACKEND' || failure.code === 'OVERLOADED' : failure.code === code
}

function isInTime(ms: number, call: Call, core: Core): boolean {
  return core.clock.now() + ms < call.deadlineMs
}

/** Whether somebody else can take it at once: in panic, backends with reasons against them do not count. */
function hasAnother({ backend, call }: Attempt, core: Core): boolean {
  return core.members().eligible.some((other) => other !== backend && other.reasons.size === 0 && fits(other, call))
}

/** How long nobody is to be asked, as was said, and how long to wait for it, which is a little more; ms, 0 = not at all. */
function leftAlone({ backend, call, headers, rule }: Attempt, core: Core): { askedMs: number; waitMs: number } {
  if (rule!.cool === 'none') return NOT_ASKED
  const saidMs = headers === undefined ? undefined : retryAfterMs(headers, core.clock)
  if (saidMs === undefined && !backend.reasons.has('rate-limit')) return NOT_ASKED
  const untilCoolMs = coolMs(call, core) ?? Infinity
  const cools = backend.reasons.has('rate-limit')
  if (!cools || untilCoolMs === Infinity) {
    const ms = Math.min(saidMs ?? 0, untilCoolMs)
    return { askedMs: ms, waitMs: ms }
  }
  // Cool-downs are drawn a little longer than was said: that is no reason to give up.
  const isDrawn = saidMs !== undefined && untilCoolMs <= saidMs * MOST_DRAWN
  return { askedMs: isDrawn ? Math.min(saidMs, untilCoolMs) : untilCoolMs, waitMs: untilCoolMs + LATER_MS }
}

/** Until the first that the call may use comes back, of those that only a rate limit keeps away, ms; undefined if there is none. */
function coolMs(call: Call, core: Core): number | undefined {
  let soonest: number | undefined
  for (const backend of core.members().all) {
    const { reasons, weight } = backend
    const untilMs = reasons.get('rate-limit')?.untilMs
    if (untilMs === undefined || reasons.size > 1 || weight === 0 || !fits(backend, call)) continue
    soonest = Math.min(soonest ?? Infinity, untilMs)
  }
  return soonest === undefined ? undefined : Math.max(0, soonest - core.clock.now())
}

/** The pause before the next send, ms, drawn as the settings say; `lastMs` is the one before. */
function pause(sends: number, lastMs: number, elsewhere: boolean, settings: RetrySettings, core: Core): number {
  const { jitter, maxMs } = settings
  const baseMs = elsewhere || settings.baseMs === 0 ? settings.baseMs : settings.sameBaseMs
  if (jitter === 'decorrelated') {
    const mostMs = 3 * Math.max(lastMs, baseMs)
    return Math.min(maxMs, baseMs + drawn(mostMs - baseMs, core))
  }
  const ms = Math.min(maxMs, baseMs * 2 ** (sends - 1))
  if (jitter === 'none') return ms
  return jitter === 'full' ? drawn(ms, core) : ms / 2 + drawn(ms / 2, core)
}

/** A time in [0, ms). */
function drawn(ms: number, core: Core): number {
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
