// Long, because it is one list: everything the request face promises, in the order a caller meets it.
import assert from 'node:assert/strict'
import { randomFillSync } from 'node:crypto'
import { getEventListeners } from 'node:events'
import { Readable } from 'node:stream'
import { inspect } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import {
  type Answer,
  type AnswerBody,
  type Balancer,
  BalancerError,
  type BalancerErrorCode,
  createBalancer,
  type HeaderRecord,
  type RequestFace,
  type RequestOptions,
} from 'evenkeel'
import { describe, expect, expectTypeOf, onTestFinished, test, vi } from 'vitest'
import { blackHole } from '../src/testing/raw-server.ts'
import {
  balance,
  bytesOf,
  idle,
  inflight,
  keeper,
  kept,
  MIB,
  nobody,
  OK,
  pause,
  rawUpstream,
  says,
  sha256,
  standstill,
  statsOf,
  until,
  upstream,
  type Wire,
} from './support/upstreams.ts'

const encoder = new TextEncoder()
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString()

/** A balancer over a backend that answers every request with these bytes. */
async function answering(bytes: string, options?: Parameters<typeof balance>[1]): Promise<Balancer> {
  return balance([await rawUpstream(says(bytes))], options)
}

/** An answer in chunks, one per part. */
function chunked(parts: readonly string[], head = '', tail = ''): string {
  const body = parts.map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('')
  return `HTTP/1.1 200 OK\r\n${head}transfer-encoding: chunked\r\n\r\n${body}0\r\n${tail}\r\n`
}

/** The head and a first chunk, and then nothing more. */
const BEGUN = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n'

function unending(): ReturnType<typeof rawUpstream> {
  return rawUpstream(async (wire) => {
    await wire.head()
    wire.write(BEGUN)
  })
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => assert.fail('it did not reject'),
    (error: unknown) => error,
  )
}

async function rejectsWith(code: BalancerErrorCode, promise: Promise<unknown>): Promise<BalancerError> {
  const error = await rejection(promise)
  assert.ok(error instanceof BalancerError, `expected a BalancerError, got ${inspect(error)}`)
  assert.equal(error.code, code)
  return error
}

async function iterated(body: AsyncIterable<Uint8Array>): Promise<string> {
  return text(await bytesOf(body))
}

function controls(): { readonly signal: AbortSignal; readonly abort: (reason: unknown) => void } {
  const controller = new AbortController()
  return { signal: controller.signal, abort: (reason) => controller.abort(reason) }
}

/** Every way to read a body to its end. */
const READERS: Readonly<Record<string, (body: AnswerBody) => Promise<unknown>>> = {
  text: (body) => body.text(),
  json: (body) => body.json(),
  bytes: (body) => body.bytes(),
  arrayBuffer: (body) => body.arrayBuffer(),
  blob: (body) => body.blob(),
  stream: (body) => bytesOf(body.stream()),
  iteration: (body) => iterated(body),
  dump: (body) => body.dump(),
}
const readers = Object.entries(READERS)

describe('request', () => {
  test('takes a path or a URL; scheme and authority give way to the backend', async () => {
    const backend = await keeper()
    const { request } = balance([`${backend.url}/v1`])
    for (const url of ['/a', 'b?x=1', 'https://elsewhere.test:8443/c//d?y=#part', new URL('http://elsewhere.test/e')]) {
      await request(url)
    }
    expect(backend.got.map(({ path }) => path)).toEqual(['/v1/a', '/v1/b?x=1', '/v1/c//d?y=', '/v1/e'])
    for (const { method, headers } of backend.got) {
      expect([method, headers.host]).toEqual(['GET', `127.0.0.1:${backend.port}`])
    }
  })

  test('refuses what fetch refuses: origins not allowed, other schemes, ways out of the base path', async () => {
    const backend = await keeper()
    const { request } = balance([`${backend.url}/v1`], { origins: ['https://api.test'] })
    await request('https://api.test/a')
    await rejectsWith('CONFIG', request('https://evil.test/a'))
    await rejectsWith('PROTOCOL', request('/..%2fa'))
    await expect(request('file:///etc/passwd')).rejects.toBeInstanceOf(TypeError)
    expect(backend.got).toHaveLength(1)
  })

  test('takes any method as it is written', async () => {
    const backend = await keeper()
    const { request } = balance([backend])
    for (const method of ['POST', 'DELETE', 'TRACE', 'PROPFIND']) await request('/', { method })
    expect(backend.got.map(({ method }) => method)).toEqual(['POST', 'DELETE', 'TRACE', 'PROPFIND'])
  })

  test('refuses a method that is none', async () => {
    const backend = await keeper()
    const { request } = balance([backend])
    for (const method of ['G ET', 'GET\r\nx: y', '']) await rejectsWith('PROTOCOL', request('/', { method }))
    expect(backend.got).toEqual([])
  })

  test('is bound, and typed', async () => {
    const { request } = balance([await keeper()])
    expect((await request('/')).statusCode).toBe(200)
    expectTypeOf(request).toEqualTypeOf<RequestFace>()
    expectTypeOf<Awaited<ReturnType<typeof request>>>().toEqualTypeOf<Answer>()
    expectTypeOf<Answer['headers']>().toEqualTypeOf<HeaderRecord>()
    expectTypeOf<Parameters<typeof request>[1]>().toEqualTypeOf<RequestOptions | undefined>()
  })

  test('sends headers as they are written, lists one by one', async () => {
    const backend = await keeper()
    const { request } = balance([backend])
    await request('/', { headers: { 'X-One': '1', 'x-list': ['a', 'b'], accept: 'text/plain' } })
    const [got] = backend.got
    expect(got!.rawHeaders).toEqual(expect.arrayContaining(['X-One', '1', 'x-list', 'a', 'x-list', 'b']))
    expect(got!.headers.accept).toBe('text/plain')
  })

  test('takes Headers and pairs as well, and leaves out what is undefined', async () => {
    const backend = await keeper()
    const { request } = balance([backend])
    await request('/', { headers: new Headers({ authorization: 'Bearer 1' }) })
    await request('/', { headers: Object.entries({ 'X-A': '1', 'x-a': '2' }) })
    await request('/', { headers: { 'x-none': undefined, 'x-a': '3' } as unknown as HeaderRecord })
    expect(backend.got.map(({ headers }) => [headers.authorization, headers['x-a'], 'x-none' in headers])).toEqual([
      ['Bearer 1', undefined, false],
      [undefined, '1, 2', false],
      [undefined, '3', false],
    ])
    const wrong = { 'x-n': 5 } as unknown as HeaderRecord
    await expect(request('/', { headers: wrong })).rejects.toThrow(/header x-n: expected a string/)
  })

  test('adds no header of its own but the connection’s', async () => {
    const backend = await keeper()
    await balance([backend]).request('/')
    expect(Object.keys(backend.got[0]!.headers).sort()).toEqual(['connection', 'host'])
  })

  test('leaves headers of the connection to the transport', async () => {
    const backend = await keeper()
    const { request } = balance([backend])
    await request('/', {
      method: 'POST',
      headers: {
        Connection: 'close',
        'Content-Length': '99',
        Host: 'evil.test',
        'transfer-encoding': 'chunked',
        te: 'x',
      },
      body: 'four',
    })
    const { headers, body } = backend.got[0]!
    expect(headers).toMatchObject({ 'content-length': '4', host: `127.0.0.1:${backend.port}` })
    expect([headers['transfer-encoding'], headers.te, text(body)]).toEqual([undefined, undefined, 'four'])
  })

  test.each([
    ['a line break in a value', { 'x-a': 'a\r\nx-evil: 1' }],
    ['a NUL in a value', { 'x-a': 'a\0b' }],
    ['a space in a name', { 'x a': 'a' }],
    ['a line break in a list', { 'x-a': ['ok', 'a\nb'] }],
  ])('refuses headers with %s, and sends nothing', async (_, headers) => {
    const backend = await keeper()
    const balancer = balance([backend])
    await rejectsWith('PROTOCOL', balancer.request('/', { headers }))
    expect(backend.got).toEqual([])
    expect(statsOf(balancer).failures).toBe(0)
  })
})

