import type { Balancer } from 'evenkeel'
import type { Report } from './report.ts'
import type { Upstream } from './upstreams.ts'

/** When it happens, ms from the start. */
export interface OutagePlan {
  readonly killMs: number
  readonly backMs: number
  /** The same again after this; 0 = once. */
  readonly everyMs: number
}

/** One upstream killed and brought back, and when that was noticed. */
export interface Outage {
  /** How it went the last time, in words. */
  describe(): string
  /** It was brought back and has given a good answer since. */
  readonly recovered: boolean
  stop(): void
}

export function planOutage(upstream: Upstream, balancer: Balancer, report: Report, plan: OutagePlan): Outage {
  const { id } = upstream
  const timers = new Set<NodeJS.Timeout>()
  const startMs = performance.now()
  let killedMs = NaN
  let backMs = NaN
  let servedMs = NaN

  const after = (ms: number, run: () => Promise<void>): void => {
    const timer = setTimeout(() => {
      timers.delete(timer)
      void run()
    }, ms)
    timers.add(timer)
  }
  const kill = async (): Promise<void> => {
    killedMs = performance.now()
    backMs = servedMs = NaN
    report.event(`${id} is KILLED: its connections break, its port refuses new ones`)
    await upstream.kill()
  }
  const revive = async (): Promise<void> => {
    await upstream.revive()
    backMs = performance.now()
    report.event(`${id} is UP again on the same port; the balancer does not know yet`)
  }
  const round = (waitMs: number): void => {
    after(waitMs + plan.killMs, kill)
    after(waitMs + plan.backMs, revive)
    if (plan.everyMs > 0) after(waitMs + plan.everyMs, async () => round(0))
  }
  round(0)

  // The balancer's clock is performance.now() too.
  balancer.on('attempt', (attempt) => {
    if (attempt.backend.id !== id || attempt.outcome?.class !== 'ok') return
    if (!Number.isNaN(servedMs) || !(attempt.startMs >= backMs)) return
    servedMs = attempt.endMs
    report.event(`${id} gets traffic again, ${seconds(servedMs - backMs)} after it came back`)
  })

  return {
    get recovered() {
      return servedMs > 0
    },
    describe() {
      if (Number.isNaN(killedMs)) return 'not yet killed'
      const at = (ms: number): string => `at ${seconds(ms - startMs)}`
      const told = `${id} killed ${at(killedMs)}`
      if (Number.isNaN(backMs)) return `${told}, not yet up again`
      if (Number.isNaN(servedMs)) return `${told}, up again ${at(backMs)}, no traffic since`
      return `${told}, up again ${at(backMs)}, traffic again ${at(servedMs)}: out for ${seconds(servedMs - killedMs)}`
    },
    stop() {
      for (const timer of timers) clearTimeout(timer)
    },
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}
