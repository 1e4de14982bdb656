import type { Attempt, Backend, Call, Chooser, Core, Members, Picker, Random, Strategy } from '../core/contracts.ts'
import { builtPicker, startedChooser } from '../core/part-checks.ts'
import { atLimit, fits } from '../core/selection.ts'
import { Xxh64 } from './hash.ts'

/** Backends of one pool that have a chooser of their own. */
export interface Group {
  readonly members: readonly Backend[]
  readonly pick: Picker
}

/** The draw of a group must say nothing about the draw within it. */
const SEED = 0x67726f75

/** An inner strategy at work in parts of one pool: each part has a chooser, which stays as long as it has a backend. */
export class Groups {
  readonly #inner: Strategy
  readonly #core: Core
  #choosers: ReadonlyMap<unknown, Chooser> = new Map()
  readonly #chooserOf = new WeakMap<Backend, Chooser>()

  constructor(inner: Strategy, core: Core) {
    this.#inner = inner
    this.#core = core
  }

  /** A group for each of the keys, in their order. Whatever key a member has, its chooser is kept and hears of the change. */
  build<Key>({ all, eligible }: Members, keys: readonly Key[], keyOf: (backend: Backend) => Key): Group[] {
    const present = new Set([...keys, ...all.map(keyOf)])
    const choosers = new Map(
      [...present].map((key) => [key, this.#choosers.get(key) ?? startedChooser(this.#inner, this.#core)]),
    )
    const groups = new Map<Key, Group>()
    for (const [key, chooser] of choosers) {
      const members = eligible.filter((backend) => keyOf(backend) === key)
      groups.set(key, {
        members,
        pick: builtPicker(this.#inner, chooser, Object.freeze({ all, eligible: Object.freeze([...members]) })),
      })
    }
    for (const backend of all) this.#chooserOf.set(backend, choosers.get(keyOf(backend))!)
    this.#choosers = choosers
    return keys.map((key) => groups.get(key)!)
  }

  readonly head = (attempt: Attempt): void => this.#chooserOf.get(attempt.backend)?.head?.(attempt)

  readonly settle = (attempt: Attempt): void => this.#chooserOf.get(attempt.backend)?.settle?.(attempt)

  readonly score = (backend: Backend): number | undefined => this.#chooserOf.get(backend)?.score?.(backend)
}

/**
 * Draws a group by its share, a whole number, or by the call's key if it has one; all 0: by how many they are. A group whose
 * every member the call has tried, or is full, hands on to the first of the others that has one left.
 */
export function pickerOver(given: readonly Group[], shares: readonly number[], random: Random): Picker {
  const groups = given.filter(({ members }) => members.length > 0)
  const n = groups.length
  if (n === 0) return () => undefined
  if (n === 1) return groups[0]!.pick
  const parts = given.flatMap(({ members }, i) => (members.length > 0 ? [shares[i]!] : []))
  const drawn = parts.some((share) => share > 0) ? parts : groups.map(({ members }) => members.length)
  const upTo = new Int32Array(n)
  for (let i = 0; i < n; i++) upTo[i] = (i === 0 ? 0 : upTo[i - 1]!) + drawn[i]!
  const total = upTo[n - 1]!
  const hash = new Xxh64()
  return (call) => {
    const at = call.key === undefined ? random(total) : hash.of(call.key, SEED).modulo(total)
    let own = 0
    while (upTo[own]! <= at) own++
    const picked = groups[own]!.pick(call)
    if ((picked !== undefined && isOpen(picked, call)) || isOpenIn(groups[own]!, call)) return picked
    for (let i = 0; i < n; i++) if (i !== own && isOpenIn(groups[i]!, call)) return groups[i]!.pick(call)
    return picked
  }
}

/** Whether this call may have it, as far as that can be known before the gates are asked. */
export function isOpen(backend: Backend, call: Call): boolean {
  return !atLimit(backend) && !call.tried(backend) && fits(backend, call)
}

function isOpenIn({ members }: Group, call: Call): boolean {
  for (let i = 0; i < members.length; i++) if (isOpen(members[i]!, call)) return true
  return false
}
