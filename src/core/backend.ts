import type { Backend, BalancerRequest, Endpoint, Reason } from './contracts.ts'
import type { Deadline } from './deadlines.ts'
import { isDeepEqual } from './equal.ts'
import { withHeaders } from './headers.ts'
import { PeakEwma, Quantiles } from './latency.ts'
import type { OutcomeClass } from './outcome.ts'

/** Plain counters of one backend since it was added. */
export interface BackendTotals {
  /** Attempts made. */
  requests: number
  /** Attempts that ended in a class with health 'failure'. */
  failures: number
  /** Ends per class; classes that never came are absent. */
  readonly classes: Partial<Record<OutcomeClass, number>>
}

/** The live record of a backend. Only the pool and the attempts write to it. */
export class BackendRecord implements Backend {
  readonly id: string
  readonly origin: string
  readonly basePath: string
  readonly latency: PeakEwma = new PeakEwma()
  readonly quantiles: Quantiles = new Quantiles()
  readonly totals: BackendTotals = { requests: 0, failures: 0, classes: {} }
  readonly reasons: Map<string, Reason> = new Map()
  readonly factors: Map<string, number> = new Map()
  readonly limits: Map<string, number> = new Map()
  /** As it was given, secrets included; nobody but this record sees it. */
  #given!: Endpoint
  #shown!: Endpoint
  weight = 1
  logWeight = 0
  inflight = 0
  limit: number = Infinity
  removed = false
  /** Pending while a failure counts against its latency. */
  forgive: Deadline | undefined = undefined

  #idle: (() => void)[] = []

  constructor(endpoint: Endpoint) {
    const url = new URL(endpoint.url)
    this.id = idOf(endpoint)
    this.endpoint = endpoint
    this.origin = url.origin
    this.basePath = url.pathname.replace(/\/$/, '')
    this.reweigh()
    this.relimit()
  }

  /** As parts, listeners and `inspect` may see it: the values of its headers are not in it. */
  get endpoint(): Endpoint {
    return this.#shown
  }

  /** Headers that say the same stay the same object: who holds them sees whether they changed. */
  set endpoint(endpoint: Endpoint) {
    const before = this.#given as Endpoint | undefined
    const same = before?.headers !== undefined && isDeepEqual(before.headers, endpoint.headers)
    this.#shown = shownOf(endpoint, same ? this.#shown.headers : undefined)
    this.#given = endpoint
  }

  /** An endpoint made from the one shown, as discovery parts make them, gets the hidden headers back. */
  meant(endpoint: Endpoint): Endpoint {
    const { headers } = this.#given
    if (headers === undefined || endpoint.headers !== this.#shown.headers) return endpoint
    return { ...endpoint, headers }
  }

  /** Whether an endpoint says the same, secrets included. */
  says(endpoint: Endpoint): boolean {
    return isDeepEqual(this.#given, endpoint)
  }

  /** Recomputes the effective weight after a change of endpoint or factors. */
  reweigh(): void {
    let weight = this.endpoint.weight ?? 1
    for (const factor of this.factors.values()) weight *= factor
    this.weight = weight
    this.logWeight = weight > 0 ? Math.log2(weight) : 0
    this.latency.weigh(this.logWeight)
  }

  /** Recomputes the effective limit after a change of endpoint or limits. */
  relimit(): void {
    this.limit = Math.min(this.endpoint.maxInflight ?? Infinity, ...this.limits.values())
  }

  /** The request as this backend gets it: its base path in front, its own headers set. */
  requestFor(request: BalancerRequest): BalancerRequest {
    const { headers } = this.#given
    if (this.basePath === '' && headers === undefined) return request
    return {
      ...request,
      path: this.basePath + request.path,
      headers: headers === undefined ? request.headers : withHeaders(request.headers, headers),
    }
  }

  /** Runs as soon as nothing is in flight: at once if nothing is. */
  whenIdle(run: () => void): void {
    if (this.inflight === 0) run()
    else this.#idle.push(run)
  }

  becameIdle(): void {
    if (this.#idle.length > 0) for (const run of this.#idle.splice(0)) run()
  }

  /** Why nobody may pick it, in words; empty when somebody may. */
  describe(nowMs: number): readonly string[] {
    const reasons = [...this.reasons.values()].map((reason) => {
      const until = reason.untilMs === undefined ? '' : ` for ${Math.max(0, Math.ceil(reason.untilMs - nowMs))} ms more`
      return `${reason.by}${until}${reason.detail === undefined ? '' : `: ${reason.detail}`}`
    })
    return this.weight > 0 ? reasons : [...reasons, 'weight 0']
  }
}

const REDACTED = '[redacted]'

function shownOf(endpoint: Endpoint, shown: Endpoint['headers']): Endpoint {
  if (endpoint.headers === undefined) return endpoint
  if (shown !== undefined) return Object.freeze({ ...endpoint, headers: shown })
  const headers = Object.fromEntries(Object.keys(endpoint.headers).map((name) => [name, REDACTED]))
  return Object.freeze({ ...endpoint, headers })
}

/** An endpoint's id: its own, or host, port and path of its URL. */
export function idOf(endpoint: Endpoint): string {
  if (endpoint.id !== undefined) return endpoint.id
  const url = new URL(endpoint.url)
  return url.host + url.pathname.replace(/\/$/, '')
}

/** What a new set of endpoints means for the live records. */
export interface Change {
  readonly all: readonly BackendRecord[]
  readonly added: readonly BackendRecord[]
  readonly changed: readonly (readonly [record: BackendRecord, endpoint: Endpoint])[]
  readonly left: readonly BackendRecord[]
}

/** Same id and URL keep the record; another URL is a removal and an addition. Changes nothing. */
export function diff(records: ReadonlyMap<string, BackendRecord>, endpoints: readonly Endpoint[]): Change {
  const left = new Map(records)
  const added: BackendRecord[] = []
  const changed: [BackendRecord, Endpoint][] = []
  const all = endpoints.map((said) => {
    const id = idOf(said)
    const old = left.get(id)
    const endpoint = old?.meant(said) ?? said
    if (old === undefined || old.endpoint.url !== endpoint.url) {
      const record = new BackendRecord(endpoint)
      added.push(record)
      return record
    }
    left.delete(id)
    if (!old.says(endpoint)) changed.push([old, endpoint])
    return old
  })
  return { all: Object.freeze(all), added, changed, left: [...left.values()] }
}
