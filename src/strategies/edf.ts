import type { Backend, Random, Strategy } from '../core/contracts.ts'
import type { EdfOptions } from '../core/strategy-options.ts'
import { expected, expectedOptions } from './expected.ts'

/** Virtual time between two turns of the heaviest. Sums of whole numbers are exact for 2^21 of them, so that ties stay ties. */
const SHORTEST = 2 ** 32
/** No time between two turns is longer: sums stay finite, whatever the weights. */
const LONGEST = 2 ** 100
/** Steps of a random first turn. */
const STEPS = 2 ** 30

/**
 * Weighted round robin by earliest deadline first (Envoy, gRFC A58): a turn comes 1 / weight after the one before, first come
 * first served among equals. O(log n), so the choice for many backends; up to about 64 `weightedRoundRobin` spreads turns more
 * evenly. Everybody's first turn is random within its time, so that many processes do not march in step.
 */
export function edf(options: EdfOptions = {}): Strategy {
  expectedOptions('edf', options)
  const { bias = 0 } = options
  expected(bias >= 0 && bias < Infinity, 'edf: bias', 'a finite number >= 0', bias)
  return {
    name: bias === 0 ? 'edf' : `edf(${bias})`,
    start({ random }) {
      let last: Turns | undefined
      return {
        build(members) {
          const eligible = [...members.eligible] // reading a frozen array is slower
          const n = eligible.length
          if (n === 0) return () => undefined
          if (n === 1) return () => eligible[0]
          const idle = periodsOf(Float64Array.from(eligible, ({ weight }) => weight))
          const loaded = (i: number): number => Math.min(LONGEST, idle[i]! * (eligible[i]!.inflight + 1) ** bias)
          const turns = new Turns(eligible, bias === 0 ? idle : idle.map((_, i) => loaded(i)), random, last)
          const { periods } = turns
          return () => {
            last = turns // only now: a change that is tried but not made must not count
            const i = turns.first
            if (bias > 0) periods[i] = loaded(i)
            turns.requeue()
            return eligible[i]
          }
        },
      }
    },
  }
}

/** Virtual time between two turns, by weight; written to `into` if that is given. */
export function periodsOf(weights: Float64Array, into: Float64Array = new Float64Array(weights.length)): Float64Array {
  let heaviest = 0
  for (let i = 0; i < weights.length; i++) heaviest = Math.max(heaviest, weights[i]!)
  for (let i = 0; i < weights.length; i++) {
    into[i] = weights[i]! > 0 ? Math.min(LONGEST, Math.round(SHORTEST * (heaviest / weights[i]!))) : LONGEST
  }
  return into
}

/** Whose turn comes when: a binary heap of indexes by (time of the turn, order of queueing). Nothing is allocated after `new`. */
export class Turns {
  /** From one turn to the next, by index: what `requeue` adds. */
  readonly periods: Float64Array
  readonly #backends: readonly Backend[]
  readonly #atTimes: Float64Array
  readonly #serials: Int32Array
  readonly #heap: Int32Array
  #serial: number

  /** Who was in `before` waits on for the same share of its period; who was not waits for a random part of it. */
  constructor(backends: readonly Backend[], periods: Float64Array, random: Random, before: Turns | undefined) {
    this.#backends = backends
    this.periods = Float64Array.from(periods)
    this.#atTimes = new Float64Array(backends.length)
    this.#serials = new Int32Array(backends.length)
    this.#heap = Int32Array.from(backends.keys())
    this.#serial = before === undefined ? 0 : before.#serial
    const kept = before === undefined ? undefined : before.#waits()
    for (const [i, backend] of backends.entries()) {
      const wait = kept?.get(backend)
      this.#atTimes[i] = Math.round(periods[i]! * (wait?.share ?? (1 + random(STEPS)) / STEPS))
      this.#serials[i] = wait?.serial ?? this.#next()
    }
    this.#heapify()
  }

  /** Whose turn it is. */
  get first(): number {
    return this.#heap[0]!
  }

  /** The first has had its turn: its next one comes a period later. */
  requeue(): void {
    const i = this.#heap[0]!
    this.#atTimes[i]! += this.periods[i]!
    this.#serials[i] = this.#next()
    this.#sink(0)
  }

  /** Other periods: everybody waits on for the same share of its own. */
  reweigh(periods: Float64Array): void {
    const now = this.#now()
    for (let i = 0; i < periods.length; i++) {
      this.#atTimes[i] = Math.round((this.#atTimes[i]! - now) * (periods[i]! / this.periods[i]!))
    }
    this.periods.set(periods)
    this.#heapify()
  }

  /** What is left of everybody's wait, as a share of its period, and its place among equals. */
  #waits(): ReadonlyMap<Backend, { readonly share: number; readonly serial: number }> {
    const now = this.#now()
    return new Map(
      this.#backends.map((backend, i) => {
        return [backend, { share: (this.#atTimes[i]! - now) / this.periods[i]!, serial: this.#serials[i]! }]
      }),
    )
  }

  #now(): number {
    return this.#atTimes[this.#heap[0]!]!
  }

  /** It wraps around: only its order matters, and only between turns that are due at the same time. */
  #next(): number {
    this.#serial = (this.#serial + 1) | 0
    return this.#serial
  }

  #heapify(): void {
    for (let at = (this.#heap.length >> 1) - 1; at >= 0; at--) this.#sink(at)
  }

  #sink(at: number): void {
    const heap = this.#heap
    const n = heap.length
    const moved = heap[at]!
    for (let child = 2 * at + 1; child < n; child = 2 * at + 1) {
      if (child + 1 < n && this.#isSooner(heap[child + 1]!, heap[child]!)) child++
      if (!this.#isSooner(heap[child]!, moved)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = moved
  }

  #isSooner(a: number, b: number): boolean {
    const gap = this.#atTimes[a]! - this.#atTimes[b]!
    return gap < 0 || (gap === 0 && ((this.#serials[a]! - this.#serials[b]!) | 0) < 0)
  }
}
