import type { Backend, Call, Clock, Endpoint, HashOptions, Picker, Strategy } from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import type { BackendRecord } from '../../src/core/backend.ts'
import { jump } from '../../src/strategies/jump.ts'
import { maglev } from '../../src/strategies/maglev.ts'
import { rendezvous } from '../../src/strategies/rendezvous.ts'
import { ringHash } from '../../src/strategies/ring-hash.ts'
import type { Member, Plan } from '../../src/strategies/tables.ts'
import type { Order } from '../../src/strategies/walk.ts'
import { backendsOf, coreOf, membersOf } from '../../src/testing/kit.ts'

export type Writable<Of> = { -readonly [Key in keyof Of]: Of[Key] }

/** Backends by id, all of weight 1 unless said otherwise. */
export function named(ids: readonly string[], weights: readonly number[] = []): BackendRecord[] {
  const endpoints: Endpoint[] = ids.map((id, i) => ({ url: `http://host-${i}.test`, id, weight: weights[i] ?? 1 }))
  return backendsOf(endpoints)
}

/** Ids like those of real backends: 10.0.0.0:80, 10.0.0.1:80, ... */
export function addresses(n: number): string[] {
  return Array.from({ length: n }, (_, i) => `10.0.${i >> 8}.${i & 255}:80`)
}

export function keys(n: number): string[] {
  return Array.from({ length: n }, (_, i) => `user ${i}`)
}

/** A strategy at work: give it members, get who has a key. */
export interface HashBench {
  readonly told: (readonly [event: string, ...details: unknown[]])[]
  build(all: readonly Backend[], eligible?: readonly Backend[]): Picker
}

export function hashBench(strategy: Strategy, clock: Clock = manualClock()): HashBench {
  const told: [event: string, ...details: unknown[]][] = []
  const core = { ...coreOf(clock, seededRandom(42), () => membersOf([])), emit: (...it: never) => void told.push(it) }
  const chooser = strategy.start(core)
  return { told, build: (all, eligible = all) => chooser.build(membersOf(all, eligible)) }
}

const asked = { picks: 0, key: undefined } as Writable<Call>

/** The pick of that number for a call with this key. */
export function pickOf(picker: Picker, key: string | undefined, picks = 0): BackendRecord {
  asked.key = key
  asked.picks = picks
  return picker(asked) as BackendRecord
}

export function ownersOf(picker: Picker, list: readonly string[]): string[] {
  return list.map((key) => pickOf(picker, key).id)
}

/** Shares of the owners, in their backends' order. */
export function sharesOf(owners: readonly string[], ids: readonly string[]): number[] {
  const counts = new Map<string, number>()
  for (const owner of owners) counts.set(owner, (counts.get(owner) ?? 0) + 1)
  return ids.map((id) => (counts.get(id) ?? 0) / owners.length)
}

/** Keys that moved, and those of them whose owner had nothing to do with the change. */
export function moved(
  before: readonly string[],
  after: readonly string[],
  changed: ReadonlySet<string>,
): { readonly share: number; readonly foreign: number } {
  let all = 0
  let foreign = 0
  for (const [i, owner] of before.entries()) {
    if (owner === after[i]) continue
    all++
    if (!changed.has(owner) && !changed.has(after[i]!)) foreign++
  }
  return { share: all / before.length, foreign }
}

/** A whole table at once. */
export function orderOf(plan: Plan, members: readonly Member[]): Order {
  const steps = plan(members)
  for (;;) {
    const { done, value } = steps.next()
    if (done === true) return value
  }
}

/** Every strategy by key, in each of its kinds. */
export const STRATEGIES: readonly (readonly [string, (options?: Partial<HashOptions>) => Strategy])[] = [
  ['ring hash', (options) => ringHash({ key: 'call', ...options })],
  ['ring hash like Envoy', (options) => ringHash({ key: 'call', like: 'envoy', ...options })],
  ['ring hash like nginx', (options) => ringHash({ key: 'call', like: 'nginx', ...options })],
  ['maglev', (options) => maglev({ key: 'call', ...options })],
  ['rendezvous', (options) => rendezvous({ key: 'call', ...options })],
  ['jump', (options) => jump({ key: 'call', ...options })],
]
export const TEN: ReturnType<typeof addresses> = addresses(10)
