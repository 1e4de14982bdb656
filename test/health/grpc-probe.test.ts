import { once } from 'node:events'
import http2, { type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import type { ActiveHealthOptions, Balancer } from 'evenkeel'
import { describe, expect, onTestFinished, test } from 'vitest'
import { checked, listening, reasonsOf } from '../support/checks.ts'
import { CERT, KEY } from '../support/tls.ts'
import { bytesOf, keeper, until } from '../support/upstreams.ts'

interface Asked {
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/** A gRPC server on localhost, by hand. */
async function grpc(
  answer: (stream: ServerHttp2Stream) => void,
): Promise<{ url: string; asked: Asked[]; sessions: () => number }> {
  const asked: Asked[] = []
  let sessions = 0
  const open = new Set<http2.ServerHttp2Session>()
  const server = http2.createSecureServer({ cert: CERT, key: KEY })
  server.on('session', (session) => {
    sessions++
    open.add(session)
    session.on('error', () => {}).on('close', () => open.delete(session))
  })
  server.on('stream', async (stream, headers) => {
    stream.on('error', () => {})
    asked.push({ headers, body: await bytesOf(stream).catch(() => Buffer.alloc(0)) })
    if (!stream.destroyed) answer(stream)
  })
  server.listen(0, 'localhost')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const session of open) session.destroy()
    server.close()
  })
  return { url: `https://localhost:${(server.address() as AddressInfo).port}`, asked, sessions: () => sessions }
}

/** One message, then the trailers. */
function says(
  message: readonly number[],
  trailers: Record<string, string>,
  status = 200,
): (stream: ServerHttp2Stream) => void {
  return (stream) => {
    stream.respond({ ':status': status, 'content-type': 'application/grpc+proto' }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers(trailers))
    stream.end(Buffer.from(message))
  }
}

/** No message: the trailers are the head. */
function refuses(headers: Record<string, string>): (stream: ServerHttp2Stream) => void {
  return (stream) =>
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...headers }, { endStream: true })
}

const OK = { 'grpc-status': '0' }
const framed = (...message: number[]): number[] => [0, 0, 0, 0, message.length, ...message]
const SERVING = framed(0x08, 1)

function asking(url: string, active: ActiveHealthOptions = {}): Balancer {
  return checked([url], { type: 'grpc', ...active }, { undici: { allowH2: true, tls: { ca: CERT } } })
}

