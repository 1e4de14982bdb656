import type { ResolvedSettings } from '../core/resolved.ts'

type Passive = Exclude<ResolvedSettings['health']['passive'], false>
type SuccessRate = Exclude<Passive['successRate'], false>
type FailureShare = Exclude<Passive['failureShare'], false>

/**
 * And by at least so much: with nearly equal rates a few deviations are nothing, and chance would eject the healthy. Envoy has no
 * such floor; by its rule alone one of ten equal backends with 0.1 % failures stands out in half of all intervals (simulated).
 */
const LEAST_GAP = 0.05

/** What one backend did in an interval. */
export interface Tally {
  readonly requests: number
  readonly failures: number
}

/** Somebody who stands out, and why, in words. */
export type Found<T extends Tally> = readonly [tally: T, detail: string]

/** Everybody whom the statistics find, the worst first of each: a cap on ejections then spares the better ones. */
export function standOut<T extends Tally>(
  tallies: readonly T[],
  { successRate, failureShare }: Pick<Passive, 'successRate' | 'failureShare'>,
): readonly Found<T>[] {
  return [
    ...(successRate === false ? [] : farBelow(tallies, successRate)),
    ...(failureShare === false ? [] : failing(tallies, failureShare)),
  ]
}

/** Whose success rate is below the mean by more than so many standard deviations, those of the population. */
function farBelow<T extends Tally>(tallies: readonly T[], settings: SuccessRate): readonly Found<T>[] {
  const known = enough(tallies, settings)
  const rates = known.map(rateOf)
  // Seen from one of them: equal rates then have exactly their own mean, and none of them is below it by rounding.
  const from = rates[0] ?? 0
  const mean = from + average(rates.map((rate) => rate - from))
  const deviation = Math.sqrt(average(rates.map((rate) => (rate - mean) ** 2)))
  const least = mean - Math.max(settings.deviations * deviation, LEAST_GAP)
  const why = `is below ${percent(least)} (mean ${percent(mean)}, ${settings.deviations} deviations)`
  return known
    .filter((tally) => rateOf(tally) < least)
    .map((tally) => [tally, `success rate ${percent(rateOf(tally))} ${why}`])
}

/** Who fails at least so large a share of its requests. */
function failing<T extends Tally>(tallies: readonly T[], settings: FailureShare): readonly Found<T>[] {
  return enough(tallies, settings)
    .filter(({ requests, failures }) => failures / requests >= settings.share)
    .map((tally) => {
      const share = percent(tally.failures / tally.requests)
      return [tally, `${share} of ${tally.requests} requests failed, ${percent(settings.share)} is too much`]
    })
}

/** Those with enough requests, the worst first, if they are enough themselves. */
function enough<T extends Tally>(
  tallies: readonly T[],
  { minRequests, minBackends }: Pick<SuccessRate, 'minRequests' | 'minBackends'>,
): readonly T[] {
  const known = tallies.filter(({ requests }) => requests >= minRequests)
  return known.length >= minBackends ? known.sort((a, b) => rateOf(a) - rateOf(b)) : []
}

function rateOf({ requests, failures }: Tally): number {
  return 1 - failures / requests
}

function average(numbers: readonly number[]): number {
  return numbers.reduce((sum, n) => sum + n, 0) / numbers.length
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`
}