describe('the answer', () => {
  test('is a status, headers, trailers and a body, and may be taken apart', async () => {
    const { request } = await answering('HTTP/1.1 404 Not Here\r\nX-Made-By: me\r\ncontent-length: 4\r\n\r\ngone')
    const { statusCode, headers, trailers, body } = await request('/')
    expect(statusCode).toBe(404)
    expect(headers).toEqual({ 'x-made-by': 'me', 'content-length': '4' })
    expect(trailers).toEqual({})
    expect(await body.text()).toBe('gone')
  })

  test('has its headers in lower case, those that came more than once as a list in order', async () => {
    const { request } = await answering(
      'HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-One: 1\r\nset-cookie: b=2\r\nSET-COOKIE: c=3\r\ncontent-length: 0\r\n\r\n',
    )
    const { headers } = await request('/')
    expect(headers['set-cookie']).toEqual(['a=1', 'b=2', 'c=3'])
    expect(headers['x-one']).toBe('1')
    expect(headers['x-none']).toBeUndefined()
  })

  test('has no headers but those that came, whatever they are called', async () => {
    const { request } = await answering(
      'HTTP/1.1 200 OK\r\n__proto__: p\r\nconstructor: c\r\nhasOwnProperty: h\r\ncontent-length: 0\r\n\r\n',
    )
    const { headers } = await request('/')
    expect(Object.entries(headers)).toEqual([
      ['__proto__', 'p'],
      ['constructor', 'c'],
      ['hasownproperty', 'h'],
      ['content-length', '0'],
    ])
    expect(headers['to-string'] ?? headers.toString).toBeUndefined()
  })

  test('has header bytes as latin1', async () => {
    const { request } = await answering('HTTP/1.1 200 OK\r\nx-name: J\xfcrgen\r\ncontent-length: 0\r\n\r\n')
    expect((await request('/')).headers['x-name']).toBe('Jürgen')
  })

  test('reads its headers once: asked again, they are the same', async () => {
    const answer = await (await answering(OK)).request('/')
    expect(answer.headers).toBe(answer.headers)
  })

  test.each(readers)('has its trailers when its body has ended (%s)', async (how, read) => {
    const { request } = await answering(chunked(['"one"'], 'trailer: x-sum\r\n', 'X-Sum: 7\r\nX-Name: J\xfcrgen\r\n'))
    const { trailers, body } = await request('/')
    expect(trailers).toEqual({})
    await read(body)
    expect(trailers, how).toEqual({ 'x-sum': '7', 'x-name': 'Jürgen' })
  })

  test.each([301, 302, 307])('of status %i is handed over, not followed', async (status) => {
    const backend = await keeper((_, response) => response.writeHead(status, { location: '/elsewhere' }).end())
    const { statusCode, headers } = await balance([backend]).request('/')
    expect([statusCode, headers.location, backend.got.length]).toEqual([status, '/elsewhere', 1])
  })

  test.each([
    ['HEAD', 'HEAD', 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n', 200],
    ['204', 'GET', 'HTTP/1.1 204 No Content\r\n\r\n', 204],
    ['304', 'GET', 'HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n', 304],
    ['nothing', 'GET', 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n', 200],
  ])('to or with %s has an empty body', async (_, method, bytes, status) => {
    const backend = await rawUpstream(says(bytes))
    const { request } = balance([backend])
    for (const read of [READERS.text!, READERS.bytes!, READERS.iteration!, READERS.stream!, READERS.dump!]) {
      const { statusCode, body } = await request('/', { method })
      expect(statusCode).toBe(status)
      expect(body.bodyUsed).toBe(false)
      const got = await read(body)
      if (got !== undefined) expect((got as string | Uint8Array).length).toBe(0)
    }
    if (method !== 'HEAD') expect(backend.wires).toHaveLength(1) // undici trusts nobody to keep quiet after a HEAD
  })

  test('needs no platform objects and no stream', async () => {
    const never = (name: string): unknown => new Proxy(class {}, { construct: () => assert.fail(`a ${name} was made`) })
    const { request } = await answering(chunked(['{"a":', '1}']))
    for (const name of ['Headers', 'Response', 'Request', 'ReadableStream']) vi.stubGlobal(name, never(name))
    onTestFinished(() => void vi.unstubAllGlobals())
    for (const how of ['text', 'json', 'bytes', 'arrayBuffer', 'blob', 'iteration', 'dump']) {
      const { headers, body } = await request('/', { method: 'POST', headers: { 'x-a': 'a' }, body: 'hello' })
      expect(headers['transfer-encoding']).toBe('chunked')
      await READERS[how]!(body)
    }
  })

  test('has a body that is no Node stream, and becomes one where that is wanted', async () => {
    const { request } = await answering(chunked(['one', 'two']))
    const { body } = await request('/')
    expect(body).not.toBeInstanceOf(Readable)
    expect('pipe' in body || 'getReader' in body).toBe(false)
    const stream = body.stream()
    expect(stream).toBeInstanceOf(ReadableStream)
    expect(text(await bytesOf(Readable.fromWeb(stream as import('node:stream/web').ReadableStream)))).toBe('onetwo')
    expect(text(await bytesOf(Readable.from((await request('/')).body)))).toBe('onetwo')
  })
})

describe('its body', () => {
  for (const [name, bytes] of [
    ['in one piece', 'HTTP/1.1 200 OK\r\ncontent-type: text/x-thing\r\ncontent-length: 10\r\n\r\n{"a":"\xc3\xa9"}'],
    ['in pieces, a character torn apart', chunked(['{"a":"\xc3', '\xa9"}'], 'content-type: text/x-thing\r\n')],
  ] as const) {
    describe(name, () => {
      const plain = encoder.encode('{"a":"é"}')
      const fetched = async (): Promise<AnswerBody> => (await (await answering(bytes)).request('/')).body

      test('can be read as text', async () => expect(await (await fetched()).text()).toBe('{"a":"é"}'))
      test('can be read as JSON', async () => expect(await (await fetched()).json()).toEqual({ a: 'é' }))
      test('can be read as bytes of its own', async () => {
        const got = await (await fetched()).bytes()
        expect(got.constructor).toBe(Uint8Array)
        expect([...got]).toEqual([...plain])
        expect(got.buffer.byteLength).toBe(got.length)
      })
      test('can be read as an ArrayBuffer of its very length', async () => {
        const got = await (await fetched()).arrayBuffer()
        expect(got).toBeInstanceOf(ArrayBuffer)
        expect([...new Uint8Array(got)]).toEqual([...plain])
      })
      test('can be read as a Blob with its type', async () => {
        const got = await (await fetched()).blob()
        expect(got).toBeInstanceOf(Blob)
        expect([got.type, await got.text()]).toEqual(['text/x-thing', '{"a":"é"}'])
      })
      test('can be read as a stream', async () => {
        expect(text(await bytesOf((await fetched()).stream()))).toBe('{"a":"é"}')
      })
      test('can be read into a buffer of the reader', async () => {
        const reader = (await fetched()).stream().getReader({ mode: 'byob' })
        let got = ''
        for (let it = await reader.read(new Uint8Array(4)); !it.done; it = await reader.read(new Uint8Array(4))) {
          got += Buffer.from(it.value).toString('latin1')
        }
        expect(Buffer.from(got, 'latin1').toString()).toBe('{"a":"é"}')
      })
      test('can be iterated', async () => expect(await iterated(await fetched())).toBe('{"a":"é"}'))
    })
  }

  test('as text has no BOM, as bytes it has', async () => {
    const { request } = await answering('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n\xef\xbb\xbfok')
    expect(await (await request('/')).body.text()).toBe('ok')
    expect((await (await request('/')).body.bytes()).length).toBe(5)
  })

  test('with broken JSON is a SyntaxError', async () => {
    const { request } = await answering('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{"a":')
    await expect((await request('/')).body.json()).rejects.toBeInstanceOf(SyntaxError)
  })

  test.each(readers)('can be used once: after %s every way is a TypeError', async (_, read) => {
    const { request } = await answering('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}')
    const { body } = await request('/')
    expect(body.bodyUsed).toBe(false)
    await read(body)
    expect(body.bodyUsed).toBe(true)
    for (const [name, again] of readers) {
      const error = await rejection((async () => again(body))())
      expect(error, name).toBeInstanceOf(TypeError)
      expect((error as Error).message).toMatch(/already been read/)
    }
  })

  test.each(readers)('counts as used from the moment %s begins', async (_, read) => {
    const { request } = balance([await unending()])
    const { signal, abort } = controls()
    const { body } = await request('/', { signal })
    const reading = rejection(read(body))
    expect(body.bodyUsed).toBe(true)
    abort(new Error('enough'))
    await reading
  })

  test.each(readers)('that breaks off never ends well: %s rejects with TRUNCATED', async (_, read) => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf')
      wire.socket.end()
    })
    const balancer = balance([backend])
    const { body } = await balancer.request('/', { method: 'POST' })
    const error = await rejectsWith('TRUNCATED', read(body))
    expect(error.backend).toBe(`127.0.0.1:${backend.port}`)
    expect(statsOf(balancer)).toMatchObject({ failures: 1, classes: { truncated: 1 } })
  })

  test('small and repeatable that breaks off is asked for again, and nobody notices', async () => {
    const backend = await rawUpstream(async (wire, number) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha')
      if (number === 0) wire.socket.end()
      else wire.write('lf')
    })
    const { request } = balance([backend], { retry: { baseMs: 0 } })
    expect(await (await request('/')).body.text()).toBe('half')
  })
})

