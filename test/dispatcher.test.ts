import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { type Duplex, PassThrough, Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline as pump } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { type Balancer, BalancerError, createBalancer, memory } from 'evenkeel'
import * as undici from 'undici'
import { Dispatcher, errors, interceptors } from 'undici'
import { describe, expect, test } from 'vitest'
import {
  balance,
  idle,
  inflight,
  keeper,
  kept,
  MIB,
  nobody,
  OK,
  rawUpstream,
  says,
  until,
  upstream,
} from './support/upstreams.ts'

/** What a handler was told, in order. */
class Recorder implements Dispatcher.DispatchHandler {
  readonly told: string[] = []
  readonly #act: Partial<Record<string, (controller: Dispatcher.DispatchController) => void>>
  controller: Dispatcher.DispatchController | undefined
  error: unknown

  constructor(act: Partial<Record<string, (controller: Dispatcher.DispatchController) => void>> = {}) {
    this.#act = act
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller
    this.#note('start', 'start')
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number): void {
    this.#note(`head ${status}`, 'head')
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    assert.ok(Buffer.isBuffer(chunk))
    this.#note(`data ${chunk.length < 20 ? chunk : chunk.length}`, 'data')
  }

  onResponseEnd(_: Dispatcher.DispatchController, trailers: Record<string, unknown>): void {
    this.#note(`end ${JSON.stringify(trailers)}`, 'end')
  }

  onResponseError(_: Dispatcher.DispatchController | null, error: Error): void {
    this.error = error
    this.#note('error', 'error')
  }

  async over(): Promise<readonly string[]> {
    await until(() => this.told.some((line) => /^(end|error)/.test(line)), 'the handler was never told of an end')
    return this.told
  }

  #note(line: string, stage: string): void {
    this.told.push(line)
    this.#act[stage]?.(this.controller!)
  }
}

const GET = { path: '/', method: 'GET' } as const
const chunked = (...parts: string[]): string =>
  `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${parts.map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('')}`

