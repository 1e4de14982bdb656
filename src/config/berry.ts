/** Models as pools: each backend is the URL of its provider with the key in the header that the provider reads. */
import { Secret } from '../core/secret.ts'
import type { StrategyName } from '../core/strategy-options.ts'
import { addBerryDefaults, usualAttempts } from './berry-settings.ts'
import { Draft } from './draft.ts'
import { urlComplaint } from './fields.ts'
import { isPlain, type Path } from './issues.ts'
import { type Table, tableAt, textOf } from './plain.ts'
import type { Origins } from './spelling.ts'

/** Berry's strategies in evenkeel's words; every other name is one of evenkeel's. */
const STRATEGIES: ReadonlyMap<unknown, StrategyName> = new Map([
  ['smart_ai', 'smart'],
  ['weighted_random', 'weighted-random'],
  ['round_robin', 'round-robin'],
  ['least_latency', 'peak-ewma'],
  ['weighted_failover', 'weighted-failover'],
  ['smart_weighted_failover', 'weighted-failover'], // slow start, which is on, brings weights back step by step
])
const DEFAULT_STRATEGY: StrategyName = 'smart'
export const BERRY_STRATEGIES: readonly unknown[] = [...STRATEGIES.keys()]
/** Every one of the three services has it, and it costs nothing. */
const CHECK_PATH = '/v1/models'
const ANTHROPIC_VERSION = '2023-06-01'

/** The pool of a model. `settings` are those that its table says; `common` are those of the balancer. */
export function poolOf(id: string, root: Table, settings: Table, common: Draft, origins: Origins): Table {
  const path = ['models', id]
  const pool = ['pools', id]
  const { backends: listed } = tableAt(tableAt(root, 'models'), id)
  const used = (Array.isArray(listed) ? listed : []).flatMap((backend: unknown, index) => {
    return isUsed(root, backend) ? [{ backend, index }] : []
  })

  const own = new Draft(settings, pool, origins)
  addStrategy(own, common, path)
  addRetries(
    own,
    common,
    root,
    used.map(({ backend }) => backend),
  )
  // Nobody who is paid per request is asked without need.
  const isPaid = used.some(({ backend }) => backend.billing_mode === 'per_request')
  if (isPaid && !own.says(['health', 'active'])) own.put(['health', 'active'], false)
  addBerryDefaults(own, common)
  addCheckPath(own, common)

  origins.set(pool, path)
  const ids = new Map<string, number>()
  const backends = used.map(({ backend, index }, at) => {
    origins.set([...pool, 'backends', at], [...path, 'backends', index])
    return endpointOf(root, backend, [...pool, 'backends', at], ids, origins)
  })
  return { ...own.settings, backends }
}

function addStrategy(own: Draft, common: Draft, path: Path): void {
  const { strategy } = own.settings
  const meant = STRATEGIES.get(strategy)
  if (meant !== undefined) own.put(['strategy'], meant, [...path, 'strategy'])
  else if (strategy === undefined && !common.says(['strategy'])) own.put(['strategy'], DEFAULT_STRATEGY)
}

/** Each provider says how often its requests are repeated, or means the usual: the most wins. */
function addRetries(own: Draft, common: Draft, root: Table, used: readonly Table[]): void {
  if (own.says(['retry', 'attempts'])) return
  const all = used.map((backend) => ({ id: textOf(backend.provider), retries: providerOf(root, backend).max_retries }))
  const said = all.filter((it): it is { id: string; retries: number } => typeof it.retries === 'number')
  const [first] = said
  if (first === undefined) return
  const most = said.reduce((a, b) => (b.retries > a.retries ? b : a), first)
  if (said.length < all.length && usualAttempts(common) > most.retries) return // as everywhere
  own.put(['retry', 'attempts'], most.retries + 1, ['providers', most.id, 'max_retries'])
}

/** What a check asks for, if it asks at all and nobody says for what. */
function addCheckPath(own: Draft, common: Draft): void {
  const keys = ['path', 'type'].map((key) => ['health', 'active', key])
  const isSaid = keys.some((key) => own.says(key) || common.says(key))
  if (!isSaid) own.put(['health', 'active', 'path'], CHECK_PATH)
}

