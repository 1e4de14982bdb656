import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { defaultsPage } from '../scripts/print-defaults.ts'
import { DEFAULT_ROWS, WHEN_GIVEN_ROWS } from '../src/config/default-rows.ts'
import { DEFAULTS, WHEN_GIVEN } from '../src/config/defaults.ts'
import { resolveOptions } from '../src/config/schema.ts'
import { systemClock } from '../src/core/clock.ts'
import type { Policy, Sink, Strategy, Transport, Watcher } from '../src/core/contracts.ts'
import type { BalancerOptions } from '../src/core/options.ts'
import type { ResolvedOptions, ResolvedSettings } from '../src/core/resolved.ts'
import { Secret } from '../src/core/secret.ts'
import type { SlowStartSettings } from '../src/health/slow-start.ts'
import { leaves, nested } from './config-rows.ts'

const A = 'http://127.0.0.1:3001'
const chance = (): number => 0
const resolve = (options: BalancerOptions): ResolvedOptions =>
  resolveOptions(options, { clock: systemClock, random: () => chance })
const settingsOf = (options: BalancerOptions): ResolvedSettings => resolve(options).pools[0]!.settings

function expectFrozen(value: unknown): void {
  if (typeof value !== 'object' || value === null) return
  expect(Object.isFrozen(value)).toBe(true)
  for (const inner of Object.values(value)) expectFrozen(inner)
}

describe('defaults', () => {
  test('fill everything that is not said', () => {
    expect(resolve({ backends: [A] })).toEqual({
      name: 'evenkeel',
      pools: [{ name: 'default', endpoints: [{ url: A }], settings: { ...DEFAULTS, strategy: { name: 'auto' } } }],
      origins: undefined,
      log: {},
      revisions: 10,
      clock: systemClock,
      random: chance,
    })
    expect(DEFAULTS).toMatchObject({
      strategy: 'auto',
      health: { passive: { consecutive: 5, baseMs: 5_000, maxMs: 300_000, maxShare: undefined }, panicBelow: 0.5 },
      retry: {
        attempts: 3,
        status: [429, 502, 503, 504],
        baseMs: 25,
        maxMs: 5_000,
        bufferBytes: 65_536,
        holdBytes: 16_384,
      },
      timeouts: { connectMs: 5_000, headersMs: 30_000, idleMs: 300_000, attemptMs: 0, totalMs: 0 },
      undici: {
        connections: 256,
        pipelining: 1,
        keepAliveMs: 4_000,
        allowH2: false,
        maxHeaderBytes: 16_384,
        tls: {},
      },
    })
    expect(DEFAULTS.retry.budget).toEqual({ share: 0.2, perSecond: 10, windowMs: 10_000 })
  })

  test('obey their own schema', () => {
    // As unknown: what has no default is spelled out as undefined.
    const backends = [A, 'http://b', 'http://c', 'http://d', 'http://e'] // enough to be compared
    const asOptions = (settings: unknown): BalancerOptions => ({ backends, ...(settings as BalancerOptions) })
    const { dwellMs, ...slowStart } = { ...DEFAULTS.health.slowStart } as SlowStartSettings // what its kind reads
    const asRead = { ...DEFAULTS, health: { ...DEFAULTS.health, slowStart } }
    expect(settingsOf(asOptions(asRead))).toEqual({ ...DEFAULTS, strategy: { name: 'auto' } })
    const limits = { ...WHEN_GIVEN.limits, maxInflight: 1 } // something that can be full
    const { consecutive, size, ...read } = WHEN_GIVEN.breaker // what its trip rule reads
    expect(settingsOf(asOptions({ ...WHEN_GIVEN, limits, breaker: read }))).toMatchObject(WHEN_GIVEN)
    const { health, hedge, breaker } = settingsOf(asOptions({ health: { active: {} }, hedge: {}, breaker: {} }))
    expect([health.active, hedge, breaker]).toEqual([WHEN_GIVEN.health.active, WHEN_GIVEN.hedge, WHEN_GIVEN.breaker])
  })

  test('each have a row in the docs, which are as the script prints them', () => {
    expect(DEFAULT_ROWS.map(({ path }) => path)).toEqual(leaves(DEFAULTS))
    const whenGiven = WHEN_GIVEN_ROWS.flatMap(([, rows]) => rows)
    expect(whenGiven.map(({ path }) => path)).toEqual(leaves(WHEN_GIVEN))
    for (const [section, rows] of WHEN_GIVEN_ROWS) {
      expect(DEFAULT_ROWS.find(({ path }) => path === section)?.unit).toBe('section')
      for (const { path } of rows) expect(path).toMatch(new RegExp(`^${section}\\.\\w+$`))
    }
    for (const { unit, meaning, reason } of [...DEFAULT_ROWS, ...whenGiven]) {
      expect([unit, meaning, reason]).not.toContain('')
    }
    expect(readFileSync(new URL('../docs/defaults.md', import.meta.url), 'utf8')).toBe(defaultsPage())
  })

  test('are frozen, like everything that is resolved', () => {
    expectFrozen(DEFAULTS)
    expectFrozen(WHEN_GIVEN)
    const options = { url: A, tags: ['a'], headers: { a: 'b' }, meta: { c: 1 } }
    const { pools, origins } = resolve({
      backends: [options],
      retry: { status: [500] },
      origins: [A],
      undici: { tls: {} },
      health: {
        active: { headers: { a: 'b' } },
        passive: { failureShare: { minBackends: 1 } },
        cooldown: { maxMs: 1 },
      },
      classes: { timeout: { retry: 'never' } },
      hedge: {},
      breaker: { openMs: 1 },
      limits: { queue: {}, adaptive: { max: 30 } },
    })
    expectFrozen(pools)
    expectFrozen(origins)
    expect(Object.isFrozen(options) || Object.isFrozen(options.headers) || Object.isFrozen(options.meta)).toBe(false)
  })
})

