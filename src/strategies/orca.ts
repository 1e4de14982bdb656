import type { Attempt, Backend, Strategy } from '../core/contracts.ts'
import type { OrcaOptions } from '../core/strategy-options.ts'
import { periodsOf, Turns } from './edf.ts'
import { expected, expectedOptions } from './expected.ts'
import { loadReportOf } from './orca-report.ts'

/** Weights are read from the reports no more often than this, ms (gRFC A58). */
const UPDATE_MS = 100
/** Reports that say more than this are taken for nonsense: beyond it sums of weights would lose the others. */
const MOST = Number.MAX_SAFE_INTEGER

/**
 * Weighted round robin by what backends report of themselves (client-side WRR, gRFC A58): requests per second by utilization.
 * Reports (ORCA) are read from the headers of answers: `endpoint-load-metrics` as text, JSON or protobuf, `endpoint-load-metrics-bin`;
 * of their fields only `application_utilization`, or else `cpu_utilization`, `rps_fractional` and `eps`. Who has none that
 * counts gets the mean weight. With fewer than two reports the configured weights count; otherwise only their passing factors, such as slow
 * start, do. O(log n) a pick, and O(n) once per `updateMs`.
 */
export function orca(options: OrcaOptions = {}): Strategy {
  expectedOptions('orca', options)
  const { blackoutMs = 10_000, expireMs = 180_000, updateMs = 1_000, errorPenalty = 1 } = options
  for (const [name, value] of Object.entries({ blackoutMs, expireMs, updateMs, errorPenalty })) {
    expected(value >= 0, `orca: ${name}`, '>= 0', value)
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
  const report = headers === undefined ? undefined : loadReportOf(headers)
  if (report === undefined || report.utilization === 0 || report.perSecond === 0) return 0
  const { utilization, perSecond, errorsPerSecond } = report
  return perSecond / (utilization + (errorsPerSecond / perSecond) * errorPenalty)
}
