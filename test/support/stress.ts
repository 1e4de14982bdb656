/** What a proxy can be put through by a client and a backend of this process, while it stands in a process of its own. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http, { type IncomingMessage, type RequestListener } from 'node:http'
import { seededRandom } from 'evenkeel/testing'
import { expect, onTestFinished, test } from 'vitest'
import { Children } from '../../bench/children.ts'
import { cachedEnv } from './compile-cache.ts'
import type { Standing, StressKind, StressQuestion, Watched } from './stress-child.ts'
import { MIB, pause, type Upstream, until, upstream } from './upstreams.ts'

interface ProxyProcess extends Upstream {
  now(): Promise<Standing>
  /** The same after its garbage was collected. */
  collected(): Promise<Standing>
  /** What its memory grew by at most meanwhile, bytes. */
  growth(during: () => Promise<unknown>): Promise<number>
}

const env = cachedEnv()
const CHUNK = Buffer.alloc(65_536, 'evenkeel')

/** A proxy in front of these; gone with the test. */
async function proxyProcess(kind: StressKind, backends: readonly Upstream[]): Promise<ProxyProcess> {
  const children = new Children()
  onTestFinished(() => children.stop())
  const origins = backends.map(({ url }) => url)
  const child = await children.start<number>(
    '../test/support/stress-child.ts',
    [kind, ...origins],
    ['--expose-gc'],
    env,
  )
  const ask = <Answer>(question: StressQuestion): Promise<Answer> => child.ask(question)
  return {
    url: `http://127.0.0.1:${child.ready}`,
    port: child.ready,
    now: () => ask('now'),
    collected: () => ask('collected'),
    async growth(during) {
      await ask('watch')
      await during()
      const { fromBytes, mostBytes } = await ask<Watched>('watched')
      return mostBytes - fromBytes
    },
  }
}

/** A backend that takes anything and gives as much as its path asks for; neither is ever kept. */
function well(): Promise<Upstream> {
  return upstream(async (request, response) => {
    if (request.method === 'POST') return void response.end(String(await lengthOf(request)))
    const bytes = Number(request.url!.slice(1))
    response.setHeader('content-length', bytes)
    await pour(response, bytes)
  })
}

async function download(proxy: Upstream, bytes: number): Promise<number> {
  const request = http.get(`${proxy.url}/${bytes}`, { agent: false })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  return lengthOf(response)
}

/** Chunked; resolves with what the backend has counted. */
async function upload(proxy: Upstream, bytes: number): Promise<number> {
  const request = http.request(proxy.url, { method: 'POST', agent: false })
  const answered = once(request, 'response') as Promise<[IncomingMessage]>
  await pour(request, bytes)
  const [response] = await answered
  let text = ''
  for await (const chunk of response) text += chunk
  return Number(text)
}

async function pour(into: NodeJS.WritableStream, bytes: number): Promise<void> {
  for (let left = bytes; left > 0; left -= CHUNK.length) {
    if (!into.write(left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK)) await once(into, 'drain')
  }
  into.end()
}

async function lengthOf(source: AsyncIterable<Uint8Array>): Promise<number> {
  let length = 0
  for await (const chunk of source) length += chunk.length
  return length
}

/** What a client is doing when it goes: `whole` has had all of its answer. */
const MOMENTS = ['whole', 'silent', 'endless', 'upload', 'soon'] as const
type Moment = (typeof MOMENTS)[number]

interface Departures {
  /** From the client's going to the end of its request at the backend, ms, in order. */
  readonly delaysMs: readonly number[]
  /** Requests that reached the backend and did not have all of their answer. */
  readonly cut: number
  /** Connections to the backend that ended. */
  readonly ended: number
}

/** Clients at the same time. */
const AT_ONCE = 10

