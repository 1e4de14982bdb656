import { describe, expect, test } from 'vitest'
import { MAX_DELAY_MS, systemClock } from '../../src/core/clock.ts'

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

describe('the system clock', () => {
  test('never goes back', () => {
    let last = systemClock.now()
    for (let i = 0; i < 10_000; i++) {
      const now = systemClock.now()
      expect(now).toBeGreaterThanOrEqual(last)
      last = now
    }
  })

  test('runs a timer once, or never when it was stopped, which may be twice', async () => {
    const log: string[] = []
    systemClock.after(1, () => void log.push('runs'))
    const stop = systemClock.after(1, () => void log.push('stopped'))
    stop()
    stop()
    await pause(30)
    expect(log).toEqual(['runs'])
  })

  test('never runs a timer too early that is longer than the platform allows', async () => {
    let runs = 0
    const stops = [MAX_DELAY_MS, MAX_DELAY_MS + 1, 1e15, Infinity].map((ms) => systemClock.after(ms, () => runs++))
    await pause(30)
    expect(runs).toBe(0)
    for (const stop of stops) stop()
  })

  test('takes a time in the past for now', async () => {
    let runs = 0
    systemClock.after(-5, () => runs++)
    await pause(30)
    expect(runs).toBe(1)
  })
})
