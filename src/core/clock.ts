import type { Clock, Stop } from './contracts.ts'

/** The longest delay a timer takes, ms: Node runs anything longer at once (2^31 - 1). */
export const MAX_DELAY_MS = 2_147_483_647

/** The process's monotonic clock. Its timers keep the process alive only when somebody waits for them. */
export const systemClock: Clock = {
  now: (): number => performance.now(),
  after(ms: number, run: () => void, hold = false): Stop {
    const timer = setTimeout(run, Math.min(Math.max(ms, 0), MAX_DELAY_MS))
    if (!hold) timer.unref?.()
    return () => clearTimeout(timer)
  },
}
