// One field at a time: health, classes, hedge, breaker, limits and what retry has learned. What clashes: config-clashes.
import { expect, test } from 'vitest'
import { DEFAULTS, WHEN_GIVEN } from '../src/config/defaults.ts'
import { CLASSES } from '../src/core/outcome.ts'
import { A, complaints, leaves, nested, resolve, setting, verb } from './config-rows.ts'

const MOST = 2 ** 31 - 1
/** A tenth more is still a delay. */
const MOST_SHIFTED = 1_952_257_860
const share = 'a number from 0 to 1'
const someShare = 'a number > 0 and <= 1'
const partShare = 'a number > 0 and < 1'
const span = `a number > 0 and <= ${MOST}`
const time = `ms >= 0 and <= ${MOST}`
const shiftedSpan = `a number > 0 and <= ${MOST_SHIFTED}`
const shiftedTime = `ms >= 0 and <= ${MOST_SHIFTED}`
const least0 = 'a whole number >= 0'
const least1 = 'a whole number >= 1'
const path = "a path that starts with '/', in ASCII without spaces and '#'"
const section = 'an object ({} = the defaults), or false'

/** A setting, a value it does not take, and what is said about it, word for word. */
const rows: readonly (readonly [path: string, value: unknown, expected: string, found: string])[] = [
  ['health.active', true, section, 'true'],
  ['health.active.type', 'udp', '"http", "tcp" or "grpc"', '"udp"'],
  ['health.active.probe', verb, 'a probe: an object with name, check', 'a function'],
  ['health.active.path', 'up', path, '"up"'],
  ['health.active.path', '/u p?token=1', path, 'a string of 12 characters'],
  ['health.active.method', 'get', 'a method in capitals, such as GET', '"get"'],
  ['health.active.method', 'CONNECT', 'a method in capitals, such as GET', '"CONNECT"'],
  ['health.active.headers', 'x: y', 'an object of header names and values', 'a string of 4 characters'],
  ['health.active.match', '', '1 to 1024 bytes of UTF-8', '""'],
  ['health.active.match', 'x'.repeat(1025), '1 to 1024 bytes of UTF-8', `"${'x'.repeat(60)}…"`],
  ['health.active.match', 'é'.repeat(513), '1 to 1024 bytes of UTF-8', `"${'é'.repeat(60)}…"`],
  ['health.active.service', 7, 'a string', '7'],
  ['health.active.status', '2xx', "statuses like '200', '200-399' or '200,204'", '"2xx"'],
  ['health.active.intervalMs', 0, span, '0'],
  ['health.active.fastIntervalMs', -1, span, '-1'],
  ['health.active.idleIntervalMs', 2 ** 31, span, '2147483648'],
  ['health.active.initial', 'none', '"up", "down" or "probe"', '"none"'],
  ['health.active.jitter', 1.1, share, '1.1'],
  ['health.active.timeoutMs', Infinity, span, 'Infinity'],
  ['health.active.rise', 0, least1, '0'],
  ['health.active.fall', 1.5, least1, '1.5'],
  ['health.passive', null, section, 'null'],
  ['health.passive.consecutive', -1, least0, '-1'],
  ['health.passive.consecutiveGateway', 0.5, least0, '0.5'],
  ['health.passive.consecutiveLocal', '5', least0, '"5"'],
  ['health.passive.successRate', true, section, 'true'],
  ['health.passive.successRate.deviations', 0, 'a number > 0', '0'],
  ['health.passive.successRate.minBackends', 1, 'a whole number >= 2', '1'],
  ['health.passive.successRate.minRequests', 0, least1, '0'],
  ['health.passive.failureShare', 0.5, section, '0.5'],
  ['health.passive.failureShare.share', 0, someShare, '0'],
  ['health.passive.failureShare.minBackends', 0, least1, '0'],
  ['health.passive.failureShare.minRequests', -1, least1, '-1'],
  ['health.passive.intervalMs', 0, span, '0'],
  ['health.passive.baseMs', 0, shiftedSpan, '0'],
  ['health.passive.maxMs', -1, shiftedSpan, '-1'],
  ['health.passive.maxMs', MOST_SHIFTED + 1, shiftedSpan, '1952257861'],
  ['health.passive.maxShare', 0, someShare, '0'],
  ['health.passive.jitter', -0.1, share, '-0.1'],
  ['health.passive.dryRun', 1, 'true or false', '1'],
  ['health.panicBelow', 2, share, '2'],
  ['health.slowStart', 5, section, '5'],
  ['health.slowStart.by', 'luck', '"time" or "success"', '"luck"'],
  ['health.slowStart.windowMs', 0, span, '0'],
  ['health.slowStart.aggression', 0, 'a number > 0', '0'],
  ['health.slowStart.minShare', 0, someShare, '0'],
  ['health.slowStart.dwellMs', -1, time, '-1'],
  ['health.cooldown', true, section, 'true'],
  ['health.cooldown.rateLimitMs', -1, shiftedTime, '-1'],
  ['health.cooldown.credentialMs', MOST_SHIFTED + 1, shiftedTime, '1952257861'],
  ['health.cooldown.maxMs', Number.NaN, shiftedTime, 'NaN'],
  ['classify', {}, 'a function', 'an object'],
  ['classes', false, 'an object', 'false'],
  ['classes.time-out', {}, 'timeout', 'an unknown key'],
  ['classes.broken', {}, `one of ${Object.keys(CLASSES).join(', ')}`, 'an unknown key'],
  ['classes.timeout', 'never', 'an object', '"never"'],
  ['classes.timeout.code', 'RESET', 'one of retry, health, latency, cool', 'an unknown key'],
  ['classes.timeout.retry', 'no', '"never", "always", "safe", "status" or "fresh"', '"no"'],
  ['classes.auth.health', 'bad', '"success", "failure" or "none"', '"bad"'],
  ['classes.ok.latency', 'fast', '"sample", "slow" or "none"', '"fast"'],
  ['classes.ok.cool', true, '"none", "hint", "rate-limit" or "credential"', 'true'],
  ['retry.sameBaseMs', -1, 'a number >= 0', '-1'],
  ['retry.jitter', 0.1, '"full", "equal", "decorrelated" or "none"', '0.1'],
  ['retry.waitMs', -1, time, '-1'],
  ['hedge', true, section, 'true'],
  ['hedge.delayMs', -1, time, '-1'],
  ['hedge.percentile', 1, partShare, '1'],
  ['hedge.percentile', 95, partShare, '95'],
  ['hedge.minDelayMs', -1, time, '-1'],
  ['hedge.warmUp', 0, least1, '0'],
  ['hedge.maxShare', 1.1, someShare, '1.1'],
  ['breaker', 'window', section, '"window"'],
  ['breaker.trip', 'rate', '"consecutive", "count" or "window"', '"rate"'],
  ['breaker.consecutive', 0, least1, '0'],
  ['breaker.threshold', 1, partShare, '1'],
  ['breaker.size', 10_001, 'a whole number >= 1 and <= 10000', '10001'],
  ['breaker.windowMs', 0, span, '0'],
  ['breaker.minRequests', 0, least1, '0'],
  ['breaker.openMs', 0, span, '0'],
  ['breaker.maxOpenMs', 0, span, '0'],
  ['breaker.jitter', 2, share, '2'],
  ['breaker.trials', 0, least1, '0'],
  ['limits', false, 'an object', 'false'],
  ['limits.maxInflight', 0, least1, '0'],
  ['limits.queue', 100, section, '100'],
  ['limits.queue.size', 0, least1, '0'],
  ['limits.queue.timeoutMs', 0, span, '0'],
  ['limits.queue.order', 'random', '"fifo", "lifo" or "adaptive"', '"random"'],
  ['limits.queue.overloadMs', 0, span, '0'],
  ['limits.adaptive', true, section, 'true'],
  ['limits.adaptive.algorithm', 'bbr', '"gradient2", "aimd" or "vegas"', '"bbr"'],
  ['limits.adaptive.initial', 0, least1, '0'],
  ['limits.adaptive.min', 0, least1, '0'],
  ['limits.adaptive.max', 0.5, least1, '0.5'],
  ['timeouts.firstByteMs', -1, time, '-1'],
  ['timeouts.leaseMs', 2 ** 31, time, '2147483648'],
]
/** So that a queue has something to wait for, and statistics enough to compare. */
const backends = [{ url: A, maxInflight: 1 }, 'http://b', 'http://c', 'http://d', 'http://e']

