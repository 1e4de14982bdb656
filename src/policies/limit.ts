import type {
  BalancerRequest,
  BalancerResponse,
  Call,
  CallHandler,
  Core,
  Policy,
  Stop,
  Watcher,
} from '../core/contracts.ts'
import { Deadline } from '../core/deadlines.ts'
import { BalancerError } from '../core/errors.ts'
import { type Place, Queue, type QueueOrder, rankOf } from './queue.ts'

export interface LimitSettings {
  /** Most calls in flight; undefined = no limit but those of the backends. */
  readonly maxInflight: number | undefined
  readonly queue: QueueSettings | false
}

export interface QueueSettings {
  readonly size: number
  readonly timeoutMs: number
  readonly order: QueueOrder
  readonly overloadMs: number
}

/** Nobody waits. Its time is what callers are told to stay away for: the least a Retry-After can say, in whole seconds. */
const NO_QUEUE: QueueSettings = { size: 0, timeoutMs: 1_000, order: 'fifo', overloadMs: 0 }

type Send = () => Promise<BalancerResponse>

interface Waiter extends Place {
  readonly send: Send
  readonly resolve: (response: BalancerResponse) => void
  readonly reject: (reason: unknown) => void
  readonly deadline: Deadline
  /** What its last try met, if it had one: everybody was full. */
  met: BalancerError | undefined
  stopCancel: Stop
}

/**
 * Most calls of one pool in flight, and a queue for those that find the pool or all of its backends full. One object per pool: the
 * policy lets calls in, the watcher tells it of ends. When the watcher is stopped, those that wait go on as they are: what comes
 * next has its own limit, or none.
 */
export function limit(settings: LimitSettings): { readonly policy: Policy; readonly watcher: Watcher } {
  const admission = new Admission(settings)
  return {
    policy: {
      name: 'limit',
      scope: 'pool',
      wrap(next, core) {
        admission.core = core
        return (call, request) => admission.handle(call, request, next)
      },
    },
    watcher: {
      name: 'limit',
      start() {
        admission.start()
        return {
          sink: { name: 'limit', attempt: () => admission.roomAgain() },
          members: () => admission.roomAgain(),
          unblocked: () => void Promise.resolve().then(() => admission.roomAgain()), // once it may be picked
          stats: { waiting: () => admission.waiting },
          stop: () => admission.stop(),
        }
      },
    },
  }
}

class Admission {
  readonly #most: number
  readonly #settings: QueueSettings
  readonly #queue: Queue<Waiter>
  /** Calls, by their tags, for whom all were full where others have room: to be tried again when an attempt has ended. */
  readonly #vain = new Set<string>()
  /** How often there was room again: a try that was overtaken by such news proves nothing. */
  #news = 0
  #inflight = 0
  #arrivals = 0
  #stopped = false
  #stopHold: Stop | undefined
  /** The pool's of the moment. */
  core!: Core

  constructor({ maxInflight = Infinity, queue }: LimitSettings) {
    this.#most = maxInflight
    this.#settings = queue === false ? NO_QUEUE : queue
    this.#queue = new Queue(this.#settings.order, this.#settings.overloadMs)
  }

  get waiting(): number {
    return this.#queue.size
  }

