import type { Backend } from '../core/contracts.ts'
import { expected } from './expected.ts'

/** Option of every hash strategy. */
export interface BoundOptions {
  /**
   * Bounded loads (Mirrokni, Thorup and Zadimoghaddam): nobody gets a request beyond this many times its fair share, by
   * weight, of what is in flight; it goes to the next in the key's order. Above 1; usual: 1.25. Default: not bounded.
   */
  readonly bound?: number
}

export function checkBound(bound: number | undefined): void {
  const holds = bound === undefined || (bound > 1 && bound < Infinity)
  expected(holds, 'bound', 'a number above 1', bound)
}

/** Less than one request in a billion, and more than what rounding adds: a share of exactly 11 must not let a twelfth in. */
const ROUNDING = 1 - 1e-12

/**
 * Caps the requests in flight of each backend by its share of all of them: ceil(bound * (all + 1) * weight / sum of weights).
 */
export class Bound {
  readonly #list: readonly Backend[]
  readonly #perWeight: number

  /** `list`: whose requests and weights make up the whole; as it stands, slow start included. */
  constructor(bound: number, list: readonly Backend[]) {
    this.#list = list
    this.#perWeight = (bound * ROUNDING) / list.reduce((sum, { weight }) => sum + weight, 0)
  }

  /** Requests in flight in all. O(n): pickers ask only when the first choice is busy. */
  total(): number {
    const list = this.#list
    let sum = 0
    for (let i = 0; i < list.length; i++) sum += list[i]!.inflight
    return sum
  }

  /** A whole number is below the ceiling of a bound just when it is below the bound. */
  admits({ inflight, weight }: Backend, total: number): boolean {
    return inflight === 0 || inflight < this.#perWeight * weight * (total + 1)
  }
}
