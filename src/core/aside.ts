import { type Lender, type LentBy, LiveAttempt, perform } from './attempt.ts'
import type { BackendRecord } from './backend.ts'
import { LiveCall, type Sending } from './call.ts'
import type { Backend, BalancerRequest, Clock, Transport } from './contracts.ts'
import { BalancerError } from './errors.ts'
import { CLASSES } from './outcome.ts'

/** No gate let it through, no strategy chose it, and it is judged by the table alone. */
const NOBODY: LentBy = {
  gates: [],
  chooser: { build: () => () => undefined },
  classes: CLASSES,
  classify: undefined,
}

/**
 * Sends to one backend beside the traffic, as probes do: over its own transport and TLS, outside counters, gates, policies and
 * latency. Like any call it must be ended: by reading or discarding the body, or by `call.cancel`.
 */
export function sendAside(
  record: BackendRecord,
  request: BalancerRequest,
  transport: Transport,
  clock: Clock,
): Sending {
  const nowMs = clock.now()
  const call = new LiveCall(request, {}, nowMs)
  const lender: Lender = {
    now: () => clock.now(),
    headed: () => {},
    report: () => {},
    met: () => {},
    settled: () => {
      call.live--
    },
  }
  const attempt = new LiveAttempt(call, record, record.requestFor(request), false, lender, NOBODY)
  call.add(attempt)
  return { call, response: perform(attempt, transport) }
}

/** Opening a connection and closing it again, where a transport can do that. */
export function reachOf(transport: Transport): (backend: Backend, signal: AbortSignal) => Promise<void> {
  if (transport.reach !== undefined) return (backend, signal) => transport.reach!(backend, signal)
  const error = new BalancerError('CONFIG', `health.active.type 'tcp': the transport ${transport.name} has no reach()`)
  return () => Promise.reject(error)
}