/** So many clients that go away at any moment. Resolves when the backend has seen the last of them. */
async function departures(kind: StressKind, count: number): Promise<Departures> {
  const chance = seededRandom(count)
  const goneMs = new Map<string, number>()
  const delaysMs: number[] = []
  let open = 0
  let cut = 0
  let ended = 0
  const backend = await upstream((request, response) => {
    const url = request.url!
    open++
    const timer = answerIn(url.split('/')[1] as Moment, request, response)
    response.on('close', () => {
      clearInterval(timer)
      open--
      if (url.startsWith('/whole')) return
      cut++
      const fromMs = goneMs.get(url)
      if (fromMs !== undefined && !response.writableFinished) delaysMs.push(performance.now() - fromMs)
    })
  })
  backend.server.keepAliveTimeout = 120_000
  backend.server.on('connection', (socket) => socket.on('close', () => ended++))
  const proxy = await proxyProcess(kind, [backend])

  let next = 0
  const client = async (): Promise<void> => {
    while (next < count) {
      const number = next++
      const moment = MOMENTS[number % MOMENTS.length]!
      const path = `/${moment}/${number}`
      const request = http.request(proxy.url + path, { agent: false, method: moment === 'upload' ? 'POST' : 'GET' })
      request.on('error', () => {}) // it is cut off by its own side
      if (moment === 'whole') {
        request.end()
        const [response] = (await once(request, 'response')) as [IncomingMessage]
        assert.equal(await lengthOf(response), 2)
      } else {
        request.on('response', (response) => response.on('error', () => {}).resume())
        if (moment === 'upload') request.write(CHUNK)
        else request.end()
        await pause(chance(moment === 'soon' ? 3 : 25))
      }
      goneMs.set(path, performance.now())
      request.destroy()
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, client))
  await untilIdle(proxy)
  await until(() => open === 0, 'a request outlived its client')
  const seen = { delaysMs: delaysMs.sort((a, b) => a - b), cut, ended }
  assert.equal(await download(proxy, 2), 2)
  return seen
}

function answerIn(moment: Moment, request: IncomingMessage, response: http.ServerResponse): NodeJS.Timeout | undefined {
  request.resume()
  if (moment === 'endless') return setInterval(() => response.write('more of it'), 2)
  if (moment === 'silent' || moment === 'upload') return undefined
  response.end('ok')
  return undefined
}

interface Streams {
  /** Of the proxy's process, for each stream that is open and idle, bytes: what V8 counts, and what the system does. */
  readonly usedBytes: number
  readonly rssBytes: number
  /** Messages that came, in order, over all streams. */
  readonly messages: number
  /** What V8 counts in the end, over what it did before, bytes. */
  readonly leftBytes: number
}

/** A backend takes no more than this many at once: the thinnest proxy has 256 connections to each. */
const STREAMS_EACH = 200
const WELCOME = ': welcome\n\n'
/** Connections are asked for in groups, since a listener has a queue of 511. */
const OPENING = 100

/** So many event streams, open at the same time, over each of which come so many messages. */
async function eventStreams(kind: StressKind, count: number, messages: number): Promise<Streams> {
  const open = new Set<http.ServerResponse>()
  const answer: RequestListener = (_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
    response.write(WELCOME) // the thinnest proxy keeps a head back until something follows
    open.add(response)
    response.on('close', () => open.delete(response))
  }
  const backends = await Promise.all(Array.from({ length: Math.ceil(count / STREAMS_EACH) }, () => upstream(answer)))
  const proxy = await proxyProcess(kind, backends)
  const listen = async (many: number): Promise<Listener[]> => {
    const listeners: Listener[] = []
    while (listeners.length < many) {
      const group = Array.from({ length: Math.min(OPENING, many - listeners.length) }, () => listener(proxy))
      listeners.push(...(await Promise.all(group)))
    }
    return listeners
  }
  const leave = async (listeners: readonly Listener[]): Promise<void> => {
    for (const { request } of listeners) request.destroy()
    await untilIdle(proxy)
    // It does not tell anybody that a client is gone.
    if (kind === 'thinnest') for (const response of open) response.end()
    await until(() => open.size === 0, 'a stream outlived its client')
  }

  await leave(await listen(Math.min(count, 2 * OPENING)))
  const before = await proxy.collected()
  const listeners = await listen(count)
  assert.equal(open.size, count)
  const idle = await proxy.collected()
  for (let number = 0; number < messages; number++) {
    for (const response of open) response.write(`data: ${number}\n\n`)
    await until(() => listeners.every(({ next }) => next > number), `message ${number} did not reach everybody`)
  }
  await leave(listeners)
  const after = await proxy.collected()
  return {
    usedBytes: (idle.usedBytes - before.usedBytes) / count,
    rssBytes: (idle.rssBytes - before.rssBytes) / count,
    messages: listeners.reduce((sum, { next }) => sum + next, 0),
    leftBytes: after.usedBytes - before.usedBytes,
  }
}

