import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface UpstreamOptions {
  readonly id: string
  /** Time to an answer, ms, give or take a quarter. */
  readonly delayMs: number
  /** Share of the requests answered with 503, 0..1; default 0. */
  readonly failShare?: number
}

/** A little HTTP server that can die and come back on the same port. */
export interface Upstream {
  readonly id: string
  readonly url: string
  /** The listener goes away and every connection breaks, as when the process is killed. */
  kill(): Promise<void>
  revive(): Promise<void>
}

export async function startUpstream({ id, delayMs, failShare = 0 }: UpstreamOptions): Promise<Upstream> {
  const server = createServer((request, response) => {
    const fails = Math.random() < failShare
    const body = `${JSON.stringify({ backend: id, path: request.url })}\n`
    setTimeout(
      () => {
        response.writeHead(fails ? 503 : 200, {
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(body),
        })
        response.end(body)
      },
      delayMs * (0.75 + Math.random() / 2),
    )
  })
  const port = await listen(server, 0)
  return {
    id,
    url: `http://127.0.0.1:${port}`,
    kill() {
      return new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
    },
    async revive() {
      await listen(server, port)
    },
  }
}

/** Listens on 127.0.0.1 and gives the port; rejects with Node's error, e.g. EADDRINUSE. */
export function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      server.off('error', reject)
      resolve((server.address() as AddressInfo).port)
    })
  })
}
