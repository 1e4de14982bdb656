/** bench/client-child.ts <client> <origin>...: one way to send requests, in a process of its own; started by bench/subjects.ts. */
import { Agent, BalancedPool, Pool, fetch as undiciFetch } from 'undici'
import { createBalancer, type EvenkeelBalancer } from '../src/create-balancer.ts'
import { cpuUs, serveParent } from './children.ts'
import { type Allocated, Meter } from './meter.ts'
import type { Round } from './subjects.ts'

/** `control` sends nothing: it allocates an array of 1 024, the proof that bytes are counted right. */
export type ClientKind =
  | 'balancer.fetch'
  | 'balancer.request'
  | 'undici fetch'
  | 'built-in fetch'
  | 'balancer.request, one'
  | 'Pool.request'
  | 'Pools in turn'
  | 'BalancedPool.request'
  | 'control'

/** So long, or so many requests with their allocations metered. */
export type ClientQuestion = { readonly seconds: number } | { readonly requests: number }

const IN_FLIGHT = 64
const PATH = '/bench'
const BODY_LENGTH = 1024
const CONNECTIONS = { connections: 256, pipelining: 1, allowH2: false }
const REQUEST = { path: PATH, method: 'GET' } as const

const [kind, ...origins] = process.argv.slice(2)

type Send = () => Promise<string>

const CLIENTS: Readonly<Record<ClientKind, () => Send | Promise<Send>>> = {
  async 'balancer.fetch'() {
    const balancer = await evenkeel()
    return async () => (await balancer.fetch(PATH)).text()
  },
  async 'balancer.request'() {
    const balancer = await evenkeel()
    return async () => (await balancer.request(PATH)).body.text()
  },
  /** One upstream, as `Pool.request` has. */
  async 'balancer.request, one'() {
    const balancer = await evenkeel(origins.slice(0, 1))
    return async () => (await balancer.request(PATH)).body.text()
  },
  'undici fetch'() {
    const dispatcher = new Agent(CONNECTIONS)
    const next = inTurn()
    return async () => (await undiciFetch(next(), { dispatcher })).text()
  },
  'built-in fetch'() {
    const next = inTurn()
    return async () => (await fetch(next())).text()
  },
  /** One upstream: it does not balance, and is not slowed down by balancing. */
  'Pool.request'() {
    const pool = new Pool(origins[0]!, CONNECTIONS)
    return async () => (await pool.request(REQUEST)).body.text()
  },
  /** As `Pool.request`, over the same upstreams as everybody else. */
  'Pools in turn'() {
    const pools = origins.map((origin) => new Pool(origin, CONNECTIONS))
    let next = 0
    return async () => (await pools[next++ % pools.length]!.request(REQUEST)).body.text()
  },
  'BalancedPool.request'() {
    const pool = new BalancedPool([...origins], CONNECTIONS)
    return async () => (await pool.request(REQUEST)).body.text()
  },
  control() {
    const text = 'x'.repeat(BODY_LENGTH)
    return async () => {
      kept = new Array(BODY_LENGTH)
      return kept.length === BODY_LENGTH ? text : ''
    }
  },
}

/** Outlives the function that fills it, so that V8 cannot leave the allocation out. */
let kept: readonly undefined[]

/** evenkeel as it comes (ejection, retry and stats are on by default), with probes. */
async function evenkeel(backends: readonly string[] = origins): Promise<EvenkeelBalancer> {
  const active = { type: 'http', path: '/', intervalMs: 1_000 } as const
  const balancer = createBalancer({ backends, health: { active } })
  await balancer.ready()
  return balancer
}

/** The fetches balance as well: one upstream after the other. */
function inTurn(): () => string {
  const urls = origins.map((origin) => `${origin}${PATH}`)
  let next = 0
  return () => urls[next++ % urls.length]!
}

const send = await CLIENTS[kind as ClientKind]()

async function timed(seconds: number): Promise<Round> {
  const startMs = performance.now()
  const startUs = cpuUs()
  const untilMs = startMs + seconds * 1000
  const { answered, failed } = await sendWhile(() => performance.now() < untilMs)
  const tookS = (performance.now() - startMs) / 1000
  return { answered, perSecond: answered / tookS, cpuUsPerRequest: (cpuUs() - startUs) / answered, failed }
}

async function metered(requests: number): Promise<Allocated> {
  const meter = new Meter()
  let left = requests
  const { failed } = await sendWhile(() => left-- > 0)
  return { ...meter.stop(), failed }
}

async function sendWhile(more: () => boolean): Promise<{ readonly answered: number; readonly failed: number }> {
  let answered = 0
  let failed = 0
  const loop = async (): Promise<void> => {
    while (more()) {
      try {
        if ((await send()).length === BODY_LENGTH) answered++
        else failed++
      } catch {
        failed++
      }
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, loop))
  return { answered, failed }
}

function answer(question: ClientQuestion): Promise<Round | Allocated> {
  return 'seconds' in question ? timed(question.seconds) : metered(question.requests)
}

serveParent('ready', (question) => answer(question as ClientQuestion))
