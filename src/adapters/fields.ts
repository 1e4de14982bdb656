/** The fields of a message as a proxy passes them on (RFC 9110 7.6): what is of one connection only stays behind, what it says of itself is added. */
import type { BalancerResponse, RawHeaders } from '../core/contracts.ts'
import { isNamed } from '../core/headers.ts'
import { LATENCY_HEADER, RIF_HEADER } from '../core/load.ts'
import { isOwn } from './incoming.ts'

/** Fields of one connection (RFC 9110 7.6.1), never forwarded; and what the transport or this proxy writes itself. */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'expect',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'trailers',
  'transfer-encoding',
  'upgrade',
])
/** What a `Connection` header may not nominate for removal: meant for every recipient, or set by us. */
const KEPT = new Set([
  'authorization',
  'content-length',
  'cookie',
  'forwarded',
  'host',
  'via',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-proto',
  'x-real-ip',
  'x-request-id',
])
/** What a backend says of its load is for this balancer; the server that this proxy is part of may have a load of its own to report. */
const LOAD = new Set([RIF_HEADER, LATENCY_HEADER, 'endpoint-load-metrics', 'endpoint-load-metrics-bin'])

export function responseHeaders(
  { status, headers }: BalancerResponse,
  setCookie: string | undefined,
  id: string | undefined,
  via: string,
): string[] {
  const out: string[] = []
  const nominated = nominations(joined(headers, 'connection'))
  for (let i = 0; i < headers.length; i += 2) {
    const name = text(headers[i]!)
    const lower = name.toLowerCase()
    if (status === 204 && lower === 'content-length') continue // RFC 9110 8.6
    if (HOP_BY_HOP.has(lower) || LOAD.has(lower) || nominated?.has(lower) === true) continue
    if (lower === 'x-request-id' && id !== undefined) continue
    out.push(name, text(headers[i + 1]!))
  }
  if (setCookie !== undefined) out.push('set-cookie', setCookie)
  if (id !== undefined) out.push('x-request-id', id)
  out.push('via', `1.1 ${via}`)
  return out
}

/** A field's values as one (RFC 9110 5.3); `name` in lower case. */
function joined(headers: RawHeaders, name: string): string | undefined {
  let value: string | undefined
  for (let i = 0; i < headers.length; i += 2) {
    if (!isNamed(headers[i]!, name)) continue
    const next = text(headers[i + 1]!)
    value = value === undefined ? next : `${value}, ${next}`
  }
  return value
}

/** The fields a Connection header asks to be removed; undefined for the usual 'keep-alive' and 'close'. */
export function nominations(connection: string | undefined): ReadonlySet<string> | undefined {
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return undefined
  const names = connection.split(',').map((name) => name.trim().toLowerCase())
  return new Set(names.filter((name) => !KEPT.has(name)))
}

function text(raw: string | Uint8Array): string {
  return typeof raw === 'string' ? raw : Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('latin1')
}

/** Trailers that could change what the head said are dropped (RFC 9110 6.5.1). */
export function trailersOf(raw: RawHeaders): [string, string][] {
  const out: [string, string][] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = text(raw[i]!)
    if (isTrailer(name.toLowerCase())) out.push([name, text(raw[i + 1]!)])
  }
  return out
}

/** Of a request, nor those that are the proxy's to say. */
export function requestTrailers(raw: RawHeaders): string[] {
  return trailersOf(raw)
    .filter(([name]) => !isOwn(name.toLowerCase()))
    .flat()
}

function isTrailer(lower: string): boolean {
  return !HOP_BY_HOP.has(lower) && !KEPT.has(lower) && lower !== 'set-cookie' && !lower.startsWith('content-')
}

/** What `Trailer` announces of those that are passed on; nothing where a length says that none can come. */
export function announced(raw: RawHeaders): string | undefined {
  const names = joined(raw, 'trailer')
  if (names === undefined || joined(raw, 'content-length') !== undefined) return undefined
  const kept = names.split(',').map((name) => name.trim())
  return kept.filter((name) => name !== '' && isTrailer(name.toLowerCase())).join(', ') || undefined
}

/** The fields of a 1xx: it says nothing of a body, and nothing of the connection to the backend. */
export function interimHeaders(raw: RawHeaders): string[] {
  const nominated = nominations(joined(raw, 'connection'))
  const out: string[] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = text(raw[i]!)
    const lower = name.toLowerCase()
    if (HOP_BY_HOP.has(lower) || lower === 'content-length' || nominated?.has(lower) === true) continue
    out.push(name, text(raw[i + 1]!))
  }
  return out
}
