// whenOut: 'fail': a key has one owner, and nobody takes its place.
import {
  type Backend,
  type BalancerError,
  failover,
  type HashOptions,
  locality,
  maglev,
  rendezvous,
  type Strategy,
  subset,
  zoneWeights,
} from 'evenkeel'
import { manualClock, strategyContract } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import type { LiveCall } from '../src/core/call.ts'
import { callOf } from '../src/testing/kit.ts'
import { balancerBench } from './support/balancer-bench.ts'
import { addresses, hashBench, keys, named, STRATEGIES, TEN } from './support/hashing.ts'
import { status } from './support/plays.ts'
import { bench, endpoint, hard, soft } from './support/pool-bench.ts'

const ALONE: HashOptions = { key: 'call', whenOut: 'fail' }
const KEYS = keys(500)

/** Who is picked for each key, and who is said to be the only one that will do. */
function asked(picker: ReturnType<ReturnType<typeof hashBench>['build']>): readonly (readonly [string, string])[] {
  return KEYS.map((key) => {
    const call = callOf(0, key) as LiveCall
    return [picker(call)?.id ?? 'nobody', call.sole?.id ?? 'nobody']
  })
}

describe.each(STRATEGIES)("%s with whenOut 'fail'", (_, make) => {
  for (const { name, run } of strategyContract(() => keyless(make(ALONE)))) test(name, run)

  test('gives a key to its owner, whoever else is down, and to nobody while the owner is', () => {
    const list = named(TEN)
    const free = hashBench(make()).build(list)
    const before = asked(free).map(([owner]) => owner)
    const work = hashBench(make(ALONE))
    expect(asked(work.build(list))).toEqual(before.map((owner) => [owner, owner]))
    const up = work.build(
      list,
      list.filter((_, i) => i % 3 !== 0),
    )
    const down = new Set(TEN.filter((_, i) => i % 3 === 0))
    expect(asked(up)).toEqual(before.map((owner) => [down.has(owner) ? 'nobody' : owner, owner]))
    expect(before.filter((owner) => down.has(owner)).length).toBeGreaterThan(50)
    const last = work.build(list, [list[1]!])
    expect(asked(last)).toEqual(before.map((owner) => [owner === TEN[1] ? owner : 'nobody', owner]))
    expect(asked(work.build(list, [])).every(([picked]) => picked === 'nobody')).toBe(true)
    expect(asked(work.build(list))).toEqual(before.map((owner) => [owner, owner]))
  })

  test('gives no keys to backends that are configured to get nothing', () => {
    const list = named(TEN, [1, 0, 1, 0])
    const able = list.filter(({ weight }) => weight > 0)
    const owners = asked(hashBench(make(ALONE)).build(list, able))
    for (const [picked, sole] of owners) expect([picked, able.some(({ id }) => id === picked)]).toEqual([sole, true])
  })

  test('knows owners only among the priorities in use', () => {
    const list = named(TEN)
    for (const [i, record] of list.entries()) record.endpoint = { ...record.endpoint, priority: i < 5 ? 0 : 1 }
    const picker = hashBench(make(ALONE)).build(list, list.slice(0, 5))
    const owners = asked(picker)
    expect(owners.every(([picked, sole]) => picked === sole && TEN.indexOf(picked) < 5)).toBe(true)
  })

  test('chooses among all for calls without a key, and binds them to nobody', () => {
    const list = named(TEN)
    const picker = hashBench(make(ALONE)).build(list, list.slice(0, 4))
    const seen = new Set<string>()
    for (let i = 0; i < 500; i++) {
      const call = callOf(0) as LiveCall
      seen.add(picker(call)!.id)
      expect(call.sole).toBeUndefined()
    }
    expect([...seen].sort()).toEqual(TEN.slice(0, 4))
  })

  test('stands within no other strategy', () => {
    for (const around of [
      (inner: Strategy) => failover(inner),
      (inner: Strategy) => locality(inner, { zone: 'a' }),
      (inner: Strategy) => zoneWeights(inner, { weights: { a: 1 } }),
      (inner: Strategy) => subset(inner),
    ]) {
      expect(() => around(make(ALONE))).toThrow(/: inner: expected a strategy without whenOut 'fail', got /)
    }
  })
})

