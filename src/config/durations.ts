/** Of one of each, ms. */
const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

export const DURATION_PATTERN = '^\\d{1,15}(\\.\\d{1,9})?(ms|s|m|h)$'
const DURATION = new RegExp(DURATION_PATTERN)

/** '250ms', '1.5s', '5m' or '1h' in ms; undefined for every other text. */
export function durationMs(text: string): number | undefined {
  const unit = DURATION.exec(text)?.[2]
  return unit === undefined ? undefined : Number(text.slice(0, -unit.length)) * UNITS[unit]!
}

/** As a file would say it: 2000 is "2s". */
export function durationText(ms: number): string {
  if (ms % 60_000 === 0) return `${ms / 60_000}m`
  return ms % 1_000 === 0 ? `${ms / 1_000}s` : `${ms}ms`
}
