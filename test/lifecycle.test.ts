import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { fileURLToPath } from 'node:url'
import { type Clock, createBalancer, memory, type Watcher } from 'evenkeel'
import { type ManualClock, manualClock } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { balancerBench } from './support/balancer-bench.ts'
import { cachedEnv } from './support/compile-cache.ts'
import { status } from './support/plays.ts'
import { balancerError } from './support/scripted.ts'
import { balance, idle, inflight, keeper, nobody, pause, until } from './support/upstreams.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const env = cachedEnv()

/** Whether a promise has resolved by now. */
async function isOver(promise: Promise<unknown>, clock: ManualClock): Promise<boolean> {
  let over = false
  void promise.then(() => {
    over = true
  })
  await clock.advance(0)
  return over
}

function reasonsOf({ balancer }: { readonly balancer: ReturnType<typeof createBalancer> }): readonly string[][] {
  return balancer.stats().pools.default!.backends.map(({ reasons }) => [...reasons])
}

describe('drain(id)', () => {
  test('resolves when nothing is in flight on it, and nothing new is sent to it meanwhile', async () => {
    const bench = balancerBench(undefined, { ids: 'ab' })
    const { balancer, clock, transport } = bench
    const first = bench.start()
    const second = bench.start()
    await clock.advance(0)
    const draining = transport.sends.find(({ to }) => to === 'a')!
    const drained = balancer.drain('a')
    for (let i = 0; i < 10; i++) bench.start()
    await clock.advance(0)
    expect(transport.sends.slice(2).map(({ to }) => to)).toEqual(Array(10).fill('b'))
    expect(await isOver(drained, clock)).toBe(false)
    const body = draining.head(200)
    body.push('half')
    expect(await isOver(drained, clock)).toBe(false)
    body.end()
    expect(await isOver(drained, clock)).toBe(true)
    expect((await Promise.race([first.ended, second.ended])).error).toBeUndefined()
    expect(reasonsOf(bench)).toEqual([['drain'], []])
    balancer.enable('a')
    expect(reasonsOf(bench)).toEqual([[], []])
  })

  test('resolves at once when it is idle, and again when asked again', async () => {
    const bench = balancerBench(status(200))
    await bench.balancer.drain('a')
    await bench.balancer.drain('a')
    expect(reasonsOf(bench)).toEqual([['drain'], [], []])
  })

  test('waits for a lease too, and ends when its backend is removed and idle', async () => {
    const { balancer, clock, transport } = balancerBench(status(200), { ids: 'ab' })
    const lease = balancer.acquire({ prefer: 'a' })
    const drained = balancer.drain('a')
    await balancer.update({ transport, clock, backends: ['http://b.test'] })
    expect(await isOver(drained, clock)).toBe(false)
    lease.succeed()
    expect(await isOver(drained, clock)).toBe(true)
  })

  test('drains it in every pool that has it', async () => {
    const backends = ['http://a.test', 'http://b.test']
    const balancer = createBalancer({
      pools: { one: { backends }, two: { backends }, three: { backends: ['http://c'] } },
    })
    const lease = balancer.acquire({ pool: 'two', prefer: 'a.test' })
    expect(lease.backend.id).toBe('a.test')
    const clock = manualClock()
    const drained = balancer.drain('a.test')
    expect(await isOver(drained, clock)).toBe(false)
    lease.cancel()
    await drained
    const { one, two } = balancer.stats().pools
    expect([one, two].map((pool) => pool!.backends[0]!.reasons)).toEqual([['drain'], ['drain']])
    await balancer.close()
  })

  test('on real sockets lets an answer under way finish', async () => {
    const waiting: ServerResponse[] = []
    const a = await keeper((_, response) => void waiting.push(response))
    const b = await keeper()
    const balancer = balance([a, b])
    const prefer = new URL(a.url).host
    const answer = balancer.fetch('/', { balancer: { prefer } }).then((response) => response.text())
    await until(() => waiting.length === 1, 'it did not arrive')
    let drained = false
    const draining = balancer.drain(prefer).then(() => {
      drained = true
    })
    for (let i = 0; i < 20; i++) await (await balancer.fetch('/')).text()
    expect(drained).toBe(false)
    waiting[0]!.end('late')
    expect(await answer).toBe('late')
    await draining
    expect(a.got).toHaveLength(1)
    expect(b.got).toHaveLength(20)
  })
})