/** The kit wants a walk over all: what calls without a key get. */
function keyless(strategy: Strategy): Strategy {
  return {
    ...strategy,
    start(core) {
      const chooser = strategy.start(core)
      return {
        ...chooser,
        build(members) {
          const pick = chooser.build(members)
          return (call) => pick(callOf(call.nowMs))
        },
      }
    },
  }
}

describe('while a large table is made anew', () => {
  const clock = manualClock()
  let looks = 0
  const work = hashBench(maglev({ ...ALONE, size: 65_537 }), { ...clock, now: () => clock.now() + looks++ })

  test('keys of who has left go to the next in the old one, and keys of who is down to nobody', async () => {
    const list = named(addresses(20))
    const first = asked(work.build(list)).map(([owner]) => owner)
    const left = list.slice(1)
    const picker = work.build(
      left,
      left.filter((_, i) => i !== 4),
    )
    for (const [i, [picked, sole]] of asked(picker).entries()) {
      if (first[i] === list[0]!.id) expect(sole).not.toBe(list[0]!.id)
      else expect(sole).toBe(first[i])
      expect(picked).toBe(sole === list[5]!.id ? 'nobody' : sole)
    }
    for (let i = 0; i < 200; i++) await clock.advance(0)
    const own = hashBench(maglev({ ...ALONE, size: 65_537 })).build(left)
    expect(asked(picker).map(([, sole]) => sole)).toEqual(asked(own).map(([owner]) => owner))
  })
})

describe('when all backends are replaced', () => {
  test('the new table is finished at once: no call fails', async () => {
    const clock = manualClock()
    let looks = 0
    const work = hashBench(maglev({ ...ALONE, size: 65_537 }), { ...clock, now: () => clock.now() + looks++ })
    asked(work.build(named(addresses(20))))
    const others = named(Array.from({ length: 20 }, (_, i) => `10.1.0.${i}:80`))
    const before = asked(work.build(others))
    expect(before.every(([picked, sole]) => picked === sole && picked.startsWith('10.1.'))).toBe(true)
    const own = hashBench(maglev({ ...ALONE, size: 65_537 })).build(others)
    expect(before).toEqual(asked(own))
    expect(clock.pending).toBe(0)
  })

  test('an update to that which is only tried leaves the old one in use', async () => {
    const clock = manualClock()
    let looks = 0
    const work = hashBench(maglev({ ...ALONE, size: 65_537 }), { ...clock, now: () => clock.now() + looks++ })
    const list = named(addresses(20))
    asked(work.build(list))
    const picker = work.build(list.slice(1)) // on its way, served by the first
    const meanwhile = asked(picker)
    work.build(named(Array.from({ length: 20 }, (_, i) => `10.1.0.${i}:80`))) // tried, abandoned
    expect(asked(picker)).toEqual(meanwhile)
    for (let i = 0; i < 200; i++) await clock.advance(0)
    expect(asked(picker)).toEqual(asked(hashBench(maglev({ ...ALONE, size: 65_537 })).build(list.slice(1))))
  })
})

