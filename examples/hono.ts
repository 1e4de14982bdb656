// Hono, and whatever else speaks Request and Response: the proxy is a function from one to the other.
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createBalancer } from 'evenkeel'
import { createHandler } from 'evenkeel/web'
import { Hono } from 'hono'

const backends = await Promise.all([startBackend('one'), startBackend('two')])
const balancer = createBalancer({ backends: backends.map(urlOf) })
const proxy = createHandler(balancer, { path: { strip: '/api' } })

const app = new Hono<{ Bindings: { address: string | undefined } }>()
app.get('/about', (context) => context.text('answered by the app itself'))
app.all('/api/*', (context) => proxy(context.req.raw, { address: context.env.address }))

const server = createServer(serve)
server.listen(0, '127.0.0.1')
await once(server, 'listening')

for (const path of ['/about', '/api/users/1']) {
  const response = await fetch(urlOf(server) + path)
  console.log(path, response.status, await response.text())
}
const words = ReadableStream.from(['a body ', 'that is streamed']).pipeThrough(new TextEncoderStream())
const echo = await fetch(`${urlOf(server)}/api/echo`, { method: 'POST', body: words, duplex: 'half' })
console.log('/api/echo', echo.status, await echo.text())

server.close()
server.closeIdleConnections()
await balancer.close({ drainMs: 1_000 })
for (const backend of backends) backend.close()

/** What `@hono/node-server` does, in short: between node:http and Request, Response. */
async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const { method = 'GET', headers, url, socket } = incoming
  const gone = new AbortController()
  outgoing.on('close', () => gone.abort())
  const body = method === 'GET' || method === 'HEAD' ? null : Readable.toWeb(incoming)
  const init = {
    method,
    headers: headers as Record<string, string>,
    body,
    duplex: 'half',
    signal: gone.signal,
  } as const
  const response = await app.fetch(new Request(`http://${headers.host}${url}`, init), { address: socket.remoteAddress })
  outgoing.writeHead(response.status, [...response.headers].flat())
  if (response.body === null) outgoing.end()
  else await pipeline(Readable.fromWeb(response.body), outgoing).catch(() => {}) // the client is gone, or was cut off
}

/** It echoes what is posted to it. */
async function startBackend(name: string): Promise<Server> {
  const backend = createServer((request, response) => {
    if (request.method === 'POST') request.pipe(response)
    else response.end(`backend ${name} got ${request.url} for ${request.headers['x-forwarded-for']}`)
  })
  backend.listen(0, '127.0.0.1')
  await once(backend, 'listening')
  return backend
}

function urlOf(listening: Server): string {
  return `http://127.0.0.1:${(listening.address() as AddressInfo).port}`
}
