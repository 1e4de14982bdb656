import type { Backend, Strategy } from '../core/contracts.ts'

/**
 * Smooth weighted round robin (nginx): exact shares over a period, as evenly spread as they can be. Every pick adds each weight
 * to its backend's turn, takes the highest turn, the first of equals, and lowers it by the sum. O(n): `edf` is quicker from about 64
 * backends on. Integer weights keep it exact.
 */
export function weightedRoundRobin(): Strategy {
  return {
    name: 'weighted-round-robin',
    start() {
      /** Whose turn it is, by how much; it goes on across builds. */
      let turns = new Map<Backend, number>()
      let save = (): void => {}
      return {
        build(members) {
          const eligible = [...members.eligible] // reading a frozen array is slower
          save()
          const n = eligible.length
          if (n === 0) return () => undefined
          const weights = Float64Array.from(eligible, (backend) => backend.weight)
          const total = weights.reduce((sum, weight) => sum + weight, 0)
          const current = startingTurns(eligible, turns, total)
          const saveOwn = (): void => {
            turns = new Map(eligible.map((backend, i) => [backend, current[i]!]))
          }
          return () => {
            save = saveOwn // only now: a change that is tried but not made must not count
            let best = 0
            for (let i = 0; i < n; i++) {
              current[i]! += weights[i]!
              if (current[i]! > current[best]!) best = i
            }
            current[best]! -= total
            return eligible[best]
          }
        },
      }
    },
  }
}

/** Turns that are kept are held within the new sum and moved so that they add up to 0, as the algorithm needs. */
function startingTurns(list: readonly Backend[], turns: ReadonlyMap<Backend, number>, total: number): Float64Array {
  const current = Float64Array.from(list, (backend) => {
    const turn = turns.get(backend) ?? 0
    return Math.min(total, Math.max(-total, turn))
  })
  const shift = Math.round(current.reduce((sum, turn) => sum + turn, 0) / list.length)
  for (let i = 0; i < current.length; i++) current[i]! -= shift
  const rest = current.reduce((sum, turn) => sum + turn, 0)
  current[0]! -= rest
  return current
}
