import type { BackendRecord } from './backend.ts'
import { Body, type BodyOwner } from './body.ts'
import type { LiveCall } from './call.ts'
import type {
  Attempt,
  BalancerRequest,
  BalancerResponse,
  BodySink,
  Chooser,
  Classify,
  Gate,
  RawHeaders,
  SendFailure,
  Stages,
  Stop,
  Transport,
} from './contracts.ts'
import { BalancerError } from './errors.ts'
import { header } from './headers.ts'
import {
  type Classes,
  type ClassRule,
  classOfFailure,
  classOfStatus,
  errorOf,
  type Outcome,
  type OutcomeClass,
} from './outcome.ts'

/** Who lent the backend, and takes it back: the pool. */
export interface Lender {
  now(): number
  /** The head is in; `attempt.class` says what it means. */
  headed(attempt: LiveAttempt): void
  /** The lease ends. Called exactly once per attempt. */
  settled(attempt: LiveAttempt): void
  /** An answer that was handed over broke: what its reader is told. */
  met(error: unknown, call: LiveCall): void
  /** A part threw where only bookkeeping is done. */
  report(what: string, error: unknown): void
}

/** Who let it through, judges it and hears of its end: an update may have replaced the pool's by then. */
export interface LentBy {
  readonly gates: readonly Gate[]
  readonly chooser: Chooser
  readonly classes: Classes
  readonly classify: Classify | undefined
}

/** A send in progress: the lease on one backend. It settles exactly once, whoever ends it first. */
export class LiveAttempt implements Attempt, BodyOwner {
  readonly call: LiveCall
  readonly backend: BackendRecord
  readonly number: number
  readonly fresh: boolean
  readonly startMs: number
  readonly by: LentBy
  readonly #lender: Lender
  /** Behind accessors: it may hold a backend's secret headers, which no inspect or JSON of an attempt may show. */
  #request: BalancerRequest
  #headers: RawHeaders | undefined = undefined
  sentMs: number = NaN
  headMs: number = NaN
  firstByteMs: number = NaN
  endMs: number = NaN
  activeMs: number
  status = 0
  canceled = false
  /** It is in the transport's hands; until then a policy may answer in its place. */
  started = false
  /** Why it was cancelled. */
  reason: unknown = undefined
  class: OutcomeClass | undefined = undefined
  rule: ClassRule | undefined = undefined
  decision: string | undefined = undefined
  draining = false
  /** What the head alone said. */
  headClass: OutcomeClass | undefined = undefined
  outcome: Outcome | undefined = undefined
  #body: Body | undefined = undefined
  #stages: Stages[] | undefined = undefined
  #cancelers: ((reason: unknown) => void)[] | undefined = undefined

  constructor(
    call: LiveCall,
    backend: BackendRecord,
    request: BalancerRequest,
    fresh: boolean,
    lender: Lender,
    by: LentBy,
  ) {
    this.call = call
    this.backend = backend
    this.number = call.attempts.length + 1
    this.#request = request
    this.fresh = fresh
    this.by = by
    this.#lender = lender
    this.startMs = call.nowMs // of the pick, just now
    this.activeMs = this.startMs
  }

  get request(): BalancerRequest {
    return this.#request
  }

  set request(request: BalancerRequest) {
    this.#request = request
  }

  get headers(): RawHeaders | undefined {
    return this.#headers
  }

