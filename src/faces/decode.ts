import type { Transform } from 'node:stream'
import zlib from 'node:zlib'
import type { BodyControl, BodySink, RawHeaders, ResponseBody } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { isNamed, latin1 } from '../core/headers.ts'

/** Most codings of one answer, one over the other (undici's limit). */
const MOST_CODINGS = 5

/** Takes a coding off; made when its first byte is there. */
type Decoder = (first: number | undefined) => Transform

const DECODERS = new Map<string, Decoder>([
  ['gzip', () => zlib.createGunzip()],
  ['x-gzip', () => zlib.createGunzip()],
  // Many servers leave the zlib header out that HTTP asks for: its lower four bits are 8.
  ['deflate', (first = 8) => ((first & 15) === 8 ? zlib.createInflate() : zlib.createInflateRaw())],
  ['br', () => zlib.createBrotliDecompress()],
  ['zstd', () => zlib.createZstdDecompress()],
])

/**
 * The body without its content codings, as fetch hands it over; the same body if it has none, or one that nobody knows. Nothing is
 * decoded before somebody reads, nor faster than he does.
 */
export function decoded(body: ResponseBody, headers: RawHeaders): ResponseBody {
  let codings: string[] | undefined
  for (let i = 0; i < headers.length; i += 2) {
    if (!isNamed(headers[i]!, 'content-encoding')) continue
    codings = [
      ...(codings ?? []),
      ...latin1(headers[i + 1]!)
        .toLowerCase()
        .split(','),
    ]
  }
  if (codings === undefined) return body
  const decoders = codings.map((coding) => DECODERS.get(coding.trim())).filter((decoder) => decoder !== undefined)
  if (decoders.length < codings.length) return body
  if (decoders.length > MOST_CODINGS) {
    body.discard()
    throw new BalancerError('PROTOCOL', `the answer has ${decoders.length} content codings, one over the other`)
  }
  decoders.reverse() // the last one was applied last
  return {
    consume: (sink) => new Decoding(body, sink, decoders),
    discard: () => body.discard(),
  }
}

/** Between a body and its reader. */
class Decoding implements BodyControl, BodySink {
  readonly #source: BodyControl
  readonly #sink: BodySink
  readonly #decoders: readonly Decoder[]
  #streams: readonly Transform[] = []
  #trailers: RawHeaders | undefined
  /** All of the source is in. */
  #isWhole = false
  #over = false

  constructor(body: ResponseBody, sink: BodySink, decoders: readonly Decoder[]) {
    this.#sink = sink
    this.#decoders = decoders
    this.#source = body.consume(this)
  }

  // --- what the body calls

  chunk(data: Uint8Array): boolean {
    if (this.#over) return true
    if (this.#streams.length === 0) this.#open(data[0])
    return this.#streams[0]!.write(data)
  }

  end(trailers?: RawHeaders): void {
    this.#isWhole = true
    this.#trailers = trailers
    if (this.#streams.length === 0) this.#ended()
    else this.#streams[0]!.end()
  }

  fail(error: unknown): void {
    if (this.#over) return
    this.#stop()
    this.#sink.fail(error)
  }

  // --- what the reader calls

  resume(): void {
    this.#streams.at(-1)?.resume()
  }

  cancel(reason: unknown): void {
    if (this.#over) return
    this.#stop()
    this.#source.cancel(reason)
  }

  // --- inside

  #open(first: number | undefined): void {
    const streams = this.#decoders.map((decoder, i) => decoder(i === 0 ? first : undefined))
    this.#streams = streams
    const last = streams.at(-1)!
    for (const [i, stream] of streams.entries()) {
      stream.on('error', (cause) => this.#broken(cause))
      if (i > 0) streams[i - 1]!.pipe(stream)
    }
    streams[0]!.on('drain', () => this.#source.resume())
    last.on('data', (chunk: Uint8Array) => {
      if (!this.#over && !this.#sink.chunk(chunk)) last.pause()
    })
    last.on('end', () => this.#ended())
  }

  #ended(): void {
    if (this.#over) return
    this.#stop()
    // Nobody takes what comes behind the end of a coding: its source would wait for ever.
    if (!this.#isWhole) this.#source.cancel(new Error('the content coding ends before the body'))
    this.#sink.end(this.#trailers)
  }

  #broken(cause: Error): void {
    if (this.#over) return
    this.cancel(cause)
    this.#sink.fail(new BalancerError('PROTOCOL', 'the body of the answer is not encoded as it says', { cause }))
  }

  #stop(): void {
    this.#over = true
    for (const stream of this.#streams) stream.destroy()
  }
}
