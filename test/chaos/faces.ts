import http from 'node:http'
import { type Balancer, BalancerError } from 'evenkeel'
import { bytesOf } from '../support/upstreams.ts'

export type FaceName = 'fetch' | 'request' | 'proxy'

/** One request, whichever way it is sent. */
export interface Asked {
  readonly method: 'GET' | 'POST'
  /** Value of its x-request-id. */
  readonly id: string
  /** Of a POST. */
  readonly body?: Uint8Array
  /** Id of the backend that gets it first. */
  readonly prefer?: string
  readonly pool?: string
  readonly signal?: AbortSignal
}

/** What the caller saw, in words: '200', 'RESET', '200, then TRUNCATED', 'aborted'; of the proxy '502 RESET', 'broken off'. */
export interface Seen {
  readonly words: string
  /** 0 without a head. */
  readonly status: number
  /** The body, if it ended in order. */
  readonly text: string | undefined
}

/** What requests are sent to: the balancer, and for the proxy its address. */
export interface Front {
  readonly balancer: Balancer
  readonly proxyUrl: string
}

export type Face = (front: Front, asked: Asked) => Promise<Seen>

/** Where the client of the proxy says which backend it wants. */
export const PREFER: string = 'x-prefer'
/** And which pool. */
export const POOL: string = 'x-pool'

/** The ways into a balancer. None of them rejects: a failure is what the caller saw. */
export const FACES: Readonly<Record<FaceName, Face>> = {
  async fetch({ balancer }, { method, id, body, prefer, pool, signal }) {
    const headers = { 'x-request-id': id }
    try {
      const response = await balancer.fetch('/', {
        method,
        headers,
        balancer: { prefer, pool },
        ...(body !== undefined && { body }),
        ...(signal !== undefined && { signal }),
      })
      return await whole(response.status, () => response.text(), signal)
    } catch (error) {
      return { words: wordOf(error, signal), status: 0, text: undefined }
    }
  },
  async request({ balancer }, { method, id, body, prefer, pool, signal }) {
    const headers = { 'x-request-id': id }
    try {
      const answer = await balancer.request('/', {
        method,
        headers,
        body,
        prefer,
        pool,
        ...(signal !== undefined && { signal }),
      })
      return await whole(answer.statusCode, () => answer.body.text(), signal)
    } catch (error) {
      return { words: wordOf(error, signal), status: 0, text: undefined }
    }
  },
  proxy({ proxyUrl }, { method, id, body, prefer, pool, signal }) {
    return new Promise((resolve) => {
      const headers = {
        'x-request-id': id,
        ...(prefer !== undefined && { [PREFER]: prefer }),
        ...(pool !== undefined && { [POOL]: pool }),
        ...(body !== undefined && { 'content-length': body.length }),
      }
      const broken = (): void => {
        resolve({ words: signal?.aborted ? 'aborted' : 'broken off', status: 0, text: undefined })
      }
      const request = http.request(proxyUrl, { method, headers, agent: false, ...(signal && { signal }) })
      request.on('error', broken)
      request.on('response', (response) => {
        const { statusCode: status = 0, headers: got } = response
        bytesOf(response).then((bytes) => {
          const text = bytes.toString('latin1')
          const own = got['content-type'] === 'application/problem+json'
          resolve({ words: own ? `${status} ${JSON.parse(text).code}` : `${status}`, status, text })
        }, broken)
      })
      request.end(body)
    })
  },
}

async function whole(status: number, read: () => Promise<string>, signal: AbortSignal | undefined): Promise<Seen> {
  try {
    return { words: String(status), status, text: await read() }
  } catch (error) {
    return { words: `${status}, then ${wordOf(error, signal)}`, status, text: undefined }
  }
}

function wordOf(error: unknown, signal: AbortSignal | undefined): string {
  if (signal?.aborted && error === signal.reason) return 'aborted'
  return error instanceof BalancerError ? error.code : `no BalancerError: ${error}`
}
