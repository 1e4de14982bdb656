import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { type Balancer, createBalancer } from 'evenkeel'
import { loadConfig, watchConfig } from 'evenkeel/config'
import { createProxy } from 'evenkeel/node'
import { leftovers, seededRandom } from 'evenkeel/testing'
import { keptBytes, slopeOf } from '../chaos/gauges.ts'
import { crowd } from './crowd.ts'
import { WAYS, type Way } from './file-writes.ts'
import { FAULTS, type Member, type Version, version } from './reload-files.ts'
import { ask, pause, until, upstream } from './upstreams.ts'
import { folder, watches } from './watching.ts'

const INFLIGHT = 64
const WRITE_MS = 200
/** Every fourth write is a bad one, and waits until the one before is in force: with five ways to write, each fault comes in each. */
const BAD_EVERY = 4
/** Half the body comes after this, the rest after as much again: connections are busy, the machine is not. */
const HALF_MS = 100
/** Longer than any test: only a reload could end a connection. */
const KEEP_ALIVE_MS = 600_000
const SAMPLES = 9

/** What came of it. */
export interface ReloadStory {
  readonly seconds: number
  readonly requests: number
  /** Calls that failed, in words. */
  readonly failed: readonly string[]
  /** Connections that ended under a request, at the backends. */
  readonly dropped: number
  /** Connections that ended at all: those to backends that are in every file, and those of the proxy's clients. */
  readonly ended: number
  readonly good: number
  readonly bad: number
  /** Good files that were put into force; of the others the next one came first. */
  readonly applied: number
  /** How often it was told that a file is wrong. */
  readonly refused: number
  /** What should not have been, in words. */
  readonly wrong: readonly string[]
  /** Of what outlives full collections, over the last two thirds. */
  readonly kibPerMinute: number
}

/**
 * A file that is followed is written every 200 ms, now and then wrong, under 64 calls in flight by every face. It is one long
 * function: traffic, writes and what is told of them share one set of counts.
 */
