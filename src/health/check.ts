import type { Backend, Call, Core, Probe, Stop } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { header } from '../core/headers.ts'

/** What one check has found. */
export interface Finding {
  /** Why the backend is not well; undefined if it is. */
  readonly bad: string | undefined
  /** It is well, but others are to be preferred. */
  readonly degraded: boolean
  /** It was never asked: the check waited for a connection all the time. That says nothing of its health. */
  readonly unasked: boolean
}

/** Answers with this header, whatever its value, ask that their backend be taken out at once (Envoy). */
export const TAKE_OUT = 'x-envoy-immediate-health-check-fail'
/** Why it was. */
export const ASKED = 'asked to be taken out'
/** Answers to checks with this header, whatever its value, come from a backend that is well but weak (Envoy). */
const DEGRADED = 'x-envoy-degraded'

/**
 * One check of one backend. `done` is called once, never in this tick and never after the stop. Stop it in any case: what still
 * comes of an answer that was judged by its beginning must not keep its connection.
 */
export function check(
  core: Core,
  probe: Probe,
  backend: Backend,
  timeoutMs: number,
  done: (finding: Finding) => void,
): Stop {
  const controller = new AbortController()
  const { signal } = controller
  const calls: Call[] = []
  let over = false

  const answered = (name: string): boolean =>
    calls.some(({ attempts }) => attempts.some(({ headers = [] }) => header(headers, name) !== undefined))

  const end = (bad: string | undefined, degraded = false): void => {
    if (over) return
    over = true
    stopTimer()
    const unasked = bad !== undefined && calls.at(-1)?.attempts.at(-1)?.class === 'overloaded'
    done({ bad: answered(TAKE_OUT) ? ASKED : bad, degraded: degraded || answered(DEGRADED), unasked })
  }
  const no = (failure: unknown): void => end(`${probe.name} check: ${messageOf(failure ?? 'no')}`)

  const stopTimer = core.clock.after(timeoutMs, () => {
    const error = new BalancerError('TIMEOUT', `no answer within ${timeoutMs} ms`)
    controller.abort(error) // what was sent ends in this tick, and with it is known how far it got
    no(error)
  })
  const send: Core['send'] = (to, request) => {
    signal.throwIfAborted() // a probe that goes on after its end sends nothing
    const sending = core.send(to, request)
    if (to === backend) calls.push(sending.call)
    return sending
  }
  // A probe that throws instead of rejecting says no as well.
  new Promise<unknown>((resolve) => resolve(probe.check(backend, { send, reach: core.reach, signal }))).then(
    (said) => end(undefined, said === 'degraded'),
    no,
  )
  return () => {
    over = true
    stopTimer()
    controller.abort(new BalancerError('CLOSED', 'the check is over'))
  }
}

function messageOf(failure: unknown): string {
  if (!(failure instanceof Error)) return String(failure)
  // Several addresses were tried: Node's own message is empty then.
  if (failure instanceof AggregateError && failure.message === '') return failure.errors.map(messageOf).join('; ')
  return failure.message || failure.name
}