describe('a pool', () => {
  test('takes each setting from itself, else from the balancer, else from the defaults', () => {
    const { pools } = resolve({
      retry: { attempts: 5, status: [500], budget: { share: 0.1 } },
      timeouts: { headersMs: 1 },
      health: { passive: { consecutive: 7 } },
      undici: { tls: { ca: 'x', servername: 'y' } },
      pools: {
        own: {
          backends: [A],
          strategy: 'p2c',
          retry: { attempts: 2, budget: { perSecond: 1 } },
          timeouts: { idleMs: 2 },
          health: { passive: { baseMs: 9 }, panicBelow: 0 },
          undici: { tls: { ca: 'z' } },
        },
        plain: { backends: [A] },
      },
    })
    const [own, plain] = pools.map(({ settings }) => settings)
    expect(own).toMatchObject({
      strategy: { name: 'p2c' },
      retry: { attempts: 2, status: [500], baseMs: 25, budget: { share: 0.1, perSecond: 1, windowMs: 10_000 } },
      timeouts: { headersMs: 1, idleMs: 2, connectMs: 5_000 },
      health: { passive: { consecutive: 7, baseMs: 9, maxMs: 300_000 }, panicBelow: 0 },
    })
    expect(own?.undici.tls).toEqual({ ca: 'z' }) // as a whole: half of one identity and half of another is none
    expect(plain).toMatchObject({ strategy: { name: 'auto' }, retry: { attempts: 5 }, timeouts: { idleMs: 300_000 } })
    expect(plain?.undici.tls).toEqual({ ca: 'x', servername: 'y' })
  })

  test('is one called default if there are only backends, else as named and in that order', () => {
    expect(resolve({ backends: [A] }).pools.map(({ name }) => name)).toEqual(['default'])
    const pools = { zebra: { backends: [A] }, ape: { backends: [A] } }
    expect(resolve({ pools }).pools.map(({ name }) => name)).toEqual(['zebra', 'ape'])
  })

  test('may switch ejection on or off for itself', () => {
    const passive = (balancer: false | object, pool: false | object): unknown =>
      resolve({ health: { passive: balancer }, pools: { p: { backends: [A], health: { passive: pool } } } }).pools[0]
        ?.settings.health.passive
    expect(passive({ baseMs: 1 }, false)).toBe(false)
    expect(passive(false, { baseMs: 1 })).toMatchObject({ baseMs: 1, maxMs: 300_000 })
    expect(settingsOf({ backends: [A], health: { passive: false } }).health).toEqual({
      ...DEFAULTS.health,
      passive: false,
    })
  })

  test('may switch every section that is off by default on or off for itself', () => {
    const sections: readonly (readonly [path: string, field: object, other: object])[] = [
      ['health.active', { fall: 7 }, { rise: 8 }],
      ['health.passive.failureShare', { share: 0.7 }, { minRequests: 8 }],
      ['health.passive.successRate', { deviations: 3 }, { minRequests: 8 }],
      ['health.slowStart', { windowMs: 7 }, { minShare: 0.8 }],
      ['health.cooldown', { rateLimitMs: 7 }, { maxMs: 8 }],
      ['hedge', { maxShare: 0.7 }, { warmUp: 8 }],
      ['breaker', { trials: 7 }, { minRequests: 8 }],
      ['limits.queue', { size: 7 }, { overloadMs: 8 }],
      ['limits.adaptive', { min: 7 }, { max: 80 }],
    ]
    const backends = [{ url: A, maxInflight: 1 }, 'http://b', 'http://c', 'http://d', 'http://e']
    for (const [path, field, other] of sections) {
      const keys = path.split('.')
      const nest = (value: unknown): object => nested(path, value)
      const at = (value: unknown): unknown =>
        keys.reduce((inner, key) => (inner as Record<string, unknown>)[key], value)
      const both = (balancer: unknown, pool: unknown): unknown => {
        const own = { backends, ...nest(pool) }
        const options = { ...nest(balancer), pools: { p: own } } as unknown as BalancerOptions
        return at(resolve(options).pools[0]!.settings)
      }
      const start = (at(DEFAULTS) || at(WHEN_GIVEN)) as object
      expect(both(false, undefined), path).toBe(false)
      expect(both(field, false), path).toBe(false)
      expect(both(false, false), path).toBe(false)
      expect(both(undefined, undefined), path).toEqual(at(DEFAULTS))
      expect(both(false, {}), path).toEqual(start)
      expect(both({}, undefined), path).toEqual(start)
      expect(both(field, {}), path).toEqual({ ...start, ...field })
      expect(both(field, other), path).toEqual({ ...start, ...field, ...other })
      expect(both(other, { ...other, ...field }), path).toEqual({ ...start, ...field, ...other })
    }
  })

  test('starts its adaptive limit within the bounds that are said', () => {
    const initial = (...layers: readonly [balancer: object, pool: object]): unknown => {
      const [balancer, pool] = layers.map((adaptive) => ({ limits: { adaptive } }))
      const { adaptive } = resolve({ ...balancer, pools: { p: { backends: [A], ...pool } } }).pools[0]!.settings.limits
      return adaptive === false ? 'off' : adaptive.initial
    }
    expect(initial({}, {})).toBe(20)
    expect(initial({}, { max: 5 })).toBe(5)
    expect(initial({ min: 50 }, {})).toBe(50)
    expect(initial({ max: 5 }, { max: 30, min: 25 })).toBe(25)
    expect(initial({ max: 5 }, { initial: 4 })).toBe(4)
    expectFrozen(resolve({ backends: [A], limits: { adaptive: { max: 5 } } }).pools)
  })

  test('takes headers of checks, and changes to classes, as a whole', () => {
    const { pools } = resolve({
      health: { active: { headers: { a: '1' }, fall: 1 } },
      classes: { timeout: { retry: 'never' }, auth: { cool: 'none' } },
      pools: {
        p: { backends: [A], health: { active: { headers: { b: '2' } } }, classes: { tls: { health: 'none' } } },
        q: { backends: [A] },
      },
    })
    const [own, plain] = pools.map(({ settings }) => settings)
    expect(own?.health.active).toMatchObject({ headers: { b: expect.any(Secret) }, fall: 1 })
    expect(own?.health.active).not.toHaveProperty('headers.a')
    expect(own?.classes).toEqual({ tls: { health: 'none' } })
    expect(plain?.classes).toEqual({ timeout: { retry: 'never' }, auth: { cool: 'none' } })
  })

  test('is judged by what it ends up with', () => {
    const issues = (options: BalancerOptions): unknown => {
      try {
        return resolve(options) && []
      } catch (error) {
        return (error as { issues: { path: string; expected: string }[] }).issues.map(
          (it) => `${it.path}: ${it.expected}`,
        )
      }
    }
    const pools = { p: { backends: [A], retry: { maxMs: 100 } }, q: { backends: [A] } }
    expect(issues({ retry: { baseMs: 200 }, pools })).toEqual([
      'pools.p.retry.maxMs: at least 200, which is retry.baseMs',
    ])
    expect(issues({ retry: { baseMs: 9_000 }, pools: { p: { backends: [A], retry: { maxMs: 9_000 } } } })).toEqual([])
    const total = { p: { backends: [A], timeouts: { totalMs: 5 } }, q: { backends: [A], timeouts: { totalMs: 50 } } }
    expect(issues({ timeouts: { attemptMs: 10 }, pools: total })).toEqual([
      expect.stringMatching(
        /^timeouts\.attemptMs: at most 5, which is pools\.p\.timeouts\.totalMs: no attempt outlasts its call$/,
      ),
    ])
    const off = { p: { backends: [A], health: { passive: false as const } } }
    expect(issues({ health: { passive: { baseMs: 400_000 } }, pools: off })).toEqual([])
  })
})