test.each(rows)('%s does not take %o', (path, value, expected, found) => {
  expect(complaints({ backends, ...nested(path, value) })).toEqual([`${path}: ${expected}, found ${found}`])
  const inPool = { pools: { p: { backends, ...nested(path, value) } } }
  expect(complaints(inPool)).toEqual([`pools.p.${path}: ${expected}, found ${found}`])
})

test('no field of these sections is without such a row', () => {
  const { health, hedge, breaker, limits } = DEFAULTS
  const all = [...leaves({ health, hedge, breaker, limits }), ...leaves(WHEN_GIVEN)]
  expect(all.filter((leaf) => !rows.some(([path]) => path === leaf))).toEqual([])
})

test('a misspelled field is told the one that was meant', () => {
  for (const [path, meant] of [
    ['health.active.interval', 'intervalMs'],
    ['health.active.fastIntervalMS', 'fastIntervalMs'],
    ['health.passive.sucessRate', 'successRate'],
    ['health.slowstart', 'slowStart'],
    ['hedge.delayMS', 'delayMs'],
    ['breaker.treshold', 'threshold'],
    ['limits.quue', 'queue'],
    ['limits.queue.sise', 'size'],
    ['health.cooldown.colour', 'one of rateLimitMs, credentialMs, maxMs'],
    ['limits.adaptive.maximum', 'one of algorithm, initial, min, max'],
  ] as const) {
    expect(complaints({ backends, ...nested(path, 1) })).toEqual([expect.stringContaining(`${path}: ${meant}`)])
  }
})

