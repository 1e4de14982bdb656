import { once } from 'node:events'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { createBalancer, prequal } from 'evenkeel'
import { type LoadReport, type LoadReportOptions, loadReport } from 'evenkeel/load-report'
import { leftovers, manualClock, seededRandom } from 'evenkeel/testing'
import express from 'express'
import fc from 'fast-check'
import fastify from 'fastify'
import { afterEach, describe, expect, test, vi } from 'vitest'

const PROBE = '/lb-probe'
const stops: (() => unknown)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop()
})

interface Site {
  readonly url: string
  readonly port: number
  readonly report: LoadReport
  /** Answers that the handler left open, by path: what ends them. */
  readonly open: Map<string, ServerResponse>
}

/** '/hold…' waits, '/stream' sends a head and waits, '/fail' is a 503; all else is answered at once. */
function play(open: Site['open'], { url }: IncomingMessage, response: ServerResponse): void {
  if (url!.startsWith('/hold')) return void open.set(url!, response)
  if (url === '/stream') {
    open.set(url, response)
    response.write('begun')
    return
  }
  response.statusCode = url === '/fail' ? 503 : 200
  response.end('done')
}

async function listening(server: http.Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stops.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

const SITES: Readonly<Record<string, (options?: LoadReportOptions) => Promise<Site>>> = {
  async 'node:http'(options) {
    const report = loadReport(options)
    const open: Site['open'] = new Map()
    const port = await listening(
      http.createServer(report.listener((request, response) => play(open, request, response))),
    )
    return { url: `http://127.0.0.1:${port}`, port, report, open }
  },
  async 'Express 5'(options) {
    const report = loadReport(options)
    const open: Site['open'] = new Map()
    const app = express()
    app.use(report.middleware)
    app.use((request, response) => play(open, request, response))
    const port = await listening(http.createServer(app))
    return { url: `http://127.0.0.1:${port}`, port, report, open }
  },
  async 'Fastify 5'(options) {
    const report = loadReport(options)
    const open: Site['open'] = new Map()
    const app = fastify()
    await app.register(report.plugin)
    app.get('/*', (request, reply) => {
      reply.hijack()
      play(open, request.raw, reply.raw)
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    stops.push(() => {
      app.server.closeAllConnections()
      return app.close()
    })
    const { port } = app.server.address() as AddressInfo
    return { url: `http://127.0.0.1:${port}`, port, report, open }
  },
}

describe.each(Object.keys(SITES))('reported by %s', (name) => {
  const site = SITES[name]!

  test('is the number of other requests in flight, in every answer and to probes', async () => {
    const { url, open, report } = await site()
    const held = ['/hold/1', '/hold/2'].map((path) => fetch(url + path))
    await vi.waitFor(() => expect(open.size).toBe(2))
    const answer = await fetch(`${url}/`)
    expect(answer.headers.get('x-lb-rif')).toBe('2')
    expect(await answer.text()).toBe('done')
    const probe = await fetch(url + PROBE)
    expect([probe.status, probe.headers.get('x-lb-rif'), probe.headers.get('cache-control')]).toEqual([
      204,
      '2',
      'no-store',
    ])
    for (const response of open.values()) response.end()
    await Promise.all(held.map(async (one) => (await one).text()))
    await vi.waitFor(() => expect(report.inflight).toBe(0))
    expect((await fetch(`${url}${PROBE}?x=1`, { method: 'HEAD' })).headers.get('x-lb-rif')).toBe('0')
  })

  test('counts a stream until its last byte, or until its reader is gone', async () => {
    const { url, open, report } = await site()
    const answer = await fetch(`${url}/stream`)
    expect(answer.headers.get('x-lb-rif')).toBe('0')
    expect(report.inflight).toBe(1)
    open.get('/stream')!.end('over')
    expect(await answer.text()).toBe('begunover')
    await vi.waitFor(() => expect(report.inflight).toBe(0))

    const controller = new AbortController()
    const left = await fetch(`${url}/stream`, { signal: controller.signal })
    expect([left.status, report.inflight]).toEqual([200, 1])
    controller.abort()
    await vi.waitFor(() => expect(report.inflight).toBe(0))
  })

  test('has a latency once something has ended, and failures make it slow', async () => {
    const { url } = await site({ clock: manualClock() })
    expect((await fetch(url + PROBE)).headers.get('x-lb-lat-ms')).toBeNull()
    expect((await fetch(`${url}/`)).headers.get('x-lb-lat-ms')).toBeNull()
    await vi.waitFor(async () => expect((await fetch(url + PROBE)).headers.get('x-lb-lat-ms')).toBe('0.00'))
    for (let i = 0; i < 3; i++) expect((await fetch(`${url}/fail`)).status).toBe(503)
    await vi.waitFor(async () => expect((await fetch(url + PROBE)).headers.get('x-lb-lat-ms')).toBe('1000.00'))
  })
})

test('a path of its own; the default one is then any other', async () => {
  const { url } = await SITES['node:http']!({ path: '/load' })
  expect((await fetch(`${url}/load`)).status).toBe(204)
  expect((await fetch(`${url}/loads`)).status).toBe(200)
  expect((await fetch(url + PROBE)).status).toBe(200)
  expect((await fetch(`${url}/load`, { method: 'POST' })).status).toBe(200)
})

describe('probes of prequal', () => {
  const probe = { headers: { 'x-lb-probe': '1' } }

  test.each(Object.keys(SITES))('are answered behind whatever base path by %s', async (name) => {
    const { url, report } = await SITES[name]!()
    const answer = await fetch(`${url}/api/v1${PROBE}?x=1`, probe)
    expect([answer.status, answer.headers.get('x-lb-rif'), report.inflight]).toEqual([204, '0', 0])
    expect((await fetch(`${url}/api/v1${PROBE}`)).status).toBe(200) // not a probe
  })

  test('go to the application elsewhere, but count neither as requests nor by their time', async () => {
    const seen: number[] = []
    const report = loadReport({ clock: manualClock() })
    const listener = report.listener((_, response) => {
      seen.push(report.inflight)
      response.writeHead(404).end()
    })
    const url = `http://127.0.0.1:${await listening(http.createServer(listener))}`
    const answer = await fetch(`${url}/load`, probe)
    expect([answer.status, answer.headers.get('x-lb-rif')]).toEqual([404, '0'])
    await (await fetch(`${url}/load`, probe)).text()
    expect((await fetch(url + PROBE)).headers.get('x-lb-lat-ms')).toBeNull()
    await fetch(`${url}/load`, { method: 'POST', ...probe })
    expect(seen).toEqual([0, 0, 1])
  })

  test('reach backends with a base path', async () => {
    const sites = await Promise.all(Array.from({ length: 4 }, () => SITES['node:http']!()))
    const warnings: unknown[] = []
    const seen: string[] = []
    const balancer = createBalancer({
      backends: sites.map(({ url }) => `${url}/api`),
      strategy: prequal({ timeoutMs: 600_000 }),
    })
    stops.push(() => balancer.close())
    balancer.on('warning', (error) => warnings.push(error))
    for (let i = 0; i < 20; i++) seen.push(await (await balancer.fetch('/')).text())
    expect([new Set(seen), warnings]).toEqual([new Set(['done']), []])
  })
})

test('a long stream is in flight until its end, but took only until its head', async () => {
  const clock = manualClock()
  const { url, open, report } = await SITES['node:http']!({ clock })
  const answer = await fetch(`${url}/stream`)
  await clock.advance(500)
  const probe = await fetch(url + PROBE)
  expect([probe.headers.get('x-lb-rif'), probe.headers.get('x-lb-lat-ms')]).toEqual(['1', '0.00'])
  open.get('/stream')!.end()
  await answer.text()
  await vi.waitFor(() => expect(report.inflight).toBe(0))
  expect((await fetch(url + PROBE)).headers.get('x-lb-lat-ms')).toBe('0.00')
})

test('what counts for one that takes long is the time until its head', async () => {
  const clock = manualClock()
  const { url, open, report } = await SITES['node:http']!({ clock })
  const answer = fetch(`${url}/hold`)
  await vi.waitFor(() => expect(open.size).toBe(1))
  await clock.advance(300)
  open.get('/hold')!.write('begun')
  await clock.advance(200)
  open.get('/hold')!.end()
  await (await answer).text()
  await vi.waitFor(() => expect(report.inflight).toBe(0))
  expect((await fetch(url + PROBE)).headers.get('x-lb-lat-ms')).toBe('300.00')
})

test('attached twice it counts once', async () => {
  const report = loadReport()
  const app = express()
  app.use(report.middleware, report.middleware)
  app.use((_, response) => void response.end(`${report.inflight}`))
  const answer = await fetch(`http://127.0.0.1:${await listening(http.createServer(app))}/`)
  expect([await answer.text(), answer.headers.get('x-lb-rif')]).toEqual(['1', '0'])
  await vi.waitFor(() => expect(report.inflight).toBe(0))
})

test.each<[string, (response: ServerResponse) => unknown]>([
  ['a list', (it) => it.writeHead(200, ['X-LB-RIF', '77', 'x-a', '1', 'x-lb-lat-ms', '9', 'x-a', '2'])],
  ['an object', (it) => it.writeHead(200, 'fine', { 'X-Lb-Rif': '77', 'x-a': ['1', '2'], 'x-lb-lat-ms': 9 })],
  [
    'one by one',
    (it) =>
      it
        .setHeader('x-lb-rif', '77')
        .setHeader('x-a', ['1', '2'])
        .setHeader('x-lb-lat-ms', '9')
        .appendHeader('x-lb-rif', '1'),
  ],
])('what a server behind it said of its load is not passed on as its own, given as %s', async (_, give) => {
  const report = loadReport()
  const listener = report.listener((_request, response) => {
    give(response)
    response.end()
  })
  const { headers } = await fetch(`http://127.0.0.1:${await listening(http.createServer(listener))}/`)
  expect([headers.get('x-a'), headers.get('x-lb-rif'), headers.get('x-lb-lat-ms')]).toEqual(['1, 2', '0', null])
})

test.each([true, false])('metrics of others are passed on unless it writes its own (ORCA: %s)', async (orca) => {
  const report = loadReport({ orca })
  const listener = report.listener((_, response) => {
    response.writeHead(200, { 'endpoint-load-metrics': 'TEXT eps=1' }).end()
  })
  const { headers } = await fetch(`http://127.0.0.1:${await listening(http.createServer(listener))}/`)
  expect(headers.get('endpoint-load-metrics')).toBe(orca ? null : 'TEXT eps=1')
})

test('unknown paths of Fastify are reported too, and routes answer as ever', async () => {
  const app = fastify()
  stops.push(() => app.close())
  const report = loadReport()
  await app.register(report.plugin)
  app.get('/users/:id', async (request) => request.params)
  const found = await app.inject('/users/7')
  expect([found.json(), found.headers['x-lb-rif']]).toEqual([{ id: '7' }, '0'])
  expect((await app.inject('/nowhere')).headers['x-lb-rif']).toBe('0')
  expect((await app.inject(PROBE)).statusCode).toBe(204)
  expect(report.inflight).toBe(0)
})

test('a head that the handler writes by itself gets it as well, and keeps its own fields', async () => {
  const report = loadReport()
  const port = await listening(
    http.createServer(report.listener((_, response) => response.writeHead(201, ['x-a', '1', 'x-a', '2']).end())),
  )
  const { status, headers } = await fetch(`http://127.0.0.1:${port}/`)
  expect([status, headers.get('x-a'), headers.get('x-lb-rif')]).toEqual([201, '1, 2', '0'])
})

test('ORCA on request: CPU, requests and failures per second of the last window', async () => {
  const clock = manualClock()
  const { url } = await SITES['node:http']!({ orca: true, clock })
  const metrics = async (): Promise<string | null> => (await fetch(url + PROBE)).headers.get('endpoint-load-metrics')
  expect(await metrics()).toBeNull()
  for (const path of ['/', '/', '/', '/fail']) await (await fetch(url + path)).text()
  await clock.advance(2_000)
  expect(await metrics()).toMatch(/^TEXT cpu_utilization=\d+\.\d{4},rps_fractional=2\.000,eps=0\.500$/)
  await clock.advance(999)
  expect(await metrics()).toContain('rps_fractional=2.000')
  await clock.advance(1)
  expect(await metrics()).toContain('rps_fractional=0.000,eps=0.000')
})

describe('nothing stays in flight', () => {
  test('of requests that wait behind others on a connection that is cut', async () => {
    const { port, open, report } = await SITES['node:http']!()
    const socket = net.connect(port, '127.0.0.1')
    socket.on('error', () => {})
    const paths = Array.from({ length: 20 }, (_, i) => `/hold/${i}`)
    socket.write(paths.map((path) => `GET ${path} HTTP/1.1\r\nhost: a\r\n\r\n`).join(''))
    await vi.waitFor(() => expect(open.size).toBe(20))
    expect(report.inflight).toBe(20)
    socket.resetAndDestroy()
    await vi.waitFor(() => expect(report.inflight).toBe(0))
  })

  test('of requests whose client left before they came to be counted', async () => {
    const report = loadReport()
    const seen: IncomingMessage[] = []
    const port = await listening(
      http.createServer((request, response) => {
        seen.push(request)
        request.socket.once('close', () =>
          setImmediate(() => report.middleware(request, response, () => seen.push(request))),
        )
      }),
    )
    const socket = net.connect(port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n'))
    await vi.waitFor(() => expect(seen).toHaveLength(1))
    socket.destroy()
    await vi.waitFor(() => expect(seen).toHaveLength(2))
    expect(report.inflight).toBe(0)
  })

  test('whatever clients and handlers do', async () => {
    const site = await SITES['node:http']!()
    const step = fc.constantFrom(
      'answer',
      'fail',
      'stream-then-end',
      'stream-then-abort',
      'hold-then-end',
      'hold-then-abort',
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
        await Promise.all(steps.map((what, i) => visit(site, what, i)))
        await vi.waitFor(() => expect(site.report.inflight).toBe(0))
      }),
      { numRuns: 30, seed: 1 },
    )
  })
})

/** One client, from its request to its end. */
async function visit({ url, open }: Site, what: string, i: number): Promise<void> {
  if (what === 'answer' || what === 'fail') return void (await (await fetch(`${url}/${what}`)).text())
  const path = `/hold/${what}/${i}`
  const controller = new AbortController()
  const answer = fetch(url + path, { signal: controller.signal }).then((it) => it.text())
  answer.catch(() => {})
  await vi.waitFor(() => expect(open.has(path)).toBe(true))
  const response = open.get(path)!
  open.delete(path)
  if (what.startsWith('stream')) response.write('some')
  if (what.endsWith('abort')) controller.abort()
  else response.end()
  await answer.catch(() => {})
}

test('a balancer that is closed while probes are out leaves nothing behind', async () => {
  const asked = new Set<number>()
  const ports = await Promise.all(
    Array.from({ length: 4 }, (_, i) =>
      listening(
        http.createServer((request, response) => {
          if (request.url === PROBE) asked.add(i)
          else response.end('done')
        }),
      ),
    ),
  )
  const baseline = leftovers()
  const balancer = createBalancer({
    backends: ports.map((port) => `http://127.0.0.1:${port}`),
    strategy: prequal({ timeoutMs: 600_000 }),
  })
  await (await balancer.fetch('/')).text()
  await vi.waitFor(() => expect(asked.size).toBeGreaterThan(0))
  await balancer.close()
  await baseline.restored()
})

test('both halves: traffic leaves a server that is full of other clients’ requests', async () => {
  const sites = await Promise.all(Array.from({ length: 4 }, () => SITES['node:http']!()))
  const [busy] = sites as [Site]
  const others = new AbortController()
  stops.push(() => others.abort())
  for (let i = 0; i < 30; i++) void fetch(`${busy.url}/hold/${i}`, { signal: others.signal }).catch(() => {})
  await vi.waitFor(() => expect(busy.open.size).toBe(30))
  const balancer = createBalancer({
    backends: sites.map(({ url }, i) => ({ url, id: `${i}` })),
    strategy: prequal({ timeoutMs: 10_000 }),
    random: seededRandom(1),
  })
  stops.push(() => balancer.close())
  for (let i = 0; i < 20; i++) await (await balancer.fetch('/')).text()
  const before = balancer.stats().pools.default!.backends.find(({ id }) => id === '0')!.requests
  for (let i = 0; i < 200; i++) await (await balancer.fetch('/')).text()
  const after = balancer.stats().pools.default!.backends.find(({ id }) => id === '0')!.requests
  expect(after - before).toBeLessThan(20) // a fair share would be 50
})
