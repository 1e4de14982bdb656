import type { Random } from './contracts.ts'

/**
 * sfc32 (Chris Doty-Humphrey's small fast counting generator), seeded through splitmix32. The state lives in a typed
 * array, so that no pick allocates a heap number, as `Math.random()` does.
 */
export function sfc32(seed: number): () => number {
  const state = new Int32Array(4)
  let mix = seed | 0
  for (let i = 0; i < 3; i++) {
    mix = (mix + 0x9e3779b9) | 0
    let x = mix ^ (mix >>> 16)
    x = Math.imul(x, 0x21f0aaad)
    x ^= x >>> 15
    x = Math.imul(x, 0x735a2d97)
    state[i] = x ^ (x >>> 15)
  }
  state[3] = 1
  const next = (): number => {
    const a = state[0]!
    const b = state[1]!
    const c = state[2]!
    const counter = state[3]!
    const sum = (((a + b) | 0) + counter) | 0
    state[3] = counter + 1
    state[0] = b ^ (b >>> 9)
    state[1] = (c + (c << 3)) | 0
    state[2] = (((c << 21) | (c >>> 11)) + sum) | 0
    return sum
  }
  for (let i = 0; i < 12; i++) next() // the generator's customary warm-up
  return next
}

/** Whole numbers by multiplication instead of a remainder: no bias worth naming below 2^30. */
export function randomFrom(next: () => number): Random {
  return (below) => ((next() >>> 0) * (below / 4_294_967_296)) | 0
}

/** The default source of chance: its own state per balancer, seeded once from the platform. */
export function systemRandom(): Random {
  return randomFrom(sfc32(Math.random() * 4_294_967_296))
}

/** Jitter is drawn in this many steps. */
const JITTER_STEPS = 1_000

/** A time shifted by up to `share` of it, either way, ms: many clients must not do the same thing at the same moment. */
export function jittered(ms: number, share: number, random: Random): number {
  return ms * (1 - share + (2 * share * random(JITTER_STEPS + 1)) / JITTER_STEPS)
}
