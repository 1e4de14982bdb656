import type { RequestHeaders } from './contracts.ts'
import { Secret } from './secret.ts'

/** A header's text: bytes are latin1 (RFC 9110 5.5), and a secret does not show. */
export function latin1(text: string | Uint8Array | Secret): string {
  if (typeof text === 'string') return text
  if (text instanceof Secret) return String(text)
  let out = ''
  for (const byte of text) out += String.fromCharCode(byte)
  return out
}

/** A request's headers as they go onto the wire: for transports, the only place where secrets are revealed. */
export function wireHeaders(headers: RequestHeaders): string[] {
  return headers.map(wireText)
}

function wireText(text: string | Uint8Array | Secret): string {
  if (typeof text === 'string') return text
  return text instanceof Secret ? text.reveal() : latin1(text)
}

/** The first value of a header, undefined without one. `name` in lower case. */
export function header(headers: RequestHeaders, name: string): string | undefined {
  for (let i = 0; i < headers.length; i += 2) {
    if (isNamed(headers[i]!, name)) return latin1(headers[i + 1]!)
  }
  return undefined
}

/** Whether a raw name is `name` (lower case), whatever its case. */
export function isNamed(raw: string | Uint8Array | Secret, name: string): boolean {
  if (raw instanceof Secret || raw.length !== name.length) return false
  for (let i = 0; i < name.length; i++) {
    const code = typeof raw === 'string' ? raw.charCodeAt(i) : raw[i]!
    const lower = code >= 65 && code <= 90 ? code | 32 : code
    if (lower !== name.charCodeAt(i)) return false
  }
  return true
}

/** The headers with some of them set, as secrets: repeats of a set name are replaced, whatever their case. */
export function withHeaders(headers: RequestHeaders, set: Readonly<Record<string, string | Secret>>): RequestHeaders {
  const names = Object.keys(set).map((name) => name.toLowerCase())
  const out: (string | Uint8Array | Secret)[] = []
  for (let i = 0; i < headers.length; i += 2) {
    if (!names.some((name) => isNamed(headers[i]!, name))) out.push(headers[i]!, headers[i + 1]!)
  }
  for (const [name, value] of Object.entries(set)) out.push(name, Secret.of(value))
  return out
}
