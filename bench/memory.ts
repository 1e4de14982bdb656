/** Bytes allocated and time spent collecting, per request. */
import type { Allocated } from './meter.ts'
import { interleave, type Spread, spreadOf } from './rounds.ts'
import { type Bench, IN_FLIGHT, type Subject, withUpstreams } from './subjects.ts'
import { integer, ratio, row, table } from './table.ts'

/** Enough for a few collections; before them, an unrecorded turn for V8 to optimise in. */
const REQUESTS = 10_000
const ROUNDS = 3

/** Title, how to start it, and the title it is compared with. */
type Line = readonly [title: string, start: (bench: Bench) => Promise<Subject>, base?: string]

const LINES: readonly Line[] = [
  ['balancer.fetch', (bench) => bench.client('balancer.fetch'), 'undici fetch'],
  ['undici fetch', (bench) => bench.client('undici fetch')],
  ['balancer.request', (bench) => bench.client('balancer.request'), 'Pool.request'],
  ['Pool.request', (bench) => bench.client('Pool.request')],
  ['proxy', (bench) => bench.proxy('evenkeel'), 'thinnest'],
  ['thinnest', (bench) => bench.proxy('thinnest')],
  ['control', (bench) => bench.client('control')],
]

export async function benchMemory(): Promise<void> {
  await withUpstreams(undefined, async (bench) => {
    const subjects = await Promise.all(LINES.map(([, start]) => start(bench)))
    console.log(
      `\nmemory: per request, ${ROUNDS} x ${integer(REQUESTS)} requests, ${IN_FLIGHT} in flight, 1 KiB; probes on; fewer is better`,
    )
    const results = await interleave(
      subjects.map((subject) => () => subject.allocate(REQUESTS)),
      ROUNDS,
    )
    const perRequest = (at: number, of: (it: Allocated) => number): Spread =>
      spreadOf(results[at]!.map((it) => of(it) / REQUESTS))
    const bytes = LINES.map((_, at) => perRequest(at, (it) => it.bytes))
    const gcUs = LINES.map((_, at) => perRequest(at, (it) => it.gcUs))
    const titles = LINES.map(([title]) => title)
    table(
      ['', 'bytes', 'min..max', 'GC us', 'min..max', 'GCs in all', 'failed', 'bytes', 'GC us', 'times those of'],
      LINES.map(([title, , base], at) => {
        const beside = base === undefined ? undefined : titles.indexOf(base)
        const sum = (of: (it: Allocated) => number): string =>
          integer(results[at]!.reduce((all, it) => all + of(it), 0))
        return [
          title,
          ...row(bytes[at]!, integer),
          ...row(gcUs[at]!, (us) => us.toFixed(2)),
          sum((it) => it.gcs),
          sum((it) => it.failed),
          ...(beside === undefined
            ? ['', '', '']
            : [
                ratio(bytes[at]!.median / bytes[beside]!.median),
                ratio(gcUs[at]!.median / gcUs[beside]!.median),
                base!,
              ]),
        ]
      }),
    )
    console.log(
      '  bytes: on the JavaScript heap, so without what is in buffers; GC us: the main thread stood still, longer on a busy machine',
    )
    console.log('  control: no request, but an array of 8 240 bytes and a promise or two')
  })
}
