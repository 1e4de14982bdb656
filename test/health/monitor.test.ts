import assert from 'node:assert/strict'
import http, { type RequestListener } from 'node:http'
import https from 'node:https'
import net from 'node:net'
import { networkInterfaces } from 'node:os'
import { createBalancer, type MemoryAnswer, memory, type Watcher } from 'evenkeel'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  checked,
  checks,
  endpoint,
  failing,
  listening,
  patientClock,
  reasonsOf,
  scene,
  silent,
  stateOf,
} from '../support/checks.ts'
import { balancerError } from '../support/scripted.ts'
import { CERT, KEY } from '../support/tls.ts'
import { keeper, nobody, pause, until, upstream } from '../support/upstreams.ts'

describe('a backend is checked', () => {
  test('at once, and then once an interval after each answer', async () => {
    const { clock, times } = scene({ a: { headMs: 50 } })
    await clock.advance(3_400)
    expect(times('a')).toEqual([0, 1_050, 2_100, 3_150])
  })

  test('never if nobody asks for it', async () => {
    const { clock, times } = scene({ a: {} }, false)
    await clock.advance(60_000)
    expect(times('a')).toEqual([])
    expect(clock.pending).toBe(0)
  })

  test('at intervals shifted by at most the jitter, and by nearly all of it now and then', async () => {
    const { clock, times } = scene({ a: {} }, { jitter: 0.2 })
    await clock.advance(600_000)
    const gaps = times('a').flatMap((ms, i, all) => (i === 0 ? [] : [ms - all[i - 1]!]))
    expect(gaps.length).toBeGreaterThan(500)
    for (const gap of gaps) expect(gap >= 799.999 && gap <= 1_200.001, String(gap)).toBe(true)
    expect(Math.min(...gaps)).toBeLessThan(810)
    expect(Math.max(...gaps)).toBeGreaterThan(1_190)
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length
    expect(Math.abs(mean - 1_000)).toBeLessThan(30) // 3 standard deviations of the mean of 600 gaps: 14
  })

  test('once an interval after a timeout as well', async () => {
    const { clock, times } = scene({ a: silent })
    await clock.advance(2_500)
    expect(times('a')).toEqual([0, 1_200, 2_400])
  })

  test('at its path behind the base path, with the headers of the backend', async () => {
    const backends = [{ url: 'http://a.test/base', id: 'a', headers: { authorization: 'Bearer x' } }]
    const { clock, transport } = scene({ a: {} }, { path: '/health?deep=1' }, { backends })
    await clock.advance(0)
    const [request] = transport.requests
    expect(request).toMatchObject({ method: 'GET', path: '/base/health?deep=1' })
    expect(request!.headers).toEqual(
      expect.arrayContaining(['user-agent', 'evenkeel-probe', 'authorization', 'Bearer x']),
    )
    expect(request!.body).toHaveLength(0)
  })

  test('whatever the body is, and a body that never ends is gone before the next check', async () => {
    const held = new Set<number>()
    let sends = 0
    const { clock, balancer, reasons } = scene(
      {},
      {},
      {
        backends: [endpoint('a')],
        transport: {
          name: 'endless',
          send: async (attempt) => {
            const number = ++sends
            held.add(number)
            attempt.sent()
            return {
              status: 200,
              headers: [],
              body: { consume: () => ({ resume() {}, cancel: () => held.delete(number) }), discard() {} },
            }
          },
        },
      },
    )
    await clock.advance(5_500)
    expect(sends).toBe(6)
    expect(reasons('a')).toEqual([])
    expect([...held]).toEqual([6])
    await balancer.close()
    expect(held.size).toBe(0)
  })
})

