import net from 'node:net'
import tls from 'node:tls'
import { type Fault, faultServer, leftovers, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { BODY, connect, connectError, expectSeen, GET, HEAD, QUIET_MS, started } from './support/fault-client.ts'
import { CERT, KEY } from './support/tls.ts'
import { pause, until, Wire } from './support/upstreams.ts'

describe('requests', () => {
  test('are counted by id, answered or not', async () => {
    const server = await started()
    const wire = connect(server)
    wire.write(GET.replace('host', 'X-Request-Id: a\r\nhost'))
    await wire.until(BODY)
    await server.play({ cut: { at: 'request', by: 'reset' } })
    wire.write(GET.replace('host', 'x-request-id: b\r\nhost'))
    await wire.closed()
    await expectSeen(server, '', 'reset', { sent: GET.replace('host', 'x-request-id: a\r\nhost') })
    await expectSeen(server, '', 'reset')
    expect(Object.fromEntries(server.seen)).toEqual({ a: 2, b: 1 })
    expect(server.requests).toBe(4)
  })

  test('are counted by another header if told so', async () => {
    const server = await started('http', { idHeader: 'x-mine' })
    await expectSeen(server, HEAD + BODY, 'open', { sent: GET.replace('host', 'x-mine: a\r\nhost') })
    expect([...server.seen]).toEqual([['a', 1]])
  })

  const post = (fields: string): string => `POST / HTTP/1.1\r\nhost: a\r\n${fields}\r\n\r\n`
  const uploads: readonly (readonly [name: string, sent: string])[] = [
    ['a body of a length that looks like a request', `${post(`content-length: ${GET.length}`)}${GET}`],
    [
      'a body in chunks',
      `${post('transfer-encoding: chunked')}5\r\nhello\r\n1a;a=b\r\n${GET}\r\n0\r\nx-trailer: 1\r\n\r\n`.replace(
        '1a;',
        `${GET.length.toString(16)};`,
      ),
    ],
    ['an empty body', post('content-length: 0')],
    ['an empty line before it', `\r\n${GET}`],
  ]

  test.each(uploads)('with %s are one request each, in one piece, byte by byte and three at once', async (_, sent) => {
    const server = await started()
    await expectSeen(server, HEAD + BODY, 'open', { sent })
    const wire = connect(server)
    for (const byte of sent) {
      wire.write(byte)
      await new Promise(setImmediate)
    }
    await wire.until(HEAD + BODY)
    await expectSeen(server, (HEAD + BODY).repeat(3), 'open', { sent: sent.repeat(3) })
    expect(server.requests).toBe(5)
  })

  test('with a body are answered when it is there, or early', async () => {
    const server = await started()
    const wire = connect(server)
    wire.write(post('content-length: 4\r\nexpect: 100-continue'))
    await wire.until('HTTP/1.1 100 Continue\r\n\r\n')
    await pause(QUIET_MS)
    expect(wire.received).not.toContain(HEAD)
    wire.write('body')
    await wire.until(HEAD + BODY)
    await server.play({ early: true })
    await expectSeen(server, HEAD + BODY, 'open', { sent: post('content-length: 4') })
  })

  const none: readonly (readonly [name: string, sent: string])[] = [
    ['text', 'nonsense\r\n\r\n'],
    ['HTTP/0.9', 'GET /\r\n\r\n'],
    ['of a length below 0', post('content-length: -4')],
    ['in chunks without a size', `${post('transfer-encoding: chunked')}xyz\r\n`],
    ['the start of a handshake', '\x16\x03\x01\x02\x00\x01'],
    ['a head without an end', `GET /${'x'.repeat(300_000)}`],
  ]

  test.each(none)('that are none get a 400: %s', async (_, sent) => {
    const server = await started()
    const said = 'HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n'
    await expectSeen(server, said, 'fin', { sent })
  })
})

describe('a fault', () => {
  test('strikes its share of the requests, the same ones under the same seed', async () => {
    const play = async (): Promise<string> => {
      const server = await started('http', { random: seededRandom(7) })
      await server.play({ status: 500, share: 0.2 })
      const wire = connect(server)
      wire.write(GET.repeat(1_000))
      await wire.until((received) => received.split('HTTP/1.1').length === 1_001 && received.endsWith(BODY))
      return wire.received.replaceAll(/HTTP\/1.1 (\d)[^x]*x+/g, '$1')
    }
    const statuses = await play()
    // 200 expected, standard deviation 12.6.
    expect(statuses.replaceAll('2', '').length).toBeGreaterThan(150)
    expect(statuses.replaceAll('2', '').length).toBeLessThan(250)
    expect(await play()).toBe(statuses)
  })

  test('that flaps begins in force, comes and goes, until something else is played', async () => {
    const server = await started()
    const wire = connect(server)
    const status = async (): Promise<string> => {
      wire.received = ''
      wire.write(GET)
      return (await wire.until((received) => received.endsWith(BODY))).slice(9, 12)
    }
    await server.play({ status: 503, flap: { upMs: 1, downMs: 60_000 } })
    expect(await status()).toBe('503')
    await server.play({ status: 503, flap: { upMs: 20, downMs: 20 } })
    for (const next of ['200', '503', '200', '503']) {
      while ((await status()) !== next) {}
    }
    await server.play({ status: 429 })
    for (const endMs = performance.now() + 60; performance.now() < endMs; ) expect(await status()).toBe('429')
  })

  test('that flaps can be a refusal', async () => {
    const server = await started()
    void server.play({ refuse: true, flap: { upMs: 20, downMs: 20 } })
    for (const next of ['ECONNREFUSED', undefined, 'ECONNREFUSED', undefined]) {
      while ((await connectError(server.port)) !== next) {}
    }
    await server.play()
    await expectSeen(server, HEAD + BODY)
  })

  test('that changes many times in one tick ends as it was played last', async () => {
    const server = await started()
    for (const last of [{ refuse: true }, {}]) {
      for (let n = 0; n < 4; n++) {
        void server.play({ refuse: true })
        void server.play()
      }
      await server.play(last)
      expect(await connectError(server.port)).toBe(last.refuse ? 'ECONNREFUSED' : undefined)
    }
    await expectSeen(server, HEAD + BODY)
  })

  test('with a certificate that is none is told where it is given', async () => {
    const tls = { key: KEY, cert: 'none' }
    await expect(faultServer({ tls })).rejects.toThrow(/PEM/)
    const server = await started('https')
    await expect(server.play({ tls })).rejects.toThrow(/PEM/)
    await expectSeen(server, HEAD + BODY)
  })
})

describe('a client that goes', () => {
  const stages: readonly (readonly [name: string, sent: string])[] = [
    ['after connecting', ''],
    ['in the middle of its head', GET.slice(0, 20)],
    ['in the middle of its body', 'POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nbod'],
    ['after its request', GET],
  ]
  const faults: readonly Fault[] = [
    {},
    { afterMs: 60_000 },
    { early: true, drip: { of: 'head', everyMs: 1 } },
    { drip: { of: 'body', everyMs: 1 }, bytes: 10_000 },
    { interim: { count: Number.POSITIVE_INFINITY, everyMs: 1 } },
    { interim: { count: Number.POSITIVE_INFINITY } },
    { bytes: 20_000_000 },
    { framing: 'close', bytes: 20_000_000 },
    ...(['fin', 'stall'] as const).flatMap((by) =>
      (['accept', 'hello', 'request', 'status', 'header', 'head', 'body', 'end'] as const).map((at) => ({
        cut: { at, by },
      })),
    ),
  ]

  describe.each(['http', 'https'] as const)('over %s', (scheme) => {
    test.each(stages)('%s leaves nothing open, in order or not, whatever the fault', async (_, sent) => {
      const server = await started(scheme)
      const baseline = leftovers()
      for (const fault of faults) {
        await server.play(fault)
        for (const leave of ['end', 'destroy', 'resetAndDestroy'] as const) {
          const before = server.accepted
          const wire = new Wire(net.connect(server.port, '127.0.0.1'))
          const socket = scheme === 'http' ? wire.socket : tls.connect({ socket: wire.socket, ca: CERT })
          socket.on('error', () => {}).resume()
          if (sent !== '') socket.write(sent)
          await until(() => server.accepted > before, 'it was not accepted')
          await new Promise(setImmediate) // far enough for some, too early for others
          wire.socket[leave]()
          await until(() => server.open === 0, `open after ${leave} under ${JSON.stringify(fault)}`)
        }
      }
      await baseline.restored()
    })

    test('after any bytes, at any time, leaves nothing open', async () => {
      const server = await started(scheme)
      const baseline = leftovers()
      const random = seededRandom(3)
      const bytes = `\r\n: /1.HTPGE\0\xff${GET}`
      for (let n = 0; n < 300; n++) {
        if (n % 10 === 0) await server.play(faults[random(faults.length)])
        const socket = net
          .connect(server.port, '127.0.0.1')
          .on('error', () => {})
          .resume()
        for (let left = random(60); left > 0; left--) socket.write(bytes[random(bytes.length)]!, 'latin1')
        if (random(2) === 0) socket.write(GET)
        socket[(['end', 'destroy', 'resetAndDestroy'] as const)[random(3)]!]()
      }
      await server.play()
      await until(() => server.open === 0, 'a connection is left')
      await baseline.restored()
      await expectSeen(server, HEAD + BODY)
    })
  })
})