test('backends have times of their own', () => {
  for (const key of ['connectMs', 'headersMs', 'firstByteMs', 'idleMs', 'attemptMs']) {
    const path = `backends[0].timeouts.${key}`
    expect(complaints({ backends: [{ url: A, timeouts: { [key]: -1 } }] })).toEqual([`${path}: ${time}, found -1`])
  }
  expect(complaints({ backends: [{ url: A, timeouts: false }] })).toEqual([
    'backends[0].timeouts: an object, found false',
  ])
  expect(complaints({ backends: [{ url: A, timeouts: { totalMs: 1 } }] })).toEqual([
    'backends[0].timeouts.totalMs: one of connectMs, headersMs, firstByteMs, idleMs, attemptMs, found an unknown key',
  ])
})

test('even a time that is shifted by a tenth is one that timers take', () => {
  expect(MOST_SHIFTED * 1.1).toBeLessThanOrEqual(MOST)
  expect((MOST_SHIFTED + 1) * 1.1).toBeGreaterThan(MOST)
})

test('headers of checks are secrets like those of backends', () => {
  const canary = 'C4N4RY'
  for (const headers of [canary, [canary], { a: `${canary}\n` }, { te: canary }, { 'x y': canary }]) {
    const lines = complaints(setting({ health: { active: { headers } } }))
    expect(lines).toEqual([expect.stringMatching(/^health\.active\.headers/)])
    expect(lines[0]).not.toContain(canary)
  }
})

test('every field is accepted at its bounds', () => {
  for (const settings of [
    { health: { active: { intervalMs: 0.5, fastIntervalMs: 0.5, idleIntervalMs: MOST, timeoutMs: MOST, jitter: 1 } } },
    { health: { active: { method: 'OPTIONS', match: 'é'.repeat(512), status: '100-599', rise: 1, fall: 1 } } },
    { health: { active: { type: 'tcp' }, slowStart: { minShare: 1, aggression: 0.1 } } },
    { health: { slowStart: { by: 'success', dwellMs: 0 } } },
    { health: { cooldown: { rateLimitMs: 0, credentialMs: 0, maxMs: 0 }, passive: { failureShare: { share: 1 } } } },
    { health: { cooldown: { maxMs: MOST_SHIFTED }, passive: { baseMs: MOST_SHIFTED, maxMs: MOST_SHIFTED } } },
    { health: { passive: { successRate: { minBackends: 2 }, consecutiveGateway: 1, consecutiveLocal: 1 } } },
    { hedge: { delayMs: 0 }, breaker: { trip: 'count', threshold: 0.01, size: 10_000, jitter: 0 } },
    { hedge: { percentile: 0.999, minDelayMs: 0, maxShare: 1 }, retry: { waitMs: 0, sameBaseMs: 0, jitter: 'none' } },
    { classes: { timeout: {}, 'rate-limited': { cool: 'none' } }, classify: verb },
    { clock: { now: verb, after: verb, wall: verb } },
  ]) {
    resolve({ backends, ...settings })
  }
  expect(complaints(setting({ clock: { now: verb, after: verb, wall: 1 } }))).toEqual([
    'clock.wall: a function, found 1',
  ])
})
