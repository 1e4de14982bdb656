import type { BodyControl, BodySink, ResponseBody } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import type { HeaderList } from './header-list.ts'

/** What is said of bytes that are no longer the ones that are sent (RFC 9110 8.6, 9530). */
const OF_BYTES = ['accept-ranges', 'content-digest', 'content-md5', 'digest', 'repr-digest', 'trailer']

/** Most of an intercepted body, bytes. */
export const INTERCEPT_BYTES = 1_048_576

/** Takes back what the head says of a body that is going to be another one. */
export function loosen(headers: HeaderList): void {
  for (const name of OF_BYTES) headers.remove(name)
  const tag = headers.get('etag')
  if (tag !== undefined && !tag.startsWith('W/')) headers.set('etag', `W/${tag}`)
}

/** The whole of a body; rejects if it breaks off or is longer than that. */
export function whole(body: ResponseBody, limitBytes: number): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
  const chunks: Uint8Array[] = []
  let bytes = 0
  let control: BodyControl | undefined
  const tooLong = new BalancerError('PROTOCOL', `an answer of more than ${limitBytes} bytes cannot be intercepted`)
  control = body.consume({
    chunk(data) {
      bytes += data.length
      if (bytes <= limitBytes) chunks.push(data)
      else control?.cancel(tooLong)
      if (bytes > limitBytes) reject(tooLong)
      return true
    },
    end: () => resolve(Buffer.concat(chunks)),
    fail: reject,
  })
  if (bytes > limitBytes) control.cancel(tooLong)
  return promise
}

/** A body that is there already. */
export class BytesBody implements ResponseBody, BodyControl {
  readonly #bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get length(): number {
    return this.#bytes.length
  }

  consume(sink: BodySink): BodyControl {
    if (this.#bytes.length > 0) sink.chunk(this.#bytes)
    sink.end()
    return this
  }

  discard(): void {}

  resume(): void {}

  cancel(): void {}
}
