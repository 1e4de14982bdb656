import { httpDate } from './clock.ts'
import type { Clock, RawHeaders } from './contracts.ts'
import { header } from './headers.ts'

/** In order of precision: the first that can be read counts. OpenAI and Azure send the first two. */
const MS_HEADERS: readonly string[] = ['retry-after-ms', 'x-ms-retry-after-ms']

/**
 * How long an answer asks to be left alone, ms >= 0 (RFC 9110 10.2.3: seconds, or a date); undefined if it does not, or says
 * nothing that can be read, or a time that is over.
 */
export function retryAfterMs(headers: RawHeaders, clock: Clock): number | undefined {
  for (const name of MS_HEADERS) {
    const ms = numberOf(header(headers, name))
    if (ms !== undefined) return ms
  }
  const text = header(headers, 'retry-after')
  const seconds = numberOf(text)
  if (text === undefined || seconds !== undefined) return seconds === undefined ? undefined : seconds * 1000
  // By the same clock that wrote the date, if it tells its time: ours may be wrong.
  const nowMs = httpDate(header(headers, 'date')) ?? clock.wall?.()
  const untilMs = httpDate(text)
  if (untilMs === undefined || nowMs === undefined || untilMs < nowMs) return undefined
  return untilMs - nowMs
}

/** Plain decimals only: neither signs nor exponents, and nothing behind them. */
function numberOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\s*\d{1,12}(\.\d{1,20})?\s*$/.test(text) ? Number(text) : undefined
}
