import type { Attempt, Backend, Core, Watcher } from '../core/contracts.ts'
import { Aimd, type Bounds, Gradient2, type Limiter, Vegas, Windowed } from './limiters.ts'

export interface AdaptiveLimitSettings extends Bounds {
  readonly algorithm: 'gradient2' | 'aimd' | 'vegas'
}

const BY = 'adaptive'
/** A backend that fails faster than this was not asked for any work, ms. */
const WORK_MS = 1
/** Times are divided by each other, and a clock may not see the shortest, ms. */
const FLOOR_MS = 0.01

/** A limit per backend that follows what its answers say. In flight above a limit that shrinks is left to end by itself. */
export function adaptiveLimit(settings: AdaptiveLimitSettings): Watcher {
  return {
    name: BY,
    start(core) {
      const limiters = new Map<Backend, Limiter>()
      const say = (backend: Backend, limiter: Limiter, before: number): void => {
        const limit = Math.floor(limiter.limit)
        if (limit !== before) core.control.limit(backend, BY, limit)
      }
      return {
        sink: {
          name: BY,
          attempt(attempt) {
            const { backend } = attempt
            const limiter = limiters.get(backend)
            if (limiter === undefined) return // it was removed while this was in flight
            const before = Math.floor(limiter.limit)
            teach(limiter, attempt)
            say(backend, limiter, before)
          },
        },
        members(all) {
          for (const backend of limiters.keys()) if (backend.removed) limiters.delete(backend)
          for (const backend of all) {
            if (limiters.has(backend)) continue
            const limiter = limiterFor(settings, core)
            limiters.set(backend, limiter)
            say(backend, limiter, Infinity)
          }
        },
        stop() {
          for (const backend of limiters.keys()) core.control.limit(backend, BY, Infinity)
          limiters.clear()
        },
      }
    },
  }
}

function limiterFor(settings: AdaptiveLimitSettings, { random }: Core): Limiter {
  if (settings.algorithm === 'aimd') return new Aimd(settings)
  return new Windowed(settings.algorithm === 'vegas' ? new Vegas(settings, random) : new Gradient2(settings))
}

/** `inflight` no longer counts it, but it was there until now: without it a limit of 1 would never look used. */
function teach(limiter: Limiter, attempt: Attempt): void {
  if (isDrop(attempt)) return limiter.drop()
  if (attempt.rule!.latency !== 'sample') return
  const rttMs = (attempt.headMs >= 0 ? attempt.headMs : attempt.endMs) - attempt.startMs // a lease has no head
  if (attempt.class !== 'ok' && rttMs < WORK_MS) return
  limiter.sample(Math.max(rttMs, FLOOR_MS), attempt.backend.inflight + 1)
}

/** It had no time, or said that it had none: 429 and 503 are how servers with a limit of their own say it. */
function isDrop({ class: kind, status }: Attempt): boolean {
  if (kind === 'server-error') return status === 503
  return kind === 'timeout' || kind === 'overloaded' || kind === 'rate-limited'
}
