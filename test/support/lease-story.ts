import assert from 'node:assert/strict'
import {
  type Attempt,
  type BalancerResponse,
  type BodyControl,
  createBalancer,
  type Gate,
  type Sending,
  type Watcher,
} from 'evenkeel'
import { manualClock, seededRandom } from 'evenkeel/testing'
import fc from 'fast-check'
import { puppet } from './puppet.ts'

const BACKENDS = ['http://a.test', 'http://b.test', 'http://c.test', 'http://d.test']

/** What may happen next; the numbers choose whom it happens to. */
const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('call' as const),
      method: fc.constantFrom('GET', 'POST', 'PUT'),
      timeoutMs: fc.constantFrom(0, 0, 40, 5_000),
    }),
  },
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('head' as const),
      who: fc.nat(),
      status: fc.constantFrom(200, 200, 200, 404, 429, 503, 503, 503, 999),
      length: fc.constantFrom('', '10', '99999'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('failHead' as const),
      who: fc.nat(),
      phase: fc.constantFrom('wait' as const, 'connect' as const, 'tls' as const, 'head' as const),
      reused: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('chunk' as const), who: fc.nat(), bytes: fc.constantFrom(0, 10, 70_000) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('end' as const), who: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('failBody' as const), who: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('abort' as const), who: fc.nat(), timeout: fc.boolean() }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      who: fc.nat(),
      how: fc.constantFrom('all' as const, 'once' as const, 'discard' as const),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('resume' as const), who: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('giveUp' as const), who: fc.nat() }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('time' as const),
      ms: fc.constantFrom(0, 1, 30, 600, 1_000, 6_000, 400_000),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('update' as const),
      backends: fc.subarray(BACKENDS, { minLength: 1 }),
      weight: fc.constantFrom(0, 1, 2),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('close' as const), drainMs: fc.constantFrom(0, 100) }) },
)