describe('a dispatcher for undici', () => {
  test('is one of its own, and the same until it is closed', async () => {
    const balancer = balance([await keeper()])
    const { dispatcher } = balancer
    assert.ok(dispatcher instanceof Dispatcher)
    assert.equal(balancer.dispatcher, dispatcher)
    await dispatcher.close()
    assert.notEqual(balancer.dispatcher, dispatcher)
    assert.equal((await balancer.dispatcher.request(GET)).statusCode, 200)
  })

  test('serves request: the origin is the balancer’s to choose', async () => {
    const backends = [await keeper(), await keeper()]
    const { dispatcher } = balance(backends, { strategy: 'round-robin' })
    for (let i = 0; i < 2; i++) {
      const url = 'http://anywhere.test/a/b?x=1'
      const { statusCode, headers, body } = await undici.request(url, { dispatcher, headers: { 'x-n': '1' } })
      assert.deepEqual([statusCode, headers['content-length'], await body.text()], [200, '2', 'ok'])
    }
    for (const { got, url } of backends) {
      assert.equal(got[0]!.path, '/a/b?x=1')
      assert.equal(got[0]!.headers['x-n'], '1')
      assert.equal(got[0]!.headers.host, new URL(url).host)
    }
  })

  test('serves requests without an origin, with a query, and headers in every shape', async () => {
    const backend = await keeper()
    const { dispatcher } = balance([backend])
    const shapes = [
      { 'X-A': ['1', '2'] },
      ['X-A', '1', 'x-a', '2'],
      new Map([['X-A', ['1', '2']]]),
      { 'x-a': '1, 2', host: 'h', te: 'x' },
    ]
    for (const headers of shapes) {
      const { body } = await dispatcher.request({
        path: '/p',
        method: 'GET',
        query: { a: [1, 'é &'], b: true },
        headers: headers as never,
      })
      await body.dump()
    }
    for (const { path, headers } of backend.got) {
      assert.equal(path, '/p?a=1&a=%C3%A9%20%26&b=true')
      assert.equal(headers['x-a'], '1, 2')
      assert.equal(headers.te, undefined)
    }
    assert.equal(backend.got.length, shapes.length)
  })

  test('sends every kind of body', async () => {
    const backend = await keeper()
    const { dispatcher } = balance([backend])
    const form = new undici.FormData()
    form.set('a', 'b')
    const global = new FormData()
    global.set('a', 'b')
    const bodies: readonly (readonly [body: unknown, sent: RegExp, type?: RegExp])[] = [
      ['text', /^text$/],
      [Buffer.from('buffer'), /^buffer$/],
      [new Uint16Array([0x4141]), /^AA$/],
      [new TextEncoder().encode('memory').buffer, /^memory$/],
      [Readable.from(['str', 'eam']), /^stream$/],
      [new Blob(['blob']).stream(), /^blob$/],
      [['it', Buffer.from('erable')], /^iterable$/],
      [
        (async function* () {
          yield 'async'
        })(),
        /^async$/,
      ],
      [new Blob(['blob'], { type: 'text/css' }), /^blob$/, /^text\/css$/],
      [form, /name="a"/, /^multipart\/form-data; boundary=/],
      [global, /name="a"/, /^multipart\/form-data; boundary=/],
      [null, /^$/],
    ]
    for (const [body] of bodies)
      await (await dispatcher.request({ path: '/', method: 'POST', body: body as never })).body.dump()
    for (const [i, [, sent, type]] of bodies.entries()) {
      assert.match(String(backend.got[i]!.body), sent)
      if (type === undefined) assert.equal(backend.got[i]!.headers['content-type'], undefined)
      else assert.match(backend.got[i]!.headers['content-type']!, type)
    }
  })

  test('a told length goes with a stream, and one that is wrong fails', async () => {
    const backend = await keeper()
    const { dispatcher } = balance([backend])
    const ask = (length: number): Promise<Dispatcher.ResponseData> =>
      dispatcher.request({
        path: '/',
        method: 'PUT',
        body: Readable.from(['four']),
        headers: { 'content-length': String(length) },
      })
    await (await ask(4)).body.dump()
    assert.equal(backend.got[0]!.headers['content-length'], '4')
    assert.equal(backend.got[0]!.headers['transfer-encoding'], undefined)
    await assert.rejects(ask(5), { code: 'PROTOCOL' })
  })

  test('serves stream and pipeline', async () => {
    const backend = await upstream((request, response) => void request.pipe(response))
    const { dispatcher } = balance([backend])
    const sink = new PassThrough()
    const [got] = await Promise.all([
      text(sink),
      dispatcher.stream({ path: '/', method: 'POST', body: 'streamed' }, () => sink),
    ])
    assert.equal(got, 'streamed')
    let bytes = 0
    await pump(
      Readable.from(Array.from({ length: 64 }, () => Buffer.alloc(65_536, 'x'))),
      dispatcher.pipeline({ path: '/', method: 'POST' }, ({ body }) => body),
      new Writable({
        write(chunk, _, done) {
          bytes += chunk.length
          setImmediate(done)
        },
      }),
    )
    assert.equal(bytes, 4 * MIB)
  })

  test('serves fetch, decoded and with Set-Cookie apart', async () => {
    const backend = await upstream((request, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip', 'set-cookie': ['a=1', 'b=2'] })
      response.end(gzipSync(`hello ${request.method}`))
    })
    const { dispatcher } = balance([backend])
    const response = await undici.fetch('http://any.test/x', {
      dispatcher,
      method: 'POST',
      body: new URLSearchParams('a=b'),
    })
    assert.deepEqual(response.headers.getSetCookie(), ['a=1', 'b=2'])
    assert.equal(response.url, 'http://any.test/x')
    assert.equal(await response.text(), 'hello POST')
  })

  test('hands an upgrade over; a refused one fails', async () => {
    const backend = await upstream((_, response) => void response.writeHead(426).end())
    backend.server.on('upgrade', (request, socket: Duplex) => {
      if (request.url !== '/')
        return void socket.end('HTTP/1.1 426 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n')
      socket.write('HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n')
      socket.pipe(socket)
    })
    const { dispatcher } = balance([backend])
    const { socket, headers } = await dispatcher.upgrade({ path: '/', protocol: 'echo' })
    assert.equal(headers.upgrade, 'echo')
    socket.write('there and back')
    assert.equal(String((await once(socket, 'data'))[0]), 'there and back')
    socket.end()
    await assert.rejects(dispatcher.upgrade({ path: '/no', protocol: 'echo' }), { message: 'bad upgrade' })
  })

  test('CONNECT, an old handler, a wrong method, header list, path or query is refused', async () => {
    const backend = await keeper()
    const { dispatcher } = balance([backend])
    await assert.rejects(dispatcher.connect({ path: 'a:1', origin: 'http://a' }), { code: 'PROTOCOL' })
    assert.throws(() => dispatcher.dispatch(GET, { onConnect() {} } as never), errors.InvalidArgumentError)
    assert.throws(() => dispatcher.dispatch(GET, undefined as never), errors.InvalidArgumentError)
    const wrong = [
      { method: 5 },
      { path: 5 },
      { path: '/../x' },
      { headers: ['a'] },
      { headers: 5 },
      { path: '/?a', query: { b: 1 } },
    ]
    for (const one of wrong) await assert.rejects(dispatcher.request({ ...GET, ...(one as object) }))
    assert.equal(backend.got.length, 0)
  })

  test('an origin that is none is not repeated: it may hold a password', async () => {
    const { dispatcher } = balance([await keeper()])
    const error = await undici
      .request('http://a.test', {
        dispatcher: dispatcher.compose(
          (dispatch) => (options, handler) => dispatch({ ...options, origin: 'http://me:secret@a.test:bad' }, handler),
        ),
      })
      .catch((error: unknown) => error)
    assert.ok(error instanceof TypeError)
    assert.deepEqual([error.message, 'input' in error], ['Failed to parse URL', false])
  })

  test('only allowed origins are taken', async () => {
    const { dispatcher } = balance([await keeper()], { origins: ['http://good.test'] })
    assert.equal((await undici.request('http://good.test/', { dispatcher })).statusCode, 200)
    await assert.rejects(undici.request('http://bad.test/', { dispatcher }), { code: 'CONFIG' })
    await assert.rejects(dispatcher.request({ ...GET, path: 'http://bad.test/x' }), { code: 'CONFIG' })
  })
})

