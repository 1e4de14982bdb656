// Long, because it is one list: everything the fetch face promises, in the order a caller meets it.
import assert from 'node:assert/strict'
import { randomFillSync } from 'node:crypto'
import { getEventListeners, once } from 'node:events'
import { inspect } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import {
  type Balancer,
  BalancerError,
  type BalancerErrorCode,
  type BalancerFetch,
  type BalancerFetchInit,
  createBalancer,
  type Policy,
  roundRobin,
  type Strategy,
} from 'evenkeel'
import fc from 'fast-check'
import { describe, expect, expectTypeOf, onTestFinished, test } from 'vitest'
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

/** `fetch` over a backend that answers every request with these bytes. */
async function answering(bytes: string, options?: Parameters<typeof balance>[1]): Promise<Balancer> {
  return balance([await rawUpstream(says(bytes))], options)
}

/** What a promise rejects with. */
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

describe('what may be fetched', () => {
  test('a string, a URL or a Request', async () => {
    const backend = await keeper()
    const { fetch } = balance([backend])
    await fetch('/a', { method: 'post', body: 'one', headers: { 'x-n': '1' } })
    await fetch(new URL('http://elsewhere.test/b'), { method: 'PUT', body: 'two' })
    await fetch(new Request('http://elsewhere.test/c', { method: 'DELETE', headers: { 'x-n': '3' } }))
    await fetch(new Request('http://elsewhere.test/d', { method: 'POST', body: 'four' }))
    await fetch(new Request('http://elsewhere.test/e', { method: 'POST', body: 'five', headers: { 'x-n': '5' } }), {
      method: 'PATCH',
      headers: { 'x-n': '6' },
      body: 'six',
    })
    expect(backend.got.map(({ method, path, body, headers }) => [method, path, text(body), headers['x-n']])).toEqual([
      ['POST', '/a', 'one', '1'],
      ['PUT', '/b', 'two', undefined],
      ['DELETE', '/c', '', '3'],
      ['POST', '/d', 'four', undefined],
      ['PATCH', '/e', 'six', '6'],
    ])
  })

  test('relative paths, with and without a slash in front', async () => {
    const backend = await keeper()
    const { fetch } = balance([backend])
    for (const path of ['/', '/users/1?x=1&x=', 'users/2', '?q=1', '', './a', '/a//b/']) await fetch(path)
    expect(backend.got.map(({ path }) => path)).toEqual([
      '/',
      '/users/1?x=1&x=',
      '/users/2',
      '/?q=1',
      '/',
      '/a',
      '/a//b/',
    ])
  })

  test('scheme and authority of an absolute URL give way to the backend, its path stays', async () => {
    const backend = await keeper()
    const { fetch } = balance([`${backend.url}/v1/`])
    await fetch('https://elsewhere.test:8443/a//b/?x=1&x=#part')
    await fetch(new URL('http://elsewhere.test'))
    await fetch(new Request('https://elsewhere.test/c'))
    await fetch('/d')
    expect(backend.got.map(({ path }) => path)).toEqual(['/v1/a//b/?x=1&x=', '/v1/', '/v1/c', '/v1/d'])
    for (const { headers } of backend.got) expect(headers.host).toBe(`127.0.0.1:${backend.port}`)
  })

  test('the answer tells the URL it came from, base path included', async () => {
    const backend = await keeper()
    const { fetch } = balance([`${backend.url}/v1`])
    const response = await fetch('/a?b=1')
    expect(response.url).toBe(`${backend.url}/v1/a?b=1`)
    expect(response.clone().url).toBe(response.url)
  })

  test('an answer that a policy made has no URL', async () => {
    const stored: Policy = {
      name: 'stored',
      scope: 'pool',
      wrap: () => async () => ({
        status: 200,
        headers: [],
        body: {
          consume(sink) {
            sink.end()
            return { resume() {}, cancel() {} }
          },
          discard() {},
        },
      }),
    }
    const { fetch } = balance([(await keeper()).url], { policies: [stored] })
    const response = await fetch('/a')
    expect([response.status, response.url, await response.text()]).toEqual([200, '', ''])
  })

  test('with `origins`: these and relative paths, nothing else', async () => {
    const backend = await keeper()
    const { fetch } = balance([backend], { origins: ['https://api.test', 'http://other.test:81'] })
    for (const input of [
      'https://api.test/1',
      'https://api.test:443/2',
      new URL('http://other.test:81/3'),
      '/4',
      '5',
    ]) {
      await fetch(input)
    }
    await fetch(new Request('https://api.test/6'))
    expect(backend.got).toHaveLength(6)
    for (const input of [
      'http://api.test/',
      'https://api.test.evil/',
      'https://api.test:8443/',
      'http://other.test/',
    ]) {
      await rejectsWith('CONFIG', fetch(input))
      await rejectsWith('CONFIG', fetch(new URL(input)))
      await rejectsWith('CONFIG', fetch(new Request(input)))
    }
    expect(backend.got).toHaveLength(6)
  })

  test('with an empty `origins`: relative paths only', async () => {
    const backend = await keeper()
    const { fetch } = balance([backend], { origins: [] })
    await fetch('/1')
    await rejectsWith('CONFIG', fetch('http://api.test/'))
    await rejectsWith('CONFIG', fetch(backend.url))
    expect(backend.got).toHaveLength(1)
  })

  test('only http: and https:', async () => {
    const backend = await keeper()
    const { fetch } = balance([backend])
    for (const input of ['ftp://a.test/', 'file:///etc/passwd', 'data:text/plain,x', 'localhost:3000/x', 'http://']) {
      await expect(fetch(input)).rejects.toBeInstanceOf(TypeError)
    }
    expect(backend.got).toEqual([])
  })

  test.each([
    ['//evil.test/x', '/v1//evil.test/x'],
    ['///evil.test', '/v1///evil.test'],
    ['/\\evil.test/x', '/v1//evil.test/x'],
    ['/@evil.test/x', '/v1/@evil.test/x'],
    ['/:80@evil.test/x', '/v1/:80@evil.test/x'],
    ['\\\\evil.test\\x', '/v1/x'],
    ['/../x', '/v1/x'],
    ['/a/../../../x', '/v1/x'],
    ['../../x', '/v1/x'],
    ['/%2e%2e/x', '/v1/x'],
    ['/a/.%2E/%2e./x', '/v1/x'],
    ['/a\\..\\..\\x', '/v1/x'],
    ['/./x', '/v1/x'],
    ['/a#/../x', '/v1/a'],
    ['/a?b#c', '/v1/a?b'],
    ['/a?up=../..&up=%2e%2e&bad=%zz', '/v1/a?up=../..&up=%2e%2e&bad=%zz'],
    ['/a b', '/v1/a%20b'],
    ['/a\tb\r\nc', '/v1/abc'],
    ['/a\u0001b\u007f', '/v1/a%01b%7F'],
    ['/ü€', '/v1/%C3%BC%E2%82%AC'],
    ['/%00', '/v1/%00'],
  ])('%j goes to %j of the chosen backend', async (input, path) => {
    const backend = await keeper()
    const { fetch } = balance([`${backend.url}/v1`])
    await fetch(input)
    expect(backend.got.map((got) => got.path)).toEqual([path])
  })

  test.each([
    ['/..%2fx'],
    ['/..%2Fx'],
    ['/..%5cx'],
    ['/a/%2e%2e%2fx'],
    ['/%252e%252e/x'],
    ['/%25252e%25252e/x'],
    ['/%2e%252e/x'],
    ['/%zz'],
    ['/%'],
    ['/%2'],
  ])('%j is refused before anything is sent', async (input) => {
    const backend = await keeper()
    const balancer = balance([`${backend.url}/v1`])
    await rejectsWith('PROTOCOL', balancer.fetch(input))
    await rejectsWith('PROTOCOL', balancer.fetch(`http://elsewhere.test${input}`))
    expect(backend.got).toEqual([])
    expect(statsOf(balancer).requests).toBe(0)
  })

  test('whatever is fetched stays below the base path, or is refused', async () => {
    const backend = await keeper()
    const { fetch } = balance([`${backend.url}/base`])
    const piece = fc.constantFrom(
      ...['/', '//', '\\', '.', '..', '%2e', '%2E', '%2f', '%5c', '%25', '%', '#', '?', '@', ':', ';', 'a', 'é', ' '],
      ...['\t', '\n', '\0', 'http:', 'evil.test'],
    )
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 8 }), async (pieces) => {
        const before = backend.got.length
        try {
          await (await fetch(`/${pieces.join('')}`)).text()
        } catch (error) {
          assert.ok(error instanceof TypeError || (error instanceof BalancerError && error.code === 'PROTOCOL'))
          assert.equal(backend.got.length, before)
          return
        }
        const [path = ''] = backend.got.at(-1)!.path.split('?')
        assert.match(path, /^\/base\/[\x21-\x7e]*$/)
        const decoded = decodeURIComponent(path.replaceAll('\\', '/'))
        assert.ok(!decoded.split('/').includes('..'), path)
      }),
      { numRuns: 400, seed: 4 },
    )
  })

  test('no methods that fetch forbids, none that are no methods', async () => {
    const backend = await keeper()
    const balancer = balance([backend])
    for (const method of ['CONNECT', 'TRACE', 'track', 'G ET', '', 'GET\r\n']) {
      await expect(balancer.fetch('/', { method })).rejects.toBeInstanceOf(TypeError)
    }
    expect(backend.got).toEqual([])
    expect(statsOf(balancer).failures).toBe(0)
  })

  test('methods as they are written, the usual ones in upper case', async () => {
    const methods: string[] = []
    const { fetch } = balance([
      await rawUpstream(async (wire) => {
        for (;;) {
          methods.push((await wire.head()).split(' ')[0]!)
          wire.write(OK)
        }
      }),
    ])
    for (const method of ['get', 'Put', 'options', 'PATCH', 'PROPFIND']) await fetch('/', { method })
    expect(methods).toEqual(['GET', 'PUT', 'OPTIONS', 'PATCH', 'PROPFIND'])
  })

  test('it is bound, and a drop-in for the built-in fetch', async () => {
    const backend = await keeper()
    const balancer = balance([backend])
    const { fetch } = balancer
    const dropIn: typeof globalThis.fetch = fetch
    expectTypeOf(balancer.fetch).toExtend<typeof globalThis.fetch>()
    expectTypeOf(dropIn).returns.resolves.toEqualTypeOf<Response>()
    expect(await (await dropIn('/')).text()).toBe('ok')
    expect(await Promise.all(['/1', '/2'].map((path) => fetch(path)))).toHaveLength(2)
  })
})

