// Longer than a file should be: everything a balancer does in one place, updates, revisions and following sources included.
import type { BackendRecord } from './core/backend.ts'
import { type CallOptions, type FaceHost, LiveCall, type Route, type Sending } from './core/call.ts'
import { CallList } from './core/call-list.ts'
import type {
  BalancerRequest,
  BalancerResponse,
  Clock,
  Endpoint,
  Lease,
  Random,
  Source,
  Stop,
  Transport,
} from './core/contracts.ts'
import { Deadline, Deadlines } from './core/deadlines.ts'
import { BalancerError } from './core/errors.ts'
import { callOf, type Explanation, explain } from './core/explain.ts'
import { LiveLease } from './core/lease.ts'
import type { BalancerOptions } from './core/options.ts'
import { Pool } from './core/pool.ts'
import type { PoolHost, PoolParts } from './core/pool-parts.ts'
import type { ResolvedOptions } from './core/resolved.ts'
import { type ConfigChange, type Revision, Revisions, reloadError } from './core/revisions.ts'
import { Secret } from './core/secret.ts'
import { type BalancerStats, statsOf, type UpdateStats } from './core/stats.ts'
import { type BalancerEvents, Events } from './events.ts'

/** A configuration turned into parts. Whoever makes it hands back the same objects for what did not change. */
export interface BalancerPlan {
  readonly name: string
  readonly origins: readonly string[] | undefined
  readonly route: Route | undefined
  readonly pools: readonly PoolPlan[]
  /** What it was made from. */
  readonly options: ResolvedOptions
  /** Both for the `Revision` that it may become. */
  hash(): string
  changesSince(earlier: BalancerPlan): readonly ConfigChange[]
  /** A new plan of the same configuration. */
  readonly again: () => BalancerPlan
  /** Every value of a configured header. */
  readonly secrets: readonly Secret[]
  /** To be called once the plan is in force. */
  kept(): void
}

export interface PoolPlan {
  readonly name: string
  readonly endpoints: readonly Endpoint[]
  readonly parts: PoolParts
  readonly totalMs: number
  readonly leaseMs: number
  readonly bufferBytes: number
}

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
export class Balancer<Fetch, Request> {
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  readonly #events = new Events()
  readonly #host: PoolHost
  readonly #planOf: (options: BalancerOptions) => BalancerPlan
  readonly #calls = new CallList()
  readonly #errors = new WeakMap<object, LiveCall>()
  readonly #updates = { applied: 1, refused: 0 }
  readonly #revisions: Revisions<BalancerPlan>
  readonly #followed = new Set<Stop>()
  #pools: ReadonlyMap<string, Pool> = new Map()
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

