import { createBalancer, type Strategy } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { get, passed as through, values } from './conformance/passing.ts'
import {
  ask,
  balance,
  front,
  idle,
  keeper,
  kept,
  MIB,
  nobody,
  OK,
  pause,
  type RawUpstream,
  rawClient,
  rawUpstream,
  says,
  statsOf,
  type Upstream,
  until,
} from './support/upstreams.ts'

/** Takes the backends in the order they were given: a test knows who is asked first. */
const inOrder: Strategy = {
  name: 'in order',
  start: () => ({
    build:
      ({ eligible }) =>
      (call) =>
        eligible.find((backend) => !call.tried(backend)),
  }),
}

/** The backends in turn, from the first on; `roundRobin` may begin anywhere. */
function inTurn(): Strategy {
  let turn = 0
  return {
    name: 'in turn',
    start: () => ({
      build:
        ({ eligible }) =>
        () =>
          eligible[turn++ % eligible.length],
    }),
  }
}

/** Raw bytes through the proxy, seen from both of its sides. */
function passed(request: string, answer: string = OK): ReturnType<typeof through> {
  return through((backends) => front(balance(backends)), request, answer)
}

describe('load reports', () => {
  test('of a backend stay with the balancer', async () => {
    const load = ['X-LB-RIF: 3', 'X-LB-Lat-Ms: 12.5', 'Endpoint-Load-Metrics: TEXT cpu_utilization=0.3']
    const { got } = await passed(get('/'), `HTTP/1.1 200 OK\r\n${load.join('\r\n')}\r\ncontent-length: 2\r\n\r\nok`)
    for (const line of load) expect(values(got, line.split(':')[0]!.toLowerCase())).toEqual([])
  })
})

describe('who asked', () => {
  test('a balancer may be told about a request', async () => {
    const [one, two] = [await keeper(), await keeper()]
    const balancer = kept(createBalancer({ pools: { one: { backends: [one.url] }, two: { backends: [two.url] } } }))
    const proxy = await front(balancer, { call: ({ headers }) => ({ pool: String(headers['x-pool']) }) })
    for (const pool of ['two', 'one', 'two']) await ask(proxy, `/${pool}`, { headers: { 'x-pool': pool } })
    expect([one.got.length, two.got.length]).toEqual([1, 2])
    const answer = await ask(proxy, '/', { headers: { 'x-pool': 'three' } })
    expect(answer.status).toBe(500)
    expect(answer.body.toString()).not.toMatch(/three|one|two/)
  })
})

describe('client connections', () => {
  test('are kept alive, as are the backend’s', async () => {
    const backend = await rawUpstream(says(OK))
    const client = await rawClient(await front(balance([backend])))
    for (let i = 1; i <= 5; i++) {
      client.write(get(`/${i}`))
      await client.until((received) => received.split('\r\n\r\nok').length > i)
    }
    expect(client.ending).toBeUndefined()
    expect(backend.wires).toHaveLength(1)
    expect(backend.wires[0]!.received.match(/^GET \/\d/gm)).toHaveLength(5)
  })

  test('pipelined requests are balanced one by one and answered in order', async () => {
    const go = Promise.withResolvers<void>()
    const slow = await keeper(async (request, response) => {
      await go.promise
      response.end(`slow ${request.url}`)
    })
    const fast = await keeper((request, response) => response.end(`fast ${request.url}`))
    const balancer = balance([slow, fast], { strategy: inTurn() })
    const client = await rawClient(await front(balancer))
    const post = 'POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc'
    client.write(get('/1') + post + get('/3') + get('/4', 'Connection: close'))
    await until(() => slow.got.length === 2 && fast.got.length === 2, 'each backend should have two')
    expect(client.received).toBe('')
    go.resolve()
    await client.closed()
    const bodies = client.received.match(/(?:slow|fast) \/\d/g) ?? []
    expect(bodies.map((body) => body.split(' ')[1])).toEqual(['/1', '/2', '/3', '/4'])
    expect(bodies.map((body) => body.split(' ')[0]).sort()).toEqual(['fast', 'fast', 'slow', 'slow'])
  })

  test('pipelined requests are all given up when their client is gone', async () => {
    const balancer = balance([
      await rawUpstream(async (wire) => {
        const head = await wire.head()
        // The answer to the second waits for the first: it is more than is taken in unread.
        if (head.includes('/2')) wire.write(`HTTP/1.1 200 OK\r\ncontent-length: ${MIB}\r\n\r\n${'x'.repeat(500_000)}`)
      }),
    ])
    const client = await rawClient(await front(balancer))
    client.write(get('/1') + get('/2') + get('/3'))
    await until(() => statsOf(balancer).requests === 3, 'three should have been sent')
    client.socket.destroy()
    await idle(balancer)
    expect(statsOf(balancer)).toMatchObject({ failures: 0, classes: { cancelled: 3 } })
  })
})

