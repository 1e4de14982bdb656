// Settings that cannot all be meant: each row is refused for a balancer and for a pool, and only for the reasons given.
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { DEFAULTS, WHEN_GIVEN } from '../src/config/defaults.ts'
import type { Probe } from '../src/core/contracts.ts'
import type { BalancerError } from '../src/core/errors.ts'
import { BREAKER_DEFAULTS, type BreakerOptions } from '../src/core/options.ts'
import { cooldown } from '../src/health/cooldown.ts'
import { monitor } from '../src/health/monitor.ts'
import { outlier } from '../src/health/outlier.ts'
import { slowStart } from '../src/health/slow-start.ts'
import { adaptiveLimit } from '../src/policies/adaptive-limit.ts'
import { circuitBreaker } from '../src/policies/breaker.ts'
import { limit } from '../src/policies/limit.ts'
import { A, complaints, resolve, verb } from './config-rows.ts'

type Clash = readonly [settings: object, ...lines: readonly string[]]

const probe: Probe = { name: 'mine', check: async () => undefined }
const only = (types: string): string => `nothing, since only a check of type ${types} takes it, found`
const whole = 'nothing, since health.active.probe is the whole check, found'
const fixed = 'nothing, since hedge.delayMs says how long to wait, found'
const outlasts = 'no attempt outlasts its call'
const unsent = 'the second send would never go out'
const unhedged =
  'with 0 streamed bodies are not kept, so their requests could never be sent twice (those without a body, or with a string or bytes, still could)'