describe('an attempt that begins when its backend is being left', () => {
  test('knows so while the balancer closes', async () => {
    const bench = balancerBench(undefined, { retry: { baseMs: 0 } })
    const { call, ended } = bench.start()
    await bench.clock.advance(0)
    const closed = bench.balancer.close({ drainMs: 1_000 })
    expect(call.attempts.map(({ draining }) => draining)).toEqual([true])
    bench.transport.sends[0]!.refuse()
    await bench.clock.advance(1)
    expect(call.attempts.map(({ draining }) => draining)).toEqual([true, true])
    bench.transport.sends[1]!.answer()
    ;(await ended).response!.body.discard()
    await closed
  })

  test.each(['drained', 'removed', 'disabled'])('knows so when it was %s by who admitted it', async (how) => {
    let done: Promise<unknown> | undefined
    const leaving: Watcher = {
      name: 'leaving',
      start: () => ({ gate: { name: 'leaving', admit: ({ id }) => leave(id), release: () => {} }, stop: () => {} }),
    }
    const options = { watchers: [leaving] }
    const { balancer, clock, start, transport } = balancerBench(undefined, options)
    const leave = (id: string): boolean => {
      if (how === 'drained') done = balancer.drain(id)
      else if (how === 'disabled') balancer.disable(id)
      else done = balancer.update({ ...options, backends: ['http://z.test'], transport, clock })
      return true
    }
    const { call, ended } = start()
    await clock.advance(0)
    expect(call.attempts[0]!.draining).toBe(how !== 'disabled')
    transport.sends[0]!.answer()
    ;(await ended).response!.body.discard()
    await done
  })
})

describe('disable(id) and enable(id)', () => {
  test('take it out and back; who does so twice does it once', async () => {
    const bench = balancerBench(status(200))
    const { balancer } = bench
    const events: string[] = []
    balancer.on('blocked', ({ id }, { by, hard }) => void events.push(`blocked ${id} ${by} ${hard}`))
    balancer.on('unblocked', ({ id }, { by }) => void events.push(`unblocked ${id} ${by}`))
    balancer.disable('b')
    for (let i = 0; i < 6; i++) await bench.call()
    expect(bench.to()).not.toContain('b')
    balancer.enable('b')
    balancer.enable('b')
    for (let i = 0; i < 3; i++) await bench.call()
    expect(bench.to().slice(6)).toContain('b')
    expect(events).toEqual(['blocked b operator true', 'unblocked b operator'])
  })

  test('of a name nobody has is a CONFIG error that lists the names there are', async () => {
    const { balancer } = balancerBench(status(200))
    const message = 'no backend is named "z"; there are: a, b, c'
    for (const run of [() => balancer.disable('z'), () => balancer.enable('z')]) {
      expect(run).toThrow(expect.objectContaining({ code: 'CONFIG', message }))
    }
    expect(await balancerError(balancer.drain('z'))).toMatchObject({ code: 'CONFIG', message })
  })

  test('are heard in panic: with everybody disabled there is nobody, with all but one there is that one', async () => {
    const bench = balancerBench((send) => (send.to === 'c' ? send.answer(503) : send.answer(200)), {
      retry: { attempts: 1 },
      health: { passive: { consecutive: 1 }, panicBelow: 1 },
    })
    const { balancer } = bench
    for (let i = 0; i < 3; i++) await bench.call()
    balancer.disable('a')
    void balancer.drain('b')
    expect(balancer.stats().pools.default!.panic).toBe(true)
    const before = bench.to().length
    for (let i = 0; i < 10; i++) await bench.call()
    expect(bench.to().slice(before)).toMatch(/^c+$/)
    balancer.disable('c')
    const { error } = await bench.call()
    expect(error).toMatchObject({ code: 'NO_BACKEND' })
    expect(String(error)).toMatch(/a: operator, b: drain|a: operator; b: drain/)
  })

  test('survive an update of everything but the URL', async () => {
    const bench = balancerBench(status(200))
    const { balancer, clock, transport } = bench
    balancer.disable('a')
    void balancer.drain('b')
    balancer.disable('c')
    await balancer.update({
      transport,
      clock,
      strategy: 'random',
      health: { passive: false },
      backends: [
        { url: 'http://a.test', id: 'a', weight: 9 },
        { url: 'http://b.test', id: 'b' },
        { url: 'http://other.test', id: 'c' },
      ],
    })
    expect(reasonsOf(bench)).toEqual([['operator'], ['drain'], []])
  })
})

