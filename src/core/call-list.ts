import type { LiveCall } from './call.ts'

/**
 * The calls under way: a linked list through the calls themselves. A Set would do, but each time it grows or shrinks it leaves
 * a dead table in old space that holds on to calls long over, and the collector then copies them around (measured: a fifth of
 * a proxied request's cost).
 */
export class CallList {
  #first: LiveCall | undefined = undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  add(call: LiveCall): void {
    call.next = this.#first
    if (this.#first !== undefined) this.#first.previous = call
    this.#first = call
    this.#size++
  }

  /** The call must be in the list. */
  remove(call: LiveCall): void {
    const { previous, next } = call
    if (previous === undefined) this.#first = next
    else previous.next = next
    if (next !== undefined) next.previous = previous
    call.previous = call.next = undefined
    this.#size--
  }

  /** All of this moment: calls may end while one goes through them. */
  all(): readonly LiveCall[] {
    const all: LiveCall[] = []
    for (let call = this.#first; call !== undefined; call = call.next) all.push(call)
    return all
  }
}