  watch(stages: Stages): void {
    if (this.#stages === undefined) this.#stages = [stages]
    else this.#stages.push(stages)
  }

  onCancel(run: (reason: unknown) => void): Stop {
    if (this.#cancelers === undefined) this.#cancelers = [run]
    else this.#cancelers.push(run)
    return () => {
      this.#cancelers = this.#cancelers?.filter((other) => other !== run)
    }
  }

  sent(): void {
    if (this.sentMs >= 0 || this.outcome !== undefined) return
    this.sentMs = this.activeMs = this.#lender.now()
    this.#tell('sent')
  }

  /** Its backend is to be left: who holds a tunnel hears of it. */
  drain(): void {
    if (this.outcome !== undefined || this.draining) return
    this.draining = true
    this.#tell('drain')
  }

  cancel(reason: unknown): void {
    if (this.outcome !== undefined || this.canceled) return
    this.canceled = true
    this.reason = reason
    if (this.#body !== undefined) {
      const outcome = this.#outcomeOf({ phase: 'body', processed: 'maybe', reused: false, code: '', cause: reason })
      try {
        this.#body.abort(reason, this.#errorOf(outcome))
      } finally {
        this.#end(outcome) // also when the reader throws at the news
      }
      return
    }
    const cancelers = this.#cancelers
    this.#cancelers = undefined
    if (cancelers !== undefined) for (const run of cancelers) run(reason)
  }

  /** The transport answered: classifies, and puts the body under watch. */
  head(response: BalancerResponse): BalancerResponse {
    this.#cancelers = undefined
    this.headMs = this.activeMs = this.#lender.now()
    this.status = response.status
    this.#headers = response.headers
    this.headClass = this.#judged('done', '', undefined) ?? classOfStatus(response.status)
    this.#classed(this.headClass)
    this.#lender.headed(this)
    this.#tell('head')
    if (this.canceled) {
      // By who was just told: the body has no reader yet.
      response.body.consume(NOBODY).cancel(this.reason)
      throw this.failedToSend(withdrawn(this))
    }
    const { status, headers, socket } = response
    const body = new Body(this, response.body, socket !== undefined)
    this.#body = body
    return socket === undefined ? { status, headers, body } : { status, headers, body, socket }
  }

  /** `send` rejected. Returns the error for the caller. */
  failedToSend(failure: SendFailure): unknown {
    this.#cancelers = undefined
    const outcome = this.#outcomeOf(failure)
    this.#end(outcome)
    return this.#told(this.outcome!, this.rule!)
  }

  /** A lease without a transport ends as its holder says. */
  settle(kind: OutcomeClass, error: unknown, status = 0): void {
    this.status = status
    this.#end({ class: kind, status, phase: 'done', code: codeOf(error), error })
  }

  /** It was never sent: a policy answered or threw in its place. Nothing is learned about the backend. */
  unused(status: number, error: unknown): void {
    this.#end({ class: 'cancelled', status, phase: 'done', code: '', error })
  }

  // --- the body's side

  active(): void {
    this.activeMs = this.#lender.now()
    if (!(this.firstByteMs >= 0)) this.firstByteMs = this.activeMs
  }

  ended(): void {
    this.#end({ class: this.class!, status: this.status, phase: 'done', code: '', error: undefined })
  }

  failed(failure: unknown): unknown {
    const outcome = this.#outcomeOf(failure as SendFailure)
    this.#end(outcome)
    return this.#errorOf(outcome)
  }

  // --- inside

  /** What the reader of the body gets. */
  #errorOf(outcome: Outcome): unknown {
    const error = this.#told(outcome, this.by.classes[outcome.class])
    this.#lender.met(error, this.call)
    return error
  }

  #told(outcome: Outcome, rule: ClassRule): unknown {
    const { backend } = this
    return errorOf(outcome, rule, backend.id, (text) => backend.redacted(text))
  }

  #outcomeOf(told: SendFailure): Outcome {
    // Of a cancel the reason is known here; a transport may have wrapped it.
    const failure = this.canceled ? { ...told, cause: this.reason } : told
    let kind = classOfFailure(failure, this.canceled)
    // A reader that stopped reading is nobody's fault but its own.
    if (kind === 'timeout' && this.#body?.blocked === true) kind = 'cancelled'
    if (kind !== 'cancelled') kind = this.#judged(failure.phase, failure.code, failure.cause) ?? kind
    return { class: kind, status: this.status, phase: failure.phase, code: failure.code, error: failure.cause }
  }

  #classed(kind: OutcomeClass): void {
    this.class = kind
    this.rule = this.by.classes[kind]
  }

  /** What the user's hook says; one that throws, or says what is no class, is reported, and the table decides. */
  #judged(phase: Outcome['phase'], code: string, error: unknown): OutcomeClass | undefined {
    const { classify } = this.by
    if (classify === undefined) return undefined
    const { backend, status } = this
    try {
      const kind = classify({ backend, status, headers: this.#headers, phase, code, error })
      // Nobody cancelled it: a hook cannot say so.
      if (kind === undefined || (kind !== 'cancelled' && Object.hasOwn(this.by.classes, kind))) return kind
      throw new TypeError(`expected undefined or a class other than 'cancelled', found ${String(kind)}`)
    } catch (cause) {
      this.#lender.report('classify', cause)
      return undefined
    }
  }

  /** A stage that throws is a bug of the policy that watches: reported, and the attempt goes on. */
  #tell(stage: keyof Stages): void {
    if (this.#stages === undefined) return
    for (const stages of this.#stages) {
      try {
        stages[stage]?.()
      } catch (error) {
        this.#lender.report(`a watcher of ${stage}`, error)
      }
    }
  }

  #end(outcome: Outcome): void {
    if (this.outcome !== undefined) return
    // A head that was a failure stays one, however its body ended.
    const failing = this.rule?.health === 'failure'
    this.outcome = failing ? { ...outcome, class: this.class! } : outcome
    this.#classed(this.outcome.class)
    this.endMs = this.#lender.now()
    this.#tell('end')
    this.#stages = undefined
    this.#cancelers = undefined
    this.#lender.settled(this)
  }
}

