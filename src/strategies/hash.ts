/** The hashes of the hash strategies: over UTF-8, in whole numbers of 32 bits, so that no pick makes a BigInt or a buffer. */

const { imul } = Math

/** The high half of the product of two unsigned halves, in parts of 16 bits: so nothing is rounded. */
function highOf(a: number, b: number): number {
  const mask = 0xffff
  const a0 = a & mask
  const a1 = a >>> 16
  const b0 = b & mask
  const b1 = b >>> 16
  const upper = a1 * b0 + ((a0 * b0) >>> 16)
  const lower = a0 * b1 + (upper & mask)
  return a1 * b1 + (upper >>> 16) + (lower >>> 16)
}

/** 1 if the sum of two halves does not fit in one. */
function carryOf(a: number, b: number): number {
  return ((a & b) | ((a | b) & ~(a + b))) >>> 31
}

/** 64 bits as two signed halves; arithmetic is modulo 2^64. */
export class Word {
  high = 0
  low = 0

  set(high: number, low: number): this {
    this.high = high
    this.low = low
    return this
  }

  add(high: number, low: number): this {
    this.high = (this.high + high + carryOf(this.low, low)) | 0
    this.low = (this.low + low) | 0
    return this
  }

  multiply(high: number, low: number): this {
    this.high = (highOf(this.low, low) + imul(this.low, high) + imul(this.high, low)) | 0
    this.low = imul(this.low, low)
    return this
  }

  xor(high: number, low: number): this {
    this.high ^= high
    this.low ^= low
    return this
  }

  /** To the left, by 1 to 31 bits. */
  rotate(bits: number): this {
    const { high, low } = this
    this.high = (high << bits) | (low >>> (32 - bits))
    this.low = (low << bits) | (high >>> (32 - bits))
    return this
  }

  /** The remainder of the unsigned value; `divisor` below 2^26. */
  modulo(divisor: number): number {
    return (((this.high >>> 0) % divisor) * (4_294_967_296 % divisor) + (this.low >>> 0)) % divisor
  }
}

/** A text as bytes, in a buffer that only grows. */
class Utf8 {
  bytes: DataView = new DataView(new ArrayBuffer(256))

  /** Returns the number of bytes. Half a surrogate pair becomes U+FFFD, as in TextEncoder. */
  encode(text: string): number {
    // At most three bytes for each UTF-16 unit.
    if (text.length * 3 > this.bytes.byteLength) this.bytes = new DataView(new ArrayBuffer(text.length * 6))
    const { bytes } = this
    let length = 0
    // Most keys are nothing but ASCII: that goes by fours.
    for (; length + 4 <= text.length; length += 4) {
      const a = text.charCodeAt(length)
      const b = text.charCodeAt(length + 1)
      const c = text.charCodeAt(length + 2)
      const d = text.charCodeAt(length + 3)
      if ((a | b | c | d) >= 0x80) break
      bytes.setInt32(length, a | (b << 8) | (c << 16) | (d << 24), true)
    }
    for (let i = length; i < text.length; i++) {
      let code = text.charCodeAt(i)
      if (code < 0x80) {
        bytes.setUint8(length++, code)
        continue
      }
      if (code < 0x800) {
        bytes.setUint8(length++, 0xc0 | (code >> 6))
        bytes.setUint8(length++, 0x80 | (code & 0x3f))
        continue
      }
      const next = i + 1 < text.length ? text.charCodeAt(i + 1) : 0
      if (code >= 0xd800 && code < 0xdc00 && next >= 0xdc00 && next < 0xe000) {
        code = 0x10000 + ((code & 0x3ff) << 10) + (next & 0x3ff)
        i++
        bytes.setUint8(length++, 0xf0 | (code >> 18))
        bytes.setUint8(length++, 0x80 | ((code >> 12) & 0x3f))
      } else {
        if (code >= 0xd800 && code < 0xe000) code = 0xfffd
        bytes.setUint8(length++, 0xe0 | (code >> 12))
      }
      bytes.setUint8(length++, 0x80 | ((code >> 6) & 0x3f))
      bytes.setUint8(length++, 0x80 | (code & 0x3f))
    }
    return length
  }

  /** Four bytes from there, the lowest first. */
  read(at: number): number {
    return this.bytes.getInt32(at, true)
  }
}

/** The primes of xxHash, by halves. */
const P1_HIGH = 0x9e3779b1 | 0
const P1_LOW = 0x85ebca87 | 0
const P2_HIGH = 0xc2b2ae3d | 0
const P2_LOW = 0x27d4eb4f
const P3_HIGH = 0x165667b1
const P3_LOW = 0x9e3779f9 | 0
const P4_HIGH = 0x85ebca77 | 0
const P4_LOW = 0xc2b2ae63 | 0
const P5_HIGH = 0x27d4eb2f
const P5_LOW = 0x165667c5

/** xxHash of 64 bits (XXH64, Yann Collet), as Envoy and gRPC use it. After `of` it is the hash of that text. */
export class Xxh64 extends Word {
  readonly #text = new Utf8()
  readonly #lanes = [new Word(), new Word(), new Word(), new Word()] as const
  readonly #taken = new Word()
  readonly #product = new Word()

  /** `seed`: a whole number of 32 bits. */
  of(text: string, seed: number = 0): this {
    const length = this.#text.encode(text)
    if (length < 32) this.set(P5_HIGH, P5_LOW).add(0, seed)
    else this.#stripes(length, seed)
    return this.add(0, length).#finish(length & ~31, length)
  }

