import { BackendRecord } from './backend.ts'
import type { LiveCall } from './call.ts'
import type { Backend, Call, Gate, Members, Picker, Random, Wanted } from './contracts.ts'
import { BalancerError } from './errors.ts'
import { noBackend } from './part-checks.ts'
import { inUseByTiers, type TieredStrategy, tiersOf } from './tiers.ts'

/** How often the picker is asked before the pool scans for itself (Finagle's effort for a distinct second pick). */
const ASKS = 5

/** The snapshot requests pick from: the change path replaces its fields, the request path only reads them. */
export class Selection {
  readonly #random: Random
  #picker: Picker = () => undefined
  #usable: readonly Backend[] = []
  members: Members = Object.freeze({ all: Object.freeze([]), eligible: Object.freeze([]) })
  gates: readonly Gate[] = []
  #strategy = ''

  constructor(random: Random) {
    this.#random = random
  }

  /** `usable`: whoever may be picked in any priority, if a call will have nobody else. `strategy`: what errors call the picker's. */
  set(members: Members, usable: readonly Backend[], picker: Picker, strategy: string): void {
    this.members = members
    this.#usable = usable
    this.#picker = picker
    this.#strategy = strategy
  }

  /** One backend that every gate admitted, or undefined. */
  pick(call: LiveCall): BackendRecord | undefined {
    const again = call.again as BackendRecord | undefined
    if (again !== undefined && this.#usable.includes(again) && this.#admits(again, call)) {
      if (call.sole !== undefined) call.sole = again // hedges must still know that nobody else will do
      return again
    }
    call.again = undefined
    call.sole = call.only === undefined ? undefined : (this.#meant(call.only, 'only', call) ?? null)
    if (call.prefer !== undefined && call.only === undefined) {
      const wanted = this.#meant(call.prefer, 'prefer', call)
      if (wanted !== undefined && this.members.eligible.includes(wanted) && this.#takes(wanted, call)) return wanted
    }
    for (let ask = 0; ask < ASKS && call.sole === undefined; ask++) {
      const backend = this.#picker(call)
      call.picks++
      if (backend === undefined) break
      // Before the gates: what they admit has to come to an end.
      if (!(backend instanceof BackendRecord)) throw noBackend(this.#strategy, backend)
      if (this.#takes(backend, call)) return backend
    }
    const untried = this.#scan(call, false)
    if (untried !== undefined || call.elsewhere || call.attempts.length === 0) return untried
    return this.#scan(call, true)
  }

  #takes(backend: BackendRecord, call: LiveCall): boolean {
    return !call.tried(backend) && fits(backend, call) && this.#admits(backend, call)
  }

  /** Of those for which a function holds one that may be picked; without any the first, so that its reasons are told. */
  #meant(wanted: Wanted, option: 'only' | 'prefer', call: LiveCall): BackendRecord | undefined {
    const { all, eligible } = this.members
    if (typeof wanted === 'string') return all.find(({ id }) => id === wanted) as BackendRecord | undefined
    const first = option === 'only' ? this.#usable : eligible
    const holds = (backend: Backend): boolean => isMeant(wanted, backend, option, call)
    return (first.find(holds) ?? all.find(holds)) as BackendRecord | undefined
  }

  /** Asks every gate; what earlier gates took is given back when a later one refuses. */
  #admits(backend: BackendRecord, call: LiveCall): boolean {
    if (atLimit(backend)) return false
    for (let i = 0; i < this.gates.length; i++) {
      if (this.gates[i]!.admit(backend, call)) continue
      for (let j = i - 1; j >= 0; j--) this.gates[j]!.release(backend, undefined)
      return false
    }
    return true
  }

  /** Whoever can be had, from a random start; backends that were tried only if `repeat`. */
  #scan(call: LiveCall, repeat: boolean): BackendRecord | undefined {
    const from = call.sole === undefined ? this.members.eligible : this.#usable
    const n = from.length
    if (n === 0) return undefined
    const start = n === 1 ? 0 : this.#random(n)
    for (let i = 0; i < n; i++) {
      const backend = from[(start + i) % n] as BackendRecord
      if (!repeat && call.tried(backend)) continue
      if (fits(backend, call) && this.#admits(backend, call)) return backend
    }
    return undefined
  }
}

/** What a caller's function says. One that is async would hold for everybody. */
function isMeant(wanted: Exclude<Wanted, string>, backend: Backend, option: string, call: Call): boolean {
  if (typeof wanted !== 'function') {
    const got = typeof wanted
    throw new BalancerError(
      'CONFIG',
      `the ${option} of a call: expected an id or a function, got a value of type ${got}`,
    )
  }
  let holds: unknown
  try {
    holds = wanted(backend, call)
  } catch (cause) {
    throw new BalancerError('CONFIG', `the ${option} of a call failed`, { cause })
  }
  if (typeof holds === 'boolean') return holds
  throw new BalancerError(
    'CONFIG',
    `the ${option} of a call: expected true or false, got a value of type ${typeof holds}`,
  )
}

/** The error when nobody can be had: each backend's reasons, and the earliest time one of them ends that this call could use. */
export function nobody(pool: string, records: readonly BackendRecord[], call: LiveCall): BalancerError {
  const { nowMs, only } = call
  const reasons: Record<string, readonly string[]> = Object.create(null) // an id may be any word
  let untilMs = Infinity
  let full = false
  for (const record of records) {
    const why = [...record.describe(nowMs)]
    if (atLimit(record)) {
      full ||= why.length === 0 && fits(record, call)
      why.push(`${record.limit} requests in flight, its limit`)
    }
    reasons[record.id] = why.length > 0 ? why : [unfit(record, call) ?? 'not admitted for this call']
    if (!fits(record, call)) continue
    for (const reason of record.reasons.values()) untilMs = Math.min(untilMs, reason.untilMs ?? Infinity)
  }
  const list = Object.entries(reasons).map(([id, why]) => `${id}: ${why.join(', ')}`)
  const unknown = typeof only === 'string' && !records.some(({ id }) => id === only)
  const none = unknown ? `no backend has the id ${JSON.stringify(only)}` : 'no backend may be picked'
  const message = list.length === 0 ? `pool ${pool} has no backends` : `pool ${pool}: ${none} (${list.join('; ')})`
  return new BalancerError(full ? 'OVERLOADED' : 'NO_BACKEND', message, {
    reasons,
    ...(untilMs < Infinity && { retryAfterMs: Math.max(0, untilMs - nowMs) }),
  })
}

/** Whether the call means it and it has all the tags of the call. */
export function fits(backend: Backend, call: Call): boolean {
  return (call.sole === undefined || call.sole === backend) && isTagged(backend, call)
}

/** Most calls have no tags: those of the backend are then not fetched from memory. */
function isTagged(backend: Backend, call: Call): boolean {
  if (call.tags.length === 0) return true
  const { tags } = backend.endpoint
  return tags !== undefined && call.tags.every((tag) => tags.includes(tag))
}

/** Why it does not fit. */
function unfit(backend: Backend, call: Call): string | undefined {
  if (call.sole !== undefined && call.sole !== backend) return 'not meant by this call'
  return isTagged(backend, call) ? undefined : 'without all tags of this call'
}

export function atLimit({ inflight, limit }: Backend): boolean {
  return inflight >= limit
}

/**
 * Who may be picked: the healthy of the first tier that has any, or everybody in it without a hard reason if they are too few
 * (panic). With nobody healthy anywhere it is the first tier's turn to panic. A strategy of tiers gets all of them. `usable`: the
 * same of every tier.
 */
export function inUse(
  all: readonly Backend[],
  panicBelow: number,
  { overprovisioning }: TieredStrategy,
): { members: Members; usable: readonly Backend[]; panic: boolean } {
  if (overprovisioning !== undefined) {
    const { eligible, panic } = inUseByTiers(all, panicBelow, overprovisioning)
    return { members: Object.freeze({ all, eligible }), usable: eligible, panic }
  }
  const tiers = tiersOf(all, ({ reasons }) => reasons.size === 0, 1).map(({ able, healthy }) => {
    const panic = healthy.length / able.length < panicBelow
    return { healthy, panic, used: panic ? able : healthy }
  })
  const { used = [], panic = false } = tiers.find(({ healthy }) => healthy.length > 0) ?? tiers[0] ?? {}
  const members = Object.freeze({ all, eligible: Object.freeze(used) })
  return { members, usable: tiers.flatMap((tier) => tier.used), panic }
}
