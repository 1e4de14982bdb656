import type { Cell, Job } from './cells.ts'
import { msOf } from './page.ts'
import type { Result } from './simulation.ts'

/** A statement about an order of strategies, in ratios: neither the machine nor one seed decides it. */
interface Ranking {
  readonly says: string
  readonly cells: readonly Cell[]
  /** Of each cell: as many as it takes for what it says to show, under each of the seeds. */
  readonly requests: number
  /** Of the results of the cells, in their order. */
  judge(results: readonly Result[]): Finding
}

export interface Finding {
  readonly found: string
  readonly isTrue: boolean
}

const SEEDS = [1, 2, 3]
/** Enough where everybody is far from the bound, or alike. */
const FEW = 12_000
/** For the others: what queues hold and what is ejected takes a while to come to rest. */
const MANY = 24_000

const RANKINGS: readonly Ranking[] = [
  {
    says: 'A, one client, p99: least < p2c < round-robin < random, and p2c at most 0.55 of random',
    requests: MANY,
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
    requests: MANY,
    cells: cells('B', 'round-robin', 'peak-ewma'),
    judge: ([blind, seeing]) => ({
      found: percents(blind!, seeing!),
      isTrue: blind!.errors >= 0.009 && seeing!.errors <= 0.0001,
    }),
  },
  {
    says: 'E, errors without ejection: least at least 4 times round-robin',
    requests: FEW,
    cells: cells('E', 'least', 'round-robin'),
    judge: ([least, inTurn]) => atLeast(4, least!.errors / inTurn!.errors),
  },
  {
    says: 'E, errors with ejection: round-robin, p2c and least each at most 0.1 %',
    requests: MANY,
    cells: cells('E ejection', 'round-robin', 'p2c', 'least'),
    judge: (results) => ({ found: percents(...results), isTrue: results.every(({ errors }) => errors <= 0.001) }),
  },
  {
    says: 'A, one client: least by latency alone fails at least 40 % of all requests',
    requests: FEW,
    cells: cells('A', 'least latency'),
    judge: ([result]) => ({ found: percents(result!), isTrue: result!.errors >= 0.4 }),
  },
  {
    says: 'A, 20 clients, p99: of equals always the first at least 1.4 times one of them by lot',
    requests: FEW,
    cells: cells('A', 'least, first of equals', 'least').map((cell) => ({ ...cell, clients: 20 })),
    judge: ([first, byLot]) => atLeast(1.4, first!.p99 / byLot!.p99),
  },
  {
    says: 'A, 20 clients, p99: what the servers know beats what a client sees, srv-p2c at most 0.7 of p2c',
    requests: FEW,
    cells: cells('A', 'srv-p2c', 'p2c').map((cell) => ({ ...cell, clients: 20 })),
    judge: ([knowing, seeing]) => atMost(0.7, knowing!.p99 / seeing!.p99),
  },
  {
    says: 'B3, p99: prequal at most 0.6 of rif with 20 clients, 0.75 with one; errors at most 0.01 %, round-robin at least 30 %',
    requests: MANY,
    cells: [
      ...cells('B3', 'prequal', 'rif').map((cell) => ({ ...cell, clients: 20 })),
      ...cells('B3', 'prequal', 'rif', 'round-robin'),
    ],
    judge([many, manyByRif, one, oneByRif, inTurn]) {
      const ratios = [many!.p99 / manyByRif!.p99, one!.p99 / oneByRif!.p99] as const
      // Queues are still filling at the length of a statement: round-robin fails 44 % of 100,000.
      const isRight = [many!, one!].every(({ errors }) => errors <= 0.0001) && inTurn!.errors >= 0.3
      return {
        found: `${ratios.map((ratio) => ratio.toFixed(2)).join(', ')}; ${percents(many!, one!, inTurn!)}`,
        isTrue: ratios[0] <= 0.6 && ratios[1] <= 0.75 && isRight,
      }
    },
  },
  {
    says: 'C, 20 clients, p99: prequal at most 0.5 of p2c',
    requests: FEW,
    cells: cells('C', 'prequal', 'p2c').map((cell) => ({ ...cell, clients: 20 })),
    judge: ([reported, seen]) => atMost(0.5, reported!.p99 / seen!.p99),
  },
  ...['B', 'B3', 'C', 'E', 'R'].map(
    (row): Ranking => ({
      says: `${row}, one client, p99 of all requests: auto at most 0.7 of round-robin and of random`,
      requests: FEW,
      cells: cells(row, 'auto', 'round-robin', 'random'),
      judge([own, ...blind]) {
        const times = [own!, ...blind].map(({ p99all }) => p99all)
        return { found: `${times.map(msOf).join(', ')} ms`, isTrue: times[0]! <= 0.7 * Math.min(times[1]!, times[2]!) }
      },
    }),
  ),
  {
    says: 'B, one client, p99 of all requests: auto at most 1.03 of least and of peak-ewma, with no more errors',
    requests: FEW,
    cells: cells('B', 'auto', 'least', 'peak-ewma'),
    judge([own, ...others]) {
      const times = [own!, ...others].map(({ p99all }) => p99all)
      const isRight = others.every(({ errors }) => own!.errors <= errors)
      return {
        found: `${times.map(msOf).join(', ')} ms; ${percents(own!, ...others)}`,
        isTrue: times[0]! <= 1.03 * Math.min(times[1]!, times[2]!) && isRight,
      }
    },
  },
  // What slows or fails all alike says nothing of any of them.
  ...['H', 'H shipped', 'M', 'P'].map(
    (row): Ranking => ({
      says: `${row}, p99, p99 of all requests and errors: auto at most 1.1 of least`,
      requests: FEW,
      cells: cells(row, 'auto', 'least'),
      judge([own, least]) {
        const isTrue = (['p99', 'p99all', 'errors'] as const).every((what) => own![what] <= 1.1 * least![what])
        const times = [own!, least!].map(({ p99, p99all }) => `${msOf(p99)} (${msOf(p99all)})`)
        return { found: `${times.join(', ')} ms; ${percents(own!, least!)}`, isTrue }
      },
    }),
  ),
]

