import { type CallOptions, type FaceHost, LiveCall, type Sending } from './core/call.ts'
import { CallList } from './core/call-list.ts'
import type {
  Backend,
  BalancerRequest,
  BalancerResponse,
  Clock,
  Lease,
  Random,
  Source,
  Stop,
} from './core/contracts.ts'
import { Deadline, Deadlines } from './core/deadlines.ts'
import { BalancerError } from './core/errors.ts'
import { callOf, type Explanation, explain } from './core/explain.ts'
import { LiveLease } from './core/lease.ts'
import type { BalancerOptions } from './core/options.ts'
import { type BalancerPlan, bufferBytesIn, checkOrigin, type PoolPlan, poolIn, routed } from './core/plan.ts'
import { Pools } from './core/pools.ts'
import { type Revision, Revisions } from './core/revisions.ts'
import { Secret } from './core/secret.ts'
import { Sources } from './core/sources.ts'
import { type BalancerStats, statsOf, type UpdateStats } from './core/stats.ts'
import { type BalancerEvents, Events } from './events.ts'

export interface CloseOptions {
  /** How long calls under way may take to finish, ms; default 0: they are cancelled now. */
  readonly drainMs?: number
}

/** Takes secrets out of a text, and what they were gathered from: another revision, or other backends, have others. */
interface Redaction {
  readonly from: readonly unknown[]
  readonly redact: (text: string) => string
}

/** What `acquire` takes of the options of a call. */
export type AcquireOptions = Pick<CallOptions, 'pool' | 'key' | 'tags' | 'prefer' | 'only' | 'address' | 'timeoutMs'>

/** No path: as a key '/' would send every lease to one backend. */
const NO_REQUEST: BalancerRequest = { method: 'ACQUIRE', path: '', headers: [], body: null }

/** Owns the pools, their lifecycle and what they share. Made by `createBalancer`. */
export class Balancer<Fetch, Request, Dispatcher> {
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  readonly #events = new Events()
  readonly #pools: Pools
  readonly #sources: Sources<BalancerOptions>
  readonly #planOf: (options: BalancerOptions) => BalancerPlan
  readonly #calls = new CallList()
  readonly #errors = new WeakMap<object, LiveCall>()
  readonly #updates = { applied: 1, refused: 0 }
  readonly #revisions: Revisions<BalancerPlan>
  #plan: BalancerPlan
  #redaction: Redaction | undefined
  #closing: Promise<void> | undefined
  #drained: (() => void) | undefined
  #endWaits: () => void = () => {}
  /** Rejects when the balancer is closed. */
  readonly #closed: Promise<never>
  /** A drop-in `fetch` over the pool's backends; bound, so it may be passed around. */
  readonly fetch: Fetch
  /** The faster face: status, headers and body without the platform's objects; bound. */
  readonly request: Request
  readonly #dispatcher: () => Dispatcher

