import { Body } from '../core/body.ts'
import type { Attempt, BalancerResponse, Policy } from '../core/contracts.ts'
import { header } from '../core/headers.ts'

/**
 * Hands small answers to repeatable requests over whole: a cut in one is then a failed attempt, and retried by rule. It
 * costs nothing when head and body arrive together. Chunked answers, event streams and unknown lengths are never held.
 */
export function hold(bytes: number): Policy {
  return {
    name: 'hold',
    scope: 'attempt',
    wrap(next) {
      const held = (attempt: Attempt, response: BalancerResponse): BalancerResponse | Promise<BalancerResponse> => {
        const { body } = response
        if (!attempt.call.idempotent || response.socket !== undefined || !(body instanceof Body)) return response
        const length = header(response.headers, 'content-length')
        if (length === undefined || !(Number(length) <= bytes) || attempt.request.method === 'HEAD') return response
        return body.whole()?.then(() => response) ?? response
      }
      return (attempt) => next(attempt).then((response) => held(attempt, response))
    },
  }
}
