import type { Backend, Members, Picker, Random, Strategy } from '../core/contracts.ts'
import { builtPicker, startedChooser } from '../core/part-checks.ts'
import { priorityOf } from '../core/tiers.ts'
import { expected, expectedOptions, expectedWithin } from './expected.ts'
import { Xxh64 } from './hash.ts'
import { keyWithin } from './key.ts'

export interface SubsetOptions {
  /**
   * How many backends this process uses; default 20 (gRPC), or all if there are fewer. When said, a pool that is created with
   * fewer is refused; one that shrinks later is used whole.
   */
  readonly size?: number
  /**
   * Whose subset it is: a client's id, for the same subset after each start; or the index of one of so many clients, which fills all
   * backends evenly. Default: drawn at the start, of its own in every process.
   */
  readonly by?: string | { readonly index: number; readonly clients: number }
}

const SIZE = 20
/** Resolution of a part of a backend. */
const SCALE = 1 << 20
/** How often `inner` is asked again for somebody whose part was not drawn. */
const REDRAWS = 8

/**
 * Uses only some of a large pool, so that not every client has connections to every backend; `inner` chooses among them. By
 * default rendezvous: the lowest hashes of backend and client, of those that are usable (gRPC A68); a backend more or less
 * changes one at most. By index: a window of a ring in which every backend has an equal part (Finagle's deterministic
 * aperture): exactly even, but a change of the number of backends or clients shifts the windows. Inside `failover`, not around it.
 */
export function subset(inner: Strategy, options: SubsetOptions = {}): Strategy {
  expectedOptions('subset', options)
  const { size, by } = options
  expected(size === undefined || (Number.isInteger(size) && size >= 1), 'subset: size', 'a whole number >= 1', size)
  const isBy = by === undefined || typeof by === 'string' || (typeof by === 'object' && by !== null)
  expected(isBy, 'subset: by', 'a string, or an object with index and clients', by)
  if (typeof by === 'object') checkIndex(by)
  expectedWithin('subset', inner)
  return {
    name: `subset(${inner.name})`,
    ...keyWithin(inner),
    start(core) {
      const chooser = startedChooser(inner, core)
      const salt = typeof by === 'string' ? new Xxh64().of(by).low : core.random(1 << 30)
      let first = true
      return {
        head: (attempt) => chooser.head?.(attempt),
        settle: (attempt) => chooser.settle?.(attempt),
        score: (backend) => chooser.score?.(backend),
        build(members) {
          const { length } = members.all
          if (first && size !== undefined && length > 0 && core.members().all.length === 0) {
            expected(size <= length, 'subset: size', `at most the ${length} backends of pool ${core.pool}`, size)
          }
          first = false
          const most = size ?? SIZE
          const parts = typeof by === 'object' ? apertureOf(members, by, most) : rendezvous(members, salt, most)
          const list = Object.freeze([...parts.keys()])
          return byParts(builtPicker(inner, chooser, Object.freeze({ all: list, eligible: list })), parts, core.random)
        },
      }
    },
  }
}

function checkIndex({ index, clients }: { readonly index: number; readonly clients: number }): void {
  expected(Number.isInteger(clients) && clients >= 1, 'subset: by.clients', 'a whole number >= 1', clients)
  const holds = Number.isInteger(index) && index >= 0 && index < clients
  expected(holds, 'subset: by.index', `a whole number from 0 to ${clients - 1}`, index)
}

/** The usable backends in the subset, each with its part out of SCALE. */
type Parts = ReadonlyMap<Backend, number>

function rendezvous({ eligible }: Members, salt: number, size: number): Parts {
  const lowest = new Set(sortedByHash(eligible, salt).slice(0, size))
  return new Map(eligible.filter((backend) => lowest.has(backend)).map((backend) => [backend, SCALE]))
}

/** The window over everybody in the priorities in use; for those that are not usable, the ones behind it, up to half the size. */
function apertureOf(members: Members, by: { readonly index: number; readonly clients: number }, size: number): Parts {
  const usable = new Set(members.eligible)
  const used = new Set(members.eligible.map(priorityOf))
  const ring = sortedByHash(
    members.all.filter((backend) => backend.weight > 0 && used.has(priorityOf(backend))),
    0,
  )
  const servers = ring.length
  const window = windowOf(by.index, by.clients, servers, size)
  const parts = new Map<Backend, number>()
  for (const [i, backend] of ring.entries()) {
    if (window[i]! > 0 && usable.has(backend)) parts.set(backend, Math.round(window[i]! * SCALE))
  }
  const start = Math.floor((by.index * servers) / by.clients)
  for (let i = 0; i < servers && parts.size < size / 2; i++) {
    const backend = ring[(start + i) % servers]!
    if (usable.has(backend) && !parts.has(backend)) parts.set(backend, SCALE)
  }
  return parts
}

/**
 * How much of each server, 0 to 1, is in the window of one of so many clients, which begins at index / clients of the ring and
 * has the least multiple of 1 / clients that holds `size` servers. In whole numbers: every point of the ring is in equally many windows.
 */
export function windowOf(index: number, clients: number, servers: number, size: number): Float64Array {
  const ring = clients * servers
  const from = index * servers
  const to = from + Math.min(clients, Math.ceil((size * clients) / servers)) * servers
  return Float64Array.from({ length: servers }, (_, i) => {
    const overlap = (start: number): number => Math.max(0, Math.min(to, start + clients) - Math.max(from, start))
    return (overlap(i * clients) + overlap(i * clients + ring)) / clients
  })
}

/** Who is in only by a part is passed over in proportion; who is asked for over and over is taken, so that keys stay where they are. */
function byParts(pick: Picker, parts: Parts, random: Random): Picker {
  if ([...parts.values()].every((part) => part === SCALE)) return pick
  return (call) => {
    let backend = pick(call)
    for (let i = 0; i < REDRAWS && backend !== undefined && random(SCALE) >= parts.get(backend)!; i++)
      backend = pick(call)
    return backend
  }
}

/** By a hash of id and salt: the same order in every process with that salt. */
function sortedByHash(backends: readonly Backend[], salt: number): Backend[] {
  const hash = new Xxh64()
  const hashes = new Map(backends.map((backend) => [backend, hash.of(backend.id, salt).low]))
  return [...backends].sort((a, b) => hashes.get(a)! - hashes.get(b)! || (a.id < b.id ? -1 : 1))
}
