import { createBalancer, memory } from 'evenkeel'
import { expect, test } from 'vitest'

test('stats tell the limit that holds for a backend, and none where there is none', async () => {
  const backends = [
    { id: 'a', url: 'http://a.test', maxInflight: 3 },
    { id: 'b', url: 'http://b.test', maxInflight: 30 },
    { id: 'c', url: 'http://c.test' },
  ]
  const transport = memory({})
  const balancer = createBalancer({ backends, transport })
  const limits = (): unknown => balancer.stats().pools.default!.backends.map(({ limit }) => limit)
  expect(limits()).toEqual([3, 30, undefined])
  expect(JSON.parse(JSON.stringify(balancer.stats())).pools.default.backends[2]).not.toHaveProperty('limit')
  await balancer.update({ backends, transport, limits: { adaptive: { initial: 10 } } })
  expect(limits()).toEqual([3, 10, 10])
  await balancer.update({ backends, transport })
  expect(limits()).toEqual([3, 30, undefined])
  await balancer.close()
})
