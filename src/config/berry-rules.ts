/** The rules between the tables of a Berry API file. */

import { type Finding, isPlain, nearest, type Path } from './issues.ts'
import { type Table, tableAt } from './plain.ts'

export function berryContradictions(root: Table): readonly Finding[] {
  const offers = offersIn(tableAt(root, 'providers'))
  return [
    ...namesakes(tableAt(root, 'models')),
    ...Object.keys(tableAt(root, 'providers')).flatMap((id) => ofProvider(tableAt(tableAt(root, 'providers'), id), id)),
    ...Object.keys(tableAt(root, 'models')).flatMap((id) => ofModel(root, id, offers)),
    ...Object.keys(tableAt(root, 'users')).flatMap((id) => ofUser(tableAt(tableAt(root, 'users'), id), id)),
  ]
}

/** A disabled one may still wait for its key. */
function ofProvider(provider: Table, id: string): readonly Finding[] {
  const { api_key: key, enabled } = provider
  const isShort = typeof key === 'string' && key.length < 10 && enabled !== false
  const short = { path: ['providers', id, 'api_key'], expected: 'a key of at least 10 characters' }
  const names = new Set<string>()
  const twice = Object.keys(tableAt(provider, 'headers')).filter((name) => {
    const before = names.size
    return names.add(name.toLowerCase()).size === before
  })
  const expected = 'each header once, in whatever case'
  return [
    ...(isShort ? [short] : []),
    ...twice.map((name) => ({ path: ['providers', id, 'headers', name], expected, found: 'one that is given twice' })),
  ]
}

/** Clients and users mean a model by its name as well as by its key. A disabled one is meant by nobody. */
function namesakes(models: Table): readonly Finding[] {
  const enabled = Object.keys(models).filter((id) => tableAt(models, id).enabled !== false)
  const keys = new Set(enabled)
  const names = new Set<string>()
  return enabled.flatMap((id): readonly Finding[] => {
    const { name } = tableAt(models, id)
    if (typeof name !== 'string') return []
    const isKey = name !== id && keys.has(name)
    const taken = names.has(name) || isKey
    names.add(name)
    const expected = 'a name that no other model has as its name or key'
    return taken ? [{ path: ['models', id, 'name'], expected, found: 'the one of another' }] : []
  })
}

/** The models of each provider, as far as they are known. */
type Offers = ReadonlyMap<string, ReadonlySet<unknown> | undefined>

function offersIn(providers: Table): Offers {
  const all = Object.keys(providers).map((id) => {
    const { models } = tableAt(providers, id)
    return [id, Array.isArray(models) ? new Set<unknown>(models) : undefined] as const
  })
  return new Map(all)
}

function ofModel(root: Table, id: string, offers: Offers): readonly Finding[] {
  const path = ['models', id]
  const { backends } = tableAt(tableAt(root, 'models'), id)
  if (!Array.isArray(backends)) return []
  const off = backends.length > 0 && backends.every((backend) => isPlain(backend) && backend.enabled === false)
  const none = { path: [...path, 'backends'], expected: 'at least one backend that is enabled', found: 'none' }
  const pools = tableAt(root, 'pools')
  const taken = { path, expected: 'a name that no pool has', found: 'the name of one' }
  return [
    ...(Object.hasOwn(pools, id) ? [taken] : []),
    ...(off ? [none] : []),
    ...backends.flatMap((backend: unknown, index) => ofBackend(backend, offers, [...path, 'backends', index])),
  ]
}

function ofBackend(backend: unknown, offers: Offers, path: Path): readonly Finding[] {
  if (!isPlain(backend) || typeof backend.provider !== 'string') return []
  if (!offers.has(backend.provider)) {
    const meant = nearest(backend.provider, [...offers.keys()])
    const expected = meant === undefined ? 'the name of a provider' : `"${meant}"`
    return [{ path: [...path, 'provider'], expected, found: 'an unknown one' }]
  }
  const offered = offers.get(backend.provider)
  if (offered === undefined || typeof backend.model !== 'string' || offered.has(backend.model)) return []
  return [{ path: [...path, 'model'], expected: 'one of the models of its provider', found: 'an unknown one' }]
}

function ofUser({ rate_limit: limits }: Table, id: string): readonly Finding[] {
  if (!isPlain(limits)) return []
  const keys = ['requests_per_minute', 'requests_per_hour', 'requests_per_day']
  const said = keys.filter((key) => typeof limits[key] === 'number')
  return said.slice(1).flatMap((key, index): readonly Finding[] => {
    const less = limits[said[index]!] as number
    if ((limits[key] as number) >= less) return []
    return [{ path: ['users', id, 'rate_limit', key], expected: `at least ${less}, which is ${said[index]}` }]
  })
}
