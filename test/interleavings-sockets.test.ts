import assert from 'node:assert/strict'
import { type Answer, type Attempt, type BalancerError, createBalancer, type Watcher } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { afterAll, beforeAll, test } from 'vitest'
import { type RawConnection, type RawServer, rawServer } from '../src/testing/raw-server.ts'
import { balance, nobody, pause, until } from './support/upstreams.ts'

const RUNS = 220
const BIG = 'x'.repeat(300_000)

/** What a backend does with a request: its path says so. */
const SCRIPTS: Readonly<Record<string, (connection: RawConnection) => void>> = {
  answer: ({ socket }) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'),
  busy: ({ socket }) => socket.write('HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy'),
  big: ({ socket }) => socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${BIG.length}\r\n\r\n${BIG}`),
  last: ({ socket }) => socket.end('HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end'),
  slow: ({ socket }) => {
    socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n')
    setTimeout(() => socket.destroyed || socket.write('2\r\ncd\r\n0\r\n\r\n'), 8)
  },
  stall: () => {},
  halt: ({ socket }) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf'),
  reset: ({ socket }) => socket.resetAndDestroy(),
  cut: ({ socket }) => {
    socket.write('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf', () => socket.destroy())
  },
  gone: ({ socket }) => socket.destroy(),
  noise: ({ socket }) => socket.write('this is no HTTP\r\n\r\n'),
}

const servers: RawServer[] = []
beforeAll(async () => {
  for (let i = 0; i < 3; i++) {
    servers.push(
      await rawServer((connection, head) => {
        const script = /^\w+ \/(\w+)/.exec(head)![1]!
        SCRIPTS[script]!(connection)
      }),
    )
  }
})
afterAll(() => Promise.all(servers.map((server) => server.close())))

const who = fc.nat()
/** What may happen next; the numbers choose whom it happens to. */
const action = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant('call' as const),
      face: fc.constantFrom('fetch' as const, 'request' as const),
      script: fc.constantFrom('answer', 'answer', ...Object.keys(SCRIPTS)),
      method: fc.constantFrom('GET', 'GET', 'POST', 'PUT'),
      timeoutMs: fc.constantFrom(0, 0, 15),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('abort' as const), who }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      who,
      how: fc.constantFrom('whole' as const, 'stream' as const, 'first' as const, 'giveUp' as const),
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('time' as const), ms: fc.constantFrom(0, 0, 1, 4, 12) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('update' as const),
      servers: fc.subarray([0, 1, 2], { minLength: 1 }),
      weight: fc.constantFrom(1, 2),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('drain' as const), who }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('enable' as const), who }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('lend' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('close' as const), drainMs: fc.constantFrom(0, 10) }),
  },
)

/** One call as its caller sees it. */
interface Caller {
  readonly controller: AbortController
  readonly ended: Promise<unknown>
  answer: Response | Answer | undefined
  read: boolean
}

/** Reads an answer in one way; how that ends is the network's business. */
async function read(answer: Response | Answer, how: 'whole' | 'stream' | 'first' | 'giveUp'): Promise<void> {
  if (how === 'whole') return void (await (answer instanceof Response ? answer : answer.body).text())
  if (how === 'giveUp') {
    if (answer instanceof Response) return void (await answer.body?.cancel())
    return answer.body.dump({ limit: 1 })
  }
  const body: AsyncIterable<Uint8Array> | null = answer.body
  for await (const _ of body ?? []) if (how === 'first') return
}

function sockets(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap' || name === 'TCPConnectWrap').length
}

test('a refused connection passes its place on to those that wait, and no exception escapes', async () => {
  const balancer = balance([await nobody()], { undici: { connections: 1 }, retry: { attempts: 1 } })
  const ends = await Promise.allSettled(Array.from({ length: 5 }, () => balancer.fetch('/')))
  for (const end of ends) assert.match(String(end.status === 'rejected' && end.reason), /ECONNREFUSED/)
})

test(`a lease ends exactly once and no socket stays in ${RUNS} interleavings on real sockets`, async () => {
  let attempts = 0
  let begun = 0
  const baseline = sockets()
  const ways = new Map<string, number>()
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 10, maxLength: 60, size: 'max' }), fc.nat(), async (steps, seed) => {
      const admitted = new Map<string, number>()
      const settled = new Map<Attempt, number>()
      let over = 0
      const watcher: Watcher = {
        name: 'witness',
        start: () => ({
          gate: {
            name: 'witness',
            admit: ({ id }) => admitted.set(id, (admitted.get(id) ?? 0) + 1).size > 0,
            release: ({ id }) => void admitted.set(id, (admitted.get(id) ?? 0) - 1),
          },
          sink: {
            name: 'witness',
            attempt: (attempt) => void settled.set(attempt, (settled.get(attempt) ?? 0) + 1),
            call({ method }) {
              if (method !== 'ACQUIRE') over++
            },
          },
          stop() {},
        }),
      }
      const options = {
        random: seededRandom(seed),
        watchers: [watcher],
        undici: { connections: seed % 3 === 0 ? 2 : 256 },
        retry: { baseMs: 2 },
        timeouts: { connectMs: 50, headersMs: 20, idleMs: 20, leaseMs: 10 },
        health: {
          passive: seed % 2 === 0 && { consecutive: 2, baseMs: 10 },
          active: seed % 5 === 0 && { path: '/answer', intervalMs: 5, timeoutMs: 20 },
        },
      } as const
      const balancer = createBalancer({ ...options, backends: servers.map(({ url }) => url) })
      const callers: Caller[] = []
      let lent = 0
      let closing: Promise<void> | undefined
      const pick = <T>(list: readonly T[], who: number): T | undefined => list[who % Math.max(1, list.length)]
      const ids = (): string[] => balancer.stats().pools.default!.backends.map(({ id }) => id)

      for (const step of steps) {
        switch (step.kind) {
          case 'call': {
            const { face, script, method, timeoutMs } = step
            const controller = new AbortController()
            const { signal } = controller
            const init = { method, signal, ...(method !== 'GET' && { body: 'a body' }) }
            const answer =
              face === 'fetch'
                ? balancer.fetch(`/${script}`, { ...init, balancer: { timeoutMs } })
                : balancer.request(`/${script}`, { ...init, timeoutMs })
            const ended = answer.then(
              (it) => {
                caller.answer = it
              },
              () => {},
            )
            const caller: Caller = { controller, ended, answer: undefined, read: false }
            callers.push(caller)
            break
          }
          case 'abort':
            pick(callers, step.who)?.controller.abort(new Error('abort'))
            break
          case 'read': {
            const caller = pick(
              callers.filter((it) => it.answer !== undefined && !it.read),
              step.who,
            )
            if (caller === undefined) break
            caller.read = true
            read(caller.answer!, step.how).catch(() => {})
            break
          }
          case 'time':
            await pause(step.ms)
            break
          case 'update':
            if (closing !== undefined) break
            await balancer.update({
              ...options,
              backends: step.servers.map((i) => ({ url: servers[i]!.url, weight: step.weight })),
            })
            break
          case 'drain':
            void balancer.drain(pick(ids(), step.who)!)
            break
          case 'enable':
            balancer.enable(pick(ids(), step.who)!)
            break
          case 'lend':
            if (closing !== undefined) break
            lent++
            try {
              balancer.acquire()
            } catch (error) {
              assert.equal((error as BalancerError).code, 'NO_BACKEND')
            }
            break
          case 'close':
            closing ??= balancer.close({ drainMs: step.drainMs })
            break
        }
      }

      // The callers leave; leases are left to their timeouts, and nothing the backends do may hold the others.
      for (const caller of callers) {
        if (caller.answer === undefined) caller.controller.abort(new Error('leaving'))
      }
      await Promise.all(callers.map(({ ended }) => ended))
      for (const { answer, read: wasRead, controller } of callers) {
        if (answer !== undefined && !wasRead) read(answer, 'giveUp').catch(() => {})
        controller.abort(new Error('leaving'))
      }
      const stats = (): ReturnType<typeof balancer.stats>['pools'][string] => balancer.stats().pools.default!
      await until(() => stats().inflight === 0, 'something stayed in flight')
      await (closing ?? balancer.close())

      const { backends, attempts: made, calls } = stats()
      for (const { id, inflight } of backends) assert.equal(inflight, 0, `${id} has something in flight`)
      assert.equal(settled.size, made, 'an attempt never settled')
      for (const times of settled.values()) assert.equal(times, 1, 'an attempt must settle exactly once')
      for (const [id, left] of admitted) assert.equal(left, 0, `a lease on ${id} was not given back exactly once`)
      assert.equal(over, calls - lent, 'every call must be over once')
      const open = (): number => servers.flatMap(({ connections }) => connections.filter((it) => !it.closed)).length
      await until(() => open() === 0, 'a connection stayed open')
      await until(() => sockets() <= baseline, 'a socket stayed behind')
      attempts += made
      begun += calls
      for (const { outcome } of settled.keys()) ways.set(outcome!.class, (ways.get(outcome!.class) ?? 0) + 1)
    }),
    { numRuns: RUNS, seed: 20_261_122, endOnFailure: true },
  )
  console.log(
    `${RUNS} interleavings: ${begun} calls, ${attempts} attempts: ${JSON.stringify(Object.fromEntries(ways))}`,
  )
  // The story is only worth telling if all of it happened.
  const expected = ['ok', 'server-error', 'reset', 'truncated', 'timeout', 'cancelled', 'protocol']
  for (const kind of expected) assert.ok(ways.has(kind), `no attempt ended as ${kind}`)
})