describe('a pool', () => {
  const backends = ['a', 'b', 'c'] as const

  function keyOf(id: string, strategy = rendezvous({ key: 'call' })): string {
    const picker = hashBench(strategy).build(named([...backends]))
    return keys(100).find((key) => picker(callOf(0, key))!.id === id)!
  }

  test('fails calls whose owner is out, with its reason, and takes them again when it is back', () => {
    const { pool, backend, callOf: make } = bench([...backends], { strategy: rendezvous(ALONE) })
    const [mine, other] = [keyOf('a'), keyOf('b')]
    pool.block(backend('a'), hard('operator'))
    expect(pool.pick(make({ key: mine }))).toBeUndefined()
    expect(pool.pick(make({ key: other }))?.id).toBe('b')
    const error = refusal(() => pool.lend(make({ key: mine }), { method: 'GET', path: '/', headers: [], body: null }))
    expect(error.code).toBe('NO_BACKEND')
    expect(error.reasons).toEqual({
      a: [expect.stringContaining('operator')],
      b: ['not meant by this call'],
      c: ['not meant by this call'],
    })
    pool.unblock(backend('a'), 'operator')
    expect(pool.pick(make({ key: mine }))?.id).toBe('a')
  })

  test('says OVERLOADED when the owner is only full, and leaves a gate its word', () => {
    const refusing = { name: 'not c', start: () => ({ gate: gateAgainst('c'), stop: () => {} }) }
    const {
      pool,
      backend,
      callOf: make,
    } = bench([endpoint('a', { maxInflight: 1 }), 'b', 'c'], {
      strategy: rendezvous(ALONE),
      watchers: [refusing],
    })
    backend('a').inflight = 1
    const request = { method: 'GET', path: '/', headers: [], body: null }
    expect(refusal(() => pool.lend(make({ key: keyOf('a') }), request)).code).toBe('OVERLOADED')
    expect(refusal(() => pool.lend(make({ key: keyOf('c') }), request)).code).toBe('NO_BACKEND')
    backend('a').inflight = 0
    expect(pool.pick(make({ key: keyOf('a') }))?.id).toBe('a')
  })

  test('retries stay with the owner, and hedges nobody elsewhere', async () => {
    const it = balancerBench(status(503), {
      strategy: { name: 'rendezvous', key: 'call', whenOut: 'fail' },
      hedge: { delayMs: 1 },
      health: { passive: false },
    })
    const { response } = await it.call({}, { key: keyOf('b') })
    expect([response?.status, it.to()]).toEqual([503, 'bbb'])
    const slow = balancerBench(undefined, {
      strategy: { name: 'rendezvous', key: 'call', whenOut: 'fail' },
      hedge: { delayMs: 1 },
    })
    const { ended } = slow.start({}, { key: keyOf('b') })
    await slow.clock.advance(50)
    expect([slow.to(), slow.balancer.stats().pools.default!.hedges]).toEqual(['b', 0])
    slow.transport.sends[0]!.answer()
    expect((await ended).response?.status).toBe(200)
    await Promise.all([it.balancer.close(), slow.balancer.close()])
  })

  test('the repeat over a new connection keeps to the owner too, and hedges take nothing in vain', async () => {
    const it = balancerBench(undefined, {
      strategy: { name: 'rendezvous', key: 'call', whenOut: 'fail' },
      hedge: { delayMs: 2 },
    })
    const before = it.balancer.stats().pools.default!.budgetLeft
    const { call, ended } = it.start({}, { key: keyOf('b') })
    it.transport.sends[0]!.stale()
    await it.clock.advance(50)
    expect([it.to(), call.sole?.id, it.balancer.stats().pools.default!.hedges]).toEqual(['bb', 'b', 0])
    expect(it.balancer.stats().pools.default!.budgetLeft).toBeGreaterThanOrEqual(before)
    it.transport.sends[1]!.answer()
    expect((await it.until(ended)).response?.status).toBe(200)
    await it.balancer.close()
  })

  test('with redistribution affinity never blocks fail-over: retries walk on in the order of the key', async () => {
    const it = balancerBench(status(503), {
      strategy: { name: 'rendezvous', key: 'call' },
      retry: { attempts: 3 },
      health: { passive: false, cooldown: false },
    })
    const key = keyOf('b')
    for (let i = 0; i < 3; i++) await it.call({}, { key })
    const [first, second, third] = it.to().match(/.../g)!
    expect([...first!].sort().join('')).toBe('abc')
    expect([first![0], second, third]).toEqual(['b', first, first])
    await it.balancer.close()
  })

  test('an update to a strategy that redistributes frees calls at their next pick', async () => {
    const it = bench(['a', 'b'], { strategy: rendezvous(ALONE) })
    const key = keyOf('a')
    const call = it.callOf({ key })
    it.pool.block(it.backend('a'), soft('probe'))
    expect(it.pool.pick(call)).toBeUndefined()
    it.reconfigure({ strategy: rendezvous({ key: 'call' }) }, [endpoint('a'), endpoint('b')])
    expect(it.pool.pick(call)?.id).toBe('b')
  })

  function gateAgainst(id: string): { name: string; admit(backend: Backend): boolean; release(): void } {
    return { name: `not ${id}`, admit: (backend) => backend.id !== id, release: () => {} }
  }
})

function refusal(run: () => unknown): BalancerError {
  try {
    run()
  } catch (error) {
    return error as BalancerError
  }
  throw new Error('nothing was refused')
}
