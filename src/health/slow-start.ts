import type { Backend, Stop, Watcher } from '../core/contracts.ts'
import type { ResolvedSettings } from '../core/resolved.ts'

export type SlowStartSettings = Exclude<ResolvedSettings['health']['slowStart'], false>

const BY = 'slow-start'
/** Weights are changed at most this often, ms, and at most so many times over a ramp: each change rebuilds the picker. */
const STEP_MS = 100
const STEPS = 100
/** A backend that hit a rate limit was at work a moment ago: it is warm. Whatever else kept one away may have left it cold. */
const WARM = 'rate-limit'

/** Gives a backend that comes back, or is added to others, its full share of the traffic only little by little. */
export function slowStart({ windowMs, aggression, minShare }: SlowStartSettings): Watcher {
  const stepMs = Math.max(STEP_MS, windowMs / STEPS)
  const factorAt = (ageMs: number): number =>
    ageMs >= windowMs ? 1 : Math.max(minShare, (Math.max(0, ageMs) / windowMs) ** (1 / aggression))
  return {
    name: BY,
    start(core) {
      /** Who ramps, since when. */
      const ramps = new Map<Backend, number>()
      let known: readonly Backend[] = core.members().all
      let stopTimer: Stop | undefined
      let stopped = false

      const step = (): void => {
        stopTimer = undefined
        for (const [backend, sinceMs] of ramps) {
          const factor = factorAt(core.clock.now() - sinceMs)
          if (factor === 1) ramps.delete(backend)
          core.control.weigh(backend, BY, factor)
        }
        arm()
      }

      const arm = (): void => {
        if (ramps.size > 0) stopTimer ??= core.clock.after(stepMs, step)
      }

      const ramp = (backend: Backend): void => {
        ramps.set(backend, core.clock.now())
        core.control.weigh(backend, BY, factorAt(0))
        arm()
      }

      return {
        members(all) {
          for (const backend of ramps.keys()) if (backend.removed) ramps.delete(backend)
          const added = all.filter((backend) => !known.includes(backend))
          // Nobody is cold beside others who are as cold: the first set of a pool, or one that replaces it whole, starts at once.
          if (added.length < all.length) for (const backend of added) ramp(backend)
          known = all
        },
        unblocked(backend, reason) {
          if (!stopped && reason.by !== WARM) ramp(backend)
        },
        stop() {
          stopped = true
          stopTimer?.()
          for (const backend of ramps.keys()) core.control.weigh(backend, BY, 1)
          ramps.clear()
        },
      }
    },
  }
}
