import type { Strategy } from '../core/contracts.ts'
import type { FailoverOptions } from '../core/strategy-options.ts'
import { loadsOf, priorityOf, type TieredStrategy, tiersOf } from '../core/tiers.ts'
import { expected, expectedOptions, expectedWithin } from './expected.ts'
import { Groups, pickerOver } from './groups.ts'
import { keyWithin } from './key.ts'

/** Envoy's overprovisioning factor of 140 %. */
export const OVERPROVISIONING = 1.4

/**
 * Priorities with spill-over, as Envoy does it: the first priority gets what its health can carry, the next one the rest, and so on; within
 * each one `inner` chooses. A call that has tried everybody of its priority, or finds them full, goes on to the next; a call with a
 * key stays with the one it hashes to. `health.panicBelow` counts only if all priorities together cannot carry the traffic. Each must
 * be able to carry all of it. It goes outermost: `failover(locality(p2c(byInflight), { zone: 'a' }))`.
 */
export function failover(inner: Strategy, options: FailoverOptions = {}): TieredStrategy {
  expectedOptions('failover', options)
  const { overprovisioning = OVERPROVISIONING } = options
  expected(overprovisioning >= 1, 'failover: overprovisioning', 'a number >= 1', overprovisioning)
  expectedWithin('failover', inner)
  return {
    name: `failover(${inner.name})`,
    overprovisioning,
    ...keyWithin(inner),
    start(core) {
      const groups = new Groups(inner, core)
      return {
        head: groups.head,
        settle: groups.settle,
        score: groups.score,
        build(members) {
          const usable = new Set(members.eligible)
          const tiers = tiersOf(members.all, (it) => usable.has(it) && it.reasons.size === 0, overprovisioning)
          const built = groups.build(
            members,
            tiers.map(({ priority }) => priority),
            priorityOf,
          )
          // Whoever is used though a reason is against it: the pool panics there.
          const panic = built.every(({ members }, i) => members.length > tiers[i]!.healthy.length)
          const shares = panic ? built.map(({ members }) => members.length) : loadsOf(tiers.map(({ health }) => health))
          return pickerOver(built, shares, core.random)
        },
      }
    },
  }
}
