import { connect, type Socket } from 'node:net'

export interface LoadResult {
  readonly answered: number
  readonly perSecond: number
  /** Answers other than 200, and connections that broke under a request. */
  readonly failed: number
  /** Of every answer, ms, sorted; empty unless asked for. */
  readonly latenciesMs: Float64Array
}

const REQUEST = Buffer.from(
  'GET /bench HTTP/1.1\r\nhost: bench.test\r\naccept: */*\r\nuser-agent: evenkeel-bench\r\n\r\n',
)
/** What one read may bring, bytes: more than an answer of the upstreams. */
const READ_BYTES = 16_384

/**
 * Raw HTTP/1.1 over keep-alive sockets, one request at a time on each. It does just enough parsing to find the end of an
 * answer with a Content-Length, so that the load costs a fraction of any proxy.
 */
export class Load {
  readonly #lanes: readonly LoadLane[]

  constructor(port: number, connections: number, { timed = false }: { readonly timed?: boolean } = {}) {
    this.#lanes = Array.from({ length: connections }, () => new LoadLane(port, timed))
  }

  /** All connections busy for so long; then waits for the answers still on their way. */
  run(seconds: number): Promise<LoadResult> {
    const untilMs = performance.now() + seconds * 1000
    return this.#runWhile(() => performance.now() < untilMs)
  }

  /** So many requests in all. */
  send(requests: number): Promise<LoadResult> {
    let left = requests
    return this.#runWhile(() => left-- > 0)
  }

  /** `more` is asked before every request. */
  async #runWhile(more: () => boolean): Promise<LoadResult> {
    const start = performance.now()
    const counts = await Promise.all(this.#lanes.map((lane) => lane.run(more)))
    const took = (performance.now() - start) / 1000
    const answered = counts.reduce((sum, count) => sum + count.answered, 0)
    const failed = counts.reduce((sum, count) => sum + count.failed, 0)
    const latenciesMs = Float64Array.from(counts.flatMap((count) => count.latenciesMs)).sort()
    return { answered, perSecond: answered / took, failed, latenciesMs }
  }

  close(): void {
    for (const lane of this.#lanes) lane.close()
  }
}

interface Counts {
  answered: number
  failed: number
  readonly latenciesMs: number[]
}

/** One connection. */
class LoadLane {
  readonly #port: number
  readonly #timed: boolean
  #socket: Socket | undefined
  #counts: Counts = { answered: 0, failed: 0, latenciesMs: [] }
  #sentMs = 0
  #more = (): boolean => false
  #done: ((counts: Counts) => void) | undefined
  /** Bytes of the current answer still to come; -1 while its head is not complete. */
  #missing = -1
  #head = ''

  constructor(port: number, timed: boolean) {
    this.#port = port
    this.#timed = timed
  }

  run(more: () => boolean): Promise<Counts> {
    this.#more = more
    this.#counts = { answered: 0, failed: 0, latenciesMs: [] }
    return new Promise((resolve) => {
      this.#done = resolve
      this.#proceed()
    })
  }

  close(): void {
    this.#done = undefined
    this.#socket?.destroy()
  }

  #send(): void {
    this.#missing = -1
    this.#head = ''
    this.#socket ??= this.#open()
    if (this.#timed) this.#sentMs = performance.now()
    this.#socket.write(REQUEST)
  }

  #open(): Socket {
    const buffer = Buffer.allocUnsafe(READ_BYTES)
    const callback = (size: number, bytes: Uint8Array): boolean => {
      this.#read(bytes as Buffer, size)
      return true
    }
    const socket = connect({ port: this.#port, host: '127.0.0.1', noDelay: true, onread: { buffer, callback } })
    socket.on('error', () => {})
    socket.once('close', () => {
      if (this.#socket !== socket) return
      this.#socket = undefined
      if (this.#done !== undefined) this.#next(false)
    })
    return socket
  }

  #read(bytes: Buffer, size: number): void {
    if (this.#missing >= 0) this.#missing -= size
    else {
      const text = bytes.toString('latin1', 0, size)
      const head = this.#head + text
      const end = head.indexOf('\r\n\r\n')
      if (end < 0) {
        this.#head = head
        return
      }
      const ok = head.startsWith('200', 9)
      const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1]
      if (!ok || length === undefined) return this.#broken()
      this.#missing = Number(length) - (head.length - end - 4)
    }
    if (this.#missing < 0) return this.#broken()
    if (this.#missing === 0) this.#next(true)
  }

  #broken(): void {
    this.#socket?.destroy()
  }

  #next(answered: boolean): void {
    if (answered && this.#timed) this.#counts.latenciesMs.push(performance.now() - this.#sentMs)
    if (answered) this.#counts.answered++
    else this.#counts.failed++
    this.#proceed()
  }

  #proceed(): void {
    if (this.#more()) return this.#send()
    const done = this.#done
    this.#done = undefined
    done?.(this.#counts)
  }
}
