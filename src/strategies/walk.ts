import type { Backend, Call } from '../core/contracts.ts'
import type { Bound } from './bound.ts'

/** In which order the members come for a key. Made from ids and weights alone, so that every process makes the same. */
export interface Order {
  /** Slots of each member, in the order of the members it was made from: the size of its share. */
  readonly held: Uint32Array
  /** The member, by its index, whose the key is. Whole numbers only; nothing is allocated. */
  first(key: string): number
  /** The one after the last answer. It comes round to everybody who has a slot; members may come more than once. */
  next(): number
}

/** The order of a key, past those who may not be picked. */
export class Walk {
  readonly #order: Order
  /** By the order's index; undefined for who may not be picked. */
  readonly #backends: readonly (Backend | undefined)[]
  /** The same for whose the keys may be, whether or not they may be picked. */
  readonly #owners: readonly (Backend | undefined)[]
  readonly #bound: Bound | undefined
  /** The number of the last walk that met the member. */
  readonly #met: Int32Array
  #walks = 0
  /** Backends it can come to. */
  readonly reach: number

  constructor(
    order: Order,
    backends: readonly (Backend | undefined)[],
    owners: readonly (Backend | undefined)[],
    bound: Bound | undefined,
  ) {
    this.#order = order
    this.#backends = backends
    this.#owners = owners
    this.#bound = bound
    this.#met = new Int32Array(backends.length)
    this.reach = backends.filter((backend, i) => backend !== undefined && order.held[i]! > 0).length
  }

  /** Each pick of a call goes one backend further, and begins again after the last. There must be somebody to come to. */
  pick(key: string, { picks }: Call): Backend {
    const bound = this.#bound
    if (picks === 0 && bound === undefined) return this.#first(key)
    return this.#distinct(key, picks, bound) ?? this.#distinct(key, picks, undefined)!
  }

  /** Whose the key is, if it may be picked; nobody else will do for this call. There must be somebody to come to. */
  own(key: string, call: Call): Backend | undefined {
    const order = this.#order
    const owners = this.#owners
    let i = order.first(key)
    while (owners[i] === undefined) i = order.next() // gone since the table was made
    call.sole = owners[i]
    return this.#backends[i]
  }

  #first(key: string): Backend {
    const order = this.#order
    const backends = this.#backends
    let backend = backends[order.first(key)]
    while (backend === undefined) backend = backends[order.next()]
    return backend
  }

  /** Undefined if too few are within the bound. */
  #distinct(key: string, picks: number, bound: Bound | undefined): Backend | undefined {
    const order = this.#order
    const met = this.#met
    const walk = ++this.#walks | 0
    this.#walks = walk
    let left = picks % this.reach
    let total = -1
    let unmet = this.reach
    for (let i = order.first(key); ; i = order.next()) {
      if (met[i] === walk) continue
      met[i] = walk
      const backend = this.#backends[i]
      if (backend === undefined) continue
      if (bound !== undefined && total < 0 && backend.inflight > 0) total = bound.total()
      if (bound === undefined || bound.admits(backend, total)) {
        if (left === 0) return backend
        left--
      }
      if (--unmet === 0) return undefined
    }
  }
}
