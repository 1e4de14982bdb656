import type { ReportedLoad } from '../core/load.ts'

/** So many answers in a row without a report: it will not report. */
const SILENT_AFTER = 10
/** How far one result moves the share of failures. */
const STEP = 1 / 64
/** A share of failures above this, and above so many times the median, is not what the others have. */
const SUSPECT_SHARE = 0.05
const SUSPECT_TIMES = 3
/** First time out, ms; it doubles each time, up to 2^6 times as long. */
const SUSPECT_MS = 1_000
const MOST_DOUBLINGS = 6

/** What a backend has said of its load, and when. */
export interface Word extends ReportedLoad {
  readonly atMs: number
  /** Requests of this process that it had then. */
  readonly own: number
}

/** What is known of one backend. */
export class Standing {
  #unreported = 0
  #doublings = 0
  #suspectUntilMs = -Infinity
  /** Of its requests, the latest ones most. */
  failures = 0
  /** Its last word, whoever asked. */
  said: Word | undefined
  /** The look around in which it was drawn last. */
  drawn = 0

  /** It answers, but not what its load is. */
  get isSilent(): boolean {
    return this.#unreported >= SILENT_AFTER
  }

  /** Its reports do not count: one that fails fast has nothing in flight, and is quick. */
  isSuspect(nowMs: number): boolean {
    return nowMs < this.#suspectUntilMs
  }

  /** It answered. True if that changes whether it is silent. */
  answered(hasReport: boolean): boolean {
    const was = this.isSilent
    this.#unreported = hasReport ? 0 : this.#unreported + 1
    return was !== this.isSilent
  }

  succeed(nowMs: number): void {
    this.failures -= this.failures * STEP
    if (this.failures <= SUSPECT_SHARE && !this.isSuspect(nowMs)) this.#doublings = 0
  }

  /** `median` of the shares of the others. True if it is a suspect now and was not before. */
  fail(median: number, nowMs: number): boolean {
    this.failures += (1 - this.failures) * STEP
    return this.failures > Math.max(SUSPECT_SHARE, SUSPECT_TIMES * median) && this.suspect(nowMs)
  }

  /** True if it was none before. */
  suspect(nowMs: number): boolean {
    if (this.isSuspect(nowMs)) return false
    this.#suspectUntilMs = nowMs + SUSPECT_MS * 2 ** this.#doublings
    this.#doublings = Math.min(this.#doublings + 1, MOST_DOUBLINGS)
    return true
  }
}
