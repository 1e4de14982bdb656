import { createBalancer, memory } from 'evenkeel'
import { expect, test } from 'vitest'
import { balancerBench } from '../support/balancer-bench.ts'

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

test('stats add up: every call and every attempt has ended in one way, and is in the durations', async () => {
  const it = balancerBench((send, number) => (number % 3 === 0 ? send.refuse() : send.answer(number % 2 ? 200 : 404)), {
    retry: { attempts: 1 },
  })
  for (let i = 0; i < 9; i++) await it.call()
  const given = it.start()
  given.call.cancel(new Error('not wanted'))
  await given.ended
  const { calls, answered, failed, aborted, attempts, classes, durations, firstBytes, callDurations, backends } =
    it.balancer.stats().pools.default!
  expect({ calls, answered, failed, aborted }).toEqual({ calls: 10, answered: 6, failed: 3, aborted: 1 })
  expect(classes).toEqual({ ok: 3, 'client-error': 3, connect: 3, cancelled: 1 })
  expect([attempts, durations.count, callDurations.count, firstBytes.count]).toEqual([10, 10, 10, 6])
  expect(backends.reduce((sum, backend) => sum + backend.durations.count, 0)).toBe(10)
  expect(structuredClone(it.balancer.stats())).toEqual(it.balancer.stats()) // plain data
})
