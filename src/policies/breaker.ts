import type {
  Attempt,
  Backend,
  BreakerPhase,
  Call,
  Core,
  Gate,
  Reason,
  Sink,
  Stop,
  Watcher,
} from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import type { BreakerOptions, BreakerSettings } from '../core/options.ts'
import { jittered } from '../core/random.ts'
import { type BackendBreakerState, type BreakerState, settingsOf, stateOf } from './breaker-input.ts'
import { type TripRule, tripRule } from './trip-rules.ts'

const BY = 'breaker'

/** What `circuitBreaker` makes: one of `watchers`. It keeps each backend of each of its pools apart. */
export interface CircuitBreaker extends Watcher {
  /** Takes a backend out of every pool that has it, until `reset`; panic does not bring it back. Throws CONFIG if none has it. */
  isolate(id: string): void
  /** Closes it at once, and forgets what it has seen. Throws CONFIG if no pool has it. */
  reset(id: string): void
  /**
   * What is known of every backend, to be kept over a restart. Pools are told apart by name: those of the same name in two
   * balancers need a breaker each. A closed balancer's backends are not in it.
   */
  export(): BreakerState
  /**
   * Goes on from an exported state: at once with the backends that are there, with the others when they appear. Half-open begins
   * its trials anew. Throws CONFIG, and changes nothing, if anything in it is wrong or it comes from another `trip` rule.
   */
  import(state: BreakerState): void
}

/**
 * A circuit breaker per backend: closed -> open when the trip rule says so; half-open when that time is over: at most `trials`
 * requests are let through, the others go elsewhere; closed when all of them succeed, else open again, twice as long. Outcomes
 * that say nothing of a backend's health (a caller's abort, a 429) never count. Throws BalancerError CONFIG for wrong options.
 *
 *     createBalancer({ backends, watchers: [circuitBreaker({ trip: 'consecutive', consecutive: 3 })] })
 */
export function circuitBreaker(options: BreakerOptions = {}): CircuitBreaker {
  const settings = settingsOf(options)
  const breakers = new Set<PoolBreaker>()
  const imported = new Map<string, Map<string, BackendBreakerState>>()

  const inEach = (id: string, run: (breaker: PoolBreaker, track: Track) => void): void => {
    const all = [...breakers].flatMap((breaker) => breaker.tracks.map((track) => ({ breaker, track })))
    const found = all.filter(({ track }) => track.backend.id === id)
    if (found.length === 0) {
      const known = all.map(({ track }) => track.backend.id).join(', ') || 'none'
      throw new BalancerError('CONFIG', `no backend is named ${JSON.stringify(id)}; there are: ${known}`)
    }
    for (const { breaker, track } of found) run(breaker, track)
  }

  const adopt = (breaker: PoolBreaker): void => {
    const states = imported.get(breaker.pool)
    if (states === undefined) return
    for (const track of breaker.tracks) {
      const state = states.get(track.backend.id)
      if (state === undefined) continue
      states.delete(track.backend.id)
      breaker.adopt(track, state)
    }
  }

  return {
    name: BY,
    start(core) {
      const breaker = new PoolBreaker(core, settings)
      breakers.add(breaker)
      return {
        gate: breaker,
        sink: breaker,
        members(all) {
          breaker.follow(all)
          adopt(breaker)
        },
        stats: { breaker: (backend) => breaker.phaseOf(backend) },
        stop() {
          breakers.delete(breaker)
          breaker.stop()
        },
      }
    },
    isolate: (id) => inEach(id, (breaker, track) => breaker.isolate(track)),
    reset: (id) => inEach(id, (breaker, track) => breaker.close(track)),
    export() {
      const all = new Map([...imported].map(([pool, states]) => [pool, new Map(states)]))
      for (const breaker of breakers) {
        const states = all.get(breaker.pool) ?? new Map<string, BackendBreakerState>()
        for (const track of breaker.tracks) states.set(track.backend.id, breaker.export(track))
        all.set(breaker.pool, states)
      }
      return Object.fromEntries([...all].map(([pool, states]) => [pool, Object.fromEntries(states)]))
    },
    import(state) {
      for (const [pool, states] of Object.entries(stateOf(state, settings.trip))) {
        imported.set(pool, new Map([...(imported.get(pool) ?? []), ...Object.entries(states)]))
      }
      for (const breaker of breakers) adopt(breaker)
    },
  }
}

/** A place taken by an attempt before there is one: its call, and its number there. */
interface Trial {
  readonly call: Call
  readonly number: number
}

/** What is known of one backend. */
interface Track {
  readonly backend: Backend
  phase: BreakerPhase
  rule: TripRule
  /** In a row. */
  opens: number
  untilMs: number
  /** What was sent before is old news: it opened for that. */
  closedMs: number
  /** Half-open: requests let through and not yet ended, and how many succeeded. Otherwise none. */
  trials: Trial[]
  successes: number
  stop: Stop | undefined
}

/** The breakers of one pool. All of it happens at admission and at an attempt's end, but for one timer per open backend. */
class PoolBreaker implements Gate, Sink {
  readonly name: string = BY
  readonly pool: string
  readonly #core: Core
  readonly #settings: BreakerSettings
  readonly #tracks = new Map<Backend, Track>()

  constructor(core: Core, settings: BreakerSettings) {
    this.pool = core.pool
    this.#core = core
    this.#settings = settings
  }

