import type { BalancerOptions } from 'evenkeel'
import { type Fault, faultServer, seededRandom } from 'evenkeel/testing'
import { pause } from '../support/upstreams.ts'
import { GOOD, LIGHT_PLAYS } from './cases.ts'
import { type Asked, FACES, type FaceName, type Seen } from './faces.ts'
import { keptBytes, standing } from './gauges.ts'
import { accounts, isAnswer, startFront } from './play.ts'

const SERVERS = 3
const TICK_MS = 10
/** When the machine cannot keep up, no more are begun: idle connections, 8 KiB each, are as many as were ever needed at once. */
const MOST_INFLIGHT = 64
const CHANGE_MS = 1_000
const UPDATE_MS = 10_000
/** Slow streams: so many bytes, so far apart. */
const STREAM: Fault = { bytes: 20, drip: { of: 'body', everyMs: 50 } }
/** Whom the mix goes by: most by fetch and request, every tenth through the proxy over a connection of its own. */
const NAMES: readonly FaceName[] = [
  'fetch',
  'request',
  'fetch',
  'request',
  'fetch',
  'request',
  'fetch',
  'request',
  'fetch',
]
/** What a fault may look like to a caller. */
const EXPLAINED =
  /^(broken off|4\d\d|5\d\d|(502 )?(RESET|CONNECT|PROTOCOL|TRUNCATED)|(504 )?TIMEOUT|200, then (TRUNCATED|TIMEOUT|CLOSED))$/

export interface SoakOptions {
  readonly minutes: number
  readonly perSecond: number
  readonly sampleMs: number
  /** Each sample in words. */
  tell(line: string): void
}

export interface Sample {
  readonly minute: number
  readonly heapKiB: number
  readonly sockets: number
  readonly timers: number
  readonly listeners: number
}

export interface Soak {
  readonly calls: number
  readonly perSecond: number
  readonly updates: number
  readonly words: Readonly<Record<string, number>>
  /** Attempts that did not end well. */
  readonly faulty: number
  /** Failures that no fault explains, and answers that are not whole. */
  readonly unexplained: readonly string[]
  readonly samples: readonly Sample[]
  readonly broken: readonly string[]
}

/**
 * Mixed traffic by every face over three servers of which one request in a hundred meets a fault, and an update every 10 s. It is
 * one long function: traffic, faults, updates and samples share one clock and one set of counts.
 */
export async function soak({ minutes, perSecond, sampleMs, tell }: SoakOptions): Promise<Soak> {
  const random = seededRandom(20_261_123)
  const servers = await Promise.all(
    Array.from({ length: SERVERS }, (_, n) => faultServer({ random: seededRandom(n), idHeader: 'x-unseen' })),
  )
  const slow = await faultServer({ idHeader: 'x-unseen' })
  await slow.play(STREAM)
  const optionsOf = (weight: number): BalancerOptions => ({
    random: seededRandom(1),
    retry: { baseMs: 1, waitMs: 0 },
    timeouts: { connectMs: 2_000, headersMs: 1_000, idleMs: 1_000 },
    health: { cooldown: false },
    pools: {
      default: { backends: servers.map(({ url }, n) => ({ url, weight: n === 0 ? weight : 1 })) },
      slow: { backends: [slow.url] },
    },
  })
  const front = await startFront(optionsOf(1))
  let faulty = 0
  let answered = 0
  front.balancer.on('attempt', ({ outcome }) => {
    if (outcome!.class !== 'ok') faulty++
  })
  const words: Record<string, number> = {}
  const unexplained: string[] = []
  const samples: Sample[] = []
  let calls = 0
  let updates = 0
  let underWay = 0

  const judge = ({ words: told, status, text }: Seen, whole: string): void => {
    words[told] = (words[told] ?? 0) + 1
    if (isAnswer(told)) answered++
    const isGood = status === 200 && text === whole
    if (!isGood && !EXPLAINED.test(told)) unexplained.push(told)
  }
  const send = async (n: number): Promise<void> => {
    underWay++
    const kind = random(100)
    const isStream = kind < 1
    const isPost = !isStream && kind < 21
    const asked: Asked = {
      method: isPost ? 'POST' : 'GET',
      id: `soak-${n}`,
      ...(isPost && { body: Buffer.from('body') }),
      ...(isStream && { pool: 'slow' }),
    }
    const face = n % 10 === 9 ? 'proxy' : NAMES[n % 10]!
    judge(await FACES[face](front, asked), isStream ? 'x'.repeat(STREAM.bytes!) : GOOD)
    underWay--
  }
  const sample = async (minute: number): Promise<void> => {
    const now = { minute, heapKiB: (await keptBytes()) / 1_024, ...standing() }
    samples.push(now)
    const { heapKiB, sockets, timers, listeners } = now
    tell(
      `${minute.toFixed(2)} min: ${calls} calls, heap ${(heapKiB / 1_024).toFixed(2)} MiB, ` +
        `${sockets} sockets, ${timers} timers, ${listeners} listeners`,
    )
  }
  const quiet = async (): Promise<void> => {
    while (underWay > 0) await pause(TICK_MS)
  }

  const startMs = performance.now()
  const endMs = minutes * 60_000
  let due = 0
  const next = { changeMs: 0, updateMs: UPDATE_MS, sampleMs }
  for (let ms = 0, lastMs = 0; ms < endMs; ms = performance.now() - startMs) {
    due = Math.min(due + ((ms - lastMs) / 1_000) * perSecond, perSecond / 10) // what was missed is not made up for
    lastMs = ms
    for (; due >= 1 && underWay < MOST_INFLIGHT; due--) void send(calls++)
    if (ms >= next.changeMs) {
      next.changeMs += CHANGE_MS
      for (const server of servers)
        void server.play({ ...LIGHT_PLAYS[random(LIGHT_PLAYS.length)]!, refuse: false, share: 0.01 })
    }
    if (ms >= next.updateMs) {
      next.updateMs += UPDATE_MS
      await front.balancer.update(optionsOf(1 + (updates++ % 3)))
    }
    if (ms >= next.sampleMs) {
      next.sampleMs += sampleMs
      await quiet() // what is under way is no leak
      await sample(ms / 60_000)
    }
    await pause(TICK_MS)
  }
  await quiet()
  await front.close()
  await Promise.all([...servers, slow].map((server) => server.close()))
  return {
    calls,
    perSecond: Math.round(calls / (endMs / 1_000)),
    updates,
    words,
    faulty,
    unexplained,
    samples,
    broken: accounts(front.balancer, answered),
  }
}
