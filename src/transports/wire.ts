/** Between undici's words and ours. It imports nothing of undici: only `undici.ts` does. */
import type { BalancerRequest, RawHeaders } from '../core/contracts.ts'
import { header, wireHeaders } from '../core/headers.ts'

/** Headers as undici hands them over. */
export type Parsed = Readonly<Record<string, string | string[] | undefined>>

/** undici has parsed the headers already: names in lower case, repeats in order. Using that is cheaper than its raw bytes. */
export function rawOf(parsed: Parsed): RawHeaders {
  const raw: string[] = []
  for (const name in parsed) {
    const value = parsed[name]!
    if (typeof value === 'string') raw.push(name, value)
    else for (const one of value) raw.push(name, one)
  }
  return raw
}

/** As undici takes them; the length of an opened body, where it is known, must be said: undici would send it chunked. */
export function headersOf({ headers, body }: BalancerRequest): string[] {
  const out = wireHeaders(headers)
  if (body === null || body instanceof Uint8Array || body.length === undefined) return out
  if (header(headers, 'content-length') === undefined) out.push('content-length', String(body.length))
  return out
}

/** The code of what undici or Node failed with; '' if it has none. */
export function codeOf(error: Error): string {
  const code = 'code' in error ? error.code : undefined
  if (typeof code === 'string') return code
  if (error.name === 'HTTPParserError') return 'HPE_INVALID' // undici loses llhttp's own code
  // Several addresses were tried, each with its own failure (Node's happy eyeballs).
  if (error instanceof AggregateError && error.errors[0] instanceof Error) return codeOf(error.errors[0])
  return ''
}

/** undici's parser leaves what it could not read in its error, and that may repeat what was sent: it is not to end up in a log. */
export function withoutData(error: Error): Error {
  if (error.name === 'HTTPParserError' && 'data' in error) delete error.data
  return error
}
