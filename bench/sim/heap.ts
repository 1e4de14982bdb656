/** A binary heap of values by a number, the smallest first; equals come out in the order they went in. */
export class Heap<T> {
  readonly #keys: number[] = []
  readonly #turns: number[] = []
  readonly #values: T[] = []
  #turn = 0

  get size(): number {
    return this.#values.length
  }

  /** The smallest key; Infinity when empty. */
  get key(): number {
    return this.#values.length === 0 ? Infinity : this.#keys[0]!
  }

  push(key: number, value: T): void {
    const turn = this.#turn++
    let at = this.#values.length
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (this.#keys[parent]! <= key) break // a newcomer's turn is the latest
      this.#move(parent, at)
      at = parent
    }
    this.#set(at, key, turn, value)
  }

  /** Takes out the value of the smallest key; undefined when empty. */
  pop(): T | undefined {
    const first = this.#values[0]
    const key = this.#keys.pop()
    const turn = this.#turns.pop()
    const value = this.#values.pop()
    const n = this.#values.length
    if (n === 0) return first
    let at = 0
    for (let child = 1; child < n; child = 2 * at + 1) {
      if (child + 1 < n && this.#before(child + 1, this.#keys[child]!, this.#turns[child]!)) child++
      if (!this.#before(child, key!, turn!)) break
      this.#move(child, at)
      at = child
    }
    this.#set(at, key!, turn!, value!)
    return first
  }

  #before(at: number, key: number, turn: number): boolean {
    const own = this.#keys[at]!
    return own < key || (own === key && this.#turns[at]! < turn)
  }

  #move(from: number, to: number): void {
    this.#set(to, this.#keys[from]!, this.#turns[from]!, this.#values[from]!)
  }

  #set(at: number, key: number, turn: number, value: T): void {
    this.#keys[at] = key
    this.#turns[at] = turn
    this.#values[at] = value
  }
}
