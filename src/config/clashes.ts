/**
 * Settings that cannot all be meant, judged as one pool ends up with them: its own words, the balancer's, the defaults. A
 * field that is wrong by itself contradicts nothing.
 */
import { DEFAULTS, WHEN_GIVEN } from './defaults.ts'
import { wordsText } from './fields.ts'
import { type Finding, type Path, pathText, valueAt } from './issues.ts'

/** Pairs of which the first must not be above the second. */
const ORDERED: readonly (readonly [small: string, large: string])[] = [
  ['health.active.fastIntervalMs', 'health.active.intervalMs'],
  ['health.active.intervalMs', 'health.active.idleIntervalMs'],
  ['health.passive.baseMs', 'health.passive.maxMs'],
  ['retry.baseMs', 'retry.maxMs'],
  ['retry.sameBaseMs', 'retry.maxMs'],
  ['breaker.openMs', 'breaker.maxOpenMs'],
  ['limits.adaptive.min', 'limits.adaptive.max'],
  ['limits.adaptive.min', 'limits.adaptive.initial'],
  ['limits.adaptive.initial', 'limits.adaptive.max'],
]
/** Their defaults give way to what is said of the other one of the pair. */
const YIELDING = ['health.active.fastIntervalMs', 'retry.sameBaseMs']

/** The types of check that take a field. */
const CHECK_FIELDS: Readonly<Record<string, readonly string[]>> = {
  path: ['http'],
  method: ['http'],
  headers: ['http', 'grpc'],
  match: ['http'],
  service: ['grpc'],
  status: ['http'],
}

interface Said {
  /** Undefined if it is wrong by itself, or within a section that is off. */
  readonly value: unknown
  /** Where it is said; undefined for a default. */
  readonly path: Path | undefined
  /** 0 is the closest: a pool's own word, or the balancer's if it has no named pools. */
  readonly level: number
}

/** What a pool ends up with: a setting as in 'retry.budget.share'. */
type Say = (setting: string) => Said

/** `place` is where the pool stands; `bad` knows what is already found wrong. */
export function clashes(options: unknown, place: Path, bad: (path: Path) => boolean): readonly Finding[] {
  const levels = place.length === 0 ? [place] : [place, []]
  const look = (keys: Path): Said => {
    for (const [level, start] of levels.entries()) {
      const path = [...start, ...keys]
      const wrong = bad(path)
      const value = wrong ? undefined : valueAt(options, path)
      if (wrong || value !== undefined) return { value, path, level }
    }
    return { value: valueAt(DEFAULTS, keys) ?? valueAt(WHEN_GIVEN, keys), path: undefined, level: Infinity }
  }
  const say: Say = (setting) => {
    const keys = setting.split('.')
    const off = keys.some((_, depth) => depth > 0 && look(keys.slice(0, depth)).value === false)
    return off ? { value: undefined, path: undefined, level: Infinity } : look(keys)
  }
  const backends = bad([...place, 'backends']) ? undefined : valueAt(options, [...place, 'backends'])
  return [
    ...ORDERED.flatMap(([small, large]) => disorder(small, large, say)),
    ...overlong(place, backends, bad, say),
    ...misfits(say),
    ...hedging(say),
    ...queueing(place, backends, say),
  ]
}

function disorder(small: string, large: string, say: Say): readonly Finding[] {
  const low = say(small)
  const high = say(large)
  const yields = low.path === undefined && YIELDING.includes(small)
  if (yields || !isAbove(low, high)) return []
  if (high.path !== undefined) {
    return [{ path: high.path, expected: `at least ${low.value}, which is ${whose(low, small)}` }]
  }
  return [{ path: low.path!, expected: `at most ${high.value}, which is ${whose(high, large)}` }]
}

