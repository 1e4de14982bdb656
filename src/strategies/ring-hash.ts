import type { Strategy } from '../core/contracts.ts'
import type { RingHashOptions } from '../core/strategy-options.ts'
import { byKey, hashing } from './by-key.ts'
import { expected } from './expected.ts'
import { Crc32, Xxh64 } from './hash.ts'
import { type Member, PORTION } from './tables.ts'
import type { Order } from './walk.ts'

/** Envoy's limit, 12 bytes each and 4 for the index. */
const MOST_POINTS = 8_388_608
/** Envoy's `minimum_ring_size`. */
const ENVOY_MIN_SIZE = 1_024
/** Signed numbers with their first bit turned are in the order of the unsigned ones. */
const SIGN = 0x80000000 | 0

/**
 * Consistent hashing on a ring of points (Karger; ketama): a key belongs to the first point at or after its hash. Whoever
 * may not be picked is passed over, its keys spread over the others by their points, and nobody else's key moves. O(1) a
 * pick, 16 bytes a point. Weights are the configured ones: slow start moves no keys. Calls without a key: anyone eligible,
 * by weight.
 */
export function ringHash(options: RingHashOptions): Strategy {
  const common = hashing('ring-hash', options)
  const { like, points = 160, minSize = ENVOY_MIN_SIZE, maxSize = MOST_POINTS, bound } = options
  expected(like === undefined || like === 'envoy' || like === 'nginx', 'ring-hash: like', "'envoy' or 'nginx'", like)
  expected(points >= 1 && points <= 65_536, 'ring-hash: points', '1 to 65536', points)
  expected(Number.isInteger(minSize) && minSize >= 1, 'ring-hash: minSize', 'a whole number from 1', minSize)
  const most = Number.isInteger(maxSize) && maxSize >= 1 && maxSize <= MOST_POINTS
  expected(most, 'ring-hash: maxSize', `a whole number from 1 to ${MOST_POINTS}`, maxSize)
  const isEnvoy = like === 'envoy'
  const odd = "nothing, since only rings like 'envoy' take it"
  expected(isEnvoy || options.minSize === undefined, 'ring-hash: minSize', odd, options.minSize)
  const even = "nothing, since rings like 'envoy' have minSize points"
  expected(!isEnvoy || options.points === undefined, 'ring-hash: points', even, options.points)
  const isRoomy = !isEnvoy || options.minSize !== undefined || maxSize >= ENVOY_MIN_SIZE
  const least = `at least ${ENVOY_MIN_SIZE}, which is the default of minSize`
  expected(isRoomy, 'ring-hash: maxSize', least, maxSize)
  expected(!isEnvoy || minSize <= maxSize, 'ring-hash: minSize', `at most maxSize, ${maxSize}`, minSize)
  const held = (members: readonly Member[]): Uint32Array =>
    isEnvoy ? pointsOfEnvoy(members, minSize, maxSize) : pointsByWeight(members, points, maxSize)
  const hash = (): PointHash => (like === 'nginx' ? new CrcPoints() : new XxhPoints())
  return byKey(common, (members) => ringOf(members, held(members), hash()), bound)
}

/** A hash of keys and of points, the last one taken. */
interface PointHash {
  readonly high: number
  readonly low: number
  key(key: string): void
  /** Points of one id are asked for in order, from 0. */
  point(id: string, i: number): void
}

class XxhPoints extends Xxh64 implements PointHash {
  key(key: string): void {
    this.of(key)
  }

  point(id: string, i: number): void {
    this.of(`${id}_${i}`)
  }
}

/** nginx: CRC-32 of host, 0, port and the point before. A key is hashed by CRC-32 alone. */
class CrcPoints implements PointHash {
  readonly low = 0
  high = 0
  readonly #crc = new Crc32()
  #start = 0

  key(key: string): void {
    this.high = this.#crc.reset().add(key).value
  }

  point(id: string, i: number): void {
    if (i === 0) {
      const [, host = id, port = ''] = /^(.*):(\d*)$/.exec(id) ?? []
      this.#start = this.#crc.reset().add(`${host}\0${port}`).value
    }
    this.high = this.#crc.reset(this.#start).addWord(i === 0 ? 0 : this.high).value
  }
}

function pointsByWeight(members: readonly Member[], points: number, maxSize: number): Uint32Array {
  const total = points * members.reduce((sum, { weight }) => sum + weight, 0)
  const scale = points * Math.min(1, maxSize / total)
  return Uint32Array.from(members, ({ weight }) => (weight > 0 ? Math.max(1, Math.round(weight * scale)) : 0))
}

