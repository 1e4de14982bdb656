import type { Backend, Picker, Prefer, Random, Strategy } from '../core/contracts.ts'

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

function pickerOf(list: readonly Backend[], prefer: Prefer, random: Random): Picker {
  const n = list.length
  if (n === 0) return () => undefined
  if (n === 1) return () => list[0]
  if (list.every((backend) => backend.weight === list[0]!.weight)) {
    return () => {
      const a = random(n)
      const b = random(n - 1)
      return prefer(list[a]!, list[b >= a ? b + 1 : b]!)
    }
  }
  const draw = aliasDraw(list, random)
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
/** Resolution of the alias table's probabilities. */
const SCALE = 1 << 30

/** Vose's alias method: an index with probability proportional to its weight, O(1) a draw. */
function aliasDraw(list: readonly Backend[], random: Random): () => number {
  const n = list.length
  const total = list.reduce((sum, backend) => sum + backend.weight, 0)
  const share = list.map((backend) => (backend.weight * n) / total)
  const threshold = new Int32Array(n).fill(SCALE - 1)
  const alias = Int32Array.from(list.keys())
  const small = [...list.keys()].filter((i) => share[i]! < 1)
  const large = [...list.keys()].filter((i) => share[i]! >= 1)
  while (small.length > 0 && large.length > 0) {
    const less = small.pop()!
    const more = large.at(-1)!
    threshold[less] = Math.round(share[less]! * SCALE)
    alias[less] = more
    share[more]! -= 1 - share[less]!
    if (share[more]! >= 1) continue
    large.pop()
    small.push(more)
  }
  return () => {
    const i = random(n)
    return random(SCALE) < threshold[i]! ? i : alias[i]!
  }
}
