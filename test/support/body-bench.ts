import { Body, type BodyOwner } from '../../src/core/body.ts'
import type { BodyControl, BodySink, RawHeaders, ResponseBody } from '../../src/core/contracts.ts'

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

/** The transport's end of a body, with nothing between: each push goes to the body at once. */
export class Source implements ResponseBody {
  sink!: BodySink
  /** Whether it was asked to wait: a chunk answered false, and no resume since. */
  waiting = false
  resumes = 0
  canceledWith: unknown

  consume(sink: BodySink): BodyControl {
    this.sink = sink
    return {
      resume: () => {
        this.waiting = false
        this.resumes++
      },
      cancel: (reason) => {
        this.canceledWith = reason
      },
    }
  }

  discard(): void {
    throw new Error('core always consumes')
  }

  push(text: string | Uint8Array): boolean {
    const more = this.sink.chunk(typeof text === 'string' ? bytes(text) : text)
    this.waiting = !more
    return more
  }
}

/** What an attempt does with a body's news, and a log of it. */
export class Owner implements BodyOwner {
  readonly log: string[] = []
  signs = 0
  body!: Body
  #over = false

  active(): void {
    this.signs++
  }

  ended(): void {
    this.#over = true
    this.log.push('ended')
  }

  failed(failure: unknown): unknown {
    this.#over = true
    this.log.push('failed')
    return new Error('told to the reader', { cause: failure })
  }

  cancel(reason: unknown): void {
    if (this.#over) return
    this.#over = true
    this.log.push(`canceled: ${(reason as Error).message}`)
    this.body.abort(reason, reason)
  }
}

/** A reader that logs, and takes each chunk as `take` says. */
export class Reader implements BodySink {
  readonly log: string[] = []
  control: BodyControl | undefined
  error: unknown
  readonly #take: (reader: Reader, text: string) => boolean

  constructor(take: (reader: Reader, text: string) => boolean = () => true) {
    this.#take = take
  }

  chunk(data: Uint8Array): boolean {
    const text = Buffer.from(data).toString('latin1')
    this.log.push(text.length > 20 ? `${text.length} bytes` : text)
    return this.#take(this, text)
  }

  end(trailers?: RawHeaders): void {
    this.log.push(trailers === undefined ? 'end' : `end with ${trailers.join(' ')}`)
  }

  fail(error: unknown): void {
    this.error = error
    this.log.push('fail')
  }

  read(body: ResponseBody): this {
    this.control = body.consume(this)
    return this
  }
}

/** A body between the two ends of it. */
export function bodyBench(): { source: Source; owner: Owner; body: Body } {
  const source = new Source()
  const owner = new Owner()
  const body = new Body(owner, source)
  owner.body = body
  return { source, owner, body }
}
