/** Opcode of a Close frame (RFC 6455 5.5.1). */
const CLOSE = 0x8

/** Close frames with status 1001, 'going away': as servers send them, and as clients do, masked (with zeros: no text of anybody's is in it). */
export const GOING_AWAY: Uint8Array = Uint8Array.of(0x88, 2, 0x03, 0xe9)
export const GOING_AWAY_MASKED: Uint8Array = Uint8Array.of(0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9)

/**
 * Where the frames of one direction of a WebSocket end (RFC 6455 5.2). It counts: nothing but the lengths in frames' headers is looked
 * at, and nothing is kept or changed.
 */
export class Frames {
  /** Bytes of the current frame's header that were seen, how many it has as far as is known, and where its length ends. */
  #seen = 0
  #size = 2
  #lengthEnd = 2
  /** Bytes of payload still to come, and while the header lasts, what it says so far. */
  #left = 0
  #opcode = 0
  /** A Close frame has gone by: its sender says no more. */
  isClosed = false

  /** Between two frames. */
  get isBetween(): boolean {
    return this.#seen === 0
  }

  /** Goes on by these bytes; returns behind which of them the last frame that is now whole ends, 0 if none does. */
  read(bytes: Uint8Array): number {
    let end = 0
    let at = 0
    while (at < bytes.length) {
      if (this.#seen < this.#size) this.#header(bytes[at++]!)
      else {
        const step = Math.min(this.#left, bytes.length - at)
        this.#left -= step
        at += step
      }
      if (this.#seen < this.#size || this.#left > 0) continue
      if (this.#opcode === CLOSE) this.isClosed = true
      this.#seen = 0
      this.#size = 2
      end = at
    }
    return end
  }

  #header(byte: number): void {
    const seen = this.#seen++
    if (seen === 0) this.#opcode = byte & 0x0f
    else if (seen === 1) {
      const length = byte & 0x7f
      const more = length === 126 ? 2 : length === 127 ? 8 : 0
      this.#left = more === 0 ? length : 0
      this.#lengthEnd = 2 + more
      this.#size = this.#lengthEnd + (byte & 0x80 ? 4 : 0)
    } else if (seen < this.#lengthEnd) this.#left = this.#left * 256 + byte
  }
}
