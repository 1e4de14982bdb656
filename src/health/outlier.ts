import type { Backend, Stop, Watcher } from '../core/contracts.ts'
import { jittered } from '../core/random.ts'
import type { ResolvedSettings } from '../core/resolved.ts'
import { standOut } from './rates.ts'
import { Runs } from './runs.ts'

export type OutlierSettings = Exclude<ResolvedSettings['health']['passive'], false> & {
  /** Panic is on: the last healthy backend is then never ejected. */
  readonly panic: boolean
}

/** A good head and a body that goes on for so long prove as much as a whole answer, ms: streams may last for hours. */
const PROOF_MS = 1_000
/** From this size on a pool is large: a tenth of it may be out. */
const LARGE_POOL = 10
const BY = 'outlier'

/** What is known of one backend. */
interface Track {
  /** 'trial': back, but not yet proved: one request at a time until one succeeds. */
  state: 'in' | 'out' | 'trial'
  /** The request of the trial is under way. */
  trying: boolean
  /** When the head of its answer came, if that was good; else NaN. */
  goodMs: number
  /** Failures in a row. */
  readonly runs: Runs
  /** In this interval; nothing is counted while the pool is too small to be compared. */
  requests: number
  failures: number
  /** Ejections not yet forgiven, the current one included: it lasts so many times the base. */
  ejections: number
  returnedMs: number
  stop: Stop | undefined
}

/** Ejects a backend after failures in a row, or when its failures of an interval stand out; it re-enters by one real request. */
export function outlier(settings: OutlierSettings): Watcher {
  const { successRate, failureShare, intervalMs, baseMs, maxMs, jitter, dryRun } = settings
  const fewest = Math.min(
    ...[successRate, failureShare].map((statistic) => (statistic === false ? Infinity : statistic.minBackends)),
  )
  /** More ejections than lengthen the next one need not be forgiven one by one. */
  const mostEjections = Math.ceil(maxMs / baseMs)
  return {
    name: BY,
    start(core) {
      const tracks = new Map<Backend, Track>()
      let stopSweep: Stop | undefined

      /** Whether another one can take the traffic in its place: who has yet to prove itself cannot. */
      const carries = (other: Backend, instead: Backend): boolean =>
        other !== instead && other.reasons.size === 0 && other.weight > 0 && tracks.get(other)?.state === 'in'

      /** The cap on the share of the pool that is out by our word. */
      const mayEject = (backend: Backend): boolean => {
        const { all } = core.members()
        const share = settings.maxShare ?? (all.length < LARGE_POOL ? 0.5 : 0.1)
        const most = Math.max(1, Math.floor(all.length * share))
        const out = all.filter((other) => tracks.get(other)?.state === 'out').length
        return out < most && (!settings.panic || all.some((other) => carries(other, backend)))
      }

      const eject = (backend: Backend, detail: string): void => {
        const track = tracks.get(backend)
        if (track === undefined || track.state === 'out' || !mayEject(backend)) return
        const nowMs = core.clock.now()
        const forgiven = Math.floor((nowMs - track.returnedMs) / intervalMs)
        track.ejections = Math.min(Math.max(0, track.ejections - forgiven) + 1, mostEjections)
        // The longest one is shifted too, if only to be shorter.
        const ms = Math.min(jittered(Math.min(baseMs * track.ejections, maxMs), jitter, core.random), maxMs)
        const reason = { by: BY, hard: false, untilMs: nowMs + ms, detail }
        track.state = 'out'
        track.stop = core.clock.after(ms, () => release(backend, track))
        if (dryRun) core.emit('wouldBlock', backend, reason)
        else core.control.block(backend, reason)
      }

      const release = (backend: Backend, track: Track): void => {
        track.state = 'trial'
        track.trying = false
        track.goodMs = Number.NaN
        track.returnedMs = core.clock.now()
        track.requests = track.failures = 0
        core.control.unblock(backend, BY)
      }

      /** Takes the counters of the interval first: what an ejection sets off belongs to the next one. */
      const sweep = (): void => {
        stopSweep = undefined
        const tallies = [...tracks]
          .filter(([backend, { state }]) => state !== 'out' && backend.weight > 0)
          .map(([backend, { requests, failures }]) => ({ backend, requests, failures }))
        for (const track of tracks.values()) track.requests = track.failures = 0
        for (const [{ backend }, detail] of standOut(tallies, settings)) eject(backend, detail)
      }

      const count = (track: Track, failed: boolean): void => {
        track.requests++
        if (failed) track.failures++
        stopSweep ??= core.clock.after(intervalMs, sweep)
      }

      return {
        // In a dry run the trial goes on beside the traffic.
        ...(!dryRun && {
          gate: {
            name: BY,
            admit(backend, call) {
              const track = tracks.get(backend)
              if (track?.state !== 'trial') return true
              if (track.trying && !(call.nowMs - track.goodMs >= PROOF_MS))
                return !core.members().eligible.some((other) => carries(other, backend))
              track.trying = true
              track.goodMs = Number.NaN
              return true
            },
            release(backend, attempt) {
              const track = tracks.get(backend)
              // Requests from before the trial may end during it: only the one admitted frees the place.
              if (track !== undefined && !(attempt && attempt.startMs < track.returnedMs)) track.trying = false
            },
          },
        }),
        sink: {
          name: BY,
          head({ backend, startMs, headMs, rule }) {
            const track = tracks.get(backend)
            if (track?.state === 'trial' && startMs >= track.returnedMs && rule!.health === 'success')
              track.goodMs = headMs
          },
          attempt({ backend, startMs, outcome, rule }) {
            const track = tracks.get(backend)
            const { health } = rule!
            if (track === undefined || track.state === 'out' || health === 'none') return
            if (startMs < track.returnedMs) return // sent before the ejection, which was for that
            const failed = health === 'failure'
            if (tracks.size >= fewest) count(track, failed)
            if (!failed) {
              track.state = 'in'
              track.runs.clear()
              return
            }
            const tooMany = track.runs.fail(outcome!.status)
            const detail = track.state === 'trial' ? 'failed the request that was to prove it' : tooMany
            if (detail !== undefined) eject(backend, detail)
          },
        },
        members(all) {
          for (const [backend, { stop }] of tracks) {
            if (!backend.removed) continue
            stop?.()
            tracks.delete(backend)
          }
          for (const backend of all) if (!tracks.has(backend)) tracks.set(backend, newTrack(settings))
        },
        stop() {
          const all = [...tracks]
          tracks.clear() // requests under way still end, and are still told to the sink
          stopSweep?.()
          for (const [backend, { stop }] of all) {
            stop?.()
            core.control.unblock(backend, BY)
          }
        },
      }
    },
  }
}

function newTrack(settings: OutlierSettings): Track {
  return {
    state: 'in',
    trying: false,
    goodMs: Number.NaN,
    runs: new Runs(settings),
    requests: 0,
    failures: 0,
    ejections: 0,
    returnedMs: -Infinity,
    stop: undefined,
  }
}