describe('a long body', () => {
  const bytes = randomFillSync(Buffer.alloc(32 * MIB))

  /** 32 MiB in parts of 64 KiB, made only as fast as they are taken. */
  async function source() {
    let made = 0
    const backend = await upstream((_, response) => {
      response.writeHead(200, { 'content-length': bytes.length })
      const go = (): void => {
        while (made < bytes.length) {
          made += 65_536
          if (!response.write(bytes.subarray(made - 65_536, made))) return void response.once('drain', go)
        }
        response.end()
      }
      go()
    })
    return { ...backend, made: () => made }
  }

  test('comes chunk by chunk, as it is sent', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n')
    })
    const { request } = balance([backend])
    const iterator = (await request('/')).body[Symbol.asyncIterator]()
    const wire = await backend.wire()
    for (const part of ['one', 'two']) {
      wire.write(`3\r\n${part}\r\n`)
      expect(text((await iterator.next()).value!)).toBe(part)
    }
    wire.write('0\r\n\r\n')
    expect((await iterator.next()).done).toBe(true)
    expect((await iterator.next()).done).toBe(true)
  })

  test('that is iterated stops its backend when the reader stops, and loses no byte', async () => {
    const backend = await source()
    const { request } = balance([backend])
    const parts: Uint8Array[] = []
    for await (const chunk of (await request('/')).body) {
      if (parts.push(chunk) === 1) expect(await standstill(backend.made)).toBeLessThan(bytes.length / 2)
    }
    expect(sha256(Buffer.concat(parts))).toBe(sha256(bytes))
  }, 20_000)

  test('that is streamed stops its backend when the reader stops, and loses no byte', async () => {
    const backend = await source()
    const { request } = balance([backend])
    const reader = (await request('/')).body.stream().getReader()
    const parts: Uint8Array[] = [(await reader.read()).value!]
    expect(await standstill(backend.made)).toBeLessThan(bytes.length / 2)
    for (let it = await reader.read(); !it.done; it = await reader.read()) parts.push(it.value)
    expect(sha256(Buffer.concat(parts))).toBe(sha256(bytes))
  }, 20_000)

  test('that nobody reads stops its backend, and can be read later', async () => {
    const backend = await source()
    const balancer = balance([backend])
    const { body } = await balancer.request('/')
    expect(await standstill(backend.made)).toBeLessThan(bytes.length / 2)
    expect(inflight(balancer)).toBe(1)
    expect(sha256(await body.bytes())).toBe(sha256(bytes))
    expect(inflight(balancer)).toBe(0)
  }, 20_000)

  test('of an endless answer, left by a break, closes its connection and is no longer in flight', async () => {
    const backend = await unending()
    const balancer = balance([backend])
    for await (const chunk of (await balancer.request('/')).body) {
      expect(text(chunk)).toBe('one')
      expect(inflight(balancer)).toBe(1)
      break
    }
    expect(inflight(balancer)).toBe(0)
    await (await backend.wire()).closed()
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
  })

  test('left by a throw closes its connection, and the error is the reader’s own', async () => {
    const backend = await unending()
    const balancer = balance([backend])
    const own = new Error('of my own')
    const read = async (): Promise<void> => {
      for await (const _ of (await balancer.request('/')).body) throw own
    }
    expect(await rejection(read())).toBe(own)
    await (await backend.wire()).closed()
  })

  test('left by a break after its last byte came keeps its connection', async () => {
    const backend = await rawUpstream(says(OK))
    const balancer = balance([backend])
    for (let i = 0; i < 3; i++) {
      const { body } = await balancer.request('/')
      await idle(balancer)
      for await (const _ of body) break
      expect(body.bodyUsed).toBe(true)
    }
    expect(backend.wires).toHaveLength(1)
    expect(statsOf(balancer).classes).toEqual({ ok: 3 })
  })

  test('streamed and cancelled closes its connection', async () => {
    const backend = await unending()
    const balancer = balance([backend])
    const reader = (await balancer.request('/')).body.stream().getReader()
    await reader.read()
    const cancelled = reader.cancel(new Error('enough'))
    expect(inflight(balancer)).toBe(0)
    await cancelled
    await (await backend.wire()).closed()
  })

  test('that breaks off while it is iterated errors after what came', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write(BEGUN)
      wire.socket.end()
    })
    const { request } = balance([backend])
    const came: string[] = []
    const read = async (): Promise<void> => {
      for await (const chunk of (await request('/')).body) came.push(text(chunk))
    }
    await rejectsWith('TRUNCATED', read())
    expect(came).toEqual(['one'])
  })

  describe('that is thrown away', () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    /** Collects until no more than so many are in flight. */
    async function collected(balancer: Balancer, left: number): Promise<void> {
      for (let i = 0; i < 50 && inflight(balancer) > left; i++) {
        collect()
        await new Promise(setImmediate)
      }
    }

    test('unread gives its connection back when it is collected, and not before', async () => {
      const backend = await source()
      const balancer = balance([backend])
      const { body } = await balancer.request('/')
      await (async () => {
        for (let i = 0; i < 5; i++) await balancer.request('/')
      })()
      expect(inflight(balancer)).toBe(6)
      await collected(balancer, 1)
      collect() // once more: whose body is still held can be read, though the answer is gone
      await new Promise(setImmediate)
      expect(inflight(balancer)).toBe(1)
      for await (const _ of body) break
    })

    test('as a stream that was never read gives its connection back', async () => {
      const backend = await source()
      const balancer = balance([backend])
      await (async () => {
        const { body } = await balancer.request('/')
        body.stream()
      })()
      await collected(balancer, 0)
      expect(inflight(balancer)).toBe(0)
    })

    test('but is being iterated, is not cut off', async () => {
      const backend = await source()
      const { request } = balance([backend])
      let length = 0
      let chunks = 0
      for await (const chunk of (await request('/')).body) {
        length += chunk.length
        if (chunks++ % 50 === 0) collect()
      }
      expect(length).toBe(bytes.length)
    })
  })
})