  handle(call: Call, request: BalancerRequest, next: CallHandler): Promise<BalancerResponse> {
    if (call.attempts.length > 0) return next(call, request) // somebody outside sends it again: it has its slot
    const send: Send = () => next(call, request)
    if (this.#queue.size > 0) this.#wake() // there may be room of which nobody tells: a limit raised, a backend back
    if (!this.#admits(call)) return this.#wait(call, send, undefined)
    const news = this.#news
    return this.#start(send).then(
      (response) => this.#answered(call, response),
      (error: unknown) => {
        if (!this.#bounced(call, error, news)) throw error
        return this.#wait(call, send, error)
      },
    )
  }

  start(): void {
    this.#stopped = false
  }

  /** An attempt ended, or the backends changed. */
  roomAgain(): void {
    this.#news++
    this.#vain.clear()
    this.#wake()
  }

  stop(): void {
    this.#stopped = true
    for (let waiter = this.#first(); waiter !== undefined; waiter = this.#first()) this.#go(waiter)
  }

  // --- in flight

  #admits(call: Call): boolean {
    if (this.#stopped) return true
    if (this.#inflight >= this.#most) return false
    if (this.#queue.size === 0) return true
    return this.#mayGo(call) && this.#hasRoom() && this.#next() === undefined
  }

  #start(send: Send): Promise<BalancerResponse> {
    this.#inflight++
    try {
      return send()
    } catch (error) {
      return Promise.reject(error) // a policy that throws at once fails as one that rejects: later
    }
  }

  #answered(call: Call, response: BalancerResponse): BalancerResponse {
    call.onEnd(this.#giveBack)
    return response
  }

  /** It failed. True if nothing was sent because everybody was full: then it has no slot any more, and may wait. */
  #bounced(call: Call, error: unknown, news: number): error is BalancerError {
    if (call.attempts.length > 0) {
      call.onEnd(this.#giveBack) // other attempts of it may be under way
      return false
    }
    const full = !call.canceled && isFull(error)
    if (full && news === this.#news && this.#hasRoom()) this.#vain.add(kindOf(call))
    this.#inflight--
    if (!full) this.#wake()
    return full
  }

  readonly #giveBack = (): void => {
    this.#inflight--
    this.#wake()
  }

  /** False only if everybody is known to be full. With nobody at all waiting is in vain too. */
  #hasRoom(): boolean {
    const { eligible } = this.core.members()
    return eligible.length === 0 || eligible.some(({ inflight, limit: most }) => inflight < most)
  }

  // --- waiting

  #wait(call: Call, send: Send, met: BalancerError | undefined): Promise<BalancerResponse> {
    const { clock, deadlines } = this.core
    return new Promise((resolve, reject) => {
      const deadline = new Deadline(deadlines, () => {
        this.#leave(waiter)
        this.#refuse(waiter, `waited ${this.#settings.timeoutMs} ms for its turn`)
      })
      const arrival = this.#arrivals++
      const stopCancel = (): void => {}
      const waiter: Waiter = { call, arrival, sinceMs: clock.now(), send, resolve, reject, deadline, met, stopCancel }
      this.#take(waiter, false)
    })
  }

  /** Gives it its place, or refuses it. One that comes back is put before the last of its class. */
  #take(waiter: Waiter, back: boolean): void {
    const { call } = waiter
    const { size } = this.#settings
    const crowded = this.#queue.size >= size
    const displaced = crowded ? this.#displacedBy(waiter, back) : undefined
    if (call.canceled) waiter.reject(call.reason)
    else if (size === 0 || this.#stopped) this.#refuse(waiter, 'there is no queue')
    else if (rankOf(call) < 0) this.#refuse(waiter, `${call.criticality} calls do not wait`)
    else if (crowded && displaced === undefined) this.#refuse(waiter, `${size} others wait already`)
    else this.#enter(waiter, displaced, back)
    this.#wake()
  }

  #enter(waiter: Waiter, displaced: Waiter | undefined, back: boolean): void {
    const { call } = waiter
    if (displaced !== undefined) this.#leave(displaced)
    this.#queue.add(waiter)
    this.#holdProcess()
    waiter.deadline.set(this.#settings.timeoutMs, waiter.sinceMs)
    waiter.stopCancel = call.onCancel((reason) => {
      this.#leave(waiter)
      waiter.reject(reason)
    })
    if (displaced !== undefined) this.#refuse(displaced, 'another took its place in the queue')
    if (!back) this.core.emit('queued', call)
  }

  #displacedBy({ call }: Waiter, back: boolean): Waiter | undefined {
    const last = this.#queue.last(this.core.clock.now())
    if (last === undefined) return undefined
    const below = rankOf(last.call) - rankOf(call)
    return below > 0 || (back && below === 0) ? last : undefined
  }

  /** Somebody waits for an answer: the process must not end meanwhile. The deadlines' own timer does not keep it. */
  #holdProcess(): void {
    this.#stopHold ??= this.core.clock.after(
      this.#settings.timeoutMs,
      () => {
        this.#stopHold = undefined
        if (this.#queue.size > 0) this.#holdProcess()
      },
      true,
    )
  }

  #leave(waiter: Waiter): void {
    this.#queue.remove(waiter)
    if (this.#queue.size === 0) {
      this.#stopHold?.()
      this.#stopHold = undefined
    }
    waiter.deadline.clear()
    waiter.stopCancel()
  }

  /** As many as there is room for. */
  #wake(): void {
    while (this.#inflight < this.#most) {
      const waiter = this.#next()
      if (waiter === undefined) return
      this.#go(waiter)
      if (waiter.call.attempts.length === 0) return // it met nobody, and will tell in a moment
    }
  }

  #next(): Waiter | undefined {
    if (this.#queue.size === 0 || !this.#hasRoom()) return undefined
    return this.#first(({ call }) => this.#mayGo(call))
  }

  #first(mayGo: (waiter: Waiter) => boolean = () => true): Waiter | undefined {
    return this.#queue.first(this.core.clock.now(), mayGo)
  }

  #mayGo(call: Call): boolean {
    return this.#vain.size === 0 || !this.#vain.has(kindOf(call))
  }

  #go(waiter: Waiter): void {
    const { call } = waiter
    const news = this.#news
    this.#leave(waiter)
    this.#start(waiter.send).then(
      (response) => waiter.resolve(this.#answered(call, response)),
      (error: unknown) => {
        if (!this.#bounced(call, error, news)) return waiter.reject(error)
        waiter.met = error
        this.#take(waiter, true)
      },
    )
  }

  /** By the time it is told to come back, all who wait now have been served or refused. */
  #refuse({ call, met, reject }: Waiter, why: string): void {
    const busy = met?.message ?? `pool ${this.core.pool}: ${this.#busy()}`
    const details = met?.reasons === undefined ? {} : { reasons: met.reasons, cause: met }
    const retryAfterMs = this.#settings.timeoutMs
    reject(new BalancerError('OVERLOADED', `${busy}; ${why}`, { ...details, retryAfterMs }))
    this.core.emit('shed', call)
  }

  #busy(): string {
    return this.#inflight < this.#most ? 'all backends are full' : `${this.#most} calls in flight, its limit`
  }
}

/** Nobody could be had, and some only because they are full. */
function isFull(error: unknown): error is BalancerError {
  return error instanceof BalancerError && error.code === 'OVERLOADED' && error.reasons !== undefined
}

function kindOf({ tags, sole }: Call): string {
  return [sole?.id ?? '', ...tags].join('\0')
}
