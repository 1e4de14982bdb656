import type { Backend, Core, Members, Stop } from '../core/contracts.ts'
import { Bound } from './bound.ts'
import { type Order, Walk } from './walk.ts'

/** A member as a table sees it. */
export interface Member {
  readonly id: string
  /** As configured: what changes for a while, such as slow start, moves no keys. */
  readonly weight: number
}

/** Makes an order, and yields about every `PORTION` steps. */
export type Plan = (members: readonly Member[]) => Generator<void, Order>

/** Steps between two looks at the clock: some tenths of a millisecond. */
export const PORTION = 1_024
/** Other work waits no longer than this for a table, ms; the last portion and the change of tables come on top. */
export const SLICE_MS = 2
/**
 * A table that has no predecessor which could serve is made at once up to so many portions, some 2 000 backends of a ring.
 */
const FIRST_PORTIONS = 1_024

/** One table, finished or on its way. */
class Table {
  readonly members: readonly Member[]
  readonly indexes: ReadonlyMap<string, number>
  #steps: Generator<void, Order> | undefined
  order: Order | undefined

  constructor(all: readonly Backend[], plan: Plan) {
    this.members = all.map((backend) => ({ id: backend.id, weight: weightOf(backend) }))
    this.indexes = new Map(this.members.map(({ id }, i) => [id, i]))
    this.#steps = plan(this.members)
  }

  isOf(all: readonly Backend[]): boolean {
    const { members } = this
    if (members.length !== all.length) return false
    return all.every((backend, i) => members[i]!.id === backend.id && members[i]!.weight === weightOf(backend))
  }

  /** By the table's own index; those that it does not hold are left out. */
  place(backends: readonly Backend[]): readonly (Backend | undefined)[] {
    const placed = new Array<Backend | undefined>(this.members.length).fill(undefined)
    for (const backend of backends) {
      const index = this.indexes.get(backend.id)
      if (index !== undefined) placed[index] = backend
    }
    return placed
  }

  /** Works until it is finished or `enough`. */
  work(enough: () => boolean): void {
    while (this.#steps !== undefined && !enough()) {
      const step = this.#steps.next()
      if (step.done !== true) continue
      this.order = step.value
      this.#steps = undefined // and what it worked with
    }
  }
}

/** What one picker picks from: the members of its moment on their own table, or on an older one until that is finished. */
export class View {
  readonly table: Table
  readonly #eligible: readonly Backend[]
  readonly #owners: readonly Backend[] | undefined
  readonly #bound: Bound | undefined
  shown: Table | undefined
  /** Undefined while there is no table that leads to one of its backends. */
  walk: Walk | undefined

  constructor(
    table: Table,
    eligible: readonly Backend[],
    owners: readonly Backend[] | undefined,
    bound: number | undefined,
  ) {
    this.table = table
    this.#eligible = eligible
    this.#owners = owners
    this.#bound = bound === undefined ? undefined : new Bound(bound, eligible)
  }

  show(table: Table): void {
    const placed = table.place(this.#eligible)
    const owners = this.#owners === undefined ? placed : table.place(this.#owners)
    const walk = new Walk(table.order!, placed, owners, this.#bound)
    // A table of other members, as of an update that is only tried, is no gain if it leads to nobody.
    if (walk.reach === 0 && this.walk !== undefined && table !== this.table) return
    this.shown = table
    this.walk = walk.reach > 0 ? walk : undefined
  }
}

/**
 * The tables of one pool. A table holds all members, eligible or not: only another set of ids or weights makes a new one.
 * That is done in slices off the request path; until then the old one serves.
 */
export class Tables {
  readonly #core: Core
  readonly #plan: Plan
  readonly #bound: number | undefined
  #working: Table | undefined
  #next: Stop | undefined
  #latest: View | undefined
  /** Whose picker is in use. An update is tried before it is made, so it need not be the latest. */
  serving: View | undefined

  constructor(core: Core, plan: Plan, bound: number | undefined) {
    this.#core = core
    this.#plan = plan
    this.#bound = bound
  }

  view({ all }: Members, eligible: readonly Backend[], owners?: readonly Backend[]): View {
    const known = [this.#latest?.table, this.serving?.table, this.serving?.shown, this.#working]
    const table = known.find((it) => it?.isOf(all)) ?? new Table(all, this.#plan)
    const view = new View(table, eligible, owners, this.#bound)
    const old = this.serving?.shown ?? this.#latest?.shown
    const first = this.#latest === undefined
    this.#latest = view
    if (table.order !== undefined) view.show(table)
    else if (old !== undefined) view.show(old)
    // Keys that have but one owner cannot be served meanwhile by a table that leads to nobody.
    const isLost = owners !== undefined && view.walk === undefined && eligible.length > 0
    if (first || (isLost && table.order === undefined)) this.#work(table, FIRST_PORTIONS, Infinity)
    else if (this.#working === undefined) this.#slice()
    return view
  }

  /**
   * One table at a time, each to its end: changes that come faster than tables are made must not keep the old one for ever.
   */
  readonly #slice = (): void => {
    const table = this.#working ?? this.#waiting()[0]?.table
    if (table !== undefined) this.#work(table, Infinity, SLICE_MS)
  }

  #work(table: Table, portions: number, ms: number): void {
    const { clock } = this.#core
    const untilMs = clock.now() + ms
    let done = 0
    table.work(() => done++ >= portions || clock.now() >= untilMs)
    const finished = table.order !== undefined
    if (finished) for (const view of this.#waiting()) view.show(table)
    const more = this.#waiting().length > 0
    this.#working = finished || !more ? undefined : table
    this.#next?.()
    this.#next = more ? clock.after(0, this.#slice) : undefined
  }

  #waiting(): readonly View[] {
    return [this.serving, this.#latest].filter((view) => view !== undefined && view.shown !== view.table) as View[]
  }
}

function weightOf({ endpoint }: Backend): number {
  return endpoint.weight ?? 1
}
