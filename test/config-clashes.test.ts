// Settings that cannot all be meant: each row is refused for a balancer and for a pool, and only for the reasons given.
import { describe, expect, test } from 'vitest'
import type { Probe } from '../src/core/contracts.ts'
import { A, complaints, resolve, verb } from './config-rows.ts'

type Clash = readonly [settings: object, ...lines: readonly string[]]

const probe: Probe = { name: 'mine', check: async () => undefined }
const only = (types: string): string => `nothing, since only a check of type ${types} takes it, found`
const whole = 'nothing, since health.active.probe is the whole check, found'
const fixed = 'nothing, since hedge.delayMs says how long to wait, found'
const outlasts = 'a contradiction, no attempt outlasts its call'
const unsent = 'the second send would never go out'
const nothingFull =
  "that can be full: limits.maxInflight, limits.adaptive or a backend's maxInflight, found nothing of the kind"

const active = (fields: object): object => ({ health: { active: fields } })
const adaptive = (fields: object): object => ({ limits: { adaptive: fields } })

const rows: readonly Clash[] = [
  // The smaller above the larger: the one that should give way is named, a default by its name.
  [
    { health: { passive: { baseMs: 9, maxMs: 8 } } },
    'health.passive.maxMs: at least 9, which is health.passive.baseMs, found 8',
  ],
  [
    { health: { passive: { baseMs: 300_001 } } },
    'health.passive.baseMs: at most 300000, which is the default of maxMs, found 300001',
  ],
  [{ retry: { sameBaseMs: 9, maxMs: 8, baseMs: 1 } }, 'retry.maxMs: at least 9, which is retry.sameBaseMs, found 8'],
  [{ retry: { sameBaseMs: 5_001 } }, 'retry.sameBaseMs: at most 5000, which is the default of maxMs, found 5001'],
  [{ breaker: { openMs: 9, maxOpenMs: 8 } }, 'breaker.maxOpenMs: at least 9, which is breaker.openMs, found 8'],
  [{ breaker: { maxOpenMs: 8 } }, 'breaker.maxOpenMs: at least 5000, which is the default of openMs, found 8'],
  [{ breaker: { openMs: 60_001 } }, 'breaker.openMs: at most 60000, which is the default of maxOpenMs, found 60001'],
  [
    active({ fastIntervalMs: 9, intervalMs: 8 }),
    'health.active.intervalMs: at least 9, which is health.active.fastIntervalMs, found 8',
  ],
  [
    active({ fastIntervalMs: 5_001 }),
    'health.active.fastIntervalMs: at most 5000, which is the default of intervalMs, found 5001',
  ],
  [
    active({ intervalMs: 9, idleIntervalMs: 8 }),
    'health.active.idleIntervalMs: at least 9, which is health.active.intervalMs, found 8',
  ],
  [
    active({ idleIntervalMs: 4_999 }),
    'health.active.idleIntervalMs: at least 5000, which is the default of intervalMs, found 4999',
  ],
  [
    adaptive({ min: 9, max: 8, initial: 8 }),
    'limits.adaptive.max: at least 9, which is limits.adaptive.min, found 8',
    'limits.adaptive.initial: at least 9, which is limits.adaptive.min, found 8',
  ],
  [adaptive({ initial: 3, min: 4 }), 'limits.adaptive.initial: at least 4, which is limits.adaptive.min, found 3'],
  [adaptive({ initial: 9, max: 8 }), 'limits.adaptive.max: at least 9, which is limits.adaptive.initial, found 8'],
  [adaptive({ initial: 201 }), 'limits.adaptive.initial: at most 200, which is the default of max, found 201'],
  [adaptive({ max: 19 }), 'limits.adaptive.max: at least 20, which is the default of initial, found 19'],
  [adaptive({ min: 21 }), 'limits.adaptive.min: at most 20, which is the default of initial, found 21'],
  // Never reached, since the call is over.
  [
    { timeouts: { attemptMs: 9, totalMs: 8 } },
    `timeouts.attemptMs: at most 8, which is timeouts.totalMs: ${outlasts}, found 9`,
  ],
  [
    { limits: { maxInflight: 1, queue: { timeoutMs: 9 } }, timeouts: { totalMs: 8 } },
    'limits.queue.timeoutMs: at most 8, which is timeouts.totalMs: a contradiction, no call waits longer than it lasts, found 9',
  ],
  [
    { hedge: { delayMs: 9 }, timeouts: { attemptMs: 9 } },
    `hedge.delayMs: less than 9, which is timeouts.attemptMs: ${unsent}, found 9`,
  ],
  [
    { hedge: { delayMs: 10 }, timeouts: { attemptMs: 8, totalMs: 9 } },
    `hedge.delayMs: less than 8, which is timeouts.attemptMs: ${unsent}, found 10`,
    `hedge.delayMs: less than 9, which is timeouts.totalMs: ${unsent}, found 10`,
  ],
  [
    { hedge: { minDelayMs: 9 }, timeouts: { totalMs: 9 } },
    `hedge.minDelayMs: less than 9, which is timeouts.totalMs: ${unsent}, found 9`,
  ],
  // Hedging.
  [
    { hedge: {}, retry: { bufferBytes: 0 } },
    'hedge: retry.bufferBytes > 0: what is not kept cannot be sent twice, found 0',
  ],
  [{ hedge: { delayMs: 9, percentile: 0.95 } }, `hedge.percentile: ${fixed} 0.95`],
  [{ hedge: { warmUp: 5, minDelayMs: 10, delayMs: 9 } }, `hedge.warmUp: ${fixed} 5`, `hedge.minDelayMs: ${fixed} 10`],
  // A queue in front of nothing.
  [{ limits: { queue: {} } }, `limits.queue: something ${nothingFull}`],
  [{ limits: { queue: { size: 5 }, adaptive: false }, watchers: [] }, `limits.queue: something ${nothingFull}`],
  // What a check would never read.
  [active({ type: 'tcp', path: '/up' }), `health.active.path: ${only('"http"')} "/up"`],
  [active({ type: 'grpc', path: '/up' }), `health.active.path: ${only('"http"')} "/up"`],
  [active({ type: 'tcp', match: 'ok' }), `health.active.match: ${only('"http"')} "ok"`],
  [active({ type: 'grpc', match: 'ok' }), `health.active.match: ${only('"http"')} "ok"`],
  [active({ type: 'tcp', method: 'GET' }), `health.active.method: ${only('"http"')} "GET"`],
  [active({ type: 'grpc', status: '200' }), `health.active.status: ${only('"http"')} "200"`],
  [active({ type: 'tcp', headers: { a: 'b' } }), `health.active.headers: ${only('"http" or "grpc"')} an object`],
  [active({ service: 'a.B' }), `health.active.service: ${only('"grpc"')} "a.B"`],
  [active({ type: 'tcp', service: 'a.B' }), `health.active.service: ${only('"grpc"')} "a.B"`],
  [
    active({ method: 'HEAD', match: 'ok' }),
    'health.active.match: nothing, since answers to HEAD have no body, found "ok"',
  ],
  [active({ probe, type: 'http' }), `health.active.type: ${whole} "http"`],
  [
    active({ probe, path: '/up', headers: { a: 'b' } }),
    `health.active.path: ${whole} "/up"`,
    `health.active.headers: ${whole} an object`,
  ],
]

