import type { Backend, Call, Members, Strategy } from '../core/contracts.ts'
import type { HashOptions } from '../core/strategy-options.ts'
import { priorityOf } from '../core/tiers.ts'
import { drawByWeight } from './alias.ts'
import { checkBound } from './bound.ts'
import { expected } from './expected.ts'
import { Xxh64 } from './hash.ts'
import { keyOf } from './key.ts'
import { type Plan, Tables } from './tables.ts'

/** What is the same for every hash strategy, checked. */
export interface Hashing extends Pick<Strategy, 'name' | 'keyOf'> {
  /** A key has one owner, and nobody takes its place. */
  readonly whenOut?: 'fail'
}

/** `options` may be missing where nothing checks types. */
export function hashing(name: string, options: HashOptions | undefined): Hashing {
  expected(typeof options === 'object' || options === undefined, name, 'an object of options', options)
  const read = keyOf(name, options?.key)
  const { whenOut = 'redistribute', bound } = options!
  const known = whenOut === 'redistribute' || whenOut === 'fail'
  expected(known, `${name}: whenOut`, "'redistribute' or 'fail'", whenOut)
  expected(whenOut === 'redistribute' || bound === undefined, `${name}: bound`, "nothing with whenOut 'fail'", bound)
  checkBound(name, bound)
  return { name, ...(read !== undefined && { keyOf: read }), ...(whenOut === 'fail' && { whenOut }) }
}

/** A strategy over an order of its members for each key. Calls without a key: anyone eligible, by weight, without a bound. */
export function byKey(common: Hashing, plan: Plan, bound: number | undefined): Strategy {
  const alone = common.whenOut === 'fail'
  return {
    ...common,
    start(core) {
      const tables = new Tables(core, plan, bound)
      const hash = new Xxh64()
      return {
        build(members) {
          const eligible = [...members.eligible] // reading a frozen array is slower
          const view = tables.view(members, eligible, alone ? ownersOf(members) : undefined)
          const n = eligible.length
          if (n === 0) return () => undefined
          if (n === 1 && !alone) return () => eligible[0]
          const draw = drawByWeight(eligible, core.random)
          return (call) => {
            const { key } = call
            if (key === undefined) return eligible[draw()]
            tables.serving = view
            if (alone) return view.walk === undefined ? noOwner(call) : view.walk.own(key, call)
            if (view.walk !== undefined) return view.walk.pick(key, call)
            return eligible[(hash.of(key).modulo(n) + call.picks) % n]
          }
        },
      }
    },
  }
}

/** Whose a key may be: everybody in the priorities in use, well or not, but for those that are configured to get nothing. */
export function ownersOf({ all, eligible }: Members): readonly Backend[] {
  const used = new Set(eligible.map(priorityOf))
  return all.filter((backend) => used.has(priorityOf(backend)) && backend.endpoint.weight !== 0)
}

function noOwner(call: Call): undefined {
  call.sole = null
}
