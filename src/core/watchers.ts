import type { LiveAttempt } from './attempt.ts'
import type { Backend, Call, Core, Gate, Reason, Sink, Watcher, WatcherStats } from './contracts.ts'
import { startedWatcher } from './part-checks.ts'

type Started = ReturnType<Watcher['start']>

/** The watchers at work in one pool, and everybody who hears of its attempts and calls. A sink that throws is reported. */
export class Watchers {
  readonly #report: (name: string, error: unknown) => void
  #running: ReadonlyMap<Watcher, Started> = new Map()
  #sinks: readonly Sink[] = []

  constructor(report: (name: string, error: unknown) => void) {
    this.#report = report
  }

  get gates(): readonly Gate[] {
    return [...this.#running.values()].flatMap(({ gate }) => (gate === undefined ? [] : [gate]))
  }

  /** Starts those that do not run yet. A watcher that stays keeps running: what it has learned and the reasons it has written stay too. */
  begin(watchers: readonly Watcher[], core: Core): { commit(sinks: readonly Sink[]): void; abandon(): void } {
    const running = new Map<Watcher, Started>()
    const fresh = new Map<Watcher, Started>()
    const abandon = (): void => this.#stop(fresh)
    try {
      for (const watcher of watchers) {
        const started = this.#running.get(watcher) ?? startedWatcher(watcher, core)
        if (!this.#running.has(watcher)) fresh.set(watcher, started)
        running.set(watcher, started)
      }
    } catch (error) {
      abandon()
      throw error
    }
    return { abandon, commit: (sinks) => this.#commit(running, sinks) }
  }

  /** Resolves when each has looked at every backend once. */
  async ready(): Promise<void> {
    const waitedFor = this.#running
    await Promise.all([...waitedFor.values()].map(({ ready }) => ready?.()))
    if (this.#running !== waitedFor) await this.ready() // an update has put others in their place
  }

  stop(): void {
    this.#stop(this.#running)
    this.#running = new Map()
  }

  members(all: readonly Backend[]): void {
    for (const [{ name }, started] of this.#running) {
      try {
        started.members?.(all)
      } catch (error) {
        this.#report(name, error)
      }
    }
  }

  unblocked(backend: Backend, reason: Reason): void {
    for (const [{ name }, started] of this.#running) {
      try {
        started.unblocked?.(backend, reason)
      } catch (error) {
        this.#report(name, error)
      }
    }
  }

  tell(what: 'head' | 'attempt', attempt: LiveAttempt): void {
    for (const sink of this.#sinks) {
      try {
        sink[what]?.(attempt)
      } catch (error) {
        this.#report(sink.name, error)
      }
    }
  }

  over(call: Call): void {
    for (const sink of this.#sinks) {
      try {
        sink.call?.(call)
      } catch (error) {
        this.#report(sink.name, error)
      }
    }
  }

  /** What the first of them that knows says. */
  known<Told>(ask: (stats: WatcherStats) => Told | undefined): Told | undefined {
    for (const { stats } of this.#running.values()) {
      const told = stats === undefined ? undefined : ask(stats)
      if (told !== undefined) return told
    }
    return undefined
  }

  #commit(running: ReadonlyMap<Watcher, Started>, sinks: readonly Sink[]): void {
    this.#stop([...this.#running].filter(([watcher]) => !running.has(watcher)))
    this.#running = running
    const own = [...running.values()].flatMap(({ sink }) => (sink === undefined ? [] : [sink]))
    this.#sinks = [...own, ...sinks]
  }

  /** One that throws keeps nobody else from being stopped. */
  #stop(running: Iterable<readonly [Watcher, Started]>): void {
    for (const [{ name }, started] of running) {
      try {
        started.stop()
      } catch (error) {
        this.#report(`stop of ${name}`, error)
      }
    }
  }
}
