import type { Backend, Strategy } from '../core/contracts.ts'
import type { HashOptions } from '../core/strategy-options.ts'
import { drawByWeight } from './alias.ts'
import { Bound } from './bound.ts'
import { hashing, ownersOf } from './by-key.ts'
import { Xxh64 } from './hash.ts'

/**
 * Rendezvous hashing (highest random weight, Thaler and Ravishankar): every backend gets a score for the key, the highest
 * has it. No table; when a backend comes or goes, or gets another weight, only the keys it gains or loses move. O(n) a pick:
 * for up to about 200 backends. Weights are the configured ones: slow start moves no keys. Calls without a key: anyone
 * eligible, by weight.
 */
export function rendezvous(options: HashOptions): Strategy {
  const common = hashing('rendezvous', options)
  const alone = common.whenOut === 'fail'
  const { bound } = options
  return {
    ...common,
    start({ random }) {
      const hash = new Xxh64()
      return {
        build(members) {
          const eligible = [...members.eligible] // reading a frozen array is slower
          const n = eligible.length
          if (n === 0) return () => undefined
          if (n === 1 && !alone) return () => eligible[0]
          const draw = drawByWeight(eligible, random)
          const owners = alone ? ownersOf(members) : eligible
          const ranking = new Ranking(owners)
          const usable = new Set(eligible)
          const bounds = bound === undefined ? undefined : new Bound(bound, eligible)
          return (call) => {
            const { key, picks } = call
            if (key === undefined) return eligible[draw()]
            const { high, low } = hash.of(key)
            ranking.score(high, low)
            if (alone) {
              const owner = owners[ranking.at(0, undefined)]!
              call.sole = owner
              return usable.has(owner) ? owner : undefined
            }
            const rank = picks % n
            const own = ranking.at(rank, undefined)
            if (bounds === undefined || eligible[own]!.inflight === 0) return eligible[own]
            const within = ranking.at(rank, bounds)
            return eligible[within < 0 ? own : within]
          }
        },
      }
    },
  }
}

/**
 * The scores of one key: -weight / ln(u) with u from the hash of key and id; among equal weights u itself has the same order.
 */
class Ranking {
  readonly #list: readonly Backend[]
  readonly #ids: Int32Array
  readonly #weights: Float64Array
  readonly #equal: boolean
  readonly #scores: Float64Array

  constructor(list: readonly Backend[]) {
    const hash = new Xxh64()
    this.#list = list
    this.#ids = Int32Array.from(list, ({ id }) => hash.of(id).low)
    this.#weights = Float64Array.from(list, ({ endpoint }) => endpoint.weight ?? 1)
    this.#equal = this.#weights.every((weight) => weight === this.#weights[0])
    this.#scores = new Float64Array(list.length)
  }

  score(high: number, low: number): void {
    const ids = this.#ids
    const scores = this.#scores
    for (let i = 0; i < ids.length; i++) {
      const u = ((spread(low ^ ids[i]!) ^ high) >>> 0) + 0.5
      scores[i] = this.#equal ? u : -this.#weights[i]! / Math.log(u / 4_294_967_296)
    }
  }

  /** Who has that rank, from 0, among all or among those within their bounds; -1 = they are fewer. */
  at(rank: number, bounds: Bound | undefined): number {
    const total = bounds === undefined ? 0 : bounds.total()
    const scores = this.#scores
    let last = -1
    for (let passed = 0; passed <= rank; passed++) {
      let best = -1
      for (let i = 0; i < scores.length; i++) {
        if (best >= 0 && scores[i]! <= scores[best]!) continue
        // Behind the last one: of equal scores the earlier comes first.
        if (last >= 0 && (scores[i]! > scores[last]! || (scores[i] === scores[last] && i <= last))) continue
        if (bounds === undefined || bounds.admits(this.#list[i]!, total)) best = i
      }
      if (best < 0) return -1
      last = best
    }
    return last
  }
}

/** Spreads neighbours apart (the finalizer of MurmurHash3). */
function spread(value: number): number {
  const half = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  const whole = Math.imul(half ^ (half >>> 13), 0xc2b2ae35)
  return whole ^ (whole >>> 16)
}