  constructor(
    options: BalancerOptions,
    shared: { readonly clock: Clock; readonly random: Random; readonly revisions: number },
    planOf: (options: BalancerOptions) => BalancerPlan,
    faces: (host: FaceHost) => {
      readonly fetch: Fetch
      readonly request: Request
      readonly dispatcher: () => Dispatcher
    },
  ) {
    this.#clock = shared.clock
    this.#deadlines = new Deadlines(shared.clock)
    this.#planOf = planOf
    this.#revisions = new Revisions(shared.revisions)
    this.#pools = new Pools({
      clock: shared.clock,
      random: shared.random,
      deadlines: this.#deadlines,
      emit: (event, ...details) => this.#events.tell(event, details),
      over: (call) => this.#over(call),
      left: () => this.#leave((backend) => backend.removed),
      closing: () => this.closing,
      met: (error, call) => this.#met(error, call),
    })
    this.#sources = new Sources({
      install: (read, source) => this.#install(() => this.#planOf(read()), source),
      tell: (event, error) => this.#events.tell(event, [error]),
    })
    this.#closed = new Promise((_, reject) => {
      this.#endWaits = () => reject(closed(this.name))
    })
    this.#closed.catch(() => {}) // nobody may be waiting
    this.#plan = planOf(options)
    this.#apply(this.#plan, 'start')
    const { fetch, request, dispatcher } = faces({
      send: (outgoing, callOptions) => this.send(outgoing, callOptions),
      bufferBytes: (pool) => bufferBytesIn(this.#plan, pool),
      checkOrigin: (origin) => checkOrigin(this.#plan, origin),
    })
    this.fetch = fetch
    this.request = request
    this.#dispatcher = dispatcher
  }

  get name(): string {
    return this.#plan.name
  }

  /** True from the moment `close` was called: proxies then tell their clients to go elsewhere. */
  get closing(): boolean {
    return this.#closing !== undefined
  }

  /** For undici's functions and whatever else takes a Dispatcher: one and the same, until that is closed. */
  get dispatcher(): Dispatcher {
    return this.#dispatcher()
  }

  /** Resolves when every active check has a verdict on every backend (at once without checks); rejects on close. */
  async ready(): Promise<void> {
    await Promise.race([this.#closed, Promise.all(this.#pools.all.map(({ watchers }) => watchers.ready()))])
  }

  /**
   * The face below the faces: raw headers and pushed bodies, for adapters. The call is over when its response's body was
   * read to its end, discarded or cancelled, or when `response` rejects. `call.cancel(reason)` ends it at any time.
   */
  send(request: BalancerRequest, options: CallOptions = {}): Sending {
    const call = new LiveCall(request, options, this.#clock.now())
    call.owner = this
    if (this.#closing !== undefined) {
      call.over()
      return { call, response: Promise.reject(closed(this.name)) }
    }
    const { route } = this.#plan
    const name = options.pool === undefined && route !== undefined ? routed(route, request) : options.pool
    if (typeof name === 'object') {
      this.#calls.add(call)
      return { call, response: this.#runLater(call, request, options, name) }
    }
    const plan = poolIn(this.#plan, name)
    this.#calls.add(call)
    return { call, response: this.#run(call, request, options, plan) }
  }

  /**
   * Lends one backend for any other protocol, at once. Throws NO_BACKEND when nobody can be had, OVERLOADED when all are full; it
   * takes no place of `limits.maxInflight`, and never waits. A lease that is not ended
   * within `timeoutMs` (default `timeouts.leaseMs`; 0 = never) is cancelled, with a `warning` event.
   */
  acquire(options: AcquireOptions = {}): Lease {
    if (this.#closing !== undefined) throw closed(this.name)
    const plan = poolIn(this.#plan, options.pool)
    const call = new LiveCall(NO_REQUEST, options, this.#clock.now()).route(plan.name, 0)
    call.owner = this
    const pool = this.#pools.get(plan.name)
    pool.totals.calls++
    this.#calls.add(call)
    try {
      const attempt = pool.lend(call, NO_REQUEST)
      call.onCancel(() => attempt.settle('cancelled', undefined))
      pool.answered(call)
      const timeoutMs = options.timeoutMs ?? plan.leaseMs
      return new LiveLease(attempt, timeoutMs, this.#deadlines, () => {
        const message = `a lease on backend ${attempt.backend.id} was not ended within ${timeoutMs} ms`
        this.#events.tell('warning', [new BalancerError('TIMEOUT', message, { backend: attempt.backend.id })])
      })
    } catch (error) {
      this.#met(error, call)
      pool.failed(call, error)
      throw error
    }
  }

  /** Numbers of this moment, plain data. */
  stats(): BalancerStats {
    return { name: this.name, pools: Object.fromEntries(this.#pools.all.map((pool) => [pool.name, statsOf(pool)])) }
  }

  /** How often the configuration was changed, or not. */
  get updates(): UpdateStats {
    return { ...this.#updates }
  }

  /**
   * What happened to one call: hand over its Response or answer, the error it ended with, or the `http.ServerResponse` the proxy
   * wrote. Undefined for what this balancer knows nothing of.
   */
  explain(subject: unknown): Explanation | undefined {
    const call = callOf(subject, this.#errors)
    return call === undefined || call.owner !== this ? undefined : explain(call, this.#clock.now())
  }

  /**
   * The whole new configuration, in one step; resolves with the revision in force. A wrong one rejects and changes nothing; calls
   * under way finish where they are.
   */
  async update(options: BalancerOptions): Promise<Revision> {
    return this.#install(() => this.#planOf(options), 'update')
  }

  /**
   * Puts every configuration that a source brings into force, until it is stopped or the balancer closed. What is wrong changes
   * nothing: `reloadFailed` tells why.
   */
  follow(source: Source<BalancerOptions>): Stop {
    if (this.#closing !== undefined) throw closed(this.name)
    const stop = this.#sources.follow(source)
    if (this.#closing !== undefined) stop() // what it brought at once made somebody close
    return stop
  }

  /** What was put into force, oldest first; the last one is. As many as the option `revisions` says are kept. */
  revisions(): readonly Revision[] {
    return this.#revisions.all
  }

  /**
   * Brings an earlier configuration back, as a new revision. A source that is followed stays followed: its next change replaces it.
   */
  async rollback(number: number): Promise<Revision> {
    return this.#install(() => this.#revisions.plan(number).again(), 'rollback', number)
  }

  /**
   * A text that others wrote, such as the `cause` of an error, without the value of any configured header: of every revision that is
   * kept, and of every backend there is. As lines of the log have it.
   */
  redact(text: string): string {
    const pools = this.#pools.all
    const from = [this.#revisions.current, ...pools.map(({ records }) => records)]
    const known = this.#redaction
    if (known?.from.length === from.length && from.every((source, place) => source === known.from[place])) {
      return known.redact(text)
    }
    const kept = this.#revisions.plans.flatMap(({ secrets }) => secrets)
    const live = pools.flatMap(({ records }) =>
      records.flatMap(({ endpoint }) => Object.values(endpoint.headers ?? {})),
    )
    const redact = Secret.redacting([...kept, ...live.map(Secret.of)])
    this.#redaction = { from, redact }
    return redact(text)
  }

  /**
   * No new requests for this backend, in every pool that has it; resolves when nothing is in flight on it. Tunnels are asked to come to
   * an end.
   */
  async drain(id: string): Promise<void> {
    const records = this.#pools.block(id, 'drain')
    this.#leave((backend) => records.some((record) => record === backend))
    await Promise.all(records.map((record) => new Promise<void>((resolve) => record.whenIdle(resolve))))
  }

  /** As `drain`, but for an operator's own reasons, and without waiting. */
  disable(id: string): void {
    this.#pools.block(id, 'operator')
  }

  /** Takes `drain` and `disable` back. */
  enable(id: string): void {
    this.#pools.unblock(id, ['drain', 'operator'])
  }

  /** Takes no more calls, lets those under way finish for `drainMs`, cancels the rest, closes every connection. */
  close(options: CloseOptions = {}): Promise<void> {
    this.#closing ??= this.#close(options.drainMs ?? 0)
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  on<Name extends keyof BalancerEvents>(event: Name, listener: BalancerEvents[Name]): this {
    this.#events.on(event, listener as never)
    return this
  }

  once<Name extends keyof BalancerEvents>(event: Name, listener: BalancerEvents[Name]): this {
    this.#events.once(event, listener as never)
    return this
  }

  off<Name extends keyof BalancerEvents>(event: Name, listener: BalancerEvents[Name]): this {
    this.#events.off(event, listener as never)
    return this
  }

  /** A route that has to be waited for. */
  async #runLater(
    call: LiveCall,
    request: BalancerRequest,
    options: CallOptions,
    name: Promise<string>,
  ): Promise<BalancerResponse> {
    let plan: PoolPlan
    try {
      const canceled = new Promise<never>((_, reject) => call.onCancel(reject))
      const { timeoutMs = 0 } = options
      const late = new Deadline(this.#deadlines, () => {
        call.cancel(new BalancerError('TIMEOUT', `route named no pool within ${timeoutMs} ms`))
      })
      late.set(timeoutMs, call.startMs)
      call.onEnd(() => late.clear())
      const named = await Promise.race([name, canceled]) // first, for an update may come meanwhile
      plan = poolIn(this.#plan, named)
    } catch (error) {
      call.answered = true
      this.#over(call)
      throw error
    }
    return this.#run(call, request, options, plan)
  }

  #run(call: LiveCall, request: BalancerRequest, options: CallOptions, plan: PoolPlan): Promise<BalancerResponse> {
    const pool = this.#pools.get(plan.name)
    pool.totals.calls++
    call.route(plan.name, options.timeoutMs ?? plan.totalMs)
    return started(() => pool.handle(call, request)).then(
      (response) => {
        pool.answered(call)
        return response
      },
      (error: unknown) => {
        this.#met(error, call)
        pool.failed(call, error)
        throw error
      },
    )
  }

  /** What has no end of its own on these backends is asked to come to one. */
  #leave(isLeft: (backend: Backend) => boolean): void {
    for (const { attempts } of this.#calls.all()) {
      for (const attempt of attempts) if (isLeft(attempt.backend)) attempt.drain()
    }
  }

  /** For `explain(error)`. */
  #met(error: unknown, call: LiveCall): void {
    if (typeof error === 'object' && error !== null) this.#errors.set(error, call)
  }

  #over(call: LiveCall): void {
    call.over()
    this.#calls.remove(call)
    if (this.#calls.size === 0) this.#drained?.()
  }

  #install(planned: () => BalancerPlan, origin: string, restores?: number): Revision {
    if (this.#closing !== undefined) throw closed(this.name)
    try {
      this.#apply(planned(), origin, restores)
    } catch (error) {
      this.#updates.refused++
      throw error
    }
    this.#updates.applied++
    return this.#revisions.current
  }

  /** All of it, or nothing: whatever may throw is done before the first pool changes. */
  #apply(plan: BalancerPlan, origin: string, restores?: number): void {
    const hash = plan.hash()
    const changes = plan.changesSince(this.#plan)
    // A part counts by its name alone in the hash: that it is another one only the changes say.
    const isSame = changes.length === 0 && restores === undefined && hash === this.#revisions.all.at(-1)?.hash
    const said = { hash, timeMs: this.#clock.wall?.(), origin, restores, changes }
    const commit = this.#pools.prepare(plan.pools)
    this.#plan = plan
    // Listeners hear of it when all of it is done: one that updates again must not meet half a change.
    this.#events.hold()
    try {
      commit()
      plan.kept()
      if (!isSame) this.#events.tell('configured', [this.#revisions.add(said, plan)])
    } finally {
      this.#events.release()
    }
  }

  async #close(drainMs: number): Promise<void> {
    this.#endWaits()
    this.#sources.stop()
    if (this.#calls.size > 0 && drainMs > 0) {
      this.#leave(() => true)
      await new Promise<void>((resolve) => {
        const stop = this.#clock.after(drainMs, resolve, true) // somebody waits for it
        this.#drained = () => {
          stop()
          resolve()
        }
      })
    }
    for (const call of this.#calls.all()) call.cancel(closed(this.name))
    try {
      await this.#pools.close()
    } finally {
      this.#deadlines.close()
      this.#events.tell('closed', [])
      this.#events.removeAllListeners()
    }
  }
}

/** A policy that throws at once fails as one that rejects. */
function started<T>(run: () => Promise<T>): Promise<T> {
  try {
    return run()
  } catch (error) {
    return Promise.reject(error)
  }
}

function closed(name: string): BalancerError {
  return new BalancerError('CLOSED', `the balancer ${name} is closed`)
}
