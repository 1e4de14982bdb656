import { Heap } from './heap.ts'
import type { VirtualTime } from './virtual-time.ts'

/** How a server shares itself among its requests. */
export interface Queue {
  /** Requests inside, waiting ones included. */
  readonly size: number
  enter(workMs: number, done: () => void): void
  /** 1 = as ever; a fifth of it: everything takes five times as long. */
  speed(factor: number): void
}

/** First come, first served, in so many slots. A change of speed is felt by those that begin after it. */
export class Slots implements Queue {
  readonly #time: VirtualTime
  readonly #slots: number
  readonly #waiting = new Heap<{ readonly workMs: number; readonly done: () => void }>()
  #busy = 0
  #speed = 1

  constructor(time: VirtualTime, slots: number) {
    this.#time = time
    this.#slots = slots
  }

  get size(): number {
    return this.#busy + this.#waiting.size
  }

  enter(workMs: number, done: () => void): void {
    if (this.#busy < this.#slots) this.#serve(workMs, done)
    else this.#waiting.push(0, { workMs, done })
  }

  speed(factor: number): void {
    this.#speed = factor
  }

  #serve(workMs: number, done: () => void): void {
    this.#busy++
    this.#time.after(workMs / this.#speed, () => {
      this.#busy--
      const next = this.#waiting.pop()
      if (next !== undefined) this.#serve(next.workMs, next.done)
      done()
    })
  }
}

/**
 * Everybody at once, on so many cores: each request gets the same share, at most one core. All of them have attained the same
 * service since they came, so one number grows for all, and who entered at `attained` leaves at `attained + work`.
 */
export class SharedCores implements Queue {
  readonly #time: VirtualTime
  readonly #cores: number
  readonly #inside = new Heap<() => void>()
  #speed = 1
  #attainedMs = 0
  #sinceMs = 0
  /** A departure that was planned before the last change does not take place. */
  #version = 0

  constructor(time: VirtualTime, cores: number) {
    this.#time = time
    this.#cores = cores
  }

  get size(): number {
    return this.#inside.size
  }

  enter(workMs: number, done: () => void): void {
    this.#attain()
    this.#inside.push(this.#attainedMs + workMs, done)
    this.#plan()
  }

  speed(factor: number): void {
    this.#attain()
    this.#speed = factor
    this.#plan()
  }

  #rate(): number {
    return Math.min(1, (this.#cores * this.#speed) / this.#inside.size)
  }

  #attain(): void {
    const nowMs = this.#time.now()
    if (this.#inside.size > 0) this.#attainedMs += (nowMs - this.#sinceMs) * this.#rate()
    this.#sinceMs = nowMs
  }

  #plan(): void {
    const version = ++this.#version
    if (this.#inside.size === 0) return
    const dueMs = this.#inside.key
    this.#time.after((dueMs - this.#attainedMs) / this.#rate(), () => {
      if (version !== this.#version) return
      this.#sinceMs = this.#time.now()
      this.#attainedMs = dueMs
      const done = this.#inside.pop()!
      this.#plan()
      done()
    })
  }
}
