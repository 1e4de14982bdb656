import type { Strategy } from '../core/contracts.ts'
import { drawByWeight, equalWeights } from './alias.ts'
import { isOpen } from './groups.ts'
import { type Pace, Paces } from './pace.ts'

/** Up to so many backends all are looked at, which finds the idle ones. */
const LOOK_AT_ALL = 64
/** Of more backends, so many: at 70 % load the p99 is then that of looking at all, at 90 % a tenth above it. */
const CANDIDATES = 16
/** Steps of a lot. */
const STEPS = 1 << 30

/**
 * The default: fewest requests in flight per weight, equals by lot; a backend that fails or is clearly slower than the others
 * is passed over while somebody else has little to do, and shows now and then whether it still is. Looks at all of up to 64
 * backends, at 16 of more: neighbours from a random place, or drawn by weight. Its score in stats: how many times slower than the
 * others a backend is taken to be.
 */
export function auto(): Strategy {
  return {
    name: 'auto',
    start({ random }) {
      const paces = new Paces()
      return {
        build(members) {
          const eligible = [...members.eligible] // reading a frozen array is slower
          const n = eligible.length
          if (n === 0) return () => undefined
          if (n === 1) return () => eligible[0]
          const pacesOf = eligible.map((backend) => paces.of(backend))
          const all = n <= LOOK_AT_ALL
          const looks = all ? n : CANDIDATES
          const draw = all || equalWeights(eligible) ? undefined : drawByWeight(eligible, random)
          const even = draw !== undefined || equalWeights(eligible)
          const tied = new Int32Array(looks)
          // Of neighbours these stand together in memory, unlike their paces.
          const plain = new Uint8Array(n)
          let changes = -1
          return (call) => {
            if (changes !== paces.changes) {
              changes = paces.changes
              const mostAreOdd = areMostOdd(pacesOf)
              for (let i = 0; i < n; i++) plain[i] = pacesOf[i]!.isPlain(mostAreOdd) ? 1 : 0
            }
            let next = random(n)
            let ties = 0
            let least = Infinity
            for (let i = 0; i < looks; i++) {
              if (draw !== undefined) next = draw()
              else if (++next >= n) next = 0
              const backend = eligible[next]!
              if (!isOpen(backend, call)) continue
              const { inflight } = backend
              const load = (plain[next] === 1 ? inflight : pacesOf[next]!.load(inflight, call.nowMs)) / backend.weight
              if (load > least) continue
              if (load < least) ties = 0
              least = load
              tied[ties++] = next
            }
            if (ties === 0) return eligible[next] // nobody is open: the pool finds out why
            if (even) return eligible[tied[random(ties)]!]
            let tickets = 0
            for (let i = 0; i < ties; i++) tickets += eligible[tied[i]!]!.weight
            let lot = (random(STEPS) / STEPS) * tickets
            let i = 0
            while (i < ties - 1 && lot >= eligible[tied[i]!]!.weight) lot -= eligible[tied[i++]!]!.weight
            return eligible[tied[i]!]
          }
        },
        head: (attempt) => paces.head(attempt),
        settle: (attempt) => paces.settle(attempt),
        score: (backend) => paces.of(backend).factor,
      }
    },
  }
}

/** More than half are slow, time out or are unknown. Who fails fast stays apart: among many such the few that work are precious. */
function areMostOdd(paces: readonly Pace[]): boolean {
  let odd = 0
  for (let i = 0; i < paces.length; i++) if (paces[i]!.factor !== 1 && !paces[i]!.failsFast) odd++
  return odd * 2 > paces.length
}
