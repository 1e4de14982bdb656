import type { Backend, BalancerRequest, BalancerResponse, Core } from '../core/contracts.ts'
import { Deadline } from '../core/deadlines.ts'
import { BalancerError } from '../core/errors.ts'
import { PROBE_HEADER } from '../core/load.ts'
import type { PrequalSettings } from './prequal.ts'

/** Probes that were not sent for lack of traffic may be sent later, but not more than those of so long, ms. */
const BURST_MS = 100

/** What came of a probe: the answer, if there was one; `isBad` if the backend failed. */
export type Answered = (backend: Backend, answer: BalancerResponse | undefined, isBad: boolean) => void

/** Asks backends for their load, beside the traffic: not more often than allowed, and nobody twice at the same time. */
export class Probes {
  readonly #core: Core
  readonly #request: BalancerRequest
  readonly #timeoutMs: number
  readonly #perMs: number
  readonly #burst: number
  readonly #answered: Answered
  readonly #out = new Set<Backend>()
  #left: number
  #earnedMs = -Infinity

  constructor(core: Core, { path, timeoutMs, maxProbesPerSecond }: PrequalSettings, answered: Answered) {
    this.#core = core
    this.#request = { method: 'GET', path, headers: ['user-agent', 'evenkeel-probe', PROBE_HEADER, '1'], body: null }
    this.#timeoutMs = timeoutMs
    this.#perMs = maxProbesPerSecond / 1_000
    this.#burst = Math.max(1, this.#perMs * BURST_MS)
    this.#left = this.#burst
    this.#answered = answered
  }

  /** Its answer is on its way. */
  isOut(backend: Backend): boolean {
    return this.#out.has(backend)
  }

  isAllowed(nowMs: number): boolean {
    const sinceMs = Math.min(nowMs - this.#earnedMs, BURST_MS)
    this.#left = Math.min(this.#burst, this.#left + sinceMs * this.#perMs)
    this.#earnedMs = nowMs
    return this.#left >= 1
  }

  send(backend: Backend, nowMs: number): void {
    this.#left--
    this.#out.add(backend)
    const { call, response } = this.#core.send(backend, this.#request)
    const late = new Deadline(this.#core.deadlines, () => {
      call.cancel(new BalancerError('TIMEOUT', `no answer to a probe within ${this.#timeoutMs} ms`))
    })
    late.set(this.#timeoutMs, nowMs)
    const clear = (): void => late.clear()
    const end = (answer: BalancerResponse | undefined): void => {
      this.#out.delete(backend)
      this.#answered(backend, answer, call.attempts[0]?.rule?.health === 'failure')
    }
    response.then(
      (answer) => {
        answer.body.consume({ chunk: () => true, end: clear, fail: clear }) // `late` ends one that goes on for too long
        end(answer)
      },
      () => {
        clear()
        end(undefined)
      },
    )
  }
}
