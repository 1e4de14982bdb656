import type { DurationStats } from '../core/durations.ts'
import type { BackendStats, BalancerStats, PoolStats, UpdateStats } from '../core/stats.ts'
import type { MetricRow } from './metric-rows.ts'

/** What is read: a balancer. */
export interface Collected {
  readonly name: string
  readonly updates: UpdateStats
  stats(): BalancerStats
  /** Those that are kept, oldest first. */
  revisions?(): readonly { readonly number: number }[]
}

export interface ConfigStats {
  readonly revision: number
  readonly refused: number
}

/** A balancer, a pool or a backend by its labels, and its numbers of one moment. */
export interface Subject<From> {
  readonly labels: SubjectLabels
  readonly from: From
}

/** All numbers of one moment. */
export interface Snapshot {
  readonly balancers: readonly Subject<ConfigStats>[]
  readonly pools: readonly Subject<PoolStats>[]
  readonly backends: readonly Subject<BackendStats>[]
}

const TEXT: unique symbol = Symbol('evenkeel.text')

/** Names and values, and both as they stand in a line, from the opening brace to the value. */
export interface Labels {
  readonly [name: string]: string | number
  readonly [TEXT]: string
}

/** One line. */
export interface Sample {
  readonly labels: Labels
  readonly value: number
  /** Default: the metric's own. */
  readonly metricName: string | undefined
}

/** The labels of a subject, alone and with one more: objects that stay, so that their text is made once. */
export class SubjectLabels {
  readonly all: Labels
  readonly #more = new Map<string, Labels>()
  #buckets: readonly Labels[] | undefined

  constructor(names: Readonly<Record<string, string>>) {
    this.all = labelsOf(names)
  }

  with(name: string, value: string): Labels {
    const key = `${name}=${value}`
    const labels = this.#more.get(key) ?? labelsOf({ ...this.all, [name]: value })
    this.#more.set(key, labels)
    return labels
  }

  /** With the bound of each bucket; the last is for all there is. */
  buckets({ boundsMs }: DurationStats): readonly Labels[] {
    this.#buckets ??= [...boundsMs.map((ms) => ms / 1_000), '+Inf'].map((le) => labelsOf({ ...this.all, le }))
    return this.#buckets
  }
}

/** Reads balancers, and keeps the labels of what is still there. */
export class Reader {
  #known: ReadonlyMap<string, SubjectLabels> = new Map()

  /** Of balancers by the name they go by here. */
  read(sources: ReadonlyMap<string, Collected>): Snapshot {
    const kept = new Map<string, SubjectLabels>()
    const labelled = (names: Readonly<Record<string, string>>): SubjectLabels => {
      const key = JSON.stringify(names)
      const labels = this.#known.get(key) ?? new SubjectLabels(names)
      kept.set(key, labels)
      return labels
    }
    const balancers: Subject<ConfigStats>[] = []
    const pools: Subject<PoolStats>[] = []
    const backends: Subject<BackendStats>[] = []
    for (const [balancer, source] of sources) {
      const { applied, refused } = source.updates
      const revision = source.revisions?.().at(-1)?.number ?? applied
      balancers.push({ labels: labelled({ balancer }), from: { revision, refused } })
      for (const [pool, stats] of Object.entries(source.stats().pools)) {
        pools.push({ labels: labelled({ balancer, pool }), from: stats })
        for (const from of stats.backends)
          backends.push({ labels: labelled({ balancer, pool, backend: from.id }), from })
      }
    }
    this.#known = kept
    return { balancers, pools, backends }
  }
}

/** The lines of one metric. */
export function samplesOf<From>(row: MetricRow<From>, name: string, subjects: readonly Subject<From>[]): Sample[] {
  const samples: Sample[] = []
  for (const { labels, from } of subjects) {
    if (row.type === 'histogram') addHistogram(samples, name, labels, row.read(from))
    else if (row.label === undefined) add(samples, labels.all, row.read(from))
    else for (const [at, value] of Object.entries(row.read(from))) add(samples, labels.with(row.label, at), value)
  }
  return samples
}

/** The lines as Prometheus reads them. */
export function textOf(name: string, samples: readonly Sample[]): string {
  let text = ''
  for (const { labels, value, metricName = name } of samples) text += `\n${metricName}${labels[TEXT]}${value}`
  return text
}

function add(samples: Sample[], labels: Labels, value: number | undefined, metricName?: string): void {
  if (value !== undefined) samples.push({ labels, value, metricName })
}

/** Each bucket counts all that is below its bound. */
function addHistogram(samples: Sample[], name: string, labels: SubjectLabels, stats: DurationStats): void {
  const bucketName = `${name}_bucket`
  const buckets = labels.buckets(stats)
  let below = 0
  for (let at = 0; at < buckets.length; at++) {
    below += stats.buckets[at]!
    add(samples, buckets[at]!, below, bucketName)
  }
  add(samples, labels.all, stats.sumMs / 1_000, `${name}_sum`)
  add(samples, labels.all, stats.count, `${name}_count`)
}

function labelsOf(values: Readonly<Record<string, string | number>>): Labels {
  const parts = Object.entries(values).map(([name, value]) => `${name}="${escaped(String(value))}"`)
  return { ...values, [TEXT]: `{${parts.join()}} ` }
}

/** What would end a label's value, or its line. */
function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"')
}
