/** What a request reader finds in what it is fed, in order. */
export interface RequestListener {
  /** A head is there: request line and fields, without the empty line; latin1. */
  head(head: string): void
  /** The request is there to the last byte of its body. */
  end(): void
  /** This is no HTTP/1.x request; nothing more is read. */
  nonsense(): void
}

/** Most that a head or a line may take, characters. */
const LIMIT = 262_144

const LINE = '\r\n'

/** Finds where requests begin and end on one connection, keeping no bodies. No more of HTTP/1.x than a test server needs. */
export class RequestReader {
  readonly #listener: RequestListener
  #step: (() => boolean) | undefined = () => this.#head()
  #rest = ''
  /** Of the body, or of the current chunk and the line end behind it. */
  #bytesLeft = 0

  constructor(listener: RequestListener) {
    this.#listener = listener
  }

  feed(data: Buffer): void {
    if (this.#step === undefined) return
    this.#rest += data.toString('latin1')
    while (this.#step?.()) {}
    if (this.#rest.length > LIMIT) this.#stop()
  }

  #head(): boolean {
    this.#rest = this.#rest.replace(/^(\r\n)+/, '') // RFC 9112 2.2: empty lines before a request are ignored
    if (!/^([A-Z\r]|$)/.test(this.#rest)) return this.#stop()
    const head = this.#until(LINE + LINE)
    if (head === undefined) return false
    if (!/^\S+ \S+ HTTP\/1\.\d(\r|$)/.test(head)) return this.#stop()
    const length = fieldOf(head, 'content-length') ?? '0'
    if (!/^\d+$/.test(length)) return this.#stop()
    this.#listener.head(head)
    this.#bytesLeft = Number(length)
    const chunked = /chunked/i.test(fieldOf(head, 'transfer-encoding') ?? '')
    this.#step = chunked ? () => this.#size() : () => this.#skip(() => this.#end())
    return true
  }

  #size(): boolean {
    const line = this.#until(LINE)
    if (line === undefined) return false
    const size = Number.parseInt(line, 16)
    if (!(size >= 0)) return this.#stop()
    this.#bytesLeft = size + LINE.length
    this.#step = size === 0 ? () => this.#trailer() : () => this.#skip(() => this.#size())
    return true
  }

  #trailer(): boolean {
    const line = this.#until(LINE)
    if (line === '') this.#step = () => this.#end()
    return line !== undefined
  }

  #skip(next: () => boolean): boolean {
    const taken = Math.min(this.#bytesLeft, this.#rest.length)
    this.#rest = this.#rest.slice(taken)
    this.#bytesLeft -= taken
    if (this.#bytesLeft > 0) return false
    this.#step = next
    return true
  }

  #end(): boolean {
    this.#step = () => this.#head()
    this.#listener.end()
    return this.#rest !== ''
  }

  #stop(): false {
    this.#step = undefined
    this.#rest = ''
    this.#listener.nonsense()
    return false
  }

  #until(mark: string): string | undefined {
    const at = this.#rest.indexOf(mark)
    if (at < 0) return undefined
    const text = this.#rest.slice(0, at)
    this.#rest = this.#rest.slice(at + mark.length)
    return text
  }
}

/** The value of the first field of this lower-case name in a head. */
export function fieldOf(head: string, name: string): string | undefined {
  for (const line of head.split(LINE).slice(1)) {
    const colon = line.indexOf(':')
    if (line.slice(0, colon).toLowerCase() === name) return line.slice(colon + 1).trim()
  }
  return undefined
}
