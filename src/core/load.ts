import type { RawHeaders } from './contracts.ts'
import { header } from './headers.ts'
import { FAILURE_MS } from './latency.ts'

/** Requests in flight at the server that answers (RIF), the one it answers not counted. */
export const RIF_HEADER = 'x-lb-rif'
/** How long a request would take there now, ms; left out while that is not known. */
export const LATENCY_HEADER = 'x-lb-lat-ms'
/** Where servers that count their load answer probes. */
export const PROBE_PATH = '/lb-probe'
/** What a probe carries, so that a server knows it wherever it arrives: behind a base path, or where nobody answers it. */
export const PROBE_HEADER = 'x-lb-probe'

/** What a server says of its load. */
export interface ReportedLoad {
  readonly rif: number
  /** Undefined while it does not know. */
  readonly latencyMs: number | undefined
}

/** Undefined without a number of requests in flight. */
export function loadIn(headers: RawHeaders): ReportedLoad | undefined {
  const rif = numberOf(header(headers, RIF_HEADER))
  return rif === undefined ? undefined : { rif, latencyMs: numberOf(header(headers, LATENCY_HEADER)) }
}

/** Plain decimals only: neither signs nor exponents. */
function numberOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,9}(\.\d{1,9})?$/.test(text) ? Number(text) : undefined
}

/** Requests that are remembered. */
const SIZE = 64
/** Of these, so many that met about the load of now decide. */
const NEAREST = 25
/** An older one says nothing, ms. */
const FRESH_MS = 1_000

/**
 * How a request ended: 'served', with whatever it asked for; 'failed' or refused, which counts as slow, since failing fast must
 * not look like being fast; 'aborted' by the client, after which only that it took longer than expected counts.
 */
export type Ending = 'served' | 'failed' | 'aborted'

/**
 * What a server knows of its own load (Prequal, NSDI '24): requests in flight, and how long one takes at that many. Each
 * request is remembered with the number it met; what it took is scaled to the number of now, or clients would herd to a server
 * that was fast only because it was idle.
 */
export class Load {
  readonly #met = new Float64Array(SIZE)
  readonly #tookMs = new Float64Array(SIZE)
  readonly #endMs = new Float64Array(SIZE).fill(-Infinity)
  readonly #order = new Float64Array(SIZE)
  readonly #scaled = new Float64Array(NEAREST)
  #next = 0
  #inflight = 0

  get inflight(): number {
    return this.#inflight
  }

  /** A request came. Returns how many were in flight before it: `end` wants to know. */
  begin(): number {
    return this.#inflight++
  }

  /** It is over, after so long. Once per request, unless `learn` and `leave` were told of it. */
  end(met: number, tookMs: number, nowMs: number, ending: Ending): void {
    this.leave()
    this.learn(met, tookMs, nowMs, ending)
  }

  /** It is over. */
  leave(): void {
    this.#inflight--
  }

  /** How long it took is known, be it over or not. */
  learn(met: number, tookMs: number, nowMs: number, ending: Ending): void {
    // Not a number while nothing is known: then an abort says at least something.
    if (ending === 'aborted' && tookMs <= this.latencyMs(met, nowMs)) return
    this.#met[this.#next] = met
    this.#tookMs[this.#next] = ending === 'failed' ? Math.max(tookMs, FAILURE_MS) : tookMs
    this.#endMs[this.#next] = nowMs
    this.#next = (this.#next + 1) % SIZE
  }

  /** Of now, with `own` of those in flight not counted: the one that is answered, if it is one of them. */
  report(nowMs: number, own = 0): ReportedLoad {
    const rif = this.#inflight - own
    const latencyMs = this.latencyMs(rif, nowMs)
    return { rif, latencyMs: latencyMs >= 0 ? latencyMs : undefined }
  }

  /** The median of what recent requests took that met about `rif` others, each scaled to `rif`, ms; NaN without any. */
  latencyMs(rif: number, nowMs: number): number {
    let fresh = 0
    for (let age = 0; age < SIZE; age++) {
      const at = this.#at(age)
      if (nowMs - this.#endMs[at]! < FRESH_MS) {
        this.#order[fresh++] = Math.abs(this.#met[at]! - rif) * SIZE + age // of equally near ones the newest
      }
    }
    this.#order.subarray(0, fresh).sort()
    const n = Math.min(fresh, NEAREST)
    for (let i = 0; i < n; i++) {
      const at = this.#at(this.#order[i]! % SIZE)
      this.#scaled[i] = (this.#tookMs[at]! * (rif + 1)) / (this.#met[at]! + 1)
    }
    this.#scaled.subarray(0, n).sort()
    return n === 0 ? Number.NaN : this.#scaled[n >> 1]!
  }

  /** Where the request is kept that ended so many ago. */
  #at(age: number): number {
    return (this.#next - 1 - age + 2 * SIZE) % SIZE
  }
}
