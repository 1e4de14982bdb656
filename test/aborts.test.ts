import assert from 'node:assert/strict'
import { getEventListeners, once } from 'node:events'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { type Balancer, type BalancerFetchInit, createBalancer, undici } from 'evenkeel'
import { createProxy } from 'evenkeel/node'
import { afterEach, describe, test } from 'vitest'
import { blackHole, type RawConnection, type RawServer, rawServer } from '../src/testing/raw-server.ts'
import { pause, until } from '../src/testing/transport-rig.ts'
import { countingClock } from './support/counting-clock.ts'

const ABORTS = 1_000
const AT_ONCE = 50
const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'

const cleanUps: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp()
})

interface Scene {
  readonly balancer: Balancer
  readonly clock: ReturnType<typeof countingClock>
}

function balancerOver(url: string, connections = 256): Scene {
  const clock = countingClock()
  const balancer = createBalancer({
    backends: [url],
    clock,
    transport: undici({ connections }),
    health: { passive: false },
  })
  cleanUps.push(() => balancer.close())
  return { balancer, clock }
}

async function serverThat(onRequest: Parameters<typeof rawServer>[0]): Promise<RawServer> {
  const server = await rawServer(onRequest)
  cleanUps.push(() => server.close())
  return server
}

/** 1 000 fetches, each aborted when `when` says so; every one must reject with the reason it was aborted with. */
async function abortAll(
  { balancer }: Scene,
  when: (abort: () => void) => Promise<void>,
  init: () => BalancerFetchInit & { readonly path?: string } = () => ({}),
  read = false,
): Promise<void> {
  const signals: AbortSignal[] = []
  const one = async (number: number): Promise<void> => {
    const controller = new AbortController()
    signals.push(controller.signal)
    const reason = new Error(`abort ${number}`)
    const { path = '/', ...rest } = init()
    const answer = balancer.fetch(path, { ...rest, signal: controller.signal })
    const body = read ? answer.then((response) => response.text()) : answer
    const ended = assert.rejects(body, (error) => error === reason)
    await when(() => controller.abort(reason))
    await ended
  }
  for (let i = 0; i < ABORTS; i += AT_ONCE) await Promise.all(Array.from({ length: AT_ONCE }, (_, j) => one(i + j)))
  for (const signal of signals) assert.equal(getEventListeners(signal, 'abort').length, 0, 'a listener stayed behind')
}

async function assertNothingLeft(
  { balancer, clock }: Scene,
  server?: RawServer,
  spared: readonly RawConnection[] = [],
) {
  const pool = balancer.stats().pools.default!
  assert.equal(pool.inflight, 0)
  assert.deepEqual(
    pool.backends.map((backend) => [backend.inflight, backend.failures]),
    [[0, 0]],
  )
  if (server !== undefined) {
    await until(
      () => server.connections.every((connection) => connection.closed || spared.includes(connection)),
      'a request stayed open at the backend',
    )
  }
  await until(() => clock.pending === 0, 'a timer stayed behind')
}

