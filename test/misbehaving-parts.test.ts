import { createBalancer, memory, type Policy, type Transport } from 'evenkeel'
import { manualClock } from 'evenkeel/testing'
import { expect, test } from 'vitest'

const BACKENDS = [{ url: 'http://a.test', id: 'a' }]

test('a transport whose forget rejects is reported, and the process lives', async () => {
  const failing: Transport = { ...memory({ a: {} }), forget: () => Promise.reject(new Error('stuck')) }
  const balancer = createBalancer({ backends: BACKENDS, transport: failing })
  const warnings: string[] = []
  balancer.on('warning', ({ message }) => warnings.push(message))
  await balancer.update({ backends: ['http://b.test'], transport: failing })
  await new Promise((resolve) => setImmediate(resolve))
  expect(warnings).toEqual(['forget of memory threw in pool default'])
  await balancer.close()
})

test('an attempt policy that passes a request on and then throws gives its backend back', async () => {
  const clock = manualClock()
  const careless: Policy = {
    name: 'careless',
    scope: 'attempt',
    wrap: (next) => (attempt) => {
      next(attempt).catch(() => {})
      throw new Error('a bug of the policy')
    },
  }
  const transport = memory({ a: { headMs: 1_000 } }, { clock })
  const balancer = createBalancer({
    backends: BACKENDS,
    transport,
    clock,
    policies: [careless],
    retry: { attempts: 1 },
  })
  await expect(balancer.fetch('/')).rejects.toThrow('a bug of the policy')
  await clock.advance(0)
  expect(balancer.stats().pools.default!.inflight).toBe(0)
  await clock.advance(1_000)
  expect(clock.pending).toBe(0)
  await balancer.close()
})

test('a limit below one millisecond is a limit', async () => {
  const clock = manualClock()
  const transport = memory({ a: { headMs: 60_000 } }, { clock })
  const balancer = createBalancer({ backends: BACKENDS, transport, clock })
  const late = expect(balancer.fetch('/', { balancer: { timeoutMs: 0.4 } })).rejects.toMatchObject({ code: 'TIMEOUT' })
  await clock.advance(10)
  await late
  await balancer.close()
})
