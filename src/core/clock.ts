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
  wall: (): number => Date.now(),
}

/** The three forms of RFC 9110 5.6.7, told apart by how they begin; the last one is GMT without saying so. */
const DATE =
  /^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} [\d:]{8} GMT$|^[A-Z][a-z]{5,8}, \d\d-[A-Z][a-z]{2}-\d\d [\d:]{8} GMT$/
const ASCTIME = /^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4}$/

/** A date from a header, ms since 1970; undefined for what is none. */
export function httpDate(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const ms = DATE.test(text) ? Date.parse(text) : ASCTIME.test(text) ? Date.parse(`${text} GMT`) : Number.NaN
  return Number.isNaN(ms) ? undefined : ms
}
