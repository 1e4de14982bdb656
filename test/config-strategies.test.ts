// What `strategy` and `strategies` take, what is said of what they do not, and what they come to.
import {
  createBalancer,
  type EdfOptions,
  failover,
  jump,
  type LocalityOptions,
  maglev,
  memory,
  type OrcaOptions,
  type P2cOptions,
  type PoolOptions,
  type PrequalOptions,
  rendezvous,
  ringHash,
  roundRobin,
  type SmartOptions,
  type Strategy,
  type StrategyName,
  type StrategySettings,
  type ThompsonOptions,
} from 'evenkeel'
import { describe, expect, expectTypeOf, test } from 'vitest'
import { STRATEGY_NAMES } from '../src/config/strategies.ts'
import type { ResolvedSettings } from '../src/core/resolved.ts'
import { byName } from '../src/strategies/by-name.ts'
import { A, complaints, resolve, setting, verb } from './config-rows.ts'

const KEY = 'what to hash: "call", "ip", "path", "header:NAME" (any but host), "cookie:NAME" or a function'
const HASHING = ['ring-hash', 'maglev', 'rendezvous', 'jump'] as const
const own = (name: string, more: object = {}): Strategy => ({ name, start: () => ({ build: () => verb }), ...more })
const strategyOf = (options: object): ResolvedSettings['strategy'] =>
  resolve(setting(options)).pools[0]!.settings.strategy

/** What comes beside the name. */
type Beside<Name extends StrategyName> = Omit<For<Name, StrategySettings>, 'name'>
type For<Name, Of> = Of extends { readonly name: infer Names } ? (Name extends Names ? Of : never) : never

test('the settings beside a name are those the factory takes', () => {
  expectTypeOf<Beside<'p2c'>>().toEqualTypeOf<P2cOptions>()
  expectTypeOf<Beside<'edf'>>().toEqualTypeOf<EdfOptions>()
  expectTypeOf<Beside<'orca'>>().toEqualTypeOf<OrcaOptions>()
  expectTypeOf<Beside<'prequal'>>().toEqualTypeOf<PrequalOptions>()
  expectTypeOf<Beside<'smart'>>().toEqualTypeOf<SmartOptions>()
  expectTypeOf<Beside<'thompson'>>().toEqualTypeOf<ThompsonOptions>()
  expectTypeOf<Beside<'maglev'>>().toEqualTypeOf<Parameters<typeof maglev>[0]>()
  expectTypeOf<Beside<'ring-hash'>>().toEqualTypeOf<Parameters<typeof ringHash>[0]>()
  expectTypeOf<Beside<'edf'>>().not.toEqualTypeOf<LocalityOptions>()
  // @ts-expect-error: a hash strategy has a key
  const keyless: PoolOptions = { backends: [A], strategy: { name: 'maglev' } }
  // @ts-expect-error: a setting of another strategy
  const foreign: PoolOptions = { backends: [A], strategy: { name: 'edf', size: 7 } }
  expect([complaints(keyless), complaints(foreign)].flat()).toHaveLength(2)
})