describe('the verdict', () => {
  test('of the first check decides alone', async () => {
    const { clock, log, reasons } = scene({ a: failing, b: {} })
    await clock.advance(0)
    expect(log).toEqual(['blocked a probe: http check: status 500'])
    expect(reasons('a')).toEqual(['probe: http check: status 500'])
    expect(reasons('b')).toEqual([])
  })

  test('turns after `fall` bad answers in a row, and back after `rise` good ones', async () => {
    const { clock, transport, log } = scene({ a: {} }, { rise: 2, fall: 3 })
    const seen: number[] = []
    const step = async (answer: MemoryAnswer): Promise<void> => {
      transport.set('a', answer)
      await clock.advance(1_000)
      seen.push(log.length)
    }
    await clock.advance(10)
    for (const answer of [failing, failing, {}, failing, failing, failing]) await step(answer)
    expect(seen).toEqual([0, 0, 0, 0, 0, 1]) // the good one in between starts the count anew
    for (const answer of [{}, failing, {}, {}]) await step(answer)
    expect(seen.slice(6)).toEqual([1, 1, 1, 2])
    expect(log).toEqual(['blocked a probe: http check: status 500', 'unblocked a probe: http check: status 500'])
  })

  test.each([
    ['200', [200], [201, 204, 301, 404, 500]],
    ['200-399', [200, 204, 302, 399], [400, 404, 500]],
    ['200,204', [200, 204], [201, 203, 205, 302]],
    ['200-299,404', [200, 299, 404], [300, 403, 405]],
  ])('by %s takes %j as well and %j as not', async (status, well, not) => {
    const all = Object.fromEntries([...well, ...not].map((code) => [`s${code}`, { status: code }]))
    const { clock, reasons } = scene(all, { status })
    await clock.advance(0)
    for (const code of well) expect(reasons(`s${code}`)).toEqual([])
    for (const code of not) expect(reasons(`s${code}`)).toEqual([`probe: http check: status ${code}`])
  })

  test('is told in words: a timeout, a refusal, a break, whatever a probe of one’s own says', async () => {
    const { clock, reasons } = scene({
      late: silent,
      refused: { failure: { phase: 'connect', code: 'ECONNREFUSED' } },
      reset: { failure: { phase: 'head', code: 'ECONNRESET' } },
    })
    await clock.advance(300)
    expect(reasons('late')).toEqual(['probe: http check: no answer within 200 ms'])
    expect(reasons('refused')[0]).toMatch(/^probe: http check: .*refused.*ECONNREFUSED/)
    expect(reasons('reset')[0]).toMatch(/^probe: http check: .*reset.*ECONNRESET/)

    const words = new Map<string, unknown>([
      ['error', new Error('not me')],
      ['text', 'just text'],
      ['nothing', undefined],
      ['empty', new RangeError('')],
      ['several', new AggregateError([new Error('connect ::1'), new Error('connect 127.0.0.1')])],
    ])
    const own = checks(({ id }) => Promise.reject(words.get(id)))
    const other = scene({}, false, { backends: [...words.keys()].map(endpoint), watchers: [own] })
    await other.clock.advance(0)
    const said = [...words.keys()].map((id) => other.reasons(id)[0])
    expect(said).toEqual([
      'probe: own check: not me',
      'probe: own check: just text',
      'probe: own check: no',
      'probe: own check: RangeError',
      'probe: own check: connect ::1; connect 127.0.0.1',
    ])
  })

  test('of a probe that throws instead of rejecting is no, and it is asked again', async () => {
    let asked = 0
    const own = checks(() => {
      if (++asked === 1) throw new Error('thrown')
      return Promise.resolve()
    })
    const { clock, log } = scene({}, false, { backends: [endpoint('a')], watchers: [own] })
    await clock.advance(2_000)
    expect(log).toEqual(['blocked a probe: own check: thrown', 'unblocked a probe: own check: thrown'])
  })

  test('comes once a check: an answer after the timeout is ignored, and its signal has told the probe to stop', async () => {
    const signals: AbortSignal[] = []
    const ends: (() => void)[] = []
    const own = checks(
      (_, { signal }) => {
        signals.push(signal)
        return new Promise((resolve) => ends.push(resolve))
      },
      { rise: 1 },
    )
    const { clock, reasons } = scene({}, false, { backends: [endpoint('a')], watchers: [own] })
    await clock.advance(200)
    expect(signals[0]!.aborted).toBe(true)
    ends[0]!()
    await clock.advance(0)
    expect(reasons('a')).toEqual(['probe: own check: no answer within 200 ms'])
    await clock.advance(1_000)
    ends[1]!()
    await clock.advance(0)
    expect(reasons('a')).toEqual([])
    expect(signals[1]!.aborted).toBe(false)
  })

  test('may be overridden by panic, which an operator’s word may not', async () => {
    const health = { active: { intervalMs: 1_000, jitter: 0, timeoutMs: 200 }, panicBelow: 0.5 }
    const { clock, balancer } = scene({ a: failing, b: failing, c: failing }, {}, { health, retry: { attempts: 1 } })
    await clock.advance(0)
    expect(balancer.stats().pools.default).toMatchObject({ panic: true })
    balancer.disable('a')
    const tried = new Set<string>()
    for (let i = 0; i < 50; i++) {
      const { call, response } = balancer.send({ method: 'GET', path: '/real', headers: [], body: null })
      await clock.advance(0)
      tried.add(call.attempts[0]!.backend.id)
      ;(await response).body.discard()
    }
    expect([...tried].sort()).toEqual(['b', 'c'])
  })

  test('keeps a backend from traffic, beside the reasons of others', async () => {
    const { clock, balancer, reasons, transport } = scene({ a: failing, b: {} }, { rise: 1 })
    await clock.advance(0)
    balancer.disable('a')
    transport.set('a', {})
    await clock.advance(1_000)
    expect(reasons('a')).toEqual(['operator'])
    balancer.enable('a')
    expect(reasons('a')).toEqual([])
  })
})

