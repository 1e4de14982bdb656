import type { Strategy } from '../../src/core/contracts.ts'
import { p2c } from '../../src/strategies/p2c.ts'
import { byInflight } from '../../src/strategies/prefer.ts'
import { roundRobin } from '../../src/strategies/round-robin.ts'
import { SharedCores, Slots } from './queues.ts'
import { type Result, type Scenario, simulate } from './simulation.ts'
import { exponential, lognormal } from './streams.ts'

const WORK_MS = 10

/** One server of which the mean is known: 70 % busy, work of 10 ms, nothing on the way, no timeout. */
const ALONE: Scenario = {
  clients: 1,
  servers: 1,
  requests: 400_000,
  perMs: 0.7 / WORK_MS,
  rttMs: 0,
  timeoutMs: 0,
  work: (service) => exponential(service, WORK_MS),
  queue: (time) => new Slots(time, 1),
}

/** What theory says of a simulation without a balancer's help: the simulator's own test. */
interface Check {
  readonly name: string
  readonly expected: number
  /** How far off it may be. */
  readonly tolerance: number
  readonly scenario: Scenario
  readonly strategy: () => Strategy
  readonly read: (result: Result) => number
}

const FIRST_COME: Omit<Check, 'name' | 'expected'> = {
  tolerance: 0.03,
  scenario: ALONE,
  strategy: roundRobin,
  read: ({ meanMs }) => meanMs,
}
const SHARED: Omit<Check, 'name' | 'expected'> = {
  ...FIRST_COME,
  scenario: { ...ALONE, queue: (time) => new SharedCores(time, 1) },
}
/** Work over the share of the time that is free: of M/M/1, and of any work where the server is shared. */
const MEAN_MS = WORK_MS / 0.3

const CHECKS: readonly Check[] = [
  { ...FIRST_COME, name: 'M/M/1, mean', expected: MEAN_MS },
  { ...FIRST_COME, name: 'M/M/1, p99', expected: MEAN_MS * Math.log(100), tolerance: 0.05, read: ({ p99 }) => p99 },
  { ...SHARED, name: 'M/M/1-PS, mean', expected: MEAN_MS },
  {
    ...SHARED,
    name: 'M/G/1-PS, lognormal work of sigma 1, mean',
    expected: MEAN_MS,
    scenario: { ...SHARED.scenario, work: (service) => lognormal(service, WORK_MS, 1) },
  },
  {
    ...FIRST_COME,
    name: 'M/D/1, mean (Pollaczek-Khinchine)',
    expected: WORK_MS * (1 + 0.7 / (2 * 0.3)),
    scenario: { ...ALONE, work: () => WORK_MS },
  },
  {
    ...FIRST_COME,
    name: 'supermarket, d = 2, 100 servers 90 % busy, mean (finite n)',
    expected: 26.6,
    tolerance: 0.02,
    scenario: { ...ALONE, servers: 100, perMs: 90 / WORK_MS },
    strategy: () => p2c(byInflight),
  },
]

export interface Checked extends Check {
  readonly found: number
  readonly isRight: boolean
}

/** All of them; with fewer requests the tolerance is so much wider as chance is. */
export async function checked(requests: number = ALONE.requests): Promise<readonly Checked[]> {
  const wider = Math.sqrt(ALONE.requests / requests)
  const all: Checked[] = []
  for (const check of CHECKS) {
    const found = check.read(await simulate({ ...check.scenario, requests }, check.strategy, 1))
    const isRight = Math.abs(found / check.expected - 1) <= check.tolerance * wider
    all.push({ ...check, tolerance: check.tolerance * wider, found, isRight })
  }
  return all
}