describe('every strategy', () => {
  test.each(STRATEGY_NAMES)('%s is made from its name, and from settings with it', (name) => {
    const settings = (HASHING as readonly string[]).includes(name) ? { name, key: 'call' } : { name }
    expect(strategyOf({ strategy: settings })).toEqual(settings)
    expect(byName(strategyOf({ strategy: settings })).name).toMatch(/\S/)
    if (settings.key === undefined) expect(strategyOf({ strategy: name })).toEqual({ name })
    expect(
      createBalancer({ backends: [A], transport: memory({}), strategy: settings as StrategySettings }),
    ).toBeDefined()
  })

  test('takes its own settings, to their bounds', () => {
    const hash = { key: 'header:x', bound: 1.01 }
    for (const settings of [
      { name: 'p2c', choices: 2 },
      { name: 'peak-ewma', choices: 9 },
      { name: 'edf', bias: 0 },
      { name: 'orca', blackoutMs: 0, expireMs: 0, updateMs: 0, errorPenalty: 0 },
      { name: 'prequal', path: '/x?y=1', probesPerRequest: 0.1, removalsPerRequest: 0, poolSize: 2, rifQuantile: 1 },
      { name: 'prequal', poolSize: 256, maxAgeMs: 1, timeoutMs: 1, maxProbesPerSecond: 1 },
      { name: 'ring-hash', ...hash, like: 'envoy', minSize: 1, maxSize: 8_388_608 },
      { name: 'ring-hash', ...hash, like: 'nginx', points: 1 },
      { name: 'maglev', ...hash, size: 5_000_011 },
      { name: 'rendezvous', key: 'path', whenOut: 'fail' },
      { name: 'jump', key: () => 'a', whenOut: 'redistribute' },
      { name: 'smart', cost: () => 1 },
      { name: 'thompson', cost: () => 1, value: 1, latencyCost: 0, discount: 1, decayMs: 1, prior: 'trusted' },
      { name: 'failover', overprovisioning: 1, strategy: 'p2c' },
      { name: 'failover', overprovisioning: Infinity, strategy: { name: 'maglev', key: 'ip' } },
      { name: 'failover', strategy: own('mine') },
      { name: 'weighted-failover', overprovisioning: Infinity },
    ]) {
      expect(complaints(setting({ strategy: settings }))).toEqual([])
      expect(strategyOf({ strategy: settings })).toMatchObject(
        settings.strategy === 'p2c' ? { strategy: { name: 'p2c' } } : settings,
      )
      byName(strategyOf({ strategy: settings }))
    }
  })

  test('says what is wrong with its settings, where, and what was meant', () => {
    const unknown = 'an unknown key'
    const rows: readonly (readonly [settings: object, complaint: string])[] = [
      [{ name: 'maglev' }, `strategy.key: ${KEY}, found undefined`],
      [{ name: 'maglev', key: 'heder:x' }, `strategy.key: ${KEY}, found "heder:x"`],
      [{ name: 'jump', key: 'header:' }, `strategy.key: ${KEY}, found "header:"`],
      [{ name: 'jump', key: 'cookie:a b' }, `strategy.key: ${KEY}, found "cookie:a b"`],
      [{ name: 'rendezvous', key: 7 }, `strategy.key: ${KEY}, found 7`],
      [{ name: 'maglev', key: 'ip', sise: 7 }, `strategy.sise: size, found ${unknown}`],
      [
        { name: 'maglev', key: 'ip', points: 7 },
        `strategy.points: one of name, key, whenOut, bound, size, found ${unknown}`,
      ],
      [
        { name: 'least', choices: 2 },
        `strategy.choices: nothing beside name: this one has no settings, found ${unknown}`,
      ],
      [{ name: 'maglev', key: 'ip', size: 65_536 }, 'strategy.size: a prime up to 5000011, found 65536'],
      [{ name: 'maglev', key: 'ip', size: 5_000_077 }, 'strategy.size: a prime up to 5000011, found 5000077'],
      [{ name: 'maglev', key: 'ip', bound: 1 }, 'strategy.bound: a number > 1, found 1'],
      [{ name: 'maglev', key: 'ip', whenOut: 'no' }, 'strategy.whenOut: "redistribute" or "fail", found "no"'],
      [{ name: 'jump', key: 'ip', whenOut: 'fail', bound: 2 }, 'strategy.bound: nothing with whenOut "fail", found 2'],
      [{ name: 'ring-hash', key: 'ip', like: 'haproxy' }, 'strategy.like: "envoy" or "nginx", found "haproxy"'],
      [{ name: 'ring-hash', key: 'ip', points: 0 }, 'strategy.points: a number from 1 to 65536, found 0'],
      [
        { name: 'ring-hash', key: 'ip', like: 'envoy', points: 9 },
        'strategy.points: nothing, since rings like "envoy" have minSize points, found 9',
      ],
      [
        { name: 'ring-hash', key: 'ip', minSize: 9 },
        'strategy.minSize: nothing, since only rings like "envoy" take it, found 9',
      ],
      [
        { name: 'ring-hash', key: 'ip', like: 'envoy', minSize: 9, maxSize: 8 },
        'strategy.minSize: at most maxSize, 8, found 9',
      ],
      [
        { name: 'ring-hash', key: 'ip', maxSize: 8_388_609 },
        'strategy.maxSize: a whole number >= 1 and <= 8388608, found 8388609',
      ],
      [{ name: 'p2c', choices: 1 }, 'strategy.choices: a whole number >= 2, found 1'],
      [{ name: 'edf', bias: -1 }, 'strategy.bias: a number >= 0, found -1'],
      [{ name: 'orca', updateMs: '1' }, 'strategy.updateMs: a number >= 0, found "1"'],
      [{ name: 'prequal', poolSize: 1 }, 'strategy.poolSize: a whole number >= 2 and <= 256, found 1'],
      [{ name: 'smart', cost: 1 }, 'strategy.cost: a function, found 1'],
      [{ name: 'thompson', discount: 0 }, 'strategy.discount: a number > 0 and <= 1, found 0'],
      [{ name: 'failover', overprovisioning: 0.9 }, 'strategy.overprovisioning: a number >= 1, found 0.9'],
      [{ name: 'failover', strategy: { name: 'edf', bais: 1 } }, `strategy.strategy.bais: bias, found ${unknown}`],
      [
        { name: 'failover', strategy: 'maglev' },
        `strategy.strategy: { name: "maglev", key: … }, with ${KEY} as the key, found "maglev"`,
      ],
      [
        { name: 'failover', strategy: 'failover' },
        'strategy.strategy: a strategy without priorities of its own, found "failover"',
      ],
      [
        { name: 'failover', strategy: own('mine', { overprovisioning: 2 }) },
        'strategy.strategy: a strategy without priorities of its own, found an object',
      ],
      [
        { name: 'failover', strategy: { name: 'jump', key: 'ip', whenOut: 'fail' } },
        'strategy.strategy.whenOut: "redistribute" within another strategy, found "fail"',
      ],
      [
        { name: 'failover', strategy: jump({ key: 'ip', whenOut: 'fail' }) },
        'strategy.strategy: "redistribute" within another strategy, found an object',
      ],
    ]
    for (const [strategy, complaint] of rows) {
      expect(complaints(setting({ strategy }))).toEqual([complaint])
      expect(complaints({ pools: { p: setting({ strategy }) } })).toEqual([`pools.p.${complaint}`])
    }
    expect(complaints(setting({ strategy: { name: 'magelv', key: 'ip' } }))).toEqual([
      expect.stringMatching(/^strategy\.name: "maglev", "auto", .*, found "magelv"$/),
    ])
    expect(complaints(setting({ strategy: { name: 'failover', strategy: { name: 'failover' } } }))).toEqual([
      expect.stringMatching(/^strategy\.strategy\.name: (?!.*failover.*found)"auto", .*, found "failover"$/),
    ])
  })

  test.each(HASHING)('%s without a key is refused by its name alone too', (name) => {
    expect(complaints(setting({ strategy: name }))).toEqual([
      `strategy: { name: "${name}", key: … }, with ${KEY} as the key, found "${name}"`,
    ])
  })
})

