import { answeredBy } from '../core/call.ts'
import type {
  Attempt,
  Backend,
  BalancerRequest,
  BalancerResponse,
  Call,
  CallHandler,
  Core,
  Policy,
  RequestBody,
} from '../core/contracts.ts'
import { Deadline } from '../core/deadlines.ts'
import { Quantiles } from '../core/latency.ts'
import { isReplayable } from '../core/replay.ts'
import { atLimit, fits } from '../core/selection.ts'

export interface HedgeSettings {
  /** Wait before the second send, ms; undefined = by quantile. */
  readonly delayMs: number | undefined
  /** 0..1. */
  readonly percentile: number
  readonly minDelayMs: number
  /** Answers it takes before a quantile says anything. */
  readonly warmUp: number
  /** Above this share of hedged calls slowness is general, and a second send only adds to it, 0..1. */
  readonly maxShare: number
}

/** How long a quantile is used before it is read anew, ms. */
const REFRESH_MS = 1_000
/** The share of hedged calls is judged over about so many. */
const RECENT_CALLS = 100
/** The shortest wait, ms: a deadline of 0 would be none. */
const SHORTEST_MS = 1
/** A percentile that lies this many times above the 95th is all outliers: waiting for it would help nobody. */
const FAR = 3
const COMMON = 0.95

/**
 * Sends a call a second time, to another backend, when the first answer is late; the first good answer wins, and the other
 * attempt is cancelled, which is held against nobody. Only for what may be sent twice; it takes from the retry budget.
 */
export function hedge(settings: HedgeSettings): Policy {
  let delay: Delay | undefined // what it has learned outlives an update
  return {
    name: 'hedge',
    scope: 'pool',
    wrap(next, core) {
      delay ??= new Delay(settings, core.clock)
      return (call, request) => {
        const isHedged = call.idempotent && request.upgrade === undefined && isReplayable(request.body)
        const ms = isHedged ? delay!.ms() : undefined
        const first = next(call, request)
        const attempt = call.attempts.at(-1)
        if (attempt === undefined || attempt.outcome !== undefined) return first
        const answer = ms === undefined ? first : new Race(call, request, attempt, first, next, core, delay!).run(ms)
        return answer.then((response) => {
          const { rule, startMs } = answeredBy(call, response) ?? attempt
          // Until now, not until its head: a body that is held back is waited for too.
          if (rule?.latency === 'sample') delay!.learn(core.clock.now() - startMs)
          return response
        })
      }
    },
  }
}

/** One call, and at most two attempts at it. */
class Race extends Deadline {
  readonly #call: Call
  readonly #request: BalancerRequest
  readonly #next: CallHandler
  readonly #core: Core
  readonly #delay: Delay
  readonly #first: Attempt
  readonly #answer: Promise<BalancerResponse>
  /** Those that have neither answered nor failed. */
  readonly #pending = new Set<Attempt>()
  #over = false
  /** No good answer, but better than none. */
  #spare: BalancerResponse | undefined
  #resolve!: (response: BalancerResponse) => void
  #reject!: (error: unknown) => void

  constructor(
    call: Call,
    request: BalancerRequest,
    first: Attempt,
    answer: Promise<BalancerResponse>,
    next: CallHandler,
    core: Core,
    delay: Delay,
  ) {
    super(core.deadlines)
    this.#call = call
    this.#request = request
    this.#first = first
    this.#answer = answer
    this.#next = next
    this.#core = core
    this.#delay = delay
  }

