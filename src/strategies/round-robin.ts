import type { Backend, Strategy } from '../core/contracts.ts'

/**
 * One after the other, whatever their weights (0 apart). It starts at a random backend, so that many processes do not begin
 * at the same one; after a change of members it goes on behind the one that was served last.
 */
export function roundRobin(): Strategy {
  return {
    name: 'round-robin',
    start({ random }) {
      let last: Backend | undefined
      return {
        build(members) {
          const eligible = [...members.eligible] // reading a frozen array is slower
          const n = eligible.length
          if (n === 0) return () => undefined
          const at = last === undefined ? -1 : eligible.indexOf(last)
          let cursor = at >= 0 ? at : random(n)
          return () => {
            cursor = cursor + 1 >= n ? 0 : cursor + 1
            last = eligible[cursor]!
            return last
          }
        },
      }
    },
  }
}
