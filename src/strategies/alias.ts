import type { Backend, Random } from '../core/contracts.ts'

/** Resolution of the alias table's probabilities. */
const SCALE = 1 << 30

/** Vose's alias method: an index with probability proportional to its weight, O(1) a draw. The list is not empty. */
export function drawByWeight(list: readonly Backend[], random: Random): () => number {
  const n = list.length
  if (equalWeights(list)) return n === 1 ? () => 0 : () => random(n)
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

export function equalWeights(list: readonly Backend[]): boolean {
  return list.every((backend) => backend.weight === list[0]!.weight)
}
