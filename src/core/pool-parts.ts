import type { BudgetOptions } from './budget.ts'
import type { LiveCall } from './call.ts'
import type { Attempt, Classify, Clock, Policy, Random, Sink, Strategy, Transport, Watcher } from './contracts.ts'
import type { Deadlines } from './deadlines.ts'
import type { Classes, OutcomeClass } from './outcome.ts'
import type { Secret } from './secret.ts'

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
  /** What its checks send, which a backend may repeat in its words. */
  readonly secrets?: readonly Secret[]
}

/** What pools share: the balancer. */
export interface PoolHost {
  readonly clock: Clock
  readonly random: Random
  readonly deadlines: Deadlines
  emit(event: string, ...details: readonly unknown[]): void
  /** A call is over: it was answered or failed, and its last attempt has ended. */
  over(call: LiveCall): void
  /** Backends were removed: what has no end of its own on them should come to one. */
  left?(): void
  /** Whatever begins now should come to an end soon. */
  closing?(): boolean
  /** A reader is told this error in the body of an answer that was handed over. */
  met(error: unknown, call: LiveCall): void
}

/** How often each was met; what was never met is absent. */
export type Counts<Name extends string> = Partial<Record<Name, number>>

/** Plain counters since the pool was made. They outlive its backends. */
export interface PoolTotals {
  calls: number
  attempts: number
  retries: number
  /** Calls that retries gave up: attempts, budget or time ran out. */
  exhausted: number
  /** Second sends of calls whose first one was slow. */
  hedges: number
  /** Hedges whose answer was the first. */
  hedgesWon: number
  /** Calls that waited for their turn. */
  queued: number
  /** Calls refused because there was no room to wait, or not in time. */
  shed: number
  /** Calls that got an answer, whatever it says. */
  answered: number
  /** Calls that ended without an answer, aborted ones apart. */
  failed: number
  aborted: number
  /** Ends of attempts. */
  readonly classes: Counts<OutcomeClass>
  /** Retries by the class of the attempt that went wrong. */
  readonly retriesAfter: Counts<OutcomeClass>
  /** How often a backend was blocked, by writer: 'outlier', 'probe', 'rate-limit', ... */
  readonly blocks: Counts<string>
}

export function noTotals(): PoolTotals {
  return {
    ...{ calls: 0, attempts: 0, retries: 0, exhausted: 0, hedges: 0, hedgesWon: 0, queued: 0, shed: 0 },
    ...{ answered: 0, failed: 0, aborted: 0 },
    classes: {},
    retriesAfter: {},
    blocks: Object.create(null), // a writer may have any name
  }
}

/** Which total an event of a part adds to. */
const COUNTED: ReadonlyMap<string, 'retries' | 'exhausted' | 'hedges' | 'hedgesWon' | 'queued' | 'shed'> = new Map([
  ['retry', 'retries'],
  ['exhausted', 'exhausted'],
  ['hedge', 'hedges'],
  ['hedgeWon', 'hedgesWon'],
  ['queued', 'queued'],
  ['shed', 'shed'],
])

/** A part tells an event. */
export function countEvent(totals: PoolTotals, event: string, details: readonly unknown[]): void {
  const total = COUNTED.get(event)
  if (total === undefined) return
  totals[total]++
  const failed = total === 'retries' ? (details[1] as Attempt | undefined)?.class : undefined
  if (failed !== undefined) count(totals.retriesAfter, failed)
}

/** One more of them. */
export function count<Name extends string>(counts: Counts<Name>, name: Name): void {
  counts[name] = (counts[name] ?? 0) + 1
}
