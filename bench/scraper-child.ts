/** bench/scraper-child.ts <url>: reads the metrics over and over while it is told to; started by bench/metrics.ts. */
import { Agent, get } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { serveParent } from './children.ts'

/** Begin, one every so many ms, the first after half of it; or rest, and tell. */
export type ScraperQuestion = { readonly everyMs: number } | 'rest'

export interface Scrapes {
  readonly count: number
  /** Of the last one. */
  readonly bytes: number
  /** Mean time of one, ms. */
  readonly ms: number
}

const [url] = process.argv.slice(2)
const agent = new Agent({ keepAlive: true })
let running: AbortController | undefined
let done: Promise<Scrapes> | undefined

async function scrape(everyMs: number, signal: AbortSignal): Promise<Scrapes> {
  let count = 0
  let bytes = 0
  let spentMs = 0
  await sleep(everyMs / 2)
  while (!signal.aborted) {
    const startMs = performance.now()
    bytes = await read()
    spentMs += performance.now() - startMs
    count++
    await sleep(Math.max(0, startMs + everyMs - performance.now()))
  }
  return { count, bytes, ms: spentMs / count }
}

function read(): Promise<number> {
  return new Promise((resolve, reject) => {
    get(url!, { agent }, (response) => {
      let bytes = 0
      response.on('data', (chunk: Uint8Array) => {
        bytes += chunk.length
      })
      response.on('end', () => resolve(bytes))
    }).on('error', reject)
  })
}

serveParent('ready', (question) => {
  if (question === 'rest') {
    running?.abort()
    return done
  }
  running = new AbortController()
  done = scrape((question as { everyMs: number }).everyMs, running.signal)
  return ''
})
