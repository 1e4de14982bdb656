import type { EventEmitter } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import process from 'node:process'
import { setTimeout as sleep } from 'node:timers/promises'

/** By kind: 'Timeout', 'TCPSocketWrap', 'open sockets', 'SIGTERM listeners of process', … */
type Standing = Readonly<Record<string, number>>

/** What stood at one moment, to come back to. */
export interface Baseline {
  /** What there is more of now, and how much more. */
  extra(): Readonly<Record<string, number>>
  /** Resolves as soon as there is nothing extra; rejects with a list of what there is if that takes longer than `withinMs`. */
  restored(options?: { readonly withinMs?: number }): Promise<void>
}

/** Time until everything has to be gone, ms: for slow machines. */
const WITHIN_MS = 5_000

/**
 * Takes down what stands now: the resources that hold up this process (`process.getActiveResourcesInfo()`), on Linux also
 * every open socket, which sees those that were unref'd; and the listeners of `process` and of the emitters given by name.
 *
 * @example
 * const baseline = leftovers({ server })
 * // … traffic …
 * await baseline.restored({ withinMs: 2_000 })
 */
export function leftovers(emitters: Readonly<Record<string, EventEmitter>> = {}): Baseline {
  const watched = { process, ...emitters }
  const before = standing(watched)
  const extra = (): Standing => {
    const more: Record<string, number> = {}
    for (const [kind, count] of Object.entries(standing(watched))) {
      if (count > (before[kind] ?? 0)) more[kind] = count - (before[kind] ?? 0)
    }
    return more
  }
  return {
    extra,
    async restored({ withinMs = WITHIN_MS } = {}) {
      const endMs = performance.now() + withinMs
      for (let more = extra(); Object.keys(more).length > 0; more = extra()) {
        if (performance.now() > endMs) throw new Error(`left over after ${withinMs} ms: ${textOf(more)}`)
        await sleep(5)
      }
    },
  }
}

function standing(emitters: Readonly<Record<string, EventEmitter>>): Standing {
  const counts: Record<string, number> = { 'open sockets': openSockets() }
  for (const kind of process.getActiveResourcesInfo()) counts[kind] = (counts[kind] ?? 0) + 1
  for (const [name, emitter] of Object.entries(emitters)) {
    for (const event of emitter.eventNames()) {
      counts[`${String(event)} listeners of ${name}`] = emitter.listenerCount(event)
    }
  }
  return counts
}

/** 0 where the system does not tell. */
function openSockets(): number {
  let count = 0
  try {
    for (const name of readdirSync('/proc/self/fd')) if (isSocket(`/proc/self/fd/${name}`)) count++
  } catch {}
  return count
}

function isSocket(path: string): boolean {
  try {
    return readlinkSync(path).startsWith('socket:')
  } catch {
    return false // the descriptor of the listing itself is closed by now
  }
}

function textOf(more: Standing): string {
  return Object.entries(more)
    .map(([kind, count]) => `${kind} +${count}`)
    .join(', ')
}