describe(`${ABORTS} aborts`, () => {
  test('before anything happened', async () => {
    const server = await serverThat(() => {})
    const scene = balancerOver(server.url)
    await abortAll(scene, async (abort) => abort())
    await assertNothingLeft(scene, server)
  })

  test('while waiting for a connection: the connections and what runs on them are untouched', async () => {
    const held: RawConnection[] = []
    const server = await serverThat((connection, head) => {
      if (head.startsWith('GET /held')) held.push(connection)
      else connection.socket.write(OK)
    })
    const scene = balancerOver(server.url, 4)
    const running = Array.from({ length: 4 }, () => scene.balancer.fetch('/held'))
    await until(() => held.length === 4, 'the four never came')
    await abortAll(scene, async (abort) => {
      await pause(1)
      abort()
    })
    for (const { socket } of held) socket.write(OK)
    for (const answer of running) assert.equal(await (await answer).text(), 'ok')
    await pause(10)
    assert.equal(await (await scene.balancer.fetch('/next')).text(), 'ok')
    assert.equal(server.connections.length, 4)
    assert.ok(server.connections.every((connection) => !connection.closed))
    assert.ok(held.every(({ received }) => received.match(/GET/g)!.length <= 2))
    await assertNothingLeft(scene, server, held)
  })

  test('while connecting to who never answers', async () => {
    const hole = await blackHole()
    cleanUps.push(() => hole.close())
    const scene = balancerOver(hole.url)
    await abortAll(scene, async (abort) => {
      await pause(2)
      abort()
    })
    await assertNothingLeft(scene)
  })

  test('while sending a body', async () => {
    let reading = false
    const server = await serverThat(({ socket }) => void (reading || socket.pause()))
    const scene = balancerOver(server.url)
    const endless = (): ReadableStream => new ReadableStream({ pull: (it) => it.enqueue(new Uint8Array(65_536)) })
    await abortAll(
      scene,
      async (abort) => {
        await pause(5)
        abort()
      },
      () => ({ method: 'POST', body: endless(), duplex: 'half' }),
    )
    reading = true // a server that does not read does not see the end either
    for (const { socket } of server.connections) socket.resume()
    await assertNothingLeft(scene, server)
  })

  test('before the head', async () => {
    const server = await serverThat(() => {})
    const scene = balancerOver(server.url)
    await abortAll(scene, async (abort) => {
      await pause(5)
      abort()
    })
    await assertNothingLeft(scene, server)
  })

  test('within the head', async () => {
    const server = await serverThat(({ socket }) => void socket.write('HTTP/1.1 200 OK\r\nx-half: '))
    const scene = balancerOver(server.url)
    await abortAll(scene, async (abort) => {
      await pause(5)
      abort()
    })
    await assertNothingLeft(scene, server)
  })

  test('within the body', async () => {
    const server = await serverThat(
      ({ socket }) => void socket.write('HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\nhalf'),
    )
    const scene = balancerOver(server.url)
    await abortAll(
      scene,
      async (abort) => {
        await pause(5)
        abort()
      },
      () => ({}),
      true,
    )
    await assertNothingLeft(scene, server)
  })

  test('after the end: keep-alive connections are not destroyed', async () => {
    const server = await serverThat(({ socket }) => void socket.write(OK))
    const scene = balancerOver(server.url)
    for (let i = 0; i < ABORTS; i += AT_ONCE) {
      await Promise.all(
        Array.from({ length: AT_ONCE }, async () => {
          const controller = new AbortController()
          const response = await scene.balancer.fetch('/', { signal: controller.signal })
          assert.equal(await response.text(), 'ok')
          controller.abort()
          assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
        }),
      )
    }
    assert.ok(server.connections.length <= AT_ONCE, `${server.connections.length} connections for ${AT_ONCE} at once`)
    assert.ok(server.connections.every((connection) => !connection.closed))
    await assertNothingLeft(scene, server, server.connections)
  })

  test('by clients of the proxy, before the head and within the body', async () => {
    const server = await serverThat(({ socket }, head) => {
      if (head.startsWith('GET /body')) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\nhalf')
    })
    const scene = balancerOver(server.url)
    const proxy = http.createServer(createProxy(scene.balancer)).listen(0, '127.0.0.1')
    await once(proxy, 'listening')
    cleanUps.push(async () => proxy.close())
    const { port } = proxy.address() as AddressInfo
    const one = async (number: number): Promise<void> => {
      const socket = net.connect(port, '127.0.0.1')
      const inBody = number % 2 === 0
      socket.write(`GET /${inBody ? 'body' : 'head'} HTTP/1.1\r\nhost: x\r\n\r\n`)
      if (inBody) await once(socket, 'data')
      else await pause(5)
      socket.destroy()
      await once(socket, 'close')
    }
    for (let i = 0; i < ABORTS; i += AT_ONCE) await Promise.all(Array.from({ length: AT_ONCE }, (_, j) => one(i + j)))
    await until(() => scene.balancer.stats().pools.default!.inflight === 0, 'a lease stayed behind')
    await assertNothingLeft(scene, server)
  })
})
