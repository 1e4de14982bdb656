import type { Strategy } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'

/** Refuses an option of a strategy: what, which and why. */
export function expected(holds: boolean, option: string, what: string, got: unknown): void {
  if (!holds) throw new BalancerError('CONFIG', `${option}: expected ${what}, got ${String(got)}`)
}

/**
 * Priorities are shared out by the outermost strategy: only that one is given the backends of all of them. And whose a key is must
 * not depend on who else is well, where it may not go elsewhere.
 */
export function expectedWithin(strategy: string, inner: Strategy): void {
  expected(!('whenOut' in inner), `${strategy}: inner`, "a strategy without whenOut 'fail'", inner.name)
  expected(!('overprovisioning' in inner), `${strategy}: inner`, 'a strategy without priorities of its own', inner.name)
}
