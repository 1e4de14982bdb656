// Express 5: everything under /api goes to the backends, the rest is the app's own.
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createBalancer } from 'evenkeel'
import { expressProxy } from 'evenkeel/express'
import express from 'express'

const backends = await Promise.all([startBackend('one'), startBackend('two')])
const balancer = createBalancer({ backends: backends.map(urlOf) })

const app = express()
app.get('/about', (_request, response) => void response.send('answered by the app itself'))
// Before any body parser: so bodies are streamed, not parsed and written again. Express takes `/api` off the path the backends see.
app.use('/api', expressProxy(balancer))

const server = app.listen(0, '127.0.0.1')
await once(server, 'listening')

for (const path of ['/about', '/api/users/1', '/api/users/2']) {
  const response = await fetch(urlOf(server) + path)
  console.log(path, response.status, await response.text())
}

// The order that cuts nobody off: take no more requests, let the balancer finish, then the backends.
server.close()
await balancer.close({ drainMs: 1_000 })
for (const backend of backends) backend.close()

async function startBackend(name: string): Promise<Server> {
  const backend = createServer((request, response) => {
    response.end(`backend ${name} got ${request.url}, asked for by ${request.headers['x-forwarded-host']}`)
  })
  backend.listen(0, '127.0.0.1')
  await once(backend, 'listening')
  return backend
}

function urlOf(listening: Server): string {
  return `http://127.0.0.1:${(listening.address() as AddressInfo).port}`
}
