import { Agent, get } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

/** Clients that work side by side, each with one request at a time. */
const CLIENTS = 16
/** Longest pause between two requests of a client, ms: with half of it on average they make about 500 requests a second. */
const PAUSE_MS = 50

/** What the clients have seen so far. */
export interface Traffic {
  readonly requests: number
  /** Anything but a whole answer with status 200. */
  readonly failed: number
  /** What the first failure was. */
  readonly firstFailure: string | undefined
  /** Resolves when the last requests under way have been answered. */
  stop(): Promise<void>
}

/** Steady GET requests to `http://127.0.0.1:<port>`, over connections that stay open. */
export function startTraffic(port: number): Traffic {
  const agent = new Agent({ keepAlive: true })
  const seen = { requests: 0, failed: 0, firstFailure: undefined as string | undefined }
  let going = true

  const client = async (number: number): Promise<void> => {
    for (let n = 1; going; n++) {
      const failure = await request(port, `/clients/${number}/requests/${n}`, agent)
      seen.requests++
      if (failure !== undefined) {
        seen.failed++
        seen.firstFailure ??= failure
      }
      await sleep(Math.random() * PAUSE_MS)
    }
  }
  const clients = Array.from({ length: CLIENTS }, (_, i) => client(i + 1))

  return {
    get requests() {
      return seen.requests
    },
    get failed() {
      return seen.failed
    },
    get firstFailure() {
      return seen.firstFailure
    },
    async stop() {
      going = false
      await Promise.all(clients)
      agent.destroy()
    },
  }
}

/** One GET. Resolves with what went wrong, if anything did. */
function request(port: number, path: string, agent: Agent): Promise<string | undefined> {
  return new Promise((resolve) => {
    const fail = (error: Error): void => resolve(`${path}: ${error.message}`)
    get({ host: '127.0.0.1', port, path, agent }, (response) => {
      const { statusCode } = response
      response.on('end', () => resolve(statusCode === 200 ? undefined : `${path}: status ${statusCode}`))
      response.on('error', fail)
      response.resume()
    }).on('error', fail)
  })
}
