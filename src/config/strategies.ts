/** Strategies by name: which there are, what is wrong with one, and what it stands for. */
import type { Strategy } from '../core/contracts.ts'
import type { ResolvedStrategySettings } from '../core/resolved.ts'
import type { PlainStrategySettings, StrategyName, StrategySettings, StrategyWord } from '../core/strategy-options.ts'
import { type Finding, foundText, isPlain, nearest, type Path, pathText, quoted, valueAt } from './issues.ts'

/** A record, so that none can be left out. */
const BUILT_IN = {
  auto: true,
  p2c: true,
  'peak-ewma': true,
  least: true,
  'round-robin': true,
  'weighted-round-robin': true,
  random: true,
  'weighted-random': true,
  edf: true,
  orca: true,
  prequal: true,
  'ring-hash': true,
  maglev: true,
  rendezvous: true,
  jump: true,
  failover: true,
  'weighted-failover': true,
  smart: true,
  thompson: true,
} satisfies Record<StrategyName, true>
export const STRATEGY_NAMES = Object.keys(BUILT_IN) as readonly StrategyName[]
const HASHING: readonly string[] = ['ring-hash', 'maglev', 'rendezvous', 'jump'] satisfies StrategyName[]
/** They share out between priorities, and stand within no other one. */
const OUTERMOST: readonly string[] = ['failover', 'weighted-failover'] satisfies StrategyName[]
export const PLAIN_NAMES: readonly string[] = STRATEGY_NAMES.filter((name) => !OUTERMOST.includes(name))

/** The default of `minSize`. */
const ENVOY_MIN_SIZE = 1_024

export const KEY_TEXT = 'what to hash: "call", "ip", "path", "header:NAME" (any but host), "cookie:NAME" or a function'

/** What a strategy may be, with the name first that was probably meant. */
export function strategyText(input: unknown, names: readonly string[] = STRATEGY_NAMES): string {
  const meant = typeof input === 'string' ? nearest(input, names) : undefined
  const sorted = names.toSorted((a, b) => Number(b === meant) - Number(a === meant))
  const list = sorted.map(quoted).join(', ')
  return `${list}, such a name with settings, or an object with name and start`
}

/** What is wrong between strategies, and within the settings of one. */
export function strategies(
  options: unknown,
  places: readonly Path[],
  bad: (path: Path) => boolean,
): readonly Finding[] {
  const given = valueAt(options, ['strategies'])
  const own = Array.isArray(given)
    ? (given as readonly Strategy[]).filter((_, i) => !bad(['strategies', i, 'name']))
    : []
  const named = (path: Path, offered = STRATEGY_NAMES as readonly string[]): readonly Finding[] => {
    const value = bad(path) ? undefined : valueAt(options, path)
    if (typeof value === 'string') return misnamed(value, path, own, offered)
    return isPlain(value) && !('start' in value) ? atOdds(value, path, bad) : []
  }
  return [
    ...namesakes(Array.isArray(given) ? given : [], bad),
    ...places.flatMap((place) => [
      ...named([...place, 'strategy']),
      ...(isFailover(valueAt(options, [...place, 'strategy']))
        ? [
            ...named([...place, 'strategy', 'strategy'], PLAIN_NAMES),
            ...within(options, [...place, 'strategy', 'strategy'], bad, own),
          ]
        : []),
    ]),
  ]
}

/** Settings that hold another strategy. What a strategy of the user's own has in a field of that name is its own affair. */
function isFailover(value: unknown): boolean {
  return isPlain(value) && !('start' in value) && value.name === 'failover'
}

/** What a name or settings stand for. The checks before this one have found nothing wrong with them. */
export function settledStrategy(
  strategy: StrategyWord | StrategySettings | Strategy,
  own: readonly Strategy[],
): ResolvedStrategySettings | Strategy {
  if (typeof strategy === 'string') return meantBy(strategy, own) as ResolvedStrategySettings | Strategy
  if ('start' in strategy || strategy.name !== 'failover') return strategy
  const { strategy: inner, ...settings } = strategy
  if (typeof inner !== 'string') return Object.freeze(inner === undefined ? settings : { ...settings, strategy: inner })
  return Object.freeze({ ...settings, strategy: meantBy(inner, own) as PlainStrategySettings | Strategy })
}

