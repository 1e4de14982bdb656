import tls from 'node:tls'
import { type Cut, type Fault, type FaultServer, GARBAGE } from 'evenkeel/testing'
import { Agent, request } from 'undici'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  BODY,
  CHUNKED,
  CHUNKS,
  CLOSING,
  connect,
  connectError,
  expectSeen,
  GET,
  HEAD,
  started,
} from './support/fault-client.ts'
import { CERT, KEY } from './support/tls.ts'
import { until } from './support/upstreams.ts'
import { ELSEWHERE, EXPIRED } from './support/wrong-certs.ts'

const CUTS: readonly (readonly [at: Cut['at'], fault: Fault, said: string])[] = [
  ['accept', {}, ''],
  ['hello', {}, ''],
  ['request', {}, ''],
  ['status', {}, 'HTTP/1.1 2'],
  ['header', {}, 'HTTP/1.1 200 OK\r\ncontent-le'],
  ['head', {}, HEAD],
  ['body', {}, HEAD + BODY.slice(8)],
  ['body', { framing: 'chunked' }, CHUNKED + CHUNKS.slice(0, 15)],
  ['body', { framing: 'close' }, CLOSING + BODY.slice(8)],
  ['end', {}, HEAD + BODY],
  ['end', { framing: 'chunked' }, CHUNKED + CHUNKS],
  ['end', { framing: 'close' }, CLOSING + BODY],
  ['end', { length: '99' }, HEAD.replace('16', '99') + BODY],
  ['end', { say: GARBAGE.http09 }, GARBAGE.http09],
]
const ENDINGS = { fin: 'fin', reset: 'reset', stall: 'open' } as const

describe.each(['http', 'https'] as const)('over %s', (scheme) => {
  test('a server in good health answers request after request on one connection', async () => {
    const server = await started(scheme)
    const wire = connect(server)
    for (let n = 1; n <= 3; n++) {
      wire.write(GET)
      await wire.until((received) => received === (HEAD + BODY).repeat(n))
    }
    expect(server).toMatchObject({ requests: 3, accepted: 1, open: 1 })
  })

  test.each(CUTS)('an answer cut at %s, with %j, says %j', async (at, fault, said) => {
    const server = await started(scheme)
    for (const by of ['fin', 'reset', 'stall'] as const) {
      void server.play({ ...fault, cut: { at, by } })
      // What Node's TLS says of an end in the middle of a handshake is a reset in either case.
      const wire = at === 'accept' || at === 'hello' ? connect(server, false) : connect(server)
      await expectSeen(server, said, ENDINGS[by], { wire })
    }
    await server.play()
    await expectSeen(server, HEAD + BODY)
  })

  test('a kept connection meets a cut at accept with its next request', async () => {
    const server = await started(scheme)
    const wire = connect(server)
    wire.write(GET)
    await wire.until(HEAD + BODY)
    await server.play({ cut: { at: 'accept', by: 'reset' } })
    wire.write(GET)
    expect(await wire.closed()).toBe('reset')
    expect(wire.received).toBe(HEAD + BODY)
  })

  test('refused: nobody listens, what was open is closed, and it comes back on its port', async () => {
    const server = await started(scheme)
    const { port } = server
    const wire = connect(server)
    wire.write(GET)
    await wire.until(HEAD + BODY)
    const refused = server.play({ refuse: true })
    expect(await connectError(port)).toBe('ECONNREFUSED') // in force on return
    await refused
    expect(server.open).toBe(0)
    await wire.closed()
    await server.play()
    expect(await connectError(port)).toBeUndefined()
    await expectSeen(server, HEAD + BODY)
  })

  test('closing ends at once whatever is going on, twice too, and gives back the port', async () => {
    const faults: Fault[] = [
      ...(['accept', 'hello', 'request', 'header', 'body'] as const).map(
        (at) => ({ cut: { at, by: 'stall' } }) as const,
      ),
      { afterMs: 60_000 },
      { interim: { count: Number.POSITIVE_INFINITY, everyMs: 5 } },
      { drip: { of: 'head', everyMs: 60_000 } },
      { flap: { upMs: 5, downMs: 5 } },
      { refuse: true },
    ]
    for (const fault of faults) {
      const server = await started(scheme)
      await server.play(fault)
      const wire = connect(server)
      wire.write(GET)
      const accepted = fault.refuse ? wire.closed() : until(() => server.open === 1, 'never accepted')
      await accepted
      await Promise.all([server.close(), server.close()])
      expect(server.open).toBe(0)
      expect(await connectError(server.port)).toBe('ECONNREFUSED')
      await wire.closed()
      await expect(server.play()).rejects.toThrow(/is closed$/)
    }
  })
})

