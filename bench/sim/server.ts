import { type Ending, Load } from '../../src/core/load.ts'
import type { Queue } from './queues.ts'
import type { VirtualTime } from './virtual-time.ts'

/** Refusing takes a moment, ms: with the way there and back it is 1.2 ms. */
const REFUSE_MS = 0.2

/** What came back: a status, or 0 for a connection refused. */
type Reply = (status: number) => void

export interface ServerOptions {
  /** Requests inside at once; more get a 503. */
  readonly most: number
  /** Requests a second, and as many at once; more get a 429. */
  readonly perSecond: number
}

/** One backend and its faults. Who has given up is served all the same, as a server does that nobody told. */
export class Server {
  readonly #time: VirtualTime
  readonly #options: ServerOptions
  readonly queue: Queue
  /** What it reports of itself, as `loadReport` does. */
  readonly load: Load = new Load()
  /** It refuses connections; what is inside goes on. */
  down = false
  /** Whether the next one ends in a 500, after all of its work. */
  fails: () => boolean = () => false
  received = 0
  /** Most requests inside at any one time. */
  peak = 0
  #tokens: number
  #tokensMs = 0

  constructor(time: VirtualTime, queue: Queue, options: ServerOptions) {
    this.#time = time
    this.#options = options
    this.queue = queue
    this.#tokens = options.perSecond
  }

  receive(workMs: number, reply: Reply): void {
    this.received++
    const refusal = this.down ? 0 : this.#isOverRate() ? 429 : this.queue.size >= this.#options.most ? 503 : undefined
    if (refusal === 0) return void this.#time.after(REFUSE_MS, () => reply(0))
    const arrivedMs = this.#time.now()
    const met = this.load.begin()
    const end = (status: number, ending: Ending): void => {
      this.load.end(met, this.#time.now() - arrivedMs, this.#time.now(), ending)
      reply(status)
    }
    if (refusal !== undefined) return void this.#time.after(REFUSE_MS, () => end(refusal, 'failed'))
    const status = this.fails() ? 500 : 200
    this.queue.enter(workMs, () => end(status, status === 200 ? 'served' : 'failed'))
    this.peak = Math.max(this.peak, this.queue.size)
  }

  /** A probe is answered at once, and is no request. */
  probed(reply: Reply): void {
    if (this.down) this.#time.after(REFUSE_MS, () => reply(0))
    else reply(200)
  }

  #isOverRate(): boolean {
    const { perSecond } = this.#options
    if (perSecond === Infinity) return false
    const nowMs = this.#time.now()
    this.#tokens = Math.min(perSecond, this.#tokens + ((nowMs - this.#tokensMs) * perSecond) / 1_000)
    this.#tokensMs = nowMs
    if (this.#tokens < 1) return true
    this.#tokens--
    return false
  }
}
