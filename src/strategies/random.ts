import type { Backend, Random, Strategy } from '../core/contracts.ts'
import { drawByWeight } from './alias.ts'
import { Fenwick } from './fenwick.ts'

/** So many changes in a row, each with less than one pick per backend since the one before, are no longer an exception. */
const RESTLESS = 8

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

/**
 * In proportion to the weights. Each change makes a new alias table, O(1) a pick. While there is less than one pick per backend
 * between changes, making it costs more than it saves: a Fenwick tree takes its place, O(log n) for a pick and a changed weight.
 */
export function weightedRandom(): Strategy {
  return {
    name: 'weighted-random',
    start(core) {
      let picks = 0
      let restless = 0
      let tree: Tree | undefined
      return {
        build(members) {
          const eligible = [...members.eligible] // reading a frozen array is slower
          const n = eligible.length
          if (n === 0) return () => undefined
          if (n === 1) return () => eligible[0]
          restless = picks < n ? restless + 1 : 0
          picks = 0
          tree = restless > RESTLESS ? grown(tree, eligible) : undefined
          const draw = tree === undefined ? drawByWeight(eligible, core.random) : drawFrom(tree, core.random)
          return () => {
            if (picks < n) picks++
            return eligible[draw()]
          }
        },
      }
    },
  }
}

interface Tree {
  readonly backends: readonly Backend[]
  readonly heaviest: number
  readonly weights: Fenwick
}

/** The tree there is, if it is of the same backends and its unit still fits, with the weights of now; or a new one. */
function grown(tree: Tree | undefined, backends: readonly Backend[]): Tree {
  const heaviest = backends.reduce((most, { weight }) => Math.max(most, weight), 0)
  const same =
    tree !== undefined &&
    tree.heaviest === heaviest &&
    tree.backends.length === backends.length &&
    tree.backends.every((backend, i) => backend === backends[i])
  if (!same) return { backends, heaviest, weights: new Fenwick(backends.map(({ weight }) => weight)) }
  for (const [i, { weight }] of backends.entries()) tree.weights.set(i, weight)
  return tree
}

function drawFrom({ weights }: Tree, random: Random): () => number {
  return () => weights.draw(random)
}
