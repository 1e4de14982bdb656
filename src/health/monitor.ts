import type { Attempt, Backend, Probe, Reason, Stop, Watcher } from '../core/contracts.ts'
import { header } from '../core/headers.ts'
import { jittered } from '../core/random.ts'
import { ASKED, check, TAKE_OUT } from './check.ts'

export interface MonitorSettings {
  /** From the end of a check to the next one. */
  readonly intervalMs: number
  /** The same while checks disagree with the verdict; `intervalMs` if that is less. */
  readonly fastIntervalMs: number
  /** The same while the pool has no traffic; undefined = as `intervalMs`. */
  readonly idleIntervalMs: number | undefined
  /** Share of the interval it is shifted by at most, either way. */
  readonly jitter: number
  readonly timeoutMs: number
  /** Good checks in a row that bring a backend back. */
  readonly rise: number
  /** Bad ones in a row that take it out. */
  readonly fall: number
  /**
   * What a newcomer counts as: 'up'; 'down', which not even panic overrides before its first bad check; 'probe': it gets traffic,
   * and the first check decides alone. Who was in the pool before the checks began is not taken out unchecked.
   */
  readonly initial: 'up' | 'down' | 'probe'
}

const BY = 'probe'
const WEAK = 'degraded'
/**
 * A degraded backend's share: low, so that others are preferred; not 0, so that it stays measured. When all are degraded, the shares
 * are as before.
 */
const DEGRADED_SHARE = 0.1

/** What is known of one backend. */
interface Watched {
  /** Checks in a row that say the opposite of the verdict. */
  against: number
  verdict: 'unknown' | 'up' | 'down'
  /** The verdict rests on a check: it is what `ready` waits for. */
  known: boolean
  /** It asked to be taken out since its last check began. */
  asked: boolean
  /** The traffic there had been when its last check began. */
  traffic: number
  checks: number
  failures: number
  lastMs: number
  stopCheck: Stop
  stopPause: Stop
}

/**
 * Asks every backend in turn whether it is well, beside the traffic, and writes the answer as a reason. A backend that asks for it
 * in an answer, to a check or to traffic, is taken out at once.
 */
export function monitor(settings: MonitorSettings, probe: Probe): Watcher {
  return {
    name: BY,
    start(core) {
      const watched = new Map<Backend, Watched>()
      const waiting: (() => void)[] = []
      /** Heads and ends of attempts so far. */
      let traffic = 0
      /** Who was there before, and what checks with other settings had found of them. */
      let before: ReadonlyMap<Backend, Reason | undefined> = new Map(
        core.members().all.map((backend) => [backend, backend.reasons.get(BY)]),
      )
      const idleMs = settings.idleIntervalMs ?? settings.intervalMs

      const tellReady = (): void => {
        if (![...watched.values()].every(({ known }) => known)) return
        for (const resolve of waiting.splice(0)) resolve()
      }

      const judge = (backend: Backend, it: Watched, bad: string | undefined): void => {
        const now = bad === undefined ? 'up' : 'down'
        const needed = it.verdict === 'unknown' || bad === ASKED ? 1 : now === 'up' ? settings.rise : settings.fall
        it.against = now === it.verdict ? 0 : it.against + 1
        const turns = it.against >= needed
        const wasKnown = it.known
        if (turns) {
          it.verdict = now
          it.against = 0
        }
        it.known ||= it.verdict === 'up' || now === 'down'
        if (turns && now === 'up') core.control.unblock(backend, BY)
        // Also when it was blocked unchecked, and now there is a reason.
        else if (it.verdict === 'down' && bad !== undefined && (turns || !wasKnown))
          core.control.block(backend, { by: BY, hard: false, detail: bad })
        if (!wasKnown) tellReady()
      }

      const look = (backend: Backend, it: Watched): void => {
        it.asked = false
        it.traffic = traffic
        const startMs = core.clock.now()
        it.stopCheck = check(core, probe, backend, settings.timeoutMs, ({ bad, degraded, unasked }) => {
          const found = it.asked ? ASKED : bad
          if (found === undefined) core.control.weigh(backend, WEAK, degraded ? DEGRADED_SHARE : 1)
          if (!unasked) {
            it.checks++
            if (bad !== undefined) it.failures++
            it.lastMs = core.clock.now() - startMs
          }
          if (!unasked || it.asked) judge(backend, it, found)
          if (watched.get(backend) === it) pause(backend, it, jittered(pauseMs(it), settings.jitter, core.random))
        })
      }

      const isIdle = (it: Watched): boolean =>
        idleMs !== settings.intervalMs &&
        traffic === it.traffic &&
        core.members().all.every(({ inflight }) => inflight === 0)

      const pauseMs = (it: Watched): number => {
        if (it.against > 0) return Math.min(settings.fastIntervalMs, settings.intervalMs)
        return isIdle(it) ? idleMs : settings.intervalMs
      }

      /** A long pause of an idle pool ends within an interval of the first traffic. */
      const pause = (backend: Backend, it: Watched, leftMs: number): void => {
        const stepMs = isIdle(it) ? Math.min(leftMs, settings.intervalMs) : leftMs
        it.stopPause = core.clock.after(stepMs, () => {
          if (stepMs < leftMs && isIdle(it)) return pause(backend, it, leftMs - stepMs)
          it.stopCheck()
          look(backend, it)
        })
      }

      const begin = (backend: Backend): void => {
        const found = before.get(backend)
        const initial = found !== undefined ? 'down' : before.has(backend) ? 'probe' : settings.initial
        const it: Watched = {
          against: 0,
          verdict: initial === 'probe' ? 'unknown' : initial,
          known: found !== undefined,
          asked: false,
          traffic,
          checks: 0,
          failures: 0,
          lastMs: NaN,
          stopCheck: () => {},
          stopPause: () => {},
        }
        watched.set(backend, it)
        look(backend, it)
      }

      const end = ({ stopCheck, stopPause }: Watched): void => {
        stopPause()
        stopCheck()
      }

      return {
        sink: {
          name: BY,
          head({ backend, headers = [] }: Attempt) {
            traffic++
            if (header(headers, TAKE_OUT) === undefined) return
            const it = watched.get(backend)
            if (it === undefined) return
            it.asked = true
            judge(backend, it, ASKED)
          },
          attempt() {
            traffic++
          },
        },
        members(all) {
          for (const [backend, it] of watched) {
            if (all.includes(backend)) continue
            watched.delete(backend)
            end(it)
          }
          const added = all.filter((backend) => !watched.has(backend))
          for (const backend of added) begin(backend)
          const found = before
          before = new Map()
          // Last: who is told of it may change the pool again.
          for (const backend of added) {
            if (watched.get(backend)?.verdict !== 'down') continue
            core.control.block(backend, found.get(backend) ?? { by: BY, hard: true, detail: 'not checked yet' })
          }
          tellReady()
        },
        stats: {
          checks(backend) {
            const it = watched.get(backend)
            return it && { checks: it.checks, failures: it.failures, lastMs: it.lastMs }
          },
        },
        ready: () =>
          new Promise((resolve) => {
            waiting.push(resolve)
            tellReady()
          }),
        stop() {
          const all = [...watched]
          watched.clear()
          for (const [backend, it] of all) {
            end(it)
            if (it.verdict === 'down') core.control.unblock(backend, BY)
            core.control.weigh(backend, WEAK, 1)
          }
          tellReady() // there is nothing left to wait for
        },
      }
    },
  }
}
