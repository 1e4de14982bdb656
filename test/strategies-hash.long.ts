import type { Clock, Strategy } from 'evenkeel'
import { expect, test } from 'vitest'
import { maglev } from '../src/strategies/maglev.ts'
import { ringHash } from '../src/strategies/ring-hash.ts'
import { SLICE_MS } from '../src/strategies/tables.ts'
import { addresses, hashBench, named, pickOf } from './support/hashing.ts'

const BACKENDS = 10_000
/** The longest that a change may keep requests waiting, ms. */
const LONGEST_MS = 10
/** Other processes take the processor away in the middle of a piece: the best of so many runs of the same piece counts. */
const RUNS = 7

/**
 * One of 10 000 leaves a pool that is at work. How long is each piece of work that nothing can interrupt, ms: first the change itself,
 * then every portion of the new table? By a clock that moves 1 ms at each look at it: a slice is one portion.
 */
function piecesOf(strategy: Strategy): number[] {
  let due: (() => void)[] = []
  let looks = 0
  const clock: Clock = {
    now: () => looks++,
    wall: () => 0,
    after(_, run) {
      due.push(run)
      return () => {
        due = due.filter((it) => it !== run)
      }
    },
  }
  const ms: number[] = []
  const timed = (run: () => void): void => {
    const startMs = performance.now()
    run()
    ms.push(performance.now() - startMs)
  }
  const all = named(addresses(BACKENDS))
  const bench = hashBench(strategy, clock)
  const picker = bench.build(all)
  while (due.length > 0) due.shift()!()
  pickOf(picker, 'in use')
  timed(() => pickOf(bench.build(all.slice(1)), 'in use'))
  while (due.length > 0) timed(due.shift()!)
  return ms
}

test.each([
  ['ring hash, 160 points each', () => ringHash({ key: 'call' })],
  ['ring hash like Envoy', () => ringHash({ key: 'call', like: 'envoy' })],
  ['maglev of 65 537 slots', () => maglev({ key: 'call' })],
  ['maglev of 1 000 003 slots', () => maglev({ key: 'call', size: 1_000_003 })],
] as const)(`%s: a change among ${BACKENDS} backends stalls requests for less than ${LONGEST_MS} ms`, (name, make) => {
  const [first, ...runs] = Array.from({ length: RUNS }, () => piecesOf(make()))
  const [changeMs, ...portions] = first!.map((ms, i) => runs.reduce((least, run) => Math.min(least, run[i]!), ms))
  // A slice is over when its time is, and the portion it is at.
  const sliceMs = SLICE_MS + Math.max(...portions)
  const wholeMs = portions.reduce((sum, ms) => sum + ms, 0)
  console.log(
    `${name}: the change itself ${(SLICE_MS + changeMs!).toFixed(1)} ms, the longest slice ${sliceMs.toFixed(1)} ms; ${wholeMs.toFixed(0)} ms of work in ${portions.length} portions`,
  )
  expect(SLICE_MS + changeMs!).toBeLessThan(LONGEST_MS)
  expect(sliceMs).toBeLessThan(LONGEST_MS)
})
