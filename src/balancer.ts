import type { BackendTotals } from './core/backend.ts'
import { type CallOptions, type FaceHost, LiveCall, type Sending } from './core/call.ts'
import type {
  BalancerRequest,
  BalancerResponse,
  CallHandler,
  Clock,
  Endpoint,
  Random,
  Transport,
} from './core/contracts.ts'
import { Deadlines } from './core/deadlines.ts'
import { BalancerError } from './core/errors.ts'
import type { BalancerOptions } from './core/options.ts'
import { Pool, type PoolHost, type PoolParts, type PoolTotals } from './core/pool.ts'
import { type BalancerEvents, Events } from './events.ts'

/** A configuration turned into parts. Whoever makes it hands back the same objects for what did not change. */
export interface BalancerPlan {
  readonly name: string
  readonly origins: readonly string[] | undefined
  readonly pools: readonly {
    readonly name: string
    readonly endpoints: readonly Endpoint[]
    readonly parts: PoolParts
    readonly totalMs: number
    readonly bufferBytes: number
  }[]
}

export interface BackendStats {
  readonly id: string
  readonly url: string
  readonly weight: number
  readonly state: 'up' | 'blocked' | 'drained'
  /** Why it gets no traffic; empty when it does. */
  readonly reasons: readonly string[]
  readonly inflight: number
  readonly requests: number
  readonly failures: number
  readonly classes: BackendTotals['classes']
  /** Time to the head of good answers in the last minute, ms, within 1 %; NaN without any. */
  readonly p50Ms: number
  readonly p99Ms: number
  /** Decayed peak EWMA, ms; NaN before the first answer. */
  readonly ewmaMs: number
}

export interface PoolStats extends PoolTotals {
  readonly strategy: string
  readonly transport: string
  readonly inflight: number
  /** Soft reasons are ignored for now: too few backends are healthy. */
  readonly panic: boolean
  /** Repeats the retry budget would allow now. */
  readonly budgetLeft: number
  readonly backends: readonly BackendStats[]
}

export interface BalancerStats {
  readonly name: string
  readonly pools: Readonly<Record<string, PoolStats>>
}

export interface CloseOptions {
  /** How long calls under way may take to finish, ms; default 0: they are cancelled now. */
  readonly drainMs?: number
}

/** Owns the pools, their lifecycle and what they share. Made by `createBalancer`. */
export class Balancer<Fetch = unknown> {
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  readonly #events = new Events()
  readonly #host: PoolHost
  readonly #planOf: (options: BalancerOptions) => BalancerPlan
  readonly #calls = new Set<LiveCall>()
  readonly #pools = new Map<string, Pool>()
  #plan: BalancerPlan
  #closing: Promise<void> | undefined
  #drained: (() => void) | undefined
  /** A drop-in `fetch` over the pool's backends; bound, so it may be passed around. */
  readonly fetch: Fetch

