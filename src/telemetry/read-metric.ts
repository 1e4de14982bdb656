import type { MetricRow } from './metric-rows.ts'
import { type Sample, type Subject, samplesOf, textOf } from './samples.ts'

/** Who reads the numbers of all metrics at once. */
export interface MetricOwner {
  /** Resolves when a metric of so many subjects may be handed over. */
  turn(subjects: number): Promise<void>
}

/** So many backends are written down in one go: some two hundred lines. */
const PIECE = 10
const NONE: object = Object.freeze({})

/**
 * A metric that is read, and never written: what a prom-client registry holds and asks. Of its own metrics a histogram could be
 * filled by observing only.
 */
export class ReadMetric<From> {
  readonly owner: MetricOwner
  /** Written by the registry: in OpenMetrics the name of a counter has no `_total`. */
  name: string
  readonly help: string
  readonly type: string
  readonly aggregator: string
  readonly #row: MetricRow<From>
  readonly #subjects: () => readonly Subject<From>[]

  constructor(owner: MetricOwner, name: string, row: MetricRow<From>, subjects: () => readonly Subject<From>[]) {
    this.owner = owner
    this.name = name
    this.help = row.help
    this.type = row.type
    this.aggregator = row.aggregator ?? 'sum'
    this.#row = row
    this.#subjects = subjects
  }

  /** For programs. */
  async get(): Promise<object> {
    return this.#told(({ labels, value, metricName }) => ({ value, metricName, labels: { ...labels } }))
  }

  /** For the registry's text. It makes text of shared labels once per object, however often it meets it. */
  async getForPromString(): Promise<object> {
    return this.#told(({ labels, value, metricName }) => ({ value, metricName, labels: NONE, sharedLabels: labels }))
  }

  /** The same text in half the time, of the numbers of now; made piece by piece. */
  text(): Iterable<string> {
    return this.#pieces(this.#subjects())
  }

  /** The numbers are the balancer's. */
  reset(): void {}

  *#pieces(subjects: readonly Subject<From>[]): Generator<string> {
    const { name, help, type } = this
    yield `# HELP ${name} ${help}\n# TYPE ${name} ${type}`
    for (let at = 0; at < subjects.length; at += PIECE) {
      yield textOf(name, samplesOf(this.#row, name, subjects.slice(at, at + PIECE)))
    }
  }

  async #told(as: (sample: Sample) => object): Promise<object> {
    const { name, help, type, aggregator } = this
    const subjects = this.#subjects()
    await this.owner.turn(subjects.length)
    return { name, help, type, aggregator, values: samplesOf(this.#row, name, subjects).map(as) }
  }
}
