import type { Strategy } from '../core/contracts.ts'
import type { HashOptions } from '../core/strategy-options.ts'
import { byKey, hashing } from './by-key.ts'
import { Word, Xxh64 } from './hash.ts'
import type { Order } from './walk.ts'

/** Then it goes on from one to the next: so nobody is left out, and a pick has an end. */
const REHASHES = 32
const FACTOR_HIGH = 0x27bb2ee6
const FACTOR_LOW = 0x87b0b0fd | 0

/**
 * Jump consistent hashing (Lamping and Veach): shares are exact, nothing is stored. For a fixed number of shards: their
 * place in the configuration is what counts, so backends may come and go only at the end of it; anywhere else most keys
 * move. When one is down, only its keys move. Weights do not count, 0 apart. O(log n) a pick. Calls without a key: anyone
 * eligible, by weight.
 */
export function jump(options: HashOptions): Strategy {
  return byKey(
    hashing('jump', options),
    function* (members) {
      yield
      return new Jumps(members.length)
    },
    options.bound,
  )
}

class Jumps implements Order {
  readonly held: Uint32Array
  readonly #hash = new Xxh64()
  readonly #state = new Word()
  #key = ''
  #rehashes = 0
  #last = 0

  constructor(n: number) {
    this.held = new Uint32Array(n).fill(1)
  }

  first(key: string): number {
    this.#key = key
    this.#rehashes = 0
    return this.#jump()
  }

  next(): number {
    if (this.#rehashes < REHASHES) {
      this.#rehashes++
      return this.#jump()
    }
    this.#last = this.#last + 1 === this.held.length ? 0 : this.#last + 1
    return this.#last
  }

  #jump(): number {
    const { high, low } = this.#hash.of(this.#key, this.#rehashes)
    this.#last = bucketOf(this.#state.set(high, low), this.held.length)
    return this.#last
  }
}

/** The bucket below `n` of a key of 64 bits, as in the paper; the key is used up. */
export function bucketOf(key: Word, n: number): number {
  let bucket = 0
  let next = 0
  while (next < n) {
    bucket = next
    key.multiply(FACTOR_HIGH, FACTOR_LOW).add(0, 1)
    next = Math.floor((bucket + 1) * (2_147_483_648 / ((key.high >>> 1) + 1)))
  }
  return bucket
}
