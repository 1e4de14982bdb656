import type { Duplex } from 'node:stream'
import type { Clock } from '../core/contracts.ts'
import { Deadline, type Deadlines } from '../core/deadlines.ts'
import { Frames, GOING_AWAY, GOING_AWAY_MASKED } from './frames.ts'

export interface TunnelTimes {
  /** Longest silence of both ends, ms; 0 = no limit. */
  readonly idleMs: number
  /** From when it is asked to end until it is cut, ms; 0 = cut at once. */
  readonly graceMs: number
}

/** Longest silence once one end has said that it is done, ms: as long as the package ws waits for the rest of a closing handshake. */
const HALF_OPEN_MS = 30_000

/** One direction: bytes as they come, no faster than the other side takes them. */
class Way {
  readonly #source: Duplex
  readonly #target: Duplex
  readonly #frames: Frames | undefined
  readonly #farewell: Uint8Array
  #isLeaving = false
  /** The farewell is said: what the source still says may not follow it. */
  #isOver = false

  constructor(source: Duplex, target: Duplex, farewell: Uint8Array, isFramed: boolean) {
    this.#source = source
    this.#target = target
    this.#farewell = farewell
    this.#frames = isFramed ? new Frames() : undefined
    target.on('drain', () => source.resume())
    source.on('end', () => target.end())
  }

  /** Whether the source has said that it closes. */
  get isClosed(): boolean {
    return this.#frames?.isClosed === true
  }

  take(bytes: Uint8Array): void {
    if (this.#frames === undefined) return this.#pass(bytes)
    const wasClosed = this.isClosed
    const end = this.#frames.read(bytes)
    if (this.#isOver) return
    if (!this.#isLeaving || wasClosed || end === 0) return this.#pass(bytes)
    this.#pass(bytes.subarray(0, end))
    this.#leave()
  }

  /** Says farewell for the source as soon as no frame is in the middle, unless it has done so itself. */
  leave(): void {
    this.#isLeaving = true
    if (this.#frames?.isBetween === true) this.#leave()
  }

  #leave(): void {
    if (this.isClosed || !this.#target.writable) return
    this.#isOver = true
    this.#target.write(this.#farewell)
    this.#source.resume() // nobody is to be waited for any more
  }

  #pass(bytes: Uint8Array): void {
    // After its end, or once it is broken, nobody takes anything: the rest goes nowhere.
    if (this.#target.writable && !this.#target.write(bytes)) this.#source.pause()
  }
}

/**
 * A client's connection and a backend's as one. What comes from one goes to the other, unchanged and in order; an end is passed on as
 * an end, and if one breaks, so does the other.
 */
export class Tunnel extends Deadline {
  readonly #client: Duplex
  readonly #backend: Duplex
  readonly #up: Way
  readonly #down: Way
  readonly #clock: Clock
  readonly #times: TunnelTimes
  /** Of the last byte, either way. */
  #activeMs: number
  #mostMs: number
  #isDraining = false
  #open = 2

  /** `isFramed` = it is a WebSocket. The client's bytes that came before, if any, go first. */
  constructor(
    client: Duplex,
    backend: Duplex,
    early: readonly Uint8Array[],
    isFramed: boolean,
    times: TunnelTimes,
    clock: Clock,
    deadlines: Deadlines,
  ) {
    super(deadlines)
    this.#client = client
    this.#backend = backend
    this.#times = times
    this.#clock = clock
    this.#activeMs = clock.now()
    this.#mostMs = times.idleMs
    this.#up = new Way(client, backend, GOING_AWAY_MASKED, isFramed)
    this.#down = new Way(backend, client, GOING_AWAY, isFramed)
    this.#watch(client, backend)
    this.#watch(backend, client)
    this.set(this.#mostMs, this.#activeMs)
    for (const bytes of early) this.#take(this.#up, bytes)
    client.on('data', (bytes: Uint8Array) => this.#take(this.#up, bytes))
    backend.on('data', (bytes: Uint8Array) => this.#take(this.#down, bytes))
    // Of what is over already nobody is told.
    if (client.destroyed || backend.destroyed) this.destroy()
    else if (backend.readableEnded) {
      client.end()
      this.#halve()
    }
  }

  /** Both ends are told that the other goes away, and have a while to say the rest. */
  drain(): void {
    if (this.#isDraining || this.#open === 0) return
    if (this.#times.graceMs === 0) return this.destroy()
    this.#isDraining = true
    this.set(this.#times.graceMs, this.#clock.now())
    this.#down.leave()
    this.#up.leave()
    this.#endIfDone()
  }

  destroy(): void {
    this.clear()
    this.#client.destroy()
    this.#backend.destroy()
  }

  override expire(): void {
    const isSilent = this.#clock.now() - this.#activeMs >= this.#mostMs
    // Bytes do not move the deadline, they only leave their time: looked at when it matters.
    if (this.#isDraining || isSilent) this.destroy()
    else this.set(this.#mostMs, this.#activeMs)
  }

  #take(way: Way, bytes: Uint8Array): void {
    this.#activeMs = this.#clock.now()
    way.take(bytes)
    if (this.#isDraining) this.#endIfDone()
  }

  /** Both have said that they close. */
  #endIfDone(): void {
    if (!this.#up.isClosed || !this.#down.isClosed) return
    this.#client.end()
    this.#backend.end()
  }

  #watch(one: Duplex, other: Duplex): void {
    one.on('error', () => other.destroy())
    one.on('end', () => this.#halve())
    one.on('close', () => {
      // One that came to its end both ways leaves the other one time to do so.
      if (!one.readableEnded || !one.writableFinished) other.destroy()
      if (--this.#open === 0) this.clear()
    })
  }

  /** What is only half open is not kept for hours. */
  #halve(): void {
    this.#mostMs = Math.min(this.#mostMs || HALF_OPEN_MS, HALF_OPEN_MS)
    this.#activeMs = this.#clock.now()
    if (!this.#isDraining) this.set(this.#mostMs, this.#activeMs)
  }
}
