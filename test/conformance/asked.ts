// One subject of `npm run conformance`, or some of its rows; the config says whose. No test fails here: what came of it is in its meta.
import { describe, test } from 'vitest'
import { ask, keeper } from '../support/upstreams.ts'
import type { Finding } from './finding.ts'
import { OURS } from './ours.ts'
import { PEERS, Unasked } from './peers.ts'
import type { Row } from './row.ts'
import { ROWS } from './rows.ts'

/**
 * What a row has not seen by now, it will not see, ms. Rows that hold take a hundredth of it, unless the machine is busy with all the
 * others: so a row that has waited in vain is asked once more.
 */
const PATIENCE_MS = [2_500, 5_000] as const

const { SUBJECT: name = '', PART = '0', PARTS = '1' } = process.env
const peer = PEERS.find((one) => one.name === name)
const subject = peer ?? OURS.find((one) => one.name === name)
if (subject === undefined) throw new Error(`nobody is called '${name}'`)
const { front } = subject

/** What nobody has caught since a row began. */
let uncaught: Uncaught[] = []
process.on('uncaughtException', (error) => uncaught.push({ error, ends: !isAssertion(error) }))
// Rows have promises of their own that nobody waits for any more once they have failed: only those of packages count.
process.on('unhandledRejection', (error) =>
  uncaught.push({ error, ends: /node_modules(?!\/@?vitest)/.test(stackOf(error)) }),
)

interface Uncaught {
  readonly error: unknown
  /** Whether it would have ended the process of the proxy. */
  readonly ends: boolean
}

describe(name, () => {
  // The first row would pay for the start of the process.
  test('it is there', async () => {
    await ask(await front([await keeper()]), '/').catch(() => {})
  }, 30_000)

  for (const row of ROWS.filter((_, i) => i % Number(PARTS) === Number(PART))) {
    test(`row ${row.number}: ${row.says}`, async ({ task }) => {
      const { number, says } = row
      task.meta.finding = { number, says, subject: name, version: peer?.version, ...(await asked(row)) }
    })
  }
})

async function asked(row: Row): Promise<Pick<Finding, 'mark' | 'why' | 'crashed'>> {
  const isOutOfReach = peer !== undefined && (row.about === 'ours' || peer.lacks.includes(row.number))
  if (isOutOfReach || row.not?.[name] !== undefined) return { mark: '–' }
  for (const patienceMs of PATIENCE_MS) {
    uncaught = []
    const error = await Promise.race([row.run(front).then(() => undefined, asError), late(patienceMs)])
    await settled()
    if (error instanceof Unasked) return { mark: '–' }
    const crash = uncaught.find(({ ends }) => ends)
    // Rows look on from the backend as well, and what they see there nobody catches either.
    const failure = uncaught.find(({ error }) => isAssertion(error))
    const found = crash?.error ?? error ?? failure?.error
    if (found === undefined) return { mark: 'yes' }
    if (found instanceof Late && patienceMs < PATIENCE_MS[1]) continue
    return { mark: 'no', why: asError(found).message, crashed: crash !== undefined }
  }
  throw new Error('there is always a last time')
}

/** Nothing came of a row in time. */
class Late extends Error {}

function late(ms: number): Promise<Late> {
  return new Promise((resolve) => setTimeout(() => resolve(new Late(`nothing more within ${ms} ms`)), ms))
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}

function isAssertion(error: unknown): boolean {
  return error instanceof Error && error.name === 'AssertionError'
}

function stackOf(error: unknown): string {
  return asError(error).stack ?? ''
}

/** Errors of sockets come a little later. */
async function settled(): Promise<void> {
  for (let turns = 0; turns < 3; turns++) await new Promise((resolve) => setImmediate(resolve))
}