interface Listener {
  readonly request: http.ClientRequest
  /** The number of the message that has to come next. */
  readonly next: number
}

async function listener(proxy: Upstream): Promise<Listener> {
  const request = http.get(proxy.url, { agent: false, headers: { accept: 'text/event-stream' } })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  request.on('error', () => {})
  const made = { request, next: 0 }
  await once(response, 'readable')
  assert.equal(String(response.read()), WELCOME)
  let text = ''
  response.on('error', () => {}) // cut off by its own side
  response.on('data', (data) => {
    const parts = (text + data).split('\n\n')
    text = parts.pop()!
    for (const part of parts) assert.equal(part, `data: ${made.next++}`)
  })
  return made
}

/** Nothing under way in the proxy, and nobody connected to it. */
async function untilIdle(proxy: ProxyProcess): Promise<void> {
  let standing: Standing | undefined
  for (let tries = 0; tries < 500; tries++) {
    standing = await proxy.now()
    if (standing.inflight === 0 && standing.clients === 0) return
    await pause(10)
  }
  assert.fail(`it never came to rest: ${JSON.stringify(standing)}`)
}

/** As many streams as wanted, or as files may be open in this process, which holds both ends; a little is left for others. */
function affordableStreams(wanted: number): { readonly count: number; readonly title: string } {
  const report = process.report.getReport() as {
    readonly userLimits?: { readonly open_files?: { readonly soft: unknown } }
  }
  const files = Number(report.userLimits?.open_files?.soft)
  const most = Number.isFinite(files) ? Math.floor((files - 500) / 200) * 100 : wanted
  return most < wanted
    ? { count: most, title: `${most} streams, as no more than ${files} files may be open` }
    : { count: wanted, title: `${wanted} streams` }
}

export interface StressSizes {
  /** MiB through each adapter, each way. */
  readonly bodies: readonly (readonly [kind: StressKind, mib: number])[]
  readonly departures: readonly (readonly [kind: StressKind, clients: number])[]
  readonly streams: number
  readonly messages: number
  /** Whether the thinnest proxy is measured as well, to be told beside. */
  readonly compares: boolean
}

/** The same tests, short and long. */
export function stressTests({ bodies, departures: goings, streams, messages, compares }: StressSizes): void {
  test.each(bodies)(
    '%s: %i MiB up and down at once take no more memory than a few pieces of them',
    async (kind, mib) => {
      const proxy = await proxyProcess(kind, [await well()])
      const bytes = mib * MIB
      const both = (bytes: number): Promise<number[]> => Promise.all([upload(proxy, bytes), download(proxy, bytes)])
      await both(8 * MIB)
      const growth = await proxy.growth(async () => expect(await both(bytes)).toEqual([bytes, bytes]))
      expect(growth).toBeLessThan(Math.min(bytes / 2, 64 * MIB))
    },
  )

  test.each(goings)('%s: %i clients go away at any moment, and the backend hears of each', async (kind, clients) => {
    const { delaysMs, cut, ended } = await departures(kind, clients)
    expect(delaysMs.length).toBeGreaterThan(clients / 4)
    // A connection ends with the request it carries, and no other does.
    expect(ended).toBeLessThanOrEqual(cut)
    console.log(`${kind}: heard after ${msOf(delaysMs, 0.5)} ms, p99 ${msOf(delaysMs, 0.99)} ms, of ${delaysMs.length}`)
  })

  const { count, title } = affordableStreams(streams)
  test(`${title} of events at once: every message in its order, and nothing is left of them`, async () => {
    const ours = await eventStreams('node', count, messages)
    const thinnest = compares ? [await eventStreams('thinnest', count, 1)] : []
    expect(ours.messages).toBe(count * messages)
    expect(ours.leftBytes).toBeLessThan(Math.max(MIB, 0.2 * count * ours.usedBytes))
    const told = [ours, ...thinnest].map(({ usedBytes, rssBytes }) => `${kibOf(usedBytes)} KiB, RSS ${kibOf(rssBytes)}`)
    console.log(`an idle stream of ${count}: ${told.join('; of the thinnest proxy: ')}`)
  })
}

function msOf(sorted: readonly number[], of: number): string {
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * of))] ?? 0).toFixed(1)
}

function kibOf(bytes: number): string {
  return (bytes / 1024).toFixed(1)
}
