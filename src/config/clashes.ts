/**
 * Settings that cannot all be meant, judged as one pool ends up with them: its own words, the balancer's, the defaults. A
 * field that is wrong by itself contradicts nothing.
 */
import { type Finding, foundText, type Path, pathText, valueAt } from './issues.ts'
import { isAbove, isOn, type Said, type Say, sayOf, whose } from './say.ts'
import { unread } from './unread.ts'

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
const YIELDING = ['health.active.fastIntervalMs', 'retry.sameBaseMs', 'limits.adaptive.initial']

/** Names of the built-in watchers, and what turns each of them on. */
const WATCHERS: Readonly<Record<string, readonly string[]>> = {
  probe: ['health.active'],
  outlier: ['health.passive'],
  breaker: ['breaker'],
  cooldown: ['health.cooldown'],
  'slow-start': ['health.slowStart'],
  adaptive: ['limits.adaptive'],
  limit: ['limits.maxInflight', 'limits.queue'],
}

/** One pool of the options, for the rules that look at more than settings. */
interface Place {
  readonly path: Path
  /** Undefined if they are wrong by themselves. */
  readonly backends: readonly unknown[] | undefined
  readonly bad: (path: Path) => boolean
}

/** `path` is where the pool stands; `bad` knows what is already found wrong. */
export function clashes(options: unknown, path: Path, bad: (path: Path) => boolean): readonly Finding[] {
  const say = sayOf(options, path, bad)
  const backends = bad([...path, 'backends']) ? undefined : valueAt(options, [...path, 'backends'])
  const place: Place = { path, backends: Array.isArray(backends) ? backends : undefined, bad }
  return [
    ...ORDERED.flatMap(([small, large]) => disorder(small, large, say)),
    ...overlong(place, say),
    ...hedging(say),
    ...queueing(place, say),
    ...tooFew(place, say),
    ...namesakes(place, say),
    ...unread(say),
  ]
}

function disorder(small: string, large: string, say: Say): readonly Finding[] {
  const low = say(small)
  const high = say(large)
  const yields = (said: Said, setting: string): boolean => said.path === undefined && YIELDING.includes(setting)
  if (yields(low, small) || yields(high, large) || !isAbove(low, high)) return []
  if (high.path !== undefined) {
    return [{ path: high.path, expected: `at least ${low.value}, which is ${whose(low, small)}` }]
  }
  return [{ path: low.path!, expected: `at most ${high.value}, which is ${whose(high, large)}` }]
}

/** Times that would never be reached, since the call is over before. */
function overlong({ path: place, backends = [], bad }: Place, say: Say): readonly Finding[] {
  const total = say('timeouts.totalMs')
  if (total.value === 0) return []
  const own = backends.map((backend, index): Said => {
    const path = [...place, 'backends', index, 'timeouts', 'attemptMs']
    return { value: bad(path) ? undefined : valueAt(backend, ['timeouts', 'attemptMs']), path, level: 0 }
  })
  const late = (said: Said, reason: string): readonly Finding[] => {
    if (said.path === undefined || !isAbove(said, total)) return []
    return [
      { path: said.path, expected: `at most ${total.value}, which is ${whose(total, 'timeouts.totalMs')}: ${reason}` },
    ]
  }
  return [
    ...[say('timeouts.attemptMs'), ...own].flatMap((said) => late(said, 'no attempt outlasts its call')),
    ...late(say('limits.queue.timeoutMs'), 'no call waits longer than it lasts'),
  ]
}

/** What ends the wait for a second send, and what that means. */
const HEDGE_ENDS: readonly (readonly [setting: string, reason: string])[] = [
  ['timeouts.headersMs', 'on an open connection the second send would never go out'],
  ['timeouts.attemptMs', 'the second send would never go out'],
  ['timeouts.totalMs', 'the second send would never go out'],
]