describe('what a handler is told', () => {
  test('comes in order, with 1xx before the head and trailers behind the body', async () => {
    const bytes = `HTTP/1.1 103 Early Hints\r\n\r\n${chunked('one', 'two')}0\r\nX-Sum: 7\r\n\r\n`
    const { dispatcher } = balance([await rawUpstream(says(bytes))])
    const recorder = new Recorder()
    assert.equal(dispatcher.dispatch(GET, recorder), true)
    const told = (await recorder.over()).join('; ').replace('data one; data two', 'data onetwo')
    assert.match(told, /^start; head 103; head 200; data one.*two; end {"x-sum":"7"}$/)
  })

  test.each([
    ['at the start', 'start', ['start', 'error']],
    ['at the head', 'head', ['start', 'head 200', 'error']],
    ['in the body', 'data', ['start', 'head 200', 'data some', 'error']],
  ])('an abort %s is told at once, and is the last word', async (_, stage, told) => {
    const balancer = balance([await rawUpstream(says(chunked('some')))])
    const reason = new Error('enough')
    const recorder = new Recorder({ [stage]: (controller: Dispatcher.DispatchController) => controller.abort(reason) })
    balancer.dispatcher.dispatch(GET, recorder)
    assert.deepEqual(await recorder.over(), told)
    assert.equal(recorder.error, reason)
    assert.deepEqual([recorder.controller!.aborted, recorder.controller!.reason], [true, reason])
    await idle(balancer)
    recorder.controller!.abort(new Error('again'))
    assert.deepEqual(recorder.told, told)
  })

  test.each(['start', 'head', 'data', 'end'])(
    'a handler that throws at its %s hears that, and the call is over',
    async (stage) => {
      const balancer = balance([await rawUpstream(says(`${chunked('some')}0\r\n\r\n`))])
      const thrown = new Error('thrown')
      const recorder = new Recorder({
        [stage]: () => {
          throw thrown
        },
      })
      balancer.dispatcher.dispatch(GET, recorder)
      await until(() => recorder.error !== undefined, 'it was not told')
      assert.equal(recorder.error, thrown)
      assert.equal(recorder.told.at(-1), 'error')
      await idle(balancer)
    },
  )

  test('an abort while connecting, waiting or before the head frees its place', async () => {
    const balancer = balance([await rawUpstream(() => {})], { undici: { connections: 1 } })
    for (let i = 0; i < 3; i++) {
      const signals = [new AbortController(), new AbortController()]
      const requests = signals.map(({ signal }) => balancer.dispatcher.request({ ...GET, signal }))
      const rejections = requests.map((request) => assert.rejects(request, { name: 'AbortError' }))
      if (i > 0) await new Promise((resolve) => setTimeout(resolve, 5 * i))
      for (const signal of signals) signal.abort()
      await Promise.all(rejections)
      await idle(balancer)
    }
  })

  test('a pause holds the backend back, at the head as in the body', async () => {
    let written = 0
    const backend = await upstream((_, response) => {
      const more = (): void => {
        while (written < 64 * MIB && response.write(Buffer.alloc(65_536))) written += 65_536
        if (written < 64 * MIB) response.once('drain', more)
        else response.end()
      }
      more()
    })
    const { dispatcher } = balance([backend])
    const recorder = new Recorder({
      head: (controller) => controller.pause(),
      data: (controller) => controller.pause(),
    })
    dispatcher.dispatch(GET, recorder)
    await until(() => recorder.told.includes('head 200'), 'no head')
    await new Promise((resolve) => setTimeout(resolve, 50))
    assert.deepEqual(recorder.told, ['start', 'head 200'])
    recorder.controller!.resume()
    await until(() => recorder.told.length > 2, 'it did not go on')
    await new Promise((resolve) => setTimeout(resolve, 50))
    assert.ok(written < 32 * MIB, `${written} bytes were taken from the backend`)
    recorder.controller!.abort(new Error('enough'))
    await recorder.over()
  })

  test('a failure is the balancer’s error, and a retry is not the handler’s to see', async () => {
    const { dispatcher } = balance([await nobody()], { retry: { attempts: 1 } })
    const recorder = new Recorder()
    dispatcher.dispatch(GET, recorder)
    assert.deepEqual(await recorder.over(), ['start', 'error'])
    assert.ok(recorder.error instanceof BalancerError)
    assert.equal(recorder.error.code, 'CONNECT')
    const retried = balance([await nobody(), await keeper()], { strategy: 'round-robin' })
    for (let i = 0; i < 4; i++) assert.equal((await retried.dispatcher.request(GET)).statusCode, 200)
  })

  test('a cut body is an error behind its chunks', async () => {
    const backend = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write(chunked('some'))
      setTimeout(() => wire.socket.resetAndDestroy(), 20)
    })
    const recorder = new Recorder()
    balance([backend]).dispatcher.dispatch(GET, recorder)
    assert.deepEqual(await recorder.over(), ['start', 'head 200', 'data some', 'error'])
  })
})

