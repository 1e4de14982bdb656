import assert from 'node:assert/strict'
import type { RequestListener } from 'node:http'
import { Readable } from 'node:stream'
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { BalancerError, createBalancer } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { balance, idle, keeper, kept, MIB, OK, rawUpstream, until, upstream } from './support/upstreams.ts'

/** A backend whose /old leads to `location` with `status`; anything else is said to be found. */
const leading =
  (location: string, status = 302): RequestListener =>
  (request, response) => {
    if (request.url?.includes('/old')) response.writeHead(status, { location }).end('moved')
    else response.end(`found ${request.method} ${request.url}`)
  }

describe('a redirect', () => {
  test('is followed through the balancer, and the Response tells', async () => {
    const backend = await keeper(leading('/new?x=1'))
    const response = await balance([backend]).fetch('/old', { headers: { authorization: 'mine', cookie: 'a=1' } })
    expect(await response.text()).toBe('found GET /new?x=1')
    expect([response.redirected, response.url]).toEqual([true, `${backend.url}/new?x=1`])
    expect([response.clone === undefined, backend.got[1]!.headers.authorization]).toEqual([false, 'mine'])
    const plain = await balance([backend]).fetch('/new')
    expect([plain.redirected, plain.clone().redirected]).toEqual([false, false])
  })

  test.each([301, 302, 303, 307, 308])('%i keeps the method and the body, or makes a GET of it', async (status) => {
    const backend = await keeper(leading('/new', status))
    const { fetch } = balance([backend])
    const send = (method: string, body: unknown): Promise<Response> => {
      const headers = { 'content-type': 'text/x', 'content-language': 'en', 'x-n': '1' }
      return fetch('/old', { method, body: body as string, headers })
    }
    const kept = status > 303
    for (const body of ['bytes', new Blob(['bytes']), Readable.toWeb(Readable.from([Buffer.from('bytes')]))]) {
      expect(await (await send('POST', body)).text()).toBe(`found ${kept ? 'POST' : 'GET'} /new`)
      const got = backend.got.at(-1)!
      expect(String(got.body)).toBe(kept ? 'bytes' : '')
      expect([got.headers['content-type'], got.headers['x-n']]).toEqual([kept ? 'text/x' : undefined, '1'])
    }
    expect(await (await send('PUT', 'bytes')).text()).toBe(`found ${status === 303 ? 'GET' : 'PUT'} /new`)
    expect((await fetch('/old', { method: 'HEAD' })).status).toBe(200)
    expect(backend.got.at(-1)!.method).toBe('HEAD')
  })

  test('of a Request is followed with its body', async () => {
    const backend = await keeper(leading('/new', 307))
    const asked = new Request('http://any.test/old', { method: 'POST', body: 'bytes' })
    expect(await (await balance([backend]).fetch(asked)).text()).toBe('found POST /new')
    expect(String(backend.got[1]!.body)).toBe('bytes')
  })

  test('is not followed for who gives up between its head and the next request', async () => {
    const backend = await keeper(leading('/new', 307))
    const stop = new AbortController()
    const sinks = [{ name: 'stop', attempt: () => stop.abort(new Error('enough')) }]
    const source = new ReadableStream({
      pull(controller) {
        controller.enqueue(new Uint8Array(3))
        controller.close()
      },
    })
    const balancer = balance([backend], { sinks })
    const answer = balancer.fetch('/old', {
      method: 'POST',
      body: source,
      duplex: 'half',
      signal: stop.signal,
    } as RequestInit)
    await expect(answer).rejects.toThrow('enough')
    await idle(balancer)
    expect(backend.got.map(({ path }) => path)).toEqual(['/old'])
  })

  test('is not followed for who gives up while the next request is routed', async () => {
    const backend = await keeper(leading('/new'))
    const stop = new AbortController()
    const route = ({ path }: { readonly path: string }): string => {
      if (path === '/new') stop.abort(new Error('enough'))
      return 'one'
    }
    const balancer = kept(createBalancer({ pools: { one: { backends: [backend.url] } }, route }))
    await expect(balancer.fetch('/old', { signal: stop.signal })).rejects.toThrow('enough')
    await idle(balancer)
    expect(backend.got.map(({ path }) => path)).toEqual(['/old'])
  })

  test('leads to the origin that was asked for, or to the backend’s own', async () => {
    const asked = await keeper(leading('http://shop.test/new'))
    expect(await (await balance([asked]).fetch('http://shop.test/old')).text()).toBe('found GET /new')
    const own = await keeper((request, response) => leading(`http://${request.headers.host}/new`)(request, response))
    expect(await (await balance([own]).fetch('/old')).text()).toBe('found GET /new')
  })

  test.each([
    ['another host', 'http://elsewhere.test/new'],
    ['another host without a scheme', '//elsewhere.test/new'],
    ['the same host over TLS', 'https://shop.test/new'],
    ['credentials', 'http://me:secret@shop.test/new'],
    ['another scheme', 'file:///etc/passwd'],
    ['no URL', 'http://:::'],
    ['a way out of the base path', '%2e%2e%2fx'],
  ])('that leads to %s is returned as it is', async (_, location) => {
    const backend = await keeper(leading(location))
    const response = await balance([backend]).fetch('http://shop.test/old')
    expect([response.status, response.headers.get('location'), response.redirected]).toEqual([302, location, false])
    expect(await response.text()).toBe('moved')
    expect(backend.got).toHaveLength(1)
  })

  test.each([
    ['/base/new', '/base/new'],
    ['new', '/base/new'],
    ['/base', '/base/'],
    ['/bases/new', undefined],
    ['/new', undefined],
    ['../new', undefined],
  ])('to %s stays within the backend’s base path', async (location, path) => {
    const backend = await keeper(leading(location))
    const response = await balance([`${backend.url}/base`]).fetch('/old')
    expect(await response.text()).toBe(path === undefined ? 'moved' : `found GET ${path}`)
  })

  test('without a Location is an answer', async () => {
    const backend = await keeper((_, response) => response.writeHead(302).end('nowhere'))
    expect(await (await balance([backend]).fetch('/')).text()).toBe('nowhere')
  })

  test('with a body that is too large to be kept is returned as it is', async () => {
    const backend = await upstream(async (request, response) => {
      for await (const _ of request);
      response.writeHead(307, { location: '/new' }).end('moved')
    })
    const body = Readable.from([Buffer.alloc(MIB)])
    const response = await balance([backend]).fetch('/old', { method: 'POST', body: body as never })
    expect([response.status, await response.text()]).toEqual([307, 'moved'])
  })

  test('that comes while the body is still being sent gives that connection up', async () => {
    const backend = await rawUpstream(async (wire, number) => {
      await wire.until('\r\n\r\n')
      if (number > 0) return wire.write(OK)
      wire.write('HTTP/1.1 303 See Other\r\nlocation: /new\r\ncontent-length: 0\r\n\r\n')
    })
    let isLetGo = false
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new Uint8Array(3)),
      cancel() {
        isLetGo = true
      },
    })
    const response = await balance([backend]).fetch('/old', { method: 'POST', body })
    expect(await response.text()).toBe('ok')
    expect((await backend.wire(1)).received).toMatch(/^GET \/new /)
    const first = await backend.wire()
    await first.closed()
    expect(first.received).not.toMatch(/\r\n0\r\n\r\n$/)
    await until(() => isLetGo, 'the source was not let go')
  })

  test('is followed twenty times, and no more', async () => {
    let asked = 0
    const backend = await keeper((_, response) => {
      asked++
      response.writeHead(asked % 22 === 21 ? 200 : 302, { location: '/again' }).end()
    })
    const { fetch } = balance([backend])
    expect((await fetch('/')).status).toBe(200)
    expect(asked).toBe(21)
    await assert.rejects(fetch('/'), { code: 'PROTOCOL', message: 'more than 20 redirects' })
  })

  test.each(['manual', 'error', 'elsewhere'])('with redirect %s', async (redirect) => {
    const backend = await keeper(leading('/new'))
    const balancer = balance([backend])
    const asked = balancer.fetch('/old', { redirect: redirect as 'manual' })
    if (redirect === 'manual') expect((await asked).status).toBe(302)
    else await expect(asked).rejects.toBeInstanceOf(redirect === 'error' ? BalancerError : TypeError)
    if (redirect === 'error') await assert.rejects(balancer.fetch(new Request('http://a.test/old', { redirect })))
  })

  test('is followed under the same signal', async () => {
    const abort = new AbortController()
    const backend = await upstream((request, response) => {
      if (request.url === '/new') return abort.abort(new Error('enough'))
      leading('/new')(request, response)
    })
    const balancer = balance([backend])
    await assert.rejects(balancer.fetch('/old', { signal: abort.signal }), { message: 'enough' })
    await idle(balancer)
  })
})

