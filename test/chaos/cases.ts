import type { AttemptTimes } from 'evenkeel'
import { type Fault, GARBAGE } from 'evenkeel/testing'
import { CERT, KEY } from '../support/tls.ts'
import { ELSEWHERE, EXPIRED } from '../support/wrong-certs.ts'

/** Times of the backend with the fault that are to run out, ms. */
const SHORT_MS = 100

/** One way for a backend to fail, and what a caller of the balancer has to put up with. */
export interface Case {
  /** Heading of its part of the page. */
  readonly group: string
  /** What the backend does, as the page says it. */
  readonly name: string
  /** What it plays; without one, connecting to it never ends. */
  readonly fault: Fault | undefined
  /** It speaks TLS, with a certificate that callers trust or do not know. */
  readonly tls?: 'trusted' | 'unknown'
  /** The times that are short: only those meant to run out, so that a slow machine changes nothing. */
  readonly short?: keyof AttemptTimes
  /** A good answer comes first, over the connection that meets the fault. */
  readonly warm?: boolean
  /** Bytes of a POST; default 4. */
  readonly uploadBytes?: number
  /** What a body is if it ends in order; default: 16 bytes. */
  readonly whole?: string
  /** The end of the connection is the end of the body: nobody can tell that it is short. */
  readonly blind?: boolean
}

export const GOOD: string = 'x'.repeat(16)

const connecting: readonly Case[] = [
  { group: 'Connecting', name: 'nobody listens', fault: { refuse: true } },
  { group: 'Connecting', name: 'connecting never ends', fault: undefined, short: 'connectMs' },
]

const ENDS = [
  ['fin', 'closed'],
  ['reset', 'reset'],
] as const

/** Where a cut strikes, and what the page says of it. */
const PLACES = [
  ['request', 'before its first byte'],
  ['status', 'within the status line'],
  ['header', 'within the header'],
] as const

const heads: readonly Case[] = [
  ...ENDS.map(([by, word]) => ({
    group: 'Before the head is there',
    name: `the connection is ${word} once it is accepted`,
    fault: { cut: { at: 'accept', by } } as const,
  })),
  ...ENDS.flatMap(([by, word]) =>
    PLACES.map(([at, where]) => ({
      group: 'Before the head is there',
      name: `the connection is ${word} ${where}`,
      fault: { cut: { at, by } } as const,
    })),
  ),
  ...ENDS.map(([by, word]) => ({
    group: 'Before the head is there',
    name: `a connection used before is ${word} instead of an answer`,
    fault: { cut: { at: 'request', by } } as const,
    warm: true,
  })),
  {
    group: 'Before the head is there',
    name: 'it accepts, and is silent',
    fault: { cut: { at: 'accept', by: 'stall' } },
    short: 'headersMs',
  },
  ...PLACES.map(([at, where]) => ({
    group: 'Before the head is there',
    name: `it stalls ${where}`,
    fault: { cut: { at, by: 'stall' } } as const,
    short: 'headersMs' as const,
  })),
  {
    group: 'Before the head is there',
    name: 'the whole attempt takes too long',
    fault: { afterMs: 60_000 },
    short: 'attemptMs',
  },
  {
    group: 'Before the head is there',
    name: 'the head comes byte by byte, for too long',
    fault: { drip: { of: 'head', everyMs: 20 } },
    short: 'headersMs',
  },
  { group: 'Before the head is there', name: 'the answer is slow, but in time', fault: { afterMs: 30 } },
]

const FRAMINGS = [
  ['length', 'with a length'],
  ['chunked', 'in chunks'],
  ['close', 'told by the end of the connection'],
] as const

const bodies: readonly Case[] = FRAMINGS.flatMap(([framing, how]) => [
  ...ENDS.map(([by, word]) => ({
    group: 'In the body',
    name: `${how}: ${word} in the middle`,
    fault: { framing, cut: { at: 'body', by } } as const,
    blind: framing === 'close' && by === 'fin',
  })),
  {
    group: 'In the body',
    name: `${how}: stalls in the middle`,
    fault: { framing, cut: { at: 'body', by: 'stall' } },
    short: 'idleMs',
  },
  {
    group: 'In the body',
    name: `${how}: stalls between head and body`,
    fault: { framing, cut: { at: 'head', by: 'stall' } },
    short: 'idleMs',
  },
])

const moreBodies: readonly Case[] = [
  {
    group: 'In the body',
    name: 'with a length, larger than what is held back: reset in the middle',
    fault: { bytes: 200_000, cut: { at: 'body', by: 'reset' } },
  },
  {
    group: 'In the body',
    name: 'byte by byte, never silent for too long',
    fault: { drip: { of: 'body', everyMs: 5 } },
  },
  {
    group: 'In the body',
    name: 'byte by byte, silent for too long',
    fault: { drip: { of: 'body', everyMs: 60_000 } },
    short: 'idleMs',
  },
  { group: 'In the body', name: 'whole, and then a reset', fault: { cut: { at: 'end', by: 'reset' } } },
]

const garbage: readonly Case[] = [
  ...(
    [
      ['http09', 'HTTP/0.9'],
      ['noise', 'noise'],
      ['nul', '64 NUL bytes'],
      ['status099', 'status 099'],
      ['status1000', 'status 1000'],
      ['statusNul', 'NUL in the status line'],
      ['version', 'HTTP/3.7'],
      ['tlsAlert', 'a TLS alert'],
      ['headerNul', 'NUL in a field'],
      ['headerNoColon', 'a field without a colon'],
      ['headerFolded', 'a folded field'],
      ['headerLatin1', 'latin1 in a field'],
      ['chunkSize', 'a chunk size that is none'],
      ['chunkExtension', 'a chunk extension of 64 KiB'],
      ['twoLengths', 'two lengths'],
    ] as const
  ).map(([key, name]) => ({
    group: 'No HTTP',
    name,
    fault: { say: GARBAGE[key] },
    whole: 'ok',
  })),
]