describe('the answer', () => {
  test('is a Response', async () => {
    const { fetch } = await answering(
      'HTTP/1.1 201 Made\r\nX-Two: a\r\nx-two: b\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n{"a":1}',
    )
    const response = await fetch('/')
    expect(response).toBeInstanceOf(Response)
    expectTypeOf(response).toEqualTypeOf<Response>()
    expect([response.status, response.ok, response.redirected]).toEqual([201, true, false])
    expect(response.headers).toBeInstanceOf(Headers)
    expect(response.headers).toBe(response.headers)
    expect(response.headers.get('X-TWO')).toBe('a, b')
    expect(await response.json()).toEqual({ a: 1 })
  })

  test('keeps each Set-Cookie apart, in order', async () => {
    const { fetch } = await answering(
      'HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Expires=Sun, 22 Nov 2026 00:00:00 GMT\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n',
    )
    const { headers } = await fetch('/')
    expect(headers.getSetCookie()).toEqual(['a=1; Expires=Sun, 22 Nov 2026 00:00:00 GMT', 'b=2'])
  })

  test('hands latin1 header bytes over as they are', async () => {
    const { fetch } = await answering('HTTP/1.1 200 OK\r\nx-name: J\xfcrgen \xff\r\ncontent-length: 0\r\n\r\n')
    expect((await fetch('/')).headers.get('x-name')).toBe('Jürgen ÿ')
  })

  test.each([
    [200, true],
    [299, true],
    [300, false],
    [404, false],
    [418, false],
    [500, false],
    [599, false],
  ])('%i is returned, not thrown', async (status, ok) => {
    const { fetch } = await answering(`HTTP/1.1 ${status} Some\r\ncontent-length: 4\r\n\r\nbody`)
    const response = await fetch('/')
    expect([response.status, response.ok, await response.text()]).toEqual([status, ok, 'body'])
  })

  describe.each([
    ['at once', { 'content-length': '5' }],
    ['in chunks', {}],
  ])('whose body came %s', (_, headers) => {
    /** A body 'héa' with its parts apart if it is chunked. */
    async function response(type = 'text/plain'): Promise<Response> {
      const backend = await upstream((_, answer) => {
        answer.writeHead(200, { 'content-type': type, ...headers })
        answer.write(Buffer.from('h\xc3', 'latin1'))
        setImmediate(() => answer.end(Buffer.from('\xa9a!', 'latin1')))
      })
      return balance([backend]).fetch('/')
    }

    test('can be read as text', async () => expect(await (await response()).text()).toBe('héa!'))
    test('can be read as bytes', async () => {
      const bytes = await (await response()).bytes()
      expect(bytes.constructor).toBe(Uint8Array)
      expect([...bytes]).toEqual([104, 0xc3, 0xa9, 97, 33])
    })
    test('can be read as an ArrayBuffer of its very length', async () => {
      const buffer = await (await response()).arrayBuffer()
      expect(buffer).toBeInstanceOf(ArrayBuffer)
      expect(Buffer.from(buffer).toString()).toBe('héa!')
    })
    test('can be read as a Blob', async () => {
      const blob = await (await response('text/x-mine')).blob()
      expect(blob.type).toBe('text/x-mine')
      expect(await blob.text()).toBe('héa!')
    })
    test('can be read as a stream', async () => {
      expect(text(await bytesOf((await response()).body!))).toBe('héa!')
    })
    test('can be read into a buffer of the reader', async () => {
      const reader = (await response()).body!.getReader({ mode: 'byob' })
      const bytes: number[] = []
      for (;;) {
        const { done, value } = await reader.read(new Uint8Array(2))
        if (done) break
        bytes.push(...value)
      }
      expect([...bytes]).toEqual([104, 0xc3, 0xa9, 97, 33])
    })
    test('can be teed', async () => {
      const [one, two] = (await response()).body!.tee()
      expect(await Promise.all([bytesOf(one), bytesOf(two)]).then((all) => all.map(text))).toEqual(['héa!', 'héa!'])
    })
    test('can be cloned and read twice, in any order', async () => {
      const first = await response()
      const second = first.clone()
      expect(second).toBeInstanceOf(Response)
      expect([second.status, second.headers.get('content-type')]).toEqual([200, 'text/plain'])
      expect(await second.text()).toBe('héa!')
      expect(first.bodyUsed).toBe(false)
      expect(await first.text()).toBe('héa!')
    })
    test('can be wrapped in another Response', async () => {
      const inner = await response()
      expect(await new Response(inner.body, inner).text()).toBe('héa!')
    })
  })

  test('can be read as a form', async () => {
    const form = new FormData()
    form.set('name', 'Jürgen')
    form.set('file', new File(['\0\xff'], 'a.bin', { type: 'a/b' }))
    const sent = new Response(form)
    const type = sent.headers.get('content-type')!
    const body = Buffer.from(await sent.arrayBuffer())
    const { fetch } = balance([await keeper((_, answer) => answer.writeHead(200, { 'content-type': type }).end(body))])
    const got = await (await fetch('/')).formData()
    expect(got.get('name')).toBe('Jürgen')
    expect(await (got.get('file') as File).text()).toBe('\0\xff')
  })

  test('as text has no BOM, as bytes it has', async () => {
    const { fetch } = balance([await keeper((_, response) => response.end('\ufeff{"a":1}'))])
    expect(await (await fetch('/')).text()).toBe('{"a":1}')
    expect(await (await fetch('/')).json()).toEqual({ a: 1 })
    expect((await (await fetch('/')).bytes())[0]).toBe(0xef)
  })

  test('with broken UTF-8 is text all the same, with broken JSON a SyntaxError', async () => {
    const { fetch } = await answering('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff{')
    expect(await (await fetch('/')).text()).toBe('\ufffd{')
    await expect((await fetch('/')).json()).rejects.toBeInstanceOf(SyntaxError)
  })

  test('an empty body is a body', async () => {
    const { fetch } = await answering('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')
    const response = await fetch('/')
    expect(response.body).not.toBeNull()
    expect(await response.text()).toBe('')
    expect(response.bodyUsed).toBe(true)
    await expect((await fetch('/')).json()).rejects.toBeInstanceOf(SyntaxError)
    expect((await (await fetch('/')).arrayBuffer()).byteLength).toBe(0)
  })

  const readers = ['text', 'json', 'arrayBuffer', 'bytes', 'blob'] as const
  test.each(readers)('can be read once: after %s() every other way is a TypeError', async (reader) => {
    const { fetch } = await answering(OK.replace('ok', '17'))
    for (const again of readers) {
      const response = await fetch('/')
      expect(response.bodyUsed).toBe(false)
      const first = response[reader]()
      expect(response.bodyUsed).toBe(true)
      await expect(response[again]()).rejects.toBeInstanceOf(TypeError)
      await first
      expect(response.bodyUsed).toBe(true)
      await expect(response[again]()).rejects.toBeInstanceOf(TypeError)
      expect(() => response.clone()).toThrow(TypeError)
    }
  })

  test('can be read once: after its stream was, every other way is a TypeError', async () => {
    const { fetch } = await answering(OK)
    const response = await fetch('/')
    const body = response.body!
    expect(response.body).toBe(body)
    expect(response.bodyUsed).toBe(false)
    const stream = body.getReader()
    await expect(response.text()).rejects.toBeInstanceOf(TypeError) // locked
    expect(() => response.clone()).toThrow(TypeError)
    await stream.read()
    stream.releaseLock()
    expect(response.bodyUsed).toBe(true)
    await expect(response.text()).rejects.toBeInstanceOf(TypeError)
  })

  test('still has a body to look at after it was read, though nobody can read it again', async () => {
    const { fetch } = await answering(OK)
    const response = await fetch('/')
    await response.text()
    const { body } = response
    expect(body).toBeInstanceOf(ReadableStream)
    expect(await bytesOf(body!).catch(() => Buffer.alloc(0))).toHaveLength(0)
    expect(inspect(response)).toMatch(/status: 200/)
  })

  test('can be looked at before it is read', async () => {
    const { fetch } = await answering(OK)
    const response = await fetch('/')
    expect(inspect(response)).toMatch(/status: 200/)
    expect(await response.text()).toBe('ok')
  })

  test('read past its own methods rejects, and the next answers are none the worse', async () => {
    const { fetch } = await answering(OK)
    const before = await fetch('/')
    for (const method of ['text', 'json', 'arrayBuffer', 'blob', 'bytes', 'formData'] as const) {
      const response = await fetch('/')
      await expect(Response.prototype[method].call(response)).rejects.toBeInstanceOf(TypeError)
      await expect(Response.prototype[method].call(await fetch('/'))).rejects.toBeInstanceOf(TypeError)
      expect(await (await fetch('/')).text()).toBe('ok')
    }
    Response.prototype.clone.call(await fetch('/'))
    expect(await (await fetch('/')).text()).toBe('ok')
    expect(await before.text()).toBe('ok')
  })

  test.each([
    ['GET', 204],
    ['GET', 205],
    ['GET', 304],
    ['HEAD', 200],
    ['HEAD', 404],
  ])('to %s with %i has no body, and may be "read" any number of times', async (method, status) => {
    const backend = await rawUpstream(
      says(`HTTP/1.1 ${status} Some\r\n${method === 'HEAD' ? 'content-length: 10\r\n' : ''}\r\n`),
    )
    // 205 has no length of its own: its backend says so.
    const { fetch } =
      status === 205 ? await answering('HTTP/1.1 205 Reset\r\ncontent-length: 0\r\n\r\n') : balance([backend])
    const response = await fetch('/', { method })
    expect([response.status, response.body, response.bodyUsed]).toEqual([status, null, false])
    if (method === 'HEAD') expect(response.headers.get('content-length')).toBe('10')
    for (let i = 0; i < 2; i++) expect(await response.text()).toBe('')
    expect((await response.arrayBuffer()).byteLength).toBe(0)
    expect((await response.clone().bytes()).length).toBe(0)
    await fetch('/', { method })
    if (method === 'GET' && status !== 205) expect(backend.wires).toHaveLength(1)
  })

  test.each(['text', 'json', 'arrayBuffer', 'bytes', 'blob'] as const)(
    'that breaks off never ends well: %s() rejects',
    async (reader) => {
      const { fetch } = balance([
        await rawUpstream(async (wire) => {
          await wire.head()
          wire.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[1\r\n')
          setImmediate(() => wire.socket.resetAndDestroy())
        }),
      ])
      await rejectsWith('TRUNCATED', (await fetch('/'))[reader]())
    },
  )

  test('that breaks off never ends well: its stream errors after what came', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf')
    })
    const balancer = balance([backend])
    const reader = (await balancer.fetch('/')).body!.getReader()
    expect(text((await reader.read()).value!)).toBe('half')
    ;(await backend.wire()).socket.end()
    await rejectsWith('TRUNCATED', reader.read())
    expect(statsOf(balancer)).toMatchObject({ failures: 1, classes: { truncated: 1 } })
  })
})