const trips = (words: string): string => `nothing, since only a breaker that trips by ${words} takes it, found`
const grows = (word: string): string => `nothing, since only slow start by ${word} takes it, found`
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
  [adaptive({ min: 201 }), 'limits.adaptive.min: at most 200, which is the default of max, found 201'],
  [adaptive({ min: 10, max: 5 }), 'limits.adaptive.max: at least 10, which is limits.adaptive.min, found 5'],
  // Never reached, since the call is over.
  [
    { timeouts: { attemptMs: 9, totalMs: 8 } },
    `timeouts.attemptMs: at most 8, which is timeouts.totalMs: ${outlasts}, found 9`,
  ],
  [
    { limits: { maxInflight: 1, queue: { timeoutMs: 9 } }, timeouts: { totalMs: 8 } },
    'limits.queue.timeoutMs: at most 8, which is timeouts.totalMs: no call waits longer than it lasts, found 9',
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
  [
    { hedge: { delayMs: 9 }, timeouts: { headersMs: 9 } },
    'hedge.delayMs: less than 9, which is timeouts.headersMs: on an open connection the second send would never go out, found 9',
  ],
  // Hedging.
  [{ hedge: {}, retry: { bufferBytes: 0 } }, `hedge: retry.bufferBytes > 0, or no hedging: ${unhedged}, found 0`],
  [{ hedge: { delayMs: 9, percentile: 0.95 } }, `hedge.percentile: ${fixed} 0.95`],
  [{ hedge: { warmUp: 5, minDelayMs: 10, delayMs: 9 } }, `hedge.warmUp: ${fixed} 5`, `hedge.minDelayMs: ${fixed} 10`],
  // What a breaker would never read.
  [{ breaker: { consecutive: 3 } }, `breaker.consecutive: ${trips('"consecutive"')} 3`],
  [{ breaker: { size: 30, trip: 'window' } }, `breaker.size: ${trips('"count"')} 30`],
  [
    { breaker: { trip: 'consecutive', threshold: 0.6, windowMs: 9, openMs: 7 } },
    `breaker.threshold: ${trips('"count" or "window"')} 0.6`,
    `breaker.windowMs: ${trips('"window"')} 9`,
  ],
  [{ breaker: { trip: 'count', minRequests: 9 } }, `breaker.minRequests: ${trips('"window"')} 9`],
  // What slow start would never read.
  [{ health: { slowStart: { dwellMs: 9 } } }, `health.slowStart.dwellMs: ${grows('"success"')} 9`],
  [
    { health: { slowStart: { by: 'success', windowMs: 9, aggression: 2, minShare: 0.2 } } },
    `health.slowStart.windowMs: ${grows('"time"')} 9`,
    `health.slowStart.aggression: ${grows('"time"')} 2`,
    `health.slowStart.minShare: ${grows('"time"')} 0.2`,
  ],
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

  test('statistics that a pool is too small for, if they are said of it', () => {
    const backends = [A, 'http://b', 'http://c']
    const passive = (fields: object): object => ({ health: { passive: fields } })
    const most = 'at most 3: fewer backends than minBackends are never judged, and there are 3, found'
    const never = `false, or a minBackends of ${most}`
    for (const [settings, line] of [
      [passive({ failureShare: {} }), `health.passive.failureShare: ${never} 5`],
      [passive({ failureShare: { minBackends: 4 } }), `health.passive.failureShare.minBackends: ${most} 4`],
      [passive({ successRate: { minBackends: 4 } }), `health.passive.successRate.minBackends: ${most} 4`],
    ] as const) {
      expect(complaints({ backends, ...settings })).toEqual([line])
      expect(complaints({ pools: { p: { backends, ...settings } } })).toEqual([`pools.p.${line}`])
      // Said of all pools it is meant for the large ones; watchers may bring more backends.
      expect(complaints({ ...settings, pools: { p: { backends } } })).toEqual([])
      expect(complaints({ backends, ...settings, watchers: [{ name: 'w', start: verb }] })).toEqual([])
      expect(complaints({ backends: [...backends, 'http://d', 'http://e'], ...settings })).toEqual([])
    }
    const pool = { backends, ...passive({ failureShare: { share: 0.5 } }) }
    const all = passive({ failureShare: { minBackends: 9 } })
    expect(complaints({ ...all, pools: { p: pool } })).toEqual([`pools.p.health.passive.failureShare: ${never} 9`])
    for (const off of [{}, { passive: false }, { passive: { failureShare: false, successRate: false } }]) {
      expect(complaints({ backends, health: off })).toEqual([])
    }
  })

  test('watchers of one name within a pool, the built-in ones that are on included', () => {
    const watcher = (name: string): object => ({ name, start: verb })
    const builtIn: readonly (readonly [name: string, on: object, off: object])[] = [
      ['probe', active({}), active(false as never)],
      ['outlier', {}, { health: { passive: false } }],
      ['breaker', { breaker: {} }, {}],
      ['cooldown', {}, { health: { cooldown: false } }],
      ['slow-start', {}, { health: { slowStart: false } }],
      ['adaptive', adaptive({}), {}],
      ['limit', { limits: { maxInflight: 1 } }, { limits: { queue: false } }],
      ['limit', { limits: { queue: {} }, backends: [{ url: A, maxInflight: 1 }] }, {}],
    ]
    for (const [name, on, off] of builtIn) {
      const line = `watchers[0].name: another name: "${name}" is the name of a built-in watcher that is on, found "${name}"`
      const watchers = [watcher(name)]
      expect(complaints({ backends: [A], ...on, watchers }), name).toEqual([line])
      expect(complaints({ backends: [A], ...off, watchers }), name).toEqual([])
      expect(complaints({ pools: { p: { backends: [A], ...on, watchers } } })).toEqual([`pools.p.${line}`])
    }
    const made = [
      monitor(WHEN_GIVEN.health.active, probe),
      outlier({ ...(DEFAULTS.health.passive as Exclude<typeof DEFAULTS.health.passive, false>), panic: true }),
      circuitBreaker(),
      cooldown({ rateLimitMs: 1, credentialMs: 1, maxMs: 1 }),
      slowStart({ by: 'time', windowMs: 1, aggression: 1, minShare: 1, dwellMs: 0 }),
      adaptiveLimit(WHEN_GIVEN.limits.adaptive),
      limit({ maxInflight: 1, queue: false }).watcher,
    ]
    expect(made.map(({ name }) => name)).toEqual([...new Set(builtIn.map(([name]) => name))])
    const mine = [watcher('mine'), watcher('yours'), watcher('mine')]
    const line = 'watchers[2].name: another name: "mine" is the name of watchers[0], found "mine"'
    expect(complaints({ backends: [A], watchers: mine })).toEqual([line])
    const q = { backends: [A] }
    expect(complaints({ watchers: mine, pools: { p: q, q } })).toEqual([line])
    expect(complaints({ watchers: [watcher('mine')], pools: { p: { ...q, watchers: [watcher('mine')] }, q } })).toEqual(
      [],
    )
    // By what the pool ends up with.
    expect(complaints({ watchers: [watcher('breaker')], pools: { p: { ...q, breaker: {} }, q } })).toHaveLength(1)
    expect(
      complaints({ backends: [A], watchers: [{ name: '' }, { name: 5, start: verb }, watcher('x')] }),
    ).toHaveLength(3)
  })

  test('of a breaker made by hand as well, in the same words', () => {
    const fields = { consecutive: 3, threshold: 0.6, size: 9, windowMs: 9, minRequests: 9, openMs: 9, trials: 9 }
    const told = (options: BreakerOptions): readonly string[] => {
      try {
        circuitBreaker(options)
        return []
      } catch (error) {
        const { issues = [] } = error as BalancerError
        return issues.map(({ path, expected, found }) => `breaker.${path}: ${expected}, found ${found}`)
      }
    }
    let refusals = 0
    for (const trip of ['consecutive', 'count', 'window'] as const) {
      for (const [field, value] of Object.entries(fields)) {
        const breaker = { trip, [field]: value }
        const lines = told(breaker)
        expect(lines, inspect(breaker)).toEqual(complaints({ backends: [A], breaker }))
        refusals += lines.length
      }
    }
    expect(refusals).toBe(4 + 3 + 2)
    expect(told({ size: 0 })).toEqual(['breaker.size: a whole number >= 1 and <= 10000, found 0'])
    expect(told({ size: 9 })).toEqual([`breaker.size: ${trips('"count"')} 9`]) // by the default of trip
    // A configuration may leave its words without a use; what it makes is complete, and no complaint.
    expect(told({ ...BREAKER_DEFAULTS, trip: 'count', windowMs: 9 })).toEqual([])
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
    ).toEqual([`hedge: retry.bufferBytes > 0, or no hedging: ${unhedged}, found 0`])
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
    { limits: { adaptive: { max: 5 } } }, // and that of where it starts
    { limits: { adaptive: { min: 50 } } },
    { breaker: { openMs: 7, maxOpenMs: 7 } },
    { breaker: { trip: 'count', size: 7, threshold: 0.1 } },
    { breaker: { trip: 'window', windowMs: 7, minRequests: 7, threshold: 0.1 } },
    { hedge: { delayMs: 40_000 } }, // of the other times only what is said
    { timeouts: { totalMs: 5 } },
    { hedge: { delayMs: 9 }, timeouts: { headersMs: 0, totalMs: 10 } },
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
      [{ breaker: { minRequests: 9 } }, { breaker: { trip: 'count' } }],
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
