import { reachOf, sendAside } from './aside.ts'
import { attempted, type Lender, type LentBy, LiveAttempt, perform } from './attempt.ts'
import { type BackendRecord, type Change, diff } from './backend.ts'
import { Budget, sameBudget } from './budget.ts'
import type { LiveCall } from './call.ts'
import type {
  AttemptHandler,
  Backend,
  BalancerRequest,
  BalancerResponse,
  CallHandler,
  Chooser,
  Core,
  Endpoint,
  Members,
  Picker,
  PoolControl,
  Reason,
  Stop,
  Transport,
} from './contracts.ts'
import { Durations, Times } from './durations.ts'
import { BalancerError } from './errors.ts'
import { Latencies } from './latencies.ts'
import { builtPicker, startedChooser } from './part-checks.ts'
import { composeAttempts, composeCalls } from './pipeline.ts'
import { count, countEvent, noTotals, type PoolHost, type PoolParts, type PoolTotals } from './pool-parts.ts'
import { Secret } from './secret.ts'
import { inUse, nobody, Selection } from './selection.ts'
import { Watchers } from './watchers.ts'

/** Weight changes are published at most this often, ms: a ramp over many backends must not rebuild pickers all the time. */
const WEIGH_MS = 100

/** Backends, strategy and policies under one name. The change path rebuilds snapshots; the request path only reads them. */
export class Pool implements PoolControl, Lender {
  readonly name: string
  readonly totals: PoolTotals = noTotals()
  readonly times: Times = new Times()
  /** Of whole calls, to the end of their last attempt. */
  readonly callDurations: Durations = new Durations()
  readonly watchers: Watchers = new Watchers((part, error) => this.report(part, error))
  readonly #host: PoolHost
  readonly #records = new Map<string, BackendRecord>()
  readonly #warned = new Set<string>()
  readonly #selection: Selection
  readonly #latencies: Latencies
  // Set by the first commit, before anything else can be asked of a pool.
  #parts!: PoolParts
  #core!: Core
  #lentBy!: LentBy
  #closed = false
  #stopWeigh: Stop | undefined
  #weighedMs = -Infinity
  inflight = 0
  panic = false
  /** The pool's whole pipeline: what a call goes through after the balancer's own. */
  handle!: CallHandler

  constructor(name: string, host: PoolHost) {
    this.name = name
    this.#host = host
    this.#selection = new Selection(host.random)
    this.#latencies = new Latencies(host, () => this.records)
  }

  get members(): Members {
    return this.#selection.members
  }

  get records(): readonly BackendRecord[] {
    return this.members.all as readonly BackendRecord[]
  }

  get strategy(): string {
    return this.#parts.strategy.name
  }

  get transport(): Transport {
    return this.#parts.transport
  }

  get budget(): Budget {
    return this.#core.budget
  }

  get chooser(): Chooser {
    return this.#lentBy.chooser
  }