test('checks are outside counters, latency, gates, sinks, policies, budgets and the events of traffic', async () => {
  const heard: string[] = []
  const spy: Watcher = {
    name: 'spy',
    start: () => ({
      gate: { name: 'spy', admit: () => heard.push('admit') > 0, release: () => heard.push('release') },
      sink: {
        name: 'spy',
        head: () => heard.push('head'),
        attempt: () => heard.push('attempt'),
        call: () => heard.push('call'),
      },
      stop: () => {},
    }),
  }
  const { clock, balancer } = scene(
    { a: {}, b: failing, c: { failure: { phase: 'connect' } }, d: silent },
    {},
    {
      watchers: [spy],
      policies: [
        {
          name: 'spy',
          scope: 'attempt',
          wrap: (next) => (attempt) => {
            heard.push('policy')
            return next(attempt)
          },
        },
      ],
      backends: ['a', 'b', 'c', 'd'].map((id) => ({ ...endpoint(id), maxInflight: 1 })),
    },
  )
  for (const event of ['attempt', 'retry', 'exhausted', 'warning'] as const)
    balancer.on(event, () => void heard.push(event))
  const before = balancer.stats().pools.default!
  await clock.advance(20_100)
  expect(heard).toEqual([])
  const after = balancer.stats().pools.default!
  const numbers = { calls: 0, attempts: 0, retries: 0, failed: 0, aborted: 0, inflight: 0 }
  expect(after).toMatchObject({ ...numbers, budgetLeft: before.budgetLeft })
  for (const backend of after.backends) {
    expect(backend).toMatchObject({ inflight: 0, requests: 0, failures: 0, classes: {}, p50Ms: NaN, ewmaMs: NaN })
  }
})

describe('an update', () => {
  test('stops the check of a backend that is gone, ignores its answer, and checks a new one at once', async () => {
    const { clock, balancer, options, times, log, reasons } = scene({ a: {}, b: { headMs: 100, status: 500 }, c: {} })
    await balancer.update({ ...options, backends: ['a', 'b'].map(endpoint) })
    await clock.advance(50)
    await balancer.update({ ...options, backends: ['a', 'c'].map(endpoint) })
    await clock.advance(1_000)
    expect(times('b')).toEqual([0])
    expect(times('c')).toEqual([0, 50, 1_050]) // gone and back: checked anew
    expect(log).toEqual([])
    expect(reasons('c')).toEqual([])
  })

  test('with equal settings keeps the verdicts and the rhythm', async () => {
    const { clock, balancer, options, times, log, transport } = scene({ a: failing, b: {} }, { rise: 2 })
    await clock.advance(0)
    transport.set('a', {})
    await clock.advance(1_000) // one good answer of two
    await balancer.update({ ...options, health: structuredClone(options.health!) })
    await clock.advance(500)
    expect(times('a')).toEqual([0, 1_000])
    expect(log).toHaveLength(1)
    await clock.advance(500)
    expect(log).toHaveLength(2)
  })

  test('with other settings starts anew: every backend is checked at once, and who was found bad stays out until then', async () => {
    const { clock, balancer, options, times, log, reasons } = scene({ a: failing, b: {} })
    await clock.advance(500)
    await balancer.update({ ...options, health: { panicBelow: 0, active: { intervalMs: 3_000, jitter: 0 } } })
    expect(reasons('a')).toEqual(['probe: http check: status 500'])
    await clock.advance(3_000)
    expect(times('a')).toEqual([0, 500, 3_500])
    expect(times('b')).toEqual([0, 500, 3_500])
    expect(log.map((line) => line.split(' ')[0])).toEqual(['blocked', 'unblocked', 'blocked'])
  })

  test('that switches checks off unblocks, and no check and no timer is left', async () => {
    const { clock, balancer, options, reasons, times } = scene({ a: failing, b: silent })
    await clock.advance(50)
    await balancer.update({ ...options, health: { active: false, slowStart: false } })
    expect(reasons('a')).toEqual([])
    expect(clock.pending).toBe(0)
    await clock.advance(60_000)
    expect(times('a')).toEqual([0])
    expect(times('b')).toEqual([0])
  })

  test('from a listener of the verdict itself does no harm', async () => {
    const { clock, balancer, options, times } = scene({ a: failing, b: {} })
    balancer.once('blocked', () => void balancer.update({ ...options, backends: [endpoint('b')] }))
    await clock.advance(2_500)
    expect(times('a')).toEqual([0])
    expect(times('b')).toEqual([0, 1_000, 2_000])
  })
})