describe('a gRPC check', () => {
  test('asks grpc.health.v1 for the server as a whole, over one HTTP/2 connection', async () => {
    const { url, asked, sessions } = await grpc(says(SERVING, OK))
    const balancer = asking(url, { headers: { authorization: 'Bearer x' } })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe('')
    await until(() => asked.length > 5, 'no checks')
    expect(sessions()).toBe(1)
    expect(asked[0]!.headers).toMatchObject({
      ':method': 'POST',
      ':path': '/grpc.health.v1.Health/Check',
      'content-type': 'application/grpc+proto',
      te: 'trailers',
      authorization: 'Bearer x',
    })
    expect([...asked[0]!.body]).toEqual([0, 0, 0, 0, 0])
  })

  test.each([
    ['shop.Cart', [0, 0, 0, 0, 11, 0x0a, 9]],
    ['é', [0, 0, 0, 0, 4, 0x0a, 2]],
    ['s'.repeat(127), [0, 0, 0, 0, 129, 0x0a, 127]],
    ['s'.repeat(300), [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]],
  ])('asks for a service: %s', async (service, before) => {
    const { url, asked } = await grpc(says(SERVING, OK))
    await asking(url, { service }).ready()
    expect(asked[0]!.body).toEqual(Buffer.concat([Buffer.from(before), Buffer.from(service)]))
  })

  const rows: readonly (readonly [what: string, answer: (stream: ServerHttp2Stream) => void, reason: string])[] = [
    ['SERVING', says(SERVING, OK), ''],
    ['SERVING and fields of a later version', says(framed(0x08, 1, 0x12, 1, 65), OK), ''],
    ['NOT_SERVING', says(framed(0x08, 2), OK), 'NOT_SERVING'],
    ['SERVICE_UNKNOWN', says(framed(0x08, 3), OK), 'SERVICE_UNKNOWN'],
    ['UNKNOWN, written', says(framed(0x08, 0), OK), 'UNKNOWN'],
    ['UNKNOWN, left out', says(framed(), OK), 'UNKNOWN'],
    ['a status of a later version', says(framed(0x08, 9), OK), 'serving status 9'],
    ['no message at all', says([], OK), 'its answer is no HealthCheckResponse'],
    ['half a message', says([0, 0, 0, 0, 2, 0x08], OK), 'its answer is no HealthCheckResponse'],
    ['a compressed message', says([1, 0, 0, 0, 2, 0x08, 1], OK), 'its answer is no HealthCheckResponse'],
    [
      'an error in the trailers, whatever the message',
      says(SERVING, { 'grpc-status': '14', 'grpc-message': 'shutting down' }),
      'grpc-status 14 (UNAVAILABLE): shutting down',
    ],
    [
      'an error in the head',
      refuses({ 'grpc-status': '5', 'grpc-message': 'unknown service' }),
      'grpc-status 5 (NOT_FOUND): unknown service',
    ],
    [
      'an error without words',
      refuses({ 'grpc-status': '7' }),
      'grpc-status 7 (PERMISSION_DENIED): it does not say why',
    ],
    [
      'UNIMPLEMENTED',
      refuses({ 'grpc-status': '12', 'grpc-message': 'unknown method Check' }),
      'grpc-status 12 (UNIMPLEMENTED): it does not know grpc.health.v1',
    ],
    ['a status nobody knows', refuses({ 'grpc-status': '99' }), 'grpc-status 99 (no known code): it does not say why'],
    [
      'no grpc-status',
      says(SERVING, {}),
      'status 200 without a grpc-status: is it gRPC, and is it reached over HTTP/2?',
    ],
    [
      'a page of another kind',
      says([...Buffer.from('not found'.repeat(10_000))], {}, 404),
      'status 404 without a grpc-status: is it gRPC, and is it reached over HTTP/2?',
    ],
  ]

  test.each(rows)('answered with %s', async (_, answer, reason) => {
    const { url } = await grpc(answer)
    const balancer = asking(url)
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe(reason === '' ? '' : `probe: grpc check: ${reason}`)
  })

  test('takes a server that stops serving out, and back in', async () => {
    let serving = 1
    const { url } = await grpc((stream) => says(framed(0x08, serving), OK)(stream))
    const balancer = asking(url)
    await balancer.ready()
    serving = 2
    await until(() => reasonsOf(balancer) === 'probe: grpc check: NOT_SERVING', 'it was not taken out')
    serving = 1
    await until(() => reasonsOf(balancer) === '', 'it was not taken back')
  })

  test('that is not answered ends by its timeout, and only its stream with it', async () => {
    let closed = 0
    const { url, sessions } = await grpc((stream) => stream.on('close', () => closed++))
    const balancer = asking(url, { timeoutMs: 50 })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe('probe: grpc check: no answer within 50 ms')
    await until(() => closed > 2, 'a stream stayed open')
    expect(sessions()).toBe(1)
  })

  test('over HTTP/1.1 says what is missing', async () => {
    const plain = await keeper((_, response) => response.writeHead(404).end())
    const server = https.createServer({ cert: CERT, key: KEY }, (_, response) => response.writeHead(415).end())
    onTestFinished(() => {
      server.closeAllConnections()
      server.close()
    })
    const secure = `https://localhost:${await listening(server, 0, 'localhost')}`
    for (const [url, status] of [
      [plain.url, 404],
      [secure, 415],
    ] as const) {
      const balancer = asking(url)
      await balancer.ready()
      expect(reasonsOf(balancer)).toBe(
        `probe: grpc check: status ${status} without a grpc-status: is it gRPC, and is it reached over HTTP/2?`,
      )
    }
  })
})
