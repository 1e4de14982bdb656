import { describe, expect, test } from 'vitest'
import { bench, endpoint, endpoints, hard, inTurn, soft } from '../support/pool-bench.ts'
import { textOf } from '../support/scripted.ts'

describe('reasons', () => {
  test('are a set: with two writers, taking one back keeps the backend blocked', () => {
    const { pool, backend, eligible, told } = bench(['a', 'b', 'c'])
    pool.block(backend('a'), soft('probe'))
    pool.block(backend('a'), soft('outlier'))
    expect(eligible()).toBe('b c')
    pool.unblock(backend('a'), 'probe')
    expect(eligible()).toBe('b c')
    pool.unblock(backend('a'), 'outlier')
    expect(eligible()).toBe('a b c')
    expect(told().slice(3)).toEqual(['blocked a', 'blocked a', 'unblocked a', 'unblocked a'])
  })

  test('hold one of each writer: its latest', () => {
    const { pool, backend, eligible } = bench(['a', 'b'])
    pool.block(backend('a'), soft('probe', 2_000))
    pool.block(backend('a'), soft('probe', 9_000))
    expect([...backend('a').reasons.values()]).toEqual([soft('probe', 9_000)])
    pool.unblock(backend('a'), 'probe')
    expect(eligible()).toBe('a b')
  })

  test('that nobody gave cannot be taken back, and nobody is told', () => {
    const { pool, backend, told } = bench(['a'])
    pool.unblock(backend('a'), 'probe')
    expect(told()).toEqual(['added a'])
  })

  test('are told with the events', () => {
    const { pool, backend, events } = bench(['a', 'b'])
    const reason = soft('probe', 5_000)
    pool.block(backend('a'), reason)
    pool.unblock(backend('a'), 'probe')
    expect(events.slice(2)).toEqual([
      ['blocked', backend('a'), reason],
      ['unblocked', backend('a'), reason],
    ])
  })

  test('against a backend that has left are ignored', () => {
    const { pool, backend, told } = bench(['a', 'b'])
    const a = backend('a')
    pool.block(a, soft('probe'))
    pool.apply(endpoints('b'))
    pool.block(a, soft('outlier'))
    pool.unblock(a, 'probe')
    expect(told().slice(2)).toEqual(['blocked a', 'removed a'])
  })
})

describe('panic', () => {
  test('ignores soft reasons when fewer than half are healthy, and ends when they are again', () => {
    const { pool, backend, eligible } = bench(['a', 'b', 'c', 'd'])
    pool.block(backend('a'), soft('probe'))
    pool.block(backend('b'), soft('probe'))
    expect([pool.panic, eligible()]).toEqual([false, 'c d']) // half is enough
    pool.block(backend('c'), soft('probe'))
    expect([pool.panic, eligible()]).toEqual([true, 'a b c d'])
    pool.unblock(backend('a'), 'probe')
    expect([pool.panic, eligible()]).toEqual([false, 'a d'])
  })

  test('never overrides a hard reason, also beside a soft one, nor weight 0', () => {
    const { pool, backend, eligible, met } = bench(['a', 'b', 'c', endpoint('d', { weight: 0 })])
    pool.block(backend('a'), hard('operator'))
    pool.block(backend('b'), soft('probe'))
    pool.block(backend('b'), hard('credential'))
    pool.block(backend('c'), soft('probe'))
    expect([pool.panic, eligible(), met()]).toEqual([true, 'c', 'c'])
    pool.block(backend('c'), hard('operator'))
    expect([pool.panic, eligible(), met()]).toEqual([false, '', 'nobody'])
  })

  test('does not count whom nobody may use: those blocked for good are no sign of a wrong detector', () => {
    const { pool, backend, eligible } = bench(['a', 'b', 'c', 'd'])
    for (const id of ['a', 'b', 'c']) pool.block(backend(id), hard('operator'))
    expect([pool.panic, eligible()]).toEqual([false, 'd'])
  })

  test('is off with panicBelow 0: when everybody is blocked, nobody is picked', () => {
    const { pool, backend, eligible, met } = bench(['a', 'b'], { panicBelow: 0 })
    for (const id of ['a', 'b']) pool.block(backend(id), soft('probe'))
    expect([pool.panic, eligible(), met()]).toEqual([false, '', 'nobody'])
  })

  test('with panicBelow 1 needs everybody to be healthy', () => {
    const { pool, backend, eligible } = bench(['a', 'b', 'c'], { panicBelow: 1 })
    expect(pool.panic).toBe(false)
    pool.block(backend('a'), soft('probe'))
    expect([pool.panic, eligible()]).toEqual([true, 'a b c'])
  })

  test('leaves a pool of one usable', () => {
    const { pool, backend, eligible } = bench(['a'])
    pool.block(backend('a'), soft('outlier'))
    expect([pool.panic, eligible()]).toEqual([true, 'a'])
  })
})

