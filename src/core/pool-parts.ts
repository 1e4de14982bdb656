import type { BudgetOptions } from './budget.ts'
import type { LiveCall } from './call.ts'
import type { Classify, Clock, Policy, Random, Sink, Strategy, Transport, Watcher } from './contracts.ts'
import type { Deadlines } from './deadlines.ts'
import type { Classes } from './outcome.ts'

/** What a pool is made of; replaced whole by an update. */
export interface PoolParts {
  readonly strategy: Strategy
  readonly transport: Transport
  /** Pool and attempt scope, outermost first. */
  readonly policies: readonly Policy[]
  readonly watchers: readonly Watcher[]
  readonly sinks: readonly Sink[]
  readonly panicBelow: number
  readonly budget: BudgetOptions
  readonly classes: Classes
  readonly classify: Classify | undefined
}

/** What pools share: the balancer. */
export interface PoolHost {
  readonly clock: Clock
  readonly random: Random
  readonly deadlines: Deadlines
  emit(event: string, ...details: readonly unknown[]): void
  /** A call is over: it was answered or failed, and its last attempt has ended. */
  over(call: LiveCall): void
  /** A reader is told this error in the body of an answer that was handed over. */
  met(error: unknown, call: LiveCall): void
}

/** Which total an event of a part adds to. */
export const COUNTED: ReadonlyMap<string, 'retries' | 'hedges' | 'hedgesWon' | 'queued' | 'shed'> = new Map([
  ['retry', 'retries'],
  ['hedge', 'hedges'],
  ['hedgeWon', 'hedgesWon'],
  ['queued', 'queued'],
  ['shed', 'shed'],
])

/** Plain counters since the pool was made. */
export interface PoolTotals {
  calls: number
  attempts: number
  retries: number
  /** Second sends of calls whose first one was slow. */
  hedges: number
  /** Hedges whose answer was the first. */
  hedgesWon: number
  /** Calls that waited for their turn. */
  queued: number
  /** Calls refused because there was no room to wait, or not in time. */
  shed: number
  /** Calls that ended without an answer, aborted ones apart. */
  failed: number
  aborted: number
}

export function noTotals(): PoolTotals {
  return { calls: 0, attempts: 0, retries: 0, hedges: 0, hedgesWon: 0, queued: 0, shed: 0, failed: 0, aborted: 0 }
}