  constructor(
    options: BalancerOptions,
    shared: { readonly clock: Clock; readonly random: Random },
    planOf: (options: BalancerOptions) => BalancerPlan,
    fetch: (host: FaceHost) => Fetch,
  ) {
    this.#clock = shared.clock
    this.#deadlines = new Deadlines(shared.clock)
    this.#planOf = planOf
    this.#host = {
      clock: shared.clock,
      random: shared.random,
      deadlines: this.#deadlines,
      emit: (event, ...details) => this.#events.tell(event, details),
      over: (call) => this.#over(call),
    }
    this.#plan = planOf(options)
    this.#apply(this.#plan)
    this.fetch = fetch({
      send: (request, callOptions) => this.send(request, callOptions),
      bufferBytes: (pool) => this.#planned(pool).bufferBytes,
      checkOrigin: (origin) => this.#checkOrigin(origin),
    })
  }

  get name(): string {
    return this.#plan.name
  }

  /** Resolves when the balancer can be relied on; rejects once it is closed. */
  async ready(): Promise<void> {
    if (this.#closing !== undefined) throw closed(this.name)
  }

  /**
   * The face below the faces: raw headers and pushed bodies, for adapters. The call is over when its response's body was
   * read to its end, discarded or cancelled, or when `response` rejects. `call.cancel(reason)` ends it at any time.
   */
  send(request: BalancerRequest, options: CallOptions = {}): Sending {
    const planned = this.#planned(options.pool)
    const pool = this.#pools.get(planned.name)!
    const call = new LiveCall(planned.name, request.method, options, planned.totalMs, this.#clock.now())
    if (this.#closing !== undefined) {
      call.over()
      return { call, response: Promise.reject(closed(this.name)) }
    }
    this.#calls.add(call)
    pool.totals.calls++
    return { call, response: this.#run(call, request, pool, pool.handle) }
  }

  /** Numbers of this moment, plain data. */
  stats(): BalancerStats {
    const nowMs = this.#clock.now()
    const pools: Record<string, PoolStats> = {}
    for (const [name, pool] of this.#pools) {
      pools[name] = {
        ...pool.totals,
        strategy: pool.strategy,
        transport: pool.transport.name,
        inflight: pool.inflight,
        panic: pool.panic,
        budgetLeft: pool.budget.left(),
        backends: pool.records.map((record) => ({
          id: record.id,
          url: record.endpoint.url,
          weight: record.weight,
          state: record.reasons.size > 0 ? 'blocked' : record.weight > 0 ? 'up' : 'drained',
          reasons: record.describe(nowMs),
          inflight: record.inflight,
          requests: record.totals.requests,
          failures: record.totals.failures,
          classes: { ...record.totals.classes },
          p50Ms: record.quantiles.read(0.5, nowMs),
          p99Ms: record.quantiles.read(0.99, nowMs),
          ewmaMs: record.latency.read(nowMs),
        })),
      }
    }
    return { name: this.name, pools }
  }

  /** The whole new configuration. A wrong one throws and changes nothing; calls under way finish where they are. */
  async update(options: BalancerOptions): Promise<void> {
    if (this.#closing !== undefined) throw closed(this.name)
    this.#plan = this.#planOf(options)
    this.#apply(this.#plan)
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

  async #run(call: LiveCall, request: BalancerRequest, pool: Pool, handle: CallHandler): Promise<BalancerResponse> {
    try {
      const response = await handle(call, request)
      pool.answered(call)
      return response
    } catch (error) {
      if (call.canceled && !(error instanceof BalancerError)) pool.totals.aborted++
      else pool.totals.failed++
      pool.answered(call)
      throw error
    }
  }

  #over(call: LiveCall): void {
    call.over()
    this.#calls.delete(call)
    if (this.#calls.size === 0) this.#drained?.()
  }

  #apply(plan: BalancerPlan): void {
    const old = new Map(this.#pools)
    this.#pools.clear()
    for (const { name, parts, endpoints } of plan.pools) {
      const pool = old.get(name)
      old.delete(name)
      pool?.reconfigure(parts, endpoints)
      this.#pools.set(name, pool ?? new Pool(name, parts, endpoints, this.#host))
    }
    for (const pool of old.values()) {
      pool.apply([])
      pool.close()
    }
  }

  #planned(name: string | undefined): BalancerPlan['pools'][number] {
    const { pools } = this.#plan
    const found = name === undefined ? pools[0] : pools.find((pool) => pool.name === name)
    if (found !== undefined) return found
    const known = pools.map((pool) => pool.name).join(', ')
    throw new BalancerError('CONFIG', `no pool is named ${JSON.stringify(name)}; there are: ${known}`)
  }

  #checkOrigin(origin: string): void {
    const { origins } = this.#plan
    if (origins === undefined || origins.includes(origin)) return
    throw new BalancerError('CONFIG', `fetch of ${origin} refused: origins allows ${origins.join(', ') || 'none'}`)
  }

  async #close(drainMs: number): Promise<void> {
    if (this.#calls.size > 0 && drainMs > 0) {
      await new Promise<void>((resolve) => {
        const stop = this.#clock.after(drainMs, resolve)
        this.#drained = () => {
          stop()
          resolve()
        }
      })
    }
    for (const call of this.#calls) call.cancel(closed(this.name))
    const transports = new Set<Transport>()
    for (const pool of this.#pools.values()) {
      pool.close()
      transports.add(pool.transport)
    }
    await Promise.all([...transports].map((transport) => transport.close?.()))
    this.#deadlines.close()
    this.#events.tell('closed', [])
    this.#events.removeAllListeners()
  }
}

function closed(name: string): BalancerError {
  return new BalancerError('CLOSED', `the balancer ${name} is closed`)
}