describe('what is handed over', () => {
  test('a backend is short for its url, and keys spelled out as undefined are left out', () => {
    const full = { url: A, id: 'a', weight: 2, priority: 1, zone: 'z', tags: ['t'], maxInflight: 3, meta: { a: 1 } }
    const odd = { url: 'http://b', weight: undefined } as unknown as { url: string }
    const { endpoints } = resolve({ backends: [full, odd, 'http://c'] }).pools[0]!
    expect(endpoints).toStrictEqual([full, { url: 'http://b' }, { url: 'http://c' }])
  })

  test('parts stay the objects they are', () => {
    class Mine implements Transport, Sink {
      readonly name = 'mine'
      send = (): never => {
        throw new Error('not here')
      }
    }
    const transport = new Mine()
    const strategy: Strategy = { name: 's', start: () => ({ build: () => () => undefined }) }
    const policy: Policy = { name: 'p', scope: 'pool', wrap: (next) => next }
    const watcher: Watcher = { name: 'w', start: () => ({ stop: () => undefined }) }
    const clock = { now: () => 0, after: () => () => undefined }
    const random = (): number => 1
    const agent = { live: true }
    const options = { transport, strategy, policies: [policy], watchers: [watcher], sinks: [transport], clock, random }
    const resolved = resolveOptions(
      { backends: [{ url: A, meta: { agent } }], ...options, undici: { tls: { agent } } },
      {
        clock: systemClock,
        random: () => expect.unreachable(),
      },
    )
    const { settings, endpoints } = resolved.pools[0]!
    expect(settings.transport).toBe(transport)
    expect(settings.strategy).toBe(strategy)
    expect(settings.policies[0]).toBe(policy)
    expect(settings.watchers[0]).toBe(watcher)
    expect(settings.sinks[0]).toBe(transport)
    expect(settings.undici.tls.agent).toBe(agent)
    expect(endpoints[0]?.meta?.agent).toBe(agent)
    expect(resolved.clock).toBe(clock)
    expect(resolved.random).toBe(random)
    expect([transport, strategy, policy, watcher, agent].some(Object.isFrozen)).toBe(false)
  })
})
