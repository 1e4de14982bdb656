// Longer than a file should be: one list of cases, to be read from top to bottom as the contract it is.
import assert from 'node:assert/strict'
import type { RawHeaders, Transport } from '../core/contracts.ts'
import { latin1 } from '../core/headers.ts'
import { Secret } from '../core/secret.ts'
import { type ContractCase, leftOut } from './kit.ts'
import { blackHole, type RawConnection, type RawServer, rawServer } from './raw-server.ts'
import { pause, Rig, read, until } from './transport-rig.ts'

/** What a transport cannot do. What is declared here stays in the list of cases, marked as left out. */
export interface TransportLimits {
  /** False: it has no `forget`, or its connections are not its own. */
  readonly forget?: boolean
  /** 'maybe': it cannot tell that nothing was processed. */
  readonly processed?: 'maybe'
  /** False: it does not hand over trailers. */
  readonly trailers?: boolean
  /** False: it does not report 1xx. */
  readonly informational?: boolean
  /** False: it cannot limit its connections, so nothing waits in it. */
  readonly waits?: boolean
  /** False: it believes whatever its client library does, such as an unknown Transfer-Encoding or any number of 1xx. */
  readonly strict?: boolean
  /** False: it has no `upgrade`. */
  readonly upgrade?: boolean
}

interface Stage {
  readonly rig: Rig
  readonly server: RawServer
}

type Script = (connection: RawConnection, head: string, number: number) => void

const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'
const MIB = 1024 * 1024

/**
 * What every transport must keep to, on real sockets. `make` returns the transport under test with at most so many
 * connections per backend. Run the cases with any runner: `for (const { name, run } of transportContract(make)) test(name, run)`.
 */