describe('dump', () => {
  test('reads what is small to its end, and the connection goes on', async () => {
    const backend = await rawUpstream(says(chunked(['x'.repeat(50_000), 'y'.repeat(50_000)])))
    const balancer = balance([backend])
    for (let i = 0; i < 3; i++) {
      const { body } = await balancer.request('/')
      expect(await body.dump()).toBeUndefined()
      expect([body.bodyUsed, inflight(balancer)]).toEqual([true, 0])
    }
    expect(backend.wires).toHaveLength(1)
    expect(statsOf(balancer).classes).toEqual({ ok: 3 })
  })

  test('waits for what has yet to come', async () => {
    const backend = await unending()
    const { request } = balance([backend])
    const { body } = await request('/')
    let dumped = false
    const dumping = body.dump().then(() => {
      dumped = true
    })
    await pause(20)
    expect(dumped).toBe(false)
    ;(await backend.wire()).write('0\r\n\r\n')
    await dumping
  })

  test.each([
    ['128 KiB by default', undefined, 131_072],
    ['the limit', { limit: 1_000 }, 1_000],
    ['a limit of nothing', { limit: 0 }, 0],
  ])('cuts what is longer than %s, and costs the connection only', async (_, options, limit) => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write(`HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n${'x'.repeat(limit)}`)
      await pause(20)
      wire.write('one more')
    })
    const balancer = balance([backend])
    const { body } = await balancer.request('/')
    await body.dump(options)
    expect(inflight(balancer)).toBe(0)
    await (await backend.wire()).closed()
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
  })

  test('of as much as the limit keeps the connection', async () => {
    const backend = await rawUpstream(says(chunked(['x'.repeat(1_000)])))
    const { request } = balance([backend])
    for (let i = 0; i < 2; i++) await (await request('/')).body.dump({ limit: 1_000 })
    expect(backend.wires).toHaveLength(1)
  })

  test('rejects with the reason of an abort', async () => {
    const { request } = balance([await unending()])
    const { signal, abort } = controls()
    const { body } = await request('/', { signal })
    const dumping = rejection(body.dump())
    const reason = new Error('enough')
    abort(reason)
    expect(await dumping).toBe(reason)
  })
})

