import type { Backend, Call, Endpoint, OutcomeClass, Picker, Strategy } from 'evenkeel'
import { type ManualClock, manualClock, seededRandom } from 'evenkeel/testing'
import type { LiveAttempt } from '../../src/core/attempt.ts'
import type { BackendRecord } from '../../src/core/backend.ts'
import { LiveCall } from '../../src/core/call.ts'
import type { Random } from '../../src/core/contracts.ts'
import { CLASSES } from '../../src/core/outcome.ts'
import { inUse } from '../../src/core/selection.ts'
import { backendsOf, coreOf } from '../../src/testing/kit.ts'

/** A strategy at work without a pool; who is eligible is decided as in one. */
export interface StrategyBench {
  readonly clock: ManualClock
  readonly all: readonly BackendRecord[]
  readonly backend: (id: string) => BackendRecord
  /** Asks for a picker, after any change; over some of the backends if the others have left. */
  build(list?: readonly BackendRecord[]): Picker
  /** Blocks the first so many of the backends whose id starts so, and frees the others of them. */
  block(start: string, count: number): void
  /** Shares of so many first picks, in percent, of backends or of whatever else `of` says. */
  shares(picks: number, of?: (backend: Backend) => string): Record<string, number>
  /** What the pool tells after an attempt that ended now. */
  settle(backend: Backend, kind: OutcomeClass): void
  /** What stats would show. */
  score(id: string): number | undefined
}

export interface StrategyBenchOptions {
  /** Default: seeded with 42. */
  readonly random?: Random
  readonly panicBelow?: number
}

export function strategyBench(
  strategy: Strategy,
  endpoints: readonly Partial<Endpoint>[],
  { random = seededRandom(42), panicBelow = 0.5 }: StrategyBenchOptions = {},
): StrategyBench {
  const clock = manualClock()
  const all = backendsOf(endpoints.map((it) => ({ url: `http://${it.id}.test`, ...it })))
  let present: readonly BackendRecord[] = all
  const members = () => inUse(present, panicBelow, strategy).members
  const chooser = strategy.start(coreOf(clock, random, members))
  const build = (list: readonly BackendRecord[] = all): Picker => {
    present = list
    return chooser.build(members())
  }
  return {
    clock,
    all,
    build,
    backend: (id) => all.find((it) => it.id === id)!,
    block(start, count) {
      const meant = all.filter(({ id }) => id.startsWith(start))
      for (const [i, backend] of meant.entries()) {
        if (i < count) backend.reasons.set('probe', { by: 'probe', hard: false })
        else backend.reasons.delete('probe')
      }
    },
    shares(picks, of = ({ id }) => id) {
      const picker = build()
      const counts: Record<string, number> = Object.create(null) // a name may be any word
      const call = callAt(clock)
      for (let i = 0; i < picks; i++) {
        const name = of(picker(call)!)
        counts[name] = (counts[name] ?? 0) + 1
      }
      return Object.fromEntries(Object.entries(counts).map(([name, count]) => [name, (100 * count) / picks]))
    },
    settle(backend, kind) {
      const attempt = { backend, class: kind, rule: CLASSES[kind], endMs: clock.now() }
      chooser.settle?.(attempt as LiveAttempt)
    },
    score: (id) => chooser.score?.(all.find((it) => it.id === id)!),
  }
}

/** So many alike: start0, start1, ... */
export function several(start: string, count: number, rest: Partial<Endpoint> = {}): Partial<Endpoint>[] {
  return Array.from({ length: count }, (_, i) => ({ id: `${start}${i}`, ...rest }))
}

export function callAt(
  clock: ManualClock,
  options: { readonly key?: string; readonly method?: string } = {},
): LiveCall {
  const { method = 'GET', key } = options
  return new LiveCall({ method, headers: [] }, { key }, clock.now()).route('default', 0)
}

/** Makes the call one that has tried the backend. */
export function tries(call: Call, backend: Backend): void {
  ;(call as LiveCall).add({ backend } as LiveAttempt)
}