describe('a streamed answer', () => {
  const bytes = randomFillSync(Buffer.alloc(32 * MIB))

  /** 32 MiB in parts of 64 KiB, made only as fast as they are taken. */
  async function source(): Promise<{ readonly made: () => number; readonly url: string; readonly port: number }> {
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
    const { fetch } = balance([backend])
    const reader = (await fetch('/')).body!.getReader()
    const wire = await backend.wire()
    for (const part of ['one', 'two']) {
      wire.write(`3\r\n${part}\r\n`)
      expect(text((await reader.read()).value!)).toBe(part)
    }
    wire.write('0\r\n\r\n')
    expect((await reader.read()).done).toBe(true)
  })

  test.each(['default', 'byob'] as const)(
    'stops its backend when its reader stops, and loses no byte (%s reader)',
    async (mode) => {
      const backend = await source()
      const { fetch } = balance([backend])
      const { body } = await fetch('/')
      const parts: Uint8Array[] = []
      const reader = mode === 'byob' ? body!.getReader({ mode }) : body!.getReader()
      const next = async (): Promise<boolean> => {
        const { done, value } =
          reader instanceof ReadableStreamBYOBReader ? await reader.read(new Uint8Array(100_000)) : await reader.read()
        if (value !== undefined) parts.push(value)
        return !done
      }
      await next()
      expect(await standstill(backend.made)).toBeLessThan(bytes.length / 2)
      while (await next());
      expect(sha256(Buffer.concat(parts))).toBe(sha256(bytes))
    },
    10_000,
  )

  test('stops its backend while nobody reads at all', async () => {
    const backend = await source()
    const balancer = balance([backend])
    const response = await balancer.fetch('/')
    expect(await standstill(backend.made)).toBeLessThan(bytes.length / 2)
    expect(inflight(balancer)).toBe(1)
    expect(sha256(await response.bytes())).toBe(sha256(bytes))
    expect(inflight(balancer)).toBe(0)
  })

  test('cancelled, closes its connection and is no longer in flight, in the same tick', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n')
    })
    const balancer = balance([backend])
    const reader = (await balancer.fetch('/')).body!.getReader()
    await reader.read()
    expect(inflight(balancer)).toBe(1)
    const cancelled = reader.cancel(new Error('enough'))
    expect(inflight(balancer)).toBe(0)
    await cancelled
    await (await backend.wire()).closed()
    expect((await reader.read()).done).toBe(true)
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 1 } })
  })

  test('cancelled after its last byte came, keeps its connection', async () => {
    const backend = await rawUpstream(says(OK))
    const balancer = balance([backend])
    for (let i = 0; i < 3; i++) {
      const response = await balancer.fetch('/')
      await idle(balancer)
      await response.body!.cancel()
      expect(response.bodyUsed).toBe(true)
    }
    expect(backend.wires).toHaveLength(1)
    expect(statsOf(balancer).classes).toMatchObject({ ok: 3 })
  })

  test('too small to fill a buffer gives its connection back though nobody reads it', async () => {
    const backend = await upstream((_, response) => {
      response.write('x'.repeat(20_000))
      response.end('y'.repeat(20_000))
    })
    const balancer = balance([backend])
    const responses = await Promise.all(Array.from({ length: 10 }, () => balancer.fetch('/')))
    await idle(balancer)
    for (const response of responses) expect((await response.text()).length).toBe(40_000)
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

    test('unread, gives its connection back when it is collected', async () => {
      const backend = await source()
      const balancer = balance([backend])
      const held = await balancer.fetch('/')
      await (async () => {
        for (let i = 0; i < 5; i++) await balancer.fetch('/')
      })()
      expect(inflight(balancer)).toBe(6)
      await collected(balancer, 1)
      collect() // once more: the one still held can be read
      await new Promise(setImmediate)
      expect(inflight(balancer)).toBe(1)
      await held.body!.cancel()
    })

    test('unread, gives its connection back though its body was looked at', async () => {
      const backend = await source()
      const balancer = balance([backend])
      await (async () => {
        const response = await balancer.fetch('/')
        assert.ok(response.body !== null)
      })()
      await collected(balancer, 0)
      const left = inflight(balancer)
      await balancer.close()
      expect(left).toBe(0)
    })

    test('but whose stream is being read, is not cut off', async () => {
      const backend = await source()
      const balancer = balance([backend])
      const reader = (await balancer.fetch('/')).body!.getReader()
      let length = 0
      for (let i = 0; ; i++) {
        const { done, value } = await reader.read()
        if (done) break
        length += value.length
        if (i % 50 === 0) collect()
      }
      expect(length).toBe(bytes.length)
    })
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
    const signal = AbortSignal.abort(reason)
    expect(await rejection(balancer.fetch('/', { signal }))).toBe(reason)
    expect(await rejection(balancer.fetch(new Request('http://a.test/', { signal })))).toBe(reason)
    expect(backend.got).toEqual([])
    expect(statsOf(balancer).requests).toBe(0)
  })

  test('without a reason rejects with the AbortError of the signal', async () => {
    const backend = await rawUpstream(silent)
    const controller = new AbortController()
    const call = balance([backend]).fetch('/', { signal: controller.signal })
    await (await backend.wire()).head()
    controller.abort()
    const error = await rejection(call)
    expect(error).toBe(controller.signal.reason)
    expect(error).toMatchObject({ name: 'AbortError' })
  })

  test('while waiting for a connection', async () => {
    const backend = await rawUpstream(silent)
    const balancer = balance([backend], { undici: { connections: 1 } })
    const first = new AbortController()
    const second = new AbortController()
    const held = rejection(balancer.fetch('/1', { signal: first.signal }))
    const wire = await backend.wire()
    await wire.until('/1')
    const waiting = rejection(balancer.fetch('/2', { signal: second.signal }))
    await new Promise(setImmediate)
    expect(inflight(balancer)).toBe(2)
    const reason = new Error('enough')
    second.abort(reason)
    expect(await waiting).toBe(reason)
    expect(inflight(balancer)).toBe(1)
    first.abort(reason)
    expect(await held).toBe(reason)
    expect(wire.received).not.toContain('/2')
  })

  test.each(['init', 'Request', 'AbortSignal.any'])('while waiting for the head (signal in %s)', async (where) => {
    const backend = await rawUpstream(silent)
    const balancer = balance([backend])
    const { signal, abort } = controls()
    const given: [string | Request, RequestInit?] =
      where === 'Request'
        ? [new Request('http://a.test/', { signal })]
        : ['/', { signal: where === 'init' ? signal : AbortSignal.any([signal]) }]
    const call = rejection(balancer.fetch(...given))
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
    const call = rejection(balancer.fetch('/', { signal }))
    await retried
    const reason = new Error('enough')
    abort(reason)
    expect(await call).toBe(reason)
    expect(backend.got).toHaveLength(1)
  })

  test.each(['text', 'bytes', 'blob', 'stream'] as const)('in the body, read as %s', async (how) => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n')
    })
    const balancer = balance([backend])
    const { signal, abort } = controls()
    const response = await balancer.fetch('/', { signal })
    const reading = rejection(how === 'stream' ? bytesOf(response.body!) : response[how]())
    await new Promise(setImmediate)
    const reason = new Error('enough')
    abort(reason)
    expect(await reading).toBe(reason)
    expect(inflight(balancer)).toBe(0)
    await (await backend.wire()).closed()
  })

  test('of a body nobody has begun to read', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf')
    })
    const { signal, abort } = controls()
    const response = await balance([backend]).fetch('/', { signal })
    const reason = new Error('enough')
    abort(reason)
    await (await backend.wire()).closed()
    expect(await rejection(response.text())).toBe(reason)
  })

  test('while the request body is being sent', async () => {
    const backend = await rawUpstream((wire) => wire.socket.pause())
    const balancer = balance([backend])
    const { signal, abort } = controls()
    let returned = false
    const body = new ReadableStream({
      pull: (stream) => stream.enqueue(new Uint8Array(65_536)),
      cancel: () => {
        returned = true
      },
    })
    const call = rejection(balancer.fetch('/', { method: 'POST', body, duplex: 'half', signal }))
    const wire = await backend.wire()
    await new Promise(setImmediate)
    const reason = new Error('enough')
    abort(reason)
    expect(await call).toBe(reason)
    expect(inflight(balancer)).toBe(0)
    await until(() => returned, 'the stream was not let go')
    wire.socket.resume()
    await wire.closed()
  })

  test('by AbortSignal.timeout rejects with its TimeoutError', async () => {
    const balancer = balance([await rawUpstream(silent)])
    const signal = AbortSignal.timeout(20)
    const error = await rejection(balancer.fetch('/', { signal }))
    expect(error).toBe(signal.reason)
    expect(error).toMatchObject({ name: 'TimeoutError' })
    expect(statsOf(balancer).failures).toBe(0)
  })

  test('after the end changes nothing', async () => {
    const backend = await rawUpstream(says(OK))
    const { fetch } = balance([backend])
    const { signal, abort } = controls()
    const read = await fetch('/', { signal })
    expect(await read.text()).toBe('ok')
    abort(new Error('late'))
    expect(await (await fetch('/')).text()).toBe('ok')
    expect(backend.wires).toHaveLength(1)
  })

  test('leaves no listener behind on a signal that outlives its calls', async () => {
    const { signal } = controls()
    const listeners = (): number => getEventListeners(signal, 'abort').length
    const good = balance([await keeper()])
    for (let i = 0; i < 50; i++) await (await good.fetch('/', { signal })).text()
    expect(listeners()).toBe(0)
    await Promise.all(Array.from({ length: 50 }, () => good.fetch('/', { signal, method: 'POST', body: 'x' })))
    await idle(good)
    expect(listeners()).toBe(0)

    const dead = balance([await nobody()], { retry: { attempts: 1 } })
    await rejectsWith('CONNECT', dead.fetch('/', { signal }))
    expect(listeners()).toBe(0)

    const cut = await answering('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n')
    await (await cut.fetch('/', { signal })).body!.cancel()
    expect(listeners()).toBe(0)

    for (const input of ['/%zz', 'ftp://a.test/']) await rejection(good.fetch(input, { signal }))
    await rejection(good.fetch('/', { signal, balancer: { pool: 'none' } }))
    expect(listeners()).toBe(0)

    await good.close()
    for (let i = 0; i < 3; i++) await rejectsWith('CLOSED', good.fetch('/', { signal }))
    expect(listeners()).toBe(0)
  })

  function controls(): { readonly signal: AbortSignal; readonly abort: (reason: unknown) => void } {
    const controller = new AbortController()
    return { signal: controller.signal, abort: (reason) => controller.abort(reason) }
  }
})