export async function reloadStory(seconds: number): Promise<ReloadStory> {
  const random = seededRandom(20_261_124)
  const counts = { dropped: 0, ended: 0, good: 0, bad: 0, applied: 0, refused: 0 }
  const wrong: string[] = []
  let isOver = false
  const countEnds = (server: http.Server): void => {
    server.on('connection', (socket) => socket.on('close', () => void (isOver || counts.ended++)))
  }
  const backend = async (): Promise<{ readonly url: string; readonly server: http.Server }> => {
    const { url, server } = await upstream((_, response) => {
      response.on('close', () => void (response.writableFinished || counts.dropped++))
      setTimeout(() => {
        response.write('o')
        setTimeout(() => response.end('k'), HALF_MS)
      }, HALF_MS)
    })
    server.keepAliveTimeout = KEEP_ALIVE_MS
    return { url, server }
  }
  const backends = await Promise.all(Array.from({ length: 10 }, backend))
  for (const { server } of backends.slice(0, 2)) countEnds(server)
  const urls = backends.map(({ url }) => url)
  const places = { main: urls.slice(0, 5), side: urls.slice(5, 8), extra: urls.slice(8) }
  let number = 0
  let versions: readonly Version[] = []
  const fresh = (): Version => {
    const made = version(number++, places, random)
    versions = [...versions, made]
    return made
  }

  let latest = fresh()
  const file = join(await folder(), 'evenkeel.toml')
  writeFileSync(file, latest.text)
  const balancer = createBalancer((await loadConfig(file)).options)
  const proxy = await upstream(createProxy(balancer, { call: ({ headers }) => ({ pool: String(headers['x-pool']) }) }))
  proxy.server.keepAliveTimeout = KEEP_ALIVE_MS
  countEnds(proxy.server)
  const baseline = leftovers()
  const folders = watches()

  let inForce = latest
  let complaint = ''
  const check = (): void => void wrong.push(...faultsOf(balancer, inForce))
  balancer.on('configured', () => {
    counts.applied++
    inForce = versions.find(({ name }) => name === balancer.name)! // none if it is older than the last
    versions = versions.filter((one) => one.number >= inForce.number)
    check()
  })
  balancer.on('reloadFailed', ({ message }) => {
    counts.refused++
    if (counts.refused > counts.bad) wrong.push(message)
    complaint = message
    check()
  })
  balancer.on('warning', (error) => void wrong.push(String(error)))
  const stop = balancer.follow(watchConfig(file))

  const agent = new http.Agent({ keepAlive: true })
  const byFetch = async (pool: string): Promise<string> => (await balancer.fetch('/', { balancer: { pool } })).text()
  const byRequest = async (pool: string): Promise<string> => (await balancer.request('/', { pool })).body.text()
  // When a proxy reads what its client has sent, the extra pool may be gone.
  const byProxy = async (pool: string): Promise<string> => {
    const headers = { 'x-pool': pool === 'extra' ? 'main' : pool }
    return String((await ask(proxy, '/', { agent, headers })).body)
  }
  const faces = [byFetch, byRequest, byProxy]
  const clients = crowd(INFLIGHT, async (place, round) => {
    const pools = Object.keys(inForce.pools)
    assert.equal(await faces[place % faces.length]!(pools[round % pools.length]!), 'ok')
  })

  const samples: [minute: number, kib: number][] = []
  const startMs = performance.now()
  const passedMs = (): number => performance.now() - startMs
  const writeGood = (way: Way): void => {
    latest = fresh()
    counts.good++
    way(file, latest.text)
  }
  const taken = (): Promise<void> =>
    until(() => inForce === latest, `the last good file is not in force, but ${inForce.name}`)
  const writeBad = async (way: Way): Promise<void> => {
    const fault = FAULTS[counts.bad++ % FAULTS.length]!
    way(file, fault.spoil(fresh().text))
    await until(() => counts.refused >= counts.bad, `nobody was told of a bad file: ${fault.complaint}`)
    if (!fault.complaint.test(complaint)) wrong.push(`expected ${fault.complaint}, was told: ${complaint}`)
  }
  try {
    for (let tick = 1, nextMs = 0; passedMs() < seconds * 1_000; tick++) {
      await pause(Math.max(0, nextMs - passedMs()))
      nextMs = passedMs() + WRITE_MS
      const way = WAYS[tick % WAYS.length]!
      if (tick % BAD_EVERY > 0) writeGood(way)
      else {
        await taken()
        await writeBad(way)
      }
      if (passedMs() < ((samples.length + 1) * seconds * 1_000) / SAMPLES) continue
      samples.push([passedMs() / 60_000, (await keptBytes()) / 1_024])
    }
    writeGood(WAYS[0]!)
    await taken()
  } finally {
    await clients.stop()
    stop()
    isOver = true
    agent.destroy()
    check()
    wrong.push(...(watches() === folders ? [] : ['a folder is still watched']))
    await balancer.close()
  }
  await baseline.restored()
  const kibPerMinute = Math.round(slopeOf(samples.slice(samples.length / 3)))
  const { failed } = clients
  return { seconds, requests: clients.calls(), failed, ...counts, wrong, kibPerMinute }
}

/** Where the balancer differs from a file, in words: backends and weights of every pool, and who is picked how often. */
function faultsOf(balancer: Balancer, { name, pools }: Version): string[] {
  const stats = Object.entries(balancer.stats().pools)
  const is = Object.fromEntries(
    stats.map(([pool, { backends }]) => [pool, backends.map(({ id, url, weight }) => ({ id, url, weight }))]),
  )
  const isSame = balancer.name === name && isDeepStrictEqual(is, pools)
  const faults = isSame ? [] : [`${name} should be in force, it is ${balancer.name}: ${JSON.stringify(is)}`]
  const picks = picksOf(balancer, pools.main!)
  const mispicked = pools.main!.filter(({ id, weight }) => Math.abs((picks.get(id) ?? 0) - weight) > 1)
  return [
    ...faults,
    ...mispicked.map(({ id, weight }) => `${id} of weight ${weight} was picked ${picks.get(id)} times`),
  ]
}

/** As many as the weights add up to, in one tick: each backend is picked as often as its weight says, give or take the start. */
function picksOf(balancer: Balancer, members: readonly Member[]): ReadonlyMap<string, number> {
  const picks = new Map<string, number>()
  for (let left = members.reduce((sum, { weight }) => sum + weight, 0); left > 0; left--) {
    const lease = balancer.acquire({ pool: 'main' })
    picks.set(lease.backend.id, (picks.get(lease.backend.id) ?? 0) + 1)
    lease.cancel()
  }
  return picks
}
