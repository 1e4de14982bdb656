// npm run failures: plays every fault of test/chaos/cases.ts and prints docs/failures.md from what was seen.
import { spawnSync } from 'node:child_process'
import process from 'node:process'

/** What was seen of one request. */
export interface Seat {
  /** By the caller of `fetch` and `request`. */
  readonly caller: string
  /** By the client of the proxy. */
  readonly client: string
  /** By the backend with the fault. */
  readonly backend: string
}

/** What was seen of one fault: with that backend as the only one, and beside two healthy ones. */
export interface Row {
  readonly group: string
  readonly name: string
  readonly get: readonly [alone: Seat, beside: Seat]
  readonly post: readonly [alone: Seat, beside: Seat]
}

const INTRODUCTION = `# What callers see when backends fail

Printed by \`npm run failures\` from what a run has seen; do not edit. \`npm test\` plays every row again, on real sockets, and
compares. Each row is one request that meets one fault, in a pool of one backend, and in a pool where two healthy backends stand
beside it and the one with the fault is asked first. Three attempts at most (the default), the undici transport, a connection
that is new unless the row says otherwise.

How to read it: \`RESET\` is the \`code\` of the \`BalancerError\` that \`fetch\` and \`request\` reject with; \`502 RESET\` is the proxy's
own answer, with that code in its problem body; a bare number is a backend's answer, handed on. \`200, then TRUNCATED\`: the head
was handed over and reading the body failed; for a client of the proxy that is \`broken off\`: its connection breaks, a cut answer
never ends in order. \`after 3\` counts the attempts. A GET may be repeated; a POST only when nothing of it was processed.`

const HEAD = [
  '| the backend | | alone: caller | proxy’s client | it sees | beside two: caller | proxy’s client | it sees |',
  '| --- | --- | --- | --- | --- | --- | --- | --- |',
]

/** The whole page. */
export function failuresPage(rows: readonly Row[]): string {
  const groups = [...new Set(rows.map(({ group }) => group))]
  const tables = groups.map((group) => {
    const lines = rows.filter((row) => row.group === group).flatMap(linesOf)
    return [`## ${group}`, '', ...HEAD, ...lines].join('\n')
  })
  return `${[INTRODUCTION, ...tables].join('\n\n')}\n`
}

function linesOf({ name, get, post }: Row): readonly string[] {
  const [forGet, forPost] = [cellsOf(get), cellsOf(post)]
  if (forGet === forPost) return [`| ${name} | both | ${forGet} |`]
  return [`| ${name} | GET | ${forGet} |`, `| | POST | ${forPost} |`]
}

function cellsOf(seats: readonly Seat[]): string {
  return seats.flatMap(({ caller, client, backend }) => [caller, client, backend]).join(' | ')
}

if (import.meta.main) {
  const args = ['run', 'test/chaos/chaos.test.ts']
  const env = { ...process.env, UPDATE_FAILURES: '1' }
  process.exitCode = spawnSync('vitest', args, { env, stdio: 'inherit' }).status ?? 1
}