describe('close', () => {
  test('with drainMs lets calls under way finish and takes no more', async () => {
    const waiting: ServerResponse[] = []
    const a = await keeper((_, response) => void waiting.push(response))
    const balancer = createBalancer({ backends: [a.url] })
    const answer = balancer.fetch('/').then((response) => response.text())
    await until(() => waiting.length === 1, 'it did not arrive')
    let closed = false
    const closing = balancer.close({ drainMs: 10_000 }).then(() => {
      closed = true
    })
    expect((await balancerError(balancer.fetch('/'))).code).toBe('CLOSED')
    await pause(30)
    expect(closed).toBe(false)
    waiting[0]!.end('in time')
    expect(await answer).toBe('in time')
    await closing
    expect(a.got).toHaveLength(1)
  })

  test('with drainMs waits for a body to its end, and no longer than it was told to', async () => {
    const bench = balancerBench((send) => void send.head(200).push('half'))
    const { balancer, clock, transport } = bench
    const { response } = await bench.call()
    let failure: unknown
    response!.body.consume({ chunk: () => true, end() {}, fail: (error) => (failure = error) })
    const closing = balancer.close({ drainMs: 5_000 })
    await clock.advance(4_999)
    expect(failure).toBeUndefined()
    expect(await isOver(closing, clock)).toBe(false)
    await clock.advance(1)
    expect(failure).toMatchObject({ code: 'CLOSED' })
    expect(await isOver(closing, clock)).toBe(true)
    expect(transport.last().body!.canceledWith).toBeDefined()
    expect(clock.pending).toBe(0)
  })

  test('without it ends what is under way now: waiting, pausing before a retry, answered, lent', async () => {
    const bench = balancerBench((send, number) => (number === 1 ? send.refuse() : undefined), {
      retry: { baseMs: 1_000, maxMs: 1_000 },
      random: (below) => below - 1,
    })
    const { balancer, clock } = bench
    const calls = [bench.start(), bench.start()]
    const lease = balancer.acquire()
    await clock.advance(0)
    const stats = (): unknown => balancer.stats().pools.default!.inflight
    expect(stats()).toBe(2)
    await balancer.close()
    for (const { ended } of calls) expect((await ended).error).toMatchObject({ code: 'CLOSED' })
    expect(stats()).toBe(0)
    lease.succeed() // says nothing any more
    expect(clock.pending).toBe(0)
  })

  test('twice is once, whatever the second asks for; `closed` is told once', async () => {
    const { balancer, clock } = balancerBench(status(200))
    let closed = 0
    balancer.on('closed', () => closed++)
    const first = balancer.close()
    expect(balancer.close({ drainMs: 60_000 })).toBe(first)
    await first
    await balancer.close()
    expect(closed).toBe(1)
    expect(clock.pending).toBe(0)
  })

  test('is what `await using` does at the end of its block', async () => {
    const a = await keeper()
    let open = 0
    a.server.on('connection', (socket) => {
      open++
      socket.on('close', () => open--)
    })
    let kept: ReturnType<typeof createBalancer>
    {
      await using balancer = createBalancer({ backends: [a.url] })
      kept = balancer
      expect(await (await balancer.fetch('/')).text()).toBe('ok')
      expect(open).toBe(1)
    }
    expect((await balancerError(kept.fetch('/'))).code).toBe('CLOSED')
    await until(() => open === 0, 'a connection stayed open')
  })

  test('makes every later call fail with CLOSED, while numbers can still be read', async () => {
    const { balancer, call, transport } = balancerBench(status(200))
    await call()
    await balancer.close()
    const request = { method: 'GET', path: '/', headers: [], body: null }
    for (const ask of [
      () => balancer.fetch('/'),
      () => balancer.request('/'),
      () => balancer.send(request).response,
      () => balancer.ready(),
      () => balancer.update({ backends: ['http://a.test'] }),
      async () => balancer.acquire(),
    ]) {
      expect(await balancerError(ask())).toMatchObject({ code: 'CLOSED', message: 'the balancer evenkeel is closed' })
    }
    expect(transport.sends).toHaveLength(1)
    expect(balancer.stats().pools.default!.calls).toBe(1)
  })

  test('from a listener, in the middle of things, does no harm', async () => {
    const bench = balancerBench((send) => send.refuse(), { health: { passive: { consecutive: 1 } } })
    const { balancer, clock } = bench
    let closing: Promise<void> | undefined
    balancer.on('blocked', () => {
      closing ??= balancer.close()
    })
    expect((await bench.call()).error).toBeDefined()
    await closing
    expect(balancer.stats().pools.default!.inflight).toBe(0)
    expect(clock.pending).toBe(0)
  })
})