  get tracks(): readonly Track[] {
    return [...this.#tracks.values()]
  }

  phaseOf(backend: Backend): BreakerPhase | undefined {
    return this.#tracks.get(backend)?.phase
  }

  // --- the gate

  admit(backend: Backend, call: Call): boolean {
    const track = this.#tracks.get(backend)
    if (track === undefined || track.phase === 'closed') return true
    if (track.phase !== 'half-open') return false // whatever panic says
    if (track.successes + track.trials.length >= this.#settings.trials) return false
    track.trials.push({ call, number: call.attempts.length + 1 })
    return true
  }

  release(backend: Backend, attempt: Attempt | undefined): void {
    const track = this.#tracks.get(backend)
    if (track === undefined) return
    // Refused by a later gate: what was let through last, in this tick.
    if (attempt === undefined) track.trials.pop()
    else if (track.phase === 'closed') this.#learn(track, attempt)
    else this.#tried(track, attempt)
  }

  /** A trial has shown enough with its head: streams may last for hours. */
  head(attempt: Attempt): void {
    const track = this.#tracks.get(attempt.backend)
    if (track?.phase === 'half-open') this.#tried(track, attempt)
  }

  #learn(track: Track, { rule, startMs, endMs }: Attempt): void {
    if (startMs < track.closedMs) return
    if (rule!.health === 'success') track.rule.success(endMs)
    if (rule!.health !== 'failure') return
    const detail = track.rule.failure(endMs)
    if (detail !== undefined) this.#open(track, detail)
  }

  /** Requests from before the trials may end among them: only those let through since take part. */
  #tried(track: Track, { call, number, rule }: Attempt): void {
    const index = track.trials.findIndex((trial) => trial.call === call && trial.number === number)
    if (index === -1) return
    track.trials.splice(index, 1)
    if (rule!.health === 'failure') return this.#open(track, 'a trial failed')
    if (rule!.health === 'success') track.successes++
    if (track.successes === this.#settings.trials) this.close(track)
  }

  // --- the phases

  close(track: Track): void {
    this.#enter(track, 'closed')
    track.opens = 0
    track.closedMs = this.#core.clock.now()
    track.rule = tripRule(this.#settings, track.closedMs)
    this.#core.control.unblock(track.backend, BY)
  }

  isolate(track: Track): void {
    this.#enter(track, 'isolated')
    this.#core.control.block(track.backend, { by: BY, hard: true, detail: 'isolated by hand' })
  }

  #open(track: Track, detail: string): void {
    const { openMs, maxOpenMs, jitter } = this.#settings
    track.opens++
    const ms = Math.min(openMs * 2 ** (track.opens - 1), maxOpenMs)
    this.#openFor(track, jittered(ms, jitter, this.#core.random), detail)
  }

  /** The end is a timer's, not a comparison with the time: a clock that goes back keeps nobody out. */
  #openFor(track: Track, ms: number, detail: string): void {
    const { clock, control } = this.#core
    this.#enter(track, 'open')
    track.untilMs = clock.now() + ms
    track.stop = clock.after(ms, () => this.#halfOpen(track))
    const reason: Reason = { by: BY, hard: false, untilMs: track.untilMs, detail }
    control.block(track.backend, reason)
  }

  #halfOpen(track: Track): void {
    this.#enter(track, 'half-open')
    this.#core.control.unblock(track.backend, BY)
  }

  #enter(track: Track, phase: BreakerPhase): void {
    track.stop?.()
    track.stop = undefined
    track.phase = phase
    track.trials = []
    track.successes = 0
  }

  // --- the members

  follow(all: readonly Backend[]): void {
    for (const [backend, { stop }] of this.#tracks) {
      if (!backend.removed) continue
      stop?.()
      this.#tracks.delete(backend)
    }
    for (const backend of all) if (!this.#tracks.has(backend)) this.#tracks.set(backend, this.#fresh(backend))
  }

  #fresh(backend: Backend): Track {
    return {
      backend,
      phase: 'closed',
      rule: tripRule(this.#settings, this.#core.clock.now()),
      opens: 0,
      untilMs: 0,
      closedMs: -Infinity,
      trials: [],
      successes: 0,
      stop: undefined,
    }
  }

  stop(): void {
    const { tracks } = this
    this.#tracks.clear() // first: requests under way still end
    for (const { backend, stop } of tracks) {
      stop?.()
      this.#core.control.unblock(backend, BY)
    }
  }

  // --- the state

  export({ phase, rule, opens, untilMs }: Track): BackendBreakerState {
    const nowMs = this.#core.clock.now()
    return { phase, leftMs: phase === 'open' ? Math.max(0, untilMs - nowMs) : 0, opens, seen: rule.export(nowMs) }
  }

  adopt(track: Track, { phase, leftMs, opens, seen }: BackendBreakerState): void {
    const { maxOpenMs, jitter } = this.#settings
    this.close(track)
    track.rule = tripRule(this.#settings, track.closedMs, seen)
    track.opens = opens
    if (phase === 'open') this.#openFor(track, Math.min(leftMs, maxOpenMs * (1 + jitter)), 'open as imported')
    if (phase === 'half-open') this.#halfOpen(track)
    if (phase === 'isolated') this.isolate(track)
  }
}
