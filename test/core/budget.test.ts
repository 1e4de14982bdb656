import { manualClock, seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Budget } from '../../src/core/budget.ts'

const FINAGLE = { share: 0.2, perSecond: 10, windowMs: 10_000 }

/** Takes as many repeats as there are. */
function drain(budget: Budget): number {
  let taken = 0
  while (budget.withdraw()) taken++
  return taken
}

describe('the budget', () => {
  test('has 100 repeats when it is cold: 10 per second over 10 s', () => {
    const budget = new Budget(FINAGLE, manualClock())
    expect(budget.left()).toBe(100)
    expect(drain(budget)).toBe(100)
    expect(budget.left()).toBe(0)
  })

  test('gives the reserve back after a window, not sooner', async () => {
    const clock = manualClock()
    const budget = new Budget(FINAGLE, clock)
    drain(budget)
    await clock.advance(8_900)
    expect(budget.withdraw()).toBe(false)
    await clock.advance(1_100)
    expect(drain(budget)).toBe(100)
  })

  test('grows by a fifth of a repeat with each call', () => {
    const clock = manualClock()
    const budget = new Budget({ ...FINAGLE, perSecond: 0 }, clock)
    for (let i = 0; i < 4; i++) budget.deposit(clock.now())
    expect(budget.withdraw()).toBe(false)
    budget.deposit(clock.now())
    expect(budget.withdraw()).toBe(true)
    expect(budget.withdraw()).toBe(false)
  })

  test('allows 0.2 repeats per call and 10 per second while every call fails, within 2 %', async () => {
    for (const perSecond of [20, 100, 1_000]) {
      const clock = manualClock()
      const budget = new Budget(FINAGLE, clock)
      let repeats = 0
      for (let second = 0; second < 60; second++) {
        if (second === 20) repeats = 0 // what was saved up is used up by now
        for (let i = 0; i < perSecond; i++) {
          budget.deposit(clock.now())
          for (let retry = 0; retry < 2; retry++) if (budget.withdraw()) repeats++
        }
        await clock.advance(1_000)
      }
      const want = 40 * (0.2 * perSecond + 10)
      expect(repeats / want, `${perSecond} calls per second`).toBeGreaterThan(0.98)
      expect(repeats / want, `${perSecond} calls per second`).toBeLessThan(1.02)
    }
  })

  test('forgets what is older than the window: saved up in quiet hours fuels no storm', async () => {
    const clock = manualClock()
    const budget = new Budget(FINAGLE, clock)
    for (let i = 0; i < 1_000; i++) budget.deposit(clock.now())
    expect(budget.left()).toBeCloseTo(300, 6)
    await clock.advance(8_900)
    expect(budget.left()).toBeCloseTo(300, 6)
    await clock.advance(1_100)
    expect(budget.left()).toBe(100)
    await clock.advance(3_600_000)
    expect(budget.left()).toBe(100)
  })

  test('is used up for a window by repeats whose deposits have expired, and never says less than 0', async () => {
    const clock = manualClock()
    const budget = new Budget({ ...FINAGLE, share: 0.25 }, clock) // a quarter adds up without rounding
    for (let i = 0; i < 1_000; i++) budget.deposit(clock.now())
    await clock.advance(8_500)
    expect(drain(budget)).toBe(350)
    await clock.advance(1_500)
    expect(budget.left()).toBe(0)
    expect(budget.withdraw()).toBe(false)
    await clock.advance(9_000)
    expect(budget.left()).toBe(100)
  })

  test('refuses everything when it is nothing', () => {
    const budget = new Budget({ share: 0, perSecond: 0, windowMs: 10_000 }, manualClock())
    for (let i = 0; i < 100; i++) budget.deposit(1_000)
    expect(budget.withdraw()).toBe(false)
  })

  test('never gives more in any window than its share and its reserve, nor a negative rest, whatever the traffic', async () => {
    const step = fc.tuple(
      fc.integer({ min: 0, max: 3_000 }),
      fc.integer({ min: 0, max: 40 }),
      fc.integer({ min: 0, max: 60 }),
    )
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 60 }),
        fc.integer({ min: 0, max: 10 ** 6 }),
        async (steps, startMs) => {
          const clock = manualClock(startMs)
          const budget = new Budget(FINAGLE, clock)
          const [deposits, repeats]: [number[], number[]] = [[], []]
          for (const [ms, calls, wanted] of steps) {
            await clock.advance(ms)
            for (let i = 0; i < calls; i++) {
              budget.deposit(clock.now())
              deposits.push(clock.now())
            }
            for (let i = 0; i < wanted; i++) if (budget.withdraw()) repeats.push(clock.now())
            expect(budget.left()).toBeGreaterThanOrEqual(0)
            // Slices of a second: what is 9 s old may be forgotten, what is 10 s old must be.
            const within = (times: readonly number[], windowMs: number): number =>
              times.filter((atMs) => atMs > clock.now() - windowMs).length
            expect(within(repeats, 9_000)).toBeLessThanOrEqual(0.2 * within(deposits, 19_000) + 100 + 1e-6)
          }
        },
      ),
      { numRuns: 200, seed: 8 },
    )
  })

  test('counts by the slice whatever the start: seeds 1 to 20', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = seededRandom(seed)
      const clock = manualClock(random(1_000_000) + 0.5)
      const budget = new Budget({ share: 1, perSecond: 0, windowMs: 777 }, clock)
      budget.deposit(clock.now())
      expect(budget.left()).toBe(1)
      await clock.advance(777 * 0.9 - 1)
      expect(budget.left()).toBe(1)
      await clock.advance(777 * 0.1 + 1)
      expect(budget.left()).toBe(0)
    }
  })
})
