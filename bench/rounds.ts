/** The middle of several measurements and how far they lie apart. */
export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { median: median || NaN, min: sorted[0] ?? NaN, max: sorted.at(-1) ?? NaN }
}

/** The lower quartile: what it costs while the machine is quiet. */
export function quietOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) / 4)] ?? NaN
}

/** Round by round quotients: what happens to the machine meanwhile happens to both. */
export function ratioOf(values: readonly number[], base: readonly number[]): Spread {
  return spreadOf(values.map((value, round) => value / base[round]!))
}

/**
 * Measures all of them in turn, `rounds` times over (A B C A B C ...), after one unrecorded turn. Every other turn goes
 * backwards, so that nobody always follows the same neighbour.
 */
export async function interleave<Result>(
  measures: readonly (() => Result | Promise<Result>)[],
  rounds: number,
): Promise<readonly (readonly Result[])[]> {
  const results: Result[][] = measures.map(() => [])
  for (let round = -1; round < rounds; round++) {
    const order = [...measures.keys()]
    if (round % 2 === 1) order.reverse()
    for (const at of order) {
      const value = await measures[at]!()
      if (round >= 0) results[at]!.push(value)
    }
  }
  return results
}
