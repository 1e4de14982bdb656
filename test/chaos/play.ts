import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Balancer, type BalancerOptions, type CallOptions, createBalancer, type Transport } from 'evenkeel'
import { createProxy } from 'evenkeel/node'
import { type FaultServer, faultServer } from 'evenkeel/testing'
import { CERT, KEY } from '../support/tls.ts'
import { ELSEWHERE, EXPIRED } from '../support/wrong-certs.ts'
import { type Case, GOOD, timesOf } from './cases.ts'
import { FACES, type FaceName, type Front, POOL, PREFER } from './faces.ts'

/** What carries the requests: undefined for the balancer's own choice. */
export type Carrier = (() => Transport) | undefined

/** One request of the table: where it is sent, how, and beside whom. */
export interface Scene {
  readonly face: FaceName
  readonly method: 'GET' | 'POST'
  /** Healthy backends beside the one with the fault, which is asked first. */
  readonly peers: readonly FaultServer[]
}

/** What came of it. */
export interface Sight {
  /** What the caller saw, and after how many attempts. */
  readonly caller: string
  /** What the backend with the fault saw. */
  readonly backend: string
  /** Broken promises, in words. */
  readonly broken: readonly string[]
}

/** Sends in all. */
export const ATTEMPTS: number = 3
const FAULTY = 'faulty'

const SETTINGS: Omit<BalancerOptions, 'backends'> = { retry: { attempts: ATTEMPTS, baseMs: 1, sameBaseMs: 1 } }

let scenes = 0

/** Plays one request against one fault, with a balancer and a backend of its own. `hole` is where connecting never ends. */
export async function play(one: Case, { face, method, peers }: Scene, hole: string, carrier: Carrier): Promise<Sight> {
  const server = await faultServer(one.tls === undefined ? {} : { tls: { key: KEY, cert: CERT } })
  const front = await startFront({
    ...SETTINGS,
    ...(carrier !== undefined && { transport: carrier() }),
    backends: [
      { id: FAULTY, url: one.fault === undefined ? hole : server.url, timeouts: timesOf(one) },
      ...peers.map(({ url }) => url),
    ],
    undici: one.tls === 'trusted' ? { tls: { ca: [CERT, EXPIRED, ELSEWHERE] } } : {},
  })
  try {
    if (one.warm) await FACES[face](front, { method: 'GET', id: `warm-${scenes}`, prefer: FAULTY })
    await server.play(one.fault)
    const before = { requests: server.requests, accepted: server.accepted, ...totals(front.balancer) }
    const id = `${method}-${scenes++}`
    const body = method === 'POST' ? { body: Buffer.alloc(one.uploadBytes ?? 4, 'x') } : {}
    const seen = await FACES[face](front, { method, id, prefer: FAULTY, ...body })
    await front.balancer.close()
    const attempts = totals(front.balancer).attempts - before.attempts
    const times = [server, ...peers].reduce((sum, { seen: ids }) => sum + (ids.get(id) ?? 0), 0)
    const broken: string[] = []
    // A connection that died of old age costs one more, which is not counted as a retry.
    if (times > (method === 'POST' ? 1 : ATTEMPTS + (one.warm ? 1 : 0)))
      broken.push(`I2: ${id} was seen ${times} times`)
    for (const { requests, seen: ids } of [server, ...peers]) {
      if (requests !== [...ids.values()].reduce((sum, n) => sum + n, 0)) broken.push('I2: a request without an id')
    }
    broken.push(...accounts(front.balancer, (one.warm ? 1 : 0) + (isAnswer(seen.words) ? 1 : 0)))
    if (seen.text !== undefined && seen.status === 200 && !one.blind) {
      const wanted = [GOOD, one.whole ?? 'x'.repeat(one.fault?.bytes ?? 16)]
      if (!wanted.includes(seen.text)) broken.push(`I7: ended in order with ${JSON.stringify(seen.text.slice(0, 99))}`)
    }
    return {
      caller: `${seen.words}${attempts > 1 ? ` after ${attempts}` : ''}`,
      backend: traffic(server.requests - before.requests, server.accepted - before.accepted),
      broken,
    }
  } finally {
    await front.close()
    await server.close()
  }
}

/** Calls = answered + failed + aborted, and nothing in flight: what is wrong with the numbers, in words. */
export function accounts(balancer: Balancer, answered?: number): string[] {
  const broken: string[] = []
  const sum = { calls: 0, failed: 0, aborted: 0 }
  for (const { calls, failed, aborted, inflight, backends } of Object.values(balancer.stats().pools)) {
    sum.calls += calls
    sum.failed += failed
    sum.aborted += aborted
    if (inflight !== 0 || backends.some((backend) => backend.inflight !== 0)) broken.push(`I3: ${inflight} in flight`)
  }
  if (answered !== undefined && sum.calls !== answered + sum.failed + sum.aborted) {
    broken.push(`I3: ${answered} answered of ${JSON.stringify(sum)}`)
  }
  return broken
}

/** A balancer with the proxy before it. */
export async function startFront(options: BalancerOptions): Promise<Front & { close(): Promise<void> }> {
  const balancer = createBalancer(options)
  const call = ({ headers }: http.IncomingMessage): CallOptions => {
    return { prefer: headers[PREFER] as string | undefined, pool: headers[POOL] as string | undefined }
  }
  const proxy = http.createServer(createProxy(balancer, { call })).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  return {
    balancer,
    proxyUrl: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    async close() {
      await balancer.close()
      proxy.close()
      proxy.closeAllConnections()
      await once(proxy, 'close')
    },
  }
}

/** Whether the backend's answer reached the caller, whole or not; an error that the proxy made itself is `502 RESET`. */
export function isAnswer(words: string): boolean {
  return /^\d+(, then \w+)?$/.test(words) || words === 'broken off'
}

function totals(balancer: Balancer): { readonly attempts: number } {
  return { attempts: balancer.stats().pools.default!.attempts }
}

function traffic(requests: number, accepted: number): string {
  if (requests === 0 && accepted === 0) return 'nothing'
  const connections = `${accepted} ${accepted === 1 ? 'connection' : 'connections'}`
  if (requests === 0) return connections
  const sent = `${requests} ${requests === 1 ? 'request' : 'requests'}`
  return requests === accepted ? sent : `${sent}, ${accepted === 0 ? 'no new connection' : connections}`
}