describe('an abort', () => {
  const silent = async (wire: Wire): Promise<void> => void (await wire.head())

  test.each([
    ['an Error', new Error('enough')],
    ['a string', 'enough'],
    ['an object', { why: 'enough' }],
  ])('before the call rejects with its very reason, %s, and nothing is sent', async (_, reason) => {
    const backend = await keeper()
    const balancer = balance([backend])
    expect(await rejection(balancer.request('/', { signal: AbortSignal.abort(reason) }))).toBe(reason)
    expect(backend.got).toEqual([])
    expect(statsOf(balancer).requests).toBe(0)
  })

  test('in the tick of the call', async () => {
    const backend = await keeper()
    const balancer = balance([backend])
    const { signal, abort } = controls()
    const call = rejection(balancer.request('/', { signal }))
    const reason = new Error('enough')
    abort(reason)
    expect(await call).toBe(reason)
    expect(backend.got).toEqual([])
  })

  test('while waiting for a connection: who has it is none the worse', async () => {
    const backend = await rawUpstream(silent)
    const balancer = balance([backend], { undici: { connections: 1 } })
    const first = balancer.request('/1')
    const wire = await backend.wire()
    await wire.until('/1')
    const { signal, abort } = controls()
    const waiting = rejection(balancer.request('/2', { signal }))
    await new Promise(setImmediate)
    expect(inflight(balancer)).toBe(2)
    const reason = new Error('enough')
    abort(reason)
    expect(await waiting).toBe(reason)
    expect(inflight(balancer)).toBe(1)
    wire.write(OK)
    expect(await (await first).body.text()).toBe('ok')
    expect(wire.received).not.toContain('/2')
  })

  test('while connecting', async () => {
    const hole = await blackHole()
    onTestFinished(() => hole.close())
    const balancer = balance([hole.url])
    const { signal, abort } = controls()
    const call = rejection(balancer.request('/', { signal }))
    await pause(10)
    const reason = new Error('enough')
    abort(reason)
    expect(await call).toBe(reason)
    expect(inflight(balancer)).toBe(0)
  })

  test('while waiting for the head', async () => {
    const backend = await rawUpstream(silent)
    const balancer = balance([backend])
    const { signal, abort } = controls()
    const call = rejection(balancer.request('/', { signal }))
    const wire = await backend.wire()
    await wire.until('\r\n\r\n')
    const reason = new Error('enough')
    abort(reason)
    expect(await call).toBe(reason)
    expect(inflight(balancer)).toBe(0)
    await wire.closed()
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
  })

  test('while pausing before a retry', async () => {
    const backend = await keeper((_, response) => response.writeHead(503).end())
    const balancer = balance([backend], { retry: { baseMs: 60_000, maxMs: 60_000 }, random: (below) => below - 1 })
    const retried = new Promise((resolve) => balancer.once('retry', resolve))
    const { signal, abort } = controls()
    const call = rejection(balancer.request('/', { signal }))
    await retried
    const reason = new Error('enough')
    abort(reason)
    expect(await call).toBe(reason)
    expect(backend.got).toHaveLength(1)
  })

  test('while the request body is being sent lets its source go', async () => {
    const backend = await rawUpstream((wire) => wire.socket.pause())
    const balancer = balance([backend])
    const { signal, abort } = controls()
    let returned = false
    async function* endless(): AsyncGenerator<Uint8Array, void, undefined> {
      try {
        for (;;) yield new Uint8Array(65_536)
      } finally {
        returned = true
      }
    }
    const call = rejection(balancer.request('/', { method: 'POST', body: endless(), signal }))
    const wire = await backend.wire()
    await new Promise(setImmediate)
    const reason = new Error('enough')
    abort(reason)
    expect(await call).toBe(reason)
    expect(inflight(balancer)).toBe(0)
    await until(() => returned, 'the source was not let go')
    wire.socket.resume()
    await wire.closed()
  })

  test.each(readers)('in the body, while %s waits, rejects with its reason', async (_, read) => {
    const backend = await unending()
    const balancer = balance([backend])
    const { signal, abort } = controls()
    const { body } = await balancer.request('/', { signal })
    const reading = rejection(read(body))
    await new Promise(setImmediate)
    const reason = new Error('enough')
    abort(reason)
    expect(await reading).toBe(reason)
    expect(inflight(balancer)).toBe(0)
    await (await backend.wire()).closed()
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
  })

  test.each(readers)('of a body nobody has begun to read: %s rejects with its reason', async (_, read) => {
    const backend = await unending()
    const { signal, abort } = controls()
    const { body } = await balance([backend]).request('/', { signal })
    const reason = new Error('enough')
    abort(reason)
    await (await backend.wire()).closed()
    expect(await rejection(read(body))).toBe(reason)
  })

  test('after the end changes nothing', async () => {
    const backend = await rawUpstream(says(OK))
    const balancer = balance([backend])
    const { signal, abort } = controls()
    const { body } = await balancer.request('/', { signal })
    await idle(balancer)
    abort(new Error('late'))
    expect(await body.text()).toBe('ok')
    expect(await (await balancer.request('/')).body.text()).toBe('ok')
    expect(backend.wires).toHaveLength(1)
  })

  test('by AbortSignal.timeout rejects with its TimeoutError, and nobody is blamed', async () => {
    const balancer = balance([await rawUpstream(silent)])
    const signal = AbortSignal.timeout(20)
    const error = await rejection(balancer.request('/', { signal }))
    expect(error).toBe(signal.reason)
    expect(error).toMatchObject({ name: 'TimeoutError' })
    expect(statsOf(balancer).failures).toBe(0)
  })

  test('leaves no listener behind on a signal that outlives its calls', async () => {
    const { signal } = controls()
    const listeners = (): number => getEventListeners(signal, 'abort').length
    const good = balance([await keeper()])
    for (let i = 0; i < 50; i++) await (await good.request('/', { signal })).body.text()
    expect(listeners()).toBe(0)
    await Promise.all(Array.from({ length: 50 }, () => good.request('/', { signal, method: 'POST', body: 'x' })))
    await idle(good) // unread, but in
    expect(listeners()).toBe(0)

    const dead = balance([await nobody()], { retry: { attempts: 1 } })
    await rejectsWith('CONNECT', dead.request('/', { signal }))
    expect(listeners()).toBe(0)

    const cut = balance([await unending()])
    for await (const _ of (await cut.request('/', { signal })).body) break
    expect(listeners()).toBe(0)

    for (const url of ['/%zz', 'ftp://a.test/']) await rejection(good.request(url, { signal }))
    await rejection(good.request('/', { signal, pool: 'none' }))
    expect(listeners()).toBe(0)

    await good.close()
    await rejectsWith('CLOSED', good.request('/', { signal }))
    expect(listeners()).toBe(0)
  })
})

