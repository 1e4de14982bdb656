import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { freePort } from './ports.ts'

/** How a backend process answers: all at once, or the head first and the body 5 ms later. */
export type AnswerMode = 'whole' | 'split'

export const BODY_BYTES = 1024

const SCRIPT = `
  const [mode, port] = process.argv.slice(1)
  const body = Buffer.alloc(${BODY_BYTES}, 'x')
  const server = require('node:http').createServer((request, response) => {
    response.setHeader('content-length', body.length)
    if (mode === 'whole') return response.end(body)
    response.flushHeaders()
    setTimeout(() => response.end(body), 5)
  })
  server.keepAliveTimeout = 60_000
  server.listen(Number(port), '127.0.0.1', () => console.log(server.address().port))
`

/** A backend in a process of its own, to be killed for real. */
export class BackendProcess {
  readonly #mode: AnswerMode
  #child: ChildProcess | undefined
  port = 0

  constructor(mode: AnswerMode) {
    this.#mode = mode
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** Starts it, or starts it again on the port it had. */
  async start(): Promise<void> {
    if (this.port === 0) this.port = await freePort()
    const child = spawn(process.execPath, ['-e', SCRIPT, this.#mode, String(this.port)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#child = child
    const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
    this.port = Number(line)
  }

  async kill(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (child === undefined || child.exitCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
}

export async function startBackends(mode: AnswerMode, count: number): Promise<BackendProcess[]> {
  const backends = Array.from({ length: count }, () => new BackendProcess(mode))
  await Promise.all(backends.map((backend) => backend.start()))
  return backends
}
