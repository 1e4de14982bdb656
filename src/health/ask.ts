import { concat } from '../core/body.ts'
import type { Backend, BalancerRequest, BalancerResponse, Probe, RawHeaders, ResponseBody } from '../core/contracts.ts'

/** Of a body nobody looks at more than this, bytes: what a health page has to say comes first. */
export const LOOKED_AT_BYTES = 1_024

/** Statuses from..to, both included. */
export interface StatusRange {
  readonly from: number
  readonly to: number
}

/** What a check is given to ask with. */
export type Use = Parameters<Probe['check']>[1]

/** Sends what a check asks; the check's end ends it. */
export function ask(backend: Backend, request: BalancerRequest, { send, signal }: Use): Promise<BalancerResponse> {
  const { call, response } = send(backend, request)
  signal.addEventListener('abort', () => call.cancel(signal.reason), { once: true })
  return response
}

/** What was read of a body. */
export interface Beginning {
  readonly bytes: Uint8Array
  /** None before its end. */
  readonly trailers: RawHeaders | undefined
}

/**
 * The first bytes of a body: all that will be looked at, or what there is as soon as it is `enough`. What is short is then still
 * read to its end, so that its connection lives; what is longer is given up.
 */
export function beginningOf(
  body: ResponseBody,
  enough: (bytes: Uint8Array) => boolean = () => false,
): Promise<Beginning> {
  return new Promise((resolve, reject) => {
    let bytes: Uint8Array = new Uint8Array(0)
    const control = body.consume({
      chunk(data) {
        bytes = concat([bytes, data.subarray(0, LOOKED_AT_BYTES - bytes.length)])
        const isFull = bytes.length === LOOKED_AT_BYTES
        if (isFull || enough(bytes)) resolve({ bytes, trailers: undefined })
        // Not now: this may be called from within `consume`.
        if (isFull) queueMicrotask(() => control.cancel(new Error('no more is looked at')))
        return !isFull
      },
      end: (trailers) => resolve({ bytes, trailers }),
      fail: reject,
    })
  })
}