function meantBy(name: string, own: readonly Strategy[]): Strategy | { readonly name: string } {
  return own.find((strategy) => strategy.name === name) ?? Object.freeze({ name })
}

function misnamed(name: string, path: Path, own: readonly Strategy[], offered: readonly string[]): readonly Finding[] {
  if (HASHING.includes(name)) return [{ path, expected: `{ name: "${name}", key: … }, with ${KEY_TEXT} as the key` }]
  const owned = own.map((strategy) => strategy.name)
  if ([...STRATEGY_NAMES, ...owned].includes(name)) return []
  return [{ path, expected: strategyText(name, [...offered, ...owned]) }]
}

/** Settings of one strategy that cannot both be meant. */
function atOdds(settings: Readonly<Record<string, unknown>>, path: Path, bad: (path: Path) => boolean): Finding[] {
  const said = (key: string): unknown => (bad([...path, key]) ? undefined : settings[key])
  const odd = (key: string, holds: boolean, expected: string): Finding[] =>
    holds && said(key) !== undefined ? [{ path: [...path, key], expected }] : []
  const { name } = settings
  const [least, most] = [said('minSize'), said('maxSize')]
  const upsideDown = typeof least === 'number' && typeof most === 'number' && least > most
  const tooSmall = settings.minSize === undefined && typeof most === 'number' && most < ENVOY_MIN_SIZE
  const isEnvoy = said('like') === 'envoy'
  return [
    ...odd('bound', isOneOf(HASHING, name) && said('whenOut') === 'fail', 'nothing with whenOut "fail"'),
    ...odd('points', name === 'ring-hash' && isEnvoy, 'nothing, since rings like "envoy" have minSize points'),
    ...odd('minSize', name === 'ring-hash' && !isEnvoy, 'nothing, since only rings like "envoy" take it'),
    ...odd('minSize', isEnvoy && upsideDown, `at most maxSize, ${String(most)}`),
    ...odd('maxSize', isEnvoy && tooSmall, `at least ${ENVOY_MIN_SIZE}, which is the default of minSize`),
  ]
}

function isOneOf(names: readonly string[], name: unknown): boolean {
  return typeof name === 'string' && names.includes(name)
}

/** What may not stand within `failover`. */
function within(
  options: unknown,
  path: Path,
  bad: (path: Path) => boolean,
  own: readonly Strategy[],
): readonly Finding[] {
  const given = bad([...path, 'name']) ? undefined : valueAt(options, path)
  const inner = own.find((strategy) => strategy.name === given) ?? given
  const name = typeof inner === 'string' ? inner : valueAt(inner, ['name'])
  const isStrategy = valueAt(inner, ['start']) !== undefined
  const tiered = isStrategy ? valueAt(inner, ['overprovisioning']) !== undefined : isOneOf(OUTERMOST, name)
  if (tiered) return [{ path, expected: 'a strategy without priorities of its own' }]
  if (valueAt(inner, ['whenOut']) !== 'fail' || bad([...path, 'whenOut'])) return []
  return [{ path: isStrategy ? path : [...path, 'whenOut'], expected: '"redistribute" within another strategy' }]
}

/** Their names are how pools mean them. */
function namesakes(given: readonly unknown[], bad: (path: Path) => boolean): readonly Finding[] {
  const taken = new Map<string, string>(STRATEGY_NAMES.map((name) => [name, 'a built-in strategy']))
  return given.flatMap((strategy, index): readonly Finding[] => {
    const path = ['strategies', index, 'name']
    if (bad(path)) return []
    const name = valueAt(strategy, ['name']) as string
    const other = taken.get(name)
    if (other !== undefined)
      return [{ path, expected: `another name: ${foundText(name, path)} is the name of ${other}` }]
    taken.set(name, pathText(path.slice(0, -1)))
    return []
  })
}
