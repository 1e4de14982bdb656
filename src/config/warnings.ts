/** What loads, but will hurt. Judged on the options that a file comes to, and told where the file says it. */

import { Secret } from '../core/secret.ts'
import type { Document } from './document.ts'
import { isPublic } from './hosts.ts'
import { type Finding, isPlain, type Path, valueAt } from './issues.ts'
import type { Table } from './plain.ts'
import { isAbove, type Say, sayOf, whose } from './say.ts'
import { inFileWords } from './wording.ts'

/** How keys begin at services that are known, and the header they travel in. */
const KEY_FORMS: Readonly<
  Record<string, { readonly header: string; readonly start: string; readonly pattern: RegExp }>
> = {
  // Anthropic's keys start as OpenAI's do, and go on.
  'api.openai.com': { header: 'authorization', start: 'sk-', pattern: /^Bearer sk-(?!ant-)/ },
  'api.anthropic.com': { header: 'x-api-key', start: 'sk-ant-', pattern: /^sk-ant-/ },
  'generativelanguage.googleapis.com': { header: 'x-goog-api-key', start: 'AIza', pattern: /^AIza/ },
}
const KEY_HEADERS = ['authorization', 'proxy-authorization', 'cookie', 'x-api-key', 'api-key', 'x-goog-api-key']
/** They treat all backends alike. */
const WEIGHTLESS: readonly unknown[] = ['round-robin', 'random']
/** Pairs of which the first is over before the second can act, if it is the longer one. */
const NEVER_REACHED: readonly (readonly [setting: string, by: string])[] = [
  ['timeouts.connectMs', 'timeouts.attemptMs'],
  ['timeouts.headersMs', 'timeouts.attemptMs'],
  ['timeouts.connectMs', 'timeouts.totalMs'],
  ['timeouts.headersMs', 'timeouts.totalMs'],
  ['timeouts.firstByteMs', 'timeouts.totalMs'],
  ['timeouts.idleMs', 'timeouts.totalMs'],
  ['retry.waitMs', 'timeouts.totalMs'],
  ['health.active.timeoutMs', 'health.active.intervalMs'],
]

/** Of every pool, with the paths of the file. */
export function poolWarnings({ options, origins }: Pick<Document, 'options' | 'origins'>): readonly Finding[] {
  const pools = isPlain(options.pools) ? Object.keys(options.pools) : []
  const places: readonly Path[] = options.backends === undefined ? pools.map((name) => ['pools', name]) : [[]]
  return places.flatMap((place) => {
    const say = sayOf(options, place, () => false)
    const listed = valueAt(options, [...place, 'backends'])
    const backends: unknown[] = Array.isArray(listed) ? listed : []
    const path = [...place, 'backends']
    const found = [
      ...few(backends, path),
      ...weights(backends, path, say),
      ...backends.flatMap((backend, index) => keys(backend, [...path, index])),
    ]
    return [...found.map((finding) => ({ ...finding, path: origins.of(finding.path) })), ...times(say, origins)]
  })
}

function few(backends: readonly unknown[], path: Path): readonly Finding[] {
  if (backends.length !== 1) return []
  return [{ path, expected: 'two or more backends: with one there is nobody to fail over to', found: '1' }]
}

function weights(backends: readonly unknown[], path: Path, say: Say): readonly Finding[] {
  const all = backends.map((backend) => (isPlain(backend) && typeof backend.weight === 'number' ? backend.weight : 1))
  if (all.length > 0 && all.every((weight) => weight === 0)) {
    return [{ path, expected: 'a weight above 0: of these backends none is ever chosen', found: 'only 0' }]
  }
  const at = (index: number): Path => [...path, index, 'weight']
  const drained = all.flatMap((weight, index): readonly Finding[] => {
    return weight !== 0
      ? []
      : [{ path: at(index), expected: 'a weight above 0: this backend is never chosen', found: '0' }]
  })
  const { value: strategy } = say('strategy')
  const odd = all.findIndex((weight) => weight > 0 && weight !== all.find((other) => other > 0))
  if (odd < 0 || !WEIGHTLESS.includes(strategy)) return drained
  const expected = `equal weights, or "weighted-${strategy}": "${strategy}" looks at none`
  return [...drained, { path: at(odd), expected, found: 'another weight than the one before' }]
}

function keys(backend: unknown, path: Path): readonly Finding[] {
  if (!isPlain(backend) || typeof backend.url !== 'string' || !isPlain(backend.headers)) return []
  const url = URL.parse(backend.url)
  const sent = Object.entries(backend.headers as Table).map(([name, value]) => [name.toLowerCase(), value] as const)
  if (url === null) return []
  const findings: Finding[] = []
  if (url.protocol === 'http:' && isPublic(url.hostname) && sent.some(([name]) => KEY_HEADERS.includes(name))) {
    findings.push({ path: [...path, 'url'], expected: 'https: everybody on the way can read the key', found: 'http' })
  }
  const form = Object.hasOwn(KEY_FORMS, url.hostname) ? KEY_FORMS[url.hostname]! : undefined
  const name = Object.keys(backend.headers).find((it) => it.toLowerCase() === form?.header)
  const value = name === undefined ? undefined : backend.headers[name]
  if (form !== undefined && value instanceof Secret && !value.matches(form.pattern)) {
    const expected = `a key that starts with "${form.start}", as those of this provider do`
    findings.push({ path: [...path, 'headers', name!], expected, found: 'another start' })
  }
  return findings
}

function times(say: Say, origins: Document['origins']): readonly Finding[] {
  return NEVER_REACHED.flatMap(([setting, by]): readonly Finding[] => {
    const said = say(setting)
    const end = say(by)
    // Of what nobody wrote there is nothing to say.
    if (said.path === undefined || !origins.has(said.path) || end.value === 0 || !isAbove(said, end)) return []
    const expected = `at most ${end.value}, which is ${whose(end, by)}: nobody waits longer`
    return [inFileWords({ path: said.path, expected }, origins)]
  })
}
