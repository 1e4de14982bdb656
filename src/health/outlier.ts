import type { Backend, Stop, Watcher } from '../core/contracts.ts'
import { CLASSES } from '../core/outcome.ts'
import { jittered } from '../core/random.ts'

export interface OutlierSettings {
  /** Failures in a row. */
  readonly consecutive: number
  readonly baseMs: number
  readonly maxMs: number
  /** 0..1; undefined = half of a small pool, a tenth of a large one. */
  readonly maxShare: number | undefined
  /** Panic is on: the last healthy backend is then never ejected. */
  readonly panic: boolean
}

/** From this size on a pool is large. */
const LARGE_POOL = 10
/** Ejections are shifted by up to this share either way, so that many clients do not return at once. */
const JITTER = 0.1
/** Each this long without a failure worth an ejection takes one off the count of ejections, ms (Envoy's sweep). */
const SWEEP_MS = 10_000
const BY = 'outlier'

/** What is known of one backend. */
interface Track {
  /** Failures in a row. */
  run: number
  /** Ejections not yet forgiven: the next lasts this many times the base. */
  ejections: number
  ejected: boolean
  /** Back, but not yet proved: one request at a time until one succeeds. */
  onTrial: boolean
  trial: boolean
  returnedMs: number
  stop: Stop | undefined
}

/** Ejects a backend after failures in a row; it re-enters by one real request. */
export function outlier(settings: OutlierSettings): Watcher {
  return {
    name: BY,
    start(core) {
      const tracks = new Map<Backend, Track>()
      let stopped = false
      const trackOf = (backend: Backend): Track => {
        let track = tracks.get(backend)
        if (track === undefined) {
          track = {
            run: 0,
            ejections: 0,
            ejected: false,
            onTrial: false,
            trial: false,
            returnedMs: 0,
            stop: undefined,
          }
          tracks.set(backend, track)
        }
        return track
      }

      /** Whether another one can take the traffic in its place: who has yet to prove itself cannot. */
      const carries = (other: Backend, instead: Backend): boolean =>
        other !== instead && other.reasons.size === 0 && other.weight > 0 && tracks.get(other)?.onTrial !== true

      /** The cap on the share of the pool that is out by our word. */
      const mayEject = (backend: Backend): boolean => {
        const { all } = core.members()
        const share = settings.maxShare ?? (all.length < LARGE_POOL ? 0.5 : 0.1)
        const most = Math.max(1, Math.floor(all.length * share))
        const out = all.filter(({ reasons }) => reasons.has(BY)).length
        return out < most && (!settings.panic || all.some((other) => carries(other, backend)))
      }

      const forgetRemoved = (): void => {
        for (const [backend, { stop }] of tracks) {
          if (!backend.removed) continue
          stop?.()
          tracks.delete(backend)
        }
      }

      const eject = (backend: Backend, track: Track): void => {
        if (stopped || track.ejected || backend.removed || !mayEject(backend)) return
        const nowMs = core.clock.now()
        const forgiven = track.returnedMs === 0 ? 0 : Math.floor((nowMs - track.returnedMs) / SWEEP_MS)
        track.ejections = Math.max(0, track.ejections - forgiven) + 1
        const ms = Math.min(jittered(settings.baseMs * track.ejections, JITTER, core.random), settings.maxMs)
        const detail = track.onTrial ? 'failed the request that was to prove it' : `${track.run} failures in a row`
        track.ejected = true
        track.onTrial = false
        track.run = 0
        track.stop = core.clock.after(ms, () => release(backend, track))
        core.control.block(backend, { by: BY, hard: false, untilMs: nowMs + ms, detail })
      }

      const release = (backend: Backend, track: Track): void => {
        track.stop = undefined
        track.ejected = false
        track.onTrial = true
        track.run = 0
        track.trial = false
        track.returnedMs = core.clock.now()
        forgetRemoved()
        core.control.unblock(backend, BY)
      }

      return {
        gate: {
          name: BY,
          admit(backend) {
            const track = tracks.get(backend)
            if (track === undefined || !track.onTrial) return true
            if (track.trial) return !core.members().eligible.some((other) => carries(other, backend))
            track.trial = true
            return true
          },
          release(backend, attempt) {
            const track = tracks.get(backend)
            if (!track?.trial) return
            // Requests from before the trial may end during it: only the one admitted frees the place.
            if (attempt === undefined || attempt.startMs >= track.returnedMs) track.trial = false
          },
        },
        sink: {
          name: BY,
          attempt(attempt) {
            const kind = attempt.outcome!.class
            const { health } = CLASSES[kind]
            if (health === 'none') return
            const { backend } = attempt
            if (health === 'success') {
              const track = tracks.get(backend)
              if (track === undefined) return
              track.run = 0
              if (attempt.startMs >= track.returnedMs) track.onTrial = false
              return
            }
            const track = trackOf(backend)
            if (attempt.startMs < track.returnedMs) return // sent before the ejection, which was for that
            track.run++
            if (track.onTrial || track.run >= settings.consecutive) eject(backend, track)
          },
        },
        members: forgetRemoved,
        stop() {
          stopped = true // requests under way still end, and are still told to the sink
          for (const [backend, track] of tracks) {
            track.stop?.()
            if (track.ejected) core.control.unblock(backend, BY)
          }
          tracks.clear()
        },
      }
    },
  }
}
