import { BackendRecord } from '../core/backend.ts'
import { Budget } from '../core/budget.ts'
import { LiveCall } from '../core/call.ts'
import type { Backend, Call, Clock, Core, Endpoint, Members, Random } from '../core/contracts.ts'
import { Deadlines } from '../core/deadlines.ts'
import { CLASSES } from '../core/outcome.ts'

/** One case of a contract kit. It throws an AssertionError when the contract is broken; any test runner can run it. */
export interface ContractCase {
  readonly name: string
  run(): Promise<void>
}

/** A part of the contract that was declared impossible: it stays in the list, by name, and does nothing. */
export function leftOut(name: string, why: string): ContractCase {
  return { name: `${name} (left out: ${why})`, run: async () => {} }
}

/** Live records without a pool. */
export function backendsOf(endpoints: readonly (string | Endpoint)[]): BackendRecord[] {
  return endpoints.map((endpoint) => new BackendRecord(typeof endpoint === 'string' ? { url: endpoint } : endpoint))
}

export function callOf(nowMs: number, key?: string): Call {
  return new LiveCall({ method: 'GET', headers: [] }, { key }, nowMs).route('default', 0)
}

/** What a part is started with, over members that the test sets. */
export function coreOf(clock: Clock, random: Random, members: () => Members): Core {
  const ignore = (): void => {}
  const none = (): never => {
    throw new Error('there is no network here')
  }
  return {
    pool: 'default',
    clock,
    random,
    members,
    send: none,
    reach: none,
    deadlines: new Deadlines(clock),
    budget: new Budget({ share: 0.2, perSecond: 10, windowMs: 10_000 }, clock),
    control: { apply: ignore, block: ignore, unblock: ignore, weigh: ignore, limit: ignore },
    classes: CLASSES,
    emit: ignore,
  }
}

export function membersOf(all: readonly Backend[], eligible: readonly Backend[] = all): Members {
  return Object.freeze({ all: Object.freeze([...all]), eligible: Object.freeze([...eligible]) })
}
