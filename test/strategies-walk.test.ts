// What a newcomer types wrong, and what the pages promise of credentials and of calls that are sent once.
import type { IncomingMessage } from 'node:http'
import {
  auto,
  BalancerError,
  createBalancer,
  edf,
  least,
  locality,
  memory,
  prequal,
  type Strategy,
  smart,
  subset,
  thompson,
} from 'evenkeel'
import { loadReport } from 'evenkeel/load-report'
import { createProxy } from 'evenkeel/node'
import { seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { upstream } from './support/upstreams.ts'

/** As without types: whatever comes, comes. */
const untyped = (make: unknown): ((...args: unknown[]) => Strategy) => make as (...args: unknown[]) => Strategy

describe('parts made wrongly', () => {
  test.each<[string, () => unknown, string]>([
    ['a price that is no function', () => untyped(smart)({ cost: 5 }), 'smart: cost: expected a function, got 5'],
    ['a price by name', () => untyped(thompson)({ cost: 'eur' }), 'thompson: cost: expected a function, got eur'],
    ['least of nothing', () => untyped(least)(), 'least: prefer: expected a function of two backends'],
    ['a bias without end', () => edf({ bias: Infinity }), 'edf: bias: expected a finite number >= 0, got Infinity'],
    ['a probe of no path', () => untyped(prequal)({ path: 5 }), "prequal: path: expected a path that starts with '/'"],
    ['a path with a space', () => prequal({ path: '/a b' }), "prequal: path: expected ASCII without spaces and '#'"],
    ['a path with a fragment', () => prequal({ path: '/a#b' }), "prequal: path: expected ASCII without spaces and '#'"],
    ['a subset by a number', () => untyped(subset)(auto(), { by: 5 }), 'subset: by: expected a string, or an object'],
    ['a subset by null', () => untyped(subset)(auto(), { by: null }), 'subset: by: expected a string, or an object'],
    ['no zone', () => untyped(locality)(auto(), {}), "locality: zone: expected the caller's own zone, a string"],
  ])('%s is refused', (_, make, message) => {
    expect(make).toThrow(BalancerError)
    expect(make).toThrow(message)
  })

  test.each([smart, thompson])('a price that is none is refused with a single backend as well', (make) => {
    const options = { backends: ['http://a.test'], transport: memory({}), strategy: make({ cost: () => NaN }) }
    expect(() => createBalancer(options)).toThrow('cost of backend a.test: expected a number >= 0, got NaN')
  })
})

test('a proxy without a secret is told that there is none', () => {
  const balancer = createBalancer({ backends: ['http://a.test'], transport: memory({}) })
  const refused = (secret: unknown): (() => unknown) => {
    return () => createProxy(balancer, { affinity: { secret: secret as string } })
  }
  expect(refused(undefined)).toThrow('affinity.secret: expected 32 bytes at least, found nothing')
  expect(refused([])).toThrow('affinity.secret: expected a secret, or a list of at least one, found a list of 0')
})

test('probes bring the credentials of their backend to who asks for them before it tells its load', async () => {
  const probes: IncomingMessage[] = []
  const guarded = (): ReturnType<typeof upstream> => {
    const report = loadReport().listener((_, response) => response.end('well'))
    return upstream((request, response) => {
      if (request.headers['x-lb-probe'] !== undefined) probes.push(request)
      if (request.headers.authorization === 'Bearer good') report(request, response)
      else response.writeHead(401).end()
    })
  }
  const urls = await Promise.all([guarded(), guarded(), guarded(), guarded()])
  await using balancer = createBalancer({
    backends: urls.map(({ url }) => ({ url, headers: { authorization: 'Bearer good' } })),
    strategy: prequal(),
  })
  const warnings: unknown[] = []
  balancer.on('warning', (warning) => warnings.push(warning))
  const { body } = await balancer.request('/')
  expect(await body.text()).toBe('well')
  await expect.poll(() => probes.length).toBe(3)
  expect(probes.map(({ headers }) => headers.authorization)).toEqual(Array(3).fill('Bearer good'))
  expect(warnings).toEqual([])
})

test('thompson tries others with calls that may be sent twice only', async () => {
  const askedOf = async (idempotent: boolean): Promise<ReadonlySet<string>> => {
    const transport = memory({ a: {}, b: {}, c: {} })
    await using balancer = createBalancer({
      backends: ['a', 'b', 'c'].map((id) => ({ id, url: `http://${id}.test` })),
      strategy: 'thompson',
      transport,
      random: seededRandom(1),
    })
    for (let i = 0; i < 200; i++) await (await balancer.request('/', { method: 'POST', idempotent })).body.dump()
    return new Set(transport.requests.map(({ backend }) => backend))
  }
  expect((await askedOf(false)).size).toBe(1)
  expect((await askedOf(true)).size).toBe(3)
})
