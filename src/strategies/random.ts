import type { Strategy } from '../core/contracts.ts'
import { drawByWeight } from './alias.ts'

/** Anyone eligible, all alike, whatever their weights (0 apart). O(1). */
export function random(): Strategy {
  return {
    name: 'random',
    start: (core) => ({
      build(members) {
        const eligible = [...members.eligible] // reading a frozen array is slower
        const n = eligible.length
        if (n === 0) return () => undefined
        return () => eligible[n === 1 ? 0 : core.random(n)]
      },
    }),
  }
}

/** In proportion to the weights, by an alias table: O(1) a pick, O(n) a change. */
export function weightedRandom(): Strategy {
  return {
    name: 'weighted-random',
    start: (core) => ({
      build(members) {
        const eligible = [...members.eligible] // reading a frozen array is slower
        if (eligible.length === 0) return () => undefined
        const draw = drawByWeight(eligible, core.random)
        return () => eligible[draw()]
      },
    }),
  }
}
