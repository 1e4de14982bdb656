/** What tells two configurations apart, in words that show no secret; and the hash that tells whether they are the same. */
import { hash } from 'node:crypto'
import { idOf } from '../core/backend.ts'
import { isDeepEqual, isPlain } from '../core/equal.ts'
import { BalancerError } from '../core/errors.ts'
import type { ResolvedOptions } from '../core/resolved.ts'
import type { ConfigChange } from '../core/revisions.ts'
import { digestOf, Secret } from '../core/secret.ts'
import { nameText, seemsSecret } from '../core/spelling.ts'
import { configError, isSecret, isSecretUrl, type Path, placeText, quoted, UNREADABLE } from './issues.ts'
import { MOST_LEVELS } from './parsed.ts'

type Tree = Readonly<Record<string, unknown>>

/** Longest text of one value, characters. */
const LONGEST = 200
/** What users put into `meta` and `tls` may lead anywhere, and to the same again and again. Below this many keys all else has ended. */
const OWN_LEVELS = 5
/** Objects and arrays down there that a hash looks into. */
const MOST_SECTIONS = 500_000
/** Longest path of a change, keys: what differs further down is told as a change of what it is in. */
const DEEPEST = 8
const REDACTED = '[redacted]'

/** Every setting that differs, pools by name and backends by id; and their order, which is the one thing that settings do not say. */
export function changesBetween(before: ResolvedOptions, after: ResolvedOptions): readonly ConfigChange[] {
  return Object.freeze([...reorders(before, after), ...differences(treeOf(before), treeOf(after), [])])
}

/**
 * SHA-256 of its canonical JSON, in hex: keys sorted, secrets hashed, functions and parts by name, as is what lies too deep or comes after
 * too much. Throws on what leads back to itself.
 */
export function hashOf({ name, origins, route, log, pools: ordered }: ResolvedOptions): string {
  const pools = ordered.map(({ endpoints: backends, ...pool }) => ({ ...pool, backends }))
  const all = { name, origins, route, log, pools }
  return hash('sha256', JSON.stringify(readable(() => canonical(all, [], [], { left: MOST_SECTIONS }))))
}

/** Without what stays as it was at the start: clock, chance, logger. */
function treeOf({ name, origins, route, log, pools }: ResolvedOptions): Tree {
  const named = pools.map((pool) => {
    const backends = Object.fromEntries(pool.endpoints.map((endpoint) => [idOf(endpoint), endpoint]))
    return [pool.name, { backends, ...pool.settings }]
  })
  return { name, origins, route, log, pools: Object.fromEntries(named) }
}

function differences(before: unknown, after: unknown, path: Path): ConfigChange[] {
  if (isDeepEqual(before, after)) return []
  const [from, to] = [before ?? {}, after ?? {}]
  if (!isOpen(from) || !isOpen(to) || path.length >= DEEPEST) {
    return [{ path: placeText(path), from: textOf(before, path), to: textOf(after, path) }]
  }
  const keys = [...new Set([...Object.keys(from), ...Object.keys(to)])]
  return keys.flatMap((key) => differences(from[key], to[key], [...path, key]))
}

/** The first pool is the default one, and some strategies go by the order of the backends. */
function reorders({ pools: before }: ResolvedOptions, { pools: after }: ResolvedOptions): ConfigChange[] {
  const known = new Map(before.map((pool) => [pool.name, pool]))
  const within = after.flatMap(({ name, endpoints }) => {
    const earlier = known.get(name)?.endpoints ?? []
    return reordered(earlier.map(idOf), endpoints.map(idOf), ['pools', name, 'backends'])
  })
  return [...reordered([...known.keys()], after.map(nameOf), ['pools']), ...within]
}

function reordered(before: readonly string[], after: readonly string[], path: Path): ConfigChange[] {
  const [old, young] = [new Set(before), new Set(after)]
  const from = before.filter((id) => young.has(id))
  const to = after.filter((id) => old.has(id))
  const first = from.findIndex((id, place) => id !== to[place])
  return first < 0 ? [] : [{ path: placeText(path), from: orderText(from, first), to: orderText(to, first) }]
}

/** From the first that has moved. */
function orderText(ids: readonly string[], first: number): string {
  return (first > 0 ? '…, ' : '') + short(ids.slice(first).map(nameText).join(', '))
}

function nameOf({ name }: { readonly name: string }): string {
  return name
}

function textOf(value: unknown, path: Path): string | undefined {
  if (value === undefined) return undefined
  // The id of a backend says nothing about what is in it.
  const judged = path.map((key, depth) => (depth === 3 && path[2] === 'backends' ? 0 : key))
  if (typeof value === 'string' && !isHidden(judged) && !isSecretText(value)) return quoted(value)
  return short(JSON.stringify(shown(value, judged)))
}

/** What is in `meta` is the user's own, and may be anything under any name. */
function isHidden(path: Path): boolean {
  return isSecret(path) || path[4] === 'meta'
}

function isSecretText(text: string): boolean {
  return isSecretUrl(text) || seemsSecret(text)
}

/** As JSON may show it. */
function shown(value: unknown, path: Path): unknown {
  if (isHidden(path) || (typeof value === 'string' && isSecretText(value))) return REDACTED
  if (path.length > DEEPEST) return named(value)
  if (Array.isArray(value)) return value.map((inner) => shown(inner, [...path, 0]))
  if (!isOpen(value)) return named(value)
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [nameText(key), shown(inner, [...path, key])]))
}

/** `budget` is how many objects and arrays may still be looked into. */
function canonical(value: unknown, path: Path, above: readonly unknown[], budget: { left: number }): unknown {
  if (value instanceof Secret) return digestOf(value, (text) => hash('sha256', text))
  if (value instanceof Uint8Array) return hash('sha256', value) // a certificate
  if (!isOpen(value) && !Array.isArray(value)) return named(value)
  if (above.includes(value)) {
    throw configError(undefined, [{ path, expected: 'no value that is in itself', found: 'one' }])
  }
  if (above.length >= MOST_LEVELS || (path.length > OWN_LEVELS && --budget.left < 0)) return named(value)
  const inner = [...above, value]
  if (Array.isArray(value)) return value.map((element, index) => canonical(element, [...path, index], inner, budget))
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries.map(([key, held]) => [key, canonical(held, [...path, key], inner, budget)]))
}

/** Plain data; what has verbs is a part, and what it holds is its own business. */
function isOpen(value: unknown): value is Tree {
  if (!isPlain(value) || Array.isArray(value)) return false
  return !Object.values(value).some((inner) => typeof inner === 'function')
}

/** Numbers and the like as they are; what nobody can see into by its name. */
function named(value: unknown): unknown {
  if (typeof value === 'bigint' || typeof value === 'symbol') return String(value)
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return value
  const { name } = value as { readonly name?: unknown }
  return typeof name === 'string' && name !== '' ? name : typeof value
}

/** A getter deep in what is the user's own may throw. */
function readable<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (error instanceof BalancerError) throw error
    throw configError(undefined, [UNREADABLE], error)
  }
}

function short(text: string): string {
  return text.length > LONGEST ? compact(`${text.slice(0, LONGEST)}…`) : text
}

/** Revisions are kept for long: a text put together of pieces takes ten times its size, and a slice holds all that it was cut from. */
function compact(text: string): string {
  return Buffer.from(text).toString()
}