  /**
   * Everything of a change that may throw: starting the parts, composing the policies, asking the strategy for a picker.
   * `commit` makes it so in one step, calls under way finish with the policies they began with; `abandon` leaves no trace.
   */
  prepare(parts: PoolParts, endpoints: readonly Endpoint[]): { commit(): void; abandon(): void } {
    const old = this.#parts as PoolParts | undefined
    const budget = old !== undefined && sameBudget(old.budget, parts.budget) ? this.#core.budget : undefined
    const core = this.#coreOf(parts, budget)
    const chooser = parts.strategy === old?.strategy ? this.#lentBy.chooser : startedChooser(parts.strategy, core)
    const change = diff(this.#records, endpoints)
    builtPicker(parts.strategy, chooser, inUse(change.all, parts.panicBelow, parts.strategy).members)
    const handle = this.#compose(parts, core)
    const { abandon, commit } = this.watchers.begin(parts.watchers, core)
    return {
      abandon,
      commit: () => {
        commit(parts.sinks)
        this.#commit(parts, core, chooser, handle, change)
      },
    }
  }

  close(): void {
    this.#closed = true
    this.watchers.stop()
    this.#stopWeigh?.()
  }

  // --- the change path

  apply(endpoints: readonly Endpoint[]): void {
    this.#change(diff(this.#records, endpoints))
  }

  block(backend: Backend, reason: Reason): void {
    const record = backend as BackendRecord
    if (record.removed) return
    const { detail } = reason
    const told = detail === undefined ? reason : { ...reason, detail: this.#redacted(record, detail) }
    if (!record.reasons.has(reason.by)) {
      count(record.totals.blocks, reason.by)
      count(this.totals.blocks, reason.by)
    }
    record.reasons.set(reason.by, told)
    this.#publish()
    this.#host.emit('blocked', record, told)
  }

  unblock(backend: Backend, by: string): void {
    const record = backend as BackendRecord
    const reason = record.reasons.get(by)
    if (reason === undefined || record.removed) return
    record.reasons.delete(by)
    if (record.reasons.size === 0) this.#latencies.level(record)
    this.watchers.unblocked(record, reason)
    this.#publish()
    if (!this.#closed) this.#host.emit('unblocked', record, reason) // then nobody is back
  }

  weigh(backend: Backend, by: string, factor: number): void {
    const record = backend as BackendRecord
    if (!(factor >= 0 && factor <= 1)) throw new RangeError(`weigh by ${by}: expected 0..1, got ${factor}`)
    if ((record.factors.get(by) ?? 1) === factor) return
    if (factor === 1) record.factors.delete(by)
    else record.factors.set(by, factor)
    record.reweigh()
    const waitMs = this.#weighedMs + WEIGH_MS - this.now()
    if (waitMs <= 0) return this.#publish()
    this.#stopWeigh ??= this.#host.clock.after(waitMs, () => this.#publish())
  }

  limit(backend: Backend, by: string, most: number): void {
    if (!(most >= 1)) throw new RangeError(`limit by ${by}: expected at least 1, got ${most}`)
    const record = backend as BackendRecord
    if (most === Infinity) record.limits.delete(by)
    else record.limits.set(by, most)
    record.relimit() // pickers need not know: a full backend is passed over
  }

  // --- the request path

  now(): number {
    return this.#host.clock.now()
  }

  /** One backend that every gate admitted, or undefined. */
  pick(call: LiveCall): BackendRecord | undefined {
    call.nowMs = this.now()
    return this.#selection.pick(call)
  }

  /** Picks a backend and lends it: the attempt must be ended. Throws when nobody can be had. */
  lend(call: LiveCall, request: BalancerRequest): LiveAttempt {
    call.readKey(this.#parts.strategy, request)
    const backend = this.pick(call)
    if (backend === undefined) throw nobody(this.name, this.records, call)
    const fresh = call.again === backend
    call.again = undefined
    const attempt = new LiveAttempt(call, backend, backend.requestFor(request), fresh, this, this.#lentBy)
    call.add(attempt)
    // By who admitted it just now; while the balancer closes its calls may still try again.
    if (backend.removed || backend.reasons.has('drain') || this.#host.closing?.() === true) attempt.drain()
    backend.inflight++
    this.inflight++
    backend.totals.requests++
    this.totals.attempts++
    return attempt
  }

  // --- the lender

  headed(attempt: LiveAttempt): void {
    this.#latencies.learn(attempt, attempt.headMs)
    this.#tellChooser('head', attempt)
    this.watchers.tell('head', attempt)
  }

  settled(attempt: LiveAttempt): void {
    const { backend, call } = attempt
    const kind = attempt.outcome!.class
    backend.inflight--
    this.inflight--
    if (backend.inflight === 0) backend.becameIdle()
    call.live--
    count(backend.totals.classes, kind)
    count(this.totals.classes, kind)
    backend.times.add(attempt)
    this.times.add(attempt)
    if (attempt.rule!.health === 'failure') backend.totals.failures++
    if (kind !== attempt.headClass) this.#latencies.learn(attempt, attempt.endMs)
    this.#tellChooser('settle', attempt)
    for (const gate of attempt.by.gates) {
      try {
        gate.release(backend, attempt)
      } catch (error) {
        this.report(gate.name, error)
      }
    }
    this.watchers.tell('attempt', attempt)
    this.#host.emit('attempt', attempt)
    if (call.answered && call.live === 0) this.#over(call)
  }

  met(error: unknown, call: LiveCall): void {
    this.#host.met(error, call)
  }

  answered(call: LiveCall): void {
    this.totals.answered++
    this.#ended(call)
  }

  /** It counts as aborted if its caller gave it up. */
  failed(call: LiveCall, error: unknown): void {
    call.error = error
    if (call.canceled && !(error instanceof BalancerError)) this.totals.aborted++
    else this.totals.failed++
    this.#ended(call)
  }

  // --- inside

  #tellChooser(what: 'head' | 'settle', attempt: LiveAttempt): void {
    try {
      attempt.by.chooser[what]?.(attempt)
    } catch (error) {
      this.report('the strategy', error)
    }
  }

  /** It was answered or failed; it is over once its attempts are. */
  #ended(call: LiveCall): void {
    call.answered = true
    if (call.live === 0) this.#over(call)
  }

  #over(call: LiveCall): void {
    this.callDurations.observe(this.now() - call.startMs)
    this.watchers.over(call)
    this.#host.over(call)
  }

  #coreOf(parts: PoolParts, budget = new Budget(parts.budget, this.#host.clock)): Core {
    const { clock, random, deadlines } = this.#host
    return {
      pool: this.name,
      clock,
      random,
      deadlines,
      budget,
      control: this,
      classes: parts.classes,
      send: (backend, request) => sendAside(backend as BackendRecord, request, this.#parts.transport, clock),
      reach: (backend, signal) => reachOf(this.#parts.transport)(backend, signal),
      members: () => this.members,
      emit: (event, ...details) => {
        countEvent(this.totals, event, details)
        this.#host.emit(event, ...details)
      },
    }
  }

  #commit(parts: PoolParts, core: Core, chooser: Chooser, handle: CallHandler, change: Change): void {
    const old = this.#parts as PoolParts | undefined
    const { gates } = this.watchers
    this.#parts = parts
    this.#core = core
    this.handle = handle
    this.#selection.gates = gates
    this.#lentBy = { gates, chooser, classes: parts.classes, classify: parts.classify }
    if (old !== undefined && parts.transport !== old.transport) {
      for (const record of this.records) void this.#forget(record, old.transport)
    }
    this.#change(change)
  }

  #compose(parts: PoolParts, core: Core): CallHandler {
    const { policies } = parts
    // A retry may outlive an update: it sends over the transport of that moment, which knows the backends of that moment.
    const send = composeAttempts(policies, core, (it) => perform(it as LiveAttempt, this.#parts.transport))
    const pool = composeCalls(policies, 'pool', core, (it, request) => this.#attempt(it as LiveCall, request, send))
    return composeCalls(policies, 'balancer', core, pool)
  }

  #change({ all, added, changed, left }: Change): void {
    for (const record of added) this.#latencies.level(record)
    for (const [record, endpoint] of changed) {
      record.endpoint = endpoint
      record.reweigh()
      record.relimit()
    }
    for (const record of left) {
      record.removed = true
      record.forgive?.clear()
    }
    this.#records.clear()
    for (const record of all) this.#records.set(record.id, record)
    this.#publish(all)
    this.watchers.members(all)
    if (this.#stopWeigh !== undefined) this.#publish() // a newcomer's small weight holds from its first request on
    if (left.length > 0) this.#host.left?.()
    for (const record of left) {
      void this.#forget(record, this.#parts.transport)
      this.#host.emit('removed', record)
    }
    for (const record of added) this.#host.emit('added', record)
    for (const [record] of changed) this.#host.emit('updated', record)
  }

  async #forget(record: BackendRecord, transport: Transport): Promise<void> {
    try {
      await transport.forget?.(record)
    } catch (error) {
      this.report(`forget of ${transport.name}`, error)
    }
  }

  #redacted(record: BackendRecord, text: string): string {
    return Secret.redacting(this.#parts.secrets ?? [])(record.redacted(text))
  }

  /** Innermost of the call pipeline: pick, make the attempt, send it. */
  #attempt(call: LiveCall, request: BalancerRequest, send: AttemptHandler): Promise<BalancerResponse> {
    if (call.canceled) return Promise.reject(call.reason)
    return attempted(() => this.lend(call, request), send)
  }

  #publish(all: readonly BackendRecord[] = this.records): void {
    this.#stopWeigh?.()
    this.#stopWeigh = undefined
    this.#weighedMs = this.now()
    const { panicBelow, strategy } = this.#parts
    const { members, usable, panic } = inUse(all, panicBelow, strategy)
    this.panic = panic
    this.#selection.set(members, usable, this.#built(members), strategy.name)
  }

  /** Everything but a first build happens where no caller could take an error: whoever is eligible then gets a turn. */
  #built(members: Members): Picker {
    try {
      return builtPicker(this.#parts.strategy, this.#lentBy.chooser, members)
    } catch (error) {
      this.report('the strategy', error)
      const { eligible } = members
      return () => (eligible.length === 0 ? undefined : eligible[this.#host.random(eligible.length)])
    }
  }

  /** A part that throws where only bookkeeping is done must not break a request: it is reported, once per part. */
  report(name: string, error: unknown): void {
    if (this.#warned.has(name)) return
    this.#warned.add(name)
    this.#host.emit('warning', new BalancerError('CONFIG', `${name} threw in pool ${this.name}`, { cause: error }))
  }
}
