import { systemClock } from '../../src/core/clock.ts'
import type { Clock } from '../../src/core/contracts.ts'

/** Real time that knows how many of its timers are still to come. */
export function countingClock(): Clock & { readonly pending: number } {
  let pending = 0
  return {
    now: systemClock.now,
    after(ms, run, hold) {
      let over = false
      const end = (): void => {
        if (!over) pending--
        over = true
      }
      pending++
      const stop = systemClock.after(
        ms,
        () => {
          end()
          run()
        },
        hold,
      )
      return () => {
        end()
        stop()
      }
    },
    get pending() {
      return pending
    },
  }
}