/** A manual clock that counts how many timers were ever set. */
function countedClock(): { readonly clock: ManualClock; readonly set: () => number } {
  const clock = manualClock()
  let set = 0
  const after: Clock['after'] = clock.after
  clock.after = (ms, run) => {
    set++
    return after(ms, run)
  }
  return { clock, set: () => set }
}

const HOUR_MS = 3_600_000

describe('an hour of idleness', () => {
  test('sets no timer: neither new, nor after traffic, failures, an ejection that ended and leases', async () => {
    const { clock, set } = countedClock()
    const transport = memory({ a: { headMs: 5 }, b: { status: 503 }, c: { failure: { phase: 'connect' } } }, { clock })
    const backends = ['a', 'b', 'c'].map((id) => ({ id, url: `http://${id}.test` }))
    const balancer = createBalancer({
      backends,
      transport,
      clock,
      health: { passive: { consecutive: 1, maxShare: 1 } },
    })
    await clock.advance(HOUR_MS)
    expect(set()).toBe(0)
    for (let i = 0; i < 30; i++) {
      const response = balancer.request('/').then(({ body }) => body.text())
      for (let ms = 0; ms < 200; ms++) await clock.advance(1)
      await response.catch(() => {})
    }
    balancer.acquire().succeed()
    await clock.advance(60_000) // ejections end, failures are forgiven, the timer of deadlines lapses
    const before = set()
    expect(before).toBeGreaterThan(0)
    await clock.advance(HOUR_MS)
    expect(set()).toBe(before)
    expect(clock.pending).toBe(0)
    await balancer.close()
  })

  test('with probes sets their timers and no other: one for the answer and one for the pause, for each check', async () => {
    const { clock, set } = countedClock()
    const transport = memory({ a: {}, b: { status: 500 } }, { clock })
    const backends = ['a', 'b'].map((id) => ({ id, url: `http://${id}.test` }))
    const active = { intervalMs: 10_000, jitter: 0 }
    const balancer = createBalancer({ backends, transport, clock, health: { active } })
    await clock.advance(0)
    await clock.advance(HOUR_MS)
    const checks = 2 * (HOUR_MS / 10_000 + 1)
    expect(transport.requests).toHaveLength(checks)
    expect(set()).toBe(2 * checks)
    expect(clock.pending).toBe(2)
    await balancer.close()
  })
})

