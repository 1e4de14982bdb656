import { type ManualClock, manualClock } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Deadline, Deadlines } from '../../src/core/deadlines.ts'

/** Deadlines over a manual clock, and a log of who expired when. */
function bench(startMs = 1_000): {
  clock: ManualClock
  deadlines: Deadlines
  log: string[]
  named(name: string, expire?: (deadline: Deadline) => void): Deadline
} {
  const clock = manualClock(startMs)
  const deadlines = new Deadlines(clock)
  const log: string[] = []
  return {
    clock,
    deadlines,
    log,
    named(name, expire = () => {}) {
      const deadline = new Deadline(deadlines, () => {
        log.push(`${name} at ${clock.now()}`)
        expire(deadline)
      })
      return deadline
    },
  }
}

describe('deadlines', () => {
  test('expire in the order of their times, each at its own', async () => {
    const { clock, log, named } = bench()
    named('c').set(700, 1_000)
    named('a').set(50, 1_000)
    named('d').set(2_000, 1_000)
    named('b').set(100, 1_000)
    await clock.advance(5_000)
    expect(log).toEqual(['a at 1050', 'b at 1100', 'c at 1700', 'd at 3000'])
  })

  test('of one duration expire in order, though they were counted from different times', async () => {
    const { clock, log, named } = bench()
    named('b').set(100, 1_000)
    named('a').set(100, 980)
    named('c').set(100, 1_000)
    named('first').set(100, 910)
    await clock.advance(200)
    expect(log).toEqual(['first at 1010', 'a at 1080', 'b at 1100', 'c at 1100'])
  })

  test('that lie in the past expire at once, but never within set', async () => {
    const { clock, log, named } = bench()
    named('late').set(100, 500)
    expect(log).toEqual([])
    await clock.advance(0)
    expect(log).toEqual(['late at 1000'])
  })

  test('that are cleared never expire, and may be cleared twice', async () => {
    const { clock, log, named } = bench()
    const [a, b, c] = [named('a'), named('b'), named('c')]
    for (const deadline of [a, b, c]) deadline.set(100, 1_000)
    b.clear()
    b.clear()
    await clock.advance(50)
    a.clear()
    await clock.advance(1_000)
    expect(log).toEqual(['c at 1100'])
  })

  test('that are set again count from then on', async () => {
    const { clock, log, named } = bench()
    const deadline = named('a')
    deadline.set(100, 1_000)
    await clock.advance(90)
    deadline.set(100, clock.now())
    await clock.advance(90)
    expect(log).toEqual([])
    deadline.set(5, clock.now())
    await clock.advance(1_000)
    expect(log).toEqual(['a at 1185'])
  })

  test('set to 0 or less are only cleared', async () => {
    const { clock, log, named } = bench()
    const deadline = named('a')
    for (const ms of [0, -1]) {
      deadline.set(100, 1_000)
      deadline.set(ms, 1_000)
    }
    await clock.advance(1_000)
    expect(log).toEqual([])
    expect(clock.pending).toBe(0)
  })

  test('may set and clear themselves and others as they expire', async () => {
    const { clock, log, named } = bench()
    const victim = named('victim')
    victim.set(100, 1_000)
    const later = named('later')
    let rounds = 0
    const again = named('again', (deadline) => {
      victim.clear()
      if (++rounds < 3) deadline.set(100, clock.now())
      later.set(37, clock.now()) // a duration nobody has used before
    })
    again.set(60, 1_000)
    await clock.advance(2_000)
    expect(log).toEqual([
      'again at 1060',
      'later at 1097',
      'again at 1160',
      'later at 1197',
      'again at 1260',
      'later at 1297',
    ])
    expect(clock.pending).toBe(0)
  })

  test('share one timer, however many and however different they are', async () => {
    const { clock, named } = bench()
    const all = Array.from({ length: 1_000 }, (_, i) => named(`${i}`))
    for (const [i, deadline] of all.entries()) {
      deadline.set(1 + ((i * 7_919) % 3_001), 1_000)
      expect(clock.pending).toBe(1)
    }
    for (let i = 0; i < 40; i++) {
      await clock.advance(100)
      expect(clock.pending).toBeLessThanOrEqual(1)
    }
    expect(clock.pending).toBe(0)
  })

  test('leave no timer 500 ms after the last one is gone', async () => {
    const { clock, log, named } = bench()
    const deadline = named('a')
    deadline.set(300_000, 1_000)
    await clock.advance(12_345)
    deadline.clear()
    await clock.advance(500)
    expect(clock.pending).toBe(0)
    deadline.set(10, clock.now()) // and it starts again
    await clock.advance(10)
    expect(log).toEqual(['a at 13855'])
  })

  test('leave nothing of a duration that is no longer used: one per call must not pile up', async () => {
    const { clock, named } = bench()
    const deadline = named('a')
    deadline.set(123.456, 1_000)
    const kept = deadline.list
    deadline.clear()
    deadline.set(123.456, 1_000)
    expect(deadline.list).toBe(kept)
    deadline.clear()
    await clock.advance(500)
    deadline.set(123.456, clock.now())
    expect(deadline.list).not.toBe(kept)
  })

  test('never expire after close, which leaves no timer', async () => {
    const { clock, deadlines, log, named } = bench()
    named('a').set(100, 1_000)
    deadlines.close()
    expect(clock.pending).toBe(0)
    await clock.advance(1_000)
    expect(log).toEqual([])
  })

  test('do what a naive model does, whatever is set, set again and cleared', async () => {
    const durations = fc.constantFrom(-1, 0, 0.25, 1, 40, 250, 499, 500, 501, 700, 2_000, 30_000)
    const who = fc.nat({ max: 5 })
    const step = fc.oneof(
      fc.record({ do: fc.constant('set' as const), who, ms: durations, agoMs: fc.constantFrom(0, 0, 0, 3, 60, 900) }),
      fc.record({ do: fc.constant('clear' as const), who }),
      fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(0, 1, 39, 100, 250, 500, 1_300) }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
        const clock = manualClock()
        const deadlines = new Deadlines(clock)
        const expired: string[] = []
        const all = Array.from(
          { length: 6 },
          (_, i) => new Deadline(deadlines, () => expired.push(`${i} at ${clock.now()}`)),
        )
        const dueMs = new Map<number, number>()
        const want: string[] = []
        for (const it of steps) {
          if (it.do === 'set') {
            all[it.who]!.set(it.ms, clock.now() - it.agoMs)
            if (it.ms > 0) dueMs.set(it.who, Math.max(clock.now(), clock.now() - it.agoMs + it.ms))
            else dueMs.delete(it.who)
          } else if (it.do === 'clear') {
            all[it.who]!.clear()
            dueMs.delete(it.who)
          } else {
            await clock.advance(it.ms)
            for (const [i, atMs] of dueMs) {
              if (atMs > clock.now()) continue
              want.push(`${i} at ${atMs}`)
              dueMs.delete(i)
            }
          }
          expect(clock.pending).toBeLessThanOrEqual(1)
          if (dueMs.size > 0) expect(clock.pending).toBe(1)
        }
        expect(expired.toSorted()).toEqual(want.toSorted())
        for (const deadline of all) deadline.clear()
        await clock.advance(500)
        expect(clock.pending).toBe(0)
      }),
      { numRuns: 500, seed: 4 },
    )
  })
})
