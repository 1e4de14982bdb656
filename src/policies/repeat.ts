/** What retry and hedge ask about a call. */
import type { Attempt, BalancerResponse, Call, RequestBody } from '../core/contracts.ts'

/** The attempt whose answer this is; none if a policy answered in its place. A policy may have changed the headers. */
export function answered({ attempts }: Call, { headers, status }: BalancerResponse): Attempt | undefined {
  for (let i = attempts.length - 1; i >= 0; i--) if (attempts[i]!.headers === headers) return attempts[i]
  return attempts.findLast((attempt) => attempt.status === status)
}

/** Whether it can be sent from its start once more. */
export function isReplayable(body: RequestBody): boolean {
  return body === null || body instanceof Uint8Array || body.replayable
}
