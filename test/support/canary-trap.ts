// What the canaries are sent to: a backend that fails on demand, and a configuration that leads there.
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import tls from 'node:tls'
import { onTestFinished } from 'vitest'
import { CANARIES } from './canaries.ts'
import { CERT, KEY } from './tls.ts'
import { nobody, pause, type RawUpstream, rawUpstream, type Wire } from './upstreams.ts'

const BIG = `x-big: ${'x'.repeat(70_000)}\r\n`

/** A backend that fails as the path wants it, and repeats what it was sent wherever that is not an answer. */
export async function trap(): Promise<RawUpstream> {
  return rawUpstream(async (wire: Wire) => {
    for (;;) {
      const head = await wire.head()
      const path = /^[A-Z]+ ([^? ]*)/.exec(head)![1]!.replace(/^.*\//, '/')
      const echo = head.replaceAll('\r\n', ' ')
      const status = Number(path.slice(1))
      if (path === '/reset') return wire.socket.resetAndDestroy()
      if (path === '/closed') return wire.socket.end()
      if (path === '/garbage') return wire.socket.end(`HTTP/1.1 ${echo} nonsense\r\n\r\n`, 'latin1')
      if (path === '/babble') return wire.socket.end(`${echo}${echo}\r\n\r\n`, 'latin1')
      if (path === '/header') return wire.socket.end(`HTTP/1.1 200 OK\r\n${echo}\r\n\r\n`, 'latin1')
      if (path === '/big') return wire.socket.end(`HTTP/1.1 200 OK\r\nx: ${echo}\r\n${BIG}\r\n`, 'latin1')
      if (path === '/cut') return wire.socket.end(`HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n${echo}`, 'latin1')
      if (path === '/chunk') {
        return wire.socket.end(`HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz${echo}\r\n`, 'latin1')
      }
      if (path === '/broken') {
        wire.write('HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\npart')
        await pause(10)
        return wire.socket.resetAndDestroy()
      }
      if (path === '/silent') return
      if (path === '/slow' && !head.includes(' /b/')) await pause(40)
      const line = status > 0 ? `${status} ${echo}` : '200 OK'
      wire.write(`HTTP/1.1 ${line}\r\ncontent-length: 2\r\n\r\nok`)
    }
  })
}

export const FAULTS: readonly string[] = [
  'reset',
  'closed',
  'garbage',
  'babble',
  'header',
  'big',
  'cut',
  'chunk',
  'broken',
  'silent',
  '401',
  '402',
  '403',
  '429',
  '500',
  '503',
  'ok',
]
/** Where not even a request is sent. */
export const UNREACHED: readonly string[] = ['refused', 'unknown', 'plain', 'stuck', 'distrusted']

export async function configured(path: string, backend: RawUpstream): Promise<string> {
  const secure = tls.createServer({ cert: CERT, key: KEY }).listen(0, '127.0.0.1')
  await once(secure, 'listening')
  onTestFinished(() => void secure.close())
  const silent = await rawUpstream(() => {})
  const urls: Readonly<Record<string, string>> = {
    refused: (await nobody()).url,
    unknown: 'http://nowhere.invalid',
    plain: backend.url.replace('http', 'https'),
    stuck: silent.url.replace('http', 'https'),
    distrusted: `https://127.0.0.1:${(secure.address() as AddressInfo).port}`,
  }
  const headers = `headers = { authorization = "Bearer \${env:SECRET}", x-file = "\${file:key}" }`
  const text = `
[settings]
name = "canary"
timeouts = { connect = "300ms", headers = "300ms" }
retry = { attempts = 2, base = "1ms", same_base = "1ms", wait = 0 }
breaker = false
[settings.health]
cooldown = false
passive = false

[providers.p]
name = "P"
base_url = "${backend.url}/v1"
api_key = ${JSON.stringify(CANARIES.key.value)}
models = ["m"]
headers = { x-env = "\${env:SECRET}", x-file = "\${file:key}" }

[models.m]
name = "m"
backends = [{ provider = "p", model = "m" }]
health.active.headers.x-check = "\${env:SECRET}"

[users.u]
name = "U"
token = ${JSON.stringify(CANARIES.user.value)}

[pools.bare]
backends = ["${backend.url}"]
strategy = { name = "ring-hash", key = "header:authorization" }
[pools.strict]
backends = [{ url = "${backend.url}/strict", ${headers} }]
breaker = { trip = "consecutive", consecutive = 1 }
health = { cooldown = {}, passive = { consecutive = 1 }, panic_below = 0 }
[pools.dry]
backends = [{ url = "${backend.url}/dry", ${headers} }, { url = "${backend.url}/too", ${headers} }]
health.passive = { consecutive = 1, dry_run = true }
[pools.narrow]
backends = [{ url = "${backend.url}/narrow", max_inflight = 1, ${headers} }]
limits = { max_inflight = 1, queue = { size = 1, timeout = "10ms" } }
[pools.hedged]
backends = [{ url = "${backend.url}/a", ${headers} }, { url = "${backend.url}/b", ${headers} }]
hedge = { delay = "5ms", max_share = 1 }
strategy = "round-robin"
${UNREACHED.map((name) => `[pools.${name}]\nbackends = [{ url = "${urls[name]}", ${headers} }]`).join('\n')}
`
  const name = join(path, 'evenkeel.toml')
  await writeFile(name, text, { mode: 0o600 })
  return name
}
