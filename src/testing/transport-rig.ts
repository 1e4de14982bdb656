import assert from 'node:assert/strict'
import type { LiveAttempt } from '../core/attempt.ts'
import { LiveCall } from '../core/call.ts'
import { systemClock } from '../core/clock.ts'
import type {
  Attempt,
  BalancerRequest,
  BalancerResponse,
  BodyControl,
  RawHeaders,
  ResponseBody,
  Strategy,
  Transport,
} from '../core/contracts.ts'
import { Deadlines } from '../core/deadlines.ts'
import { latin1 } from '../core/headers.ts'
import { CLASSES } from '../core/outcome.ts'
import { Pool } from '../core/pool.ts'
import { seededRandom } from './seeded-random.ts'

const first: Strategy = {
  name: 'first',
  start: () => ({
    build:
      ({ eligible }) =>
      () =>
        eligible[0],
  }),
}

/** A transport in a real pool of one backend and no policies: leases, bodies and outcomes are the product's own. */
export class Rig {
  readonly pool: Pool
  readonly transport: Transport
  readonly attempts: LiveAttempt[] = []
  readonly #settled = new Map<LiveAttempt, number>()

  constructor(transport: Transport, url: string) {
    this.transport = transport
    this.pool = new Pool('default', {
      clock: systemClock,
      random: seededRandom(1),
      deadlines: new Deadlines(systemClock),
      emit: () => {},
      over: (call) => call.over(),
      met: () => {},
    })
    const parts = {
      strategy: first,
      transport,
      policies: [],
      watchers: [],
      sinks: [{ name: 'count', attempt: (attempt: Attempt) => this.#count(attempt as LiveAttempt) }],
      panicBelow: 0,
      classes: CLASSES,
      classify: undefined,
      budget: { share: 0, perSecond: 0, windowMs: 1_000 },
    }
    this.pool.prepare(parts, [{ url, id: 'a' }]).commit()
  }

  send(request: Partial<BalancerRequest> = {}): { call: LiveCall; response: Promise<BalancerResponse> } {
    const whole = { method: 'GET', path: '/', headers: [], body: null, ...request }
    const call = new LiveCall(whole, {}, systemClock.now()).route('default', 0)
    const response = this.pool.handle(call, whole).finally(() => {
      this.attempts.push(...call.attempts)
      this.pool.answered(call)
    })
    response.catch(() => {}) // looked at where it matters
    return { call, response }
  }

  /** Every lease ended exactly once, and nothing is in flight. */
  async assertDone(): Promise<void> {
    await until(() => this.pool.inflight === 0, 'a lease was never given back')
    for (const record of this.pool.records) assert.equal(record.inflight, 0)
    for (const attempt of this.attempts) {
      assert.equal(this.#settled.get(attempt), 1, 'an attempt must settle exactly once')
    }
  }

  async close(): Promise<void> {
    await this.transport.close?.()
    this.pool.close()
  }

  #count(attempt: LiveAttempt): void {
    this.#settled.set(attempt, (this.#settled.get(attempt) ?? 0) + 1)
  }
}

/** What a reader saw of a body. */
export interface Seen {
  text: string
  chunks: number
  ends: number
  failures: unknown[]
  trailers: RawHeaders | undefined
  control: BodyControl
}

/** Reads a body; `take` says for each chunk whether to go on. */
export function read(body: ResponseBody, take: (seen: Seen) => boolean = () => true): Seen {
  const seen: Omit<Seen, 'control'> & { control?: BodyControl } = {
    text: '',
    chunks: 0,
    ends: 0,
    failures: [],
    trailers: undefined,
  }
  seen.control = body.consume({
    chunk(data) {
      assert.equal(seen.ends + seen.failures.length, 0, 'a chunk after the end')
      seen.text += latin1(data)
      seen.chunks++
      return take(seen as Seen)
    },
    end(trailers) {
      seen.ends++
      seen.trailers = trailers
    },
    fail: (error) => seen.failures.push(error),
  })
  return seen as Seen
}

/** Waits for something that must come soon; 5 s is for slow machines. */
export async function until(holds: () => boolean, otherwise: string, limitMs = 5_000): Promise<void> {
  const endMs = systemClock.now() + limitMs
  while (!holds()) {
    if (systemClock.now() > endMs) assert.fail(otherwise)
    await pause(2)
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
