import type {
  Backend,
  BalancerResponse,
  CallOptions,
  Core,
  Endpoint,
  Gate,
  Members,
  Policy,
  Reason,
  Sink,
  Strategy,
  Transport,
  Watcher,
} from 'evenkeel'
import { type ManualClock, manualClock, seededRandom } from 'evenkeel/testing'
import type { BackendRecord } from '../../src/core/backend.ts'
import { LiveCall } from '../../src/core/call.ts'
import { Deadlines } from '../../src/core/deadlines.ts'
import { CLASSES } from '../../src/core/outcome.ts'
import { Pool } from '../../src/core/pool.ts'
import type { PoolParts } from '../../src/core/pool-parts.ts'
import { type ScriptedSend, type ScriptedTransport, scripted } from './scripted.ts'

/** A strategy that serves everybody in turn, in the order of the configuration. */
export function inTurn(): Strategy & { readonly built: Members[]; core(): Core } {
  const built: Members[] = []
  let started: Core
  return {
    name: 'in turn',
    built,
    core: () => started,
    start(core) {
      started = core
      let turn = 0
      return {
        build(members) {
          built.push(members)
          const { eligible } = members
          return () => (eligible.length === 0 ? undefined : eligible[turn++ % eligible.length])
        },
      }
    },
  }
}

export function watching(gate: Gate): Watcher {
  return { name: gate.name, start: () => ({ gate, stop: () => {} }) }
}

/** Named by their hosts: a.test, b.test, ... */
export function endpoints(...ids: readonly (string | Endpoint)[]): Endpoint[] {
  return ids.map((it) => (typeof it === 'string' ? { url: `http://${it}.test`, id: it } : it))
}

export function endpoint(id: string, rest: Partial<Endpoint> = {}): Endpoint {
  return { url: `http://${id}.test`, id, ...rest }
}

export interface BenchOptions {
  readonly strategy?: Strategy
  readonly watchers?: readonly Watcher[]
  readonly sinks?: readonly Sink[]
  readonly policies?: readonly Policy[]
  readonly panicBelow?: number
  readonly transport?: Transport
  /** What the backends do with each send; default: a 200 at once. */
  readonly play?: (send: ScriptedSend, number: number) => void
}

/** A pool over a scripted transport, and everything it told. */
export interface PoolBench {
  readonly pool: Pool
  readonly clock: ManualClock
  readonly transport: ScriptedTransport
  readonly events: readonly [event: string, ...details: unknown[]][]
  /** The events by name and id, as in 'blocked a'. */
  told(): string[]
  backend(id: string): BackendRecord
  /** An update: the parts given anew, the others as they were in the beginning. */
  reconfigure(parts: Partial<PoolParts>, endpoints: readonly Endpoint[]): void
  /** Ids, in order. */
  eligible(): string
  callOf(options?: CallOptions): LiveCall
  /** Ids of all whom 40 calls meet. */
  met(options?: CallOptions): string
  /** A whole call, as the balancer makes it. */
  send(options?: CallOptions, call?: LiveCall): Promise<BalancerResponse>
}

export function bench(given: readonly (string | Endpoint)[], options: BenchOptions = {}): PoolBench {
  const clock = manualClock()
  const transport = scripted(options.play ?? ((send) => send.answer()))
  const events: [event: string, ...details: unknown[]][] = []
  const parts: PoolParts = {
    strategy: options.strategy ?? inTurn(),
    transport: options.transport ?? transport,
    policies: options.policies ?? [],
    watchers: options.watchers ?? [],
    sinks: options.sinks ?? [],
    panicBelow: options.panicBelow ?? 0.5,
    classes: CLASSES,
    classify: undefined,
    budget: { share: 0.2, perSecond: 10, windowMs: 10_000 },
  }
  const host = {
    clock,
    random: seededRandom(1),
    deadlines: new Deadlines(clock),
    emit: (event: string, ...details: readonly unknown[]) => void events.push([event, ...details]),
    over: (call: LiveCall) => call.over(),
    met: () => {},
  }
  const pool = new Pool('default', host)
  const reconfigure: PoolBench['reconfigure'] = (next, all) => pool.prepare({ ...parts, ...next }, all).commit()
  reconfigure({}, endpoints(...given))
  const callOf = (callOptions: CallOptions = {}): LiveCall =>
    new LiveCall({ method: 'GET', headers: [] }, callOptions, clock.now()).route('default', 0)
  return {
    pool,
    clock,
    reconfigure,
    transport,
    told: () =>
      events.map(([event, subject]) => `${event} ${(subject as Partial<Backend> | undefined)?.id ?? ''}`.trim()),
    events,
    backend: (id: string) => pool.records.find((record) => record.id === id)!,
    eligible: () => pool.members.eligible.map(({ id }) => id).join(' '),
    callOf,
    met: (callOptions) =>
      [...new Set(Array.from({ length: 40 }, () => pool.pick(callOf(callOptions))?.id ?? 'nobody'))].sort().join(' '),
    async send(callOptions, call = callOf(callOptions)) {
      try {
        return await pool.handle(call, { method: 'GET', path: '/x', headers: ['h', '1'], body: null })
      } finally {
        pool.answered(call)
      }
    },
  }
}

export function soft(by: string, untilMs?: number): Reason {
  return { by, hard: false, ...(untilMs !== undefined && { untilMs }) }
}

export function hard(by: string): Reason {
  return { by, hard: true }
}
