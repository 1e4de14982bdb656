import assert from 'node:assert/strict'
import { faultServer, leftovers, seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { pause } from '../support/upstreams.ts'
import { GOOD, PLAYS } from './cases.ts'
import { FACES, type FaceName, type Seen } from './faces.ts'
import { ATTEMPTS, accounts, startFront } from './play.ts'

const SERVERS = 3
/** Calls under way at once. */
const INFLIGHT = 16
/** Nothing else may be told to a caller. */
const WORDS =
  /^(aborted|broken off|\d+|(\d+ )?(RESET|TIMEOUT|CONNECT|PROTOCOL|TRUNCATED|NO_BACKEND|CLOSED)|\d+, then (\w+))$/

const who = fc.nat()
const step = fc.oneof(
  {
    weight: 60,
    arbitrary: fc.record({
      kind: fc.constant('call' as const),
      face: fc.constantFrom<FaceName>('fetch', 'request', 'proxy'),
      method: fc.constantFrom('GET' as const, 'POST' as const),
    }),
  },
  {
    weight: 15,
    arbitrary: fc.record({ kind: fc.constant('play' as const), who, fault: fc.constantFrom({}, {}, ...PLAYS) }),
  },
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('abort' as const), who }) },
  { weight: 15, arbitrary: fc.record({ kind: fc.constant('time' as const), ms: fc.constantFrom(0, 1, 5, 20) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('update' as const),
      members: fc.subarray([0, 1, 2], { minLength: 1 }),
      weight: fc.constantFrom(1, 2),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('close' as const) }) },
)

/** How often each outcome was seen. */
export interface Interleaved {
  readonly calls: number
  readonly words: Readonly<Record<string, number>>
}

/** Faults, aborts, updates and the end at random, by three faces at 16 in flight: rejects if a promise is broken. */
export async function interleavings(runs: number): Promise<Interleaved> {
  const words: Record<string, number> = {}
  let total = 0
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 80, size: 'max' }), fc.nat(), async (steps, seed) => {
      const base = leftovers()
      const servers = await Promise.all(Array.from({ length: SERVERS }, () => faultServer()))
      const settings = {
        random: seededRandom(seed),
        retry: { attempts: ATTEMPTS, baseMs: 2, sameBaseMs: 2, waitMs: 50 },
        timeouts: { connectMs: 500, headersMs: 60, idleMs: 60 },
        health: { passive: { baseMs: 20 } },
      }
      const front = await startFront({ ...settings, backends: servers.map(({ url }) => url) })
      const underWay = new Map<Promise<unknown>, AbortController>()
      const outcomes = new Map<string, Seen>()
      let calls = 0
      let isClosed = false
      for (const one of steps) {
        switch (one.kind) {
          case 'call': {
            if (underWay.size >= INFLIGHT) await Promise.race(underWay.keys())
            const id = `${one.method}-${calls++}`
            const controller = new AbortController()
            const body = one.method === 'POST' ? { body: Buffer.from('body') } : {}
            const { signal } = controller
            const ended = FACES[one.face](front, { method: one.method, id, signal, ...body }).then((seen) => {
              underWay.delete(ended)
              outcomes.set(id, seen)
            })
            underWay.set(ended, controller)
            break
          }
          case 'play':
            void servers[one.who % SERVERS]!.play(one.fault)
            break
          case 'abort':
            ;[...underWay.values()][one.who % Math.max(1, underWay.size)]?.abort(new Error('abort'))
            break
          case 'time':
            await pause(one.ms)
            break
          case 'update': {
            if (isClosed) break
            const backends = one.members.map((i) => ({ url: servers[i]!.url, weight: one.weight }))
            await front.balancer.update({ ...settings, backends })
            break
          }
          case 'close':
            isClosed = true
            void front.balancer.close()
        }
      }
      await Promise.all(underWay.keys())
      await front.close()
      assert.equal(outcomes.size, calls, 'each call has an outcome')
      for (const [id, { words: told, status, text }] of outcomes) {
        assert.match(told, WORDS, id)
        if (status === 200 && text !== undefined) assert.equal(text, GOOD, id)
        words[told] = (words[told] ?? 0) + 1
        const times = servers.reduce((sum, { seen }) => sum + (seen.get(id) ?? 0), 0)
        assert.ok(times <= (id.startsWith('POST') ? 1 : ATTEMPTS + 1), `${id} was seen ${times} times`)
      }
      for (const { requests, seen } of servers) {
        assert.equal(
          [...seen.values()].reduce((sum, n) => sum + n, 0),
          requests,
          'every request has an id',
        )
      }
      assert.deepEqual(accounts(front.balancer), [])
      await Promise.all(servers.map((server) => server.close()))
      await base.restored()
      total += calls
    }),
    { numRuns: runs, seed: 20_261_123, endOnFailure: true },
  )
  return { calls: total, words }
}
