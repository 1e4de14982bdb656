import { Balancer, type BalancerPlan } from './balancer.ts'
import { resolveOptions } from './config/schema.ts'
import { statusRanges } from './config/status.ts'
import { systemClock } from './core/clock.ts'
import type { Strategy, Transport, Watcher } from './core/contracts.ts'
import { isDeepEqual } from './core/equal.ts'
import type { BalancerOptions, ResolvedPool, ResolvedSettings, StrategyName } from './core/options.ts'
import type { PoolParts } from './core/pool-parts.ts'
import { systemRandom } from './core/random.ts'
import { type BalancerFetch, createFetch } from './faces/fetch.ts'
import { createRequest, type RequestFace } from './faces/request.ts'
import { monitor } from './health/monitor.ts'
import { outlier } from './health/outlier.ts'
import { httpProbe, tcpProbe } from './health/probes.ts'
import { hold } from './policies/hold.ts'
import { retry } from './policies/retry.ts'
import { deadline, timeouts } from './policies/timeout.ts'
import { least } from './strategies/least.ts'
import { p2c } from './strategies/p2c.ts'
import { byInflight, byPeakEwma } from './strategies/prefer.ts'
import { random, weightedRandom } from './strategies/random.ts'
import { roundRobin } from './strategies/round-robin.ts'
import { weightedRoundRobin } from './strategies/weighted-round-robin.ts'
import { undici } from './transports/undici.ts'

const STRATEGIES: Readonly<Record<StrategyName, () => Strategy>> = {
  'round-robin': roundRobin,
  'weighted-round-robin': weightedRoundRobin,
  random,
  'weighted-random': weightedRandom,
  least: () => least(byInflight),
  p2c: () => p2c(byInflight),
  'peak-ewma': () => p2c(byPeakEwma),
}

/** What `createBalancer` returns. */
export type EvenkeelBalancer = Balancer<BalancerFetch, RequestFace>

/**
 * A balancer over the given backends. Throws one BalancerError `CONFIG` that lists everything wrong with the options.
 * Nothing is connected before the first request, and nothing it starts keeps the process alive.
 */
export function createBalancer(options: BalancerOptions): EvenkeelBalancer {
  const chance = systemRandom()
  const resolve = (given: BalancerOptions): ReturnType<typeof resolveOptions> =>
    resolveOptions(given, { clock: systemClock, random: () => chance })
  const made = new Made()
  const first = resolve(options)
  let planned = false
  const planOf = (given: BalancerOptions): BalancerPlan => {
    const { name, origins, route, pools } = planned ? resolve(given) : first
    planned = true
    made.begin()
    return {
      kept: () => made.keep(),
      name,
      origins,
      route,
      pools: pools.map((pool) => ({
        name: pool.name,
        endpoints: pool.endpoints,
        parts: made.partsOf(pool),
        totalMs: pool.settings.timeouts.totalMs,
        leaseMs: pool.settings.timeouts.leaseMs,
        bufferBytes: pool.settings.retry.bufferBytes,
      })),
    }
  }
  return new Balancer(options, first, planOf, (host) => ({ fetch: createFetch(host), request: createRequest(host) }))
}

interface Kept {
  readonly from: unknown
  readonly part: unknown
}

/**
 * Parts made from settings, kept by what they were made from: an update that says the same gets the same objects. What a refused
 * update made is forgotten.
 */
class Made {
  #kept: ReadonlyMap<string, Kept> = new Map()
  #next = new Map<string, Kept>()

  begin(): void {
    this.#next = new Map()
  }

  /** The plan was put into force. */
  keep(): void {
    this.#kept = this.#next
  }

  partsOf({ name, settings }: ResolvedPool): PoolParts {
    const { health, retry: retrySettings, timeouts: times } = settings
    return {
      strategy: this.#strategy(name, settings),
      transport:
        settings.transport ?? this.#keep<Transport>(name, 'transport', settings.undici, () => undici(settings.undici)),
      policies: [
        deadline(),
        retry(retrySettings),
        ...settings.policies,
        timeouts(times),
        ...(retrySettings.holdBytes > 0 ? [hold(retrySettings.holdBytes)] : []),
      ],
      watchers: [...this.#active(name, settings), ...this.#passive(name, settings), ...settings.watchers],
      sinks: settings.sinks,
      panicBelow: health.panicBelow,
      budget: retrySettings.budget,
    }
  }

  #strategy(pool: string, { strategy }: ResolvedSettings): Strategy {
    if (typeof strategy !== 'string') return strategy
    return this.#keep<Strategy>(pool, 'strategy', strategy, STRATEGIES[strategy])
  }

  #active(pool: string, { health }: ResolvedSettings): readonly Watcher[] {
    const { active } = health
    if (active === false) return []
    const probe = active.type === 'tcp' ? tcpProbe() : httpProbe(active.path, statusRanges(active.status))
    return [this.#keep<Watcher>(pool, 'active', active, () => monitor(active, probe))]
  }

  #passive(pool: string, { health }: ResolvedSettings): readonly Watcher[] {
    const { passive } = health
    if (passive === false || passive.consecutive === 0) return []
    const settings = { ...passive, panic: health.panicBelow > 0 }
    return [this.#keep<Watcher>(pool, 'passive', settings, () => outlier(settings))]
  }

  #keep<T>(pool: string, kind: string, settings: unknown, make: () => T): T {
    const key = `${kind} ${pool}`
    const kept = this.#kept.get(key)
    const same = kept !== undefined && isDeepEqual(kept.from, settings)
    const next = same ? kept : { from: settings, part: make() }
    this.#next.set(key, next)
    return next.part as T
  }
}