describe('an answer', () => {
  const rows: readonly (readonly [name: string, fault: Fault, said: string])[] = [
    ['chunked', { framing: 'chunked' }, CHUNKED + CHUNKS],
    ['of a length too long', { length: '17' }, `HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n${BODY}`],
    ['of a length too short', { length: '3' }, `HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n${BODY}`],
    ['of a length below 0', { length: '-1' }, `HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n${BODY}`],
    [
      'of a length, and chunked',
      { length: '5', framing: 'chunked' },
      `HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n${CHUNKS}`,
    ],
    ['of 500', { status: 500 }, `HTTP/1.1 500 Internal Server Error\r\ncontent-length: 16\r\n\r\n${BODY}`],
    [
      'of 503 with Retry-After',
      { status: 503, headers: { 'retry-after': '1' } },
      `HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 16\r\n\r\n${BODY}`,
    ],
    ['of 429', { status: 429 }, `HTTP/1.1 429 Too Many Requests\r\ncontent-length: 16\r\n\r\n${BODY}`],
    [
      'without a body',
      { status: 204, framing: 'close', cut: { at: 'end', by: 'stall' } },
      'HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n',
    ],
    ['of no bytes', { bytes: 0, framing: 'chunked' }, `${CHUNKED}0\r\n\r\n`],
    [
      'of 1xx three times before the head',
      { interim: { count: 3, everyMs: 1 } },
      'HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n'.repeat(3) + HEAD + BODY,
    ],
    ['with one giant field', { fields: { count: 1, bytes: 20_480 } }, fieldsOf(1, 20_480)],
    ['with thousands of fields', { fields: { count: 5_000, bytes: 8 } }, fieldsOf(5_000, 8)],
    ...Object.entries(GARBAGE).map(([name, say]) => [`of ${name}`, { say }, say] as const),
  ]

  test.each(rows)('%s', async (_, fault, said) => {
    const server = await started()
    await server.play(fault)
    await expectSeen(server, said)
  })

  test('until the connection closes ends with it', async () => {
    const server = await started()
    await server.play({ framing: 'close' })
    await expectSeen(server, CLOSING + BODY, 'fin')
  })

  test('to a HEAD request has no body', async () => {
    const server = await started()
    await expectSeen(server, HEAD, 'open', { sent: GET.replace('GET', 'HEAD') })
  })

  test('to a client that asks for it closes the connection', async () => {
    const server = await started()
    await expectSeen(server, HEAD + BODY, 'fin', { sent: GET.replace('host', 'connection: close\r\nhost') })
  })

  test('of ten thousand 1xx comes whole', async () => {
    const server = await started()
    await server.play({ interim: { count: 10_000 } })
    const wire = connect(server)
    wire.write(GET)
    await wire.until((received) => received.endsWith(HEAD + BODY))
    expect(wire.received.split('103 Early Hints')).toHaveLength(10_001)
  })

  test('of 1xx without an end goes on until the client goes', async () => {
    const server = await started()
    await server.play({ interim: { count: Number.POSITIVE_INFINITY } })
    const wire = connect(server)
    wire.write(GET)
    await wire.until((received) => received.length > 1_000_000)
    wire.socket.destroy()
    await until(() => server.open === 0, 'it still floods')
  })

  test.each(['head', 'body'] as const)('drips its %s byte by byte, the rest is whole', async (of) => {
    const server = await started()
    await server.play({ drip: { of, everyMs: 4 }, framing: 'chunked' })
    const wire = connect(server)
    const startMs = performance.now()
    wire.write(GET)
    await wire.until(CHUNKED + CHUNKS)
    const dripped = of === 'head' ? CHUNKED : CHUNKS
    // A timer may be early by less than 1 ms.
    expect(performance.now() - startMs).toBeGreaterThan((dripped.length - 1) * 3)
    expect(wire.reads.length).toBeGreaterThan(dripped.length / 2)
    expect(wire.reads.filter((read) => read.length > 2).join('')).toContain(of === 'head' ? CHUNKS : CHUNKED)
  })

  test('may be slow', async () => {
    const server = await started()
    await server.play({ afterMs: 60 })
    const startMs = performance.now()
    await expectSeen(server, HEAD + BODY)
    expect(performance.now() - startMs).toBeGreaterThan(58)
  })
})

function fieldsOf(count: number, bytes: number): string {
  const fields = Array.from({ length: count }, (_, i) => `x-field-${i}: ${'x'.repeat(bytes)}\r\n`)
  return `HTTP/1.1 200 OK\r\n${fields.join('')}content-length: 16\r\n\r\n${BODY}`
}