describe('a request body', () => {
  const eight = new Uint8Array([0, 1, 2, 0xff, 0xfe, 13, 10, 7])
  const padded = new Uint8Array([9, 9, ...eight, 9, 9])
  const plain = 'text/plain;charset=UTF-8'
  const urlencoded = 'application/x-www-form-urlencoded;charset=UTF-8'
  async function* parts(): AsyncGenerator<Uint8Array, void, undefined> {
    yield eight.subarray(0, 3)
    yield eight.subarray(3)
  }
  interface Row {
    readonly name: string
    readonly body: () => unknown
    readonly bytes: Uint8Array
    readonly type?: string
    /** Undefined: nobody knows it beforehand. */
    readonly length: number | undefined
  }
  const rows: readonly Row[] = [
    { name: 'a string', body: () => 'h\u00e9\ud800', bytes: encoder.encode('hé\ufffd'), type: plain, length: 6 },
    { name: 'an empty string', body: () => '', bytes: new Uint8Array(), type: plain, length: 0 },
    {
      name: 'URLSearchParams',
      body: () => new URLSearchParams({ a: 'b c' }),
      bytes: encoder.encode('a=b+c'),
      type: urlencoded,
      length: 5,
    },
    { name: 'a Blob', body: () => new Blob([eight], { type: 'a/b' }), bytes: eight, type: 'a/b', length: 8 },
    { name: 'a File', body: () => new File([eight], 'a.bin', { type: 'a/c' }), bytes: eight, type: 'a/c', length: 8 },
    { name: 'an ArrayBuffer', body: () => eight.slice().buffer, bytes: eight, length: 8 },
    { name: 'a Uint8Array', body: () => eight, bytes: eight, length: 8 },
    { name: 'a view of part of a buffer', body: () => padded.subarray(2, 10), bytes: eight, length: 8 },
    { name: 'a DataView', body: () => new DataView(padded.buffer, 2, 8), bytes: eight, length: 8 },
    { name: 'a Buffer', body: () => Buffer.from(eight), bytes: eight, length: 8 },
    { name: 'a ReadableStream', body: () => ReadableStream.from(parts()), bytes: eight, length: undefined },
    { name: 'a byte stream', body: () => new Blob([eight]).stream(), bytes: eight, length: undefined },
    { name: 'a Node stream', body: () => Readable.from([Buffer.from(eight)]), bytes: eight, length: undefined },
    { name: 'an async iterable', body: () => parts(), bytes: eight, length: undefined },
    {
      name: 'an async iterable of strings',
      body: () => Readable.from(['h', 'é']),
      bytes: encoder.encode('hé'),
      length: undefined,
    },
  ]

  test.each(rows)('$name arrives byte by byte, with its type and framing', async ({ body, bytes, type, length }) => {
    const backend = await keeper()
    await balance([backend]).request('/', { method: 'POST', body: body() })
    const { headers, body: got } = backend.got[0]!
    expect([...got]).toEqual([...bytes])
    expect(headers['content-type']).toBe(type)
    expect(headers['content-length']).toBe(length === undefined ? undefined : String(length))
    expect(headers['transfer-encoding']).toBe(length === undefined ? 'chunked' : undefined)
  })

  test.each(rows)('$name keeps the content type its caller gave', async ({ body }) => {
    const backend = await keeper()
    await balance([backend]).request('/', { method: 'PUT', body: body(), headers: { 'Content-Type': 'x/y' } })
    expect(backend.got[0]!.headers['content-type']).toBe('x/y')
  })

  test('FormData arrives whole, with its boundary', async () => {
    const form = new FormData()
    form.append('name', 'Jürgen')
    form.append('file', new File([eight], 'ä.bin', { type: 'a/b' }))
    const backend = await keeper()
    await balance([backend]).request('/', { method: 'POST', body: form })
    const { headers, body } = backend.got[0]!
    const got = await new Response(body, { headers: { 'content-type': headers['content-type']! } }).formData()
    expect(got.get('name')).toBe('Jürgen')
    expect([...(await (got.get('file') as File).bytes())]).toEqual([...eight])
  })

  test.each([undefined, null])('%s is none', async (body) => {
    const backend = await keeper()
    await balance([backend]).request('/', { method: 'DELETE', body })
    const { headers, body: got } = backend.got[0]!
    expect([got.length, headers['content-type'], headers['transfer-encoding']]).toEqual([0, undefined, undefined])
  })

  test('goes with any method, GET too', async () => {
    const backend = await keeper()
    await balance([backend]).request('/_search', {
      body: '{"query":{}}',
      headers: { 'content-type': 'application/json' },
    })
    expect(backend.got.map(({ method, body }) => [method, text(body)])).toEqual([['GET', '{"query":{}}']])
  })

  test('is what it was when request was called', async () => {
    const backend = await keeper()
    const body = encoder.encode('hello')
    const call = balance([backend]).request('/', { method: 'POST', body })
    body.fill(120)
    await call
    expect(text(backend.got[0]!.body)).toBe('hello')
  })

  test('of a stream that was used before is a TypeError, and nothing is sent', async () => {
    const backend = await keeper()
    const balancer = balance([backend])
    const body = new Blob(['once']).stream()
    body.getReader()
    await expect(balancer.request('/', { method: 'POST', body })).rejects.toBeInstanceOf(TypeError)
    expect(statsOf(balancer).requests).toBe(0)
  })

  test.each<[string, (letGo: () => void) => unknown]>([
    ['a Node stream', (letGo) => new Readable({ read() {}, destroy: (_, done) => done(letGo() as never) })],
    ['a ReadableStream', (cancel) => new ReadableStream({ cancel })],
  ])('that was never sent is let go: %s', async (_, body) => {
    const balancer = balance([await keeper()])
    for (const { id } of balancer.stats().pools.default!.backends) balancer.disable(id)
    let gone = false
    const given = body(() => {
      gone = true
    })
    await rejectsWith('NO_BACKEND', balancer.request('/', { method: 'POST', body: given }))
    await pause(20)
    expect(gone).toBe(true)
  })

  test('of 32 MiB streams up, no faster than it is taken', async () => {
    const part = randomFillSync(Buffer.alloc(65_536))
    let taken = 0
    const go = Promise.withResolvers<void>()
    const backend = await upstream(async (request, response) => {
      await go.promise
      response.end(String((await bytesOf(request)).length))
    })
    const { request } = balance([backend])
    async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
      for (; taken < 32 * MIB; taken += part.length) yield part
    }
    const call = request('/', { method: 'PUT', body: source() })
    expect(await standstill(() => taken)).toBeLessThan(16 * MIB)
    go.resolve()
    expect(await (await call).body.text()).toBe(String(32 * MIB))
  }, 20_000)

  test('whose source fails is nobody else’s fault', async () => {
    const backend = await rawUpstream(() => {})
    const balancer = balance([backend])
    const onFire = new Error('disk on fire')
    async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
      yield eight
      throw onFire
    }
    const error = await rejectsWith('PROTOCOL', balancer.request('/', { method: 'PUT', body: source() }))
    expect(error.cause).toBe(onFire)
    expect(statsOf(balancer)).toMatchObject({ requests: 1, failures: 0, classes: { request: 1 } })
  })

  test('may hold bytes and text only', async () => {
    const { request } = balance([await keeper()])
    await rejectsWith('PROTOCOL', request('/', { method: 'PUT', body: Readable.from([1, 2]) }))
  })

  test.each(rows)('$name is sent again from its start', async ({ body, bytes }) => {
    const backend = await keeper((_, response) => {
      if (backend.got.length === 1) response.socket!.resetAndDestroy()
      else response.end('ok')
    })
    const { request } = balance([backend], { retry: { baseMs: 0 } })
    expect((await request('/', { method: 'PUT', body: body() })).statusCode).toBe(200)
    expect(backend.got.map((got) => [...got.body])).toEqual([[...bytes], [...bytes]])
  })
})

