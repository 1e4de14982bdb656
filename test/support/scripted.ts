import {
  type Attempt,
  type Backend,
  BalancerError,
  type BalancerResponse,
  type BodyControl,
  type BodySink,
  type RawHeaders,
  type ResponseBody,
  type SendFailure,
  type Transport,
} from 'evenkeel'

const encoder = new TextEncoder()

/** One send, and the backend's side of it: the test, or a script, says what happens. Everything but its first end is ignored. */
export class ScriptedSend {
  readonly attempt: Attempt
  readonly #resolve: (response: BalancerResponse) => void
  readonly #reject: (failure: SendFailure) => void
  #phase: SendFailure['phase'] = 'connect'
  #over = false
  /** What the caller, or a timeout, cancelled it with before the head. */
  canceledWith: unknown
  /** The body of the answer, once there is a head. */
  body: ScriptedBody | undefined

  constructor(attempt: Attempt, resolve: (response: BalancerResponse) => void, reject: (failure: SendFailure) => void) {
    this.attempt = attempt
    this.#resolve = resolve
    this.#reject = reject
    attempt.onCancel((reason) => {
      this.canceledWith = reason
      this.fail({ cause: reason, code: '' })
    })
  }

  /** Id of the backend it went to. */
  get to(): string {
    return this.attempt.backend.id
  }

  /** It waits for a place among the connections. */
  wait(): void {
    this.#phase = 'wait'
  }

  /** It has a connection. */
  connect(): void {
    this.#phase = 'head'
    this.attempt.sent()
  }

  /** Only the head arrives; the body is left open. */
  head(status: number, headers: RawHeaders = []): ScriptedBody {
    this.connect()
    this.body ??= new ScriptedBody()
    if (this.#over) return this.body
    this.#over = true
    this.#resolve({ status, headers, body: this.body })
    return this.body
  }

  /** The whole answer at once. */
  answer(status = 200, text = '', headers: RawHeaders = []): void {
    const body = this.head(status, headers)
    if (text !== '') body.push(text)
    body.end()
  }

  fail(failure: Partial<SendFailure> = {}): void {
    if (this.#over) return
    this.#over = true
    const phase = failure.phase ?? this.#phase
    const processed = phase === 'head' || phase === 'body' ? 'maybe' : 'no'
    const cause = failure.cause ?? new Error(`failed in ${phase}`)
    this.#reject({ phase, processed, reused: false, code: 'ECONNRESET', ...failure, cause })
  }

  refuse(): void {
    this.fail({ phase: 'connect', code: 'ECONNREFUSED', cause: new Error('connect ECONNREFUSED') })
  }

  /** The connection was old: the backend had closed it before it saw this request. */
  stale(): void {
    this.connect()
    this.fail({ phase: 'head', reused: true, cause: new Error('other side closed') })
  }
}

/** A body as a well-behaved transport pushes it: what is pushed while the reader waits is kept and comes on resume. */
export class ScriptedBody implements ResponseBody, BodyControl {
  #sink: BodySink | undefined
  #queue: ((sink: BodySink) => boolean)[] = []
  #open = true
  paused = false
  resumes = 0
  discarded = false
  canceledWith: unknown

  consume(sink: BodySink): BodyControl {
    this.#sink = sink
    this.#flow()
    return this
  }

  discard(): void {
    this.discarded = true
    this.#open = false
  }

  resume(): void {
    this.resumes++
    this.paused = false
    this.#flow()
  }

  cancel(reason: unknown): void {
    this.canceledWith = reason
    this.#open = false
  }

  push(data: string | Uint8Array): void {
    const bytes = typeof data === 'string' ? encoder.encode(data) : data
    this.#queue.push((sink) => sink.chunk(bytes))
    this.#flow()
  }

  end(trailers?: RawHeaders): void {
    this.#queue.push((sink) => {
      this.#open = false
      sink.end(trailers)
      return true
    })
    this.#flow()
  }

  fail(code = 'ECONNRESET'): void {
    this.#queue.push((sink) => {
      this.#open = false
      sink.fail({ phase: 'body', processed: 'maybe', reused: false, code, cause: new Error('cut off') })
      return true
    })
    this.#flow()
  }

  #flow(): void {
    while (this.#open && !this.paused && this.#sink !== undefined && this.#queue.length > 0) {
      this.paused = !this.#queue.shift()!(this.#sink)
    }
  }
}

export interface ScriptedTransport extends Transport {
  /** Every send so far, in order. */
  readonly sends: readonly ScriptedSend[]
  /** Ids of the backends it was told to forget. */
  readonly forgotten: readonly string[]
  /** The latest send. */
  last(): ScriptedSend
}

/** A transport without a network. `play` says what the backend does with each send at once; without it the test does, later. */
export function scripted(play: (send: ScriptedSend, number: number) => void = () => {}): ScriptedTransport {
  const sends: ScriptedSend[] = []
  const forgotten: string[] = []
  return {
    name: 'scripted',
    sends,
    forgotten,
    send(attempt) {
      return new Promise((resolve, reject) => {
        const send = new ScriptedSend(attempt, resolve, reject)
        sends.push(send)
        play(send, sends.length)
      })
    },
    async forget(backend: Backend) {
      forgotten.push(backend.id)
    },
    last() {
      const send = sends.at(-1)
      if (send === undefined) throw new Error('nothing was sent yet')
      return send
    },
  }
}

/** Reads a body to its end. */
export async function textOf(body: ResponseBody): Promise<string> {
  const chunks: Uint8Array[] = []
  await new Promise<void>((resolve, reject) => {
    body.consume({
      chunk(data) {
        chunks.push(data)
        return true
      },
      end: () => resolve(),
      fail: reject,
    })
  })
  return Buffer.concat(chunks).toString('latin1')
}

/** The BalancerError a promise rejects with; anything else fails the test. */
export async function balancerError(promise: Promise<unknown>): Promise<BalancerError> {
  const error = await promise.then(
    () => new Error('it resolved'),
    (reason: unknown) => reason,
  )
  if (error instanceof BalancerError) return error
  throw error
}