describe('a request body', () => {
  const eight = new Uint8Array([0, 1, 2, 0xff, 0xfe, 13, 10, 7])
  const padded = new Uint8Array([9, 9, ...eight, 9, 9])
  const urlencoded = 'application/x-www-form-urlencoded;charset=UTF-8'
  const plain = 'text/plain;charset=UTF-8'
  async function* parts(): AsyncGenerator<Uint8Array, void, undefined> {
    yield eight.subarray(0, 3)
    yield eight.subarray(3)
  }
  type Body = NonNullable<RequestInit['body']>
  const iterable = (source: AsyncIterable<unknown>): Body => source as unknown as Body
  interface Row {
    readonly name: string
    readonly body: () => Body
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
      body: () => new URLSearchParams([['a b', 'ü&']]),
      bytes: encoder.encode('a+b=%C3%BC%26'),
      type: urlencoded,
      length: 13,
    },
    { name: 'a Blob', body: () => new Blob([eight], { type: 'a/b' }), bytes: eight, type: 'a/b', length: 8 },
    { name: 'a Blob without a type', body: () => new Blob([eight]), bytes: eight, length: 8 },
    { name: 'an empty Blob', body: () => new Blob([]), bytes: new Uint8Array(), length: 0 },
    { name: 'a File', body: () => new File([eight], 'a.bin', { type: 'a/c' }), bytes: eight, type: 'a/c', length: 8 },
    { name: 'an ArrayBuffer', body: () => eight.slice().buffer, bytes: eight, length: 8 },
    { name: 'a Uint8Array', body: () => eight, bytes: eight, length: 8 },
    { name: 'an empty Uint8Array', body: () => new Uint8Array(), bytes: new Uint8Array(), length: 0 },
    { name: 'a view of part of a buffer', body: () => padded.subarray(2, 10), bytes: eight, length: 8 },
    { name: 'a DataView', body: () => new DataView(padded.buffer, 2, 8), bytes: eight, length: 8 },
    { name: 'a Uint16Array', body: () => new Uint16Array(padded.buffer, 2, 4), bytes: eight, length: 8 },
    { name: 'a Buffer', body: () => Buffer.from(eight), bytes: eight, length: 8 },
    { name: 'a ReadableStream', body: () => ReadableStream.from(parts()), bytes: eight, length: undefined },
    { name: 'a byte stream', body: () => new Blob([eight]).stream(), bytes: eight, length: undefined },
    { name: 'an async iterable', body: () => iterable(parts()), bytes: eight, length: undefined },
    {
      name: 'an async iterable of strings',
      body: () => iterable(ReadableStream.from(['h', 'é'])),
      bytes: encoder.encode('hé'),
      length: undefined,
    },
    {
      name: 'a stream of one byte',
      body: () => ReadableStream.from(['x']),
      bytes: encoder.encode('x'),
      length: undefined,
    },
  ]

  test.each(rows)('$name arrives byte by byte, with its type and framing', async ({ body, bytes, type, length }) => {
    const backend = await keeper()
    const { fetch } = balance([backend])
    await fetch('/', { method: 'POST', body: body(), duplex: 'half' })
    const [got] = backend.got
    expect([...got!.body]).toEqual([...bytes])
    expect(got!.headers['content-type']).toBe(type)
    expect(got!.headers['content-length']).toBe(length === undefined ? undefined : String(length))
    expect(got!.headers['transfer-encoding']).toBe(length === undefined ? 'chunked' : undefined)
  })

  test.each(rows)('$name keeps the content type its caller gave', async ({ body }) => {
    const backend = await keeper()
    const { fetch } = balance([backend])
    await fetch('/', { method: 'PUT', body: body(), duplex: 'half', headers: { 'content-type': 'x/y' } })
    expect(backend.got[0]!.headers['content-type']).toBe('x/y')
  })

  test.each(rows)('$name is a TypeError with GET and HEAD', async ({ body }) => {
    const backend = await keeper()
    const balancer = balance([backend])
    for (const method of ['GET', 'get', 'HEAD', undefined]) {
      const init: RequestInit = { body: body(), duplex: 'half', ...(method !== undefined && { method }) }
      await expect(balancer.fetch('/', init)).rejects.toBeInstanceOf(TypeError)
    }
    expect(statsOf(balancer).requests).toBe(0)
  })

  test('an empty stream arrives as nothing', async () => {
    const backend = await keeper()
    await balance([backend]).fetch('/', { method: 'POST', body: ReadableStream.from([]), duplex: 'half' })
    expect(backend.got.map(({ body }) => body.length)).toEqual([0])
  })

  test('FormData arrives whole, with its boundary', async () => {
    const form = new FormData()
    form.append('name', 'Jürgen "J"')
    form.append('name', 'two')
    form.append('file', new File([eight], 'ä.bin', { type: 'a/b' }))
    const backend = await keeper()
    await balance([backend]).fetch('/', { method: 'POST', body: form })
    const { headers, body } = backend.got[0]!
    const type = headers['content-type']!
    expect(type).toMatch(/^multipart\/form-data; ?boundary=\S+$/)
    const got = await new Response(body, { headers: { 'content-type': type } }).formData()
    expect(got.getAll('name')).toEqual(['Jürgen "J"', 'two'])
    const file = got.get('file') as File
    expect([file.name, file.type, ...(await file.bytes())]).toEqual(['ä.bin', 'a/b', ...eight])
  })

  test('of a Request arrives with its type', async () => {
    const backend = await keeper()
    const { fetch } = balance([backend])
    await fetch(new Request('http://a.test/', { method: 'POST', body: new URLSearchParams({ a: '1' }) }))
    const stream = new Request('http://a.test/', { method: 'POST', body: ReadableStream.from(parts()), duplex: 'half' })
    await fetch(stream)
    expect(backend.got.map(({ headers, body }) => [headers['content-type'], [...body]])).toEqual([
      [urlencoded, [...encoder.encode('a=1')]],
      [undefined, [...eight]],
    ])
    expect(stream.bodyUsed).toBe(true)
  })

  test('as it was when fetch was called: what its owner writes into it later is not sent', async () => {
    const backend = await keeper()
    const { fetch } = balance([backend])
    const bytes = encoder.encode('hello')
    const call = fetch('/', { method: 'POST', body: bytes })
    bytes.fill(120)
    await call
    expect(text(backend.got[0]!.body)).toBe('hello')
  })

  test('that was used before is a TypeError, and nothing is sent', async () => {
    const backend = await keeper()
    const balancer = balance([backend])
    const request = new Request('http://a.test/', { method: 'POST', body: 'once' })
    await balancer.fetch(request)
    await expect(balancer.fetch(request)).rejects.toBeInstanceOf(TypeError)

    const read = new Blob(['once']).stream()
    await bytesOf(read)
    const locked = new Blob(['once']).stream()
    locked.getReader()
    for (const body of [read, locked]) {
      await expect(balancer.fetch('/', { method: 'POST', body, duplex: 'half' })).rejects.toBeInstanceOf(TypeError)
    }
    expect(backend.got.map(({ body }) => text(body))).toEqual(['once'])
    expect(statsOf(balancer).requests).toBe(1)
  })

  test('of 32 MiB streams up, no faster than it is taken', async () => {
    const bytes = randomFillSync(Buffer.alloc(32 * MIB))
    let taken = 0
    const go = Promise.withResolvers<void>()
    const backend = await upstream(async (request, response) => {
      await go.promise
      response.end(sha256(await bytesOf(request)))
    })
    const { fetch } = balance([backend])
    const body = new ReadableStream({
      type: 'bytes',
      pull(stream) {
        stream.enqueue(new Uint8Array(bytes.subarray(taken, taken + 65_536))) // its memory is taken away
        taken += 65_536
        if (taken >= bytes.length) stream.close()
      },
    })
    const call = fetch('/', { method: 'PUT', body, duplex: 'half' })
    expect(await standstill(() => taken)).toBeLessThan(bytes.length / 2)
    go.resolve()
    expect(await (await call).text()).toBe(sha256(bytes))
  })

  test('whose source fails is nobody else’s fault', async () => {
    const backend = await rawUpstream(() => {})
    const balancer = balance([backend])
    const onFire = new Error('disk on fire')
    async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
      yield eight
      throw onFire
    }
    const error = await rejectsWith('PROTOCOL', balancer.fetch('/', { method: 'PUT', body: iterable(source()) }))
    expect(error.cause).toBe(onFire)
    await (await backend.wire()).closed()
    expect(statsOf(balancer)).toMatchObject({ requests: 1, failures: 0, classes: { request: 1 } })
  })

  test('may hold bytes and text only', async () => {
    const { fetch } = balance([await keeper()])
    async function* numbers(): AsyncGenerator<number, void, undefined> {
      yield 1
    }
    await rejectsWith('PROTOCOL', fetch('/', { method: 'PUT', body: iterable(numbers()) }))
  })

  test('is sent again from its start, whatever it is', async () => {
    for (const { body, bytes } of rows) {
      const backend = await keeper((_, response) => {
        if (backend.got.length === 1) response.socket!.resetAndDestroy()
        else response.end('ok')
      })
      const balancer = balance([backend], { retry: { baseMs: 0 } })
      expect((await balancer.fetch('/', { method: 'PUT', body: body(), duplex: 'half' })).status).toBe(200)
      expect(backend.got.map((got) => [...got.body])).toEqual([[...bytes], [...bytes]])
    }
  })
})

