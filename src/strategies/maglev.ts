import type { Strategy } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { isPrime } from '../core/spelling.ts'
import type { MaglevOptions } from '../core/strategy-options.ts'
import { byKey, hashing } from './by-key.ts'
import { expected } from './expected.ts'
import { Xxh64 } from './hash.ts'
import { type Member, PORTION } from './tables.ts'
import type { Order } from './walk.ts'

/** Envoy's default and its limit. */
const SIZE = 65_537
const MOST = 5_000_011

/**
 * Maglev (Eisenbud et al., NSDI 2016): a table in which the backends take turns to claim slots, each in its own order.
 * Shares are the most even of all hash strategies; when a backend comes or goes, about 1 % of the others' keys move too.
 * When one is down, only its keys move. O(1) a pick, 4 bytes a slot. Weights are the configured ones: slow start moves no
 * keys. Calls without a key: anyone eligible, by weight.
 */
export function maglev(options: MaglevOptions): Strategy {
  const common = hashing('maglev', options)
  const { size = SIZE, bound } = options
  expected(isPrime(size) && size <= MOST, 'maglev: size', `a prime up to ${MOST}`, size)
  const unwarned = byKey(common, (members) => tableOf(members, size), bound)
  return {
    ...unwarned,
    start(core) {
      const chooser = unwarned.start(core)
      return {
        build(members) {
          const { length } = members.all
          if (length > size) {
            const message = `maglev in pool ${core.pool}: size ${size} is too small for ${length} backends, some get no keys`
            core.emit('warning', new BalancerError('CONFIG', message))
          }
          return chooser.build(members)
        },
      }
    },
  }
}

class Slots implements Order {
  readonly held: Uint32Array
  readonly owners: Uint32Array
  readonly #hash = new Xxh64()
  #at = 0

  constructor(held: Uint32Array, owners: Uint32Array) {
    this.held = held
    this.owners = owners
  }

  first(key: string): number {
    this.#at = this.#hash.of(key).modulo(this.owners.length)
    return this.owners[this.#at]!
  }

  next(): number {
    this.#at = this.#at + 1 === this.owners.length ? 0 : this.#at + 1
    return this.owners[this.#at]!
  }
}

/**
 * In rounds: who weighs half of the heaviest claims a slot in every other one. Sorted by id, so that configuration order does
 * not count.
 */
export function* tableOf(members: readonly Member[], size: number): Generator<void, Order> {
  const indexes = new Map(members.map(({ id }, i) => [id, i]))
  const sorted = Uint32Array.from([...indexes.keys()].sort(), (id) => indexes.get(id)!).filter(
    (i) => members[i]!.weight > 0,
  )
  const weights = Float64Array.from(sorted, (i) => members[i]!.weight)
  const heaviest = weights.reduce((most, weight) => Math.max(most, weight), 0)
  const at = new Uint32Array(sorted.length)
  const skip = new Uint32Array(sorted.length)
  const hash = new Xxh64()
  for (let i = 0; i < sorted.length; i++) {
    if (i % PORTION === 0) yield
    at[i] = hash.of(members[sorted[i]!]!.id).modulo(size)
    skip[i] = hash.of(members[sorted[i]!]!.id, 1).modulo(size - 1) + 1
  }
  const held = new Uint32Array(members.length)
  const owners = new Uint32Array(size)
  const taken = new Uint8Array(size)
  const targets = new Float64Array(sorted.length)
  let left = sorted.length === 0 ? 0 : size
  let steps = 0
  for (let round = 1; left > 0; round++) {
    for (let i = 0; i < sorted.length && left > 0; i++) {
      if (++steps % PORTION === 0) yield
      if (round * weights[i]! < targets[i]!) continue
      targets[i]! += heaviest
      let slot = at[i]!
      for (; taken[slot] === 1; slot = (slot + skip[i]!) % size) if (++steps % PORTION === 0) yield
      at[i] = (slot + skip[i]!) % size
      taken[slot] = 1
      owners[slot] = sorted[i]!
      held[sorted[i]!]!++
      left--
    }
  }
  return new Slots(held, owners)
}