describe('the options of a call', () => {
  test('come with a request, with a dispatcher made by `with`, and from undici’s own', async () => {
    const backends = { a: { body: 'a' }, b: { body: 'b', headMs: 1_000 } }
    const balancer = kept(
      createBalancer({
        backends: [
          { url: 'http://a.test', id: 'a' },
          { url: 'http://b.test', id: 'b' },
        ],
        transport: memory(backends),
        retry: { attempts: 1 },
      }),
    )
    const { dispatcher } = balancer
    const only = { ...GET, balancer: { only: 'a' } }
    for (let i = 0; i < 3; i++) assert.equal(await (await dispatcher.request(only)).body.text(), 'a')
    const bound = dispatcher.with({ only: 'b' })
    await assert.rejects(bound.request({ ...GET, headersTimeout: 20 }), { code: 'TIMEOUT' })
    assert.equal(await (await undici.fetch('http://x.test', { dispatcher: bound })).text(), 'b')
    await assert.rejects(dispatcher.request({ ...GET, balancer: { pool: 'none' } } as never), { code: 'CONFIG' })
  })
})

describe('interceptors', () => {
  async function answering(...statuses: number[]): Promise<{ balancer: Balancer; asked: string[] }> {
    const asked: string[] = []
    const backend = await upstream((request, response) => {
      asked.push(request.url!)
      const status = statuses.shift() ?? 200
      response.writeHead(status, status === 302 ? { location: '/next' } : {}).end(`said ${status}`)
    })
    return { balancer: balance([backend], { retry: { attempts: 1 } }), asked }
  }

  test('redirect', async () => {
    const { balancer, asked } = await answering(302, 200)
    const dispatcher = balancer.dispatcher.compose(interceptors.redirect({ maxRedirections: 3 }))
    const { body } = await undici.request('http://any.test/first', { dispatcher })
    assert.equal(await body.text(), 'said 200')
    assert.deepEqual(asked, ['/first', '/next'])
  })

  test('retry', async () => {
    const { balancer, asked } = await answering(500, 200)
    const dispatcher = balancer.dispatcher.compose(
      interceptors.retry({ maxRetries: 2, minTimeout: 1, statusCodes: [500] }),
    )
    const { statusCode, body } = await dispatcher.request({ ...GET, origin: 'http://any.test' })
    assert.deepEqual([statusCode, await body.text(), asked.length], [200, 'said 200', 2])
  })

  test('dump, decompress and responseError', async () => {
    const { balancer } = await answering(200, 200, 404)
    const dumping = balancer.dispatcher.compose(interceptors.dump())
    assert.equal(await (await dumping.request({ ...GET, origin: 'http://any.test' })).body.text(), '')
    const decompressing = balancer.dispatcher.compose(interceptors.decompress())
    assert.equal(await (await decompressing.request({ ...GET, origin: 'http://any.test' })).body.text(), 'said 200')
    const failing = balancer.dispatcher.compose(interceptors.responseError())
    await assert.rejects(failing.request({ ...GET, origin: 'http://any.test' }), { statusCode: 404 })
  })
})

