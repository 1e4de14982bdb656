import type { Clock } from '../core/contracts.ts'

/** A clock that stands still until it is told to move. */
export interface ManualClock extends Clock {
  /** Moves time forward, running what falls due in order, each at its own time. Promises get a turn after each. */
  advance(ms: number): Promise<void>
  /** Timers set and neither run nor stopped. */
  readonly pending: number
}

/** Starts at `startMs`, default 1 000: nothing of evenkeel's treats 0 as special, but code under test might. */
export function manualClock(startMs: number = 1_000): ManualClock {
  let nowMs = startMs
  let serial = 0
  const timers = new Map<number, { readonly atMs: number; readonly run: () => void }>()
  const nextDue = (untilMs: number): number | undefined => {
    let due: number | undefined
    for (const [id, { atMs }] of timers) {
      if (atMs <= untilMs && (due === undefined || atMs < timers.get(due)!.atMs)) due = id
    }
    return due
  }
  return {
    now: () => nowMs,
    after(ms, run) {
      const id = serial++
      timers.set(id, { atMs: nowMs + Math.max(0, ms), run })
      return () => void timers.delete(id)
    },
    async advance(ms) {
      await settle() // what was just started sets its timers at the time it was started
      const untilMs = nowMs + ms
      for (let due = nextDue(untilMs); due !== undefined; due = nextDue(untilMs)) {
        const { atMs, run } = timers.get(due)!
        timers.delete(due)
        nowMs = Math.max(nowMs, atMs)
        run()
        await settle()
      }
      nowMs = untilMs
      await settle()
    },
    get pending() {
      return timers.size
    },
  }
}

/** Lets promise chains run to where they wait for something else: longer than any pipeline of ours. */
async function settle(): Promise<void> {
  for (let i = 0; i < 50; i++) await Promise.resolve()
}
