import { STATUS_CODES } from 'node:http'
import type { TlsOptions } from 'node:tls'

/**
 * What is wrong with a server, as plain data. Every field is a word of its own and they combine: *what* is said (`status`,
 * `headers`, `length`, `say`, …), *when* (`afterMs`, `drip`), *how far* it gets (`cut`), and for whom (`share`, `flap`). `{}` is
 * a server in good health.
 *
 * @example { cut: { at: 'body', by: 'reset' }, framing: 'chunked', share: 0.1 }
 */
export interface Fault {
  /** Nobody listens, and what was open is closed, as when the process dies. Nothing else matters then, except `flap`. */
  readonly refuse?: boolean
  /** Handshakes new connections otherwise than the server does: with another certificate, or `false` for plaintext on a TLS port. */
  readonly tls?: TlsOptions | false
  /** Strikes when the head of the request is there; default false: when its body is, too. */
  readonly early?: boolean
  /** Silence before the first byte of the answer, ms; default 0. */
  readonly afterMs?: number
  /** So many `103 Early Hints` before the head, `Infinity` for no end of them, `everyMs` apart; default 0: as fast as they go. */
  readonly interim?: { readonly count: number; readonly everyMs?: number }
  /** Default 200. */
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  /** So many more header fields, each with a value of so many bytes. */
  readonly fields?: { readonly count: number; readonly bytes: number }
  /** How the end of the body is told; default 'length'. With 'close' the connection ends with it. */
  readonly framing?: 'length' | 'chunked' | 'close'
  /** Content-Length that is told whatever the body is, next to `transfer-encoding` if that is told as well. */
  readonly length?: string
  /** Bytes of the body; default 16. */
  readonly bytes?: number
  /** Sent in place of the whole answer, latin1. See GARBAGE. */
  readonly say?: string
  /** One byte at a time, `everyMs` apart. */
  readonly drip?: { readonly of: 'head' | 'body'; readonly everyMs: number }
  readonly cut?: Cut
  /** Share it strikes, 0 to 1; default 1. The server's `random` draws for each connection, and again for each request on it. */
  readonly share?: number
  /** Comes and goes: in force for `downMs`, from the moment it is played, then healthy for `upMs`, and so on; real time. */
  readonly flap?: { readonly upMs: number; readonly downMs: number }
}

export interface Cut {
  /**
   * 'accept': as soon as a client has connected. 'hello': when its first bytes are there, a TLS handshake's or a request's.
   * 'request': before the first byte of the answer. 'status': in the middle of the status line. 'header': in the middle of the
   * header fields. 'head': between head and body. 'body': in the middle of the body. 'end': behind the whole answer.
   * A connection that was there before a cut at 'accept' or 'hello' was played meets it with its next request.
   */
  readonly at: 'accept' | 'hello' | 'request' | 'status' | 'header' | 'head' | 'body' | 'end'
  /** 'fin': the connection ends in order. 'reset': RST. 'stall': it stays open, what comes is read, and nothing is said any more. */
  readonly by: 'fin' | 'reset' | 'stall'
}

const OK = 'HTTP/1.1 200 OK\r\n'
const END = 'content-length: 2\r\n\r\nok'

type Garbage =
  | 'http09'
  | 'noise'
  | 'nul'
  | 'status099'
  | 'status1000'
  | 'statusNul'
  | 'version'
  | 'tlsAlert'
  | 'headerNul'
  | 'headerNoColon'
  | 'headerFolded'
  | 'headerLatin1'
  | 'chunkSize'
  | 'chunkExtension'
  | 'twoLengths'

/** Answers that are none, or should not pass as one, for `say`. */
export const GARBAGE: Readonly<Record<Garbage, string>> = {
  http09: '<html>ok</html>\r\n',
  noise: '\x00\x80\xff\x17 no protocol \x07 at all\r\n\r\n',
  nul: '\0'.repeat(64),
  status099: `HTTP/1.1 099 Odd\r\n${END}`,
  status1000: `HTTP/1.1 1000 Odd\r\n${END}`,
  statusNul: `HTTP/1.1 200 O\0K\r\n${END}`,
  version: `HTTP/3.7 200 OK\r\n${END}`,
  /** A fatal alert of TLS 1.2, handshake_failure: what a TLS server says to plaintext. */
  tlsAlert: '\x15\x03\x03\x00\x02\x02\x28',
  headerNul: `${OK}x-odd: a\0b\r\n${END}`,
  headerNoColon: `${OK}x-odd\r\n${END}`,
  headerFolded: `${OK}x-odd: a\r\n b\r\n${END}`,
  headerLatin1: `${OK}x-odd: caf\xe9\r\n${END}`,
  chunkSize: `${OK}transfer-encoding: chunked\r\n\r\nxyz\r\nok\r\n0\r\n\r\n`,
  chunkExtension: `${OK}transfer-encoding: chunked\r\n\r\n2;${'x'.repeat(65_536)}\r\nok\r\n0\r\n\r\n`,
  twoLengths: `${OK}content-length: 3\r\n${END}`,
}

/** One interim answer. */
export const INTERIM = 'HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n'

export interface Answer {
  readonly head: string
  readonly body: string
  /** The connection ends with it. */
  readonly last: boolean
}

/** What a server with this fault answers to a request, latin1. */
export function answerOf(fault: Fault, method: string): Answer {
  if (fault.say !== undefined) return { head: fault.say, body: '', last: false }
  const { status = 200, headers = {}, fields, framing = 'length', length, bytes = 16 } = fault
  const told = length ?? (framing === 'length' ? String(bytes) : undefined)
  const lines = [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Odd'}`]
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`)
  for (let i = 0; i < (fields?.count ?? 0); i++) lines.push(`x-field-${i}: ${'x'.repeat(fields!.bytes)}`)
  if (told !== undefined) lines.push(`content-length: ${told}`)
  if (framing === 'chunked') lines.push('transfer-encoding: chunked')
  if (framing === 'close') lines.push('connection: close')
  const bare = method === 'HEAD' || status === 204 || status === 304
  const body = framing === 'chunked' ? chunks(bytes) : 'x'.repeat(bytes)
  return { head: `${lines.join('\r\n')}\r\n\r\n`, body: bare ? '' : body, last: framing === 'close' }
}

/** How many characters of an answer are said before it is cut. */
export function lengthUntil(at: Cut['at'] | undefined, { head, body }: Answer): number {
  switch (at) {
    case 'accept':
    case 'hello':
    case 'request':
      return 0
    case 'status':
      return 'HTTP/1.1 2'.length
    case 'header':
      return Math.ceil((head.indexOf('\r\n') + head.length) / 2)
    case 'head':
      return head.length
    case 'body':
      return head.length + Math.floor(body.length / 2)
    default:
      return head.length + body.length
  }
}

/** Two chunks, so that there is a middle. */
function chunks(bytes: number): string {
  const sizes = [Math.ceil(bytes / 2), Math.floor(bytes / 2)].filter((size) => size > 0)
  return `${sizes.map((size) => `${size.toString(16)}\r\n${'x'.repeat(size)}\r\n`).join('')}0\r\n\r\n`
}
