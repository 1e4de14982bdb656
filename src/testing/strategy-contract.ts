import assert from 'node:assert/strict'
import { LiveAttempt } from '../core/attempt.ts'
import type { BackendRecord } from '../core/backend.ts'
import type { LiveCall, Sending } from '../core/call.ts'
import type { Backend, Picker, Strategy } from '../core/contracts.ts'
import { CLASSES, type OutcomeClass } from '../core/outcome.ts'
import { backendsOf, type ContractCase, callOf, coreOf, membersOf } from './kit.ts'
import { type ManualClock, manualClock } from './manual-clock.ts'
import { seededRandom } from './seeded-random.ts'

/** Picks per case: enough for every backend of eight to be met under any sane strategy. */
const PICKS = 4_000

/**
 * What every strategy must keep to. `make` returns the strategy under test, anew for each case; give your own keys or tags
 * to calls by wrapping it. Run the cases with any runner: `for (const { name, run } of strategyContract(make)) test(name, run)`.
 */
export function strategyContract(make: () => Strategy): readonly ContractCase[] {
  const it = (name: string, check: (bench: Bench) => void): ContractCase => ({
    name: `strategy ${make().name}: ${name}`,
    run: async () => check(new Bench(make())),
  })
  return [
    it('has a name', ({ strategy }) => assert.match(strategy.name, /\S/)),
    it('picks nobody from nobody', (bench) => {
      const picker = bench.build([], [])
      assert.equal(bench.pick(picker), undefined)
    }),
    it('picks the only one', (bench) => {
      const [only] = bench.backends(1)
      const picker = bench.build([only!])
      for (let i = 0; i < 100; i++) assert.equal(bench.pick(picker), only)
    }),
    it('picks only who is eligible', (bench) => {
      const all = bench.backends(8)
      const eligible = all.filter((_, i) => i % 2 === 0)
      const picker = bench.build(all, eligible)
      for (let i = 0; i < PICKS; i++) assert.ok(eligible.includes(bench.pick(picker) as BackendRecord))
    }),
    it('reaches everyone who is eligible, under load that ends', (bench) => {
      const all = bench.backends(8)
      const picker = bench.build(all)
      const seen = new Set(bench.traffic(picker, PICKS, 4))
      assert.equal(seen.size, 8, `only ${[...seen].map((backend) => backend.id).join(', ')} were ever picked`)
    }),
    it('does not starve one of equals', (bench) => {
      const all = bench.backends(4)
      const picked = bench.traffic(bench.build(all), PICKS, 8)
      for (const backend of all) {
        const share = picked.filter((it) => it === backend).length / PICKS
        assert.ok(share > 0.1 && share < 0.5, `${backend.id} got ${share.toFixed(3)} of the picks, expected about 0.25`)
      }
    }),
    it('offers a second backend when the first is refused, within 100 asks', (bench) => {
      const picker = bench.build(bench.backends(4))
      const call = callOf(bench.clock.now())
      const seen = new Set<Backend | undefined>()
      for (let i = 0; i < 100; i++) {
        // The pool counts the asks of one call; a kit does it in its place.
        ;(call as { picks: number }).picks = i
        seen.add(picker(call))
      }
      assert.ok(seen.size > 1, 'the same backend 100 times: a hash strategy walks on by call.picks')
    }),
    it('never picks who has left, and knows who has come', (bench) => {
      const all = bench.backends(6)
      bench.traffic(bench.build(all.slice(0, 4)), 500, 4)
      const picked = new Set(bench.traffic(bench.build(all.slice(2)), PICKS, 4))
      assert.deepEqual(
        [...picked].map((backend) => backend.id).sort(),
        all
          .slice(2)
          .map((backend) => backend.id)
          .sort(),
      )
    }),
    it('goes on after everyone was gone', (bench) => {
      const all = bench.backends(3)
      bench.traffic(bench.build(all), 100, 2)
      assert.equal(bench.pick(bench.build(all, [])), undefined)
      assert.equal(new Set(bench.traffic(bench.build(all), 500, 2)).size, 3)
    }),
    it('survives weights that change between builds', (bench) => {
      const all = bench.backends(3)
      bench.traffic(bench.build(all), 100, 2)
      all[0]!.endpoint = { ...all[0]!.endpoint, weight: 0.5 }
      all[1]!.endpoint = { ...all[1]!.endpoint, weight: 7 }
      for (const backend of all) backend.reweigh()
      for (const backend of bench.traffic(bench.build(all), 500, 2)) assert.ok(all.includes(backend as BackendRecord))
    }),
    it('changes neither members nor backends', (bench) => {
      const all = bench.backends(4)
      const before = JSON.stringify(all)
      const picker = bench.build(all)
      for (let i = 0; i < 100; i++) bench.pick(picker)
      assert.equal(JSON.stringify(all), before)
    }),
    it('takes news of every kind of end, and shuts nobody out for good because of it', (bench) => {
      const all = bench.backends(3)
      const picker = bench.build(all)
      for (const kind of ['ok', 'server-error', 'connect', 'timeout', 'rate-limited', 'cancelled'] as const) {
        for (const backend of all) bench.tell(backend, kind)
      }
      assert.equal(new Set(bench.traffic(picker, PICKS, 4)).size, 3)
    }),
    it('repeats itself under the same seed', () => {
      const run = (): string[] => {
        const bench = new Bench(make())
        return bench.traffic(bench.build(bench.backends(5)), 500, 3).map((backend) => backend.id)
      }
      assert.deepEqual(run(), run())
    }),
    it('serves two pools from one object without mixing them', (bench) => {
      const other = new Bench(bench.strategy)
      const mine = bench.build(bench.backends(2))
      const theirs = other.build(other.backends(3, 'other'))
      for (let i = 0; i < 200; i++) {
        assert.doesNotMatch(bench.pick(mine)!.id, /other/)
        assert.match(other.pick(theirs)!.id, /other/)
      }
    }),
  ]
}

