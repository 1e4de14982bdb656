import { DEFAULTS } from '../../src/config/defaults.ts'
import { LiveCall } from '../../src/core/call.ts'
import type { Endpoint, Policy, Strategy, Watcher } from '../../src/core/contracts.ts'
import { Deadlines } from '../../src/core/deadlines.ts'
import { CLASSES } from '../../src/core/outcome.ts'
import { Pool } from '../../src/core/pool.ts'
import { timeouts } from '../../src/policies/timeout.ts'
import { network, type Work } from './network.ts'
import type { Queue } from './queues.ts'
import { Server, type ServerOptions } from './server.ts'
import { exponential, type Stream, type Streams, streams } from './streams.ts'
import { VirtualTime } from './virtual-time.ts'

/** What faults are made of. */
export interface World {
  readonly time: VirtualTime
  readonly servers: readonly Server[]
  readonly pools: readonly Pool[]
  /** The source of chance that no strategy moves. */
  readonly chance: Stream
}

export interface Scenario {
  /** How many of each. Every client is a pool of its own: a process. */
  readonly clients: number
  readonly servers: number
  readonly requests: number
  /** Arrivals of all clients together, requests per ms. */
  readonly perMs: number
  readonly rttMs: number
  /** Of each attempt, ms; 0 = none. */
  readonly timeoutMs: number
  readonly work: (service: Stream) => number
  readonly queue: (time: VirtualTime) => Queue
  readonly limits?: (server: number) => Partial<ServerOptions>
  readonly endpoint?: (server: number) => Partial<Endpoint>
  /** Called once, before the first request. */
  readonly faults?: (world: World) => void
  readonly watchers?: () => readonly Watcher[]
  /** Around the timeout. */
  readonly policies?: readonly Policy[]
}

/** Of the requests after the warm-up. Times are of those that succeeded, ms; NaN if none did. */
export interface Result {
  readonly meanMs: number
  readonly p50: number
  readonly p99: number
  readonly p999: number
  /** Of all requests, a failed one slower than any that succeeded: Infinity if more than one in a hundred failed. */
  readonly p99all: number
  /** Share of the requests that failed or were answered with a status of 400 and above. */
  readonly errors: number
  readonly attemptsPerRequest: number
  /** Each server's part of all attempts, warm-up included. */
  readonly shares: readonly number[]
  /** Most requests inside one server at any one time. */
  readonly peak: number
}

/** Of the requests, not counted. */
const WARM_UP = 0.1

/** One run of a scenario. The same seed means the same arrivals, work and faults, whatever the strategy. */
export async function simulate(scenario: Scenario, strategy: () => Strategy, seed: number): Promise<Result> {
  const time = new VirtualTime()
  const chance = streams(seed)
  const servers = Array.from({ length: scenario.servers }, (_, index) => {
    return new Server(time, scenario.queue(time), { most: 200, perSecond: Infinity, ...scenario.limits?.(index) })
  })
  const pools = poolsOf(scenario, strategy, time, servers, chance)
  scenario.faults?.({ time, servers, pools, chance: chance.environment })

  const tally = new Tally(scenario.requests)
  let sent = 0
  const arrive = (): void => {
    const pool = pools[Math.floor(chance.clients() * pools.length)]!
    const call = new LiveCall(REQUEST, { key: `${Math.floor(chance.keys() * KEYS)}` }, time.now()).route('default', 0)
    send(pool, call, { ...REQUEST, workMs: scenario.work(chance.service) }, time, tally, sent++)
    if (sent < scenario.requests) time.after(exponential(chance.arrivals, 1 / scenario.perMs), arrive)
  }
  arrive()
  await time.run(() => tally.ended === scenario.requests)
  for (const pool of pools) pool.close()
  return tally.result(servers)
}

/** Whom requests are from, for strategies that hash: all alike often. */
const KEYS = 10_000
const REQUEST = { method: 'GET', path: '/', headers: [], body: null } as const

/** A whole call, as the balancer makes it. */
function send(pool: Pool, call: LiveCall, request: Work, time: VirtualTime, tally: Tally, number: number): void {
  const end = (status: number): void => {
    pool.answered(call)
    tally.add(number, time.now() - call.startMs, status > 0 && status < 400, call.attempts.length)
  }
  pool.handle(call, request).then(
    ({ status }) => end(status),
    () => end(0),
  )
  if (call.attempts.length === 0) time.stir() // nobody to send it to, or a policy thinks about it
}

function poolsOf(
  { clients, timeoutMs, rttMs, endpoint, watchers, policies = [] }: Scenario,
  strategy: () => Strategy,
  time: VirtualTime,
  servers: readonly Server[],
  chance: Streams,
): readonly Pool[] {
  const endpoints = servers.map((server, index) => {
    return { url: `http://${index}.test`, id: `${index}`, meta: { server }, ...endpoint?.(index) }
  })
  const transport = network(time, new Map(servers.map((server, index) => [`${index}`, server])), rttMs)
  const limit = timeouts({ connectMs: 0, headersMs: 0, firstByteMs: 0, idleMs: 0, attemptMs: timeoutMs })
  return Array.from({ length: clients }, (_, client) => {
    const host = {
      clock: time.clock,
      random: chance.policy(client),
      deadlines: new Deadlines(time.clock),
      emit: () => {},
      over: (call: LiveCall) => call.over(),
      met: () => {},
    }
    const parts = {
      strategy: strategy(),
      transport,
      policies: timeoutMs > 0 ? [...policies, limit] : policies,
      watchers: watchers?.() ?? [],
      sinks: [],
      panicBelow: DEFAULTS.health.panicBelow,
      classes: CLASSES,
      classify: undefined,
      budget: DEFAULTS.retry.budget,
    }
    const pool = new Pool('default', host)
    pool.prepare(parts, endpoints).commit()
    return pool
  })
}

/** What became of each request. */
class Tally {
  readonly #first: number
  readonly #times: Float64Array
  #succeeded = 0
  #counted = 0
  #attempts = 0
  ended = 0

  constructor(requests: number) {
    this.#first = Math.floor(requests * WARM_UP)
    this.#times = new Float64Array(requests)
  }

  add(number: number, ms: number, isGood: boolean, attempts: number): void {
    this.ended++
    if (number < this.#first) return
    this.#counted++
    this.#attempts += attempts
    if (isGood) this.#times[this.#succeeded++] = ms
  }

  result(servers: readonly Server[]): Result {
    const times = this.#times.subarray(0, this.#succeeded).sort()
    const received = servers.reduce((sum, server) => sum + server.received, 0)
    return {
      meanMs: times.reduce((sum, ms) => sum + ms, 0) / times.length,
      p50: quantile(times, 0.5),
      p99: quantile(times, 0.99),
      p999: quantile(times, 0.999),
      p99all: times[Math.floor(this.#counted * 0.99)] ?? Infinity,
      errors: 1 - this.#succeeded / this.#counted,
      attemptsPerRequest: this.#attempts / this.#counted,
      shares: servers.map((server) => server.received / received),
      peak: Math.max(...servers.map(({ peak }) => peak)),
    }
  }
}

function quantile(sorted: Float64Array, q: number): number {
  return sorted[Math.min(Math.floor(sorted.length * q), sorted.length - 1)] ?? Number.NaN
}
