import type { Attempt, Backend, Stop, Watcher } from '../core/contracts.ts'
import type { ResolvedSettings } from '../core/resolved.ts'

export type SlowStartSettings = Exclude<ResolvedSettings['health']['slowStart'], false>

const BY = 'slow-start'
/** Weights are changed at most this often, ms, and at most so many times over a ramp: each change rebuilds the picker. */
const STEP_MS = 100
const STEPS = 100
/** Shares of who proves itself, and how many successes in a row it takes for each (after Berry's smart_ai). */
const STAGES = [
  { share: 0.1, successes: 0 },
  { share: 0.3, successes: 1 },
  { share: 0.5, successes: 3 },
  { share: 1, successes: 5 },
] as const
/**
 * A stage in which nothing fails ends after so many times `dwellMs`, and after no less than LEAST_LONGEST_MS, however few requests came:
 * strategies that compare hardly ask one that has a tenth. Whoever is asked as its weight says has proved itself long before.
 */
const MOST_DWELLS = 5
const LEAST_LONGEST_MS = 1_000
/** A backend that hit a rate limit was at work a moment ago: it is warm. Whatever else kept one away may have left it cold. */
const WARM = 'rate-limit'

/**
 * Gives a backend that comes back, or is added to others, its full share of the traffic only little by little: with the time, or as
 * it proves itself. One that gets hardly any requests cannot: its small weight may be why, so its share grows then, too, only more slowly.
 */
export function slowStart(settings: SlowStartSettings): Watcher {
  const { by, windowMs, aggression, minShare, dwellMs } = settings
  const longestMs = Math.max(LEAST_LONGEST_MS, MOST_DWELLS * dwellMs)
  const stepMs = Math.max(STEP_MS, (by === 'time' ? windowMs : longestMs) / STEPS)
  const shareAt = (ageMs: number): number =>
    ageMs >= windowMs ? 1 : Math.max(minShare, (Math.max(0, ageMs) / windowMs) ** (1 / aggression))
  return {
    name: BY,
    start({ clock, control, members }) {
      const ramps = new Map<Backend, Ramp>()
      let known: readonly Backend[] = members().all
      let stopTimer: Stop | undefined
      let stopped = false

      const weigh = (backend: Backend, share: number): void => {
        if (share === 1) ramps.delete(backend)
        control.weigh(backend, BY, share)
      }

      const begin = (backend: Backend): void => {
        const nowMs = clock.now()
        ramps.set(backend, { returnedMs: nowMs, stage: 0, stageMs: nowMs, successes: 0 })
        weigh(backend, by === 'time' ? shareAt(0) : STAGES[0].share)
        arm()
      }

      const step = (): void => {
        stopTimer = undefined
        const nowMs = clock.now()
        for (const [backend, ramp] of ramps) {
          // What is under way may yet say something.
          const isOver = backend.inflight === 0 && nowMs - ramp.stageMs >= longestMs
          if (by === 'time') weigh(backend, shareAt(nowMs - ramp.returnedMs))
          else if (isOver) enter(backend, ramp, ramp.stage + 1, nowMs)
        }
        arm()
      }

      const arm = (): void => {
        if (ramps.size > 0) stopTimer ??= clock.after(stepMs, step)
      }

      const enter = (backend: Backend, ramp: Ramp, stage: number, nowMs: number): void => {
        ramp.stage = stage
        ramp.stageMs = nowMs
        weigh(backend, STAGES[stage]!.share)
      }

      /** One stage up at a time: a burst of successes says no more than one of them. */
      const prove = ({ backend, rule, startMs, endMs }: Attempt): void => {
        const ramp = ramps.get(backend)
        // What began before it was back says nothing about it now.
        if (ramp === undefined || rule === undefined || rule.health === 'none' || startMs < ramp.returnedMs) return
        const failed = rule.health === 'failure'
        ramp.successes = failed ? 0 : ramp.successes + 1
        const ripe = endMs - ramp.stageMs >= dwellMs && ramp.successes >= STAGES[ramp.stage + 1]!.successes
        if (failed || ripe) enter(backend, ramp, failed ? 0 : ramp.stage + 1, endMs)
      }

      return {
        ...(by === 'success' && { sink: { name: BY, attempt: prove } }),
        members(all) {
          for (const backend of ramps.keys()) if (backend.removed) ramps.delete(backend)
          const added = all.filter((backend) => !known.includes(backend))
          // Nobody is cold beside others who are as cold: the first set of a pool, or one that replaces it whole, starts at once.
          if (added.length < all.length) for (const backend of added) begin(backend)
          known = all
        },
        unblocked(backend, reason) {
          if (!stopped && reason.by !== WARM) begin(backend)
        },
        stop() {
          stopped = true
          stopTimer?.()
          for (const backend of ramps.keys()) weigh(backend, 1)
        },
      }
    },
  }
}

/** How far one has come that has not all of its share yet. */
interface Ramp {
  readonly returnedMs: number
  /** Index of `STAGES`, and since when. */
  stage: number
  stageMs: number
  /** In a row. */
  successes: number
}