describe('what the balancer is told about a call', () => {
  test('its pool', async () => {
    const [one, two] = [await keeper(), await keeper()]
    const { request } = kept(createBalancer({ pools: { one: { backends: [one.url] }, two: { backends: [two.url] } } }))
    await request('/1')
    await request('/2', { pool: 'two' })
    expect([one.got, two.got].map((got) => got.map(({ path }) => path))).toEqual([['/1'], ['/2']])
    const error = await rejectsWith('CONFIG', request('/3', { pool: 'three' }))
    expect(error.message).toBe('no pool is named "three"; there are: one, two')
  })

  test('its key reaches the strategy', async () => {
    const keys: (string | undefined)[] = []
    const { request } = balance([await keeper()], {
      strategy: {
        name: 'spy',
        start: () => ({
          build:
            ({ eligible }) =>
            (call) => {
              keys.push(call.key)
              return eligible[0]
            },
        }),
      },
    })
    await request('/', { key: 'user 7' })
    expect(keys).toEqual(['user 7'])
  })

  test('its tags, and whom it prefers', async () => {
    const [one, two] = [await keeper(), await keeper()]
    const { request } = kept(
      createBalancer({
        backends: [
          { url: one.url, id: 'one', tags: ['eu'] },
          { url: two.url, id: 'two' },
        ],
      }),
    )
    for (let i = 0; i < 5; i++) await request('/', { tags: ['eu'] })
    for (let i = 0; i < 7; i++) await request('/', { prefer: 'two' })
    expect([one.got.length, two.got.length]).toEqual([5, 7])
    await rejectsWith('NO_BACKEND', request('/', { tags: ['us'] }))
  })

  test('how long it may take, body included', async () => {
    const { request } = balance([await unending()])
    const { body } = await request('/', { timeoutMs: 60 })
    const error = await rejectsWith('TIMEOUT', body.text())
    expect(error.message).toContain('60 ms')
    await rejectsWith('TIMEOUT', balance([await rawUpstream(() => {})]).request('/', { timeoutMs: 30 }))
  })

  test('whether it may be sent twice', async () => {
    const flaky = async (): Promise<Awaited<ReturnType<typeof keeper>>> => {
      const backend = await keeper((_, response) => response.writeHead(backend.got.length === 1 ? 503 : 200).end())
      return backend
    }
    const sent = async (options: RequestOptions): Promise<number> => {
      const { request } = balance([await flaky()], { retry: { baseMs: 0 } })
      return (await request('/', options)).statusCode
    }
    expect(await sent({})).toBe(200)
    expect(await sent({ method: 'POST', body: 'x' })).toBe(503)
    expect(await sent({ method: 'POST', body: 'x', idempotent: true })).toBe(200)
    expect(await sent({ method: 'GET', idempotent: false })).toBe(503)
  })
})

