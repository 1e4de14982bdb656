import type { Clock, Stop } from './contracts.ts'

/** The timer wakes at least this often while deadlines are pending, ms: it lapses by itself soon after the last one is gone. */
const TICK_MS = 500

/** One deadline. It can be set and cleared any number of times; who owns it keeps one object for its whole life. */
export class Deadline {
  readonly #deadlines: Deadlines
  readonly #expire: (() => void) | undefined
  /** Clock time at which it expires; only meaningful while `list` is set. */
  atMs = 0
  list: Queue | undefined = undefined
  previous: Deadline | undefined = undefined
  next: Deadline | undefined = undefined

  /** Without `expire` a subclass overrides the method. */
  constructor(deadlines: Deadlines, expire?: () => void) {
    this.#deadlines = deadlines
    this.#expire = expire
  }

  /** Starts it anew: expires `ms` after `sinceMs` (clock time, now or earlier); 0 or less only clears it. */
  set(ms: number, sinceMs: number): void {
    this.clear()
    if (ms > 0) this.#deadlines.add(this, ms, sinceMs)
  }

  clear(): void {
    this.list?.remove(this)
  }

  expire(): void {
    this.#expire?.()
  }
}

/** Deadlines of one duration expire nearly in the order they were set: a linked list, sorted from its tail. */
class Queue {
  head: Deadline | undefined = undefined
  tail: Deadline | undefined = undefined

  push(deadline: Deadline): void {
    let before = this.tail
    while (before !== undefined && before.atMs > deadline.atMs) before = before.previous
    const after = before === undefined ? this.head : before.next
    deadline.list = this
    deadline.previous = before
    deadline.next = after
    if (before === undefined) this.head = deadline
    else before.next = deadline
    if (after === undefined) this.tail = deadline
    else after.previous = deadline
  }

  remove(deadline: Deadline): void {
    const { previous, next } = deadline
    if (previous === undefined) this.head = next
    else previous.next = next
    if (next === undefined) this.tail = previous
    else next.previous = previous
    deadline.list = deadline.previous = deadline.next = undefined
  }
}

/**
 * All deadlines of a balancer behind one timer. Setting and clearing are a few assignments, so that the five timeouts
 * of a request cost less than one `setTimeout`. Few distinct durations are expected: the configured ones.
 */
export class Deadlines {
  readonly #clock: Clock
  readonly #queues = new Map<number, Queue>()
  #stop: Stop | undefined
  #wakeMs = Infinity

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(deadline: Deadline, ms: number, sinceMs: number): void {
    let queue = this.#queues.get(ms)
    if (queue === undefined) {
      queue = new Queue()
      this.#queues.set(ms, queue)
    }
    deadline.atMs = sinceMs + ms
    queue.push(deadline)
    if (deadline.atMs < this.#wakeMs) this.#arm(deadline.atMs, this.#clock.now())
  }

  /** Drops the timer; pending deadlines never expire. */
  close(): void {
    this.#stop?.()
    this.#stop = undefined
    this.#wakeMs = Infinity
    this.#queues.clear()
  }

  #arm(atMs: number, nowMs: number): void {
    this.#stop?.()
    const delayMs = Math.min(Math.max(atMs - nowMs, 0), TICK_MS)
    this.#wakeMs = nowMs + delayMs
    this.#stop = this.#clock.after(delayMs, () => this.#wake())
  }

  #wake(): void {
    this.#stop = undefined
    this.#wakeMs = Infinity
    const nowMs = this.#clock.now()
    for (const queue of this.#queues.values()) {
      while (queue.head !== undefined && queue.head.atMs <= nowMs) {
        const deadline = queue.head
        queue.remove(deadline)
        try {
          deadline.expire()
        } catch (error) {
          this.#rest(nowMs) // a reader's bug must not stop everybody's clock
          throw error
        }
      }
    }
    this.#rest(nowMs)
  }

  /** Until the next deadline; queues that are empty go, per-call durations must not pile up. */
  #rest(nowMs: number): void {
    let nextMs = Infinity
    for (const [ms, { head }] of this.#queues) {
      if (head === undefined) this.#queues.delete(ms)
      else nextMs = Math.min(nextMs, head.atMs)
    }
    if (nextMs < this.#wakeMs) this.#arm(nextMs, nowMs)
  }
}