const inPool = (line: string): string =>
  `pools.p.${line}`
    .replace(/(?<=which is )(?!the default)/, 'pools.p.')
    .replace('.hedge: retry', '.hedge: pools.p.retry')
    .replace('something that', 'something in pools.p that')

describe('what cannot all be meant is refused', () => {
  test.each(rows.map(([settings, ...lines]) => ({ settings, lines })))('$lines', ({ settings, lines }) => {
    expect([...complaints({ backends: [A], ...settings })].sort()).toEqual([...lines].sort())
    const pools = { p: { backends: [A], ...settings }, q: { backends: [A] } }
    expect([...complaints({ pools })].sort()).toEqual(lines.map(inPool).sort())
  })

  test('whether the balancer says it or the pool', () => {
    for (const [settings, ...lines] of rows) {
      const said = complaints({ ...settings, pools: { p: { backends: [A] } } })
      const expected = lines.map((line) => line.replace('something that', 'something in pools.p that'))
      expect([...said].sort()).toEqual([...expected].sort())
    }
  })

  test('also of a backend', () => {
    const backends = [A, { url: 'http://b', timeouts: { attemptMs: 9 } }]
    const line = `backends[1].timeouts.attemptMs: at most 8, which is timeouts.totalMs: ${outlasts}, found 9`
    expect(complaints({ backends, timeouts: { totalMs: 8 } })).toEqual([line])
    expect(complaints({ pools: { p: { backends } }, timeouts: { totalMs: 8 } })).toEqual([`pools.p.${line}`])
    expect(complaints({ backends, timeouts: { totalMs: 9 } })).toEqual([])
    expect(complaints({ backends, timeouts: { attemptMs: 5, totalMs: 0 } })).toEqual([])
  })

  test('all of it at once, with what is wrong by itself', () => {
    const options = {
      backends: [{ url: A, timeouts: { attemptMs: 9 } }],
      timeouts: { totalMs: 8 },
      health: { active: { type: 'tcp', path: '/x', fall: 0 } },
      hedge: { delayMs: 9, percentile: 2 },
      limits: { queue: { timeoutMs: 10 } },
    }
    expect(complaints(options)).toEqual([
      `backends[0].timeouts.attemptMs: at most 8, which is timeouts.totalMs: ${outlasts}, found 9`,
      `health.active.path: ${only('"http"')} "/x"`,
      'health.active.fall: a whole number >= 1, found 0',
      `hedge.delayMs: less than 8, which is timeouts.totalMs: ${unsent}, found 9`,
      'hedge.percentile: a number > 0 and < 1, found 2',
      `limits.queue: something ${nothingFull}`,
      expect.stringMatching(/^limits\.queue\.timeoutMs: at most 8/),
    ])
  })

  test('as each pool ends up with it', () => {
    const q = { backends: [A] }
    expect(
      complaints({ hedge: {}, retry: { bufferBytes: 0 }, pools: { p: { ...q, retry: { bufferBytes: 1 } }, q } }),
    ).toEqual(['hedge: retry.bufferBytes > 0: what is not kept cannot be sent twice, found 0'])
    expect(complaints({ hedge: { delayMs: 9 }, pools: { p: { ...q, timeouts: { attemptMs: 5 } }, q } })).toEqual([
      `hedge.delayMs: less than 5, which is pools.p.timeouts.attemptMs: ${unsent}, found 9`,
    ])
    expect(complaints({ limits: { queue: {} }, pools: { p: { ...q, limits: { maxInflight: 1 } }, q, r: q } })).toEqual([
      `limits.queue: something in pools.q ${nothingFull}`,
      `limits.queue: something in pools.r ${nothingFull}`,
    ])
    expect(complaints({ breaker: { openMs: 9_000 }, pools: { p: { ...q, breaker: { maxOpenMs: 8_000 } } } })).toEqual([
      'pools.p.breaker.maxOpenMs: at least 9000, which is breaker.openMs, found 8000',
    ])
    // The balancer's way of checking would swallow what the pool says.
    expect(complaints({ ...active({ type: 'tcp' }), pools: { p: { ...q, ...active({ path: '/x' }) } } })).toEqual([
      `pools.p.health.active.path: ${only('"http"')} "/x"`,
    ])
    expect(complaints({ hedge: { delayMs: 9 }, pools: { p: { ...q, hedge: { percentile: 0.9 } } } })).toEqual([
      `pools.p.hedge.percentile: ${fixed} 0.9`,
    ])
    expect(complaints({ ...active({ match: 'ok' }), pools: { p: { ...q, ...active({ method: 'HEAD' }) } } })).toEqual([
      'health.active.match: nothing, since answers to HEAD have no body, found "ok"',
    ])
  })
})