  /**
   * What the stripes leave: all of a short text, as most keys are. The halves are variables, not words, for V8 keeps variables in registers;
   * it takes in `highOf` everywhere as long as that function and this one do not grow.
   */
  #finish(from: number, length: number): this {
    const text = this.#text
    let { high, low } = this
    let at = from
    for (; at + 8 <= length; at += 8) {
      const l0 = text.read(at)
      const h1 = highOf(l0, P2_LOW) + imul(l0, P2_HIGH) + imul(text.read(at + 4), P2_LOW)
      const l1 = imul(l0, P2_LOW)
      const h2 = (h1 << 31) | (l1 >>> 1)
      const l2 = (l1 << 31) | (h1 >>> 1)
      const h3 = high ^ (highOf(l2, P1_LOW) + imul(l2, P1_HIGH) + imul(h2, P1_LOW))
      const l3 = low ^ imul(l2, P1_LOW)
      const h4 = (h3 << 27) | (l3 >>> 5)
      const l4 = (l3 << 27) | (h3 >>> 5)
      const l5 = imul(l4, P1_LOW)
      high = (highOf(l4, P1_LOW) + imul(l4, P1_HIGH) + imul(h4, P1_LOW) + P4_HIGH + carryOf(l5, P4_LOW)) | 0
      low = (l5 + P4_LOW) | 0
    }
    if (at + 4 <= length) {
      const l0 = text.read(at)
      const h1 = high ^ (highOf(l0, P1_LOW) + imul(l0, P1_HIGH))
      const l1 = low ^ imul(l0, P1_LOW)
      const h2 = (h1 << 23) | (l1 >>> 9)
      const l2 = (l1 << 23) | (h1 >>> 9)
      const l3 = imul(l2, P2_LOW)
      high = (highOf(l2, P2_LOW) + imul(l2, P2_HIGH) + imul(h2, P2_LOW) + P3_HIGH + carryOf(l3, P3_LOW)) | 0
      low = (l3 + P3_LOW) | 0
      at += 4
    }
    for (; at < length; at++) {
      const l0 = text.bytes.getUint8(at)
      const h1 = high ^ (highOf(l0, P5_LOW) + imul(l0, P5_HIGH))
      const l1 = low ^ imul(l0, P5_LOW)
      const h2 = (h1 << 11) | (l1 >>> 21)
      const l2 = (l1 << 11) | (h1 >>> 21)
      high = (highOf(l2, P1_LOW) + imul(l2, P1_HIGH) + imul(h2, P1_LOW)) | 0
      low = imul(l2, P1_LOW)
    }
    low ^= high >>> 1
    high = (highOf(low, P2_LOW) + imul(low, P2_HIGH) + imul(high, P2_LOW)) | 0
    low = imul(low, P2_LOW)
    low ^= (low >>> 29) | (high << 3)
    high ^= high >>> 29
    high = (highOf(low, P3_LOW) + imul(low, P3_HIGH) + imul(high, P3_LOW)) | 0
    this.high = high
    this.low = imul(low, P3_LOW) ^ high
    return this
  }

  /** Takes in all whole stripes of 32 bytes. */
  #stripes(length: number, seed: number): void {
    const [a, b, c, d] = this.#lanes
    a.set(P1_HIGH, P1_LOW).add(P2_HIGH, P2_LOW).add(0, seed)
    b.set(P2_HIGH, P2_LOW).add(0, seed)
    c.set(0, seed)
    d.set(~P1_HIGH, -P1_LOW).add(0, seed)
    for (let at = 0; at + 32 <= length; at += 32) {
      this.#round(a, at)
      this.#round(b, at + 8)
      this.#round(c, at + 16)
      this.#round(d, at + 24)
    }
    this.set(0, 0)
    this.#addRotated(a, 1)
    this.#addRotated(b, 7)
    this.#addRotated(c, 12)
    this.#addRotated(d, 18)
    this.#mergeLane(a)
    this.#mergeLane(b)
    this.#mergeLane(c)
    this.#mergeLane(d)
  }

  /** Eight bytes of the text into a lane. */
  #round(lane: Word, at: number): void {
    this.#mix(lane, this.#text.read(at + 4), this.#text.read(at))
  }

  #mix(lane: Word, high: number, low: number): Word {
    const product = this.#product.set(high, low).multiply(P2_HIGH, P2_LOW)
    return lane.add(product.high, product.low).rotate(31).multiply(P1_HIGH, P1_LOW)
  }

  #addRotated({ high, low }: Word, bits: number): void {
    const rotated = this.#taken.set(high, low).rotate(bits)
    this.add(rotated.high, rotated.low)
  }

  #mergeLane({ high, low }: Word): void {
    const mixed = this.#mix(this.#taken.set(0, 0), high, low)
    this.xor(mixed.high, mixed.low).multiply(P1_HIGH, P1_LOW).add(P4_HIGH, P4_LOW)
  }
}

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte
  for (let bit = 0; bit < 8; bit++) rest = (rest & 1) === 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1
  return rest
})

/** CRC-32 (IEEE 802.3), signed; it can be gone on with. `value` is what has been taken in so far. */
export class Crc32 {
  readonly #text = new Utf8()
  #rest = -1

  get value(): number {
    return ~this.#rest
  }

  /** Starts anew, or from the value of an earlier one. */
  reset(value: number = 0): this {
    this.#rest = ~value
    return this
  }

  add(text: string): this {
    const length = this.#text.encode(text)
    for (let i = 0; i < length; i++) this.#take(this.#text.bytes.getUint8(i))
    return this
  }

  /** A whole number as four bytes, the lowest first. */
  addWord(word: number): this {
    for (let bits = 0; bits < 32; bits += 8) this.#take((word >>> bits) & 0xff)
    return this
  }

  #take(byte: number): void {
    this.#rest = CRC_TABLE[(this.#rest ^ byte) & 0xff]! ^ (this.#rest >>> 8)
  }
}
