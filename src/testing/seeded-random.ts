import type { Random } from '../core/contracts.ts'
import { randomFrom, sfc32 } from '../core/random.ts'

/** Chance that repeats itself: sfc32 from a seed. */
export function seededRandom(seed: number): Random {
  return randomFrom(sfc32(seed))
}