/** The least weight gets a whole number of points, the others theirs; what is left of a point goes on to the next member. */
export function pointsOfEnvoy(members: readonly Member[], minSize: number, maxSize: number): Uint32Array {
  const weights = members.map(({ weight }) => weight)
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const least = weights.reduce((min, weight) => (weight > 0 ? Math.min(min, weight / total) : min), 1)
  const scale = Math.min(Math.ceil(least * minSize) / least, maxSize)
  let points = 0
  let target = 0
  return Uint32Array.from(weights, (weight) => {
    target += (scale * weight) / total || 0
    const own = Math.max(0, Math.ceil(target - points))
    points += own
    return own
  })
}

/** Points sorted by hash, with an index by the first bits of it: about one point for each entry. */
class Ring implements Order {
  readonly held: Uint32Array
  readonly highs: Int32Array
  readonly lows: Int32Array
  readonly owners: Uint32Array
  /** Where the points with these first bits begin. */
  readonly starts: Uint32Array
  readonly shift: number
  readonly #hash: PointHash
  #at = 0

  constructor(held: Uint32Array, highs: Int32Array, lows: Int32Array, owners: Uint32Array, hash: PointHash) {
    const bits = Math.max(1, Math.ceil(Math.log2(owners.length + 1)))
    this.held = held
    this.highs = highs
    this.lows = lows
    this.owners = owners
    this.starts = new Uint32Array((1 << bits) + 1)
    this.shift = 32 - bits
    this.#hash = hash
  }

  first(key: string): number {
    this.#hash.key(key)
    const high = this.#hash.high ^ SIGN
    const low = this.#hash.low ^ SIGN
    const size = this.owners.length
    let at = this.starts[this.#hash.high >>> this.shift]!
    while (at < size && this.isBelow(at, high, low)) at++
    this.#at = at === size ? 0 : at
    return this.owners[this.#at]!
  }

  next(): number {
    this.#at = this.#at + 1 === this.owners.length ? 0 : this.#at + 1
    return this.owners[this.#at]!
  }

  isBelow(at: number, high: number, low: number): boolean {
    return this.highs[at]! < high || (this.highs[at] === high && this.lows[at]! < low)
  }

  isAbove(at: number, high: number, low: number): boolean {
    return this.highs[at]! > high || (this.highs[at] === high && this.lows[at]! > low)
  }
}

/** Sorted by the first bits with a count of each, then in place: linear, in steps that can be left off anywhere. */
function* ringOf(members: readonly Member[], held: Uint32Array, hash: PointHash): Generator<void, Order> {
  const size = held.reduce((sum, points) => sum + points, 0)
  // Zeros for a million points take a millisecond, too.
  const highs = new Int32Array(size)
  yield
  const lows = new Int32Array(size)
  yield
  const owners = new Uint32Array(size)
  yield
  const highsAsMade = new Int32Array(size)
  yield
  const lowsAsMade = new Int32Array(size)
  yield
  const ring = new Ring(held, highs, lows, owners, hash)
  const { starts, shift } = ring
  for (let owner = 0, made = 0; owner < held.length; owner++) {
    for (let i = 0; i < held[owner]!; i++, made++) {
      if (made % PORTION === 0) yield
      hash.point(members[owner]!.id, i)
      highsAsMade[made] = hash.high
      lowsAsMade[made] = hash.low
      starts[(hash.high >>> shift) + 1]!++
    }
  }
  for (let i = 1; i < starts.length; i++) {
    if (i % PORTION === 0) yield
    starts[i]! += starts[i - 1]!
  }
  const ends = starts.slice()
  for (let owner = 0, made = 0; owner < held.length; owner++) {
    for (let i = 0; i < held[owner]!; i++, made++) {
      if (made % PORTION === 0) yield
      const high = highsAsMade[made]! ^ SIGN
      const low = lowsAsMade[made]! ^ SIGN
      const start = starts[highsAsMade[made]! >>> shift]!
      let at = ends[highsAsMade[made]! >>> shift]!++
      for (; at > start && ring.isAbove(at - 1, high, low); at--) {
        highs[at] = highs[at - 1]!
        lows[at] = lows[at - 1]!
        owners[at] = owners[at - 1]!
      }
      highs[at] = high
      lows[at] = low
      owners[at] = owner
    }
  }
  return ring
}
