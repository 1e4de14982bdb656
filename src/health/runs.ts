import type { ResolvedSettings } from '../core/resolved.ts'

type Passive = Exclude<ResolvedSettings['health']['passive'], false>
type RunLimits = Pick<Passive, 'consecutive' | 'consecutiveGateway' | 'consecutiveLocal'>

/** Said by whoever stands in front of the work: it was not reached. */
const GATEWAY = [502, 503, 504]

/** The failures in a row of one backend, by kind. */
export class Runs {
  readonly #limits: RunLimits
  #all = 0
  #gateway = 0
  #local = 0

  constructor(limits: RunLimits) {
    this.#limits = limits
  }

  /** Counts a failure, `status` 0 = without an answer. Returns what is too much of it, in words. */
  fail(status: number): string | undefined {
    const { consecutive, consecutiveGateway, consecutiveLocal } = this.#limits
    if (status === 0 && consecutiveLocal > 0) {
      this.#local++
      return this.#local >= consecutiveLocal ? `${this.#local} failures in a row without an answer` : undefined
    }
    this.#local = 0
    this.#all++
    this.#gateway = status === 0 || GATEWAY.includes(status) ? this.#gateway + 1 : 0
    if (consecutive > 0 && this.#all >= consecutive) return `${this.#all} failures in a row`
    if (consecutiveGateway > 0 && this.#gateway >= consecutiveGateway)
      return `${this.#gateway} gateway failures in a row`
    return undefined
  }

  clear(): void {
    this.#all = this.#gateway = this.#local = 0
  }
}