describe('what only looks like it is accepted', () => {
  const accepted: readonly object[] = [
    { health: { active: { timeoutMs: 9_000, intervalMs: 10 } } }, // the interval runs from the end of a check
    { health: { active: { intervalMs: 500 } } }, // the default of fastIntervalMs gives way
    { health: { active: { type: 'grpc', service: 'a.B', headers: { a: 'b' } } } },
    { health: { active: { type: 'http', service: '', method: 'HEAD' } } },
    { health: { active: { type: 'tcp' }, passive: false } },
    { health: { active: { probe, intervalMs: 5, fastIntervalMs: 5, idleIntervalMs: 5 } } },
    { retry: { maxMs: 100 } }, // so does that of sameBaseMs
    { timeouts: { totalMs: 5 }, limits: { maxInflight: 1, queue: {} } }, // and that of the queue
    { timeouts: { totalMs: 1 }, hedge: {} },
    { timeouts: { attemptMs: 0, totalMs: 0 }, hedge: { delayMs: 9 } },
    { timeouts: { attemptMs: 10, totalMs: 10 }, hedge: { delayMs: 9 } },
    { timeouts: { headersMs: 30, firstByteMs: 50, idleMs: 20, attemptMs: 10 } }, // each is a bound of its own
    { hedge: false, retry: { bufferBytes: 0 } },
    { limits: { queue: false } },
    { limits: { queue: {}, adaptive: {} } },
    { limits: { queue: {} }, watchers: [{ name: 'w', start: verb }] }, // it may set limits
    { limits: { queue: {} }, backends: [A, { url: 'http://b', maxInflight: 1 }] },
    { limits: { adaptive: { initial: 4, min: 4, max: 4 } } },
    { breaker: { openMs: 7, maxOpenMs: 7 } },
  ]

  test.each(accepted)('%o', (settings) => {
    resolve({ backends: [A], ...settings })
    resolve({ pools: { p: { backends: [A], ...settings } } })
  })

  test('where the pool has switched it off, or has the newer word', () => {
    const own = { backends: [A] }
    for (const [balancer, pool] of [
      [{ hedge: {}, retry: { bufferBytes: 0 } }, { hedge: false }],
      [{ limits: { queue: {} } }, { limits: { queue: false } }],
      [{ breaker: { openMs: 9, maxOpenMs: 8 } }, { breaker: false }],
      [adaptive({ min: 9, max: 8 }), { limits: { adaptive: false } }],
      [active({ type: 'tcp', path: '/x' }), { health: { active: false } }],
      [active({ path: '/x', method: 'HEAD', match: 'x' }), active({ type: 'tcp' })],
      [active({ path: '/x', type: 'http' }), active({ probe })],
      [{ hedge: { percentile: 0.9, minDelayMs: 50 } }, { hedge: { delayMs: 9 }, timeouts: { attemptMs: 20 } }],
      [{ timeouts: { attemptMs: 9 } }, { timeouts: { attemptMs: 0, totalMs: 5 } }],
    ] as const) {
      expect(complaints({ ...balancer, pools: { p: { ...own, ...pool } } })).toEqual([])
    }
  })

  test('a field that is wrong by itself contradicts nothing', () => {
    for (const settings of [
      { hedge: { delayMs: 'soon', percentile: 0.9 }, timeouts: { attemptMs: 5 } },
      { hedge: { delayMs: 5 }, timeouts: { attemptMs: -1 } },
      { hedge: 5, retry: { bufferBytes: 0 } },
      { limits: { queue: {}, maxInflight: 0 } },
      { limits: { queue: {}, adaptive: 5 } },
      { limits: { queue: true } },
      active({ type: 'udp', path: '/x', service: 'y' }),
      active({ type: 'tcp', path: 5 }),
      active({ method: 'head', match: 'x' }),
      active({ method: 'HEAD', match: '' }),
      adaptive({ min: 9, max: 0, initial: 10 }),
      { breaker: { openMs: null, maxOpenMs: 8 } },
    ]) {
      expect(complaints({ backends: [A], ...settings })).toHaveLength(1)
    }
    expect(complaints({ backends: 5, limits: { queue: {} } })).toHaveLength(1)
    expect(complaints({ backends: [{ url: A, maxInflight: 0 }], limits: { queue: {} } })).toHaveLength(1)
  })
})
