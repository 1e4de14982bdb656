/** Requests per second: `balancer.fetch` and `balancer.request` beside undici's clients, the proxy beside thinnest. */
import type { ClientKind } from './client-child.ts'
import { summarize } from './profile.ts'
import { interleave, quietOf, ratioOf, spreadOf } from './rounds.ts'
import { IN_FLIGHT, type Subject, UPSTREAMS, withUpstreams } from './subjects.ts'
import { integer, ratio, row, table } from './table.ts'

export interface HttpOptions {
  /** Length of a round. */
  readonly seconds: number
  readonly rounds: number
  /** Folder for CPU profiles of the measured processes; undefined = none. */
  readonly profile: string | undefined
}

const CLIENTS: readonly ClientKind[] = [
  'balancer.fetch',
  'undici fetch',
  'built-in fetch',
  'balancer.request',
  'balancer.request, one',
  'Pool.request',
  'Pools in turn',
  'BalancedPool.request',
]

export async function benchClient(options: HttpOptions): Promise<void> {
  await withUpstreams(options.profile, async (bench) => {
    const subjects = await Promise.all(CLIENTS.map((name) => bench.client(name)))
    console.log(
      `\nclient: ${IN_FLIGHT} in flight, ${UPSTREAMS} upstream processes ("one" and Pool.request: one of them; Pools in turn: a Pool for each), 1 KiB, body read as text; probes on`,
    )
    await print(subjects, ['undici fetch', 'Pool.request', 'Pools in turn'], options)
  })
}

export async function benchProxy(options: HttpOptions): Promise<void> {
  await withUpstreams(options.profile, async (bench) => {
    const subjects = await Promise.all([bench.proxy('evenkeel'), bench.proxy('thinnest')])
    console.log(`\nproxy: ${IN_FLIGHT} connections, ${UPSTREAMS} upstream processes, 1 KiB; probes on`)
    await print(subjects, ['thinnest'], options)
  })
}

/** Rounds in turn, then rates and CPU time, and both as ratios to each of `bases`; then where the time went, if profiled. */
export async function print(
  subjects: readonly Subject[],
  bases: readonly string[],
  { seconds, rounds }: HttpOptions,
): Promise<void> {
  const names = subjects.map(({ name }) => name)
  const totals = subjects.map(() => 0)
  const results = await interleave(
    subjects.map((subject, at) => async () => {
      const round = await subject.round(seconds)
      totals[at]! += round.answered
      return round
    }),
    rounds,
  )
  const rates = results.map((list) => list.map((round) => round.perSecond))
  const costs = results.map((list) => list.map((round) => round.cpuUsPerRequest))
  const us = (value: number): string => value.toFixed(1)
  table(
    ['', 'req/s', 'min..max', 'CPU us/req', 'min..max', 'failed'],
    names.map((name, i) => {
      const failed = results[i]!.reduce((sum, round) => sum + round.failed, 0)
      return [name, ...row(spreadOf(rates[i]!), integer), ...row(spreadOf(costs[i]!), us), integer(failed)]
    }),
  )
  for (const base of bases) {
    const at = names.indexOf(base)
    table(
      [`ratio to ${base}`, 'req/s', 'min..max', 'CPU*', 'min..max', 'quiet*'],
      names.map((name, i) => [
        name,
        ...row(ratioOf(rates[i]!, rates[at]!), ratio),
        ...row(ratioOf(costs[at]!, costs[i]!), ratio),
        ratio(quietOf(costs[at]!) / quietOf(costs[i]!)),
      ]),
    )
  }
  console.log(
    '  * CPU time per request, the base over its own: what the ratio would be on a core of its own, round by round; quiet: of',
  )
  console.log('    the lower quartiles, which other work on the machine disturbs least')
  const ended = await Promise.all(subjects.map((subject, at) => subject.stop(totals[at]!)))
  const profiled = ended.filter((it) => it !== undefined)
  if (profiled.length > 0) await summarize(profiled)
}
