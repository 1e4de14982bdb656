/** What a Berry API file says that does nothing here, or names nobody. */

import { isServed, isUsed } from './berry.ts'
import type { Finding } from './issues.ts'
import { type Table, tableAt, textOf } from './plain.ts'
import { modelNames } from './users.ts'

const IDLE: Readonly<Record<string, string>> = {
  max_internal_retries: 'nothing: a pick never draws somebody unhealthy, so there is nothing to repeat',
  smart_ai: 'nothing: the strategy has numbers of its own',
  batch_metrics: 'nothing: numbers are kept in memory and written nowhere',
  database: 'nothing: there is no database',
}

/** The path of a request, not of a service. */
const REQUEST_PATH = /\/(completions|messages|responses|embeddings)\/*$/

export function berryWarnings(root: Table): readonly Finding[] {
  const idle = Object.keys(tableAt(root, 'settings')).filter((key) => Object.hasOwn(IDLE, key))
  return [
    ...idle.map((key) => ({ path: ['settings', key], expected: IDLE[key]!, found: 'a setting without effect' })),
    ...ofProviders(root),
    ...Object.keys(tableAt(root, 'models')).flatMap((id) => ofModel(root, id)),
    ...ofUsers(root),
  ]
}

function ofProviders(root: Table): readonly Finding[] {
  const providers = tableAt(root, 'providers')
  const expected = 'a URL that ends before the path of a request, which follows it'
  return Object.keys(providers).flatMap((id): readonly Finding[] => {
    const { base_url: url } = tableAt(providers, id)
    if (typeof url !== 'string' || !REQUEST_PATH.test(url)) return []
    return [{ path: ['providers', id, 'base_url'], expected, found: 'one with such a path' }]
  })
}

function ofModel(root: Table, id: string): readonly Finding[] {
  const { enabled, backends } = tableAt(tableAt(root, 'models'), id)
  const path = ['models', id, 'backends']
  if (enabled === false || !Array.isArray(backends)) return []
  if (!isServed(root, id)) {
    return [{ path, expected: 'a backend whose provider is enabled: this model is left out', found: 'none' }]
  }
  const tagged = backends.flatMap((backend: unknown, index) => {
    return isUsed(root, backend) ? [{ index, tags: tagsText(backend.tags) }] : []
  })
  const other = tagged.find(({ tags }) => tags !== tagged[0]!.tags)
  if (other === undefined) return []
  const expected = 'the tags of the backends before it: whoever asks for tags gets backends that have all of them'
  return [{ path: [...path, other.index, 'tags'], expected, found: 'others' }]
}

function tagsText(tags: unknown): string {
  return Array.isArray(tags) ? [...new Set(tags.map(textOf))].sort().join(' ') : ''
}

function ofUsers(root: Table): readonly Finding[] {
  const users = tableAt(root, 'users')
  const known = modelNames(root)
  const tokens = new Set<unknown>()
  return Object.keys(users).flatMap((id): readonly Finding[] => {
    const { token, allowed_models: allowed } = tableAt(users, id)
    const again = typeof token === 'string' && tokens.has(token)
    tokens.add(token)
    const names: unknown[] = Array.isArray(allowed) ? allowed : []
    const twice = { path: ['users', id, 'token'], expected: 'a token of its own', found: "another user's" }
    return [
      ...(again ? [twice] : []),
      ...names.flatMap((name, index): readonly Finding[] => {
        const path = ['users', id, 'allowed_models', index]
        const model = known.get(name)
        if (typeof name !== 'string' || (model !== undefined && isServed(root, model))) return []
        if (model === undefined) return [{ path, expected: 'a model of this file', found: 'an unknown one' }]
        return [{ path, expected: 'a model that is enabled', found: 'one that is left out' }]
      }),
    ]
  })
}
