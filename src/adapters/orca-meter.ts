import { cpuUsage } from 'node:process'
import type { Ending } from '../core/load.ts'

/** Over so long at least, ms. */
const WINDOW_MS = 1_000

/** Requests, failures and CPU time per second, as ORCA tells them. Looked at when somebody asks: no timer. */
export class OrcaMeter {
  #sinceMs: number
  #usage = cpuUsage()
  #requests = 0
  #failures = 0
  #text: string | undefined

  constructor(nowMs: number) {
    this.#sinceMs = nowMs
  }

  count(ending: Ending): void {
    this.#requests++
    if (ending === 'failed') this.#failures++
  }

  /** The header's value; undefined before the first window is over. */
  read(nowMs: number): string | undefined {
    const ms = nowMs - this.#sinceMs
    if (ms < WINDOW_MS) return this.#text
    const { user, system } = cpuUsage(this.#usage)
    const cpu = (user + system) / 1_000 / ms
    const perSecond = (n: number): string => ((n * 1_000) / ms).toFixed(3)
    this.#text = `TEXT cpu_utilization=${cpu.toFixed(4)},rps_fractional=${perSecond(this.#requests)},eps=${perSecond(this.#failures)}`
    this.#sinceMs = nowMs
    this.#usage = cpuUsage()
    this.#requests = 0
    this.#failures = 0
    return this.#text
  }
}
