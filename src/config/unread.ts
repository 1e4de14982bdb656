/** Words that nothing would ever read, given what else is said. */
import { BREAKER_FIELDS } from '../core/options.ts'
import { wordsText } from './fields.ts'
import type { Finding } from './issues.ts'
import type { Said, Say } from './say.ts'

/** The types of check that take a field. */
const CHECK_FIELDS: Readonly<Record<string, readonly string[]>> = {
  path: ['http'],
  method: ['http'],
  headers: ['http', 'grpc'],
  match: ['http'],
  service: ['grpc'],
  status: ['http'],
}

/** The kinds of slow start that take a field. */
const SLOW_START_FIELDS: Readonly<Record<string, readonly string[]>> = {
  windowMs: ['time'],
  aggression: ['time'],
  minShare: ['time'],
  dwellMs: ['success'],
}

/** A pool's own word may leave words of the balancer without a use. */
export function unread(say: Say): readonly Finding[] {
  return [
    ...ofChecks(say),
    ...ofKind(say, 'breaker', 'trip', BREAKER_FIELDS, 'a breaker that trips by'),
    ...ofKind(say, 'health.slowStart', 'by', SLOW_START_FIELDS, 'slow start by'),
    ...ofHedges(say),
  ]
}

function ofChecks(say: Say): readonly Finding[] {
  const type = say('health.active.type')
  const probe = say('health.active.probe')
  const match = say('health.active.match')
  if (probe.value !== undefined) {
    return ['type', ...Object.keys(CHECK_FIELDS)]
      .map((field) => say(`health.active.${field}`))
      .flatMap((said) => unused(said, probe, 'health.active.probe is the whole check'))
  }
  const others = ofKind(say, 'health.active', 'type', CHECK_FIELDS, 'a check of type')
  const bodiless = type.value === 'http' && say('health.active.method').value === 'HEAD' && match.value !== undefined
  return bodiless ? [...others, { path: match.path!, expected: 'nothing, since answers to HEAD have no body' }] : others
}

/** Fields of a section that only some of its kinds take. */
function ofKind(
  say: Say,
  section: string,
  key: string,
  takers: Readonly<Record<string, readonly string[]>>,
  what: string,
): readonly Finding[] {
  const kind = say(`${section}.${key}`)
  return Object.entries(takers).flatMap(([field, kinds]) => {
    if (kind.value === undefined || kinds.includes(String(kind.value))) return []
    return unused(say(`${section}.${field}`), kind, `only ${what} ${wordsText(kinds)} takes it`)
  })
}

function ofHedges(say: Say): readonly Finding[] {
  const delay = say('hedge.delayMs')
  const beside = ['hedge.percentile', 'hedge.minDelayMs', 'hedge.warmUp'].map(say)
  return beside.flatMap((said) => unused(said, delay, 'hedge.delayMs says how long to wait'))
}

/** It is said as close by as what makes it useless, or closer. An empty text says nothing. */
function unused(said: Said, cause: Said, reason: string): readonly Finding[] {
  const silent = said.value === undefined || said.value === '' || cause.value === undefined
  if (said.path === undefined || silent) return []
  return said.level <= cause.level ? [{ path: said.path, expected: `nothing, since ${reason}` }] : []
}