describe('close and destroy', () => {
  test('closing waits for what goes through it, and leaves the balancer open', async () => {
    const backend = await rawUpstream(() => {})
    const balancer = balance([backend])
    const { dispatcher } = balancer
    const answer = dispatcher.request(GET)
    let isClosed = false
    const closed = dispatcher.close().then(() => {
      isClosed = true
    })
    await assert.rejects(dispatcher.request(GET), errors.ClientClosedError)
    const wire = await backend.wire()
    await wire.until('\r\n\r\n')
    assert.equal(isClosed, false)
    wire.write(OK)
    assert.equal(await (await answer).body.text(), 'ok')
    await closed
    await dispatcher.close() // once more
    await new Promise<void>((resolve) => dispatcher.close(resolve))
    const other = balancer.dispatcher.request(GET)
    await wire.until((received) => received.split('GET').length === 3)
    wire.write(OK)
    assert.equal((await other).statusCode, 200)
  })

  test('destroying ends what goes through it, with the reason given', async () => {
    const balancer = balance([await rawUpstream(() => {})])
    for (const reason of [undefined, new Error('over')]) {
      const { dispatcher } = balancer
      const answer = assert.rejects(dispatcher.request(GET), reason ?? errors.ClientDestroyedError)
      await (reason === undefined ? dispatcher.destroy() : dispatcher.destroy(reason))
      await answer
      assert.equal(inflight(balancer), 0)
      await assert.rejects(dispatcher.request(GET), errors.ClientDestroyedError)
      await assert.rejects(dispatcher.close(), errors.ClientDestroyedError)
      await new Promise<void>((resolve) => dispatcher.destroy(resolve))
    }
  })

  test('dispatch says when it has enough, and "drain" when it takes more', async () => {
    const { dispatcher } = balance([await rawUpstream(() => {})])
    const recorders = Array.from({ length: 1_000 }, () => new Recorder())
    const takes = recorders.map((recorder) => dispatcher.dispatch(GET, recorder))
    assert.deepEqual([takes.at(-2), takes.at(-1)], [true, false])
    const drained = once(dispatcher, 'drain')
    recorders[0]!.controller!.abort(new Error('enough'))
    await drained
    const one = new Recorder()
    assert.equal(dispatcher.dispatch(GET, one), false)
    for (const { controller } of [...recorders, one]) controller!.abort(new Error('enough'))
  })

  test('a stream that fails before anybody reads it does not end the process', async () => {
    const { dispatcher } = balance([await rawUpstream(() => {})], { undici: { connections: 1 } })
    const held = new Recorder()
    dispatcher.dispatch(GET, held)
    const body = new PassThrough()
    const recorder = new Recorder()
    dispatcher.dispatch({ path: '/', method: 'POST', body }, recorder)
    body.destroy(new Error('disk on fire'))
    await new Promise((resolve) => setImmediate(resolve))
    held.controller!.abort(new Error('enough'))
    await recorder.over()
    assert.equal(recorder.told.at(-1), 'error')
  })
})

test('as the global dispatcher it serves fetch, the package’s and the platform’s', async () => {
  const backend = await keeper()
  const script = `
    import { fetch as packaged, setGlobalDispatcher, request } from 'undici'
    import { createBalancer } from 'evenkeel'
    const balancer = createBalancer({ backends: ['${backend.url}'] })
    setGlobalDispatcher(balancer.dispatcher)
    for (const fetch of [packaged, globalThis.fetch]) {
      const response = await fetch('http://nowhere.test/x', { method: 'POST', body: 'sent' })
      console.log(response.status, await response.text())
    }
    console.log((await request('http://nowhere.test/y')).statusCode)
    await balancer.close()`
  const root = fileURLToPath(new URL('..', import.meta.url))
  const args = [
    '--disable-warning=ExperimentalWarning',
    '--import',
    './scripts/from-source.mjs',
    '--input-type=module',
    '-e',
    script,
  ]
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root })
  assert.equal(stdout, '200 ok\n200 ok\n200\n')
  expect(backend.got.map(({ path, body }) => `${path} ${body}`)).toEqual(['/x sent', '/x sent', '/y '])
})