describe('an encoded answer', () => {
  const text = 'hello, '.repeat(20_000)
  const encodings: readonly (readonly [name: string, bytes: Uint8Array])[] = [
    ['gzip', gzipSync(text)],
    ['X-GZIP', gzipSync(text)],
    ['deflate', deflateSync(text)],
    ['deflate', deflateRawSync(text)],
    ['br', brotliCompressSync(text)],
    ['zstd', zstdCompressSync(text)],
    ['gzip, br', brotliCompressSync(gzipSync(text))],
  ]

  test.each(encodings)('%s is decoded, however it is read', async (name, bytes) => {
    const backend = await keeper((_, response) => response.writeHead(200, { 'content-encoding': name }).end(bytes))
    const { fetch } = balance([backend])
    expect(await (await fetch('/')).text()).toBe(text)
    expect(Buffer.from(await (await fetch('/')).arrayBuffer()).toString()).toBe(text)
    expect(await (await (await fetch('/')).blob()).text()).toBe(text)
    expect(await (await fetch('/')).clone().text()).toBe(text)
    const response = await fetch('/')
    expect(response.headers.get('content-encoding')).toBe(name)
    let read = ''
    for await (const chunk of response.body!) read += Buffer.from(chunk)
    expect(read).toBe(text)
  })

  test('is asked for by nobody but the caller', async () => {
    const backend = await keeper()
    const { fetch } = balance([backend])
    await fetch('/')
    await fetch('/', { headers: { 'accept-encoding': 'br' } })
    expect(backend.got.map(({ headers }) => headers['accept-encoding'])).toEqual([undefined, 'br'])
  })

  test('that nobody knows, has no body, or is empty is left alone', async () => {
    const backend = await keeper((request, response) => {
      response.writeHead(request.url === '/304' ? 304 : 200, {
        'content-encoding': request.url === '/odd' ? 'gzip, odd' : 'gzip',
      })
      response.end(request.url === '/odd' ? 'as it is' : '')
    })
    const { fetch } = balance([backend])
    expect(await (await fetch('/odd')).text()).toBe('as it is')
    expect(await (await fetch('/')).text()).toBe('')
    expect(await (await fetch('/304')).text()).toBe('')
    expect(await (await fetch('/', { method: 'HEAD' })).text()).toBe('')
  })

  test.each([
    ['no gzip', Buffer.from('plain')],
    ['half of one', gzipSync(text).subarray(0, 100)],
  ])('that is %s fails for its reader', async (_, bytes) => {
    const backend = await keeper((_, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end(bytes))
    const balancer = balance([backend])
    await assert.rejects((await balancer.fetch('/')).text(), { code: 'PROTOCOL' })
    const { body } = await balancer.fetch('/')
    await assert.rejects(async () => {
      for await (const _ of body!);
    }, BalancerError)
  })

  test.each([1, 400_000])(
    'that ends before the body does is whole, and %i zeros behind it hold nobody',
    async (more) => {
      const backend = await upstream((_, response) => {
        response.writeHead(200, { 'content-encoding': 'gzip' })
        response.write(gzipSync(text))
        response.write(Buffer.alloc(more)) // and never an end
      })
      const balancer = balance([backend], { timeouts: { idleMs: 0 } })
      assert.equal(await (await balancer.fetch('/')).text(), String(text))
      await idle(balancer)
    },
  )

  test('under too many codings is refused', async () => {
    const codings = Array.from({ length: 6 }, () => 'gzip').join(', ')
    const backend = await keeper((_, response) => response.writeHead(200, { 'content-encoding': codings }).end('x'))
    await assert.rejects(balance([backend]).fetch('/'), { code: 'PROTOCOL' })
  })

  test('that is cut is cut for its reader', async () => {
    const bytes = gzipSync(text)
    const backend = await upstream((_, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' })
      response.write(bytes.subarray(0, 50))
      setTimeout(() => response.destroy(), 20)
    })
    await assert.rejects((await balance([backend]).fetch('/')).text(), { code: 'TRUNCATED' })
  })

  test('is decoded no faster than it is read, and let go of', async () => {
    const bomb = gzipSync(Buffer.alloc(256 * MIB))
    const backend = await keeper((_, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb))
    const balancer = balance([backend])
    const before = process.memoryUsage().arrayBuffers
    const reader = (await balancer.fetch('/')).body!.getReader()
    await reader.read()
    await new Promise((resolve) => setTimeout(resolve, 50))
    assert.ok(process.memoryUsage().arrayBuffers - before < 32 * MIB, 'all of it was decoded')
    await reader.cancel()
    await idle(balancer)
  })
})
