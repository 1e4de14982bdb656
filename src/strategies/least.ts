import type { Backend, Prefer, Strategy } from '../core/contracts.ts'
import { expected } from './expected.ts'
import { isOpen } from './groups.ts'

/** Steps of a lot. */
const STEPS = 1 << 30

/**
 * The best of all by `prefer`, equals by lot in proportion to their weights: always the first would herd many processes, and an
 * idle pool keeps to the weights. O(n): for pools of up to about 64 backends it is better than p2c, since it never misses an idle one.
 */
export function least(prefer: Prefer): Strategy {
  expected(typeof prefer === 'function', 'least: prefer', 'a function of two backends, as byInflight', prefer)
  return {
    name: `least(${prefer.name})`,
    start: ({ random }) => ({
      build(members) {
        const eligible = [...members.eligible] // reading a frozen array is slower
        const n = eligible.length
        if (n === 0) return () => undefined
        return (call) => {
          let best: Backend | undefined
          let equals = 0
          for (let i = 0; i < n; i++) {
            const other = eligible[i]!
            if (!isOpen(other, call)) continue
            if (best === undefined || prefer(best, other) === other) {
              best = other
              equals = other.weight
            } else if (prefer(other, best) === other) {
              equals += other.weight
              if (random(STEPS) * equals < other.weight * STEPS) best = other
            }
          }
          return best ?? eligible[0] // nobody is open: the pool finds out why
        }
      },
    }),
  }
}