  constructor(
    options: BalancerOptions,
    shared: { readonly clock: Clock; readonly random: Random; readonly revisions: number },
    planOf: (options: BalancerOptions) => BalancerPlan,
    faces: (host: FaceHost) => { readonly fetch: Fetch; readonly request: Request },
  ) {
    this.#clock = shared.clock
    this.#deadlines = new Deadlines(shared.clock)
    this.#planOf = planOf
    this.#revisions = new Revisions(shared.revisions)
    this.#host = {
      clock: shared.clock,
      random: shared.random,
      deadlines: this.#deadlines,
      emit: (event, ...details) => this.#events.tell(event, details),
      over: (call) => this.#over(call),
      met: (error, call) => this.#met(error, call),
    }
    this.#closed = new Promise((_, reject) => {
      this.#endWaits = () => reject(closed(this.name))
    })
    this.#closed.catch(() => {}) // nobody may be waiting
    this.#plan = planOf(options)
    this.#apply(this.#plan, 'start')
    const { fetch, request } = faces({
      send: (outgoing, callOptions) => this.send(outgoing, callOptions),
      bufferBytes: (pool) => this.#bufferBytes(pool),
      checkOrigin: (origin) => this.#checkOrigin(origin),
    })
    this.fetch = fetch
    this.request = request
  }

  get name(): string {
    return this.#plan.name
  }

  /** Resolves when every active check has a verdict on every backend (at once without checks); rejects on close. */
  async ready(): Promise<void> {
    await Promise.race([this.#closed, Promise.all([...this.#pools.values()].map(({ watchers }) => watchers.ready()))])
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
    const plan = this.#planned(name)
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
    const plan = this.#planned(options.pool)
    const call = new LiveCall(NO_REQUEST, options, this.#clock.now()).route(plan.name, 0)
    call.owner = this
    const pool = this.#pools.get(plan.name)!
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
    return { name: this.name, pools: Object.fromEntries([...this.#pools].map(([name, pool]) => [name, statsOf(pool)])) }
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
    const { name } = source
    let isOver = false
    const install = (planned: () => BalancerPlan): void => {
      if (isOver) return // not every source heeds its stop
      try {
        this.#install(planned, name)
      } catch (error) {
        this.#events.tell('reloadFailed', [reloadError(name, error)])
      }
    }
    let unsubscribe: Stop
    try {
      unsubscribe = source.subscribe(
        (options) => install(() => this.#planOf(options)),
        (error) =>
          install(() => {
            throw error
          }),
      )
    } catch (cause) {
      isOver = true
      throw new BalancerError('CONFIG', `subscribe of the source ${name} threw`, { cause })
    }
    const stop = (): void => {
      if (isOver) return
      isOver = true
      this.#followed.delete(stop)
      try {
        unsubscribe()
      } catch (cause) {
        this.#events.tell('warning', [new BalancerError('CONFIG', `stop of the source ${name} threw`, { cause })])
      }
    }
    this.#followed.add(stop)
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
    const pools = [...this.#pools.values()]
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

  /** No new requests for this backend, in every pool that has it; resolves when nothing is in flight on it. */
  async drain(id: string): Promise<void> {
    const found = this.#named(id)
    for (const { pool, record } of found) pool.block(record, { by: 'drain', hard: true })
    await Promise.all(found.map(({ record }) => new Promise<void>((resolve) => record.whenIdle(resolve))))
  }

  /** As `drain`, but for an operator's own reasons, and without waiting. */
  disable(id: string): void {
    for (const { pool, record } of this.#named(id)) pool.block(record, { by: 'operator', hard: true })
  }

  /** Takes `drain` and `disable` back. */
  enable(id: string): void {
    for (const { pool, record } of this.#named(id)) for (const by of ['drain', 'operator']) pool.unblock(record, by)
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
      plan = this.#planned(await Promise.race([name, canceled]))
    } catch (error) {
      call.answered = true
      this.#over(call)
      throw error
    }
    return this.#run(call, request, options, plan)
  }

  #run(call: LiveCall, request: BalancerRequest, options: CallOptions, plan: PoolPlan): Promise<BalancerResponse> {
    const pool = this.#pools.get(plan.name)!
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
    const pools = new Map<string, Pool>()
    const prepared: ReturnType<Pool['prepare']>[] = []
    try {
      for (const { name, parts, endpoints } of plan.pools) {
        const pool = this.#pools.get(name) ?? new Pool(name, this.#host)
        pools.set(name, pool)
        prepared.push(pool.prepare(parts, endpoints))
      }
    } catch (error) {
      for (const { abandon } of prepared) abandon()
      throw error
    }
    const gone = [...this.#pools.values()].filter((pool) => !pools.has(pool.name))
    this.#pools = pools
    this.#plan = plan
    // Listeners hear of it when all of it is done: one that updates again must not meet half a change.
    this.#events.hold()
    try {
      for (const { commit } of prepared) commit()
      for (const pool of gone) {
        pool.apply([])
        pool.close()
      }
      plan.kept()
      if (!isSame) this.#events.tell('configured', [this.#revisions.add(said, plan)])
    } finally {
      this.#events.release()
    }
  }

  #planned(name: string | undefined): PoolPlan {
    const { pools } = this.#plan
    const found = name === undefined ? pools[0] : pools.find((pool) => pool.name === name)
    if (found !== undefined) return found
    const known = pools.map((pool) => pool.name).join(', ')
    throw new BalancerError('CONFIG', `no pool is named ${JSON.stringify(name)}; there are: ${known}`)
  }

  #named(id: string): readonly { readonly pool: Pool; readonly record: BackendRecord }[] {
    const found = [...this.#pools.values()].flatMap((pool) =>
      pool.records.filter((record) => record.id === id).map((record) => ({ pool, record })),
    )
    if (found.length > 0) return found
    const known = [...this.#pools.values()].flatMap((pool) => pool.records.map((record) => record.id))
    throw new BalancerError('CONFIG', `no backend is named ${JSON.stringify(id)}; there are: ${known.join(', ')}`)
  }

  /** Before a route has spoken the body is kept as for the most generous pool. */
  #bufferBytes(pool: string | undefined): number {
    const { pools, route } = this.#plan
    if (pool === undefined && route !== undefined) return Math.max(...pools.map(({ bufferBytes }) => bufferBytes))
    return this.#planned(pool).bufferBytes
  }

  #checkOrigin(origin: string): void {
    const { origins } = this.#plan
    if (origins === undefined || origins.includes(origin)) return
    throw new BalancerError('CONFIG', `fetch of ${origin} refused: origins allows ${origins.join(', ') || 'none'}`)
  }

  async #close(drainMs: number): Promise<void> {
    this.#endWaits()
    for (const stop of this.#followed) stop()
    if (this.#calls.size > 0 && drainMs > 0) {
      await new Promise<void>((resolve) => {
        const stop = this.#clock.after(drainMs, resolve, true) // somebody waits for it
        this.#drained = () => {
          stop()
          resolve()
        }
      })
    }
    for (const call of this.#calls.all()) call.cancel(closed(this.name))
    const transports = new Set<Transport>()
    for (const pool of this.#pools.values()) {
      pool.close()
      transports.add(pool.transport)
    }
    try {
      await Promise.all([...transports].map(async (transport) => transport.close?.()))
    } finally {
      this.#deadlines.close()
      this.#events.tell('closed', [])
      this.#events.removeAllListeners()
    }
  }
}

/** What a route throws or rejects with is told as what it is. */
function routed(route: Route, request: BalancerRequest): string | Promise<string> {
  const failed = (cause: unknown): never => {
    throw new BalancerError('CONFIG', 'route failed', { cause })
  }
  try {
    const name = route(request)
    return typeof name === 'object' ? Promise.resolve(name).catch(failed) : name
  } catch (error) {
    return failed(error)
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
