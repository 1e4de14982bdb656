/** The hashes of the hash strategies: over UTF-8, in whole numbers of 32 bits, so that no pick makes a BigInt or a buffer. */

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
    const sum = (this.low + low) | 0
    const carry = ((this.low & low) | ((this.low | low) & ~sum)) >>> 31
    this.high = (this.high + high + carry) | 0
    this.low = sum
    return this
  }

  /** In parts of 16 bits: no product of two of them is rounded. */
  multiply(high: number, low: number): this {
    const a0 = this.low & 0xffff
    const a1 = this.low >>> 16
    const b0 = low & 0xffff
    const b1 = low >>> 16
    const p00 = Math.imul(a0, b0)
    const p01 = Math.imul(a0, b1)
    const p10 = Math.imul(a1, b0)
    const middle = (p00 >>> 16) + (p01 & 0xffff) + (p10 & 0xffff)
    const carried = (p01 >>> 16) + (p10 >>> 16) + (middle >>> 16)
    const crossed = (Math.imul(this.high, low) + Math.imul(this.low, high)) | 0
    this.high = (Math.imul(a1, b1) + carried + crossed) | 0
    this.low = (middle << 16) | (p00 & 0xffff)
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

  /** Xors itself with itself moved to the right, by 1 to 63 bits. */
  fold(bits: number): this {
    const { high, low } = this
    if (bits >= 32) return this.xor(0, high >>> (bits - 32))
    return this.xor(high >>> bits, (low >>> bits) | (high << (32 - bits)))
  }

  /** The remainder of the unsigned value; `divisor` below 2^26. */
  modulo(divisor: number): number {
    return (((this.high >>> 0) % divisor) * (4_294_967_296 % divisor) + (this.low >>> 0)) % divisor
  }
}

/** A text as bytes, in a buffer that only grows. */
class Utf8 {
  bytes: Uint8Array = new Uint8Array(256)

  /** Returns the number of bytes. Half a surrogate pair becomes U+FFFD, as in TextEncoder. */
  encode(text: string): number {
    // At most three bytes for each UTF-16 unit.
    if (text.length * 3 > this.bytes.length) this.bytes = new Uint8Array(text.length * 6)
    const { bytes } = this
    let length = 0
    for (let i = 0; i < text.length; i++) {
      let code = text.charCodeAt(i)
      if (code < 0x80) {
        bytes[length++] = code
        continue
      }
      if (code < 0x800) {
        bytes[length++] = 0xc0 | (code >> 6)
        bytes[length++] = 0x80 | (code & 0x3f)
        continue
      }
      const next = i + 1 < text.length ? text.charCodeAt(i + 1) : 0
      if (code >= 0xd800 && code < 0xdc00 && next >= 0xdc00 && next < 0xe000) {
        code = 0x10000 + ((code & 0x3ff) << 10) + (next & 0x3ff)
        i++
        bytes[length++] = 0xf0 | (code >> 18)
        bytes[length++] = 0x80 | ((code >> 12) & 0x3f)
      } else {
        if (code >= 0xd800 && code < 0xe000) code = 0xfffd
        bytes[length++] = 0xe0 | (code >> 12)
      }
      bytes[length++] = 0x80 | ((code >> 6) & 0x3f)
      bytes[length++] = 0x80 | (code & 0x3f)
    }
    return length
  }

  /** Four bytes from there, the lowest first. */
  read(at: number): number {
    const { bytes } = this
    return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
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
    let at = 0
    if (length < 32) this.set(P5_HIGH, P5_LOW).add(0, seed)
    else at = this.#stripes(length, seed)
    this.add(0, length)
    for (; at + 8 <= length; at += 8) this.#merge(this.#round(this.#taken.set(0, 0), at), 27)
    if (at + 4 <= length) {
      const { high, low } = this.#taken.set(0, this.#text.read(at)).multiply(P1_HIGH, P1_LOW)
      this.xor(high, low).rotate(23).multiply(P2_HIGH, P2_LOW).add(P3_HIGH, P3_LOW)
      at += 4
    }
    for (; at < length; at++) {
      const { high, low } = this.#taken.set(0, this.#text.bytes[at]!).multiply(P5_HIGH, P5_LOW)
      this.xor(high, low).rotate(11).multiply(P1_HIGH, P1_LOW)
    }
    return this.fold(33).multiply(P2_HIGH, P2_LOW).fold(29).multiply(P3_HIGH, P3_LOW).fold(32)
  }

  /** Takes in all whole stripes of 32 bytes; returns where they end. */
  #stripes(length: number, seed: number): number {
    const [a, b, c, d] = this.#lanes
    a.set(P1_HIGH, P1_LOW).add(P2_HIGH, P2_LOW).add(0, seed)
    b.set(P2_HIGH, P2_LOW).add(0, seed)
    c.set(0, seed)
    d.set(~P1_HIGH, -P1_LOW).add(0, seed)
    let at = 0
    for (; at + 32 <= length; at += 32) {
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
    return at
  }

  /** Eight bytes of the text into a lane. */
  #round(lane: Word, at: number): Word {
    return this.#mix(lane, this.#text.read(at + 4), this.#text.read(at))
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
    this.#merge(this.#mix(this.#taken.set(0, 0), high, low), 0)
  }

  #merge({ high, low }: Word, bits: number): void {
    this.xor(high, low)
    if (bits > 0) this.rotate(bits)
    this.multiply(P1_HIGH, P1_LOW).add(P4_HIGH, P4_LOW)
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
    for (let i = 0; i < length; i++) this.#take(this.#text.bytes[i]!)
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
