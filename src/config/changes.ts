/** What tells two configurations apart, in words that show no secret; and the hash that tells whether they are the same. */
import { hash } from 'node:crypto'
import { idOf } from '../core/backend.ts'
import { isDeepEqual, isPlain } from '../core/equal.ts'
import { BalancerError } from '../core/errors.ts'
import type { ResolvedOptions } from '../core/resolved.ts'
import type { ConfigChange } from '../core/revisions.ts'
import { digestOf, Secret } from '../core/secret.ts'
import { isSecret, isSecretUrl, type Path, pathText, quoted } from './issues.ts'

type Tree = Readonly<Record<string, unknown>>

/** Longest text of one value, characters. */
const LONGEST = 200
/** What users put into `meta` may lead anywhere, even back to itself. */
const DEEPEST = 16
const REDACTED = '[redacted]'

/** Every setting that differs, pools by name and backends by id; and their order, which is the one thing that settings do not say. */
export function changesBetween(before: ResolvedOptions, after: ResolvedOptions): readonly ConfigChange[] {
  return Object.freeze([...reorders(before, after), ...differences(treeOf(before), treeOf(after), [])])
}

/**
 * SHA-256 of its canonical JSON, in hex: keys sorted, secrets hashed, functions and parts by name. Throws on what leads back to itself,
 * which nothing can be compared with.
 */
export function hashOf({ name, origins, route, log, pools: ordered }: ResolvedOptions): string {
  const pools = ordered.map(({ endpoints: backends, ...pool }) => ({ ...pool, backends }))
  return hash('sha256', JSON.stringify(canonical({ name, origins, route, log, pools }, [], [])))
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
  if (!isOpen(from, path.length) || !isOpen(to, path.length)) {
    return [{ path: pathText(path), from: textOf(before, path), to: textOf(after, path) }]
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
  return first < 0 ? [] : [{ path: pathText(path), from: orderText(from, first), to: orderText(to, first) }]
}

/** From the first that has moved. */
function orderText(ids: readonly string[], first: number): string {
  return (first > 0 ? '…, ' : '') + short(ids.slice(first).join(', '))
}

function nameOf({ name }: { readonly name: string }): string {
  return name
}

function textOf(value: unknown, path: Path): string | undefined {
  if (value === undefined) return undefined
  // The id of a backend says nothing about what is in it.
  const judged = path.map((key, depth) => (depth === 3 && path[2] === 'backends' ? 0 : key))
  if (typeof value === 'string' && !isHidden(judged) && !isSecretUrl(value)) return quoted(value)
  return short(JSON.stringify(shown(value, judged)))
}

/** What is in `meta` is the user's own, and may be anything under any name. */
function isHidden(path: Path): boolean {
  return isSecret(path) || path[4] === 'meta'
}

/** As JSON may show it. */
function shown(value: unknown, path: Path): unknown {
  if (isHidden(path) || (typeof value === 'string' && isSecretUrl(value))) return REDACTED
  if (Array.isArray(value)) return value.map((inner) => shown(inner, [...path, 0]))
  if (!isOpen(value, path.length)) return named(value)
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shown(inner, [...path, key])]))
}

function canonical(value: unknown, path: Path, above: readonly unknown[]): unknown {
  if (value instanceof Secret) return digestOf(value, (text) => hash('sha256', text))
  if (value instanceof Uint8Array) return hash('sha256', value) // a certificate
  if (above.includes(value)) throw new BalancerError('CONFIG', `${pathText(path)}: expected no value that is in itself`)
  if (!isOpen(value, path.length) && !Array.isArray(value)) return named(value)
  const inner = [...above, value]
  if (Array.isArray(value)) return value.map((element, index) => canonical(element, [...path, index], inner))
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries.map(([key, held]) => [key, canonical(held, [...path, key], inner)]))
}

/** Plain data; what has verbs is a part, and what it holds is its own business. */
function isOpen(value: unknown, depth: number): value is Tree {
  if (depth > DEEPEST || !isPlain(value) || Array.isArray(value)) return false
  return !Object.values(value).some((inner) => typeof inner === 'function')
}

/** Numbers and the like as they are; what nobody can see into by its name. */
function named(value: unknown): unknown {
  if (typeof value === 'bigint' || typeof value === 'symbol') return String(value)
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return value
  const { name } = value as { readonly name?: unknown }
  return typeof name === 'string' && name !== '' ? name : typeof value
}

function short(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text
}