test('factories and the configuration refuse the same keys and settings', () => {
  const factories = { 'ring-hash': ringHash, maglev, rendezvous, jump } as Readonly<
    Record<string, (options?: unknown) => Strategy>
  >
  const refusedBy = (make: () => unknown): boolean => {
    try {
      make()
      return false
    } catch (error) {
      expect(error).toMatchObject({ name: 'BalancerError', code: 'CONFIG' })
      return true
    }
  }
  for (const [name, make] of Object.entries(factories)) {
    expect(() => make()).toThrow(`${name}: key: expected what to hash: 'call', 'ip', 'path', 'header:NAME'`)
    const good = ['call', 'ip', 'path', 'header:X-User', 'header:hostname', 'cookie:host', verb]
    const bad = [
      undefined,
      null,
      '',
      'header',
      'header:',
      'cookie:a;b',
      'cookie:a=b',
      'query:x',
      'header:host',
      'header:HOST',
      'IP',
      ' ip',
      1,
      {},
    ]
    for (const key of [...good, ...bad]) {
      expect(
        refusedBy(() => make({ key })),
        String(key),
      ).toBe(bad.includes(key as never))
      expect(complaints(setting({ strategy: { name, key } })).length > 0, String(key)).toBe(bad.includes(key as never))
    }
    for (const more of [{ whenOut: 'never' }, { bound: 1 }, { bound: 2, whenOut: 'fail' }, { bound: Infinity }]) {
      expect(
        refusedBy(() => make({ key: 'call', ...more })),
        JSON.stringify(more),
      ).toBe(true)
      expect(complaints(setting({ strategy: { name, key: 'call', ...more } }))).toHaveLength(1)
    }
  }
  for (const size of [1, 4, 65_536, 1.5, 5_000_077]) {
    expect(refusedBy(() => maglev({ key: 'call', size }))).toBe(true)
    expect(complaints(setting({ strategy: { name: 'maglev', key: 'call', size } }))).toHaveLength(1)
  }
})