describe('ready()', () => {
  test('resolves at once without checks', async () => {
    const { balancer, clock } = scene({ a: silent }, false)
    expect(await stateOf(balancer.ready(), clock)).toBe('resolved')
  })

  test('waits for a verdict on every backend of every pool, whatever the verdict', async () => {
    const active = { intervalMs: 1_000, timeoutMs: 400 }
    const transport = { a: { headMs: 100 }, b: { headMs: 200, status: 500 }, c: silent, d: silent }
    const { backends: _, ...rest } = scene(transport, active).options
    const clock = patientClock()
    const balancer = createBalancer({
      ...rest,
      clock,
      transport: memory(transport, { clock }),
      health: {},
      pools: {
        one: { backends: [endpoint('a'), endpoint('b')], health: { active } },
        two: { backends: [endpoint('c')], health: { active } },
        unchecked: { backends: [endpoint('d')] },
      },
    })
    onTestFinished(() => balancer.close())
    const ready = balancer.ready()
    await clock.advance(200)
    expect(await stateOf(ready, clock)).toBe('pending')
    await clock.advance(199)
    expect(await stateOf(ready, clock)).toBe('pending')
    await clock.advance(1)
    expect(await stateOf(ready, clock)).toBe('resolved')
    expect(await stateOf(balancer.ready(), clock)).toBe('resolved')
  })

  test('waits for a newcomer too, and no longer for one that is gone', async () => {
    const { balancer, clock, options } = scene({ a: {}, b: silent })
    await balancer.update({ ...options, backends: [endpoint('a')] })
    const ready = balancer.ready()
    expect(await stateOf(ready, clock)).toBe('resolved')
    await balancer.update(options)
    const again = balancer.ready()
    expect(await stateOf(again, clock)).toBe('pending')
    await balancer.update({ ...options, backends: [endpoint('a')] })
    expect(await stateOf(again, clock)).toBe('resolved')
  })

  test('does not hang when checks are switched off meanwhile', async () => {
    const { balancer, clock, options } = scene({ a: silent })
    const ready = balancer.ready()
    expect(await stateOf(ready, clock)).toBe('pending')
    await balancer.update({ ...options, health: { active: false } })
    expect(await stateOf(ready, clock)).toBe('resolved')
  })

  test('rejects with CLOSED when the balancer is closed, before or meanwhile', async () => {
    const { balancer } = scene({ a: silent })
    const ready = balancer.ready()
    const closing = balancer.close()
    assert.equal((await balancerError(ready)).code, 'CLOSED')
    await closing
    assert.equal((await balancerError(balancer.ready())).code, 'CLOSED')
  })
})

test('close leaves no timer and no check behind, whatever was under way', async () => {
  const { balancer, clock, times } = scene({ a: {}, b: failing, c: silent, d: { chunkMs: 1e9 } })
  await clock.advance(150)
  await balancer.close()
  expect(clock.pending).toBe(0)
  await clock.advance(60_000)
  for (const id of ['a', 'b', 'c', 'd']) expect(times(id)).toEqual([0])
  expect(clock.pending).toBe(0)
})

/** Until the test is over. */
function closedAfter(server: net.Server): void {
  onTestFinished(() => void server.close())
}

