/** Requests per second: `balancer.fetch` beside undici's and Node's own fetch, the proxy beside thinnest. */
import { type Child, Children } from './children.ts'
import type { FetchClient, FetchRound, FetchRoundResult } from './fetch-child.ts'
import { Load } from './load.ts'
import { summarize } from './profile.ts'
import { interleave, ratioOf, type Spread, spreadOf } from './rounds.ts'
import { integer, ratio, row, table } from './table.ts'

export interface HttpOptions {
  /** Length of a round. */
  readonly seconds: number
  readonly rounds: number
  /** Folder for a CPU profile of evenkeel; undefined = none. With it, evenkeel runs alone. */
  readonly profile: string | undefined
}

const UPSTREAMS = 4
const CONNECTIONS = 64

/** What one subject did in one round. */
interface Round {
  readonly perSecond: number
  readonly cpuUsPerRequest: number
  readonly failed: number
}

type Subjects = Readonly<Record<string, (seconds: number) => Promise<Round>>>

export async function benchFetch(options: HttpOptions): Promise<void> {
  await withUpstreams(async (children, origins) => {
    const child = await children.start<string>('fetch-child.ts', origins, profiling(options, 'fetch'))
    const clients: readonly FetchClient[] =
      options.profile === undefined ? ['evenkeel', 'undici', 'built-in'] : ['evenkeel']
    const names = { evenkeel: 'balancer.fetch', undici: 'undici fetch', 'built-in': 'built-in fetch' }
    const subjects: Subjects = Object.fromEntries(
      clients.map((client) => [
        names[client],
        (seconds) => child.ask<FetchRoundResult>({ client, seconds } satisfies FetchRound),
      ]),
    )
    console.log(
      `\nfetch: ${CONNECTIONS} in flight, ${UPSTREAMS} upstream processes, 1 KiB, body read as text; ratio to undici fetch`,
    )
    await print(subjects, clients.length > 1 ? names.undici : names.evenkeel, options)
    await child.stop()
    if (options.profile !== undefined) await summarize(options.profile, 'fetch')
  })
}

export async function benchProxy(options: HttpOptions): Promise<void> {
  await withUpstreams(async (children, origins) => {
    const kinds = options.profile === undefined ? ['evenkeel', 'thinnest'] : ['evenkeel']
    const proxies = await Promise.all(
      kinds.map((kind) => children.start<number>('proxy-child.ts', [kind, ...origins], profiling(options, 'proxy'))),
    )
    const loads = proxies.map((proxy) => new Load(proxy.ready, CONNECTIONS))
    const subjects: Subjects = Object.fromEntries(
      kinds.map((kind, at) => [kind, (seconds) => proxyRound(proxies[at]!, loads[at]!, seconds)]),
    )
    console.log(`\nproxy: ${CONNECTIONS} connections, ${UPSTREAMS} upstream processes, 1 KiB; ratio to thinnest`)
    await print(subjects, kinds.at(-1)!, options)
    for (const load of loads) load.close()
    await Promise.all(proxies.map((proxy) => proxy.stop()))
    if (options.profile !== undefined) await summarize(options.profile, 'proxy')
  })
}

async function proxyRound(proxy: Child<number>, load: Load, seconds: number): Promise<Round> {
  const beforeUs = await proxy.ask<number>('cpu')
  const { answered, perSecond, failed } = await load.run(seconds)
  const usedUs = (await proxy.ask<number>('cpu')) - beforeUs
  return { perSecond, cpuUsPerRequest: usedUs / answered, failed }
}

async function withUpstreams(run: (children: Children, origins: readonly string[]) => Promise<void>): Promise<void> {
  const children = new Children()
  const upstreams = await Promise.all(Array.from({ length: UPSTREAMS }, () => children.start<string>('upstream.ts')))
  try {
    await run(
      children,
      upstreams.map((upstream) => upstream.ready),
    )
  } finally {
    await children.stop()
  }
}

/** Rounds in turn, then one row each: requests per second, CPU time per request, and both as ratios to `base`. */
async function print(subjects: Subjects, base: string, { seconds, rounds }: HttpOptions): Promise<void> {
  const names = Object.keys(subjects)
  const results = await interleave(
    names.map((name) => () => subjects[name]!(seconds)),
    rounds,
  )
  const rates = results.map((list) => list.map((round) => round.perSecond))
  const costs = results.map((list) => list.map((round) => round.cpuUsPerRequest))
  const at = names.indexOf(base)
  const rows = names.map((name, i) => {
    const failed = results[i]!.reduce((sum, round) => sum + round.failed, 0)
    return [
      name,
      ...columns(spreadOf(rates[i]!), ratioOf(rates[i]!, rates[at]!), integer),
      ...columns(spreadOf(costs[i]!), ratioOf(costs[at]!, costs[i]!), (us) => us.toFixed(1)),
      integer(failed),
    ]
  })
  table(['', 'req/s', 'min..max', 'ratio', 'min..max', 'CPU us/req', 'min..max', 'ratio*', 'min..max', 'failed'], rows)
  console.log('  * CPU time of the base over its own: the same ratio if the measured process had a core to itself')
}

function columns(value: Spread, quotient: Spread, format: (value: number) => string): readonly string[] {
  return [...row(value, format), ...row(quotient, ratio)]
}

function profiling({ profile }: HttpOptions, name: string): readonly string[] {
  return profile === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', profile, '--cpu-prof-name', `${name}.cpuprofile`]
}