describe('request headers', () => {
  test('in every form that fetch takes', async () => {
    const backend = await keeper()
    const { fetch } = balance([backend])
    const forms: RequestInit['headers'][] = [
      { 'X-A': '1', accept: 'x/y', 'user-agent': 'me' },
      [
        ['X-A', '1'],
        ['x-a', '2'],
      ],
      new Headers({ 'x-a': '1' }),
      new Map([['x-a', '1']]) as unknown as Headers,
    ]
    for (const headers of forms) await fetch('/', { headers: headers! })
    const { headers } = backend.got[0]!
    expect([headers['x-a'], headers.accept, headers['user-agent']]).toEqual(['1', 'x/y', 'me'])
    expect(backend.got.map((got) => got.headers['x-a'])).toEqual(['1', '1, 2', '1', '1'])
    expect(backend.got[1]!.headers).toMatchObject({ accept: '*/*', 'user-agent': 'evenkeel' })
  })

  test('as latin1, byte by byte', async () => {
    const backend = await rawUpstream(says(OK))
    await balance([backend]).fetch('/', { headers: { 'x-name': 'Jürgen ÿ' } })
    expect((await backend.wire()).received).toContain('x-name: J\xfcrgen \xff\r\n')
  })

  test.each([
    ['a name with a space', { 'x a': '1' }],
    ['an empty name', { '': '1' }],
    ['a line break in a name', { 'x\r\ny': '1' }],
    ['a line break in a value', { x: '1\r\ny: 2' }],
    ['a NUL in a value', { x: 'a\0b' }],
    ['a value beyond latin1', { x: '€' }],
  ])('with %s are a TypeError', async (_, headers) => {
    const backend = await keeper()
    const balancer = balance([backend])
    await expect(balancer.fetch('/', { headers })).rejects.toBeInstanceOf(TypeError)
    expect(backend.got).toEqual([])
    expect(statsOf(balancer).requests).toBe(0)
  })

  test.each([
    [{ x: 'sk-key\n0' }, 'Headers.append: a header is an invalid header value.'],
    [{ x: `sk-key\n"0" '1'` }, 'Headers.append: a header is an invalid header value.'],
    [{ 'sk-key 0': 'x' }, 'Headers.append: a header is an invalid header name.'],
    [['sk-key'], '[0] (a header) is not iterable.'],
    [{ [Symbol('sk-key')]: 'x' }, 'Key a header in '],
  ])('that are wrong are not quoted: %#', async (headers, message) => {
    const { fetch } = balance(['http://127.0.0.1:1'])
    const given = { headers: headers as unknown as Record<string, string> }
    for (const input of ['/', new Request('http://a.test/')]) {
      const error = await rejection(fetch(input, given))
      expect(error).toBeInstanceOf(TypeError)
      expect((error as Error).message).toContain(message)
      expect(inspect(error)).not.toContain('sk-key')
    }
  })

  test('are not what every error is about: others are told as they are', async () => {
    const { fetch } = balance(['http://127.0.0.1:1'])
    const mode =
      (init: object): (() => Request) =>
      () =>
        new Request('http://a.test/', init)
    const init = { mode: 'bad"x"' } as unknown as RequestInit
    expect(mode(init)).toThrow('bad"x" is not an accepted type')
    await expect(fetch(new Request('http://a.test/'), init)).rejects.toThrow('bad"x" is not an accepted type')
    const own = new TypeError('mine: "a" is not b')
    const value = {
      toString() {
        throw own
      },
    }
    expect(await rejection(fetch('/', { headers: { x: value as unknown as string } }))).toBe(own)
  })

  test('that are the connection’s are not the caller’s to set', async () => {
    const backend = await keeper()
    const { fetch } = balance([backend])
    const headers = {
      host: 'evil.test',
      connection: 'close, x-a',
      'content-length': '999',
      'transfer-encoding': 'gzip',
      'keep-alive': 'timeout=1',
      upgrade: 'h2c',
      expect: '100-continue',
      te: 'gzip',
      trailer: 'x',
      'x-a': '1',
    }
    await fetch('/', { method: 'POST', body: 'abc', headers })
    const [got] = backend.got
    expect(got!.headers).toEqual({
      host: `127.0.0.1:${backend.port}`,
      connection: 'keep-alive',
      'content-length': '3',
      'content-type': 'text/plain;charset=UTF-8',
      accept: '*/*',
      'user-agent': 'evenkeel',
      'x-a': '1',
    })
    expect(text(got!.body)).toBe('abc')
  })
})