describe('errors', () => {
  test.each<[BalancerErrorCode, string, (wire: Wire) => unknown]>([
    ['RESET', 'a connection that breaks before the head', (wire) => wire.socket.resetAndDestroy()],
    ['PROTOCOL', 'what is no HTTP', (wire) => wire.write('SSH-2.0-OpenSSH_9\r\n\r\n')],
  ])('%s for %s', async (code, _, answer) => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      answer(wire)
    })
    const { request } = balance([backend], { retry: { attempts: 1 } })
    const error = await rejectsWith(code, request('/'))
    expect(error.backend).toBe(`127.0.0.1:${backend.port}`)
    expect(error.cause).toBeInstanceOf(Error)
  })

  test('CONNECT where nobody listens', async () => {
    const error = await rejectsWith('CONNECT', balance([await nobody()], { retry: { attempts: 1 } }).request('/'))
    expect(error.cause).toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('NO_BACKEND when all are out, with the reasons of each', async () => {
    const backend = await keeper()
    const balancer = balance([backend])
    balancer.disable(`127.0.0.1:${backend.port}`)
    const error = await rejectsWith('NO_BACKEND', balancer.request('/'))
    expect(error.reasons).toEqual({ [`127.0.0.1:${backend.port}`]: ['operator'] })
  })

  test('CLOSED after close, and for what close cut off', async () => {
    const balancer = balance([await unending()])
    const { body } = await balancer.request('/')
    const reading = rejectsWith('CLOSED', body.text())
    await balancer.close()
    await reading
    await rejectsWith('CLOSED', balancer.request('/'))
  })

  test('none for the last real answer when attempts end', async () => {
    const backend = await keeper((_, response) => response.writeHead(503).end('busy'))
    const { statusCode, body } = await balance([backend], { retry: { baseMs: 0 } }).request('/')
    expect([statusCode, await body.text(), backend.got.length]).toEqual([503, 'busy', 3])
  })
})
