import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Backend, type BalancerOptions, createBalancer, type Endpoint, type Policy, type Watcher } from 'evenkeel'
import { seededRandom } from 'evenkeel/testing'
import { heapBytes } from '../chaos/gauges.ts'
import { crowd } from './crowd.ts'

const INFLIGHT = 64
const UPDATE_MS = 100
/** Each id has two servers to move between, eight in all. */
const IDS = ['a', 'b', 'c', 'd']
/** Says which update had resolved last when the request was sent. */
const EPOCH = 'x-epoch'

/** What came of it. */
export interface UpdateStory {
  readonly seconds: number
  readonly requests: number
  readonly updates: number
  readonly added: number
  readonly removed: number
  readonly moved: number
  readonly reweighed: number
  /** Calls that failed, in words. */
  readonly failed: readonly string[]
  /** Requests a server got that were sent after an update without it had resolved. */
  readonly strays: number
  /** Records kept over an update that did not touch id and URL, and those that should have been and were not. */
  readonly kept: number
  readonly lost: number
  readonly inflight: number
  /** After a full collection, at the end less at the start. */
  readonly heapMiB: number
}

/** 64 in flight over eight servers on the loopback, while every 100 ms another configuration comes. */
export async function updateStory(seconds: number): Promise<UpdateStory> {
  const random = seededRandom(20_261_122)
  let epoch = 0
  let strays = 0
  /** Per server the update since whose end nothing may come; Infinity while it is a backend. */
  const goneSince = new Map<string, number>()
  const servers = await Promise.all(
    IDS.flatMap((id) => [0, 1].map((n) => [id, n] as const)).map(async ([id]) => {
      let url = ''
      const server = http.createServer((request, response) => {
        if (Number(request.headers[EPOCH]) >= (goneSince.get(url) ?? Infinity)) strays++
        response.end('ok')
      })
      server.keepAliveTimeout = 60_000
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      return { id, url, server }
    }),
  )
  const urlOf = (id: string, n: number): string => servers.filter((server) => server.id === id)[n]!.url

  const stamp: Policy = {
    name: 'stamp',
    scope: 'attempt',
    wrap: (next) => (attempt) => {
      const { request } = attempt
      attempt.request = { ...request, headers: [...request.headers, EPOCH, String(epoch)] }
      return next(attempt)
    },
  }
  let members: readonly Backend[] = []
  const registrar: Watcher = {
    name: 'registrar',
    start: () => ({
      members(all) {
        members = all
      },
      stop() {},
    }),
  }
  const shared = { policies: [stamp], watchers: [registrar] }
  let endpoints: readonly Endpoint[] = IDS.map((id) => ({ id, url: urlOf(id, 0), weight: 1 }))
  const counts = { updates: 0, added: 0, removed: 0, moved: 0, reweighed: 0, kept: 0, lost: 0 }
  const balancer = createBalancer({ ...shared, backends: endpoints } satisfies BalancerOptions)

  /** At least two stay; each of the others comes, goes, moves or gets another weight by chance. */
  const shuffled = (): Endpoint[] => {
    const spared = random(IDS.length)
    return IDS.flatMap((id, i) => {
      const old = endpoints.find((endpoint) => endpoint.id === id)
      if (i !== spared && i !== (spared + 1) % IDS.length && random(3) === 0) return []
      const n = random(3) === 0 ? random(2) : Number(old?.url === urlOf(id, 1))
      return [{ id, url: urlOf(id, n), weight: random(2) === 0 ? (old?.weight ?? 1) : 1 + random(4) }]
    })
  }
  const update = async (): Promise<void> => {
    const next = shuffled()
    const before = new Map(members.map((backend) => [backend.id, backend]))
    const numbers = new Map(balancer.stats().pools.default!.backends.map((stats) => [stats.id, stats]))
    for (const { url } of next) goneSince.delete(url)
    await balancer.update({ ...shared, backends: next })
    epoch++
    counts.updates++
    const after = new Map(balancer.stats().pools.default!.backends.map((stats) => [stats.id, stats]))
    for (const { url } of servers) {
      if (!next.some((endpoint) => endpoint.url === url) && !goneSince.has(url)) goneSince.set(url, epoch)
    }
    for (const endpoint of next) {
      const id = endpoint.id!
      const old = endpoints.find((one) => one.id === id)
      if (old === undefined) counts.added++
      else if (old.url !== endpoint.url) counts.moved++
      else {
        if (old.weight !== endpoint.weight) counts.reweighed++
        const [was, is] = [numbers.get(id)!, after.get(id)!]
        const same = members.find((backend) => backend.id === id) === before.get(id)
        const goesOn = is.requests >= was.requests && is.weight <= endpoint.weight! && is.url === endpoint.url
        if (same && goesOn && Number.isNaN(is.ewmaMs) === Number.isNaN(was.ewmaMs)) counts.kept++
        else counts.lost++
      }
    }
    counts.removed += endpoints.filter(({ id }) => !next.some((endpoint) => endpoint.id === id)).length
    endpoints = next
  }

  const clients = crowd(INFLIGHT, async () => {
    const response = await balancer.fetch('/')
    assert.equal(await response.text(), 'ok')
  })
  const startMs = performance.now()
  const warmUpMs = Math.min(5_000, (seconds * 1_000) / 3)
  let startBytes = 0
  for (let tick = 1; performance.now() - startMs < seconds * 1_000; tick++) {
    const dueMs = startMs + tick * UPDATE_MS
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueMs - performance.now())))
    await update()
    if (startBytes === 0 && performance.now() - startMs > warmUpMs) startBytes = await heapBytes()
  }
  const heapMiB = ((await heapBytes()) - startBytes) / 1024 / 1024
  await clients.stop()
  const { inflight } = balancer.stats().pools.default!
  await balancer.close()
  for (const { server } of servers) {
    server.close()
    server.closeAllConnections()
  }
  const { failed } = clients
  const requests = clients.calls()
  return { seconds, requests, ...counts, failed, strays, inflight, heapMiB: Math.round(heapMiB * 100) / 100 }
}

/** The figures, on one line. */
export function told({ failed, ...figures }: { readonly failed: readonly string[] }): string {
  return JSON.stringify({ failed: failed.length, ...figures })
}
