import { faultServer } from 'evenkeel/testing'
import { pause } from '../support/upstreams.ts'
import { FACES, type FaceName } from './faces.ts'
import { startFront } from './play.ts'

const SERVERS = 3
/** A client over a socket of its own each time would be the slowest of all. */
const NAMES: readonly FaceName[] = ['fetch', 'request']
const TICK_MS = 10

export interface Outage {
  readonly calls: number
  readonly seconds: number
  /** Sends while every backend refused. */
  readonly attempts: number
  readonly answered: number
  /** Of the time afterwards. */
  readonly after: { readonly calls: number; readonly attempts: number; readonly answered: number }
}

/** So many calls at so many a second while every backend refuses connections, and half as many once they are back. */
export async function outage(calls: number, perSecond: number): Promise<Outage> {
  const servers = await Promise.all(Array.from({ length: SERVERS }, () => faultServer()))
  const front = await startFront({ backends: servers.map(({ url }) => url) })
  const attempts = (): number => front.balancer.stats().pools.default!.attempts
  await Promise.all(servers.map((server) => server.play({ refuse: true })))
  const startMs = performance.now()
  const during = await offered(calls, perSecond, (n) => ask(`down-${n}`, n))
  const seconds = (performance.now() - startMs) / 1_000
  const attemptsDuring = attempts()
  await Promise.all(servers.map((server) => server.play()))
  const after = await offered(calls / 2, perSecond, (n) => ask(`up-${n}`, n))
  const attemptsAfter = attempts() - attemptsDuring
  await front.close()
  await Promise.all(servers.map((server) => server.close()))
  return {
    calls,
    seconds,
    attempts: attemptsDuring,
    answered: during,
    after: { calls: calls / 2, attempts: attemptsAfter, answered: after },
  }

  async function ask(id: string, n: number): Promise<boolean> {
    return (await FACES[NAMES[n % NAMES.length]!](front, { method: 'GET', id })).status === 200
  }
}

/** Sends whether or not answers come; resolves with how many were good. */
async function offered(calls: number, perSecond: number, send: (n: number) => Promise<boolean>): Promise<number> {
  const answers: Promise<boolean>[] = []
  const startMs = performance.now()
  while (answers.length < calls) {
    const due = Math.min(calls, ((performance.now() - startMs) / 1_000) * perSecond)
    while (answers.length < due) answers.push(send(answers.length))
    await pause(TICK_MS)
  }
  return (await Promise.all(answers)).filter(Boolean).length
}
