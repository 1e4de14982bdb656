import { Body, concat } from '../core/body.ts'
import type { BodyControl, BodySink, RawHeaders, ResponseBody } from '../core/contracts.ts'

/** Buffered in a stream made from a body before its connection is paused, bytes. */
const STREAM_BYTES = 65_536

/** What nobody has read to its end yet: when it is collected, it gives its connection back. */
export class Unread {
  readonly #registry = new FinalizationRegistry<() => void>((giveBack) => giveBack())

  /** A body that is in already has no connection to give back. */
  watch(holder: object, body: ResponseBody): void {
    if (body instanceof Body && !body.settled) this.#registry.register(holder, () => body.discard(), holder)
  }

  /** `token` stands for the stream in `touched`: what would hold the stream itself would keep it for ever. */
  watchStream(stream: object, giveBack: () => void, token: object): void {
    this.#registry.register(stream, giveBack, token)
  }

  touched(holder: object): void {
    this.#registry.unregister(holder)
  }
}

/**
 * All bytes of a body, and its trailers if it has any. The bytes may share memory with the network's buffers: to be copied before
 * anybody may write to them.
 */
export function collect(body: ResponseBody, trailers?: (raw: RawHeaders) => void): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let first: Uint8Array | undefined
    let rest: Uint8Array[] | undefined
    body.consume({
      chunk(data) {
        if (first === undefined) first = data
        else if (rest === undefined) rest = [first, data]
        else rest.push(data)
        return true
      },
      end(raw) {
        if (raw !== undefined) trailers?.(raw)
        resolve(rest === undefined ? (first ?? new Uint8Array(0)) : concat(rest))
      },
      fail: reject,
    })
  })
}

/**
 * A real byte stream that pulls from the body as it is read. While it is full nothing but its owner holds it, so that one
 * that was dropped can be collected; while a read waits, the body does.
 */
export function bodyStream(
  body: ResponseBody,
  unread: Unread,
  trailers?: (raw: RawHeaders) => void,
): ReadableStream<Uint8Array> {
  const token = {}
  let control: BodyControl | undefined
  let held: ReadableByteStreamController | undefined
  let weak: WeakRef<ReadableByteStreamController> | undefined
  const sink: BodySink = {
    chunk(data) {
      const controller = held ?? weak?.deref()
      if (controller === undefined) return false
      controller.enqueue(new Uint8Array(data)) // a copy: a byte stream takes its chunks' memory away
      const room = (controller.desiredSize ?? 0) > 0
      if (!room) held = undefined
      return room
    },
    end(raw) {
      if (raw !== undefined) trailers?.(raw)
      const controller = held ?? weak?.deref()
      unread.touched(token)
      controller?.close()
      controller?.byobRequest?.respond(0) // a reader of its own buffer is told of the end only this way
    },
    fail: (error) => (held ?? weak?.deref())?.error(error),
  }
  const stream: ReadableStream<Uint8Array> = new ReadableStream(
    {
      type: 'bytes',
      start(controller) {
        held = controller
        weak = new WeakRef(controller)
      },
      pull(controller) {
        held = controller
        if (control === undefined) control = body.consume(sink)
        else control.resume()
      },
      cancel(reason) {
        unread.touched(token)
        if (control === undefined) body.consume(sink).cancel(reason)
        else control.cancel(reason)
      },
    },
    { highWaterMark: STREAM_BYTES },
  )
  const giveBack = (): void => control?.cancel(new Error('the stream was collected unread'))
  unread.watchStream(stream, giveBack, token)
  return stream
}
