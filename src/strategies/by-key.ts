import type { Strategy } from '../core/contracts.ts'
import { drawByWeight } from './alias.ts'
import { Xxh64 } from './hash.ts'
import { type Plan, Tables } from './tables.ts'

/** A strategy over an order of its members for each key. Calls without a key: anyone eligible, by weight, without a bound. */
export function byKey(name: string, plan: Plan, bound: number | undefined): Strategy {
  return {
    name,
    start(core) {
      const tables = new Tables(core, plan, bound)
      const hash = new Xxh64()
      return {
        build(members) {
          const eligible = [...members.eligible] // reading a frozen array is slower
          const view = tables.view(members, eligible)
          const n = eligible.length
          if (n === 0) return () => undefined
          if (n === 1) return () => eligible[0]
          const draw = drawByWeight(eligible, core.random)
          return (call) => {
            const { key } = call
            if (key === undefined) return eligible[draw()]
            tables.serving = view
            if (view.walk !== undefined) return view.walk.pick(key, call)
            return eligible[(hash.of(key).modulo(n) + call.picks) % n]
          }
        },
      }
    },
  }
}