describe('on real sockets', () => {
  test('an HTTP check takes a server that says 500 out, and back in', async () => {
    let well = true
    const answer: RequestListener = (_, response) => response.writeHead(well ? 200 : 500).end('ok')
    const [a, b] = [await upstream(answer), await keeper()]
    const balancer = checked([a.url, b.url], { path: '/health' })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe('')
    well = false
    await until(() => reasonsOf(balancer) !== '', 'it was not taken out')
    expect(reasonsOf(balancer)).toBe('probe: http check: status 500')
    for (let i = 0; i < 20; i++) expect((await balancer.fetch('/')).url).toBe(`${b.url}/`)
    well = true
    await until(() => reasonsOf(balancer) === '', 'it was not taken back')
    expect(b.got.some(({ path, headers }) => path === '/health' && headers['user-agent'] === 'evenkeel-probe')).toBe(
      true,
    )
  })

  test('a TCP check takes a dead port out, and back in', async () => {
    const first = net.createServer((socket) => socket.on('error', () => {}))
    const port = await listening(first)
    const balancer = checked([`http://127.0.0.1:${port}`], { type: 'tcp' })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe('')
    first.close()
    await until(() => reasonsOf(balancer) !== '', 'it was not taken out')
    expect(reasonsOf(balancer)).toBe(`probe: tcp check: connect ECONNREFUSED 127.0.0.1:${port}`)
    const second = http.createServer()
    closedAfter(second)
    await listening(second, port)
    await until(() => reasonsOf(balancer) === '', 'it was not taken back')
  })

  test('a TCP check leaves no connection open', async () => {
    let open = 0
    let all = 0
    const server = net.createServer((socket) => {
      open++
      all++
      socket.on('error', () => {}).on('close', () => open--)
      socket.resume()
    })
    closedAfter(server)
    const balancer = checked([`http://127.0.0.1:${await listening(server)}`], { type: 'tcp', intervalMs: 5 })
    await until(() => all > 20, 'no checks')
    expect(open).toBeLessThanOrEqual(2)
    await balancer.close()
    await until(() => open === 0, 'a connection stayed open')
  })

  test('a check of a port where nobody answers ends by its timeout, and its connection with it', async () => {
    let closed = 0
    const server = net.createServer((socket) =>
      socket
        .on('error', () => {})
        .on('close', () => closed++)
        .resume(),
    )
    closedAfter(server)
    const url = `http://127.0.0.1:${await listening(server)}`
    const balancer = checked([url], { timeoutMs: 50 })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe('probe: http check: no answer within 50 ms')
    await until(() => closed > 1, 'the connection stayed open')
  })

  test.skipIf(!Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1')))(
    'an IPv6 address in a URL is reached by both (skipped where there is none)',
    async () => {
      const server = http.createServer((_, response) => response.end('ok'))
      closedAfter(server)
      const url = `http://[::1]:${await listening(server, 0, '::1')}`
      for (const type of ['http', 'tcp'] as const) {
        const balancer = checked([url], { type })
        await balancer.ready()
        expect(reasonsOf(balancer)).toBe('')
        await balancer.close()
      }
    },
  )

  test('a name with several addresses is told with the failure of each', async () => {
    const { port } = await nobody()
    const balancer = checked([`http://localhost:${port}`], { type: 'tcp' })
    await balancer.ready()
    expect(reasonsOf(balancer)).toMatch(/^probe: tcp check: connect ECONNREFUSED .*:\d+/)
  })

  describe.each(['http', 'tcp'] as const)('TLS, type %s', (type) => {
    const secure = async (): Promise<string> => {
      const server = https.createServer({ cert: CERT, key: KEY }, (_, response) => response.end('ok'))
      server.on('tlsClientError', () => {})
      onTestFinished(() => server.closeAllConnections())
      closedAfter(server)
      return `https://localhost:${await listening(server, 0, 'localhost')}`
    }

    test('with `undici.tls.ca` a backend that signed for itself is well', async () => {
      const balancer = checked([await secure()], { type }, { undici: { tls: { ca: CERT } } })
      await balancer.ready()
      expect(reasonsOf(balancer)).toBe('')
      expect(await (await balancer.fetch('/')).text()).toBe('ok')
    })

    test('without it, it is not', async () => {
      const balancer = checked([await secure()], { type })
      await balancer.ready()
      expect(reasonsOf(balancer)).toMatch(new RegExp(`^probe: ${type} check: .*self-signed certificate`))
    })
  })

  test('HTTP checks go over the connections of the traffic', async () => {
    const { url, got, server } = await keeper()
    let connections = 0
    server.on('connection', () => connections++)
    const balancer = checked([url], { path: '/health', intervalMs: 10 })
    await balancer.ready()
    await (await balancer.fetch('/real')).text()
    await until(() => got.length > 20, 'no checks')
    expect(got.filter(({ path }) => path === '/real')).toHaveLength(1)
    expect(connections).toBeLessThanOrEqual(2) // a second one if the request met a check under way
  })

  test('a backend that answers and never ends costs one connection, not one a check', async () => {
    let open = 0
    let asked = 0
    const { url, server } = await upstream((_, response) => {
      asked++
      response.write('x')
    })
    server.on('connection', (socket) => {
      open++
      socket.on('close', () => open--)
    })
    const balancer = checked([url], { intervalMs: 10 })
    await until(() => asked > 20, 'no checks')
    expect(reasonsOf(balancer)).toBe('')
    await pause(20)
    expect(open).toBeLessThanOrEqual(3)
    await balancer.close()
    await until(() => open === 0, 'a connection stayed open')
  })
})
