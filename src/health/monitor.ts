import type { Backend, Probe, Stop, Watcher } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { jittered } from '../core/random.ts'

export interface MonitorSettings {
  readonly intervalMs: number
  /** Share of the interval it is shifted by at most, either way. */
  readonly jitter: number
  readonly timeoutMs: number
  /** Good answers in a row that bring a backend back. */
  readonly rise: number
  /** Bad ones in a row that take it out; the very first check decides alone. */
  readonly fall: number
}

const BY = 'probe'

/** What is known of one backend. */
interface Watched {
  /** Checks in a row that say the opposite of the verdict. */
  against: number
  verdict: 'unknown' | 'up' | 'down'
  stop: Stop
}

/** Asks every backend in turn whether it is well, beside the traffic, and writes the answer as a reason. */
export function monitor(settings: MonitorSettings, probe: Probe): Watcher {
  return {
    name: BY,
    start(core) {
      const watched = new Map<Backend, Watched>()
      const waiting: (() => void)[] = []

      const tellReady = (): void => {
        if (![...watched.values()].every(({ verdict }) => verdict !== 'unknown')) return
        for (const resolve of waiting.splice(0)) resolve()
      }

      const judge = (backend: Backend, it: Watched, failure: unknown): void => {
        const now = failure === undefined ? 'up' : 'down'
        if (now === it.verdict) {
          it.against = 0
          return
        }
        it.against++
        const needed = it.verdict === 'unknown' ? 1 : now === 'up' ? settings.rise : settings.fall
        if (it.against < needed) return
        it.against = 0
        it.verdict = now
        if (now === 'up') core.control.unblock(backend, BY)
        else core.control.block(backend, { by: BY, hard: false, detail: `${probe.name} check: ${messageOf(failure)}` })
        tellReady()
      }

      const check = (backend: Backend, it: Watched): void => {
        const controller = new AbortController()
        let over = false
        const end = (failure: unknown): void => {
          if (over) return
          over = true
          stopTimer()
          judge(backend, it, failure)
          if (watched.get(backend) !== it) return
          const stopPause = core.clock.after(jittered(settings.intervalMs, settings.jitter, core.random), () => {
            it.stop()
            check(backend, it)
          })
          // A body that is still coming then must not keep its connection, check after check.
          it.stop = () => {
            stopPause()
            controller.abort(new BalancerError('CLOSED', 'the check was over'))
          }
        }
        const stopTimer = core.clock.after(settings.timeoutMs, () => {
          const error = new BalancerError('TIMEOUT', `no answer within ${settings.timeoutMs} ms`)
          end(error)
          controller.abort(error)
        })
        it.stop = () => {
          over = true
          stopTimer()
          controller.abort(new BalancerError('CLOSED', 'the check was stopped'))
        }
        const { send, reach } = core
        // A probe that throws instead of rejecting says no as well.
        new Promise<void>((resolve) => resolve(probe.check(backend, { send, reach, signal: controller.signal }))).then(
          () => end(undefined),
          (error: unknown) => end(error ?? new Error('no')),
        )
      }

      return {
        members(all) {
          for (const [backend, { stop }] of watched) {
            if (all.includes(backend)) continue
            watched.delete(backend)
            stop()
          }
          for (const backend of all) {
            if (watched.has(backend)) continue
            const it: Watched = { against: 0, verdict: 'unknown', stop: () => {} }
            watched.set(backend, it)
            check(backend, it)
          }
          tellReady()
        },
        ready: () =>
          new Promise((resolve) => {
            waiting.push(resolve)
            tellReady()
          }),
        stop() {
          const all = [...watched]
          watched.clear()
          for (const [backend, { stop, verdict }] of all) {
            stop()
            if (verdict === 'down') core.control.unblock(backend, BY)
          }
          tellReady() // there is nothing left to wait for
        },
      }
    },
  }
}

function messageOf(failure: unknown): string {
  if (!(failure instanceof Error)) return String(failure)
  // Several addresses were tried: Node's own message is empty then.
  if (failure instanceof AggregateError && failure.message === '') return failure.errors.map(messageOf).join('; ')
  return failure.message || failure.name
}
