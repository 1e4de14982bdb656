import { setImmediate } from 'node:timers/promises'
import type { Metric, Registry, RegistryContentType } from 'prom-client'
import type { Stop } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { BACKEND_ROWS, BALANCER_ROWS, type MetricRow, POOL_ROWS } from './metric-rows.ts'
import { type MetricOwner, ReadMetric } from './read-metric.ts'
import { type Collected, Reader, type Snapshot, type Subject } from './samples.ts'

export {
  type MetricsHandler,
  type MetricsHandlerOptions,
  metricsHandler,
  type TextSource,
} from './metrics-handler.ts'
export type { Collected } from './samples.ts'

export interface CollectOptions {
  /** Where the metrics are to be found: prom-client's `register`, or a registry of your own. */
  readonly registry: Registry<RegistryContentType>
  /** What every name begins with; default 'evenkeel'. */
  readonly prefix?: string
}

/** Metrics of more subjects are handed to the registry one in each turn of the event loop: between them requests go on. */
const MANY = 10
const PREFIX = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/

/**
 * Puts a balancer's numbers into a prom-client registry. They are read when the registry is, from what `stats()` counts anyway:
 * requests never meet prom-client. Several balancers may be in one registry, told apart by the label `balancer`, their name of
 * this moment. What it returns takes them out again. Throws BalancerError CONFIG if a name is taken.
 *
 *     collect(balancer, { registry: register })
 *     http.createServer(metricsHandler(register)).listen(9464)
 */
export function collect(balancer: Collected, { registry, prefix = 'evenkeel' }: CollectOptions): Stop {
  if (!PREFIX.test(prefix)) {
    throw new BalancerError('CONFIG', `prefix: expected letters, digits, '_' and ':', found ${JSON.stringify(prefix)}`)
  }
  const known: object | undefined = registry.getSingleMetric(`${prefix}_${BALANCER_ROWS[0]!.name}`)
  const owner = known instanceof ReadMetric ? known.owner : undefined
  const exposition = owner instanceof Exposition ? owner : new Exposition(registry, prefix)
  return exposition.add(balancer)
}

/** The metrics of one prefix in one registry, and the balancers they are read from. */
class Exposition implements MetricOwner {
  readonly #registry: Registry<RegistryContentType>
  readonly #sources = new Map<string, Collected>()
  readonly #reader = new Reader()
  readonly #metrics = new Map<string, Metric>()
  #snapshot: Snapshot | undefined
  #turns: Promise<void> = Promise.resolve()

  constructor(registry: Registry<RegistryContentType>, prefix: string) {
    this.#registry = registry
    try {
      this.#register(prefix, BALANCER_ROWS, ({ balancers }) => balancers)
      this.#register(prefix, POOL_ROWS, ({ pools }) => pools)
      this.#register(prefix, BACKEND_ROWS, ({ backends }) => backends)
    } catch (cause) {
      this.#unregister()
      throw new BalancerError('CONFIG', `prefix: another metric has a name that begins with ${prefix}_`, { cause })
    }
  }

  add(balancer: Collected): Stop {
    const { name } = balancer
    if (this.#sources.has(name)) {
      const message = `the registry has the metrics of a balancer named ${JSON.stringify(name)}: expected another name`
      throw new BalancerError('CONFIG', message)
    }
    this.#sources.set(name, balancer)
    let stopped = false
    return () => {
      if (stopped) return
      stopped = true
      this.#sources.delete(name)
      if (this.#sources.size === 0) this.#unregister()
    }
  }

  async turn(subjects: number): Promise<void> {
    if (subjects <= MANY) return
    this.#turns = this.#turns.then(() => setImmediate())
    await this.#turns
  }

  #register<From>(
    prefix: string,
    rows: readonly MetricRow<From>[],
    of: (snapshot: Snapshot) => readonly Subject<From>[],
  ): void {
    for (const row of rows) {
      const name = `${prefix}_${row.name}`
      // All that a registry asks of a metric.
      const metric = new ReadMetric(this, name, row, () => of(this.#now())) as unknown as Metric
      this.#registry.registerMetric(metric)
      this.#metrics.set(name, metric)
    }
  }

  #unregister(): void {
    for (const [name, metric] of this.#metrics) {
      if (this.#registry.getSingleMetric(name) === metric) this.#registry.removeSingleMetric(name)
    }
  }

  /** Whoever reads all metrics asks them in one tick: they tell of the same moment. */
  #now(): Snapshot {
    if (this.#snapshot === undefined) {
      this.#snapshot = this.#reader.read(this.#sources)
      queueMicrotask(() => {
        this.#snapshot = undefined
      })
    }
    return this.#snapshot
  }
}
