import type { Call } from 'evenkeel'
import { type Balancer, type BalancerOptions, type BalancerResponse, type CallOptions, createBalancer } from 'evenkeel'
import { type ManualClock, manualClock, seededRandom } from 'evenkeel/testing'
import type { BalancerRequest } from '../../src/core/contracts.ts'
import { type ScriptedSend, type ScriptedTransport, scripted } from './scripted.ts'

/** What a call came to. */
export interface Ended {
  readonly response?: BalancerResponse
  readonly error?: unknown
  /** Clock time of the answer's head, or of the failure. */
  readonly atMs: number
}

/** A whole balancer over a scripted transport, a manual clock and a seed. */
export interface BalancerBench {
  readonly balancer: Balancer
  readonly clock: ManualClock
  readonly transport: ScriptedTransport
  /** Ids of the backends that were sent to, in order. */
  to(): string
  /** Starts a call; nothing waits for it. */
  start(request?: Partial<BalancerRequest>, options?: CallOptions): { call: Call; ended: Promise<Ended> }
  /** Starts a call and moves time until it is answered or has failed. */
  call(request?: Partial<BalancerRequest>, options?: CallOptions): Promise<Ended>
  /** Moves time, 1 ms at a step, until a call is answered or has failed. */
  until(ended: Promise<Ended>): Promise<Ended>
}

export interface BalancerBenchOptions extends BalancerOptions {
  readonly seed?: number
  /** Default: a, b and c. */
  readonly ids?: string
}

/** `play` says what the backends do with each send; without it the test does. Round robin, so that the order is known. */
export function balancerBench(
  play?: (send: ScriptedSend, number: number) => void,
  { seed = 1, ids = 'abc', ...options }: BalancerBenchOptions = {},
): BalancerBench {
  const clock = manualClock()
  const transport = scripted(play)
  const balancer = createBalancer({
    backends: [...ids].map((id) => ({ url: `http://${id}.test`, id })),
    strategy: 'round-robin',
    transport,
    clock,
    random: seededRandom(seed),
    ...options,
  })
  const start: BalancerBench['start'] = (request, callOptions) => {
    const { call, response } = balancer.send(
      { method: 'GET', path: '/', headers: [], body: null, ...request },
      callOptions,
    )
    const ended = response.then(
      (answer): Ended => ({ response: answer, atMs: clock.now() }),
      (error: unknown): Ended => ({ error, atMs: clock.now() }),
    )
    return { call, ended }
  }
  const until = async (ended: Promise<Ended>): Promise<Ended> => {
    let over = false
    void ended.then(() => {
      over = true
    })
    for (let ms = 0; ms < 100_000; ms++) {
      await clock.advance(ms === 0 ? 0 : 1)
      if (over) return ended
    }
    throw new Error('the call did not end within 100 s')
  }
  return {
    balancer,
    clock,
    transport,
    to: () => transport.sends.map((send) => send.to).join(''),
    start,
    until,
    call: (request, callOptions) => until(start(request, callOptions).ended),
  }
}
