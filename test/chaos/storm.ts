import { type FaultServer, type FaultServerOptions, faultServer, seededRandom } from 'evenkeel/testing'
import { GOOD, LIGHT_PLAYS } from './cases.ts'
import { FACES, type FaceName } from './faces.ts'
import { heapBytes } from './gauges.ts'
import { accounts, isAnswer, startFront } from './play.ts'

const SERVERS = 4
const INFLIGHT = 64
/** Another fault is played this often, ms. */
const CHANGE_MS = 50
const NAMES: readonly FaceName[] = ['fetch', 'request', 'fetch', 'request', 'proxy']

export interface StormOptions {
  /** Share of the requests that a server with a fault strikes. */
  readonly share: number
  /** Patience of the balancer, for heads and within bodies, ms. */
  readonly patienceMs: number
  /** Header whose values the servers remember. */
  readonly idHeader?: string
  /** Asked between calls: true = no more. */
  isOver(so: StormCount): boolean
  /** Called each so many calls, with the heap after a full collection. */
  readonly sampled?: { readonly everyCalls: number; take(so: StormCount, heap: number): void }
}

/** So far. */
export interface StormCount {
  readonly calls: number
  /** Attempts that did not end well. */
  readonly faulty: number
}

export interface Storm extends StormCount {
  readonly seconds: number
  readonly words: Readonly<Record<string, number>>
  /** How often a server saw a POST of which a server had seen the id before, and the most sends of one GET. */
  readonly postsTwice: number
  readonly posts: number
  readonly mostSends: number
  /** Answers that ended in order, and were not whole. */
  readonly short: number
  readonly broken: readonly string[]
}

/** 64 in flight by every face, half of them POST, over four servers that play another fault every 50 ms. */
export async function storm({ share, patienceMs, idHeader, isOver, sampled }: StormOptions): Promise<Storm> {
  const random = seededRandom(20_261_123)
  const options: FaultServerOptions = idHeader === undefined ? {} : { idHeader }
  const servers = await Promise.all(
    Array.from({ length: SERVERS }, (_, n) => faultServer({ ...options, random: seededRandom(n) })),
  )
  const front = await startFront({
    backends: servers.map(({ url }) => url),
    random: seededRandom(1),
    retry: { baseMs: 1, waitMs: 0 },
    timeouts: { connectMs: 2_000, headersMs: patienceMs, idleMs: patienceMs },
    health: { passive: false, cooldown: false }, // whoever fails is asked all the same
  })
  const words: Record<string, number> = {}
  const startMs = performance.now()
  let calls = 0
  let faulty = 0
  let answered = 0
  let short = 0
  front.balancer.on('attempt', ({ outcome }) => {
    if (outcome!.class !== 'ok') faulty++
  })
  let sampling: Promise<void> | undefined
  const so = (): StormCount => ({ calls, faulty })
  const sample = async (): Promise<void> => {
    const heap = await heapBytes()
    sampled!.take(so(), heap)
    sampling = undefined
  }
  const client = async (): Promise<void> => {
    while (!isOver(so())) {
      const n = calls++
      if (sampled !== undefined && n % sampled.everyCalls === 0) sampling = sample()
      await sampling
      const method = n % 2 === 0 ? 'GET' : 'POST'
      const body = method === 'POST' ? { body: Buffer.from('body') } : {}
      const seen = await FACES[NAMES[n % NAMES.length]!](front, { method, id: `${method}-${n}`, ...body })
      words[seen.words] = (words[seen.words] ?? 0) + 1
      if (isAnswer(seen.words)) answered++
      if (seen.status === 200 && seen.text !== undefined && seen.text !== GOOD) short++
    }
  }
  const change = (): void => {
    void servers[random(SERVERS)]!.play({ share, ...LIGHT_PLAYS[random(LIGHT_PLAYS.length)]! })
  }
  const changing = setInterval(change, CHANGE_MS)
  for (const server of servers) await server.play({ share, ...LIGHT_PLAYS[random(LIGHT_PLAYS.length)]! })
  await Promise.all(Array.from({ length: INFLIGHT }, client))
  clearInterval(changing)
  const seconds = (performance.now() - startMs) / 1_000
  await front.close()
  await Promise.all(servers.map((server) => server.close()))
  return { seconds, calls, faulty, words, short, ...sendsOf(servers), broken: accounts(front.balancer, answered) }
}

function sendsOf(servers: readonly FaultServer[]): { posts: number; postsTwice: number; mostSends: number } {
  const times = new Map<string, number>()
  for (const { seen } of servers) for (const [id, n] of seen) times.set(id, (times.get(id) ?? 0) + n)
  const posts = [...times].filter(([id]) => id.startsWith('POST'))
  return {
    posts: posts.length,
    postsTwice: posts.filter(([, n]) => n > 1).length,
    mostSends: Math.max(0, ...times.values()),
  }
}