describe('errors', () => {
  /** A problem that tells what and which request, and nothing of the inside. */
  function isProblem(answer: Awaited<ReturnType<typeof ask>>, status: number, code: string, secrets: Upstream[]): void {
    expect(answer.status).toBe(status)
    expect(answer.headers['content-type']).toBe('application/problem+json')
    expect(Number(answer.headers['content-length'])).toBe(answer.body.length)
    const problem = JSON.parse(answer.body.toString()) as Record<string, unknown>
    expect(problem).toMatchObject({ type: 'about:blank', status, code, requestId: answer.headers['x-request-id'] })
    expect(typeof problem.title).toBe('string')
    const all = `${answer.rawHeaders.join('\n')}\n${answer.body}`
    for (const { port } of secrets) expect(all).not.toContain(String(port))
    expect(all).not.toMatch(/127\.0\.0\.1|localhost|ECONN|\bbackend| at |\.ts/i)
  }

  test('row 57: 503 with Retry-After when nobody may be picked', async () => {
    const backend = await keeper()
    const balancer = kept(createBalancer({ backends: [{ url: backend.url, weight: 0, id: 'secret' }] }))
    const answer = await ask(await front(balancer), '/')
    isProblem(answer, 503, 'NO_BACKEND', [backend])
    expect(answer.headers['retry-after']).toBe('1')
    expect(answer.body.toString()).not.toContain('secret')
    expect(backend.got).toEqual([])
  })

  test('row 57: Retry-After is when the first backend comes back, if that is known', async () => {
    const dead = await nobody()
    const balancer = balance([dead], {
      health: { passive: { consecutive: 1, baseMs: 20_000, maxShare: 1 }, panicBelow: 0 },
      retry: { attempts: 1 },
    })
    const proxy = await front(balancer)
    isProblem(await ask(proxy, '/'), 502, 'CONNECT', [dead])
    const answer = await ask(proxy, '/')
    isProblem(answer, 503, 'NO_BACKEND', [dead])
    expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(18)
    expect(Number(answer.headers['retry-after'])).toBeLessThanOrEqual(22)
  })

  test('row 57: 503 when every backend is at its limit', async () => {
    const backend = await rawUpstream(() => {})
    const balancer = kept(createBalancer({ backends: [{ url: backend.url, maxInflight: 1 }] }))
    const proxy = await front(balancer)
    const client = await rawClient(proxy)
    client.write(get('/'))
    await backend.wire()
    const answer = await ask(proxy, '/')
    isProblem(answer, 503, 'OVERLOADED', [backend])
    expect(answer.headers['retry-after']).toBe('1')
    client.socket.destroy()
  })

  test('row 57: 500 when what the balancer is told cannot be had', async () => {
    const proxy = await front(balance([await keeper()]), {
      call: () => {
        throw new Error('backend 127.0.0.1 said no')
      },
    })
    isProblem(await ask(proxy, '/'), 500, 'CONFIG', [])
  })
})

describe('an answer that comes before the upload is done', () => {
  const REFUSED = 'HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig'
  const early = (close: boolean): Promise<RawUpstream> =>
    rawUpstream(async (wire) => {
      const head = await wire.head()
      if (head.startsWith('GET')) return wire.write(OK)
      wire.socket.pause()
      wire.write(REFUSED)
      if (close) wire.socket.end()
    })

  test.each([8 * MIB, 64])('and leaves no client hanging that goes on sending %i bytes', async (length) => {
    const balancer = balance([await early(false)])
    const client = await rawClient(await front(balancer))
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\nx`)
    await client.until('\r\n\r\nbig')
    client.socket.write(Buffer.alloc(length - 1, 'x'))
    client.write(get('/next'))
    // Either way is right: the rest is drained and the next request answered, or the connection closed.
    const next = client.until('\r\n\r\nok').then(
      () => 'answered',
      () => 'closed',
    )
    const outcome = await Promise.race([next, pause(3_000).then(() => 'hanging')])
    expect(outcome).not.toBe('hanging')
    client.socket.destroy()
  })
})

describe('a request body that must be sent again', () => {
  test('arrives whole though the first backend broke off while it came', async () => {
    const first = await rawUpstream(async (wire) => {
      await wire.until('first,')
      wire.socket.resetAndDestroy()
    })
    const second = await keeper()
    const balancer = balance([first, second], { strategy: inOrder, retry: { baseMs: 0 } })
    const client = await rawClient(await front(balancer))
    client.write('PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nConnection: close\r\n\r\nfirst,')
    await until(() => statsOf(balancer, 1).requests === 1, 'the second backend should have been asked')
    client.write('second')
    await client.closed()
    expect(client.received).toMatch(/^HTTP\/1\.1 200 /)
    expect(second.got.map(({ body }) => body.toString())).toEqual(['first,second'])
  })
})