export function transportContract(
  make: (options: { readonly connections: number }) => Transport,
  limits: TransportLimits = {},
): readonly ContractCase[] {
  const { name: transport } = make({ connections: 1 })
  const title = (name: string): string => `transport ${transport}: ${name}`

  const on = (name: string, script: Script, check: (stage: Stage) => Promise<void>, connections = 4): ContractCase => ({
    name: title(name),
    async run() {
      const server = await rawServer(script)
      const rig = new Rig(make({ connections }), server.url)
      try {
        await check({ rig, server })
        await rig.assertDone()
      } finally {
        await rig.close()
        await server.close()
      }
    },
  })
  const answer = (bytes: string): Script => {
    return ({ socket }) => void socket.write(bytes, 'latin1')
  }
  const only = (able: boolean | undefined, why: string, made: ContractCase): ContractCase =>
    able === false ? leftOut(made.name, why) : made

  return [
    on(
      'hands over status, headers in order with their repeats, and bytes',
      answer(
        'HTTP/1.1 207 Some\r\nX-B: 1\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nx-latin: \xe9\r\ncontent-length: 3\r\n\r\n\x00\xff!',
      ),
      async ({ rig }) => {
        const response = await rig.send().response
        assert.equal(response.status, 207)
        const pairs = pairsOf(response.headers)
        assert.deepEqual(
          pairs.filter(([name]) => name === 'set-cookie').map(([, value]) => value),
          ['a=1', 'b=2'],
        )
        assert.ok(pairs.some(([name, value]) => name === 'x-latin' && value === '\xe9'))
        const seen = read(response.body)
        await until(() => seen.ends === 1, 'no end')
        assert.equal(seen.text, '\x00\xff!')
      },
    ),
    on('sends method, path, headers and no body', answer(OK), async ({ rig, server }) => {
      const sent = rig.send({
        method: 'DELETE',
        path: '/a//b?x=1&x=',
        headers: ['X-One', '1', 'x-two', new Uint8Array([0xe9]), 'x-three', new Secret('configured')],
      })
      read((await sent.response).body)
      const { received } = server.connections[0]!
      assert.match(received, /^DELETE \/a\/\/b\?x=1&x= HTTP\/1\.1\r\n/)
      assert.match(received, /x-one: 1\r\n/i)
      assert.match(received, /x-two: \xe9\r\n/i)
      assert.match(received, /x-three: configured\r\n/i)
      assert.match(received, new RegExp(`host: 127\\.0\\.0\\.1:${server.port}\r\n`, 'i'))
    }),
    on('sends bytes with their length', answer(OK), async ({ rig, server }) => {
      read((await rig.send({ method: 'POST', body: new TextEncoder().encode('hello') }).response).body)
      assert.match(server.connections[0]!.received, /content-length: 5\r\n[\s\S]*\r\nhello$/i)
    }),
    on(
      'sends an opened body chunk by chunk',
      () => {},
      async ({ rig, server }) => {
        const body = { length: undefined, replayable: true, open: () => chunks(['one', 'two', 'three']) }
        const sent = rig.send({ method: 'POST', body })
        const arrived = (): boolean => /one[\s\S]*two[\s\S]*three/.test(server.connections[0]?.received ?? '')
        await until(arrived, 'the body did not come whole')
        server.connections[0]!.socket.write(OK)
        read((await sent.response).body)
      },
    ),
    on(
      'resolves at the head and pushes chunks as they come',
      ({ socket }) => void socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n'),
      async ({ rig, server }) => {
        const seen = read((await rig.send().response).body)
        assert.equal(seen.text, '')
        const { socket } = server.connections[0]!
        socket.write('3\r\none\r\n')
        await until(() => seen.text === 'one', 'the first chunk did not come alone')
        socket.write('3\r\ntwo\r\n0\r\n\r\n')
        await until(() => seen.ends === 1, 'no end')
        assert.equal(seen.text, 'onetwo')
      },
    ),
    on('delivers what came before the reader did', answer(OK), async ({ rig }) => {
      const response = await rig.send().response
      await pause(20)
      const seen = read(response.body)
      assert.deepEqual([seen.text, seen.ends], ['ok', 1])
    }),
    on('ends the lease of a small body nobody reads', answer(OK), async ({ rig }) => {
      await rig.send().response
      await until(() => rig.pool.inflight === 0, 'an unread small body keeps its lease')
    }),
    on('discards', answer(OK), async ({ rig, server }) => {
      for (let i = 0; i < 3; i++) (await rig.send().response).body.discard()
      await until(() => rig.pool.inflight === 0, 'a discarded body keeps its lease')
      assert.ok(server.connections.length <= 2, 'a discarded small body must not cost its connection')
    }),
    on(
      'pauses a body nobody reads, and goes on when somebody does',
      ({ socket }) => {
        socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${32 * MIB}\r\n\r\n`)
        socket.write(Buffer.alloc(32 * MIB, 'x'))
      },
      async ({ rig, server }) => {
        const response = await rig.send().response
        await pause(200)
        const { socket } = server.connections[0]!
        assert.ok(socket.writableLength > 16 * MIB, 'a body nobody reads must stay with the backend')
        assert.equal(rig.pool.inflight, 1)
        let bytes = 0
        const control = response.body.consume({
          chunk: (data) => {
            bytes += data.length
            setImmediate(() => control.resume())
            return false
          },
          end: () => {},
          fail: (error) => assert.fail(String(error)),
        })
        await until(() => rig.pool.inflight === 0, 'the body never ended', 20_000)
        await until(() => bytes === 32 * MIB, 'bytes were lost')
      },
    ),
    on(
      'waits with a body while the backend does not read',
      ({ socket }) => {
        socket.pause()
      },
      async ({ rig }) => {
        let yielded = 0
        async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
          for (; yielded < 1_000; yielded++) yield new Uint8Array(64 * 1024)
        }
        const sent = rig.send({ method: 'POST', body: { length: undefined, replayable: false, open: source } })
        await pause(300)
        assert.ok(yielded < 500, `${yielded} chunks of 64 KiB were taken from the source though nobody reads`)
        sent.call.cancel(new Error('enough'))
        await assert.rejects(sent.response)
      },
    ),
    only(
      limits.trailers,
      'no trailers',
      on(
        'hands over trailers',
        answer('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n'),
        async ({ rig }) => {
          const seen = read((await rig.send().response).body)
          await until(() => seen.ends === 1, 'no end')
          assert.deepEqual(pairsOf(seen.trailers ?? []), [['x-sum', '7']])
        },
      ),
    ),
    only(
      limits.informational,
      'no 1xx',
      on(
        'reports 1xx and goes on to the final answer',
        answer(`HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n${OK}`),
        async ({ rig }) => {
          const early: number[] = []
          const response = await rig.send({ informational: (status) => early.push(status) }).response
          assert.equal(response.status, 200)
          assert.deepEqual(early, [103])
          read(response.body)
        },
      ),
    ),
    ...breachesOf(limits).map(({ name, bytes }) =>
      only(
        limits.strict,
        'its client library decides',
        on(`${name} is a breach of the protocol, and ends the connection`, answer(bytes), async ({ rig, server }) => {
          await assert.rejects(rig.send().response, { code: 'PROTOCOL' })
          await until(() => server.connections[0]!.closed, 'the connection stayed open')
        }),
      ),
    ),
    on(
      'bytes that nobody asked for are nobody’s answer',
      ({ socket }, _, number) => {
        socket.write(OK)
        if (number === 1) setTimeout(() => socket.write(OK.replace(/ok$/, 'no')), 20)
      },
      async ({ rig }) => {
        for (let i = 0; i < 3; i++) {
          const seen = read((await rig.send().response).body)
          await until(() => seen.ends === 1, 'no end')
          assert.equal(seen.text, 'ok')
          await pause(40)
        }
      },
    ),
    on(
      'ends answers that have no body',
      ({ socket }, head) => {
        if (head.startsWith('HEAD')) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n')
        else if (head.startsWith('GET /204')) socket.write('HTTP/1.1 204 No Content\r\n\r\n')
        else socket.write('HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n')
      },
      async ({ rig }) => {
        for (const request of [{ method: 'HEAD' }, { path: '/204' }, { path: '/304' }]) {
          const seen = read((await rig.send(request).response).body)
          await until(() => seen.ends === 1, `no end after ${JSON.stringify(request)}`)
          assert.equal(seen.text, '')
        }
      },
    ),
    on('reuses a connection', answer(OK), async ({ rig, server }) => {
      for (let i = 0; i < 5; i++) {
        const seen = read((await rig.send().response).body)
        await until(() => seen.ends === 1, 'no end')
        await pause(5)
      }
      assert.equal(server.connections.length, 1)
    }),
    {
      name: title('refused: phase connect, nothing processed'),
      async run() {
        const server = await rawServer(() => {})
        await server.close()
        const rig = new Rig(make({ connections: 4 }), server.url)
        await assert.rejects(rig.send({ method: 'POST' }).response, { code: 'CONNECT' })
        await rig.assertDone()
        const { outcome } = rig.attempts[0]!
        assert.equal(outcome?.class, 'connect')
        if (limits.processed !== 'maybe') assert.equal(outcome?.phase, 'connect')
        await rig.close()
      },
    },
    on(
      'reset before the head',
      ({ socket }) => void socket.resetAndDestroy(),
      async ({ rig }) => {
        await assert.rejects(rig.send().response, { code: 'RESET' })
      },
    ),
    on(
      'closed before the head',
      ({ socket }) => void socket.end(),
      async ({ rig }) => {
        await assert.rejects(rig.send().response, { code: 'RESET' })
      },
    ),
    on(
      'reset within the head',
      ({ socket }) => {
        socket.write('HTTP/1.1 200 OK\r\nx-half: ')
        setTimeout(() => socket.resetAndDestroy(), 20)
      },
      async ({ rig }) => {
        await assert.rejects(rig.send().response, { code: 'RESET' })
      },
    ),
    on('garbage instead of a head', answer('SSH-2.0-OpenSSH_9.6\r\n\r\n'), async ({ rig }) => {
      await assert.rejects(rig.send().response, { code: 'PROTOCOL' })
    }),
    ...[
      { name: 'reset within the body', cut: (connection: RawConnection) => connection.socket.resetAndDestroy() },
      { name: 'short body', cut: (connection: RawConnection) => connection.socket.end() },
    ].flatMap(({ name, cut }) =>
      ['content-length: 10\r\n\r\nhalf', 'transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n'].map((rest) =>
        on(
          `${name} is no end (${rest.slice(0, rest.indexOf(':'))})`,
          (connection) => {
            connection.socket.write(`HTTP/1.1 200 OK\r\n${rest}`)
            setTimeout(() => cut(connection), 30)
          },
          async ({ rig }) => {
            const seen = read((await rig.send().response).body)
            await until(() => seen.failures.length === 1, 'the cut was not told')
            assert.equal(seen.ends, 0)
            assert.equal((seen.failures[0] as { code?: string }).code, 'TRUNCATED')
          },
        ),
      ),
    ),
    on(
      'a cut body nobody reads ends its lease as a failure',
      ({ socket }) => {
        socket.write('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf')
        setTimeout(() => socket.resetAndDestroy(), 30)
      },
      async ({ rig }) => {
        const response = await rig.send().response
        await until(() => rig.pool.inflight === 0, 'no end of the lease')
        assert.equal(rig.attempts[0]!.outcome?.class, 'truncated')
        const seen = read(response.body)
        assert.deepEqual([seen.text, seen.failures.length], ['half', 1])
      },
    ),
    on(
      "a body source that fails is the request's fault",
      () => {},
      async ({ rig }) => {
        async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
          yield new Uint8Array(3)
          throw new Error('disk on fire')
        }
        const sent = rig.send({ method: 'POST', body: { length: undefined, replayable: false, open: source } })
        await assert.rejects(sent.response)
        assert.equal(rig.attempts[0]!.outcome?.class, 'request')
      },
    ),
    // --- aborts: the promise settles in the tick, the lease ends once, nothing stays open
    only(
      limits.waits,
      'no limit on connections',
      on(
        'abort while waiting for a connection',
        () => {},
        async ({ rig, server }) => {
          const held = rig.send()
          await until(
            () => server.connections[0]?.received.includes('\r\n\r\n') === true,
            'the first request never came',
          )
          const waiting = rig.send()
          await pause(10)
          await assertAbort(waiting)
          assert.equal(rig.pool.inflight, 1)
          server.connections[0]!.socket.write(OK)
          read((await held.response).body)
          assert.equal(server.connections[0]!.received.match(/GET/g)?.length, 1, 'the withdrawn request was sent')
        },
        1,
      ),
    ),
    {
      name: title('abort while connecting to who never answers'),
      async run() {
        const hole = await blackHole()
        const rig = new Rig(make({ connections: 4 }), hole.url)
        const sent = Array.from({ length: 3 }, () => rig.send())
        await pause(50)
        for (const one of sent) await assertAbort(one)
        await rig.assertDone()
        await rig.close()
        await hole.close()
      },
    },
    on(
      'abort while sending a body',
      ({ socket }) => {
        socket.pause()
      },
      async ({ rig, server }) => {
        async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
          for (;;) yield new Uint8Array(64 * 1024)
        }
        const sent = rig.send({ method: 'POST', body: { length: undefined, replayable: false, open: source } })
        await until(() => server.connections[0]?.received.includes('\r\n\r\n') === true, 'the request never came')
        await assertAbort(sent)
        server.connections[0]!.socket.resume()
        await until(() => server.connections[0]!.closed, 'the connection stayed open')
      },
    ),
    on(
      'abort while a body source is silent',
      () => {},
      async ({ rig, server }) => {
        let returned = false
        const source: AsyncIterableIterator<Uint8Array> = {
          [Symbol.asyncIterator]: () => source,
          next: () => new Promise(() => {}),
          return: async () => {
            returned = true
            return { done: true, value: undefined }
          },
        }
        const sent = rig.send({ method: 'POST', body: { length: undefined, replayable: false, open: () => source } })
        await pause(50)
        await assertAbort(sent)
        await until(() => server.connections.every((connection) => connection.closed), 'the connection stayed open')
        assert.ok(returned, 'the source was not let go')
      },
    ),
    on(
      'abort before the head',
      () => {},
      async ({ rig, server }) => {
        const sent = rig.send()
        await until(() => server.connections[0]?.received.includes('\r\n\r\n') === true, 'the request never came')
        await assertAbort(sent)
        await until(() => server.connections[0]!.closed, 'the connection stayed open')
      },
    ),
    on('abort within the head', answer('HTTP/1.1 200 OK\r\nx-half: '), async ({ rig, server }) => {
      const sent = rig.send()
      await pause(50)
      await assertAbort(sent)
      await until(() => server.connections[0]!.closed, 'the connection stayed open')
    }),
    on(
      'abort within the body',
      answer('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf'),
      async ({ rig, server }) => {
        const sent = rig.send()
        const seen = read((await sent.response).body)
        await until(() => seen.text === 'half', 'the first half never came')
        const reason = new Error('enough')
        sent.call.cancel(reason)
        assert.deepEqual(seen.failures, [reason], 'the reader must be told in the tick of the cancel')
        assert.equal(rig.pool.inflight, 0)
        await until(() => server.connections[0]!.closed, 'the connection stayed open')
      },
    ),
    on(
      'a reader that gives up',
      answer('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf'),
      async ({ rig, server }) => {
        const seen = read((await rig.send().response).body)
        await until(() => seen.text === 'half', 'the first half never came')
        seen.control.cancel(new Error('enough'))
        assert.equal(rig.pool.inflight, 0)
        await until(() => server.connections[0]!.closed, 'the connection stayed open')
        assert.deepEqual([seen.ends, seen.failures], [0, []], 'who gave up must hear no more')
      },
    ),
    on('an abort after the end changes nothing', answer(OK), async ({ rig, server }) => {
      for (let i = 0; i < 3; i++) {
        const sent = rig.send()
        const seen = read((await sent.response).body)
        await until(() => seen.ends === 1, 'no end')
        sent.call.cancel(new Error('late'))
        await pause(5)
        assert.deepEqual(seen.failures, [])
      }
      assert.equal(server.connections.length, 1, 'a healthy connection was destroyed')
    }),
    on(
      'an abort between two requests on one connection spares it',
      answer(OK),
      async ({ rig, server }) => {
        read((await rig.send().response).body)
        await pause(20)
        const sent = rig.send()
        sent.call.cancel(new Error('at once'))
        await assert.rejects(sent.response)
        await pause(20)
        read((await rig.send().response).body)
        await pause(20)
        assert.equal(server.connections.length, 1, 'a healthy connection was destroyed')
      },
      1,
    ),
    only(
      limits.forget,
      'its connections are not its own',
      on(
        'forget closes its sockets, after what is in flight',
        ({ socket }) => {
          setTimeout(() => socket.write(OK), 100)
        },
        async ({ rig, server }) => {
          const sent = rig.send()
          await until(() => server.connections.length === 1, 'no connection')
          const [record] = rig.pool.records
          const forgotten = rig.transport.forget!(record!)
          const seen = read((await sent.response).body)
          await until(() => seen.ends === 1, 'what was in flight must finish')
          await forgotten
          await until(() => server.connections[0]!.closed, 'the connection stayed open')
        },
      ),
    ),
    ...(limits.upgrade === false ? [leftOut(title('upgrades'), 'no upgrade')] : []),
  ]

  async function assertAbort(sent: ReturnType<Rig['send']>): Promise<void> {
    const reason = new Error('enough')
    let settled: unknown
    sent.response.catch((error: unknown) => {
      settled = error
    })
    sent.call.cancel(reason)
    for (let i = 0; i < 20; i++) await Promise.resolve() // microtasks only: the same tick
    assert.equal(settled, reason, 'an abort must reject in its tick, with its reason')
  }
}

/** Answers that must not be passed on. */
function breachesOf({ informational }: TransportLimits): readonly { readonly name: string; readonly bytes: string }[] {
  const coded = (coding: string): string =>
    `HTTP/1.1 200 OK\r\ntransfer-encoding: ${coding}\r\n\r\n2\r\nok\r\n0\r\n\r\n`
  const framing = [
    { name: 'an unknown Transfer-Encoding', bytes: coded('foo') },
    { name: 'a Transfer-Encoding after chunked', bytes: coded('chunked, gzip') },
    { name: 'a Transfer-Encoding before chunked', bytes: coded('gzip, chunked') },
    { name: 'chunked twice', bytes: coded('chunked\r\ntransfer-encoding: chunked') },
    { name: 'a head of 501 fields', bytes: OK.replace('\r\n', `\r\n${fields(500)}`) },
    { name: 'a head of 100 KiB', bytes: OK.replace('\r\n', `\r\nx: ${'x'.repeat(100 * 1024)}\r\n`) },
  ]
  if (informational === false) return framing
  const interim = 'HTTP/1.1 103 Early Hints\r\n'
  return [
    ...framing,
    { name: 'an eleventh 1xx', bytes: `${interim}\r\n`.repeat(11) + OK },
    { name: '1xx of more than 16 KiB', bytes: `${interim}x: ${'x'.repeat(9_000)}\r\n\r\n`.repeat(2) + OK },
    {
      name: 'a 101 that nobody asked for',
      bytes: `HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n${OK}`,
    },
  ]
}

function fields(count: number): string {
  return Array.from({ length: count }, (_, i) => `x-${i}: 1\r\n`).join('')
}

function pairsOf(headers: RawHeaders): [string, string][] {
  return Array.from({ length: headers.length / 2 }, (_, i) => [
    latin1(headers[2 * i]!).toLowerCase(),
    latin1(headers[2 * i + 1]!),
  ])
}

async function* chunks(texts: readonly string[]): AsyncGenerator<Uint8Array, void, undefined> {
  for (const text of texts) yield new TextEncoder().encode(text)
}
