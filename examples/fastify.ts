// Fastify 5: everything under /api goes to the backends, behind a hook that checks who asks; the rest is the app's own.
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createBalancer } from 'evenkeel'
import { fastifyProxy } from 'evenkeel/fastify'
import fastify from 'fastify'

const backends = await Promise.all([startBackend('one'), startBackend('two')])
const balancer = createBalancer({ backends: backends.map(urlOf) })

const app = fastify()
app.get('/about', () => 'answered by the app itself')
app.register((scope, _options, done) => {
  scope.addHook('onRequest', async (request, reply) => {
    if (request.headers.authorization === undefined) return reply.code(401).send('who are you?')
  })
  // A scope of its own: bodies stream through it, while the app goes on parsing those of its own routes.
  scope.register(fastifyProxy, { prefix: '/api', balancer })
  done()
})
await app.listen({ host: '127.0.0.1', port: 0 })

await ask('/about')
await ask('/api/users/1')
await ask('/api/users/1', { headers: { authorization: 'me' } })
const order = { method: 'POST', body: '{"item":"rope"}' }
await ask('/api/orders', { ...order, headers: { authorization: 'me', 'content-type': 'application/json' } })

// Cuts nobody off: the app takes no more requests, finishes those it has, then closes the balancer.
await app.close()
await balancer.fetch('/').catch((error) => console.log('the balancer is closed, too:', error.code))
for (const backend of backends) backend.close()

async function ask(path: string, init?: RequestInit): Promise<void> {
  const response = await fetch(urlOf(app.server) + path, init)
  console.log(path, response.status, await response.text())
}

/** It echoes what is posted to it. */
async function startBackend(name: string): Promise<Server> {
  const backend = createServer((request, response) => {
    if (request.method === 'POST') request.pipe(response.writeHead(201))
    else response.end(`backend ${name} got ${request.url}`)
  })
  backend.listen(0, '127.0.0.1')
  await once(backend, 'listening')
  return backend
}

function urlOf(listening: Server): string {
  return `http://127.0.0.1:${(listening.address() as AddressInfo).port}`
}