/** Every statement under every seed. `of` runs jobs; what several statements look at is run once. */
export async function judged(
  of: (jobs: readonly Job[]) => Promise<readonly Result[]>,
): Promise<readonly { readonly says: string; readonly findings: readonly Finding[] }[]> {
  const jobs = new Map<string, Job>()
  for (const { cells, requests } of RANKINGS) {
    for (const cell of cells) {
      for (const seed of SEEDS) {
        const key = keyOf(cell, seed)
        jobs.set(key, { ...cell, seed, requests: Math.max(requests, jobs.get(key)?.requests ?? 0) })
      }
    }
  }
  const results = await of([...jobs.values()])
  const byKey = new Map([...jobs.keys()].map((key, at) => [key, results[at]!]))
  return RANKINGS.map(({ says, cells, judge }) => ({
    says,
    findings: SEEDS.map((seed) => judge(cells.map((cell) => byKey.get(keyOf(cell, seed))!))),
  }))
}

function keyOf({ strategy, row, clients }: Cell, seed: number): string {
  return JSON.stringify([strategy, row, clients, seed])
}

function cells(row: string, ...strategies: readonly string[]): readonly Cell[] {
  return strategies.map((strategy) => ({ strategy, row, clients: 1 }))
}

function atLeast(times: number, ratio: number): Finding {
  return { found: `${ratio.toFixed(1)} times`, isTrue: ratio >= times }
}

function atMost(share: number, ratio: number): Finding {
  return { found: ratio.toFixed(2), isTrue: ratio <= share }
}

function percents(...results: readonly Result[]): string {
  return `${results.map(({ errors }) => (errors * 100).toFixed(3)).join(', ')} %`
}
