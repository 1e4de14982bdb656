import type { Backend, Picker } from 'evenkeel'
import { type ManualClock, manualClock } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { byKey } from '../src/strategies/by-key.ts'
import { maglev, tableOf } from '../src/strategies/maglev.ts'
import { ringHash } from '../src/strategies/ring-hash.ts'
import { addresses, type HashBench, hashBench, keys, named, ownersOf, pickOf } from './support/hashing.ts'
import { hard, type PoolBench, bench as poolBench, soft } from './support/pool-bench.ts'

const KEYS = keys(500)
/** A prime with some 2 portions of work. */
const SMALL = 1_009

interface SlowBench extends HashBench {
  readonly clock: ManualClock
  /** Tables begun and finished. */
  readonly made: { begun: number; finished: number }
  /** Runs so many slices. */
  slices(n: number): Promise<void>
  /** Who would have the keys on a table of their own. */
  meant(all: readonly Backend[]): string[]
}

/** Maglev by a clock that moves 1 ms at each look at it: a slice is as good as nothing. */
function slowBench(): SlowBench {
  const clock = manualClock()
  let looks = 0
  const made = { begun: 0, finished: 0 }
  const strategy = byKey(
    { name: 'slow' },
    function* (members) {
      made.begun++
      const order = yield* tableOf(members, SMALL)
      for (let i = 0; i < 9; i++) yield
      made.finished++
      return order
    },
    undefined,
  )
  const bench = hashBench(strategy, { ...clock, now: () => clock.now() + looks++ })
  return {
    ...bench,
    clock,
    made,
    async slices(n) {
      for (let i = 0; i < n; i++) await clock.advance(0)
    },
    meant: (all) => ownersOf(hashBench(maglev({ key: 'call', size: SMALL })).build(all), KEYS),
  }
}

function using(picker: Picker): string[] {
  return ownersOf(picker, KEYS)
}

describe('a table', () => {
  test('is made once and serves every state of health', () => {
    const { build, made } = slowBench()
    const list = named(addresses(10))
    build(list)
    for (let down = 0; down < 10; down++) {
      build(
        list,
        list.filter((_, i) => i !== down),
      )
    }
    build(list, [])
    build(list)
    expect(made).toEqual({ begun: 1, finished: 1 })
  })

  test('is not made anew by weights that change for a while, but by configured ones', () => {
    const { build, made } = slowBench()
    const list = named(addresses(3))
    const before = using(build(list))
    list[0]!.factors.set('slow-start', 0.1)
    list[0]!.reweigh()
    expect(using(build(list))).toEqual(before)
    expect(made.begun).toBe(1)
    list[0]!.endpoint = { ...list[0]!.endpoint, weight: 5 }
    list[0]!.reweigh()
    build(list)
    expect(made.begun).toBe(2)
  })

  test('of more work than a slice is made off the request path, while the old one serves', async () => {
    const { build, made, meant, clock, slices } = slowBench()
    const list = named(addresses(10))
    const before = using(build(list))
    expect(before).toEqual(meant(list))
    const fewer = list.slice(1)
    const picker = build(fewer)
    expect(made).toEqual({ begun: 2, finished: 1 })
    expect(clock.pending).toBe(1)
    const between = using(picker)
    for (const [i, owner] of between.entries()) {
      if (before[i] === list[0]!.id) expect(owner).not.toBe(before[i])
      else expect(owner).toBe(before[i])
    }
    for (let i = 0; made.finished < 2; i++) {
      expect(i).toBeLessThan(20)
      expect(using(picker)).toEqual(between)
      await slices(1)
    }
    expect(using(picker)).toEqual(meant(fewer))
    expect(clock.pending).toBe(0)
  })

  test('that is on its way serves the states of health that come meanwhile', async () => {
    const { build, made, meant, slices } = slowBench()
    const list = named(addresses(10))
    using(build(list))
    const more = named(addresses(11))
    build(more)
    using(build(more, more.slice(1)))
    const picker = build(more)
    using(picker)
    await slices(20)
    expect(using(picker)).toEqual(meant(more))
    expect(made).toEqual({ begun: 2, finished: 2 })
  })

  test('of an update that was tried and not made disturbs nobody', async () => {
    const { build, meant, made, clock, slices } = slowBench()
    const list = named(addresses(10))
    const picker = build(list)
    using(picker)
    build(list.slice(3)) // tried, abandoned
    await slices(20)
    expect(using(picker)).toEqual(meant(list))
    const { begun } = made
    expect(using(build(list, list.slice(1))).includes(list[0]!.id)).toBe(false)
    expect(using(build(list))).toEqual(meant(list))
    expect(made.begun).toBe(begun)
    expect(clock.pending).toBe(0)
  })

  test('is finished for the picker in use, though another update was tried meanwhile', async () => {
    const { build, meant, slices } = slowBench()
    const list = named(addresses(10))
    using(build(list))
    const picker = build(list.slice(1))
    using(picker)
    build(list.slice(5)) // tried, abandoned
    await slices(40)
    expect(using(picker)).toEqual(meant(list.slice(1)))
  })

  test('is finished now and then, though changes come faster than tables are made', async () => {
    const { build, made, meant, clock, slices } = slowBench()
    const list = named(addresses(40))
    let picker = build(list)
    for (let i = 1; i <= 30; i++) {
      using(picker)
      picker = build(list.slice(i))
      expect(clock.pending).toBe(1)
      await slices(1)
    }
    expect(made.finished).toBeGreaterThan(4)
    using(picker)
    await slices(40)
    expect(using(picker)).toEqual(meant(list.slice(30)))
    expect(clock.pending).toBe(0)
  })

  test('that leads to nobody who is left still gives each key one backend', async () => {
    const { build, meant, slices } = slowBench()
    using(build(named(['a', 'b'])))
    const others = named(['c', 'd', 'e'])
    const picker = build(others)
    const owners = using(picker)
    expect(new Set(owners)).toEqual(new Set(['c', 'd', 'e']))
    expect(using(picker)).toEqual(owners)
    expect(new Set([0, 1, 2].map((picks) => pickOf(picker, 'a key', picks))).size).toBe(3)
    await slices(20)
    expect(using(picker)).toEqual(meant(others))
  })

  test('that is the first and large is made in slices too; meanwhile each key has one backend', async () => {
    const clock = manualClock()
    const list = named(addresses(4_000))
    const picker = hashBench(ringHash({ key: 'call' }), clock).build(list)
    expect(clock.pending).toBe(1)
    const meanwhile = using(picker)
    expect(new Set(meanwhile).size).toBeGreaterThan(400)
    expect(using(picker)).toEqual(meanwhile)
    await clock.advance(0)
    expect(clock.pending).toBe(0)
    expect(using(picker)).not.toEqual(meanwhile)
  })
})

