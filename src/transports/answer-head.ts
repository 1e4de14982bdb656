/** What of a backend's heads is believed, whatever library read them. It imports none. */
import type { RawHeaders } from '../core/contracts.ts'
import { isNamed, latin1 } from '../core/headers.ts'

/** Most fields of a head, and of the trailers: ten times what large sites send. */
const MOST_FIELDS = 500
/** Most 1xx of one exchange, and most bytes of their fields together. */
const MOST_INTERIM = 10
const MOST_INTERIM_BYTES = 16_384

/** Why an answer is no HTTP, with a code as llhttp's are: they mean a breach of the protocol wherever they come from. */
export function breach(code: string, message: string): Error {
  return Object.assign(new Error(message), { code })
}

/** Throws for the head of a final answer that must not be passed on. `maxBytes` = of its names and values. */
export function checkHead(headers: RawHeaders, maxBytes: number): void {
  checkSize(headers, maxBytes)
  let coding: string | undefined
  for (let i = 0; i < headers.length; i += 2) {
    if (!isNamed(headers[i]!, 'transfer-encoding')) continue
    coding = coding === undefined ? latin1(headers[i + 1]!) : `${coding}, ${latin1(headers[i + 1]!)}`
  }
  if (coding === undefined || coding.trim().toLowerCase() === 'chunked') return
  // Of any other coding nobody here knows the end, and the body would be handed over coded (RFC 9112 6.1).
  throw breach('HPE_INVALID_TRANSFER_ENCODING', `Transfer-Encoding: ${coding}, where only chunked is known`)
}

/** Throws for more fields, or more bytes of them, than anybody should have to carry. */
export function checkSize(headers: RawHeaders, maxBytes: number): void {
  if (headers.length > 2 * MOST_FIELDS) {
    throw breach('HPE_HEADER_OVERFLOW', `${headers.length / 2} fields, where ${MOST_FIELDS} are the most`)
  }
  if (bytesOf(headers) > maxBytes) throw breach('HPE_HEADER_OVERFLOW', `fields of more than ${maxBytes} bytes`)
}

/** Counts the 1xx of one exchange: a backend must not keep somebody busy with them for ever. */
export class InterimCount {
  #count = 0
  #bytes = 0

  /** Throws for one too many, and for what is no interim answer to a request like ours. */
  check(status: number, headers: RawHeaders): void {
    if (status < 100) throw breach('HPE_INVALID_STATUS', `status ${status}`)
    if (status === 101) throw breach('HPE_UNEXPECTED_101', 'a change of protocol that nobody asked for')
    this.#count++
    this.#bytes += bytesOf(headers)
    if (this.#count > MOST_INTERIM) throw breach('HPE_TOO_MANY_INTERIM', `more than ${MOST_INTERIM} answers 1xx`)
    if (this.#bytes > MOST_INTERIM_BYTES) {
      throw breach('HPE_TOO_MANY_INTERIM', `answers 1xx of more than ${MOST_INTERIM_BYTES} bytes`)
    }
  }
}

function bytesOf(headers: RawHeaders): number {
  let bytes = 0
  for (const text of headers) bytes += text.length
  return bytes
}
