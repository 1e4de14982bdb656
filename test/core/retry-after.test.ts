import { manualClock } from 'evenkeel/testing'
import { afterEach, describe, expect, test } from 'vitest'
import { httpDate } from '../../src/core/clock.ts'
import type { Clock, RawHeaders } from '../../src/core/contracts.ts'
import { retryAfterMs } from '../../src/core/retry-after.ts'

const NOON = Date.UTC(2026, 0, 8, 12)
const noon: Clock = Object.assign(manualClock(), { wall: () => NOON })

const FORMS = {
  'IMF-fixdate': 'Thu, 08 Jan 2026 12:00:30 GMT',
  'RFC 850': 'Thursday, 08-Jan-26 12:00:30 GMT',
  asctime: 'Thu Jan  8 12:00:30 2026',
} as const

function said(...headers: RawHeaders): number | undefined {
  return retryAfterMs(headers, noon)
}

const zone = process.env.TZ
afterEach(() => {
  if (zone === undefined) delete process.env.TZ
  else process.env.TZ = zone
})

describe('Retry-After', () => {
  test('in seconds is told in ms, whatever the case of its name and the type of its value', () => {
    expect(said('Retry-After', '120')).toBe(120_000)
    expect(said('RETRY-AFTER', Buffer.from('7'))).toBe(7_000)
    expect(said('x', 'y', 'retry-after', ' 3 ')).toBe(3_000)
    expect(said('retry-after', '0')).toBe(0)
  })

  test('may have decimals, as many as a float is printed with', () => {
    expect(said('retry-after', '1.5')).toBe(1_500)
    expect(said('retry-after', '0.001')).toBeCloseTo(1, 9)
    expect(said('retry-after', '59.99999976158142')).toBeCloseTo(60_000, 0)
  })

  test('may be any of the three forms of a date, by our clock if the answer does not tell its own', () => {
    for (const [form, text] of Object.entries(FORMS)) expect(said('retry-after', text), form).toBe(30_000)
  })

  test('as a date is measured by the answer’s own Date, however wrong ours is', () => {
    const wrong: Clock = Object.assign(manualClock(), { wall: () => NOON + 86_400_000 })
    for (const [form, text] of Object.entries(FORMS)) {
      for (const date of ['Thu, 08 Jan 2026 12:00:10 GMT', 'Thursday, 08-Jan-26 12:00:10 GMT']) {
        expect(retryAfterMs(['date', date, 'retry-after', text], wrong), form).toBe(20_000)
      }
    }
  })

  test('as a date says nothing to a clock without a wall, unless the answer has a Date', () => {
    const retryAfter = ['retry-after', FORMS['IMF-fixdate']]
    expect(retryAfterMs(retryAfter, manualClock())).toBeUndefined()
    expect(retryAfterMs([...retryAfter, 'date', 'yesterday'], manualClock())).toBeUndefined()
    expect(retryAfterMs([...retryAfter, 'date', 'Thu, 08 Jan 2026 12:00:29 GMT'], manualClock())).toBe(1_000)
    expect(retryAfterMs([...retryAfter, 'date', 'yesterday'], noon)).toBe(30_000)
  })

  test('as a date that is over says nothing, as the present moment it says 0', () => {
    expect(said('retry-after', 'Thu, 08 Jan 2026 11:59:59 GMT')).toBeUndefined()
    expect(said('retry-after', 'Thu, 08 Jan 2026 12:00:00 GMT')).toBe(0)
    expect(said('retry-after', FORMS.asctime, 'date', 'Thu, 08 Jan 2026 12:00:31 GMT')).toBeUndefined()
  })

  test('that is no time says nothing', () => {
    for (const text of [
      ...['', ' ', '-1', '+1', '-0', '1e3', '0x10', '1,5', '1.', '.5', '1 2', '5s', 'soon', 'NaN', 'Infinity', '١'],
      ...['2026-01-08T12:00:30Z', 'Thu, 08 Jan 2026 12:00:30', 'Thu, 08 Jan 2026 12:00:30 +0100', '08 Jan 2026'],
      ...['Thu, 99 Jan 2026 12:00:30 GMT', 'Thu, 08 Foo 2026 12:00:30 GMT', 'Thu, 08 Jan 2026 99:99:99 GMT'],
      ...['Thu, 08 Jan 2026 12:00:30 GMT (really)', '9'.repeat(400), `1.${'0'.repeat(100)}`],
    ]) {
      expect(said('retry-after', text), JSON.stringify(text)).toBeUndefined()
    }
  })

  test('may be huge: how much of it is believed is for others to say', () => {
    expect(said('retry-after', '999999999999')).toBe(999_999_999_999_000)
    expect(said('retry-after', 'Fri, 31 Dec 9999 23:59:59 GMT')).toBeGreaterThan(1e14)
  })

  test('is not there: nothing is said', () => {
    expect(said()).toBeUndefined()
    expect(said('x-retry-after', '1', 'retry', '2')).toBeUndefined()
  })
})

describe('the headers in ms', () => {
  test('count before Retry-After, the shorter name first', () => {
    expect(said('retry-after', '9', 'x-ms-retry-after-ms', '250')).toBe(250)
    expect(said('x-ms-retry-after-ms', '250', 'Retry-After-Ms', '40.5')).toBe(40.5)
    expect(said('retry-after-ms', '0', 'retry-after', '9')).toBe(0)
  })

  test('that cannot be read leave it to the next one', () => {
    expect(said('retry-after-ms', '-5', 'x-ms-retry-after-ms', '250', 'retry-after', '9')).toBe(250)
    expect(said('retry-after-ms', 'soon', 'x-ms-retry-after-ms', '1e3', 'retry-after', '9')).toBe(9_000)
    expect(said('retry-after-ms', FORMS.asctime, 'retry-after', 'never')).toBeUndefined()
  })
})

describe('a date', () => {
  test('is GMT in every form, wherever this process is', () => {
    for (const place of ['America/New_York', 'Asia/Kolkata', 'UTC']) {
      process.env.TZ = place
      for (const text of Object.values(FORMS)) expect(httpDate(text), `${text} in ${place}`).toBe(NOON + 30_000)
    }
  })

  test('may have the longest and the shortest name of a day', () => {
    expect(httpDate('Wednesday, 07-Jan-26 00:00:00 GMT')).toBe(Date.UTC(2026, 0, 7))
    expect(httpDate('Friday, 09-Jan-26 00:00:00 GMT')).toBe(Date.UTC(2026, 0, 9))
    expect(httpDate('Sun Nov 16 08:49:37 1994')).toBe(Date.UTC(1994, 10, 16, 8, 49, 37))
    expect(httpDate(undefined)).toBeUndefined()
  })
})