/** Whether a model has somebody to send to. */
export function isServed(root: Table, id: string): boolean {
  const { enabled, backends } = tableAt(tableAt(root, 'models'), id)
  return enabled !== false && Array.isArray(backends) && backends.some((backend) => isUsed(root, backend))
}

/** Whether requests may go there: neither the backend nor its provider is disabled. */
export function isUsed(root: Table, backend: unknown): backend is Table {
  return isPlain(backend) && backend.enabled !== false && providerOf(root, backend).enabled !== false
}

function endpointOf(root: Table, backend: Table, option: Path, ids: Map<string, number>, origins: Origins): Table {
  const { provider: id, model, weight, priority, tags, billing_mode: billing } = backend
  const provider = providerOf(root, backend)
  const place: Path = ['providers', textOf(id)]
  origins.set([...option, 'url'], [...place, 'base_url'])
  origins.set([...option, 'headers'], [...place, 'headers'])
  origins.set([...option, 'timeouts'], [...place, 'timeout_seconds'])
  const key = keyHeader(provider)
  const headers = secretsOf({ ...key, ...tableAt(provider, 'headers') })
  for (const name of Object.keys(headers)) {
    const own = Object.hasOwn(tableAt(provider, 'headers'), name)
    origins.set([...option, 'headers', name], own ? [...place, 'headers', name] : [...place, 'api_key'])
  }
  const ms = typeof provider.timeout_seconds === 'number' ? provider.timeout_seconds * 1_000 : undefined
  return {
    id: uniqueId(encodeURI(`${textOf(id)}/${textOf(model)}`.toWellFormed()), ids),
    url: originUrl(provider.base_url),
    ...(weight === undefined ? {} : { weight }),
    ...(priority === undefined ? {} : { priority }),
    ...(tags === undefined ? {} : { tags }),
    ...(ms === undefined ? {} : { timeouts: { headersMs: ms, attemptMs: ms } }),
    headers,
    meta: { provider: id, model, api: provider.backend_type ?? 'openai', billing: billing ?? 'per_token' },
  }
}

/** What is wrong with other values is said later. */
function secretsOf(headers: Table): Table {
  const all = Object.entries(headers).map(([name, value]) => [
    name,
    typeof value === 'string' ? new Secret(value) : value,
  ])
  return Object.fromEntries(all)
}

/** Several backends may be the same model of the same provider. `taken` has the number that each id was last given. */
function uniqueId(id: string, taken: Map<string, number>): string {
  const short = id.slice(0, 200)
  let unique = short
  let n = taken.get(short) ?? 0
  while (taken.has(unique)) unique = `${short}#${++n}`
  taken.set(short, Math.max(1, n))
  taken.set(unique, Math.max(1, taken.get(unique) ?? 1))
  return unique
}

/** `/v1` is part of the path of every request: it must not be in front of it once more. What is no URL was told already. */
function originUrl(url: unknown): string {
  const isUrl = typeof url === 'string' && urlComplaint(url) === undefined
  return isUrl ? url.replace(/\/v1(beta)?\/*$/, '') : 'http://unknown.invalid'
}

function keyHeader(provider: Table): Table {
  const { api_key: key, backend_type: type, base_url: url } = provider
  // A provider at home may need none; where one is needed, the rules of the tables say so.
  if (typeof key !== 'string' || key === '') return {}
  const given = new Set(Object.keys(tableAt(provider, 'headers')).map((name) => name.toLowerCase()))
  const isAzure = typeof url === 'string' && /\.azure\.com$/.test(URL.parse(url)?.hostname ?? '')
  const own: Table =
    type === 'claude'
      ? { 'x-api-key': key, 'anthropic-version': ANTHROPIC_VERSION }
      : type === 'gemini'
        ? { 'x-goog-api-key': key }
        : isAzure
          ? { 'api-key': key }
          : { authorization: `Bearer ${key}` }
  return Object.fromEntries(Object.entries(own).filter(([name]) => !given.has(name)))
}

function providerOf(root: Table, backend: unknown): Table {
  const id = isPlain(backend) ? backend.provider : undefined
  return typeof id === 'string' ? tableAt(tableAt(root, 'providers'), id) : {}
}