describe('what undici makes of', () => {
  const PARSER = 'HTTPParserError' // it has no code
  const rows: readonly (readonly [name: string, fault: Fault, outcome: string | number])[] = [
    ['good health', {}, 200],
    ['a refusal', { refuse: true }, 'ECONNREFUSED'],
    ['an end before the head', { cut: { at: 'request', by: 'fin' } }, 'UND_ERR_SOCKET'],
    ['a reset before the head', { cut: { at: 'request', by: 'reset' } }, 'ECONNRESET'],
    ['a reset in the body', { cut: { at: 'body', by: 'reset' } }, 'ECONNRESET'],
    // undici takes a reset for the end, where the end of the body is the end of the connection.
    ['a reset in a body told by its end', { framing: 'close', cut: { at: 'body', by: 'reset' } }, 200],
    ['an end in the body', { cut: { at: 'body', by: 'fin' } }, 'UND_ERR_SOCKET'],
    ['an end in the chunks', { framing: 'chunked', cut: { at: 'body', by: 'fin' } }, 'UND_ERR_SOCKET'],
    ['silence', { cut: { at: 'request', by: 'stall' } }, 'UND_ERR_HEADERS_TIMEOUT'],
    ['silence in the body', { cut: { at: 'body', by: 'stall' } }, 'UND_ERR_BODY_TIMEOUT'],
    ['a giant field', { fields: { count: 1, bytes: 20_480 } }, 'UND_ERR_HEADERS_OVERFLOW'],
    ['HTTP/0.9', { say: GARBAGE.http09 }, PARSER],
    ['an alert of TLS', { say: GARBAGE.tlsAlert }, PARSER],
    ['a status of four digits', { say: GARBAGE.status1000 }, PARSER],
    ['a NUL in a header', { say: GARBAGE.headerNul }, PARSER],
    ['a length below 0', { length: '-1' }, PARSER],
    ['two lengths', { say: GARBAGE.twoLengths }, 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH'],
    ['a chunk of no size', { say: GARBAGE.chunkSize }, PARSER],
  ]

  test.each(rows)('%s', async (_, fault, outcome) => {
    const server = await started()
    await server.play(fault)
    const dispatcher = new Agent({ headersTimeout: 1_000, bodyTimeout: 1_000 })
    onTestFinished(() => dispatcher.destroy())
    const answered = request(server.url, { dispatcher }).then(async ({ statusCode, body }) => {
      await body.text()
      return statusCode
    })
    expect(await answered.catch((error: NodeJS.ErrnoException) => error.code ?? error.name)).toBe(outcome)
  })
})

describe('TLS', () => {
  /** What a client sees that trusts `ca` and asks for localhost. */
  async function handshake({ port }: FaultServer, ca?: string): Promise<string | undefined> {
    const socket = tls.connect({ port, host: '127.0.0.1', servername: 'localhost', ca })
    try {
      return await new Promise((resolve) => {
        socket.on('secureConnect', () => {
          socket.on('close', () => resolve('closed'))
          socket.on('data', () => resolve(undefined))
          socket.write(GET)
        })
        socket.on('error', (error) => resolve('code' in error ? String(error.code) : error.message))
      })
    } finally {
      socket.destroy()
    }
  }

  const rows: readonly (readonly [name: string, fault: Fault, ca: string | undefined, seen: string | undefined])[] = [
    ['what the client trusts', {}, CERT, undefined],
    ['an unknown authority', {}, undefined, 'DEPTH_ZERO_SELF_SIGNED_CERT'],
    ['another name', { tls: { key: KEY, cert: ELSEWHERE } }, ELSEWHERE, 'ERR_TLS_CERT_ALTNAME_INVALID'],
    ['a certificate that has expired', { tls: { key: KEY, cert: EXPIRED } }, EXPIRED, 'CERT_HAS_EXPIRED'],
    [
      'a wish for the certificate of the client',
      { tls: { key: KEY, cert: CERT, ca: CERT, requestCert: true, rejectUnauthorized: true } },
      CERT,
      'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED',
    ],
    [
      'an old version alone',
      { tls: { key: KEY, cert: CERT, minVersion: 'TLSv1', maxVersion: 'TLSv1' } },
      CERT,
      'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
    ],
    ['plaintext', { tls: false }, CERT, 'ERR_SSL_WRONG_VERSION_NUMBER'],
    ['a reset', { cut: { at: 'hello', by: 'reset' } }, CERT, 'ECONNRESET'],
  ]

  test.each(rows)('with %s', async (_, fault, ca, seen) => {
    const server = await started('https')
    await server.play(fault)
    expect(await handshake(server, ca)).toBe(seen)
    await until(() => server.open === 0, 'a connection is left')
    await server.play()
    expect(await handshake(server, CERT)).toBeUndefined()
  })

  test('on a plaintext port ends at the first request', async () => {
    const server = await started()
    await server.play({ tls: { key: KEY, cert: CERT } })
    await expectSeen(server, '', 'fin')
    await until(() => server.open === 0, 'a connection is left')
  })
})
