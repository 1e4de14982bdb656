import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import http, { type IncomingMessage, type RequestListener } from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { type Balancer, type BalancerOptions, createBalancer } from 'evenkeel'
import { createProxy, type ProxyOptions } from 'evenkeel/node'
import { onTestFinished } from 'vitest'
import { freePort } from './ports.ts'

export const MIB: number = 1024 * 1024
/** The least a backend can say. */
export const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'

/** How the other side ended a connection: in order, or broken off. */
export type Ending = 'fin' | 'reset'

/** One end of a TCP connection, byte by byte. */
export class Wire {
  readonly socket: net.Socket
  /** Everything that came, as latin1. */
  received = ''
  /** What came, read by read. */
  readonly reads: string[] = []
  ending: Ending | undefined
  readonly #changes = new EventEmitter()
  #heads = 0

  constructor(socket: net.Socket) {
    this.socket = socket
    this.#changes.setMaxListeners(0)
    let reset = false
    socket.on('error', (error) => {
      reset = 'code' in error && (error.code === 'ECONNRESET' || error.code === 'EPIPE')
    })
    socket.on('data', (data) => {
      const text = data.toString('latin1')
      this.received += text
      this.reads.push(text)
      this.#changes.emit('change')
    })
    socket.on('close', () => {
      this.ending = reset ? 'reset' : 'fin'
      this.#changes.emit('change')
    })
  }

  /** Latin1 text onto the wire. */
  write(text: string): void {
    this.socket.write(text, 'latin1')
  }

  /** Resolves as soon as it holds for what came; rejects if the connection closes before. */
  async until(holds: string | ((received: string) => boolean)): Promise<string> {
    const test = typeof holds === 'string' ? (received: string) => received.includes(holds) : holds
    while (!test(this.received)) {
      if (this.ending !== undefined) {
        assert.fail(`closed (${this.ending}) before what was awaited; received: ${JSON.stringify(this.received)}`)
      }
      await once(this.#changes, 'change')
    }
    return this.received
  }

  /** The next message's head, from its start line on. Only for messages without a body. */
  async head(): Promise<string> {
    const from = this.#heads
    await this.until((received) => received.includes('\r\n\r\n', from))
    this.#heads = this.received.indexOf('\r\n\r\n', from) + 4
    return this.received.slice(from, this.#heads)
  }

  /** Resolves when it is closed, with how. */
  async closed(): Promise<Ending> {
    while (this.ending === undefined) await once(this.#changes, 'change')
    return this.ending
  }
}

export interface Upstream {
  readonly url: string
  readonly port: number
}

/** An HTTP server on a free loopback port, gone with the test. */
export async function upstream(handler: RequestListener): Promise<Upstream & { readonly server: http.Server }> {
  const server = http.createServer(handler)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  })
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, port, server }
}

/** A request as a backend got it. */
export interface Got {
  readonly method: string
  readonly path: string
  readonly headers: http.IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly body: Buffer
}

/** A backend that keeps what it gets and says 200 'ok' to everything, or what `answer` says. */
export async function keeper(
  answer: RequestListener = (_, response) => response.end('ok'),
): Promise<Upstream & { readonly got: readonly Got[]; readonly server: http.Server }> {
  const got: Got[] = []
  const made = await upstream(async (request, response) => {
    const body = await bytesOf(request).catch(() => undefined)
    if (body === undefined) return // its sender is gone
    const { method = '', url = '', headers, rawHeaders } = request
    got.push({ method, path: url, headers, rawHeaders, body })
    answer(request, response)
  })
  return { ...made, got }
}

export interface RawUpstream extends Upstream {
  readonly wires: readonly Wire[]
  /** The connection of that number, from 0, as soon as there is one. */
  wire(number?: number): Promise<Wire>
}

/** A TCP server that plays a script on each connection. What a script awaits in vain when the test ends is nobody's fault. */
export async function rawUpstream(
  script: (wire: Wire, number: number) => unknown,
  options: net.ServerOpts = {},
): Promise<RawUpstream> {
  const wires: Wire[] = []
  const server = net.createServer(options, async (socket) => {
    const wire = new Wire(socket)
    const number = wires.push(wire) - 1
    server.emit('wire')
    try {
      await script(wire, number)
    } catch (error) {
      if (wire.ending === undefined) throw error
    }
  })
  server.setMaxListeners(0)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    for (const { socket } of wires) socket.destroy()
    server.close()
    await once(server, 'close')
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    wires,
    async wire(number = 0) {
      while (wires[number] === undefined) await once(server, 'wire')
      return wires[number]
    },
  }
}

