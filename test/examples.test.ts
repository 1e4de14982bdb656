import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { cachedEnv } from './support/compile-cache.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const run = promisify(execFile)
const env = cachedEnv()

/** What each example must say. */
const SAID: Readonly<Record<string, readonly (string | RegExp)[]>> = {
  'acquire-tcp.ts': [
    'ping 1: PONG from one',
    'ping 2: PONG from two',
    'one has died',
    'one is out: 3 failures in a row',
    'ping 12: PONG from two',
    'one: blocked, 5 leases, 3 failures, 0 in flight',
    'two: up, 10 leases, 0 failures, 0 in flight',
  ],
  'express.ts': [
    '/about 200 answered by the app itself',
    /\/api\/users\/1 200 backend (one|two) got \/users\/1, asked for by 127\.0\.0\.1:\d+/,
    /\/api\/users\/2 200 backend (one|two) got \/users\/2/,
  ],
  'fastify.ts': [
    '/about 200 answered by the app itself',
    '/api/users/1 401 who are you?',
    /\/api\/users\/1 200 backend (one|two) got \/users\/1/,
    '/api/orders 201 {"item":"rope"}',
    'the balancer is closed, too: CLOSED',
  ],
  'fetch.ts': [
    /GET 200 \{"backend":"(one|two)","url":"\/hello\?name=keel"\}/,
    /POST 201 .*"received":\{"item":"rope","metres":20\}/,
    'given up: TimeoutError',
    /up, \d requests, 0 failures, 0 in flight/,
  ],
  'hono.ts': [
    '/about 200 answered by the app itself',
    /\/api\/users\/1 200 backend (one|two) got \/users\/1 for 127\.0\.0\.1/,
    '/api/echo 200 a body that is streamed',
  ],
}

const examples = readdirSync(`${ROOT}/examples`).filter((name) => name.endsWith('.ts'))

describe('examples', () => {
  test('each of them is known here', () => {
    expect(examples).toEqual(Object.keys(SAID).sort())
  })

  test.each(examples)('%s tells its story and ends by itself', async (name) => {
    const args = ['--disable-warning=ExperimentalWarning', '--import', './scripts/from-source.mjs', `examples/${name}`]
    // Rejects when the exit code is not 0, or when it has not ended in time.
    const { stdout, stderr } = await run(process.execPath, args, { cwd: ROOT, env, timeout: 20_000 })
    for (const words of SAID[name] ?? []) expect(stdout).toMatch(words)
    expect(stderr).toBe('')
  })
})
