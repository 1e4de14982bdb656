import type { Random } from '../core/contracts.ts'

/** The heaviest weight of the beginning, in units: weights are whole numbers of them, so that sums never drift. */
const UNITS = 2 ** 30
/** A draw has 53 bits, all that a number holds; `Random` gives at most 30 at once. */
const HIGH = 2 ** 26
const LOW = 2 ** 27

/**
 * A binary indexed tree of weights (Fenwick, 1994): a new weight and a draw are O(log n) each. A weight is rounded to 2^-30 of
 * the heaviest one of the beginning, but never to 0; 0 is never drawn. Later weights must not be far above that one.
 */
export class Fenwick {
  readonly #unit: number
  readonly #weights: Float64Array
  /** 1-based: `tree[i]` is the sum of the `i & -i` weights up to the i-th. */
  readonly #tree: Float64Array
  readonly #top: number
  #total = 0

  constructor(weights: ArrayLike<number>) {
    const n = weights.length
    let heaviest = 0
    for (let i = 0; i < n; i++) heaviest = Math.max(heaviest, weights[i]!)
    this.#unit = heaviest / UNITS
    this.#weights = new Float64Array(n)
    this.#tree = new Float64Array(n + 1)
    this.#top = n === 0 ? 0 : 2 ** Math.floor(Math.log2(n))
    for (let i = 0; i < n; i++) this.set(i, weights[i]!)
  }

  set(i: number, weight: number): void {
    const units = weight > 0 ? Math.max(1, Math.round(weight / this.#unit)) : 0
    const change = units - this.#weights[i]!
    if (change === 0) return
    this.#weights[i] = units
    this.#total += change
    for (let at = i + 1; at < this.#tree.length; at += at & -at) this.#tree[at]! += change
  }

  /** An index with probability proportional to its weight. Some weight is above 0. */
  draw(random: Random): number {
    const share = (random(HIGH) * LOW + random(LOW)) / (HIGH * LOW)
    let rest = Math.min(this.#total - 1, Math.floor(share * this.#total))
    let before = 0
    for (let step = this.#top; step > 0; step >>= 1) {
      const at = before + step
      if (at >= this.#tree.length || this.#tree[at]! > rest) continue
      rest -= this.#tree[at]!
      before = at
    }
    return before
  }
}
