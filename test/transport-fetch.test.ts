import assert from 'node:assert/strict'
import { once } from 'node:events'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import { type Balancer, BalancerError, type FetchLike, fetchTransport } from 'evenkeel'
import { transportContract } from 'evenkeel/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { CERT, KEY } from './support/tls.ts'
import { ask, balance, front, idle, keeper, nobody, rawUpstream, says, until } from './support/upstreams.ts'

describe('the fetch transport keeps the contract', () => {
  const cases = transportContract(() => fetchTransport(), {
    forget: false,
    trailers: false,
    informational: false,
    waits: false,
    upgrade: false,
  })
  for (const { name, run } of cases) test(name, run)
})

const overFetch = ({ url }: { readonly url: string }, fetch?: FetchLike): Balancer =>
  balance([url], { transport: fetchTransport(fetch), retry: { attempts: 1 } })

describe('over fetch', () => {
  test('a redirect is handed over as it is', async () => {
    const backend = await keeper((_, response) => response.writeHead(302, { location: '/next' }).end('moved'))
    const answer = await overFetch(backend).request('/')
    assert.deepEqual([answer.statusCode, answer.headers.location], [302, '/next'])
    assert.equal(await answer.body.text(), 'moved')
    assert.equal(backend.got.length, 1)
  })

  test('who accepts no coding gets none; of those accepted only what fetch takes off is asked for', async () => {
    const backend = await keeper()
    const { request } = overFetch(backend)
    for (const accepted of [undefined, 'zstd, gzip;q=0.5, *', 'zstd']) {
      await request('/', { headers: accepted === undefined ? {} : { 'accept-encoding': accepted } })
    }
    assert.deepEqual(
      backend.got.map(({ headers }) => headers['accept-encoding']),
      ['identity', 'gzip;q=0.5', 'identity'],
    )
  })

  test('an encoded answer comes decoded, through the proxy too, and one to HEAD keeps its fields', async () => {
    const zipped = gzipSync('plain text')
    const backend = await keeper((request, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': zipped.length })
      response.end(request.method === 'HEAD' ? undefined : zipped)
    })
    const proxy = await front(overFetch(backend))
    const got = await ask(proxy, '/', { headers: { 'accept-encoding': 'gzip' } })
    assert.equal(String(got.body), 'plain text')
    assert.equal(got.headers['content-encoding'], undefined)
    const head = await ask(proxy, '/', { method: 'HEAD', headers: { 'accept-encoding': 'gzip' } })
    assert.equal(head.headers['content-encoding'], 'gzip')
    assert.equal(head.headers['content-length'], String(zipped.length))
  })

  test('repeats of Set-Cookie stay apart, and Host is the backend’s', async () => {
    const backend = await keeper((_, response) => response.writeHead(200, { 'set-cookie': ['a=1', 'b=2'] }).end())
    const { headers } = await ask(await front(overFetch(backend), { host: 'preserve' }), '/', {
      headers: { host: 'other' },
    })
    assert.deepEqual(headers['set-cookie'], ['a=1', 'b=2'])
    assert.equal(backend.got[0]!.headers.host, new URL(backend.url).host)
  })

  test('a path that could end the authority goes nowhere', async () => {
    const backend = await keeper()
    const { response } = overFetch(backend).send({ method: 'GET', path: '@127.0.0.1:9/', headers: [], body: null })
    await assert.rejects(response, { code: 'PROTOCOL' })
    assert.equal(backend.got.length, 0)
  })

  test("what fetch refuses to send is the request's fault", async () => {
    const balancer = overFetch(await keeper())
    for (const wrong of [{ headers: ['a b', '1'] }, { method: 'TRACE' }, { path: '*' }, { body: new Uint8Array(1) }]) {
      const { response } = balancer.send({ method: 'GET', path: '/', headers: [], body: null, ...wrong })
      await assert.rejects(response, { code: 'PROTOCOL' })
    }
    assert.equal(balancer.stats().pools.default!.backends[0]!.classes.request, 4)
  })

  test('a refused connection is known to have carried nothing, and goes elsewhere, even a POST', async () => {
    const good = await keeper()
    const balancer = balance([await nobody(), good], { transport: fetchTransport(), strategy: 'round-robin' })
    for (let i = 0; i < 4; i++) assert.equal((await balancer.fetch('/', { method: 'POST' })).status, 200)
  })

  test('a certificate nobody trusts is a failure of TLS', async () => {
    const server = https.createServer({ cert: CERT, key: KEY }, (_, response) => response.end()).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const url = `https://localhost:${(server.address() as AddressInfo).port}`
    await assert.rejects(overFetch({ url }).fetch('/'), { code: 'TLS' })
  })

  test('a call that is cancelled in its tick never reaches fetch', async () => {
    let asked = 0
    const balancer = overFetch(await keeper(), async () => {
      asked++
      return new Response()
    })
    const { call, response } = balancer.send({ method: 'GET', path: '/', headers: [], body: null })
    call.cancel(new Error('at once'))
    await assert.rejects(response, { message: 'at once' })
    await idle(balancer)
    assert.equal(asked, 0)
  })

  test('a fetch that heeds no signal is let go of all the same', async () => {
    const { promise, resolve } = Promise.withResolvers<Response>()
    const balancer = overFetch(await keeper(), () => promise)
    const { call, response } = balancer.send({ method: 'GET', path: '/', headers: [], body: null })
    await Promise.resolve()
    await Promise.resolve()
    call.cancel(new Error('enough'))
    await assert.rejects(response, { message: 'enough' })
    let isCancelled = false
    resolve(
      new Response(
        new ReadableStream({
          cancel() {
            isCancelled = true
          },
        }),
      ),
    )
    await until(() => isCancelled, 'the late answer was kept')
  })

  test('a fetch that throws, rejects with anything or hides a redirect fails the call', async () => {
    const backend = await keeper()
    const failing: readonly FetchLike[] = [
      () => {
        throw new Error('at once')
      },
      () => Promise.reject(undefined),
      () => Promise.resolve(Response.error()), // its status is 0
    ]
    for (const fetch of failing) {
      const error: unknown = await overFetch(backend, fetch)
        .fetch('/')
        .catch((met: unknown) => met)
      expect(error).toBeInstanceOf(BalancerError)
    }
  })

  test('what `init` gives goes to fetch, but for what the transport says itself', async () => {
    const backend = await keeper()
    const inits: RequestInit[] = []
    const fetch: FetchLike = (url, init) => {
      inits.push(init)
      return globalThis.fetch(url, init)
    }
    const transport = fetchTransport(fetch, {
      init: ({ id }) => ({ keepalive: true, method: 'PUT', integrity: '', id }),
    })
    const { request } = balance([backend], { transport })
    await request('/x')
    expect(inits[0]).toMatchObject({
      keepalive: true,
      method: 'GET',
      redirect: 'manual',
      id: new URL(backend.url).host,
    })
  })

  test('a stream of known length goes out with it', async () => {
    const backend = await keeper()
    const { fetch } = overFetch(backend)
    await fetch('/', { method: 'PUT', body: new Blob(['four']) })
    const { headers, body } = backend.got[0]!
    assert.deepEqual([headers['content-length'], headers['transfer-encoding'], String(body)], ['4', undefined, 'four'])
  })

  test.each<[string, () => unknown]>([
    ['no Response', () => undefined],
    [
      'one whose body somebody else reads',
      () => {
        const response = new Response('ok')
        response.body!.getReader()
        return response
      },
    ],
  ])('%s is a failed attempt', async (_, make) => {
    const balancer = overFetch({ url: 'http://a.test' }, async () => make() as Response)
    await assert.rejects(balancer.request('/'), BalancerError)
    await idle(balancer)
  })

  test('closing ends what is under way', async () => {
    const backend = await rawUpstream(says('HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\nsome'))
    const balancer = overFetch(backend)
    const { body } = await balancer.request('/')
    await balancer.close()
    await assert.rejects(body.text())
  })
})
