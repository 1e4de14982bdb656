import type { Attempt, Backend, Strategy } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { header } from '../core/headers.ts'
import { periodsOf, Turns } from './edf.ts'

/** Weights are read from the reports no more often than this, ms (gRFC A58). */
const UPDATE_MS = 100
/** Reports that say more than this are taken for nonsense: beyond it sums of weights would lose the others. */
const MOST = Number.MAX_SAFE_INTEGER

/** Times are in ms. */
export interface OrcaOptions {
  /** A backend's reports count only after it has been reporting for so long; default 10 000. */
  readonly blackoutMs?: number
  /** A report that is older does not count; default 180 000. */
  readonly expireMs?: number
  /** How often weights follow the reports, at least 100; default 1 000. */
  readonly updateMs?: number
  /** The share of errors, times this, counts as utilization; default 1. */
  readonly errorPenalty?: number
}

/**
 * Weighted round robin by what backends report of themselves (client-side WRR, gRFC A58): requests per second by utilization.
 * Reports are read from the `endpoint-load-metrics` header of answers, as text or JSON (ORCA). Who has none that counts gets the
 * mean weight. With fewer than two reports the configured weights count; otherwise only their passing factors, such as slow
 * start, do. O(log n) a pick, and O(n) once per `updateMs`.
 */
export function orca(options: OrcaOptions = {}): Strategy {
  const { blackoutMs = 10_000, expireMs = 180_000, updateMs = 1_000, errorPenalty = 1 } = options
  for (const [name, value] of Object.entries({ blackoutMs, expireMs, updateMs, errorPenalty })) {
    if (!(value >= 0)) throw new BalancerError('CONFIG', `orca: ${name}: expected >= 0, got ${value}`)
  }
  return {
    name: 'orca',
    start({ random, clock }) {
      const reports = new WeakMap<Backend, Report>()
      const reportOf = (backend: Backend): Report => {
        const known = reports.get(backend)
        if (known !== undefined) return known
        const report = new Report()
        reports.set(backend, report)
        return report
      }
      let present: ReadonlySet<Backend> = new Set()
      let last: Turns | undefined
      return {
        head(attempt) {
          reportOf(attempt.backend).take(reportedWeight(attempt, errorPenalty), attempt.headMs)
        },
        build(members) {
          const eligible = [...members.eligible] // reading a frozen array is slower
          const n = eligible.length
          for (const backend of eligible) if (!present.has(backend)) reportOf(backend).distrust()
          present = new Set(eligible)
          if (n === 0) return () => undefined
          if (n === 1) return () => eligible[0]
          const reported = eligible.map(reportOf)
          const configured = Float64Array.from(eligible, ({ weight }) => weight)
          const factors = Float64Array.from(eligible, ({ weight, endpoint }) => weight / (endpoint.weight ?? 1))
          const weights = new Float64Array(n)
          const periods = new Float64Array(n)
          const weigh = (nowMs: number): void => {
            for (let i = 0; i < n; i++) weights[i] = reported[i]!.weightAt(nowMs, blackoutMs, expireMs)
            periodsOf(settle(weights, factors) ? weights : configured, periods)
          }
          const nowMs = clock.now()
          weigh(nowMs)
          const turns = new Turns(eligible, periods, random, last)
          const everyMs = Math.max(UPDATE_MS, updateMs)
          const dueMs = Float64Array.of(nowMs + everyMs) // a plain variable would box each new number
          return (call) => {
            if (call.nowMs >= dueMs[0]!) {
              dueMs[0] = call.nowMs + everyMs
              weigh(call.nowMs)
              turns.reweigh(periods)
            }
            last = turns // only now: a change that is tried but not made must not count
            const i = turns.first
            turns.requeue()
            return eligible[i]
          }
        },
      }
    },
  }
}

/** What one backend said of itself. */
class Report {
  #weight = 0
  #takenMs = -Infinity
  /** Since when it has been reporting; NaN while it has not. */
  #sinceMs = NaN

  take(weight: number, nowMs: number): void {
    if (!(weight > 0 && weight <= MOST)) return
    this.#weight = weight
    this.#takenMs = nowMs
    if (Number.isNaN(this.#sinceMs)) this.#sinceMs = nowMs
  }

  /** It was away: its blackout starts anew with its next report. */
  distrust(): void {
    this.#sinceMs = NaN
  }

  /** 0 while it says nothing that counts. */
  weightAt(nowMs: number, blackoutMs: number, expireMs: number): number {
    if (nowMs - this.#takenMs >= expireMs) this.distrust()
    return nowMs - this.#sinceMs >= blackoutMs ? this.#weight : 0
  }
}

/** Gives who has no weight the mean of the others, and everybody its factor. False if fewer than two have one. */
function settle(weights: Float64Array, factors: Float64Array): boolean {
  let sum = 0
  let known = 0
  for (let i = 0; i < weights.length; i++) {
    sum += weights[i]!
    if (weights[i]! > 0) known++
  }
  if (known < 2) return false
  for (let i = 0; i < weights.length; i++) weights[i] = (weights[i]! > 0 ? weights[i]! : sum / known) * factors[i]!
  return true
}

/** Requests per second by utilization, which errors add to; 0 without a report of both. */
function reportedWeight({ headers }: Attempt, errorPenalty: number): number {
  const text = headers === undefined ? undefined : header(headers, 'endpoint-load-metrics')
  if (text === undefined) return 0
  const fields = text.startsWith('JSON ') ? jsonFields(text.slice('JSON '.length)) : textFields(text)
  const read = (name: string): number => Math.max(0, Number(fields.get(name)) || 0)
  const utilization = read('application_utilization') || read('cpu_utilization')
  const perSecond = read('rps_fractional')
  if (utilization === 0 || perSecond === 0) return 0
  return perSecond / (utilization + (read('eps') / perSecond) * errorPenalty)
}

/** `TEXT cpu_utilization=0.3, eps=1`; Envoy writes `cpu_utilization:0.3,eps:1`. */
function textFields(text: string): ReadonlyMap<string, unknown> {
  const pairs = text.replace(/^TEXT /, '').split(',')
  return new Map(pairs.map((pair) => pair.split(/[=:]/, 2).map((part) => part.trim()) as [string, string]))
}

/** `JSON {"cpu_utilization": 0.3}`, by either name of a field that protobuf's JSON allows. What cannot be read says nothing. */
function jsonFields(text: string): ReadonlyMap<string, unknown> {
  try {
    const entries = Object.entries(JSON.parse(text) as object)
    return new Map(
      entries.map(([name, value]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]),
    )
  } catch {
    return new Map()
  }
}
