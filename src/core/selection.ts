import type { BackendRecord } from './backend.ts'
import type { LiveCall } from './call.ts'
import type { Backend, Call, Gate, Members, Picker, Random } from './contracts.ts'
import { BalancerError } from './errors.ts'
import { inUseByTiers, isAble, priorityOf, type TieredStrategy } from './tiers.ts'

/** How often the picker is asked before the pool scans for itself (Finagle's effort for a distinct second pick). */
const ASKS = 5

/** The snapshot requests pick from: the change path replaces its fields, the request path only reads them. */
export class Selection {
  readonly #random: Random
  #picker: Picker = () => undefined
  members: Members = Object.freeze({ all: Object.freeze([]), eligible: Object.freeze([]) })
  gates: readonly Gate[] = []

  constructor(random: Random) {
    this.#random = random
  }

  set(members: Members, picker: Picker): void {
    this.members = members
    this.#picker = picker
  }

  /** One backend that every gate admitted, or undefined. */
  pick(call: LiveCall): BackendRecord | undefined {
    if (call.again !== undefined) {
      const again = call.again as BackendRecord
      if (this.members.eligible.includes(again) && this.#admits(again, call)) return again
      call.again = undefined
    }
    if (call.prefer !== undefined) {
      const wanted = this.members.eligible.find((backend) => backend.id === call.prefer) as BackendRecord | undefined
      if (wanted !== undefined && this.#takes(wanted, call)) return wanted
    }
    for (let ask = 0; ask < ASKS; ask++) {
      const backend = this.#picker(call) as BackendRecord | undefined
      call.picks++
      if (backend === undefined) break
      if (this.#takes(backend, call)) return backend
    }
    const untried = this.#scan(call, false)
    if (untried !== undefined || call.elsewhere || call.attempts.length === 0) return untried
    return this.#scan(call, true)
  }

  #takes(backend: BackendRecord, call: LiveCall): boolean {
    return !call.tried(backend) && fits(backend, call) && this.#admits(backend, call)
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
    const { eligible } = this.members
    const n = eligible.length
    if (n === 0) return undefined
    const start = n === 1 ? 0 : this.#random(n)
    for (let i = 0; i < n; i++) {
      const backend = eligible[(start + i) % n] as BackendRecord
      if (!repeat && call.tried(backend)) continue
      if (fits(backend, call) && this.#admits(backend, call)) return backend
    }
    return undefined
  }
}

/** The error when nobody can be had: each backend's reasons, and the earliest time one of them ends. */
export function nobody(pool: string, records: readonly BackendRecord[], call: LiveCall): BalancerError {
  const { nowMs } = call
  const reasons: Record<string, readonly string[]> = Object.create(null) // an id may be any word
  let untilMs = Infinity
  let full = false
  for (const record of records) {
    const why = [...record.describe(nowMs)]
    if (atLimit(record)) {
      full ||= why.length === 0 && fits(record, call)
      why.push(`${record.limit} requests in flight, its limit`)
    }
    reasons[record.id] = why.length > 0 ? why : ['not admitted for this call']
    for (const reason of record.reasons.values()) untilMs = Math.min(untilMs, reason.untilMs ?? Infinity)
  }
  const list = Object.entries(reasons).map(([id, why]) => `${id}: ${why.join(', ')}`)
  const message =
    list.length === 0 ? `pool ${pool} has no backends` : `pool ${pool}: no backend may be picked (${list.join('; ')})`
  return new BalancerError(full ? 'OVERLOADED' : 'NO_BACKEND', message, {
    reasons,
    ...(untilMs < Infinity && { retryAfterMs: Math.max(0, untilMs - nowMs) }),
  })
}

/** Whether it has all the tags of the call. */
export function fits(backend: Backend, call: Call): boolean {
  if (call.tags.length === 0) return true
  const { tags } = backend.endpoint
  return tags !== undefined && call.tags.every((tag) => tags.includes(tag))
}

export function atLimit({ inflight, limit }: Backend): boolean {
  return inflight >= limit
}

/**
 * Who may be picked: the healthy of the first tier that has any, or everybody in it without a hard reason if they are too few
 * (panic). With nobody healthy anywhere it is the first tier's turn to panic. A strategy of tiers gets all of them.
 */
export function inUse(
  all: readonly Backend[],
  panicBelow: number,
  { overprovisioning }: TieredStrategy,
): { eligible: readonly Backend[]; panic: boolean } {
  if (overprovisioning !== undefined) return inUseByTiers(all, panicBelow, overprovisioning)
  const able = all.filter(isAble)
  const healthy = able.filter((backend) => backend.reasons.size === 0)
  const candidates = healthy.length > 0 ? healthy : able
  const first = Math.min(...candidates.map(priorityOf))
  const tier = able.filter((backend) => priorityOf(backend) === first)
  const well = tier.filter((backend) => backend.reasons.size === 0)
  const panic = tier.length > 0 && well.length / tier.length < panicBelow
  return { eligible: Object.freeze(panic ? tier : well), panic }
}