/** Innermost of the attempt pipeline. */
export function perform(attempt: LiveAttempt, transport: Transport): Promise<BalancerResponse> {
  attempt.started = true
  if (attempt.canceled) return Promise.reject(attempt.failedToSend(withdrawn(attempt)))
  let sent: Promise<BalancerResponse>
  try {
    sent = transport.send(attempt)
  } catch (error) {
    return Promise.reject(attempt.failedToSend(asSendFailure(error)))
  }
  return sent.then(
    (response) => performed(attempt, response),
    (error: unknown) => {
      throw attempt.failedToSend(asSendFailure(error))
    },
  )
}

/** One attempt through the policies of its scope. Whatever they do, it ends. */
export function attempted(
  lend: () => LiveAttempt,
  send: (attempt: LiveAttempt) => Promise<BalancerResponse>,
): Promise<BalancerResponse> {
  let attempt: LiveAttempt | undefined
  try {
    attempt = lend()
    const answer = send(attempt)
    return attempt.started ? answer : guarded(attempt, answer)
  } catch (error) {
    if (attempt?.started)
      attempt.cancel(error) // the policy passed it on, then threw
    else attempt?.unused(0, error)
    return Promise.reject(error)
  }
}

/** A policy of the user's has not passed the attempt on yet: it may answer or throw in its place. */
async function guarded(attempt: LiveAttempt, answer: Promise<BalancerResponse>): Promise<BalancerResponse> {
  try {
    const response = await answer
    if (!attempt.started) attempt.unused(response.status, undefined)
    return response
  } catch (error) {
    if (!attempt.started) attempt.unused(0, error)
    throw error
  }
}

function performed(attempt: LiveAttempt, response: BalancerResponse): BalancerResponse {
  const { status } = response
  const isHttp = status >= 200 && status <= 599
  if (!attempt.canceled && (isHttp || isUpgrade(response, attempt.request))) return attempt.head(response)
  response.body.consume(NOBODY).cancel(attempt.reason)
  // Cancelled between the transport's answer and this line, or no HTTP.
  if (attempt.canceled) throw attempt.failedToSend(withdrawn(attempt))
  const cause = new Error(status === 101 ? 'an upgrade that was not asked for' : `status ${status} is outside 200..599`)
  throw attempt.failedToSend({ phase: 'head', processed: 'maybe', reused: false, code: 'BAD_STATUS', cause })
}

/** Whether it changes to the protocol that was asked for (RFC 9110 7.8). */
function isUpgrade({ status, socket, headers }: BalancerResponse, { upgrade }: BalancerRequest): boolean {
  if (status !== 101 || socket === undefined || upgrade === undefined) return false
  return header(headers, 'upgrade')?.toLowerCase() === upgrade.toLowerCase()
}

/** What `send` rejects with must be a SendFailure; anything else is a bug of the transport, told as what it is. */
function asSendFailure(error: unknown): SendFailure {
  if (typeof error === 'object' && error !== null && 'phase' in error && 'processed' in error)
    return error as SendFailure
  const cause = error instanceof Error ? error : new BalancerError('PROTOCOL', `the transport threw ${String(error)}`)
  return { phase: 'head', processed: 'maybe', reused: false, code: '', cause }
}

const NOBODY: BodySink = { chunk: () => true, end: () => {}, fail: () => {} }

function withdrawn(attempt: LiveAttempt): SendFailure {
  return { phase: 'head', processed: 'maybe', reused: false, code: '', cause: attempt.reason }
}

function codeOf(error: unknown): string {
  const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : ''
  return typeof code === 'string' ? code : ''
}
