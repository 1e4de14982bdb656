import type { Backend, Picker, Prefer, Random, Strategy } from '../core/contracts.ts'
import { drawByWeight, equalWeights } from './alias.ts'

/**
 * Power of two choices (Mitzenmacher): two distinct backends at random, the better one by `prefer`. Candidates are drawn by
 * weight; the second falls back to the neighbour of the first after a few equal draws. O(1), any number of backends.
 */
export function p2c(prefer: Prefer): Strategy {
  return {
    name: `p2c(${prefer.name})`,
    start: ({ random }) => ({ build: ({ eligible }) => pickerOf(eligible, prefer, random) }),
  }
}

function pickerOf(eligible: readonly Backend[], prefer: Prefer, random: Random): Picker {
  const list = [...eligible] // reading a frozen array is slower
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

/** Redraws for a distinct second candidate (Finagle's effort). */
const DRAWS = 5