describe('strategies of your own', () => {
  test('are named by pools, and within failover', () => {
    const mine = own('mine')
    const other = own('other')
    const { pools } = resolve({
      strategies: [mine, other],
      strategy: 'mine',
      pools: {
        a: { backends: [A] },
        b: { backends: [A], strategy: 'other' },
        c: { backends: [A], strategy: { name: 'failover', strategy: 'mine', overprovisioning: 2 } },
        d: { backends: [A], strategy: 'p2c' },
      },
    })
    const [a, b, c, d] = pools.map(({ settings }) => settings.strategy)
    expect(a).toBe(mine)
    expect(b).toBe(other)
    expect(c).toEqual({ name: 'failover', strategy: mine, overprovisioning: 2 })
    expect((c as { strategy: unknown }).strategy).toBe(mine)
    expect(d).toEqual({ name: 'p2c' })
  })

  test('have names of their own, and an unknown one is told the nearest of both kinds', () => {
    expect(complaints(setting({ strategies: [own('a'), own('b'), own('a')] }))).toEqual([
      'strategies[2].name: another name: "a" is the name of strategies[0], found "a"',
    ])
    expect(complaints(setting({ strategies: [own('maglev')] }))).toEqual([
      'strategies[0].name: another name: "maglev" is the name of a built-in strategy, found "maglev"',
    ])
    const nearest = (strategy: string): string => complaints(setting({ strategy, strategies: [own('weekday')] }))[0]!
    expect(nearest('weakday')).toMatch(/^strategy: "weekday", "auto", .* found "weakday"$/)
    expect(nearest('round-robbin')).toMatch(/^strategy: "round-robin", "auto", .*"weekday", such a name/)
    expect(complaints({ pools: { p: setting({ strategy: 'weekday' }) } })).toHaveLength(1)
  })

  test('may have fields of any name: what they hold is their own affair', () => {
    class Mine {
      readonly name = 'mine'
      readonly strategy = 'of my own'
      start = own('mine').start
    }
    for (const strategy of [
      own('mine', { strategy: 'of my own' }),
      own('mine', { strategy: failover(roundRobin()) }),
      own('failover', { strategy: jump({ key: 'ip', whenOut: 'fail' }) }),
      new Mine(),
    ]) {
      expect(complaints(setting({ strategy }))).toEqual([])
      expect(strategyOf({ strategy })).toBe(strategy)
    }
  })

  test('are checked as parts', () => {
    const lines = complaints(setting({ strategies: [{ name: '' }, verb, own('x', { keyOf: 1 })] }))
    expect(lines).toEqual([
      'strategies[0].name: a string that is not empty, found ""',
      'strategies[0].start: a function, found undefined',
      'strategies[1]: a strategy: an object with name, start, found a function',
      'strategies[2].keyOf: a function, found 1',
    ])
    expect(complaints(setting({ strategies: own('x') }))).toEqual([
      'strategies: an array of strategies, found an object',
    ])
    expect(complaints({ pools: { p: setting({ strategies: [] }) } })).toEqual([
      expect.stringMatching(/^pools\.p\.strategies: strategy, found an unknown key$/),
    ])
  })
})

describe('an update', () => {
  /** How often the strategy within was started: each time another object took its place. */
  function counted(): { readonly strategy: Strategy; readonly starts: () => number } {
    let starts = 0
    const { name, start } = roundRobin()
    const strategy: Strategy = {
      name: `counted ${name}`,
      start(core) {
        starts++
        return start(core)
      },
    }
    return { strategy, starts: () => starts }
  }

  test('keeps a strategy whose settings are equal, and starts one whose settings are not', async () => {
    const { strategy, starts } = counted()
    const asked: string[] = []
    const read = (): string => {
      asked.push('old')
      return 'a'
    }
    const options = (settings: object): Parameters<typeof createBalancer>[0] => ({
      backends: [A],
      transport: memory({ '127.0.0.1:3001': {} }),
      strategies: [strategy],
      strategy: { name: 'failover', strategy: 'counted round-robin', ...settings } as StrategySettings,
    })
    const balancer = createBalancer(options({}))
    await balancer.update(options({}))
    await balancer.update({ ...options({}), retry: { attempts: 1 } })
    expect(starts()).toBe(1)
    await balancer.update(options({ overprovisioning: 2 }))
    expect(starts()).toBe(2)

    // Functions are compared by identity: nobody can see into them.
    const keyed = (key: () => string): Parameters<typeof createBalancer>[0] => ({
      ...options({}),
      strategy: { name: 'jump', key },
    })
    await balancer.update(keyed(read))
    await (await balancer.request('/')).body.dump()
    await balancer.update(
      keyed(() => {
        asked.push('new')
        return 'a'
      }),
    )
    await (await balancer.request('/')).body.dump()
    expect(asked).toEqual(['old', 'new'])
    expect(balancer.stats().pools.default!.strategy).toBe('jump')
    await balancer.update({ ...options({}), strategy: 'auto' })
    await (await balancer.request('/')).body.dump()
    expect(asked).toEqual(['old', 'new'])
    await balancer.close()
  })
})