/** A script: every request gets these bytes. For requests without bodies. */
export function says(bytes: string): (wire: Wire) => Promise<never> {
  return async (wire) => {
    for (;;) {
      await wire.head()
      wire.write(bytes)
    }
  }
}

/** A port where nobody listens. */
export async function nobody(): Promise<Upstream> {
  const port = await freePort()
  return { url: `http://127.0.0.1:${port}`, port }
}

/** A balancer that has nothing in flight when its test ends, or the test fails. */
export function balance(
  backends: readonly (Upstream | string)[],
  options: Omit<BalancerOptions, 'backends'> = {},
): Balancer {
  return kept(
    createBalancer({ backends: backends.map((one) => (typeof one === 'string' ? one : one.url)), ...options }),
  )
}

/** The same for one made by hand. */
export function kept(balancer: Balancer): Balancer {
  onTestFinished(async () => {
    await idle(balancer)
    await balancer.close()
  })
  return balancer
}

/** Attempts under way, over all pools. */
export function inflight(balancer: Balancer): number {
  return Object.values(balancer.stats().pools).reduce((sum, pool) => sum + pool.inflight, 0)
}

/** Resolves when nothing is in flight. */
export async function idle(balancer: Balancer): Promise<void> {
  await until(() => inflight(balancer) === 0, 'a lease was never given back')
}

/** The first backend of the only pool, in numbers. */
export function statsOf(
  balancer: Balancer,
  backend = 0,
): { readonly requests: number; readonly failures: number; readonly classes: Readonly<Record<string, number>> } {
  const { requests, failures, classes } = balancer.stats().pools.default!.backends[backend]!
  return { requests, failures, classes: classes as Readonly<Record<string, number>> }
}

/** The proxy over a balancer, on a port of its own. */
export async function front(balancer: Balancer, options: ProxyOptions = {}): Promise<Upstream> {
  return upstream(createProxy(balancer, options))
}

/** A client that speaks bytes. */
export async function rawClient({ port }: Upstream, options: net.SocketConstructorOpts = {}): Promise<Wire> {
  const socket = net.connect({ ...options, port, host: '127.0.0.1' })
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  return new Wire(socket)
}

/** An answer as a client got it. */
export interface Answer {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly rawTrailers: readonly string[]
  readonly body: Buffer
}

/** One request by node:http, on a connection of its own unless an agent is given; rejects if the answer breaks off. */
export async function ask(
  { url }: Upstream,
  path: string,
  options: http.RequestOptions & { readonly body?: string | Uint8Array | Iterable<Uint8Array> } = {},
): Promise<Answer> {
  const { body, ...rest } = options
  const request = http.request(url + path, { agent: false, ...rest })
  if (body === undefined || typeof body === 'string' || body instanceof Uint8Array) request.end(body)
  else {
    for (const chunk of body) request.write(chunk)
    request.end()
  }
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  const whole = await bytesOf(response)
  const { statusCode = 0, headers, rawHeaders, rawTrailers } = response
  return { status: statusCode, headers, rawHeaders, rawTrailers, body: whole }
}

export async function bytesOf(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  return Buffer.concat(chunks)
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Values of a field in `name, value, …` form, in order. */
export function valuesOf(rawHeaders: readonly string[], name: string): string[] {
  return rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]!.toLowerCase() === name)
}

/** For what no event tells; 5 s is for slow machines. */
export async function until(holds: () => boolean, otherwise: string): Promise<void> {
  const endMs = performance.now() + 5_000
  while (!holds()) {
    if (performance.now() > endMs) assert.fail(otherwise)
    await pause(2)
  }
}

/** Resolves with a number that has stood still for a while: how far somebody got who was stopped. */
export async function standstill(read: () => number): Promise<number> {
  for (let still = 0, last = read(); ; ) {
    await pause(25)
    const now = read()
    still = now === last ? still + 1 : 0
    last = now
    if (still === 6) return now
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
