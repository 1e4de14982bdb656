import type { Attempt, Backend, Random, Strategy } from '../core/contracts.ts'
import type { Prior, ThompsonOptions } from '../core/strategy-options.ts'
import { costsOf, said } from './cost.ts'
import { expected, expectedOptions } from './expected.ts'

/** Resolution of a uniform draw. */
const SCALE = 1 << 30
/** What half an answer is worth. */
const TRUNCATED = 0.5
const TRUSTED: Prior = { successes: 4, failures: 0.2 }
const UNKNOWN: Prior = { successes: 0, failures: 0 }

/**
 * Discounted Thompson sampling: draws each backend's share of successes from what is known of it, and takes the highest of
 * value times share less cost. Learns which one is worth its price, and notices when that changes: for backends that fail by degrees; for
 * outages priorities and a breaker are better. Calls that must not be sent twice are no experiments: for them the mean decides.
 * Weights are not looked at (0 apart). It allocates, and is O(n): for up to about 100 backends.
 */
export function thompson(options: ThompsonOptions = {}): Strategy {
  expectedOptions('thompson', options)
  const { cost = () => 0, value, latencyCost = 0, discount = 0.99, decayMs = 300_000, prior } = options
  expected(typeof cost === 'function', 'thompson: cost', 'a function', cost)
  expected(value === undefined || (value > 0 && value < Infinity), 'thompson: value', 'a number > 0', value)
  expected(latencyCost >= 0 && latencyCost < Infinity, 'thompson: latencyCost', 'a number >= 0', latencyCost)
  expected(discount > 0 && discount <= 1, 'thompson: discount', 'a number above 0, at most 1', discount)
  expected(decayMs > 0, 'thompson: decayMs', 'a number > 0', decayMs)
  expected(
    prior === undefined || prior === 'trusted' || typeof prior === 'function',
    'thompson: prior',
    "'trusted' or a function",
    prior,
  )
  return {
    name: 'thompson',
    start({ random, clock }) {
      let results = 0
      const arms = new WeakMap<Backend, Arm>()
      const armOf = (backend: Backend): Arm => {
        const known = arms.get(backend)
        if (known !== undefined) return known
        const arm = { ...priorOf(backend, prior), results, atMs: clock.now() }
        arms.set(backend, arm)
        return arm
      }
      const keptOf = (arm: Arm, nowMs: number): number =>
        discount ** (results - arm.results) * Math.exp(-Math.max(0, nowMs - arm.atMs) / decayMs)
      return {
        build({ all, eligible }) {
          for (const backend of all) armOf(backend)
          const costs = costsOf(eligible, cost, 'thompson') // of one alone too: what is wrong shows at once
          if (eligible.length === 1) return () => eligible[0]
          const known = eligible.map(armOf)
          const worth = value ?? (Math.max(0, ...costs) * 10 || 1)
          return (call) => {
            let best: Backend | undefined
            let highest = -Infinity
            let equals = 1
            for (const [i, backend] of eligible.entries()) {
              const arm = known[i]!
              const kept = keptOf(arm, call.nowMs)
              const a = 1 + kept * arm.successes
              const b = 1 + kept * arm.failures
              const share = call.idempotent ? beta(a, b, random) : a / (a + b)
              const slow = latencyCost > 0 && backend.latency.known ? latencyCost * backend.latency.read(call.nowMs) : 0
              const utility = worth * share - costs[i]! - slow
              if (utility < highest || (utility === highest && random(++equals) > 0)) continue
              if (utility > highest) equals = 1
              best = backend
              highest = utility
            }
            return best
          }
        },
        score(backend) {
          const arm = arms.get(backend)
          if (arm === undefined) return undefined
          const kept = keptOf(arm, clock.now())
          return (1 + kept * arm.successes) / (2 + kept * (arm.successes + arm.failures))
        },
        settle({ backend, class: kind, rule, endMs }: Attempt): void {
          if (rule === undefined || rule.health === 'none') return
          const arm = armOf(backend)
          const kept = keptOf(arm, endMs) * discount
          const result = rule.health === 'success' ? 1 : kind === 'truncated' ? TRUNCATED : 0
          results++
          arm.successes = arm.successes * kept + result
          arm.failures = arm.failures * kept + 1 - result
          arm.results = results
          arm.atMs = endMs
        },
      }
    },
  }
}

/** Successes and failures of one backend, faded to what they were worth after so many results of the pool, at `atMs`. */
interface Arm {
  successes: number
  failures: number
  results: number
  atMs: number
}

function priorOf(backend: Backend, prior: ThompsonOptions['prior']): Prior {
  if (prior === undefined) return UNKNOWN
  if (prior === 'trusted') return TRUSTED
  const what = `thompson: prior of backend ${backend.id}`
  const given: unknown = said(prior, backend, what)
  expected(typeof given === 'object' && given !== null, what, 'an object with successes and failures', given)
  const { successes, failures } = given as Prior
  for (const [name, one] of Object.entries({ successes, failures })) {
    expected(one >= 0 && one < Infinity, `${what}: ${name}`, 'a number >= 0', one)
  }
  return { successes, failures }
}

function beta(a: number, b: number, random: Random): number {
  const x = gamma(a, random)
  return x / (x + gamma(b, random))
}

/** Marsaglia and Tsang's method, for shapes of at least 1. */
function gamma(shape: number, random: Random): number {
  const d = shape - 1 / 3
  const c = 1 / Math.sqrt(9 * d)
  for (;;) {
    const x = normal(random)
    const v = (1 + c * x) ** 3
    if (v > 0 && Math.log(uniform(random)) < x * x * 0.5 + d - d * v + d * Math.log(v)) return d * v
  }
}

/** Box and Muller's method. */
function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(uniform(random))) * Math.cos(2 * Math.PI * uniform(random))
}

/** In (0, 1). */
function uniform(random: Random): number {
  return (random(SCALE) + 0.5) / SCALE
}