  run(delayMs: number): Promise<BalancerResponse> {
    return new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
      this.set(delayMs, this.#first.startMs)
      this.#enter(this.#first, this.#answer)
    })
  }

  /** The first answer is late. */
  override expire(): void {
    const call = this.#call
    const first = this.#first
    if (call.canceled || !isRepeatable(this.#request.body)) return
    if (!this.#core.members().eligible.some((other) => isFree(other, call)) || !this.#delay.take(this.#core.budget))
      return
    const sends = call.attempts.length
    call.elsewhere = true
    const second = this.#next(call, this.#request)
    call.elsewhere = false
    const attempt = call.attempts[sends]
    if (attempt === undefined) return void second.catch(() => {}) // nobody else is to be had: the first goes on
    this.#core.emit('hedge', call, first, this.#core.clock.now() - first.startMs)
    this.#enter(attempt, second)
  }

  #enter(attempt: Attempt, answer: Promise<BalancerResponse>): void {
    this.#pending.add(attempt)
    answer.then(
      (response) => this.#answered(attempt, response),
      (error: unknown) => this.#failed(attempt, error),
    )
  }

  #answered(attempt: Attempt, response: BalancerResponse): void {
    this.#pending.delete(attempt)
    if (this.#over) return response.body.discard() // both came in the same moment
    if (this.#pending.size > 0 && attempt.rule?.health !== 'success') {
      this.#spare = response
      attempt.decision = 'no good answer: the other one is waited for'
      return
    }
    this.clear()
    this.#over = true
    this.#resolve(response)
    this.#spare?.body.discard()
    for (const other of this.#pending) this.#giveUp(other)
    if (attempt !== this.#first) this.#core.emit('hedgeWon', this.#call, attempt)
  }

  #giveUp(loser: Attempt): void {
    if (loser.outcome !== undefined) return
    if (loser === this.#first) {
      // That it was still out counts as at least so long: without the slow ones the quantile would sink, call by call, and a
      // backend that never answers would look like one nobody has asked.
      const nowMs = this.#core.clock.now()
      this.#delay.learn(nowMs - loser.startMs)
      loser.backend.latency.observe(nowMs - loser.startMs, nowMs)
    }
    loser.decision = 'given up: another backend answered first'
    loser.cancel(new Error('another backend answered first'))
  }

  #failed(attempt: Attempt, error: unknown): void {
    this.#pending.delete(attempt)
    if (this.#over) return
    if (this.#pending.size > 0) {
      attempt.decision = 'failed: the other one is waited for'
      return
    }
    this.clear()
    if (this.#spare !== undefined && !this.#call.canceled) return this.#resolve(this.#spare)
    this.#spare?.body.discard()
    this.#reject(error)
  }
}

/** How long to wait: fixed, or as long as all but a few answers take. */
class Delay {
  readonly #settings: HedgeSettings
  readonly #clock: Core['clock']
  readonly #latencies = new Quantiles()
  #answers = 0
  #ms: number | undefined
  #readMs = -Infinity
  /** Share of recent calls that were late, hedged or not, as an exponentially weighted mean. */
  #share = 0

  constructor(settings: HedgeSettings, clock: Core['clock']) {
    this.#settings = settings
    this.#clock = clock
    if (settings.delayMs !== undefined) this.#ms = Math.max(settings.delayMs, settings.minDelayMs, SHORTEST_MS)
  }

  /** Ms; undefined = not now. */
  ms(): number | undefined {
    this.#share -= this.#share / RECENT_CALLS
    const { delayMs, warmUp } = this.#settings
    if (delayMs !== undefined) return this.#ms
    if (this.#answers < warmUp) return undefined
    const nowMs = this.#clock.now()
    if (nowMs - this.#readMs >= REFRESH_MS) {
      this.#readMs = nowMs
      this.#ms = this.#read(nowMs)
    }
    return this.#ms
  }

  /** One more call is late: whether it may be hedged. */
  take(budget: Core['budget']): boolean {
    this.#share = Math.min(1, this.#share + 1 / RECENT_CALLS)
    return this.#share <= this.#settings.maxShare && budget.withdraw()
  }

  /** A head came after so long, ms, or had not come yet. */
  learn(ms: number): void {
    this.#latencies.observe(ms, this.#clock.now())
    this.#answers++
  }

  #read(nowMs: number): number | undefined {
    const { percentile, minDelayMs } = this.#settings
    const ms = this.#latencies.read(percentile, nowMs)
    if (Number.isNaN(ms)) return undefined
    if (percentile > COMMON && ms > FAR * this.#latencies.read(COMMON, nowMs)) return undefined
    return Math.max(Math.ceil(ms), minDelayMs) // few different times: each has a list of its own in the deadlines
  }
}

/** Whether a second send has somewhere to go. */
function isFree(backend: Backend, call: Call): boolean {
  return !call.tried(backend) && fits(backend, call) && !atLimit(backend)
}

/** Two attempts read it at the same time. */
function isRepeatable(body: RequestBody): boolean {
  return body === null || body instanceof Uint8Array || body.complete === true
}
