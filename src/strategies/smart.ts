import type { Attempt, Backend, Strategy } from '../core/contracts.ts'
import type { OutcomeClass } from '../core/outcome.ts'
import type { SmartOptions } from '../core/strategy-options.ts'
import { costsOf } from './cost.ts'
import { expected, expectedOptions } from './expected.ts'

/** What is thought of a backend nobody knows. */
const PRIOR = 0.8
/** Half of what is known is forgotten after so long without news, ms. */
const HALF_LIFE_MS = 120_000
/** How far one success moves the confidence towards 1. */
const SUCCESS = 0.1
/** How far one failure moves it towards 0: by class, or as a server error. A rate limit is news though it is no failure of health. */
const FAILURES: Readonly<Partial<Record<OutcomeClass, number>>> = {
  'server-error': 0.3,
  'rate-limited': 0.1,
  connect: 0.4,
  tls: 0.4,
  reset: 0.4,
  protocol: 0.4,
  timeout: 0.4,
  truncated: 0.4,
}
const FAILURE = 0.3
/** Nobody's weight falls below this, or it would never be seen to be well again. */
const LEAST = 0.02
/** Above this confidence the price counts. */
const TRUSTED = 0.95
const BONUS = 0.05
/** What one that comes back gets, by its successes since: 10, 30, 50, 100 % at 0, 1, 3 and 5. */
const RAMP = [0.1, 0.3, 0.3, 0.5, 0.5, 1]
/** What is forgotten is looked at this often, ms: in that time it moves a confidence by less than 0.0005. */
const REFRESH_MS = 100
/** Resolution of a draw. */
const SCALE = 1 << 30

/** What is thought of one backend: moves with every result, and back to the prior while nothing is heard of it. */
export class Confidence {
  #value = PRIOR
  #atMs = -Infinity
  #successes = RAMP.length - 1
  #away = false
  /** News that no picker has taken up yet. */
  changed = false

  read(nowMs: number): number {
    return PRIOR + (this.#value - PRIOR) * 2 ** (-Math.max(0, nowMs - this.#atMs) / HALF_LIFE_MS)
  }

  succeed(nowMs: number): void {
    this.#move(1, SUCCESS, nowMs)
    this.#successes = Math.min(RAMP.length - 1, this.#successes + 1)
  }

  fail(by: number, nowMs: number): void {
    this.#move(0, by, nowMs)
    if (this.#successes < RAMP.length - 1) this.#successes = 0
  }

  /** The backend is out for a reason; when it comes back it starts small. */
  seen({ reasons }: Backend, eligible: boolean): void {
    if (eligible && this.#away) this.#successes = 0
    this.#away = !eligible && reasons.size > 0
  }

  /** What its weight is multiplied by; `bonus`, 0 to 1, is what its price deserves once it is trusted. */
  factor(nowMs: number, bonus: number): number {
    const value = this.read(nowMs)
    return Math.max(LEAST, value * value) * RAMP[this.#successes]! * (value > TRUSTED ? 1 + BONUS * bonus : 1)
  }

  #move(to: number, by: number, nowMs: number): void {
    const value = this.read(nowMs)
    this.#value = value + by * (to - value)
    this.#atMs = nowMs
    this.changed = true
  }
}

/**
 * In proportion to weight times the square of a confidence in [0, 1], never below 2 % of the weight. Successes and failures move the
 * confidence, failures faster; faults of the caller do not. One that comes back from a reason gets 10 % until it has shown
 * successes. After Berry's smart_ai, without its floors. O(n): for pools of up to about 100 backends.
 */
export function smart(options: SmartOptions = {}): Strategy {
  expectedOptions('smart', options)
  const { cost = () => 0 } = options
  expected(typeof cost === 'function', 'smart: cost', 'a function', cost)
  return {
    name: 'smart',
    start({ random, clock }) {
      /** Of the picker in use: what its price deserves. */
      let bonusOf = (_: Backend): number => 0
      const known = new WeakMap<Backend, Confidence>()
      const confidenceIn = (backend: Backend): Confidence => {
        const confidence = known.get(backend) ?? new Confidence()
        known.set(backend, confidence)
        return confidence
      }
      return {
        build(members) {
          const eligible = [...members.eligible] // reading a frozen array is slower
          const usable = new Set(eligible)
          for (const backend of members.all) confidenceIn(backend).seen(backend, usable.has(backend))
          const costs = costsOf(eligible, cost, 'smart') // of one alone too: what is wrong shows at once
          const n = eligible.length
          if (n === 0) return () => undefined
          if (n === 1) return () => eligible[0]
          const confidences = eligible.map(confidenceIn)
          const highest = Math.max(...costs)
          const bonuses = costs.map((one) => (highest > 0 ? 1 - one / highest : 0))
          const ownBonusOf = (backend: Backend): number => bonuses[eligible.indexOf(backend)] ?? 0
          const weights = new Float64Array(n)
          const upTo = new Float64Array(n)
          const weighedMs = Float64Array.of(-Infinity)
          return ({ nowMs }) => {
            bonusOf = ownBonusOf // only now: a change that is tried but not made must not count
            const due = nowMs - weighedMs[0]! >= REFRESH_MS
            if (due) weighedMs[0] = nowMs
            let total = 0
            for (let i = 0; i < n; i++) {
              const confidence = confidences[i]!
              if (due || confidence.changed) {
                weights[i] = eligible[i]!.weight * confidence.factor(nowMs, bonuses[i]!)
                confidence.changed = false
              }
              total += weights[i]!
              upTo[i] = total
            }
            const at = total * (random(SCALE) / SCALE)
            let i = 0
            while (upTo[i]! <= at) i++
            return eligible[i]
          }
        },
        score: (backend) => known.get(backend)?.factor(clock.now(), bonusOf(backend)),
        settle({ backend, class: kind, rule, endMs }: Attempt): void {
          const by = kind === 'rate-limited' || rule?.health === 'failure' ? (FAILURES[kind!] ?? FAILURE) : undefined
          if (by !== undefined) confidenceIn(backend).fail(by, endMs)
          else if (kind === 'ok') confidenceIn(backend).succeed(endMs)
        },
      }
    },
  }
}