describe('a pool by ring hash', () => {
  const request = { method: 'GET', path: '/', headers: [], body: null }
  const rigged = (): { rig: PoolBench; pick: (key: string) => string } => {
    const rig = poolBench(['a', 'b', 'c', 'd'], { strategy: ringHash({ key: 'call' }) })
    return { rig, pick: (key) => rig.pool.pick(rig.callOf({ key }))!.id }
  }

  test('moves the keys of a blocked backend and no others, and gives them back', () => {
    const { rig, pick } = rigged()
    const before = KEYS.map(pick)
    rig.pool.block(rig.backend('b'), soft('probe'))
    const during = KEYS.map(pick)
    expect(during).not.toContain('b')
    for (const [i, owner] of before.entries()) if (owner !== 'b') expect(during[i]).toBe(owner)
    rig.pool.unblock(rig.backend('b'), 'probe')
    expect(KEYS.map(pick)).toEqual(before)
  })

  test('sends every repeat to the next in the order of the key, whoever makes it', () => {
    const orders = [rigged(), rigged()].map(({ rig }) =>
      KEYS.slice(0, 50).map((key) => {
        const call = rig.callOf({ key })
        return [1, 2, 3, 4].map(() => rig.pool.lend(call, request).backend.id).join('')
      }),
    )
    for (const order of orders[0]!) expect([...order].sort().join('')).toBe('abcd')
    expect(orders[1]).toEqual(orders[0])
  })

  test('passes over who is full, to the next in the order of the key', () => {
    const { rig, pick } = rigged()
    const owner = pick('a key')
    rig.pool.limit(rig.backend(owner), 'test', 1)
    const order = [rig.callOf({ key: 'a key' }), rig.callOf({ key: 'a key' })].map(
      (call) => rig.pool.lend(call, request).backend.id,
    )
    expect(order[0]).toBe(owner)
    expect(order[1]).not.toBe(owner)
    expect(Array.from({ length: 10 }, () => pick('a key'))).toEqual(Array(10).fill(order[1]))
  })

  test('picks nobody when everybody is blocked for good', () => {
    const { rig } = rigged()
    for (const record of rig.pool.records) rig.pool.block(record, hard('operator'))
    expect(rig.pool.pick(rig.callOf({ key: 'a key' }))).toBeUndefined()
  })
})
