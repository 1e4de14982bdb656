import { randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import http, { type IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { manualClock } from 'evenkeel/testing'
import { expect } from 'vitest'
import {
  ask,
  bytesOf,
  idle,
  inflight,
  keeper,
  MIB,
  OK,
  rawClient,
  rawUpstream,
  sha256,
  standstill,
  statsOf,
  until,
  upstream,
  type Wire,
} from '../support/upstreams.ts'
import { get, isWhole, passed, values } from './passing.ts'
import type { Front, Row } from './row.ts'

/** More than all buffers on the way take in together. */
const LARGE = 24 * MIB
const PART = 65_536
const bytes = randomFillSync(Buffer.alloc(LARGE))

const EVENTS =
  'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n'

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`
}

function* parts(told: (upTo: number) => void = () => {}): Generator<Buffer, void, undefined> {
  for (let from = 0; from < bytes.length; from += PART) {
    told(from + PART)
    yield bytes.subarray(from, from + PART)
  }
}

/** Where a client leaves. */
const departures = [
  ['before the head', ''],
  ['within the head of the answer', 'HTTP/1.1 200 OK\r\nx-half: '],
  ['before the body', 'HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n'],
  ['within the body', 'HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf'],
  ['within a chunked body', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n'],
  ['within events', `${EVENTS}${chunk('data: 1\n\n')}`],
] as const

/** A client that has sent a request, and the connection to the backend that begins an answer. */
async function begun(
  front: Front,
  answer: string,
): Promise<{ client: Wire; wire: Wire; proxy: Awaited<ReturnType<Front>> }> {
  const backend = await rawUpstream(async (wire) => {
    await wire.head()
    wire.write(answer)
  })
  const proxy = await front([backend])
  const client = await rawClient(proxy)
  client.write(get('/'))
  const wire = await backend.wire()
  await wire.until('\r\n\r\n')
  return { client, wire, proxy }
}

/** Rows 49 to 52: answers and uploads as they flow. */
export const STREAMING_ROWS: readonly Row[] = [
  ...departures.map(
    ([where, answer]): Row => ({
      number: 49,
      says: `a client that goes away ${where} takes its backend’s connection along`,
      async run(front) {
        for (const how of ['destroy', 'resetAndDestroy'] as const) {
          const { client, wire } = await begun(front, answer)
          if (/half|data/.test(answer) && !answer.includes('x-half'))
            await client.until(/half/.test(answer) ? 'half' : 'data')
          client.socket[how]()
          await wire.closed()
        }
      },
    }),
  ),
  {
    number: 49,
    says: 'and the backend is not blamed, nor asked again',
    about: 'ours',
    async run(front) {
      for (const [, answer] of departures) {
        const { client, wire, proxy } = await begun(front, answer)
        client.socket.destroy()
        await wire.closed()
        const balancer = proxy.balancer!
        await idle(balancer)
        expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
        expect(balancer.stats().pools.default).toMatchObject({ attempts: 1, retries: 0, failed: 0 })
      }
    },
  },
  {
    number: 49,
    says: 'one that goes away after its answer costs the backend no connection',
    async run(front) {
      const backend = await rawUpstream(async (wire) => {
        for (;;) {
          await wire.head()
          wire.write(OK)
        }
      })
      const proxy = await front([backend])
      for (let i = 0; i < 5; i++) {
        const client = await rawClient(proxy)
        client.write(get('/'))
        await client.until(isWhole)
        client.socket.destroy()
      }
      await ask(proxy, '/')
      expect(backend.wires.length).toBeLessThanOrEqual(2)
      expect(backend.wires.filter(({ ending }) => ending !== undefined)).toEqual([])
    },
  },
  {
    number: 49,
    says: 'one that goes away while it does not read takes its backend’s connection along',
    async run(front) {
      const { client, wire } = await begun(front, `HTTP/1.1 200 OK\r\ncontent-length: ${LARGE}\r\n\r\n`)
      wire.socket.write(bytes)
      await client.until('\r\n\r\n')
      client.socket.pause()
      await until(() => wire.socket.writableLength > 0, 'all of it went somewhere')
      client.socket.destroy()
      await wire.closed()
    },
  },
  ...(
    [
      ['with a length', 'Content-Length: 10\r\n\r\nhalf'],
      ['in chunks', 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'],
    ] as const
  ).map(
    ([how, rest]): Row => ({
      number: 49,
      says: `one that goes away within its upload (${how}) takes its backend’s connection along, never as a whole request`,
      async run(front) {
        const backend = await rawUpstream(() => {})
        const proxy = await front([backend])
        const client = await rawClient(proxy)
        client.write(`PUT / HTTP/1.1\r\nHost: a\r\n${rest}`)
        const wire = await backend.wire()
        await wire.until('half')
        client.socket.destroy()
        await wire.closed()
        expect(wire.received).not.toContain('\r\n0\r\n\r\n')
        expect(backend.wires).toHaveLength(1)
        if (proxy.balancer === undefined) return
        await idle(proxy.balancer)
        expect(statsOf(proxy.balancer)).toMatchObject({ requests: 1, failures: 0 })
      },
    }),
  ),
  {
    number: 50,
    says: 'a client that stops reading stops the backend, and gets every byte in the end',
    async run(front) {
      let made = 0
      const backend = await upstream((_, response) => {
        response.writeHead(200, { 'content-length': bytes.length })
        Readable.from(parts((upTo) => (made = upTo))).pipe(response)
      })
      const proxy = await front([backend])
      const request = http.get(proxy.url, { agent: false })
      const [response] = (await once(request, 'response')) as [IncomingMessage]
      response.pause()
      expect(await standstill(() => made)).toBeLessThan(bytes.length / 1.5)
      if (proxy.balancer !== undefined) expect(inflight(proxy.balancer)).toBe(1)
      expect(sha256(await bytesOf(response))).toBe(sha256(bytes))
    },
  },
  {
    number: 51,
    says: 'a backend that stops reading stops the client, and gets every byte in the end',
    async run(front) {
      const go = Promise.withResolvers<void>()
      const backend = await upstream(async (request, response) => {
        await go.promise
        response.end(sha256(await bytesOf(request)))
      })
      const proxy = await front([backend])
      const request = http.request(proxy.url, { method: 'PUT', agent: false })
      let taken = 0
      Readable.from(parts((upTo) => (taken = upTo))).pipe(request)
      expect(await standstill(() => taken)).toBeLessThan(bytes.length / 1.5)
      go.resolve()
      const [response] = (await once(request, 'response')) as [IncomingMessage]
      expect((await bytesOf(response)).toString()).toBe(sha256(bytes))
    },
  },
  ...(['with a length', 'in chunks'] as const).map(
    (how): Row => ({
      number: 51,
      says: `8 MiB up and down again, ${how}, byte by byte`,
      async run(front) {
        const some = bytes.subarray(0, 8 * MIB)
        const backend = await upstream((request, response) => {
          if (how === 'with a length') response.setHeader('content-length', some.length)
          request.pipe(response)
        })
        const proxy = await front([backend])
        const headers: Record<string, number> = how === 'with a length' ? { 'content-length': some.length } : {}
        const request = http.request(proxy.url, { method: 'POST', agent: false, headers })
        Readable.from([some]).pipe(request)
        const [response] = (await once(request, 'response')) as [IncomingMessage]
        expect(response.headers['content-length']).toBe(how === 'with a length' ? String(some.length) : undefined)
        expect(sha256(await bytesOf(response))).toBe(sha256(some))
      },
    }),
  ),
  {
    number: 52,
    says: 'events are passed on one by one as they come, their head at once',
    async run(front) {
      const { client, wire } = await begun(front, EVENTS)
      const head = await client.until('\r\n\r\n')
      expect(values(head, 'content-type')).toEqual(['text/event-stream; charset=utf-8'])
      expect([...values(head, 'cache-control'), ...values(head, 'x-accel-buffering')]).toEqual(['no-cache', 'no'])
      expect(values(head, 'content-encoding')).toEqual([])
      for (const event of ['data: 1\n\n', 'data: 2\n\n', ': heartbeat\n\n']) {
        const before = client.reads.length
        wire.write(chunk(event))
        await client.until(event)
        expect(client.reads.length).toBe(before + 1)
      }
      wire.write('0\r\n\r\n')
      await client.until(isWhole)
    },
  },
  {
    number: 52,
    says: 'as is any other body of unknown length',
    async run(front) {
      const { client, wire } = await begun(front, 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      for (const line of ['{"a":1}\n', '{"a":2}\n']) {
        wire.write(chunk(line))
        await client.until(line)
      }
      wire.write('0\r\n\r\n')
      await client.until(isWhole)
    },
  },
  {
    number: 52,
    says: 'a stream with a heartbeat every 30 s lives as long as it likes; one silent for 5 minutes does not',
    about: 'ours',
    async run(front) {
      const clock = manualClock()
      const backend = await rawUpstream(async (wire) => {
        await wire.head()
        wire.write(EVENTS)
      })
      const proxy = await front([backend], { balancer: { clock } })
      const client = await rawClient(proxy)
      client.write(get('/'))
      await client.until('\r\n\r\n')
      const wire = await backend.wire()
      for (let minute = 0; minute < 20; minute++) {
        clock.advance(30_000)
        const beat = `: ${minute}\n\n`
        wire.write(chunk(beat))
        await client.until(beat)
      }
      clock.advance(300_000)
      await client.closed()
      expect(isWhole(client.received)).toBe(false)
    },
  },
  {
    number: 52,
    says: 'small answers leave in one write: head, body and end',
    about: 'ours',
    not: { web: 'its server writes' },
    async run(front) {
      const backend = await keeper((_, response) => response.end('x'.repeat(1024)))
      const client = await rawClient(await front([backend]))
      for (let i = 1; i <= 20; i++) {
        client.write(get('/'))
        await client.until((received) => received.split('x'.repeat(1024)).length > i)
        expect(client.reads).toHaveLength(i)
      }
    },
  },
  {
    number: 52,
    says: 'small ones in chunks leave in one write, too',
    about: 'ours',
    not: { web: 'its server writes' },
    async run(front) {
      const { got, client } = await passed(
        front,
        get('/'),
        'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
      )
      expect(got).toMatch(/2\r\nok\r\n0\r\n\r\n$/)
      expect(client.reads).toHaveLength(1)
    },
  },
]
