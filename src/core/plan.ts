/** A configuration turned into parts, and what calls ask of it. */
import type { Route } from './call.ts'
import type { BalancerRequest, Endpoint } from './contracts.ts'
import { BalancerError } from './errors.ts'
import type { PoolParts } from './pool-parts.ts'
import type { ResolvedOptions } from './resolved.ts'
import type { ConfigChange } from './revisions.ts'
import type { Secret } from './secret.ts'

/** Whoever makes one hands back the same objects for what did not change. */
export interface BalancerPlan {
  readonly name: string
  readonly origins: readonly string[] | undefined
  readonly route: Route | undefined
  readonly pools: readonly PoolPlan[]
  /** What it was made from. */
  readonly options: ResolvedOptions
  /** Both for the `Revision` that it may become. */
  hash(): string
  changesSince(earlier: BalancerPlan): readonly ConfigChange[]
  /** A new plan of the same configuration. */
  readonly again: () => BalancerPlan
  /** Every value of a configured header. */
  readonly secrets: readonly Secret[]
  /** To be called once the plan is in force. */
  kept(): void
}

export interface PoolPlan {
  readonly name: string
  readonly endpoints: readonly Endpoint[]
  readonly parts: PoolParts
  readonly totalMs: number
  readonly leaseMs: number
  readonly bufferBytes: number
}

/** The pool of that name, or the first one. */
export function poolIn({ pools }: BalancerPlan, name: string | undefined): PoolPlan {
  const found = name === undefined ? pools[0] : pools.find((pool) => pool.name === name)
  if (found !== undefined) return found
  const known = pools.map((pool) => pool.name).join(', ')
  throw new BalancerError('CONFIG', `no pool is named ${JSON.stringify(name)}; there are: ${known}`)
}

/** What a route throws or rejects with is told as what it is. */
export function routed(route: Route, request: BalancerRequest): string | Promise<string> {
  const failed = (cause: unknown): never => {
    throw new BalancerError('CONFIG', 'route failed', { cause })
  }
  try {
    const name = route(request)
    return typeof name === 'object' ? Promise.resolve(name).catch(failed) : name
  } catch (error) {
    return failed(error)
  }
}

/** Before a route has spoken the body is kept as for the most generous pool. */
export function bufferBytesIn(plan: BalancerPlan, pool: string | undefined): number {
  const { pools, route } = plan
  if (pool === undefined && route !== undefined) return Math.max(...pools.map(({ bufferBytes }) => bufferBytes))
  return poolIn(plan, pool).bufferBytes
}

export function checkOrigin({ origins }: BalancerPlan, origin: string): void {
  if (origins === undefined || origins.includes(origin)) return
  throw new BalancerError('CONFIG', `fetch of ${origin} refused: origins allows ${origins.join(', ') || 'none'}`)
}