describe('priorities', () => {
  const tiers = [endpoint('a'), endpoint('b'), endpoint('c', { priority: 1 }), endpoint('d', { priority: 2 })]

  test('let a lower tier in only when nobody of the one above is left', () => {
    const { pool, backend, eligible, met } = bench(tiers, { panicBelow: 0 })
    expect(eligible()).toBe('a b')
    pool.block(backend('a'), soft('probe'))
    expect(eligible()).toBe('b')
    pool.block(backend('b'), soft('probe'))
    expect(eligible()).toBe('c')
    pool.weigh(backend('c'), 'operator', 0)
    pool.block(backend('c'), hard('operator'))
    expect([eligible(), met()]).toEqual(['d', 'd'])
    pool.unblock(backend('b'), 'probe')
    expect(eligible()).toBe('b')
  })

  test('come before panic: a healthy tier is used before a failing one above it', () => {
    const { pool, backend, eligible } = bench(['a', 'b', 'c', endpoint('spare', { priority: 1 })])
    for (const id of ['a', 'b', 'c']) pool.block(backend(id), soft('probe'))
    expect(eligible()).toBe('spare')
    pool.block(backend('spare'), soft('probe'))
    expect(eligible()).toBe('a b c') // nobody is healthy anywhere: the first tier it is, then
  })

  test('let panic ignore soft reasons within the tier in use', () => {
    const { pool, backend, eligible } = bench([...tiers.slice(0, 2), endpoint('e'), endpoint('c', { priority: 1 })])
    pool.block(backend('a'), soft('probe'))
    pool.block(backend('b'), soft('probe'))
    expect(eligible()).toContain('e')
    expect(eligible()).not.toContain('c')
  })
})

describe('applying endpoints', () => {
  test('keeps the live record of the same id and URL, with all it has learned', () => {
    const { pool, backend, told } = bench(['a', 'b'])
    const a = backend('a')
    a.latency.observe(50, 1_000)
    a.totals.requests = 7
    pool.block(a, soft('probe'))
    pool.apply([endpoint('b'), endpoint('a', { weight: 3, tags: ['x'] })])
    expect(backend('a')).toBe(a)
    expect(a).toMatchObject({ weight: 3, endpoint: { tags: ['x'] }, removed: false, totals: { requests: 7 } })
    expect(a.latency.read(1_000)).toBe(50)
    expect([...a.reasons.keys()]).toEqual(['probe'])
    expect(pool.records.map(({ id }) => id)).toEqual(['b', 'a'])
    expect(told().slice(2)).toEqual(['blocked a', 'updated a'])
  })

  test('that say the same tells nobody', () => {
    const { pool, told } = bench(['a', 'b'])
    pool.apply(endpoints('a', 'b'))
    expect(told()).toEqual(['added a', 'added b'])
  })

  test('with another URL under the same id removes the one and adds the other', () => {
    const { pool, backend, told, transport, events } = bench(['a', 'b'])
    const old = backend('a')
    pool.apply([endpoint('a', { url: 'http://moved.test' }), endpoint('b')])
    expect(backend('a')).not.toBe(old)
    expect(old.removed).toBe(true)
    expect(told().slice(2)).toEqual(['removed a', 'added a'])
    expect([events[2]![1], events[3]![1]]).toEqual([old, backend('a')])
    expect(transport.forgotten).toEqual(['a'])
  })

  test('forgets who left: never picked again, its requests finish', async () => {
    const { pool, backend, met, send, transport, clock, told } = bench(['a', 'b'], { play: () => {} })
    const a = backend('a')
    const response = send({ prefer: 'a' })
    await clock.advance(0)
    pool.apply(endpoints('b'))
    expect(met({ prefer: 'a' })).toBe('b')
    expect(a).toMatchObject({ removed: true, inflight: 1 })
    transport.sends[0]!.answer(200, 'done')
    expect(await textOf((await response).body)).toBe('done')
    expect([a.inflight, pool.inflight]).toEqual([0, 0])
    expect(transport.forgotten).toEqual(['a'])
    expect(told().slice(2)).toEqual(['removed a', 'attempt'])
  })

  test('gives a backend that comes back a new record', () => {
    const { pool, backend } = bench(['a', 'b'])
    const first = backend('a')
    pool.block(first, soft('probe'))
    pool.apply(endpoints('b'))
    pool.apply(endpoints('a', 'b'))
    expect(backend('a')).not.toBe(first)
    expect(backend('a').reasons.size).toBe(0)
  })

  test('may leave nobody, and somebody again', () => {
    const { pool, met } = bench(['a'])
    pool.apply([])
    expect(met()).toBe('nobody')
    pool.apply(endpoints('b'))
    expect(met()).toBe('b')
  })

  test('shows parts frozen snapshots in the order of the configuration, and never edits one', () => {
    const strategy = inTurn()
    const { pool, backend } = bench(['b', 'a'], { strategy })
    const before = pool.members
    pool.block(backend('a'), soft('probe'))
    expect(before.eligible.map(({ id }) => id)).toEqual(['b', 'a'])
    for (const members of [...strategy.built, before, pool.members]) {
      for (const it of [members, members.all, members.eligible]) expect(Object.isFrozen(it)).toBe(true)
    }
    expect(strategy.core().members()).toBe(pool.members)
  })

  test('starts newcomers at the median latency of the healthy ones, known or not', () => {
    const { pool, backend, clock } = bench(['a', 'b', 'c', 'd', 'e'])
    for (const [id, ms] of [
      ['a', 10],
      ['b', 500],
      ['c', 30],
      ['d', 9_000],
    ] as const) {
      backend(id).latency.observe(ms, clock.now())
    }
    pool.block(backend('d'), soft('outlier')) // what it was slow at says nothing
    pool.apply(endpoints('a', 'b', 'c', 'd', 'e', 'new'))
    expect(backend('new').latency.read(clock.now())).toBeCloseTo(30, 9)
    expect(backend('e').latency.known).toBe(false)
  })

  test('leaves newcomers unknown while nobody is known', () => {
    const { pool, backend } = bench(['a'])
    pool.apply(endpoints('a', 'b'))
    expect(backend('b').latency.known).toBe(false)
  })

  test('lets a backend come back as one of its peers, not as the worst', () => {
    const { pool, backend, clock } = bench(['a', 'b', 'c'])
    for (const [id, ms] of [
      ['a', 20],
      ['b', 40],
      ['c', 1_000],
    ] as const) {
      backend(id).latency.observe(ms, clock.now())
    }
    pool.block(backend('c'), soft('outlier'))
    pool.block(backend('c'), soft('probe'))
    pool.unblock(backend('c'), 'probe')
    expect(backend('c').latency.read(clock.now())).toBe(1_000)
    pool.unblock(backend('c'), 'outlier')
    expect(backend('c').latency.read(clock.now())).toBeCloseTo(40, 9)
  })
})

