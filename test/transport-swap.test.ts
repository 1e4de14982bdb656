import { createBalancer, undici } from 'evenkeel'
import { expect, test } from 'vitest'
import { kept, OK, rawUpstream, until, type Wire } from './support/upstreams.ts'

test('a transport that is swapped out and back cuts nothing that begins when its earlier requests end', async () => {
  const held: Wire[] = []
  const backend = await rawUpstream(async (wire) => {
    for (;;) {
      const head = await wire.head()
      if (head.includes('/held')) held.push(wire)
      else wire.write(OK)
    }
  })
  // Long enough that a connection nobody closes shows.
  const [a, b] = [undici({ keepAliveMs: 600_000 }), undici()]
  const options = { backends: [backend.url], retry: { attempts: 1 } }
  const balancer = kept(createBalancer({ ...options, transport: a }))
  const next = async (): Promise<number> => {
    const { statusCode, body } = await balancer.request('/next')
    await body.text()
    return statusCode
  }
  const ended = Promise.withResolvers<number>()
  const { response } = balancer.send({ method: 'GET', path: '/held', headers: [], body: null })
  response.then(({ body }) =>
    body.consume({
      chunk: () => true,
      end: () => ended.resolve(next()),
      fail: ended.reject,
    }),
  )
  await until(() => held.length === 1, 'the request never came')
  await balancer.update({ ...options, transport: b })
  await balancer.rollback(1)
  held[0]!.write(OK)
  expect(await ended.promise).toBe(200)
  await balancer.close()
  await Promise.all(backend.wires.map((wire) => wire.closed()))
})
