import { DEFAULTS } from '../../src/config/defaults.ts'
import type { Policy, Watcher } from '../../src/core/contracts.ts'
import { cooldown } from '../../src/health/cooldown.ts'
import { outlier } from '../../src/health/outlier.ts'
import { slowStart } from '../../src/health/slow-start.ts'
import { circuitBreaker } from '../../src/policies/breaker.ts'
import { retry } from '../../src/policies/retry.ts'
import { SharedCores, Slots } from './queues.ts'
import type { Scenario, World } from './simulation.ts'
import { exponential, lognormal } from './streams.ts'

/** A row of the table; how many requests is said when it is run. */
export interface Row extends Omit<Scenario, 'requests'> {
  readonly name: string
  readonly about: string
  /** Strategies that are left out: a pick of theirs costs more with every backend. */
  readonly without?: readonly string[]
}

const CORES = 2
const WORK_MS = 20

/** The row that all others differ from: 100 servers of two cores each, 70 % busy. */
const BASE: Row = {
  name: 'A',
  about: 'all alike, 70 % busy',
  clients: 1,
  servers: 100,
  perMs: busy(0.7, 100 * CORES),
  rttMs: 1,
  timeoutMs: 1_000,
  work: (service) => exponential(service, WORK_MS),
  queue: (time) => new SharedCores(time, CORES),
}

/** Arrivals per ms that keep this share of so many cores busy. */
function busy(share: number, cores: number): number {
  return (share * cores) / WORK_MS
}

/** The parts as they are by default, unless somebody says otherwise. */
const { passive, slowStart: ramp, cooldown: rests } = DEFAULTS.health
const ejection = (): readonly Watcher[] => (passive === false ? [] : [outlier({ ...passive, panic: true })])
const breaker = (): readonly Watcher[] => [circuitBreaker()]
const shipped = (): readonly Watcher[] => [
  ...ejection(),
  ...(rests === false ? [] : [cooldown(rests)]),
  ...(ramp === false ? [] : [slowStart(ramp)]),
]
const retries: readonly Policy[] = [retry(DEFAULTS.retry)]

const FEW: Row = { ...BASE, servers: 20, perMs: busy(0.7, 20 * CORES) }

const HIGH: Row = { ...BASE, name: "A'", about: 'as A, 90 % busy', perMs: busy(0.9, 100 * CORES) }

const ONE_SLOW: Row = {
  ...BASE,
  name: 'B',
  about: 'one server is ten times slower',
  faults: ({ servers }) => servers[0]!.queue.speed(0.1),
}

const HALF_SLOW: Row = {
  ...BASE,
  name: 'B3',
  about: 'half of them are four times slower, 70 % of what is left',
  perMs: busy(0.7, 50 * CORES + 50 * CORES * 0.25),
  faults({ servers }) {
    for (const [index, server] of servers.entries()) if (index % 2 === 1) server.queue.speed(0.25)
  },
}

const NEIGHBOURS: Row = {
  ...BASE,
  name: 'C',
  about: 'busy neighbours: each server at a fifth of its speed for 0.5 s, then as ever for 4.5 s (means)',
  faults(world) {
    for (const { queue } of world.servers) {
      takeTurns(world, 4_500, 500, (isSlow) => queue.speed(isSlow ? 0.2 : 1))
    }
  },
}

/** Two states by turns, each for an exponential time of its mean, ms; it begins in the first. */
function takeTurns(
  { time, chance }: World,
  firstMs: number,
  secondMs: number,
  enter: (isSecond: boolean) => void,
): void {
  let isSecond = false
  const turn = (): void => {
    isSecond = !isSecond
    enter(isSecond)
    time.after(exponential(chance, isSecond ? secondMs : firstMs), turn)
  }
  time.after(exponential(chance, firstMs), turn)
}

const UNEVEN: Row = {
  ...BASE,
  name: 'D',
  about: 'lognormal work, sigma 1.5',
  work: (service) => lognormal(service, WORK_MS, 1.5),
}

const FLAP_MS = 5_000

const FLAPPING: Row = {
  ...FEW,
  name: 'E',
  about: 'one of 20 refuses connections for 5 s of every 10 s',
  faults({ servers, time }) {
    const flip = (): void => {
      servers[0]!.down = !servers[0]!.down
      time.after(FLAP_MS, flip)
    }
    time.after(FLAP_MS, flip)
  },
}

/** So many cores that nobody waits: providers are limited by their quota. */
const PLENTY = 1_000

const QUOTA: Row = {
  ...BASE,
  name: 'F',
  about: 'five providers, one with a quota of 50 a second, 600 a second in all; parts and retries as shipped',
  servers: 5,
  perMs: 0.6,
  queue: (time) => new SharedCores(time, PLENTY),
  limits: (index) => ({ perSecond: index === 0 ? 50 : 300 }),
  watchers: shipped,
  policies: retries,
}

