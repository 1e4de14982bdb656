import type { Clock } from './contracts.ts'

export interface BudgetOptions {
  /** Repeats per first send, 0..1. */
  readonly share: number
  /** Repeats per second allowed on top, so that little traffic can retry too. */
  readonly perSecond: number
  /** How long a deposit counts, ms. */
  readonly windowMs: number
}

const SLICES = 10
/** A thousand deposits of 0.2 add up to a little less than 200. */
const ROUNDING = 1e-9

/**
 * The one budget of retries and hedges (Finagle's leaky token bucket): each call deposits `share` of a repeat, each repeat
 * takes one; what is older than the window is forgotten. The reserve of `perSecond * window` is there from the start.
 */
export class Budget {
  readonly #clock: Clock
  readonly #share: number
  readonly #reserve: number
  readonly #sliceMs: number
  readonly #balances = new Float64Array(SLICES)
  #slice: number

  constructor(options: BudgetOptions, clock: Clock) {
    this.#clock = clock
    this.#share = options.share
    this.#reserve = (options.perSecond * options.windowMs) / 1000
    this.#sliceMs = options.windowMs / SLICES
    this.#slice = Math.floor(clock.now() / this.#sliceMs)
  }

  /** A call begins. */
  deposit(nowMs: number): void {
    this.#advance(nowMs)
    this.#balances[this.#slice % SLICES]! += this.#share
  }

  /** Takes one repeat, or refuses. */
  withdraw(): boolean {
    this.#advance(this.#clock.now())
    if (this.#sum() + this.#reserve < 1 - ROUNDING) return false
    this.#balances[this.#slice % SLICES]! -= 1
    return true
  }

  /** Repeats that could be taken now. */
  left(): number {
    this.#advance(this.#clock.now())
    return Math.max(0, this.#sum() + this.#reserve)
  }

  #advance(nowMs: number): void {
    const slice = Math.floor(nowMs / this.#sliceMs)
    if (slice <= this.#slice) return
    for (let i = Math.max(this.#slice + 1, slice - SLICES + 1); i <= slice; i++) this.#balances[i % SLICES] = 0
    this.#slice = slice
  }

  #sum(): number {
    let sum = 0
    for (const balance of this.#balances) sum += balance
    return sum
  }
}

export function sameBudget(a: BudgetOptions, b: BudgetOptions): boolean {
  return a.share === b.share && a.perSecond === b.perSecond && a.windowMs === b.windowMs
}
