/** Answers of the proxy's own, as any server can write them. */
import { STATUS_CODES } from 'node:http'
import { BalancerError, type BalancerErrorCode } from '../core/errors.ts'
import type { Refusal } from './guard.ts'

/** An answer of the proxy's own. */
export interface Reply {
  readonly status: number
  /** name, value, name, value, ... */
  readonly headers: string[]
  readonly body: string
  /** No request is to follow on the client's connection. */
  readonly close: boolean
}

const STATUS: Readonly<Record<BalancerErrorCode, number>> = {
  CONFIG: 500,
  NO_BACKEND: 503,
  OVERLOADED: 503,
  CLOSED: 503,
  TIMEOUT: 504,
  CONNECT: 502,
  TLS: 502,
  RESET: 502,
  PROTOCOL: 502,
  TRUNCATED: 502,
  BODY_TOO_LARGE: 413,
}
/** Told with a 503 when nobody knows better, s. */
const RETRY_AFTER_S = 1
/** Most causes of causes that are told. */
const MOST_CAUSES = 5

/** What a problem may tell: the name of the request, and with `redact` what an operator wants to know. */
export interface Telling {
  readonly id: string | undefined
  /** Set = the error's text and backend are told, without what this takes out of them. */
  readonly redact: ((text: string) => string) | undefined
  readonly close: boolean
}

/** What a call failed with, in words of HTTP. By default it names no backend, no address and no cause. */
export function errorReply(error: unknown, { id, redact, close }: Telling): Reply {
  const known = error instanceof BalancerError ? error : undefined
  const code = known?.code ?? 'CONFIG'
  const status = STATUS[code]
  const after = known?.retryAfterMs
  const seconds = after === undefined ? RETRY_AFTER_S : Math.max(1, Math.ceil(after / 1000))
  const exposed = redact === undefined ? {} : { detail: redact(textOf(error)), backend: known?.backend }
  const more = status === 503 ? ['retry-after', String(seconds)] : []
  return problem(status, { code, requestId: id, ...exposed }, more, close || code === 'CLOSED')
}

/** A request that is not forwarded: what is wrong with it is no secret. */
export function refusalReply({ status, code, detail, close, allow }: Refusal, telling: Telling): Reply {
  const more = allow === undefined ? [] : ['allow', allow]
  return problem(status, { code, requestId: telling.id, detail }, more, close || telling.close)
}

const UNREAD: Readonly<Record<string, readonly [status: number, code: string]>> = {
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'CLIENT_TIMEOUT'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, 'BODY_TOO_LARGE'],
  HPE_HEADER_OVERFLOW: [431, 'HEADERS_TOO_LARGE'],
}

/** What could not be read as HTTP, by the code of Node's error. */
export function unreadReply(nodeCode: string | undefined): Reply {
  const [status, code] = UNREAD[nodeCode ?? ''] ?? [400, 'PROTOCOL']
  return problem(status, { code }, [], true)
}

/** One without a body. */
export function emptyReply(status: number, headers: string[]): Reply {
  return { status, headers, body: '', close: false }
}

interface About {
  readonly code: string
  readonly requestId?: string | undefined
  readonly detail?: string | undefined
  readonly backend?: string | undefined
}

/** A problem body (RFC 9457). */
function problem(status: number, about: About, more: readonly string[], close: boolean): Reply {
  const body = JSON.stringify({ type: 'about:blank', title: STATUS_CODES[status], status, ...about })
  const headers = ['content-type', 'application/problem+json', 'content-length', String(Buffer.byteLength(body))]
  headers.push('cache-control', 'no-store', ...more)
  if (about.requestId !== undefined) headers.push('x-request-id', about.requestId)
  return { status, headers, body, close }
}

/** A reply as it goes onto a connection that no server writes to: its last. */
export function wireText({ status, headers, body }: Reply): string {
  const lines = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`]
  for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`)
  return [...lines, 'connection: close', '', body].join('\r\n')
}

/** What an error says, and what caused it. */
function textOf(error: unknown): string {
  const texts: string[] = []
  let next = error
  while (next !== undefined && next !== null && texts.length < MOST_CAUSES) {
    texts.push(next instanceof Error ? next.message : String(next))
    next = next instanceof Error ? next.cause : undefined
  }
  return texts.filter((text, i) => !texts.slice(0, i).some((earlier) => earlier.includes(text))).join(': ')
}
