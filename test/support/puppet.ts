import type { Attempt, BalancerResponse, BodySink, SendFailure, Transport } from 'evenkeel'

/** One send that waits for the test to say how it goes. It keeps the transport's contract and nothing more. */
export class PuppetSend {
  readonly attempt: Attempt
  readonly #resolve: (response: BalancerResponse) => void
  readonly #reject: (failure: SendFailure) => void
  #sink: BodySink | undefined
  #early: (() => void)[] = []
  stage: 'pending' | 'body' | 'over' = 'pending'
  /** The reader asked to wait: a transport that goes on all the same breaks the contract. */
  paused = false

  constructor(attempt: Attempt, resolve: (response: BalancerResponse) => void, reject: (failure: SendFailure) => void) {
    this.attempt = attempt
    this.#resolve = resolve
    this.#reject = reject
    attempt.onCancel((reason) => this.failHead('head', false, reason))
  }

  head(status: number, headers: readonly string[] = []): void {
    if (this.stage !== 'pending') return
    this.attempt.sent()
    this.stage = 'body'
    this.#resolve({
      status,
      headers,
      body: {
        consume: (sink) => {
          this.#sink = sink
          for (const deliver of this.#early.splice(0)) deliver()
          return {
            resume: () => {
              this.paused = false
            },
            cancel: () => {
              this.stage = 'over'
            },
          }
        },
        discard: () => {},
      },
    })
  }

  failHead(phase: SendFailure['phase'], reused = false, cause: unknown = new Error(`failed in ${phase}`)): void {
    if (this.stage !== 'pending') return
    this.stage = 'over'
    const unsent = phase === 'wait' || phase === 'connect' || phase === 'tls'
    this.#reject({ phase, processed: unsent ? 'no' : 'maybe', reused, code: '', cause })
  }

  chunk(bytes: number): void {
    if (this.stage !== 'body' || this.paused) return
    this.#tell((sink) => {
      this.paused = !sink.chunk(new Uint8Array(bytes))
    })
  }

  end(): void {
    if (this.stage !== 'body') return
    this.stage = 'over'
    this.#tell((sink) => sink.end())
  }

  failBody(): void {
    if (this.stage !== 'body') return
    this.stage = 'over'
    const cause = new Error('cut')
    this.#tell((sink) => sink.fail({ phase: 'body', processed: 'maybe', reused: false, code: 'ECONNRESET', cause }))
  }

  #tell(deliver: (sink: BodySink) => void): void {
    const sink = this.#sink
    if (sink !== undefined) deliver(sink)
    else this.#early.push(() => deliver(this.#sink!))
  }
}

/** A transport at the network's edge whose every move the test makes. */
export function puppet(): Transport & { readonly sends: PuppetSend[] } {
  const sends: PuppetSend[] = []
  return {
    name: 'puppet',
    sends,
    send: (attempt) => new Promise((resolve, reject) => sends.push(new PuppetSend(attempt, resolve, reject))),
  }
}
