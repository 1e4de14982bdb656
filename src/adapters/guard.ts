import { checkTarget, isAuthority } from '../core/target.ts'
import type { Incoming, Reading } from './incoming.ts'

export interface ProxyLimits {
  /** Longest request target, bytes: above it 414; default 8 192. */
  readonly targetBytes?: number
  /** Most header fields: above it 431; default 100. */
  readonly headerCount?: number
  /** Names and values of all header fields, bytes: above it 431; default 16 384. Node's server has a `maxHeaderSize` of its own. */
  readonly headerBytes?: number
  /** Longest request body, bytes, announced or not: above it 413; default: no limit. */
  readonly bodyBytes?: number
  /** Most tunnels at once: above it 503; default 10 000. */
  readonly tunnels?: number
}

/** Why a request is answered by the proxy itself. */
export interface Refusal {
  readonly status: number
  /** What went wrong, for programs. */
  readonly code: string
  /** The same for people: about the request, never about what stands behind the proxy. */
  readonly detail: string
  /** Where this request ends is in doubt, or nobody wants the rest of it: the connection must not go on. */
  readonly close: boolean
  /** Methods for `Allow`. */
  readonly allow?: string
}

/** What a proxy takes, put together once. */
export interface Rules {
  readonly limits: Required<Omit<ProxyLimits, 'tunnels'>>
  /** Undefined: any but CONNECT and TRACE. */
  readonly methods: ReadonlySet<string> | undefined
  /** For any other. */
  readonly method: Refusal
  /** Whether a body with a method that gives it no meaning is refused: `strayBodies`. */
  readonly refusesStray: boolean
  readonly via: string
}

/** What is not said is as by default; a limit that is undefined must not be none. */
export function limitsOf(limits: ProxyLimits): Rules['limits'] {
  const { targetBytes = 8_192, headerCount = 100, headerBytes = 16_384, bodyBytes = Infinity } = limits
  return { targetBytes, headerCount, headerBytes, bodyBytes }
}

/** Methods whose body has no meaning of its own (RFC 9110 9.3): a backend may not see where it ends. */
export const BODILESS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE'])
/** As often as its own name may stand in Via: proxies of one name may stand in a row, a loop has no end. */
const MOST_PASSES = 4
const VERSIONS: ReadonlySet<string> = new Set(['1.1', '1.0', '2', '3'])
const DIGITS = /^\d{1,15}$/

function refusal(status: number, code: string, detail: string, close = false): Refusal {
  return { status, code, detail, close }
}

const VERSION = refusal(505, 'PROTOCOL', 'this version of HTTP is not served', true)
const OLD_CODING = refusal(400, 'PROTOCOL', 'Transfer-Encoding is not of this version of HTTP', true)
const TWO_LENGTHS = refusal(400, 'PROTOCOL', 'Content-Length and Transfer-Encoding contradict each other', true)
const CODING = refusal(501, 'PROTOCOL', "no transfer coding but 'chunked' is known", true)
const LENGTH = refusal(400, 'PROTOCOL', 'Content-Length is not one number', true)
const TARGET_LENGTH = refusal(414, 'TARGET_TOO_LONG', 'the request target is too long')
const HEADERS = refusal(431, 'HEADERS_TOO_LARGE', 'the header fields are too many or too long')
const HOST = refusal(400, 'PROTOCOL', 'there must be one valid Host', true)
const HOSTS = refusal(400, 'PROTOCOL', 'Host and :authority contradict each other', true)
const TARGET = refusal(400, 'PROTOCOL', 'the request target is not one that is forwarded')
const EXPECTATION = refusal(417, 'EXPECTATION', "no expectation but '100-continue' is known", true)
const MAX_FORWARDS = refusal(400, 'PROTOCOL', 'Max-Forwards is not a number')
const BODY = refusal(400, 'PROTOCOL', 'a body has no meaning with this method', true)
const LOOP = refusal(508, 'LOOP', 'the request has come by here before')
/** Its connection goes on while the rest is short: cut at once, it would take the answer along. */
export const TOO_LARGE: Refusal = refusal(413, 'BODY_TOO_LARGE', 'the body is too large')
export const TOO_SLOW: Refusal = refusal(408, 'CLIENT_TIMEOUT', 'the body did not come', true)
export const CUT: Refusal = refusal(400, 'PROTOCOL', 'the body broke off', true)
export function notServed(allow: string): Refusal {
  return { ...refusal(405, 'METHOD', 'the method is not served'), allow }
}
export const NOT_HERE: Refusal = refusal(404, 'NOT_FOUND', 'nothing is served under this path')

/**
 * Why this request is not forwarded; undefined if it is. Everything that makes two readers of one request disagree about it, and
 * everything over a limit. The request must be in origin-form.
 */
export function guard({ method, target, version }: Incoming, fields: Reading, rules: Rules): Refusal | undefined {
  if (!VERSIONS.has(version)) return VERSION
  const { transferEncoding, length } = fields
  if (transferEncoding !== undefined) {
    if (version !== '1.1') return OLD_CODING
    if (length !== undefined) return TWO_LENGTHS
    if (transferEncoding.toLowerCase() !== 'chunked') return CODING
  }
  if (length !== undefined && !DIGITS.test(length)) return LENGTH
  const { limits, methods } = rules
  if (target.length > limits.targetBytes) return TARGET_LENGTH
  if (fields.count > limits.headerCount || fields.bytes > limits.headerBytes) return HEADERS
  const { host = fields.authority, authority = host } = fields
  if (host === undefined ? version === '1.1' : !isAuthority(host)) return HOST
  if (host !== authority) return HOSTS
  if (methods === undefined ? method === 'CONNECT' || method === 'TRACE' : !methods.has(method)) return rules.method
  try {
    checkTarget(target, method)
  } catch {
    return TARGET
  }
  if (fields.expect !== undefined && fields.expect.toLowerCase() !== '100-continue') return EXPECTATION
  const counts = fields.maxForwards !== undefined && (method === 'OPTIONS' || method === 'TRACE')
  if (counts && !DIGITS.test(fields.maxForwards!)) return MAX_FORWARDS
  // Meant for this proxy itself, which shows nobody what it got.
  if (method === 'TRACE' && Number(fields.maxForwards) === 0) return rules.method
  if (rules.refusesStray && fields.hasBody && BODILESS.has(method)) return BODY
  if (length !== undefined && Number(length) > limits.bodyBytes) return TOO_LARGE
  if (fields.via !== undefined && passes(fields.via, rules.via) >= MOST_PASSES) return LOOP
  return undefined
}

/** How often the request came through a proxy of this name (RFC 9110 7.6.3). */
function passes(via: string, name: string): number {
  return via.split(',').filter((member) => member.trim().split(/[ \t]+/, 2)[1] === name).length
}
