// Balances a protocol that is not HTTP: two little TCP servers that answer PING with PONG, line by line. One of them dies
// on the way. `acquire` lends a backend; how it went is said with `succeed` or `fail`, and whoever fails is left out.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { createInterface } from 'node:readline'
import { createBalancer } from 'evenkeel'

const servers = await Promise.all([startServer('one'), startServer('two')])
const [one, two] = servers.map((server) => (server.address() as AddressInfo).port)
const balancer = createBalancer({
  // A URL tells where a backend is; the protocol spoken there is nobody's business but ours.
  backends: [
    { id: 'one', url: `http://127.0.0.1:${one}` },
    { id: 'two', url: `http://127.0.0.1:${two}` },
  ],
  strategy: 'weighted-round-robin',
  health: { passive: { consecutive: 3 } },
})
balancer.on('blocked', ({ id }, { detail }) => console.log(`${id} is out: ${detail}`))

for (let i = 1; i <= 4; i++) console.log(`ping ${i}:`, await ping())

servers[0]!.close()
await once(servers[0]!, 'close')
console.log('one has died')

for (let i = 5; i <= 12; i++) console.log(`ping ${i}:`, await ping())

for (const { id, state, requests, failures, inflight } of balancer.stats().pools.default!.backends) {
  console.log(`${id}: ${state}, ${requests} leases, ${failures} failures, ${inflight} in flight`)
}
await balancer.close()
servers[1]!.close()

/** Who answered; a backend that does not is tried no more than three times, each time another if there is one. */
async function ping(attempts = 3): Promise<string> {
  const lease = balancer.acquire()
  try {
    const answer = await say('PING', Number(new URL(lease.backend.origin).port))
    lease.succeed()
    return answer
  } catch (error) {
    lease.fail(error) // ECONNREFUSED here: it counts against the backend
    if (attempts > 1) return ping(attempts - 1)
    throw error
  }
}

/** One line there, one line back, on a connection of its own. */
async function say(line: string, port: number): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    socket.write(`${line}\n`)
    const [answer] = await once(createInterface(socket), 'line')
    return answer as string
  } finally {
    socket.destroy()
  }
}

async function startServer(name: string): Promise<Server> {
  const server = createServer((socket) => {
    createInterface(socket).on('line', (line) => socket.write(line === 'PING' ? `PONG from ${name}\n` : 'WHAT?\n'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}
