import { Balancer } from './balancer.ts'
import { changesBetween, hashOf } from './config/changes.ts'
import { resolveOptions } from './config/schema.ts'
import { statusRanges } from './config/status.ts'
import { systemClock } from './core/clock.ts'
import type { Policy, Probe, Sink, Strategy, Transport, Watcher } from './core/contracts.ts'
import { isDeepEqual } from './core/equal.ts'
import type { BalancerOptions } from './core/options.ts'
import { classesWith } from './core/outcome.ts'
import type { BalancerPlan } from './core/plan.ts'
import type { PoolParts } from './core/pool-parts.ts'
import { systemRandom } from './core/random.ts'
import type { ResolvedOptions, ResolvedPool, ResolvedSettings } from './core/resolved.ts'
import { Secret } from './core/secret.ts'
import type { BalancerEvents } from './events.ts'
import { type BalancerDispatcher, createDispatcher } from './faces/dispatcher.ts'
import { type BalancerFetch, createFetch } from './faces/fetch.ts'
import { createRequest, type RequestFace } from './faces/request.ts'
import { cooldown } from './health/cooldown.ts'
import { monitor } from './health/monitor.ts'
import { outlier } from './health/outlier.ts'
import { probeOf } from './health/probes.ts'
import { slowStart } from './health/slow-start.ts'
import { adaptiveLimit } from './policies/adaptive-limit.ts'
import { circuitBreaker } from './policies/breaker.ts'
import { type HedgeSettings, hedge } from './policies/hedge.ts'
import { hold } from './policies/hold.ts'
import { limit } from './policies/limit.ts'
import { retry } from './policies/retry.ts'
import { deadline, timeouts } from './policies/timeout.ts'
import { byName } from './strategies/by-name.ts'
import { logEvents, logRequests } from './telemetry/log.ts'
import { undici } from './transports/undici.ts'

/** What `createBalancer` returns. */
export type EvenkeelBalancer = Balancer<BalancerFetch, RequestFace, BalancerDispatcher>

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
  const { logger, clock } = first
  const redact = (text: string): string => balancer.redact(text)
  const log = logger === undefined ? undefined : { logger, clock, redact }
  let planned = false
  const planOf = (given: BalancerOptions): BalancerPlan => {
    const resolved = planned ? resolve(given) : first
    planned = true
    return planFrom(resolved)
  }
  const planFrom = (resolved: ResolvedOptions): BalancerPlan => {
    const { name, origins, route, pools } = resolved
    const requests = log === undefined ? undefined : logRequests(log, resolved.log.requests)
    made.begin()
    return {
      options: resolved,
      hash: () => hashOf(resolved),
      changesSince: (earlier) => changesBetween(earlier.options, resolved),
      again: () => planFrom(resolved),
      secrets: secretsOf(resolved),
      kept: () => made.keep(),
      name,
      origins,
      route,
      pools: pools.map((pool) => ({
        name: pool.name,
        endpoints: pool.endpoints,
        parts: made.partsOf(pool, requests === undefined ? [] : [requests]),
        totalMs: pool.settings.timeouts.totalMs,
        leaseMs: pool.settings.timeouts.leaseMs,
        bufferBytes: pool.settings.retry.bufferBytes,
      })),
    }
  }
  const balancer = new Balancer(options, first, planOf, (host) => ({
    fetch: createFetch(host),
    request: createRequest(host),
    dispatcher: createDispatcher(host),
  }))
  if (log !== undefined) {
    for (const [event, listener] of Object.entries(logEvents(log))) {
      balancer.on(event as keyof BalancerEvents, listener)
    }
  }
  return balancer
}

/** Every secret of a configuration. */
function secretsOf({ pools }: ResolvedOptions): readonly Secret[] {
  return pools.flatMap(({ endpoints, settings }) => [
    ...endpoints.flatMap(({ headers = {} }) => Object.values(headers).map(Secret.of)),
    ...checkSecretsOf(settings),
  ])
}

function checkSecretsOf({ health: { active } }: ResolvedSettings): readonly Secret[] {
  return active === false ? [] : Object.values(active.headers).map(Secret.of)
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

  partsOf({ name, settings }: ResolvedPool, sinks: readonly Sink[]): PoolParts {
    const { health, retry: retrySettings, timeouts: times } = settings
    const limited = this.#limit(name, settings)
    return {
      strategy: this.#strategy(name, settings),
      transport:
        settings.transport ?? this.#keep<Transport>(name, 'transport', settings.undici, () => undici(settings.undici)),
      policies: [
        deadline(),
        ...(limited === undefined ? [] : [limited.policy]),
        retry(retrySettings),
        ...settings.policies,
        ...(settings.hedge === false ? [] : [this.#hedge(name, settings.hedge)]),
        timeouts(times),
        ...(retrySettings.holdBytes > 0 ? [hold(retrySettings.holdBytes)] : []),
      ],
      watchers: [
        ...this.#active(name, settings),
        ...this.#passive(name, settings),
        ...this.#watcher(name, 'breaker', settings.breaker, circuitBreaker),
        ...this.#watcher(name, 'cooldown', health.cooldown, cooldown),
        ...this.#watcher(name, 'slow-start', health.slowStart, slowStart),
        ...this.#watcher(name, 'adaptive', settings.limits.adaptive, adaptiveLimit),
        ...(limited === undefined ? [] : [limited.watcher]),
        ...settings.watchers,
      ],
      sinks: [...settings.sinks, ...sinks],
      panicBelow: health.panicBelow,
      budget: retrySettings.budget,
      classes: this.#keep(name, 'classes', settings.classes, () => classesWith(settings.classes)),
      classify: settings.classify,
      secrets: checkSecretsOf(settings),
    }
  }

  #strategy(pool: string, { strategy }: ResolvedSettings): Strategy {
    return 'start' in strategy ? strategy : this.#keep(pool, 'strategy', strategy, () => byName(strategy))
  }

  #active(pool: string, { health }: ResolvedSettings): readonly Watcher[] {
    const { active } = health
    if (active === false) return []
    const probe = (): Probe => probeOf(active, statusRanges(active.status))
    return [this.#keep<Watcher>(pool, 'active', active, () => monitor(active, probe()))]
  }

  #passive(pool: string, { health }: ResolvedSettings): readonly Watcher[] {
    const { passive } = health
    if (passive === false) return []
    const settings = { ...passive, panic: health.panicBelow > 0 }
    return [this.#keep<Watcher>(pool, 'passive', settings, () => outlier(settings))]
  }

  #hedge(pool: string, from: HedgeSettings): Policy {
    return this.#keep(pool, 'hedge', from, () => hedge(from))
  }

  #limit(pool: string, { limits }: ResolvedSettings): ReturnType<typeof limit> | undefined {
    const { maxInflight, queue } = limits
    if (maxInflight === undefined && queue === false) return undefined
    return this.#keep(pool, 'limit', { maxInflight, queue }, () => limit({ maxInflight, queue }))
  }

  /** A part that is off, or made from its settings alone. */
  #watcher<T>(pool: string, kind: string, settings: T | false, make: (settings: T) => Watcher): readonly Watcher[] {
    return settings === false ? [] : [this.#keep(pool, kind, settings, () => make(settings))]
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
