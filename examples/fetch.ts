// One fetch over two backends: a GET, a POST, one request given up in time, and what the balancer knows afterwards.
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { createBalancer } from 'evenkeel'

const servers = await Promise.all([startBackend('one'), startBackend('two')])
const balancer = createBalancer({ backends: servers.map(urlOf) })
const { fetch } = balancer // bound: hand it to anything that takes a fetch

const greeting = await fetch('/hello?name=keel')
console.log('GET', greeting.status, await greeting.text())

const order = await fetch('/orders', {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ item: 'rope', metres: 20 }),
})
console.log('POST', order.status, await order.text())

try {
  await fetch('/never', { signal: AbortSignal.timeout(100) })
} catch (error) {
  // The signal's own reason, as with the built-in fetch; the backend is not blamed for it.
  console.log('given up:', (error as Error).name)
}

for (const { id, state, requests, failures, inflight } of balancer.stats().pools.default!.backends) {
  console.log(`${id}: ${state}, ${requests} requests, ${failures} failures, ${inflight} in flight`)
}

await balancer.close()
for (const server of servers) server.close()

/** A little backend: it greets, takes orders, and never answers `/never`. */
async function startBackend(name: string): Promise<Server> {
  const server = createServer(async (request, response) => {
    if (request.url === '/never') return
    const received = request.method === 'POST' ? await json(request) : undefined
    response.writeHead(received === undefined ? 200 : 201, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ backend: name, url: request.url, received }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

function urlOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
