import type { Cell } from './cells.ts'
import type { Result } from './simulation.ts'

/** A statement about an order of strategies, in ratios: neither the machine nor one seed decides it. */
interface Ranking {
  readonly says: string
  readonly cells: readonly Cell[]
  /** Of the results of the cells, in their order. */
  judge(results: readonly Result[]): Finding
}

export interface Finding {
  readonly found: string
  readonly isTrue: boolean
}

const SEEDS = [1, 2, 3]

const RANKINGS: readonly Ranking[] = [
  {
    says: 'A, one client, p99: least < p2c < round-robin < random, and p2c at most 0.55 of random',
    cells: cells('A', 'least', 'p2c', 'round-robin', 'random'),
    judge(results) {
      const times = results.map(({ p99 }) => p99)
      const ratio = times[1]! / times[3]!
      const isSorted = times.every((p99, at) => at === 0 || p99 > times[at - 1]!)
      return {
        found: `${times.map((p99) => p99.toFixed(0)).join(' < ')} ms; ${ratio.toFixed(2)}`,
        isTrue: isSorted && ratio <= 0.55,
      }
    },
  },
  {
    says: 'B, one client, errors: round-robin at least 0.9 %, peak-ewma at most 0.01 %',
    cells: cells('B', 'round-robin', 'peak-ewma'),
    judge: ([blind, seeing]) => ({
      found: percents(blind!, seeing!),
      isTrue: blind!.errors >= 0.009 && seeing!.errors <= 0.0001,
    }),
  },
  {
    says: 'E, errors without ejection: least at least 4 times round-robin',
    cells: cells('E', 'least', 'round-robin'),
    judge: ([least, inTurn]) => atLeast(4, least!.errors / inTurn!.errors),
  },
  {
    says: 'E, errors with ejection: round-robin, p2c and least each at most 0.1 %',
    cells: cells('E ejection', 'round-robin', 'p2c', 'least'),
    judge: (results) => ({ found: percents(...results), isTrue: results.every(({ errors }) => errors <= 0.001) }),
  },
  {
    says: 'A, one client: least by latency alone fails at least 40 % of all requests',
    cells: cells('A', 'least latency'),
    judge: ([result]) => ({ found: percents(result!), isTrue: result!.errors >= 0.4 }),
  },
  {
    says: 'A, 20 clients, p99: of equals always the first at least 1.4 times one of them by lot',
    cells: cells('A', 'least, first of equals', 'least').map((cell) => ({ ...cell, clients: 20 })),
    judge: ([first, byLot]) => atLeast(1.4, first!.p99 / byLot!.p99),
  },
]

/** Every statement under every seed. `of` runs a cell. */
export async function judged(
  of: (cells: readonly (Cell & { readonly seed: number })[]) => Promise<readonly Result[]>,
): Promise<readonly { readonly says: string; readonly findings: readonly Finding[] }[]> {
  const wanted = RANKINGS.flatMap((ranking) =>
    SEEDS.map((seed) => ({ ranking, cells: ranking.cells.map((cell) => ({ ...cell, seed })) })),
  )
  const results = [...(await of(wanted.flatMap(({ cells }) => cells)))]
  const findings = wanted.map(({ ranking, cells: { length } }) => ranking.judge(results.splice(0, length)))
  return RANKINGS.map(({ says }) => ({ says, findings: findings.splice(0, SEEDS.length) }))
}

function cells(row: string, ...strategies: readonly string[]): readonly Cell[] {
  return strategies.map((strategy) => ({ strategy, row, clients: 1 }))
}

function atLeast(times: number, ratio: number): Finding {
  return { found: `${ratio.toFixed(1)} times`, isTrue: ratio >= times }
}

function percents(...results: readonly Result[]): string {
  return `${results.map(({ errors }) => (errors * 100).toFixed(3)).join(', ')} %`
}