describe('what the balancer is told about a call', () => {
  test('its pool', async () => {
    const [one, two] = [await keeper(), await keeper()]
    const { fetch } = kept(createBalancer({ pools: { one: { backends: [one.url] }, two: { backends: [two.url] } } }))
    await fetch('/a')
    await fetch('/b', { balancer: { pool: 'two' } })
    await fetch(new Request('http://a.test/c'), { balancer: { pool: 'two' } })
    expect([one.got, two.got].map((got) => got.map(({ path }) => path))).toEqual([['/a'], ['/b', '/c']])
  })

  test('an unknown pool is CONFIG, and names those there are', async () => {
    const { fetch } = balance([await keeper()])
    const error = await rejectsWith('CONFIG', fetch('/', { method: 'POST', body: 'x', balancer: { pool: 'nine' } }))
    expect(error.message).toMatch(/"nine".*default/)
  })

  test('its key reaches the strategy', async () => {
    const keys: unknown[] = []
    const byKey: Strategy = {
      name: 'by key',
      start: () => ({
        build:
          ({ eligible }) =>
          (call) => {
            keys.push(call.key)
            return eligible[call.key === 'second' ? 1 : 0]
          },
      }),
    }
    const [one, two] = [await keeper(), await keeper()]
    const { fetch } = balance([one, two], { strategy: byKey })
    for (const key of ['first', 'second', 'second']) await fetch('/', { balancer: { key } })
    await fetch('/')
    expect(keys).toEqual(['first', 'second', 'second', undefined])
    expect([one.got.length, two.got.length]).toEqual([2, 2])
  })

  test('its tags: only backends that have them all', async () => {
    const [one, two] = [await keeper(), await keeper()]
    const { fetch } = kept(
      createBalancer({
        backends: [
          { url: one.url, tags: ['big'] },
          { url: two.url, tags: ['big', 'eu'] },
        ],
      }),
    )
    for (let i = 0; i < 10; i++) await fetch('/', { balancer: { tags: ['eu', 'big'] } })
    expect([one.got.length, two.got.length]).toEqual([0, 10])
    await rejectsWith('NO_BACKEND', fetch('/', { balancer: { tags: ['us'] } }))
  })

  test('the backend it prefers', async () => {
    const [one, two] = [await keeper(), await keeper()]
    const { fetch } = kept(createBalancer({ backends: [{ url: one.url }, { url: two.url, id: 'b' }] }))
    for (let i = 0; i < 10; i++) await fetch('/', { balancer: { prefer: 'b' } })
    expect([one.got.length, two.got.length]).toEqual([0, 10])
  })

  test('how long it may take, body included', async () => {
    const balancer = balance([
      await rawUpstream(async (wire) => {
        if ((await wire.head()).startsWith('GET /body')) wire.write('HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\nx')
      }),
    ])
    await rejectsWith('TIMEOUT', balancer.fetch('/', { balancer: { timeoutMs: 30 } }))
    const response = await balancer.fetch('/body', { balancer: { timeoutMs: 50 } })
    await rejectsWith('TIMEOUT', response.text())
    expect(inflight(balancer)).toBe(0)
  })

  test('whether it may be sent twice', async () => {
    const backend = await keeper((_, response) => response.socket!.resetAndDestroy())
    const { fetch } = balance([backend], {
      retry: { attempts: 2, baseMs: 0 },
      health: { passive: false },
      strategy: roundRobin(),
    })
    const sends = async (method: string, idempotent?: boolean): Promise<number> => {
      const before = backend.got.length
      await rejectsWith('RESET', fetch('/', { method, ...(idempotent !== undefined && { balancer: { idempotent } }) }))
      return backend.got.length - before
    }
    expect(await sends('GET')).toBe(2)
    expect(await sends('GET', false)).toBe(1)
    expect(await sends('POST')).toBe(1)
    expect(await sends('POST', true)).toBe(2)
  })

  test('is typed', () => {
    expectTypeOf<Parameters<BalancerFetch>[1]>().toEqualTypeOf<BalancerFetchInit | undefined>()
    expectTypeOf<NonNullable<BalancerFetchInit['balancer']>>().toExtend<{ readonly timeoutMs?: number | undefined }>()
  })
})

