/** bench/fetch-child.ts <origin>...: the three ways to fetch, in one process; started by bench/http.ts, round by round. */
import { Agent, fetch as undiciFetch } from 'undici'
import { createBalancer } from '../src/create-balancer.ts'
import { cpuUs, serveParent } from './children.ts'

/** One round of one client. */
export interface FetchRound {
  readonly client: FetchClient
  readonly seconds: number
}

export interface FetchRoundResult {
  readonly answered: number
  readonly perSecond: number
  readonly cpuUsPerRequest: number
  readonly failed: number
}

export type FetchClient = 'evenkeel' | 'undici' | 'built-in'

const IN_FLIGHT = 64

const origins = process.argv.slice(2)
/** evenkeel as it comes: ejection, retry and stats are on by default. */
const balancer = createBalancer({ backends: origins })
const dispatcher = new Agent({ connections: 256, pipelining: 1, allowH2: false })
const urls = origins.map((origin) => `${origin}/bench`)
let next = 0
/** The others balance as well: one after the other. */
const nextUrl = (): string => urls[next++ % urls.length]!

const CLIENTS: Readonly<Record<FetchClient, () => Promise<string>>> = {
  evenkeel: async () => (await balancer.fetch('/bench')).text(),
  undici: async () => (await undiciFetch(nextUrl(), { dispatcher })).text(),
  'built-in': async () => (await fetch(nextUrl())).text(),
}

async function round({ client, seconds }: FetchRound): Promise<FetchRoundResult> {
  const send = CLIENTS[client]
  const startMs = performance.now()
  const startUs = cpuUs()
  const untilMs = startMs + seconds * 1000
  let answered = 0
  let failed = 0
  const loop = async (): Promise<void> => {
    while (performance.now() < untilMs) {
      try {
        if ((await send()).length === 1024) answered++
        else failed++
      } catch {
        failed++
      }
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, loop))
  const tookS = (performance.now() - startMs) / 1000
  return { answered, perSecond: answered / tookS, cpuUsPerRequest: (cpuUs() - startUs) / answered, failed }
}

serveParent('ready', (question) => round(question as FetchRound))