/** Runs a script in a process of its own and tells how it ended; it is killed after 10 s. */
async function ending(
  script: string,
  ...urls: readonly string[]
): Promise<{ readonly code: number | null; readonly ms: number; readonly said: string }> {
  const args = ['--disable-warning=ExperimentalWarning', '--import', './scripts/from-source.mjs', '--input-type=module']
  const program = `
    import { createBalancer } from 'evenkeel'
    const urls = process.argv.slice(1)
    const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
    ${script}
    console.log('done')
    globalThis.doneMs = Date.now()
    process.on('exit', () => console.log('after', Date.now() - globalThis.doneMs))`
  const child = spawn(process.execPath, [...args, '-e', program, '--', ...urls], {
    cwd: ROOT,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 10_000,
    killSignal: 'SIGKILL',
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (said += data))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, ms: Number(/after (\d+)/.exec(said)?.[1] ?? NaN), said }
}

describe('a process ends by itself', () => {
  const ends = async (script: string, ...urls: readonly string[]): Promise<void> => {
    const { code, ms, said } = await ending(script, ...urls)
    expect(code, said).toBe(0)
    expect(said).toMatch(/^done\nafter \d+\n$/)
    expect(ms).toBeLessThan(3_000)
  }

  test.each(['http', 'tcp'])('with an idle balancer, %s checks and kept-alive connections', async (type) => {
    const { url, got } = await keeper()
    await ends(
      `const active = { type: '${type}', intervalMs: 50 }
       const balancer = createBalancer({ backends: urls, health: { active }, undici: { keepAliveMs: 60_000 } })
       await balancer.ready()
       const all = Array.from({ length: 5 }, () => balancer.fetch('/').then((response) => response.text()))
       await Promise.all(all)
       await wait(200)`,
      url,
    )
    expect(got.length).toBeGreaterThanOrEqual(5)
  })

  test('with a check under way that nobody answers', async () => {
    const { url } = await keeper(() => {})
    await ends(`createBalancer({ backends: urls, health: { active: { timeoutMs: 500 } } }); await wait(100)`, url)
  })

  test('after an ejection', async () => {
    await ends(
      `const balancer = createBalancer({ backends: urls, health: { passive: { consecutive: 1, baseMs: 60_000 } } })
       const hold = setInterval(() => {}, 1_000)
       for (let i = 0; i < 20; i++) await balancer.fetch('/').then((response) => response.text())
       clearInterval(hold)
       if (!balancer.stats().pools.default.backends.some(({ reasons }) => reasons.length > 0)) throw new Error('none')`,
      (await nobody()).url,
      (await keeper()).url,
    )
  })

  test('with a lease that nobody ends', async () => {
    await ends(`createBalancer({ backends: urls }).acquire()`, (await nobody()).url)
  })

  test('after the pause before a retry, not in it: somebody waits for the answer', async () => {
    await ends(
      `const balancer = createBalancer({ backends: urls, retry: { attempts: 2, baseMs: 500 } })
       const error = await balancer.fetch('/').catch((error) => error)
       if (error.code !== 'CONNECT') throw error`,
      (await nobody()).url,
    )
  })

  test('in the pause before a retry of a call that was given up', async () => {
    await ends(
      `const balancer = createBalancer({ backends: urls, retry: { baseMs: 60_000, maxMs: 600_000 } })
       const retried = new Promise((resolve) => balancer.on('retry', resolve))
       const controller = new AbortController()
       const ended = balancer.fetch('/', { signal: controller.signal }).catch(() => {})
       await retried
       controller.abort()
       await ended`,
      (await nobody()).url,
    )
  })

  test('after close, whatever was open', async () => {
    const { url } = await keeper((request, response) =>
      request.url === '/slow' ? response.write('x') : response.end(),
    )
    await ends(
      `const balancer = createBalancer({ backends: urls, health: { active: { intervalMs: 50 } } })
       const slow = await balancer.fetch('/slow')
       slow.text().catch(() => {})
       await balancer.close()`,
      url,
    )
  })
})

test('nothing is in flight after an answer that nobody reads, once it has come', async () => {
  const a = await keeper()
  const balancer = balance([a])
  await balancer.fetch('/')
  await idle(balancer)
  expect(inflight(balancer)).toBe(0)
})
