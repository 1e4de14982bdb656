import type { AttemptHandler, CallHandler, Core, Policy } from './contracts.ts'
import { wrapped } from './part-checks.ts'

/** Composes policies of one scope around a handler, outermost first. */
export function composeCalls(
  policies: readonly Policy[],
  scope: 'balancer' | 'pool',
  core: Core,
  inner: CallHandler,
): CallHandler {
  return policies.reduceRight<CallHandler>(
    (next, policy) => (policy.scope === scope ? wrapped(policy, () => policy.wrap(next, core)) : next),
    inner,
  )
}

export function composeAttempts(policies: readonly Policy[], core: Core, inner: AttemptHandler): AttemptHandler {
  return policies.reduceRight<AttemptHandler>(
    (next, policy) => (policy.scope === 'attempt' ? wrapped(policy, () => policy.wrap(next, core)) : next),
    inner,
  )
}