/** Times that would never be reached, since the call is over before. */
function overlong(place: Path, backends: unknown, bad: (path: Path) => boolean, say: Say): readonly Finding[] {
  const total = say('timeouts.totalMs')
  if (total.value === 0) return []
  const own = (Array.isArray(backends) ? backends : []).map((backend: unknown, index): Said => {
    const path = [...place, 'backends', index, 'timeouts', 'attemptMs']
    return { value: bad(path) ? undefined : valueAt(backend, ['timeouts', 'attemptMs']), path, level: 0 }
  })
  const late = (said: Said, reason: string): readonly Finding[] => {
    if (said.path === undefined || !isAbove(said, total)) return []
    const most = `at most ${total.value}, which is ${whose(total, 'timeouts.totalMs')}`
    return [{ path: said.path, expected: `${most}: a contradiction, ${reason}` }]
  }
  return [
    ...[say('timeouts.attemptMs'), ...own].flatMap((said) => late(said, 'no attempt outlasts its call')),
    ...late(say('limits.queue.timeoutMs'), 'no call waits longer than it lasts'),
  ]
}

/** What a check of this kind would never read. A pool's own word may leave words of the balancer without a use. */
function misfits(say: Say): readonly Finding[] {
  const type = say('health.active.type')
  const probe = say('health.active.probe')
  const match = say('health.active.match')
  if (probe.value !== undefined) {
    return ['type', ...Object.keys(CHECK_FIELDS)]
      .map((field) => say(`health.active.${field}`))
      .flatMap((said) => unused(said, probe, 'health.active.probe is the whole check'))
  }
  const unread = Object.entries(CHECK_FIELDS).flatMap(([field, types]) => {
    if (type.value === undefined || types.includes(String(type.value))) return []
    return unused(say(`health.active.${field}`), type, `only a check of type ${wordsText(types)} takes it`)
  })
  const bodiless = type.value === 'http' && say('health.active.method').value === 'HEAD' && match.value !== undefined
  return bodiless ? [...unread, { path: match.path!, expected: 'nothing, since answers to HEAD have no body' }] : unread
}

function hedging(say: Say): readonly Finding[] {
  const { value, path } = say('hedge')
  if (value === undefined || value === false) return []
  const delay = say('hedge.delayMs')
  const wait = delay.value === undefined ? say('hedge.minDelayMs') : delay
  const never = ['timeouts.attemptMs', 'timeouts.totalMs'].map(say).flatMap((end): readonly Finding[] => {
    const off = wait.path === undefined || end.path === undefined || end.value === 0
    if (off || !(isAbove(wait, end) || wait.value === end.value)) return []
    const expected = `less than ${end.value}, which is ${pathText(end.path)}: the second send would never go out`
    return [{ path: wait.path, expected }]
  })
  const beside = ['hedge.percentile', 'hedge.minDelayMs', 'hedge.warmUp'].map(say)
  const buffer = say('retry.bufferBytes')
  const expected = `${pathText(buffer.path ?? [])} > 0: what is not kept cannot be sent twice`
  return [
    ...(buffer.value === 0 ? [{ path: path!, expected, found: '0' }] : []),
    ...never,
    ...beside.flatMap((said) => unused(said, delay, 'hedge.delayMs says how long to wait')),
  ]
}

/** A queue needs something that can be full. Watchers may set limits of their own. */
function queueing(place: Path, backends: unknown, say: Say): readonly Finding[] {
  const { value, path } = say('limits.queue')
  if (value === undefined || value === false || !Array.isArray(backends)) return []
  const limited = ['limits.maxInflight', 'limits.adaptive', 'watchers'].map(say).some((said) => {
    const off = said.value === false || (Array.isArray(said.value) && said.value.length === 0)
    return said.path !== undefined && !off
  })
  if (limited || backends.some((backend: unknown) => valueAt(backend, ['maxInflight']) !== undefined)) return []
  const where = place.length === 0 ? '' : ` in ${pathText(place)}`
  const expected = `something${where} that can be full: limits.maxInflight, limits.adaptive or a backend's maxInflight`
  return [{ path: path!, expected, found: 'nothing of the kind' }]
}

/** It is said as close by as what makes it useless, or closer. An empty text says nothing. */
function unused(said: Said, cause: Said, reason: string): readonly Finding[] {
  const silent = said.value === undefined || said.value === '' || cause.value === undefined
  if (said.path === undefined || silent) return []
  return said.level <= cause.level ? [{ path: said.path, expected: `nothing, since ${reason}` }] : []
}

function isAbove(a: Said, b: Said): boolean {
  return typeof a.value === 'number' && typeof b.value === 'number' && a.value > b.value
}

function whose({ path }: Said, setting: string): string {
  return path === undefined ? `the default of ${setting.split('.').at(-1)}` : pathText(path)
}
