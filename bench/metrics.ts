/** What metrics cost: a proxy with them beside one without, and the slowest answers while 200 backends are scraped all the time. */
import { type HttpOptions, print } from './http.ts'
import { Load } from './load.ts'
import type { ProxyQuestion } from './proxy-child.ts'
import { interleave, ratioOf, spreadOf } from './rounds.ts'
import type { ScraperQuestion, Scrapes } from './scraper-child.ts'
import { type Bench, IN_FLIGHT, UPSTREAMS, withUpstreams } from './subjects.ts'
import { integer, ratio, row, table } from './table.ts'

const EVERY_MS = 100
const WANTED_SHARE = 0.97
const WANTED_P99 = 1.1

export async function benchMetrics(options: HttpOptions): Promise<void> {
  await withUpstreams(options.profile, async (bench) => {
    const subjects = await Promise.all([bench.proxy('evenkeel'), bench.proxy('with metrics')])
    console.log(
      `\nmetrics, throughput: ${IN_FLIGHT} connections, ${UPSTREAMS} upstream processes, 1 KiB; scraped once a second; wanted: at least ${WANTED_SHARE}`,
    )
    await print(subjects, ['evenkeel'], options)
  })
  await withUpstreams(options.profile, (bench) => scraped(bench, options))
}

interface Measured {
  readonly p50: number
  readonly p99: number
  readonly perSecond: number
  readonly cpuUs: number
  readonly failed: number
}

/** One proxy of 200 backends, its rounds with and without a scraper in turn. */
async function scraped(bench: Bench, { seconds, rounds }: HttpOptions): Promise<void> {
  const proxy = await bench.start<number>('proxy-child.ts', 'of 200')
  const scraper = await bench.start<string>('scraper-child.ts', `http://127.0.0.1:${proxy.child.ready}/metrics`)
  const load = new Load(proxy.child.ready, IN_FLIGHT, { timed: true })
  const ask = <Answer>(question: ScraperQuestion): Promise<Answer> => scraper.child.ask(question)
  const cpu = (): Promise<number> => proxy.child.ask('cpu' satisfies ProxyQuestion)
  const told: Scrapes[] = []
  const measure = async (): Promise<Measured> => {
    const beforeUs = await cpu()
    const { answered, latenciesMs, perSecond, failed } = await load.run(seconds)
    const cpuUs = ((await cpu()) - beforeUs) / answered
    const at = (q: number): number => latenciesMs[Math.floor(q * latenciesMs.length)] ?? Number.NaN
    return { p50: at(0.5), p99: at(0.99), perSecond, cpuUs, failed }
  }
  const results = await interleave(
    [
      measure,
      async () => {
        await ask({ everyMs: EVERY_MS })
        const measured = await measure()
        told.push(await ask<Scrapes>('rest'))
        return measured
      },
    ],
    rounds,
  )
  load.close()
  await Promise.all([proxy.stop(0), scraper.stop(0)])
  const { bytes } = told.at(-1)!
  const took = spreadOf(told.map(({ ms }) => ms)).median
  console.log(
    `\nmetrics, latency: ${IN_FLIGHT} connections, 200 backends, scraped every ${EVERY_MS} ms (${integer(bytes / 1024)} KiB in ${integer(took)} ms); wanted: p99 at most ${WANTED_P99} times`,
  )
  const ms = (value: number): string => value.toFixed(2)
  const of = (at: number, key: keyof Measured): readonly number[] => results[at]!.map((it) => it[key])
  table(
    ['', 'p50 ms', 'min..max', 'p99 ms', 'min..max', 'CPU us/req', 'min..max', 'req/s', 'failed'],
    ['left alone', 'scraped'].map((name, at) => [
      name,
      ...row(spreadOf(of(at, 'p50')), ms),
      ...row(spreadOf(of(at, 'p99')), ms),
      ...row(spreadOf(of(at, 'cpuUs')), ms),
      integer(spreadOf(of(at, 'perSecond')).median),
      integer(of(at, 'failed').reduce((sum, failed) => sum + failed, 0)),
    ]),
  )
  table(
    ['scraped / left alone', 'ratio', 'min..max'],
    (['p50', 'p99', 'cpuUs', 'perSecond'] as const).map((key) => [key, ...row(ratioOf(of(1, key), of(0, key)), ratio)]),
  )
}
