import type { Call, Criticality } from '../core/contracts.ts'

export type QueueOrder = 'fifo' | 'lifo' | 'adaptive'

/** Who waits: its place is given by its class and by when it came. */
export interface Place {
  readonly call: Call
  /** Its number among all that came, kept when it comes back. */
  readonly arrival: number
  /** Since when, clock time in ms. */
  readonly sinceMs: number
}

/** Classes that may wait, the first to be served first. */
const RANKS: readonly Criticality[] = ['critical', 'default']

/** 0 is served first; below 0: never waits. */
export function rankOf({ criticality }: Call): number {
  return RANKS.indexOf(criticality)
}

/** Calls that wait, by class; arrays in order of arrival, which for queues that are worth having beat a linked list. */
export class Queue<Waiter extends Place> {
  readonly #order: QueueOrder
  readonly #overloadMs: number
  readonly #classes: readonly Waiter[][] = RANKS.map(() => [])
  #size = 0
  /** Somebody has been waiting since then. */
  #busySinceMs = 0

  constructor(order: QueueOrder, overloadMs: number) {
    this.#order = order
    this.#overloadMs = overloadMs
  }

  get size(): number {
    return this.#size
  }

  add(waiter: Waiter): void {
    if (this.#size++ === 0) this.#busySinceMs = waiter.sinceMs
    const line = this.#lineOf(waiter)
    let at = line.length
    while (at > 0 && line[at - 1]!.arrival > waiter.arrival) at--
    line.splice(at, 0, waiter)
  }

  /** It must be waiting. */
  remove(waiter: Waiter): void {
    const line = this.#lineOf(waiter)
    line.splice(line.indexOf(waiter), 1)
    this.#size--
  }

  /** Whose turn it is among those that may go. */
  first(nowMs: number, mayGo: (waiter: Waiter) => boolean): Waiter | undefined {
    const newest = this.#newestFirst(nowMs)
    for (const line of this.#classes) {
      const found = newest ? line.findLast(mayGo) : line.find(mayGo)
      if (found !== undefined) return found
    }
    return undefined
  }

  /** Who would be served after all others. */
  last(nowMs: number): Waiter | undefined {
    const lowest = this.#classes.findLast((line) => line.length > 0)
    return this.#newestFirst(nowMs) ? lowest?.[0] : lowest?.at(-1)
  }

  #newestFirst(nowMs: number): boolean {
    if (this.#order !== 'adaptive') return this.#order === 'lifo'
    return nowMs - this.#busySinceMs > this.#overloadMs
  }

  #lineOf({ call }: Waiter): Waiter[] {
    return this.#classes[rankOf(call)]!
  }
}