/** A strategy started over a manual clock and a seed, and traffic that takes leases and gives them back. */
class Bench {
  readonly strategy: Strategy
  readonly clock: ManualClock = manualClock()
  readonly #chooser: ReturnType<Strategy['start']>
  #members = membersOf([])

  constructor(strategy: Strategy) {
    this.strategy = strategy
    const core = coreOf(this.clock, seededRandom(42), () => this.#members)
    this.#chooser = strategy.start({ ...core, send: () => this.#unanswered() })
  }

  backends(n: number, name = 'backend'): BackendRecord[] {
    return backendsOf(Array.from({ length: n }, (_, i) => ({ url: `http://${name}-${i}.test` })))
  }

  build(all: readonly Backend[], eligible: readonly Backend[] = all): Picker {
    this.#members = membersOf(all, eligible)
    return this.#chooser.build(this.#members)
  }

  pick(picker: Picker): Backend | undefined {
    return picker(callOf(this.clock.now(), `key ${this.clock.now()}`))
  }

  /** What a strategy asks of backends beside the traffic stays without an answer here: it must do without. */
  #unanswered(): Sending {
    return { call: callOf(this.clock.now()), response: new Promise(() => {}) }
  }

  /** One attempt from its head to its end, as the pool would tell it. */
  tell(backend: BackendRecord, kind: OutcomeClass): void {
    const call = callOf(this.clock.now()) as LiveCall
    const lender = { now: () => this.clock.now(), headed: () => {}, settled: () => {}, report: () => {}, met: () => {} }
    const request = { method: 'GET', path: '/', headers: [], body: null }
    const by = { gates: [], chooser: this.#chooser, classes: CLASSES, classify: undefined }
    const attempt = new LiveAttempt(call, backend, request, false, lender, by)
    call.add(attempt)
    this.#chooser.head?.(attempt)
    attempt.settle(kind, undefined)
    this.#chooser.settle?.(attempt)
  }

  /** So many picks with so many in flight at once; equal latencies. */
  traffic(picker: Picker, picks: number, inflight: number): Backend[] {
    const picked: BackendRecord[] = []
    for (let i = 0; i < picks; i++) {
      const backend = picker(callOf(this.clock.now(), `key ${i}`)) as BackendRecord
      assert.ok(backend !== undefined, 'nobody was picked though somebody is eligible')
      picked.push(backend)
      backend.inflight++
      const done = picked[i - inflight + 1]
      if (done === undefined) continue
      done.inflight--
      done.latency.observe(5, this.clock.now())
    }
    for (const backend of picked.slice(-inflight + 1)) backend.inflight = 0
    return picked
  }
}