const SPILL: Row = {
  ...QUOTA,
  name: 'F spill',
  about: 'three providers in strict priority, quotas 50, 100 and 300, 250 a second in all; as shipped',
  servers: 3,
  perMs: 0.25,
  limits: (index) => ({ perSecond: [50, 100, 300][index]! }),
  endpoint: (index) => ({ priority: index }),
}

const WIDE: Row = {
  ...BASE,
  name: 'G',
  about: '1000 servers of one slot each, 90 % busy, work of 10 ms',
  servers: 1_000,
  perMs: 90,
  work: (service) => exponential(service, 10),
  queue: (time) => new Slots(time, 1),
  without: ['least'],
}

const DEPLOY_MS = 3_000
const RESTART_MS = 2_000

const DEPLOY: Row = {
  ...FEW,
  name: 'R',
  about: 'a rolling deploy: every 3 s another one of 20 is away for 2 s',
  faults({ servers, time }) {
    for (const [index, server] of servers.entries()) {
      const downMs = (index + 1) * DEPLOY_MS
      time.after(downMs, () => {
        server.down = true
      })
      time.after(downMs + RESTART_MS, () => {
        server.down = false
      })
    }
  },
}

const ALIKE_FAILING: Row = {
  ...FEW,
  name: 'H',
  about: '0.3 % of the requests end in a 500, at all of 20 alike',
  faults({ servers, chance }) {
    for (const server of servers) server.fails = () => chance() < 0.003
  },
}

const QUICK_MS = 2
const LONG_MS = 200

const MIXED: Row = {
  ...FEW,
  name: 'M',
  about: 'half of the requests are work of 2 ms, half of 200 ms; 20 servers, 60 % busy, a timeout of 5 s',
  perMs: (0.6 * 20 * CORES) / ((QUICK_MS + LONG_MS) / 2),
  timeoutMs: 5_000,
  work: (service) => (service() < 0.5 ? QUICK_MS : LONG_MS),
}

const PAUSE_EVERY_MS = 10_000
const PAUSE_MS = 2_000

const PAUSES: Row = {
  ...FEW,
  name: 'P',
  about: 'all of 20 at once at a fifth of their speed, for 2 s of every 10 s; 35 % busy',
  perMs: busy(0.35, 20 * CORES),
  faults({ servers, time }) {
    const turn = (speed: number): void => {
      for (const { queue } of servers) queue.speed(speed)
      time.after(speed < 1 ? PAUSE_MS : PAUSE_EVERY_MS - PAUSE_MS, () => turn(speed < 1 ? 1 : 0.2))
    }
    turn(1)
  },
}

/** With other parts. */
function given(row: Row, name: string, parts: Pick<Scenario, 'watchers' | 'policies'>): Row {
  return { ...row, ...parts, name: `${row.name} ${name}`, about: `${row.name}, with ${ABOUT[name]}` }
}

const ABOUT: Readonly<Record<string, string>> = {
  ejection: 'passive ejection as shipped',
  breaker: 'circuit breakers as shipped, no ejection',
  shipped: 'ejection, cool-down, slow start and retries as shipped',
}

/** The same with so many clients. */
function by(clients: number, row: Row): Row {
  return { ...row, clients }
}

/** The rows of the table. */
export const ROWS: readonly Row[] = [
  ...[1, 20, 50].map((clients) => by(clients, BASE)),
  ...[HIGH, ONE_SLOW, given(ONE_SLOW, 'ejection', { watchers: ejection }), HALF_SLOW, NEIGHBOURS, UNEVEN].flatMap(
    (row) => [1, 20].map((clients) => by(clients, row)),
  ),
  FLAPPING,
  given(FLAPPING, 'ejection', { watchers: ejection }),
  given(FLAPPING, 'breaker', { watchers: breaker }),
  given(FLAPPING, 'shipped', { watchers: shipped, policies: retries }),
  QUOTA,
  SPILL,
  ...[1, 50].map((clients) => by(clients, WIDE)),
  DEPLOY,
  given(DEPLOY, 'ejection', { watchers: ejection }),
  given(DEPLOY, 'shipped', { watchers: shipped, policies: retries }),
  ALIKE_FAILING,
  given(ALIKE_FAILING, 'shipped', { watchers: shipped, policies: retries }),
  MIXED,
  PAUSES,
]

export function rowOf(name: string, clients = 1): Row {
  const row = ROWS.find((other) => other.name === name && other.clients === clients)
  if (row === undefined) throw new Error(`no scenario is named ${name} with ${clients} clients`)
  return row
}
