/** A request as a server of any kind read it, and what a proxy itself goes by in its fields. */
import { isAuthority } from '../core/target.ts'

/** A request as its server read it: adapters make it, everything else of the proxy works on it. */
export interface Incoming {
  readonly method: string
  /** The request target as it came: a path with its query, an absolute URL, or '*'. */
  readonly target: string
  /** '1.0', '1.1', '2', '3', or whatever its first line claims. */
  readonly version: string
  /** name, value, name, value, ...; HTTP/2 pseudo fields may be among them. */
  readonly rawHeaders: readonly string[]
  /** Of the other end of the connection; undefined if it is gone, or of a kind without addresses. */
  readonly address: string | undefined
  readonly isEncrypted: boolean
}

/** What a `Reading` keeps. */
type Kept =
  | 'connection'
  | 'expect'
  | 'forwarded'
  | 'forwardedFor'
  | 'forwardedHost'
  | 'forwardedPort'
  | 'forwardedProto'
  | 'host'
  | 'length'
  | 'maxForwards'
  | 'requestId'
  | 'te'
  | 'transferEncoding'
  | 'via'

/**
 * What the proxy reads or writes itself, or what is of one connection only (RFC 9110 7.6.1): never passed on as it came. With what it is
 * kept as, if at all.
 */
const OWN: ReadonlyMap<string, Kept | undefined> = new Map([
  ['connection', 'connection'],
  ['content-length', 'length'],
  ['expect', 'expect'],
  ['forwarded', 'forwarded'],
  ['host', 'host'],
  ['http2-settings', undefined],
  ['keep-alive', undefined],
  ['max-forwards', 'maxForwards'],
  ['proxy-authenticate', undefined],
  ['proxy-authorization', undefined],
  ['proxy-connection', undefined],
  ['te', 'te'],
  ['trailer', undefined],
  ['trailers', undefined],
  ['transfer-encoding', 'transferEncoding'],
  ['upgrade', undefined],
  ['via', 'via'],
  ['x-forwarded-for', 'forwardedFor'],
  ['x-forwarded-host', 'forwardedHost'],
  ['x-forwarded-port', 'forwardedPort'],
  ['x-forwarded-proto', 'forwardedProto'],
  ['x-real-ip', undefined],
  ['x-request-id', 'requestId'],
])

/** Whether nobody but the proxy writes this field of a request; in lower case. */
export function isOwn(name: string): boolean {
  if (OWN.has(name)) return true
  // This balancer's own words to backends, such as its probes'.
  if (name.startsWith('x-lb-')) return true
  // To many backends (CGI and its heirs) '_' and '-' are one.
  return name.includes('_') && isOwn(name.replaceAll('_', '-'))
}

/** The fields of one request, read in one pass. Repeats are joined by ', ', which no single value of these may hold. */
export class Reading {
  /** What goes on as it came: name, value, name, value, ... */
  readonly passed: string[] = []
  /** Fields in all. */
  readonly count: number
  /** Names and values. */
  bytes = 0
  authority: string | undefined
  connection: string | undefined
  expect: string | undefined
  forwarded: string | undefined
  forwardedFor: string | undefined
  forwardedHost: string | undefined
  forwardedPort: string | undefined
  forwardedProto: string | undefined
  host: string | undefined
  length: string | undefined
  maxForwards: string | undefined
  requestId: string | undefined
  te: string | undefined
  transferEncoding: string | undefined
  via: string | undefined

  constructor(rawHeaders: readonly string[]) {
    this.count = rawHeaders.length / 2
    for (let i = 0; i < rawHeaders.length; i += 2) {
      const name = rawHeaders[i]!
      const value = rawHeaders[i + 1]!
      this.bytes += name.length + value.length
      const lower = name.toLowerCase()
      const kept = OWN.get(lower)
      if (kept !== undefined) this[kept] = joined(this[kept], value)
      else if (lower.startsWith(':')) {
        if (lower === ':authority') this.authority = value
      } else if (!isOwn(lower)) this.passed.push(name, value)
    }
  }

  /** Whether HTTP/1.x says that a body follows. */
  get hasBody(): boolean {
    return this.transferEncoding !== undefined || (this.length !== undefined && this.length !== '0')
  }
}

function joined(before: string | undefined, value: string): string {
  return before === undefined ? value : `${before}, ${value}`
}

const ABSOLUTE = /^https?:\/\/([^/?#]*)(.*)$/is

/**
 * A request in absolute-form as the same one in origin-form (RFC 9112 3.2.2): the authority of its URL takes the place of Host. One
 * whose URL is none stays as it is: nobody takes it for a path.
 */
export function inOriginForm(incoming: Incoming): Incoming {
  const { target, method } = incoming
  if (target.charCodeAt(0) === 47) return incoming
  const [, authority, rest = ''] = ABSOLUTE.exec(target) ?? []
  if (authority === undefined || !isAuthority(authority)) return incoming
  const rawHeaders = [...incoming.rawHeaders]
  const at = rawHeaders.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === 'host')
  if (at < 0) {
    if (incoming.version === '1.0') rawHeaders.push('host', authority)
  } else if (isAuthority(rawHeaders[at + 1]!)) rawHeaders[at + 1] = authority
  const path = rest.startsWith('/') ? rest : rest === '' && method === 'OPTIONS' ? '*' : `/${rest}`
  return { ...incoming, target: path, rawHeaders }
}