const lengths: readonly Case[] = [
  {
    group: 'Wrong lengths',
    name: 'longer than the body, then closed',
    fault: { length: '32', cut: { at: 'end', by: 'fin' } },
  },
  { group: 'Wrong lengths', name: 'longer than the body, then silence', fault: { length: '32' }, short: 'idleMs' },
  { group: 'Wrong lengths', name: 'shorter than the body', fault: { length: '8' }, whole: 'x'.repeat(8) },
  { group: 'Wrong lengths', name: 'below 0', fault: { length: '-1' } },
  { group: 'Wrong lengths', name: '2^63', fault: { length: '9223372036854775808' }, short: 'idleMs' },
  { group: 'Wrong lengths', name: 'a word', fault: { length: 'long' } },
  { group: 'Wrong lengths', name: 'next to chunks', fault: { framing: 'chunked', length: '16' } },
]

const heavy: readonly Case[] = [
  { group: 'Too much', name: '10,000 interim answers, then a good one', fault: { interim: { count: 10_000 } } },
  {
    group: 'Too much',
    name: 'interim answers without an end',
    fault: { interim: { count: Number.POSITIVE_INFINITY } },
    short: 'headersMs',
  },
  {
    group: 'Too much',
    name: 'an interim answer every 20 ms, for ever',
    fault: { interim: { count: 1_000_000, everyMs: 20 } },
    short: 'headersMs',
  },
  { group: 'Too much', name: 'a field of 20 KiB', fault: { fields: { count: 1, bytes: 20_480 } } },
  { group: 'Too much', name: '5,000 fields', fault: { fields: { count: 5_000, bytes: 1 } } },
]

const statuses: readonly Case[] = [
  { group: 'Statuses', name: '500', fault: { status: 500 } },
  { group: 'Statuses', name: '503', fault: { status: 503 } },
  {
    group: 'Statuses',
    name: '503, Retry-After: 0',
    fault: { status: 503, headers: { 'retry-after': '0' } },
  },
  {
    group: 'Statuses',
    name: '503, Retry-After: 3600',
    fault: { status: 503, headers: { 'retry-after': '3600' } },
  },
  {
    group: 'Statuses',
    name: '429, Retry-After: 3600',
    fault: { status: 429, headers: { 'retry-after': '3600' } },
  },
  { group: 'Statuses', name: '404', fault: { status: 404 } },
]

const certificates: readonly Case[] = [
  { name: 'a certificate for another name', fault: { tls: { key: KEY, cert: ELSEWHERE } } },
  { name: 'an expired certificate', fault: { tls: { key: KEY, cert: EXPIRED } } },
  {
    name: 'it demands the caller’s own certificate',
    fault: { tls: { key: KEY, cert: CERT, ca: CERT, requestCert: true, rejectUnauthorized: true } },
  },
].map(({ name, fault }) => ({ group: 'TLS', name, fault, tls: 'trusted' as const }))

const handshakes: readonly Case[] = [
  { group: 'TLS', name: 'a good certificate', fault: {}, tls: 'trusted' },
  { group: 'TLS', name: 'a certificate nobody vouches for', fault: {}, tls: 'unknown' },
  { group: 'TLS', name: 'plaintext on the TLS port', fault: { tls: false }, tls: 'trusted' },
  {
    group: 'TLS',
    name: 'a handshake that stalls',
    fault: { cut: { at: 'hello', by: 'stall' } },
    tls: 'trusted',
    short: 'connectMs',
  },
  {
    group: 'TLS',
    name: 'reset in the handshake',
    fault: { cut: { at: 'hello', by: 'reset' } },
    tls: 'trusted',
  },
]

const uploads: readonly Case[] = [
  {
    group: 'Uploads',
    name: 'answered before the upload of 1 MB is there',
    fault: { early: true },
    uploadBytes: 1_000_000,
  },
  {
    group: 'Uploads',
    name: 'reset before the upload of 1 MB is there',
    fault: { early: true, cut: { at: 'request', by: 'reset' } },
    uploadBytes: 1_000_000,
  },
]

/** Every fault that the table has a row for. */
export const CASES: readonly Case[] = [
  ...[
    connecting,
    heads,
    bodies,
    moreBodies,
    garbage,
    lengths,
    heavy,
    statuses,
    certificates,
    handshakes,
    uploads,
  ].flat(),
]

/** Those that any plain HTTP server may play at any time, and that a caller can tell from a good answer. */
export const PLAYS: readonly Fault[] = CASES.flatMap(({ fault, tls, warm, blind, whole, uploadBytes }) => {
  const plain = tls === undefined && !warm && !blind && whole === undefined && uploadBytes === undefined
  // Where the end of the connection is the end of the body, a server that goes down ends it in order.
  return plain && fault?.framing !== 'close' && fault !== undefined && (fault.bytes ?? 16) === 16 ? [fault] : []
})

/** Without those that take all of the one process that caller, balancer and backends share. */
export const LIGHT_PLAYS: readonly Fault[] = PLAYS.filter(({ interim, fields }) => !interim && fields?.count !== 5_000)

/** Which of its times are short, for the backend with the fault. */
export function timesOf({ short }: Case): AttemptTimes {
  return short === undefined ? {} : { [short]: SHORT_MS }
}
