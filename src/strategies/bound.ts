import type { Backend } from '../core/contracts.ts'
import { expected } from './expected.ts'

export function checkBound(strategy: string, bound: number | undefined): void {
  const holds = bound === undefined || (bound > 1 && bound < Infinity)
  expected(holds, `${strategy}: bound`, 'a number above 1', bound)
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
