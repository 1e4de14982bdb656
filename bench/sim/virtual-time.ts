import type { Clock, Stop } from '../../src/core/contracts.ts'
import { Heap } from './heap.ts'

/** Turns that promises get after an event that settled one: longer than any pipeline of ours. */
const TURNS = 16

interface Event {
  run: (() => void) | undefined
}

/** The time of everything in a simulation. It jumps from event to event; equal times run in the order they were set. */
export class VirtualTime {
  readonly #events = new Heap<Event>()
  #nowMs = 0
  #stirred = false
  /** The same for the library: whatever a timer of its own sets off through promises happens at that moment too. */
  readonly clock: Clock = {
    now: () => this.#nowMs,
    after: (ms, run) =>
      this.after(ms, () => {
        this.stir()
        run()
      }),
  }

  now(): number {
    return this.#nowMs
  }

  after(ms: number, run: () => void): Stop {
    const event: Event = { run }
    this.#events.push(this.#nowMs + Math.max(0, ms), event)
    return () => {
      event.run = undefined
    }
  }

  /** A promise was settled: what waits for it runs at this very moment, before the next event. */
  stir(): void {
    this.#stirred = true
  }

  /** Until `isOver`, or until nothing more is to happen. */
  async run(isOver: () => boolean): Promise<void> {
    while (this.#events.size > 0 && !isOver()) {
      this.#nowMs = this.#events.key
      this.#events.pop()!.run?.()
      if (!this.#stirred) continue
      this.#stirred = false
      for (let turn = 0; turn < TURNS; turn++) await undefined
    }
  }
}
