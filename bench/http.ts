/** Requests per second: `balancer.fetch` beside undici's and Node's own fetch, the proxy beside thinnest. */
import { type Child, Children } from './children.ts'
import type { FetchClient, FetchRound, FetchRoundResult } from './fetch-child.ts'
import { Load } from './load.ts'
import { type Profiled, profiling, summarize } from './profile.ts'
import { interleave, quietOf, ratioOf, type Spread, spreadOf } from './rounds.ts'
import { integer, ratio, row, table } from './table.ts'

export interface HttpOptions {
  /** Length of a round. */
  readonly seconds: number
  readonly rounds: number
  /** Folder for CPU profiles of the measured processes; undefined = none. In the fetch bench evenkeel then runs alone. */
  readonly profile: string | undefined
}

const UPSTREAMS = 4
const CONNECTIONS = 64

/** What one subject did in one round. */
interface Round {
  readonly answered: number
  readonly perSecond: number
  readonly cpuUsPerRequest: number
  readonly failed: number
}

type Subjects = Readonly<Record<string, (seconds: number) => Promise<Round>>>

export async function benchFetch(options: HttpOptions): Promise<void> {
  await withUpstreams(async (children, origins) => {
    const clients: readonly FetchClient[] =
      options.profile === undefined ? ['evenkeel', 'undici', 'built-in'] : ['evenkeel']
    const measured = await start<string>(children, 'fetch-child.ts', origins, 'fetch', options)
    const names = { evenkeel: 'balancer.fetch', undici: 'undici fetch', 'built-in': 'built-in fetch' }
    const subjects: Subjects = Object.fromEntries(
      clients.map((client) => [
        names[client],
        (seconds) => measured.child.ask<FetchRoundResult>({ client, seconds } satisfies FetchRound),
      ]),
    )
    console.log(
      `\nfetch: ${CONNECTIONS} in flight, ${UPSTREAMS} upstream processes, 1 KiB, body read as text; ratio to undici fetch`,
    )
    const requests = await print(subjects, clients.length > 1 ? names.undici : names.evenkeel, options)
    await measured.child.stop()
    if (measured.file !== undefined)
      await summarize([{ name: names.evenkeel, file: measured.file, requests: requests[0]! }])
  })
}

export async function benchProxy(options: HttpOptions): Promise<void> {
  await withUpstreams(async (children, origins) => {
    const kinds = ['evenkeel', 'thinnest']
    const proxies = await Promise.all(
      kinds.map((kind) => start<number>(children, 'proxy-child.ts', [kind, ...origins], kind, options)),
    )
    const loads = proxies.map(({ child }) => new Load(child.ready, CONNECTIONS))
    const subjects: Subjects = Object.fromEntries(
      kinds.map((kind, at) => [kind, (seconds) => proxyRound(proxies[at]!.child, loads[at]!, seconds)]),
    )
    console.log(`\nproxy: ${CONNECTIONS} connections, ${UPSTREAMS} upstream processes, 1 KiB; ratio to thinnest`)
    const requests = await print(subjects, 'thinnest', options)
    for (const load of loads) load.close()
    await Promise.all(proxies.map(({ child }) => child.stop()))
    const profiled = proxies.flatMap(({ file }, at): Profiled[] =>
      file === undefined ? [] : [{ name: kinds[at]!, file, requests: requests[at]! }],
    )
    if (profiled.length > 0) await summarize(profiled)
  })
}

/** Starts what is measured, profiled or not. */
async function start<Ready>(
  children: Children,
  script: string,
  args: readonly string[],
  name: string,
  options: HttpOptions,
): Promise<{ readonly child: Child<Ready>; readonly file: string | undefined }> {
  const profile = options.profile === undefined ? undefined : profiling(options.profile, name)
  return { child: await children.start<Ready>(script, args, profile?.flags), file: profile?.file }
}

async function proxyRound(proxy: Child<number>, load: Load, seconds: number): Promise<Round> {
  const beforeUs = await proxy.ask<number>('cpu')
  const { answered, perSecond, failed } = await load.run(seconds)
  const usedUs = (await proxy.ask<number>('cpu')) - beforeUs
  return { answered, perSecond, cpuUsPerRequest: usedUs / answered, failed }
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

/** Rounds in turn, then one row each: requests per second, CPU time per request, and both as ratios to `base`. Returns all they answered. */
async function print(subjects: Subjects, base: string, { seconds, rounds }: HttpOptions): Promise<readonly number[]> {
  const totals: number[] = []
  const names = Object.keys(subjects)
  const results = await interleave(
    names.map((name, at) => async () => {
      const round = await subjects[name]!(seconds)
      totals[at] = (totals[at] ?? 0) + round.answered
      return round
    }),
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
      ratio(quietOf(costs[at]!) / quietOf(costs[i]!)),
      integer(failed),
    ]
  })
  table(
    ['', 'req/s', 'min..max', 'ratio', 'min..max', 'CPU us/req', 'min..max', 'ratio*', 'min..max', 'quiet*', 'failed'],
    rows,
  )
  console.log(
    '  * CPU time per request, the base over its own: what the ratio would be on a core of its own, round by round; quiet: of',
  )
  console.log('    the lower quartiles, which other work on the machine disturbs least')
  return totals
}

function columns(value: Spread, quotient: Spread, format: (value: number) => string): readonly string[] {
  return [...row(value, format), ...row(quotient, ratio)]
}
