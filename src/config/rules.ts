/**
 * The rules that look at more than one field. They read the raw input, not zod's output: zod gives none as soon as one
 * field is wrong, and every issue has to come out at once. What is already found wrong is left out here.
 */
import { idOf } from '../core/backend.ts'
import type { Endpoint } from '../core/contracts.ts'
import { clashes } from './clashes.ts'
import { badPaths, type Finding, foundText, isPlain, type Path, pathText, valueAt } from './issues.ts'
import { strategies } from './strategies.ts'

const POOL_NAME = /^[A-Za-z0-9_.:/-]{1,64}$/
/** As keys of a record these would reach for its prototype. */
export const RESERVED_NAMES: readonly string[] = ['__proto__', 'constructor', 'prototype']
const LONGEST_ID = 256

/** What is wrong between fields. `earlier` is what is wrong within them. */
export function contradictions(options: unknown, earlier: readonly Finding[]): readonly Finding[] {
  if (!isPlain(options)) return []
  const bad = badPaths(earlier)
  const pools = isPlain(options.pools) ? Object.keys(options.pools) : []
  const places: Path[] = pools.map((name) => ['pools', name])
  return [
    ...whichPools(options),
    ...pools.flatMap((name) => poolName(name)),
    ...[[], ...places].flatMap((place) => duplicates(options, place, bad)),
    ...strategies(options, [[], ...places], bad),
    // Top-level settings are judged as their pools end up with them.
    ...(places.length > 0 ? places : [[]]).flatMap((place) => clashes(options, place, bad)),
  ]
}

function whichPools(options: Readonly<Record<string, unknown>>): readonly Finding[] {
  const both = options.backends !== undefined && options.pools !== undefined
  if (both) return [{ path: ['pools'], expected: 'either backends or pools', found: 'both' }]
  const neither = options.backends === undefined && options.pools === undefined
  if (neither) return [{ path: ['backends'], expected: 'either backends or pools', found: 'neither' }]
  const empty = isPlain(options.pools) && Object.keys(options.pools).length === 0
  return empty ? [{ path: ['pools'], expected: 'at least one pool', found: 'none' }] : []
}

function poolName(name: string): readonly Finding[] {
  const path = ['pools', name]
  if (RESERVED_NAMES.includes(name)) return [{ path, expected: 'another name for this pool', found: 'a reserved name' }]
  if (POOL_NAME.test(name)) return []
  return [
    { path, expected: 'a pool name of 1 to 64 letters, digits, ".", "_", ":", "/" or "-"', found: 'another name' },
  ]
}

/** Ids that occur twice in one pool, and those made from a URL that turn out too long. */
function duplicates(options: unknown, place: Path, bad: (path: Path) => boolean): readonly Finding[] {
  const list = [...place, 'backends']
  const backends = valueAt(options, list)
  if (!Array.isArray(backends)) return []
  const findings: Finding[] = []
  const seen = new Map<string, Path>()
  backends.forEach((backend: unknown, index) => {
    const path = [...list, index]
    const idPath = [...path, 'id']
    if (bad([...path, 'url']) || bad(idPath)) return
    // The checks before this one have found nothing wrong with its URL and id.
    const id = idOf(typeof backend === 'string' ? { url: backend } : (backend as Endpoint))
    const first = seen.get(id)
    if (first !== undefined) {
      const found = `duplicate id ${foundText(id, idPath)} (also ${pathText(first)})`
      findings.push({ path: idPath, expected: 'an id of its own within the pool', found })
    } else if (id.length > LONGEST_ID) {
      const expected = `an id, since the one made from the URL is over ${LONGEST_ID} characters`
      findings.push({ path: idPath, expected, found: 'none' })
    } else seen.set(id, path)
  })
  return findings
}
