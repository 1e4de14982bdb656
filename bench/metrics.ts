/** What being seen costs: throughput with metrics and request ids and without, and the slowest answers while 200 backends are scraped. */
import type { Child } from './children.ts'
import type { HttpOptions } from './http.ts'
import { Load } from './load.ts'
import type { Used } from './meter.ts'
import type { ProxyKind, ProxyQuestion } from './proxy-child.ts'
import { interleave, quietOf, ratioOf, spreadOf } from './rounds.ts'
import type { ScraperQuestion, Scrapes } from './scraper-child.ts'
import { type Bench, IN_FLIGHT, UPSTREAMS, withUpstreams } from './subjects.ts'
import { integer, ratio, row, table } from './table.ts'

const WANTED_SHARE = 0.97
const WANTED_P99 = 1.1
/** Fewer say nothing about a few parts in a hundred. */
const LEAST_ROUNDS = 5

/** What is compared: one proxy, watched in every other round. */
interface Comparison {
  readonly proxy: ProxyKind
  readonly about: string
  /** Rounds in the time of one: what happens to the machine meanwhile happens to short neighbours alike. */
  readonly split: number
  /** In each round that is watched. */
  readonly scrapes: number
  readonly plain: { readonly name: string; readonly ids: ProxyQuestion }
  readonly watched: { readonly name: string; readonly ids: ProxyQuestion }
}

const COMPARISONS: readonly Comparison[] = [
  {
    proxy: 'by turns',
    about: `throughput: ${UPSTREAMS} upstream processes; wanted: perSecond at least ${WANTED_SHARE}`,
    split: 2,
    scrapes: 1, // more often than any Prometheus
    plain: { name: 'without', ids: 'without ids' },
    watched: { name: 'with metrics and ids', ids: 'with ids' },
  },
  {
    proxy: 'of 200',
    about: `latency: 200 backends; wanted: p99 at most ${WANTED_P99}`,
    split: 1,
    scrapes: 10,
    plain: { name: 'left alone', ids: 'with ids' },
    watched: { name: 'scraped', ids: 'with ids' },
  },
]

export async function benchMetrics(options: HttpOptions): Promise<void> {
  for (const comparison of COMPARISONS) {
    await withUpstreams(options.profile, (bench) => compare(bench, comparison, options))
  }
}

interface Measured {
  readonly p50: number
  readonly p99: number
  readonly perSecond: number
  readonly cpuUs: number
  readonly bytes: number
  readonly failed: number
}

/** Both ways in one process: two processes of the very same code lie further apart than what is to be seen. */
async function compare(bench: Bench, comparison: Comparison, { seconds, rounds }: HttpOptions): Promise<void> {
  const { about, split, scrapes, plain, watched } = comparison
  const everyMs = (seconds * 1_000) / split / scrapes
  const { child, stop } = await bench.start<number>('proxy-child.ts', comparison.proxy)
  const scraper = await bench.start<string>('scraper-child.ts', `http://127.0.0.1:${child.ready}/metrics`)
  const load = new Load(child.ready, IN_FLIGHT, { timed: true })
  const ask = <Answer>(question: ScraperQuestion): Promise<Answer> => scraper.child.ask(question)
  const told: Scrapes[] = []
  const round = async (ids: ProxyQuestion): Promise<Measured> => {
    await child.ask(ids)
    return measure(child, load, seconds / split)
  }
  const scrapedRound = async (): Promise<Measured> => {
    await ask({ everyMs })
    const measured = await round(watched.ids)
    told.push(await ask<Scrapes>('rest'))
    return measured
  }
  const results = await interleave([() => round(plain.ids), scrapedRound], split * Math.max(rounds, LEAST_ROUNDS))
  load.close()
  await Promise.all([stop(0), scraper.stop(0)])
  const { bytes } = told.at(-1)!
  const took = spreadOf(told.map(({ ms }) => ms)).median
  console.log(
    `\nmetrics, ${about}; ${IN_FLIGHT} connections, 1 KiB; scraped every ${everyMs} ms (${integer(bytes / 1024)} KiB in ${integer(took)} ms)`,
  )
  print([plain.name, watched.name], results)
}

async function measure(proxy: Child<number>, load: Load, seconds: number): Promise<Measured> {
  const ask = <Answer>(question: ProxyQuestion): Promise<Answer> => proxy.ask(question)
  await ask('meter')
  const beforeUs = await ask<number>('cpu')
  const { answered, latenciesMs, perSecond, failed } = await load.run(seconds)
  const cpuUs = ((await ask<number>('cpu')) - beforeUs) / answered
  const bytes = (await ask<Used>('used')).bytes / answered
  const at = (q: number): number => latenciesMs[Math.floor(q * latenciesMs.length)] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99), perSecond, cpuUs, bytes, failed }
}

/** Both ways, and the second beside the first, round by round. */
function print(names: readonly string[], results: readonly (readonly Measured[])[]): void {
  const of = (at: number, key: keyof Measured): readonly number[] => results[at]!.map((it) => it[key])
  const ms = (value: number): string => value.toFixed(2)
  table(
    ['', 'p50 ms', 'min..max', 'p99 ms', 'min..max', 'CPU us/req', 'min..max', 'bytes/req', 'req/s', 'failed'],
    names.map((name, at) => [
      name,
      ...row(spreadOf(of(at, 'p50')), ms),
      ...row(spreadOf(of(at, 'p99')), ms),
      ...row(spreadOf(of(at, 'cpuUs')), ms),
      integer(spreadOf(of(at, 'bytes')).median),
      integer(spreadOf(of(at, 'perSecond')).median),
      integer(of(at, 'failed').reduce((sum, failed) => sum + failed, 0)),
    ]),
  )
  const quiet = (at: number, key: keyof Measured): number =>
    key === 'perSecond' ? 1 / quietOf(of(at, key).map((value) => 1 / value)) : quietOf(of(at, key))
  table(
    [names.toReversed().join(' / '), 'ratio', 'min..max', 'quiet*'],
    (['perSecond', 'cpuUs', 'bytes', 'p50', 'p99'] as const).map((key) => [
      key,
      ...row(ratioOf(of(1, key), of(0, key)), ratio),
      ratio(quiet(1, key) / quiet(0, key)),
    ]),
  )
  console.log('  * of the better quartiles, which other work on the machine disturbs least')
}
