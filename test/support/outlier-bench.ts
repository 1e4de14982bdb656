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
  /** So many requests to a backend of which so many fail, good ones first. */
  serve(id: string, requests: number, failures: number): Promise<void>
  state(id: string): string
  /** Ids of who is out. */
  out(): string
  /** The latest reason told about it, in words. */
  detail(id: string): string | undefined
  /** How long it is out for, ms; fails when it is not. */
  outFor(id: string): number
  /** Moves time to where its ejection ends. */
  back(id: string): Promise<void>
  events(): string[]
}

/** A balancer without retries: one call, one attempt. Nothing but the detector blocks or weighs, unless `health` says so. */
export function outlierBench({ health, ...options }: BalancerBenchOptions = {}): OutlierBench {
  const scripts = new Map<string, Play>()
  const reasons = new Map<string, Reason>()
  const details = new Map<string, string | undefined>()
  const events: string[] = []
  const it = balancerBench((send) => (scripts.get(send.to) ?? good)(send, 0), {
    retry: { attempts: 1 },
    health: { slowStart: false, cooldown: false, ...health },
    ...options,
  })
  const heard =
    (what: string) =>
    (backend: Backend, reason: Reason): void => {
      events.push(`${backend.id} ${what}`)
      reasons.set(backend.id, reason)
      details.set(backend.id, reason.detail)
    }
  it.balancer.on('blocked', heard('out'))
  it.balancer.on('wouldBlock', heard('would be out'))
  it.balancer.on('unblocked', (backend: Backend) => {
    events.push(`${backend.id} back`)
    reasons.delete(backend.id)
  })
  const outFor = (id: string): number => reasons.get(id)!.untilMs! - it.clock.now()
  const state = (id: string): string =>
    it.balancer.stats().pools.default!.backends.find((backend) => backend.id === id)!.state
  const hit = async (id: string, times = 1): Promise<void> => {
    for (let i = 0; i < times; i++) await it.call({}, { prefer: id })
  }
  return {
    ...it,
    scripts,
    hit,
    state,
    outFor,
    async serve(id, requests, failures) {
      scripts.set(id, good)
      await hit(id, requests - failures)
      scripts.set(id, bad)
      await hit(id, failures)
      scripts.set(id, good)
    },
    out: () =>
      it.balancer
        .stats()
        .pools.default!.backends.filter((backend) => backend.state === 'blocked')
        .map(({ id }) => id)
        .join(''),
    detail: (id) => details.get(id),
    back: (id) => it.clock.advance(outFor(id)),
    events: () => events,
  }
}

export function passive(settings: object): BalancerBenchOptions {
  return { health: { passive: settings } }
}