describe('weighing', () => {
  test('multiplies the factors of all writers, and 1 takes one back', async () => {
    const { pool, backend, clock } = bench([endpoint('a', { weight: 8 }), 'b'])
    pool.weigh(backend('a'), 'slow start', 0.5)
    pool.weigh(backend('a'), 'headroom', 0.25)
    await clock.advance(100)
    expect(backend('a').weight).toBe(1)
    pool.weigh(backend('a'), 'headroom', 1)
    await clock.advance(100)
    expect(backend('a').weight).toBe(4)
    expect(backend('a').factors.size).toBe(1)
  })

  test('with 0 takes a backend out, and it comes back', async () => {
    const { pool, backend, clock, eligible } = bench(['a', 'b'])
    await clock.advance(100)
    pool.weigh(backend('a'), 'slow start', 0)
    expect(eligible()).toBe('b')
    await clock.advance(100)
    pool.weigh(backend('a'), 'slow start', 0.1)
    expect(eligible()).toBe('a b')
  })

  test('is published ten times a second at most, the last of it within 100 ms, and leaves no timer', async () => {
    const strategy = inTurn()
    const { pool, backend, clock } = bench(['a', 'b', 'c'], { strategy })
    await clock.advance(1_000)
    const before = strategy.built.length
    for (let step = 1; step <= 1_000; step++) {
      pool.weigh(backend('abc'[step % 3]!), 'ramp', step / 1_001)
      expect(clock.pending).toBeLessThanOrEqual(1)
      await clock.advance(1)
    }
    const builds = strategy.built.length - before
    expect(builds).toBeGreaterThanOrEqual(10)
    expect(builds).toBeLessThanOrEqual(11)
    await clock.advance(100)
    expect(strategy.built.length - before).toBeLessThanOrEqual(12)
    expect(clock.pending).toBe(0)
  })

  test('the same again changes nothing and publishes nothing', async () => {
    const strategy = inTurn()
    const { pool, backend, clock } = bench(['a'], { strategy })
    await clock.advance(1_000)
    pool.weigh(backend('a'), 'ramp', 0.5)
    const built = strategy.built.length
    await clock.advance(1_000)
    pool.weigh(backend('a'), 'ramp', 0.5)
    pool.weigh(backend('a'), 'other', 1)
    expect(strategy.built.length).toBe(built)
  })

  test('that waits is published with the next change of any kind, once', async () => {
    const strategy = inTurn()
    const { pool, backend, clock } = bench(['a', 'b'], { strategy })
    pool.weigh(backend('a'), 'ramp', 0.5)
    expect(clock.pending).toBe(1)
    const before = strategy.built.length
    pool.block(backend('b'), soft('probe'))
    expect([strategy.built.length - before, clock.pending]).toEqual([1, 0])
    await clock.advance(1_000)
    expect(strategy.built.length - before).toBe(1)
  })

  test('leaves no timer after close', () => {
    const { pool, backend, clock } = bench(['a'])
    pool.weigh(backend('a'), 'ramp', 0.5)
    pool.close()
    expect(clock.pending).toBe(0)
  })
})
