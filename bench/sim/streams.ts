import type { Random } from '../../src/core/contracts.ts'
import { randomFrom, sfc32 } from '../../src/core/random.ts'

/** A number in [0, 1). */
export type Stream = () => number

/**
 * The sources of chance of one run. Each has its own: another strategy meets the same arrivals, the same work, the same faults.
 */
export interface Streams {
  readonly arrivals: Stream
  readonly service: Stream
  readonly clients: Stream
  readonly keys: Stream
  readonly environment: Stream
  /** One per client: all that the library draws. */
  policy(client: number): Random
}

export function streams(seed: number): Streams {
  return {
    arrivals: stream(seed, 1),
    service: stream(seed, 2),
    clients: stream(seed, 3),
    keys: stream(seed, 0),
    environment: stream(seed, 4),
    policy: (client) => randomFrom(sfc32(seedOf(seed, 5 + client))),
  }
}

/** With this mean. */
export function exponential(stream: Stream, mean: number): number {
  return -mean * Math.log(1 - stream())
}

/** With this mean; `sigma` is the standard deviation of its logarithm. */
export function lognormal(stream: Stream, mean: number, sigma: number): number {
  const normal = Math.sqrt(-2 * Math.log(1 - stream())) * Math.cos(2 * Math.PI * stream())
  return mean * Math.exp(sigma * normal - (sigma * sigma) / 2)
}

/** 53 random bits. */
function stream(seed: number, number: number): Stream {
  const next = sfc32(seedOf(seed, number))
  return () => ((next() >>> 0) * 2 ** 21 + (next() >>> 11)) / 2 ** 53
}

function seedOf(seed: number, number: number): number {
  return Math.imul(seed, 1_000_003) + number
}