/** Stories of calls, answers, aborts, failures, time, updates and a close, in any order: in each of them every lease ends exactly once. */
export async function leaseStories(runs: number): Promise<void> {
  await fc.assert(
    fc.asyncProperty(
      fc.array(action, { minLength: 20, maxLength: 120, size: 'max' }),
      fc.nat(),
      async (actions, seed) => {
        const clock = manualClock()
        const passive = seed % 2 === 0
        const transport = puppet()
        const admitted = new Map<string, number>()
        const settled = new Map<Attempt, number>()
        const over: string[] = []
        const count = (key: string, by: number): void => void admitted.set(key, (admitted.get(key) ?? 0) + by)
        const gate = (name: string, refuses: boolean): Gate => ({
          name,
          admit(backend, call) {
            if (refuses && (call.picks + seed) % 5 === 0) return false
            count(`${name} ${backend.id}`, 1)
            return true
          },
          release: (backend) => count(`${name} ${backend.id}`, -1),
        })
        const watcher = (name: string, refuses: boolean): Watcher => ({
          name,
          start: () => ({
            gate: gate(name, refuses),
            sink: {
              name,
              attempt: (attempt) => void settled.set(attempt, (settled.get(attempt) ?? 0) + (refuses ? 0 : 1)),
              call: (call) => void (refuses || over.push(call.method)),
            },
            stop: () => {},
          }),
        })
        const options = {
          transport,
          clock,
          random: seededRandom(seed),
          watchers: [watcher('calm', false), watcher('moody', true)],
          health: { passive: passive && { consecutive: 1 }, slowStart: false } as const,
          retry: { baseMs: 1_000 },
          timeouts: { connectMs: 50, headersMs: 500, idleMs: 50_000 },
        }
        const balancer = createBalancer({ ...options, backends: BACKENDS })
        const calls: {
          sending: Sending
          answer?: BalancerResponse
          control?: BodyControl
          ends: number
          settled: number
        }[] = []
        let ended = 0
        let closing: Promise<void> | undefined

        const pick = <T>(list: readonly T[], who: number): T | undefined => list[who % Math.max(1, list.length)]
        for (const step of actions) {
          switch (step.kind) {
            case 'call': {
              const { method, timeoutMs } = step
              const sending = balancer.send({ method, path: '/', headers: [], body: null }, { timeoutMs })
              const call: (typeof calls)[number] = { sending, ends: 0, settled: 0 }
              calls.push(call)
              if (closing === undefined) sending.call.onEnd(() => ended++) // a closed balancer begins nothing
              sending.response.then(
                (answer) => {
                  call.settled++
                  call.answer = answer
                },
                () => call.settled++,
              )
              break
            }
            case 'head':
              pick(
                transport.sends.filter(({ stage }) => stage === 'pending'),
                step.who,
              )?.head(step.status, step.length === '' ? [] : ['Content-Length', step.length])
              break
            case 'failHead':
              pick(
                transport.sends.filter(({ stage }) => stage === 'pending'),
                step.who,
              )?.failHead(step.phase, step.reused)
              break
            case 'chunk':
              pick(
                transport.sends.filter(({ stage }) => stage === 'body'),
                step.who,
              )?.chunk(step.bytes)
              break
            case 'end':
              pick(
                transport.sends.filter(({ stage }) => stage === 'body'),
                step.who,
              )?.end()
              break
            case 'failBody':
              pick(
                transport.sends.filter(({ stage }) => stage === 'body'),
                step.who,
              )?.failBody()
              break
            case 'abort':
              pick(calls, step.who)?.sending.call.cancel(new Error('abort'))
              break
            case 'read': {
              const call = pick(
                calls.filter(({ answer, control }) => answer !== undefined && control === undefined),
                step.who,
              )
              if (call === undefined) break
              if (step.how === 'discard') call.answer!.body.discard()
              else {
                const end = (): void => {
                  assert.equal(++call.ends, 1, 'a reader was told the end twice')
                }
                call.control = call.answer!.body.consume({ chunk: () => step.how === 'all', end, fail: end })
              }
              call.control ??= { resume: () => {}, cancel: () => {} }
              break
            }
            case 'resume':
              pick(calls, step.who)?.control?.resume()
              break
            case 'giveUp':
              pick(calls, step.who)?.control?.cancel(new Error('enough'))
              break
            case 'time':
              await clock.advance(step.ms)
              break
            case 'update':
              if (closing === undefined) {
                await balancer.update({
                  ...options,
                  backends: step.backends.map((url) => ({ url, weight: step.weight + 1 })),
                })
              }
              break
            case 'close':
              closing ??= balancer.close({ drainMs: step.drainMs })
              break
          }
          await clock.advance(0)
          for (const { attempt, stage } of transport.sends) {
            if (attempt.outcome !== undefined)
              assert.equal(stage, 'over', 'the lease ended, the transport was not told')
          }
        }

        // The callers leave and the network fails what is pending, but bodies go on for ever: none may hold its lease.
        for (const { sending, answer, control } of calls) {
          if (answer === undefined) sending.call.cancel(new Error('leaving'))
          else if (control === undefined) answer.body.discard()
          else control.cancel(new Error('leaving'))
        }
        await clock.advance(0)
        for (let round = 0; round < 5; round++) {
          for (const send of [...transport.sends]) {
            send.failHead('head')
            send.chunk(70_000)
          }
          await clock.advance(0)
        }
        assert.equal(balancer.stats().pools.default!.inflight, 0)
        if (!passive) {
          await clock.advance(6_000) // a failure is forgiven after 5 s, and the deadlines' own timer lapses
          assert.equal(clock.pending, 0, 'a timer stayed behind')
        }
        const { inflight, backends } = balancer.stats().pools.default!
        assert.equal(inflight, 0)
        for (const backend of backends) assert.equal(backend.inflight, 0)
        for (const call of calls) assert.equal(call.settled, 1, 'a call must be answered or fail, once')
        const begun = calls.filter(({ sending }) => sending.call.attempts.length > 0)
        const attempts = begun.flatMap(({ sending }) => sending.call.attempts)
        assert.equal(attempts.length, transport.sends.length)
        for (const attempt of attempts) assert.equal(settled.get(attempt), 1, 'an attempt must settle exactly once')
        for (const [key, left] of admitted) assert.equal(left, 0, `${key} was not given back exactly once`)
        assert.equal(over.length, ended, 'sinks and callers must hear of the same ends')
        if (closing === undefined) {
          assert.equal(ended, calls.length)
          await balancer.close()
        } else await closing
        await clock.advance(600)
        assert.equal(clock.pending, 0, 'a timer stayed behind')
      },
    ),
    { numRuns: runs, seed: 20_261_122 },
  )
}
