import type { Backend, Reason } from 'evenkeel'
import { type BalancerBench, type BalancerBenchOptions, balancerBench } from './balancer-bench.ts'
import { type Play, status } from './plays.ts'

export const good: Play = status(200)
export const bad: Play = status(500)

export interface OutlierBench extends BalancerBench {
  /** What each backend does from now on; default: answers 200. */
  readonly scripts: Map<string, Play>
  /** One request to a backend; rejections are part of the game. */
  hit(id: string, times?: number): Promise<void>
  state(id: string): string
  /** How long it is out for, ms; fails when it is not. */
  outFor(id: string): number
  /** Moves time to where its ejection ends. */
  back(id: string): Promise<void>
  events(): string[]
}

/** A balancer without retries: one call, one attempt. */
export function outlierBench(options: BalancerBenchOptions = {}): OutlierBench {
  const scripts = new Map<string, Play>()
  const reasons = new Map<string, Reason>()
  const events: string[] = []
  const it = balancerBench((send) => (scripts.get(send.to) ?? good)(send, 0), { retry: { attempts: 1 }, ...options })
  it.balancer.on('blocked', (backend: Backend, reason: Reason) => {
    events.push(`${backend.id} out`)
    reasons.set(backend.id, reason)
  })
  it.balancer.on('unblocked', (backend: Backend) => {
    events.push(`${backend.id} back`)
    reasons.delete(backend.id)
  })
  const outFor = (id: string): number => reasons.get(id)!.untilMs! - it.clock.now()
  return {
    ...it,
    scripts,
    outFor,
    events: () => events,
    async hit(id, times = 1) {
      for (let i = 0; i < times; i++) await it.call({}, { prefer: id })
    },
    state: (id) => it.balancer.stats().pools.default!.backends.find((backend) => backend.id === id)!.state,
    back: (id) => it.clock.advance(outFor(id)),
  }
}

export function passive(settings: object): BalancerBenchOptions {
  return { health: { passive: settings } }
}
