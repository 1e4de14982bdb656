import type { Strategy } from '../core/contracts.ts'
import type { FailoverOptions } from '../core/strategy-options.ts'
import type { TieredStrategy } from '../core/tiers.ts'
import { drawByWeight } from './alias.ts'
import { failover } from './failover.ts'
import { isOpen } from './groups.ts'

/** Resolution of a draw. */
const SCALE = 1 << 30

/**
 * The first pick in proportion to the weights, each retry in proportion among those not tried yet: the order is weighted sampling without
 * replacement (the exponential-key order of Efraimidis and Spirakis). When a priority has nobody left, the next one; they
 * share the traffic as in `failover`. O(1) a first pick, O(n) a retry.
 */
export function weightedFailover(options: FailoverOptions = {}): TieredStrategy {
  return { ...failover(withoutReplacement(), options), name: 'weighted-failover' }
}

function withoutReplacement(): Strategy {
  return {
    name: 'without replacement',
    start: ({ random }) => ({
      build(members) {
        const eligible = [...members.eligible] // reading a frozen array is slower
        const n = eligible.length
        if (n === 0) return () => undefined
        const draw = drawByWeight(eligible, random)
        const weights = Float64Array.from(eligible, ({ weight }) => weight)
        return (call) => {
          const drawn = eligible[draw()]!
          if (isOpen(drawn, call)) return drawn
          let total = 0
          for (let i = 0; i < n; i++) if (isOpen(eligible[i]!, call)) total += weights[i]!
          let at = total * (random(SCALE) / SCALE)
          let picked = drawn
          for (let i = 0; i < n && at >= 0; i++) {
            if (!isOpen(eligible[i]!, call)) continue
            picked = eligible[i]!
            at -= weights[i]!
          }
          return picked
        }
      },
    }),
  }
}
