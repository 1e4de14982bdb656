import type { Backend, Prefer, Strategy } from '../core/contracts.ts'

/**
 * The best of all by `prefer`, equals by lot: always the first would herd many processes. O(n): for pools of up to about 64 backends it is better than
 * p2c, since it never misses an idle one.
 */
export function least(prefer: Prefer): Strategy {
  return {
    name: `least(${prefer.name})`,
    start: ({ random }) => ({
      build(members) {
        const eligible = [...members.eligible] // reading a frozen array is slower
        const n = eligible.length
        if (n === 0) return () => undefined
        return () => {
          let best: Backend = eligible[0]!
          let equals = 1
          for (let i = 1; i < n; i++) {
            const other = eligible[i]!
            if (prefer(best, other) === other) {
              best = other
              equals = 1
            } else if (prefer(other, best) === other && random(++equals) === 0) best = other // one of equals, by lot
          }
          return best
        }
      },
    }),
  }
}
