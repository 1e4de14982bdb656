import type { Backend, Picker, Prefer, Random, Strategy } from '../core/contracts.ts'
import type { P2cOptions } from '../core/strategy-options.ts'
import { drawByWeight, equalWeights } from './alias.ts'
import { expected, expectedOptions } from './expected.ts'

/**
 * Power of two choices (Mitzenmacher): two distinct backends at random, the better one by `prefer`. Candidates are drawn by
 * weight; the second falls back to the neighbour of the first after a few equal draws. O(1), any number of backends.
 */
export function p2c(prefer: Prefer, options: P2cOptions = {}): Strategy {
  expected(typeof prefer === 'function', 'p2c: prefer', 'a function of two backends, as byInflight', prefer)
  expectedOptions('p2c', options)
  const { choices = 2 } = options
  expected(Number.isInteger(choices) && choices >= 2, 'p2c: choices', 'a whole number >= 2', choices)
  return {
    name: choices === 2 ? `p2c(${prefer.name})` : `p2c(${prefer.name}, ${choices})`,
    start: ({ random }) => ({
      build({ eligible }) {
        const list = [...eligible] // reading a frozen array is slower
        return choices > 2 && list.length > 2 ? ofMany(list, prefer, random, choices) : ofTwo(list, prefer, random)
      },
    }),
  }
}

function ofTwo(list: readonly Backend[], prefer: Prefer, random: Random): Picker {
  const n = list.length
  if (n === 0) return () => undefined
  if (n === 1) return () => list[0]
  if (equalWeights(list)) {
    return () => {
      const a = random(n)
      const b = random(n - 1)
      return prefer(list[a]!, list[b >= a ? b + 1 : b]!)
    }
  }
  const draw = drawByWeight(list, random)
  return () => {
    const a = draw()
    let b = draw()
    for (let tries = 0; a === b && tries < DRAWS; tries++) b = draw()
    if (a === b) b = a + 1 === n ? 0 : a + 1
    return prefer(list[a]!, list[b]!)
  }
}

/** The winner so far against the next, which is distinct from all before it if the weights are equal, else from the winner. */
function ofMany(list: readonly Backend[], prefer: Prefer, random: Random, choices: number): Picker {
  const n = list.length
  const most = Math.min(choices, n)
  if (equalWeights(list)) {
    const deck = Int32Array.from(list.keys())
    return () => {
      let best: Backend | undefined
      for (let k = 0; k < most; k++) {
        const at = k + random(n - k)
        const drawn = deck[at]!
        deck[at] = deck[k]!
        deck[k] = drawn
        best = best === undefined ? list[drawn]! : prefer(best, list[drawn]!)
      }
      return best
    }
  }
  const draw = drawByWeight(list, random)
  return () => {
    let best = list[draw()]!
    for (let k = 1; k < most; k++) {
      let next = list[draw()]!
      for (let tries = 0; next === best && tries < DRAWS; tries++) next = list[draw()]!
      if (next !== best) best = prefer(best, next)
    }
    return best
  }
}

/** Redraws for a distinct second candidate (Finagle's effort). */
const DRAWS = 5