describe('close', () => {
  test('refuses what comes after it', async () => {
    const backend = await keeper()
    const balancer = createBalancer({ backends: [backend.url] })
    await balancer.fetch('/')
    const closing = balancer.close()
    await rejectsWith('CLOSED', balancer.fetch('/'))
    await closing
    await rejectsWith('CLOSED', balancer.fetch('/', { method: 'POST', body: new Blob(['x']) }))
    await rejectsWith('CLOSED', balancer.ready())
    expect(balancer.close()).toBeInstanceOf(Promise)
    expect(backend.got).toHaveLength(1)
  })

  test('closes idle connections', async () => {
    const backend = await rawUpstream(says(OK))
    const balancer = createBalancer({ backends: [backend.url] })
    await (await balancer.fetch('/')).text()
    await balancer.close()
    await (await backend.wire()).closed()
  })

  test('cancels what is under way, before the head and in the body', async () => {
    const backend = await rawUpstream(async (wire) => {
      if ((await wire.head()).startsWith('GET /body')) wire.write('HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\nx')
    })
    const balancer = balance([backend])
    const waiting = rejectsWith('CLOSED', balancer.fetch('/'))
    const reading = rejectsWith('CLOSED', (await balancer.fetch('/body')).text())
    await Promise.all([(await backend.wire(0)).until('\r\n\r\n'), (await backend.wire(1)).until('\r\n\r\n')])
    await balancer.close()
    await Promise.all([waiting, reading])
    for (const wire of backend.wires) await wire.closed()
    expect(inflight(balancer)).toBe(0)
  })

  test('with drainMs lets what is under way finish, and no longer', async () => {
    const backend = await rawUpstream(async (wire) => void (await wire.head()))
    const balancer = createBalancer({ backends: [backend.url] })
    const call = balancer.fetch('/')
    const wire = await backend.wire()
    await wire.until('\r\n\r\n')
    let closed = false
    const closing = balancer.close({ drainMs: 60_000 }).then(() => {
      closed = true
    })
    await rejectsWith('CLOSED', balancer.fetch('/'))
    wire.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n')
    const reading = (await call).text()
    await new Promise(setImmediate)
    expect(closed).toBe(false)
    wire.write('3\r\ntwo\r\n0\r\n\r\n')
    expect(await reading).toBe('onetwo')
    await closing
    await wire.closed()
  })

  test('with drainMs cancels what takes longer', async () => {
    const backend = await rawUpstream(async (wire) => void (await wire.head()))
    const balancer = createBalancer({ backends: [backend.url] })
    const call = rejectsWith('CLOSED', balancer.fetch('/'))
    await (await backend.wire()).until('\r\n\r\n')
    const closed = once(balancer as never, 'closed')
    await balancer.close({ drainMs: 30 })
    await call
    await closed
  })

  test('is what `await using` does', async () => {
    const backend = await rawUpstream(says(OK))
    {
      await using balancer = createBalancer({ backends: [backend.url] })
      await (await balancer.fetch('/')).text()
    }
    await (await backend.wire()).closed()
    onTestFinished(() => assert.equal(backend.wires.length, 1))
  })
})
