import type { Backend, BalancerRequest, Endpoint, Reason } from './contracts.ts'
import type { Deadline } from './deadlines.ts'
import { Times } from './durations.ts'
import { isDeepEqual } from './equal.ts'
import { withHeaders } from './headers.ts'
import { PeakEwma, Quantiles, UNKNOWN_COST } from './latency.ts'
import type { OutcomeClass } from './outcome.ts'
import { Secret } from './secret.ts'

/** More than can be in flight. */
const UNLIMITED = 2 ** 31 - 1

/** Plain counters of one backend since it was added. */
export interface BackendTotals {
  /** Attempts made. */
  requests: number
  /** Attempts that ended in a class with health 'failure'. */
  failures: number
  /** Ends per class; classes that never came are absent. */
  readonly classes: Partial<Record<OutcomeClass, number>>
  /** How often it was blocked, by writer; a reason that was replaced before it ended counts once. */
  readonly blocks: Partial<Record<string, number>>
}

/** The live record of a backend. Only the pool and the attempts write to it. */
export class BackendRecord implements Backend {
  // What pickers read comes first and so stands together: with thousands of backends a pick costs as much as it fetches from memory.
  inflight = 0
  /** Of its latency. */
  cost: number = UNKNOWN_COST
  weight = 1
  /** Its limit, or `UNLIMITED`: Infinity would stand somewhere else in memory, as fractions do. */
  #most = UNLIMITED
  readonly id: string
  readonly origin: string
  readonly basePath: string
  readonly latency: PeakEwma = new PeakEwma(this)
  readonly quantiles: Quantiles = new Quantiles()
  readonly totals: BackendTotals = { requests: 0, failures: 0, classes: {}, blocks: Object.create(null) }
  readonly times: Times = new Times()
  readonly reasons: Map<string, Reason> = new Map()
  readonly factors: Map<string, number> = new Map()
  readonly limits: Map<string, number> = new Map()
  #endpoint!: Endpoint
  logWeight = 0
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

  get limit(): number {
    return this.#most === UNLIMITED ? Infinity : this.#most
  }

  get endpoint(): Endpoint {
    return this.#endpoint
  }

  /** Headers that say the same stay the same object: who holds them sees whether they changed. */
  set endpoint(given: Endpoint) {
    const endpoint = sealed(given)
    const headers = (this.#endpoint as Endpoint | undefined)?.headers
    const same = headers !== undefined && isDeepEqual(headers, endpoint.headers)
    this.#endpoint = same ? Object.freeze({ ...endpoint, headers }) : endpoint
  }

  /** Whether an endpoint says the same, secrets included. */
  says(endpoint: Endpoint): boolean {
    return isDeepEqual(this.#endpoint, sealed(endpoint))
  }

  /** Words of the backend's own, which may repeat the credential it was sent. */
  redacted(text: string): string {
    const { headers = {} } = this.#endpoint
    return Object.values(headers).reduce<string>((rest, value) => Secret.of(value).redactIn(rest), text)
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
    this.#most = Math.min(this.endpoint.maxInflight ?? UNLIMITED, UNLIMITED, ...this.limits.values())
  }

  /** The request as this backend gets it: its base path in front, its own headers set. */
  requestFor(request: BalancerRequest): BalancerRequest {
    const { headers } = this.#endpoint
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

/** The values of its headers as secrets, whoever it comes from. */
function sealed(endpoint: Endpoint): Endpoint {
  const { headers } = endpoint
  if (headers === undefined || Object.values(headers).every((value) => value instanceof Secret)) return endpoint
  const secrets = Object.entries(headers).map(([name, value]) => [name, Secret.of(value)])
  return Object.freeze({ ...endpoint, headers: Object.freeze(Object.fromEntries(secrets)) })
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
  const all = endpoints.map((endpoint) => {
    const id = idOf(endpoint)
    const old = left.get(id)
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