function hedging(say: Say): readonly Finding[] {
  const hedge = say('hedge')
  if (!isOn(hedge)) return []
  const delay = say('hedge.delayMs')
  const wait = delay.value === undefined ? say('hedge.minDelayMs') : delay
  const never = HEDGE_ENDS.flatMap(([setting, reason]): readonly Finding[] => {
    const end = say(setting)
    const off = wait.path === undefined || end.path === undefined || end.value === 0
    if (off || !(isAbove(wait, end) || wait.value === end.value)) return []
    return [{ path: wait.path, expected: `less than ${end.value}, which is ${pathText(end.path)}: ${reason}` }]
  })
  const buffer = say('retry.bufferBytes')
  if (buffer.value !== 0) return never
  const why = 'with 0 streamed bodies are not kept, so their requests could never be sent twice'
  const still = 'those without a body, or with a string or bytes, still could'
  const expected = `${pathText(buffer.path!)} > 0, or no hedging: ${why} (${still})`
  return [{ path: hedge.path!, expected, found: '0' }, ...never]
}

/** A queue needs something that can be full. Watchers may set limits of their own. */
function queueing({ path: place, backends }: Place, say: Say): readonly Finding[] {
  const queue = say('limits.queue')
  if (!isOn(queue) || backends === undefined) return []
  const limited = ['limits.maxInflight', 'limits.adaptive', 'watchers'].map(say).some((said) => {
    const off = said.value === false || (Array.isArray(said.value) && said.value.length === 0)
    return said.path !== undefined && !off
  })
  if (limited || backends.some((backend) => valueAt(backend, ['maxInflight']) !== undefined)) return []
  const where = place.length === 0 ? '' : ` in ${pathText(place)}`
  const expected = `something${where} that can be full: limits.maxInflight, limits.adaptive or a backend's maxInflight`
  return [{ path: queue.path!, expected, found: 'nothing of the kind' }]
}

/**
 * Statistics that would never act. Only what is said of this very pool: what is said of all of them is meant for the large ones.
 * Watchers may bring backends.
 */
function tooFew({ backends }: Place, say: Say): readonly Finding[] {
  const watchers = say('watchers').value
  if (backends === undefined || !Array.isArray(watchers) || watchers.length > 0) return []
  return ['health.passive.successRate', 'health.passive.failureShare'].flatMap((setting) => {
    const section = say(setting)
    const least = say(`${setting}.minBackends`)
    // The success rate is on by default, whatever the size: it is a mistake only if its minBackends is said here.
    if (least.level > 0 && setting.endsWith('successRate')) return []
    if (section.level > 0 || !isAbove(least, { ...section, value: backends.length })) return []
    const there = `there ${backends.length === 1 ? 'is' : 'are'} ${backends.length}`
    const most = `at most ${backends.length}: fewer backends than minBackends are never judged, and ${there}`
    if (least.level === 0) return [{ path: least.path!, expected: most }]
    return [{ path: section.path!, expected: `false, or a minBackends of ${most}`, found: String(least.value) }]
  })
}

/** Their names are how watchers are told apart in reasons and warnings. */
function namesakes({ bad }: Place, say: Say): readonly Finding[] {
  const { value, path } = say('watchers')
  if (!Array.isArray(value) || path === undefined) return []
  const taken = new Map<unknown, string>()
  for (const [name, settings] of Object.entries(WATCHERS)) {
    if (settings.some((setting) => isOn(say(setting)))) taken.set(name, 'a built-in watcher that is on')
  }
  return value.flatMap((watcher: unknown, index): readonly Finding[] => {
    const own = [...path, index, 'name']
    const name = bad(own) ? undefined : valueAt(watcher, ['name'])
    if (name === undefined) return []
    const other = taken.get(name)
    const expected = `another name: ${foundText(name, own)} is the name of ${other}`
    if (other !== undefined) return [{ path: own, expected }]
    taken.set(name, pathText([...path, index]))
    return []
  })
}
