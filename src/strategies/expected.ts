import type { Strategy } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'

/** Refuses an option of a strategy: what, which and why. */
export function expected(holds: boolean, option: string, what: string, got: unknown): void {
  if (!holds) throw new BalancerError('CONFIG', `${option}: expected ${what}, got ${gotText(got)}`)
}

/** Where nothing checks types, options may be anything. */
export function expectedOptions(strategy: string, options: unknown): void {
  expected(typeof options === 'object' && options !== null, strategy, 'an object of options', options)
}

/**
 * Priorities are shared out by the outermost strategy: only that one is given the backends of all of them. And whose a key is must
 * not depend on who else is well, where it may not go elsewhere.
 */
export function expectedWithin(strategy: string, inner: Strategy): void {
  const isStrategy = typeof inner === 'object' && inner !== null && typeof inner.start === 'function'
  expected(isStrategy, `${strategy}: inner`, 'a strategy, such as auto()', inner)
  expected(!('whenOut' in inner), `${strategy}: inner`, "a strategy without whenOut 'fail'", inner.name)
  expected(!('overprovisioning' in inner), `${strategy}: inner`, 'a strategy without priorities of its own', inner.name)
}

function gotText(got: unknown): string {
  if (typeof got === 'function') return 'a function'
  if (typeof got !== 'object' || got === null) return String(got)
  return Array.isArray(got) ? 'an array' : 'an object'
}
