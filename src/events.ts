import { EventEmitter } from 'eventemitter3'
import type { Attempt, Backend, Call, Reason } from './core/contracts.ts'
import type { BalancerError } from './core/errors.ts'
import type { Revision } from './core/revisions.ts'

/** Every event and its arguments. They are positional, so that an event nobody listens to costs nothing. */
export interface BalancerEvents {
  blocked: (backend: Backend, reason: Reason) => void
  unblocked: (backend: Backend, reason: Reason) => void
  added: (backend: Backend) => void
  removed: (backend: Backend) => void
  /** Weight, tags or another field changed; the live record stayed. */
  updated: (backend: Backend) => void
  /** An attempt ended: `attempt.outcome` says how. */
  attempt: (attempt: Attempt) => void
  /** What a detector in dry run would have done. */
  wouldBlock: (backend: Backend, reason: Reason) => void
  /** The call is sent again after a pause, ms. */
  retry: (call: Call, failed: Attempt, pauseMs: number) => void
  /** Attempts, budget or time ran out; the error, or undefined if a real answer is returned. */
  exhausted: (call: Call, error: unknown) => void
  /** The first send is slow: a second one goes out, after so many ms. */
  hedge: (call: Call, slow: Attempt, delayMs: number) => void
  /** The second send was the faster one. */
  hedgeWon: (call: Call, winner: Attempt) => void
  /** Everybody is busy: the call waits. */
  queued: (call: Call) => void
  /** The call is refused: there is no room to wait, or it waited too long. */
  shed: (call: Call) => void
  /** Another configuration is in force. */
  configured: (revision: Revision) => void
  /** What a followed source brought is wrong, or cannot be had; the configuration stays. */
  reloadFailed: (error: BalancerError) => void
  /** A part misbehaved; the request it happened in did not. */
  warning: (error: Error) => void
  closed: () => void
}

export class Events extends EventEmitter<BalancerEvents> {
  #held: (() => void)[] | undefined

  /** From now on events wait. */
  hold(): void {
    this.#held ??= []
  }

  /** What has waited is told, in order. */
  release(): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const tell of held) tell()
  }

  /** For the core, which knows no event names; a listener that throws is reported as a warning, never to the request. */
  tell(event: string, details: readonly unknown[]): void {
    if (this.#held !== undefined) {
      this.#held.push(() => this.tell(event, details))
      return
    }
    const name = event as keyof BalancerEvents
    if (this.listenerCount(name) === 0) return
    try {
      this.emit(name, ...(details as Parameters<BalancerEvents[typeof name]>))
    } catch (error) {
      if (name !== 'warning') this.tell('warning', [error])
    }
  }
}
