import { type PrequalOptions, prequal } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { header } from '../src/core/headers.ts'
import { bench, endpoint, endpoints, hard, inTurn, type PoolBench } from './support/pool-bench.ts'
import type { ScriptedSend } from './support/scripted.ts'

const PATH = '/lb-probe'

function isProbe({ attempt }: ScriptedSend): boolean {
  return attempt.request.path.endsWith(PATH)
}

/** Load by backend: what is not named has three in flight and takes 30 ms. */
type Loads = Readonly<Record<string, readonly [rif: number, latencyMs?: number]>>

interface Servers {
  /** Changes what they report. */
  loads: Loads
  /** What happens instead of an answer to a probe. */
  probed: ((send: ScriptedSend) => void) | undefined
  served: (send: ScriptedSend) => void
}

function headersOf(servers: Servers, id: string): string[] {
  const [rif, latencyMs] = servers.loads[id] ?? [3, 30]
  return ['x-lb-rif', `${rif}`, ...(latencyMs === undefined ? [] : ['x-lb-lat-ms', `${latencyMs}`])]
}

/** Backends a, b, c, ... and what came to them. */
function fleet(
  n: number,
  options: PrequalOptions = {},
  weights: readonly number[] = [],
): {
  it: PoolBench
  servers: Servers
  probed(): string[]
  call(): Promise<string>
  calls(n: number): Promise<string[]>
} {
  const servers: Servers = {
    loads: {},
    probed: undefined,
    served: (send) => send.answer(200, '', headersOf(servers, send.to)),
  }
  const given = Array.from({ length: n }, (_, i) => endpoint(nameOf(i), { weight: weights[i] ?? 1 }))
  const it = bench(given, {
    strategy: prequal(options),
    play(send) {
      if (!isProbe(send)) servers.served(send)
      else if (servers.probed !== undefined) servers.probed(send)
      else send.answer(204, '', headersOf(servers, send.to))
    },
  })
  const call = async (): Promise<string> => {
    const from = it.transport.sends.length
    await it.send().then(
      ({ body }) => body.discard(),
      () => {},
    )
    await it.clock.advance(0)
    return it.transport.sends.slice(from).find((send) => !isProbe(send))!.to
  }
  return {
    it,
    servers,
    probed: () => it.transport.sends.filter(isProbe).map(({ to }) => to),
    call,
    async calls(times) {
      const met: string[] = []
      for (let i = 0; i < times; i++) {
        met.push(await call())
        await it.clock.advance(10)
      }
      return met
    },
  }
}

function nameOf(i: number): string {
  return String.fromCharCode(97 + i)
}

function share(met: readonly string[], id: string): number {
  return met.filter((it) => it === id).length / met.length
}

describe('probes', () => {
  test('go to three distinct backends per request, beside the traffic, and not to those heard of within a second', async () => {
    const { it, probed, call } = fleet(20)
    await call()
    expect(new Set(probed()).size).toBe(3)
    const { method, path, headers } = it.transport.sends.find(isProbe)!.attempt.request
    expect([method, path, header(headers, 'x-lb-probe')]).toEqual(['GET', PATH, '1'])
    for (let i = 0; i < 50; i++) await call()
    expect(new Set(probed()).size).toBe(probed().length) // time stands still: nobody is asked twice
    expect(it.pool.totals.attempts).toBe(51)
  })

  test('stay below 200 a second, whatever the traffic', async () => {
    const { it, probed, call } = fleet(26, { maxAgeMs: 1 })
    for (let ms = 0; ms < 1_000; ms += 2) {
      await call()
      await it.clock.advance(2)
    }
    expect(probed().length).toBeGreaterThan(150)
    expect(probed().length).toBeLessThanOrEqual(220) // 200, and the 20 that had been saved
  })

  test('go out once a second for ten seconds without traffic, and then nothing is left', async () => {
    const { it, probed, call } = fleet(20)
    await it.clock.advance(5_000)
    expect([probed().length, it.clock.pending]).toEqual([0, 0])
    await call()
    await it.clock.advance(10_000)
    expect(probed()).toHaveLength(3 + 10)
    await it.clock.advance(5_000)
    expect([probed().length, it.clock.pending]).toEqual([3 + 10, 0])
  })

  test('that are not answered within the time are cancelled, and their backends left alone for a second', async () => {
    const { it, servers, probed, call } = fleet(4, { timeoutMs: 100 })
    servers.probed = (send) =>
      void (send.to === 'a' ? send.connect() : send.answer(204, '', headersOf(servers, send.to)))
    while (!probed().includes('a')) await call()
    const lost = it.transport.sends.find((send) => isProbe(send) && send.to === 'a')!
    await it.clock.advance(99)
    expect(lost.canceledWith).toBeUndefined()
    await it.clock.advance(1)
    expect(lost.canceledWith).toMatchObject({ code: 'TIMEOUT', message: 'no answer to a probe within 100 ms' })
    const times = probed().filter((id) => id === 'a').length
    for (let i = 0; i < 50; i++) {
      await call()
      await it.clock.advance(10)
    }
    expect(probed().filter((id) => id === 'a')).toHaveLength(times)
  })

  test('ask nobody in pools of fewer than four', async () => {
    for (const n of [1, 2, 3]) {
      const { probed, calls } = fleet(n)
      expect(new Set(await calls(60)).size).toBe(n)
      expect(probed()).toEqual([])
    }
  })

  test('do not go to who has no weight or is out', async () => {
    const { it, probed, calls } = fleet(8, { maxAgeMs: 5 }, [0])
    it.pool.block(it.backend('b'), hard('operator'))
    const met = await calls(200)
    expect(new Set([...probed(), ...met])).toEqual(new Set('cdefgh'))
  })

  test('come in proportion to weights, and so does the traffic between equals', async () => {
    const { calls } = fleet(8, {}, [1, 1, 1, 1, 4, 4, 4, 4])
    const met = await calls(4_000)
    const heavy = [...'efgh'].reduce((sum, id) => sum + share(met, id), 0)
    expect(heavy).toBeGreaterThan(0.6) // 0.8 by weight; the few that are compared are distinct
    expect(heavy).toBeLessThan(0.9)
  })
})

describe('traffic', () => {
  test('goes to the fastest that are not hot', async () => {
    const { servers, calls } = fleet(8)
    servers.loads = { a: [50, 1], b: [3, 5], c: [0, 100] }
    await calls(100)
    const met = await calls(1_000)
    expect(share(met, 'b')).toBeGreaterThan(0.25)
    expect(share(met, 'a')).toBeLessThan(0.125)
    expect(share(met, 'c')).toBeLessThan(0.05)
  })

  test('follows real answers as well as probes', async () => {
    const { it, servers, calls } = fleet(8)
    await calls(50)
    const before = it.transport.sends.filter(isProbe).length
    await calls(100)
    expect(it.transport.sends.filter(isProbe).length - before).toBeLessThan(50) // of 300
    servers.loads = Object.fromEntries([...'abcdefg'].map((id) => [id, [9, 200]] as const))
    await calls(100)
    expect(share(await calls(500), 'h')).toBeGreaterThan(0.3)
  })

  test('avoids who fails fast, though it has nothing in flight', async () => {
    const { servers, calls } = fleet(10)
    servers.loads = { a: [0, 1] }
    servers.served = (send) => send.answer(send.to === 'a' ? 500 : 200, '', headersOf(servers, send.to))
    const met = await calls(1_000)
    expect(share(met, 'a')).toBeLessThan(0.02)
    servers.served = (send) => send.answer(200, '', headersOf(servers, send.to))
    await calls(7_000) // its last time out, of up to 64 s, has passed
    expect(share(await calls(500), 'a')).toBeGreaterThan(0.1)
  })

  test('never goes to who has left, and finds who has come', async () => {
    const { it, servers, calls } = fleet(8)
    servers.loads = { a: [0, 1] }
    expect(share(await calls(300), 'a')).toBeGreaterThan(0.2)
    it.pool.apply(endpoints(...'bcdefghz'))
    servers.loads = { z: [0, 1] }
    const met = await calls(300)
    expect(share(met, 'a')).toBe(0)
    expect(share(met, 'z')).toBeGreaterThan(0.2)
  })
})

describe('servers without the other half', () => {
  test('are told of, are not asked for long, and are chosen all the same', async () => {
    const { it, servers, probed, calls } = fleet(6)
    servers.probed = (send) => send.answer(404, 'no such page')
    servers.served = (send) => send.answer(200)
    const met = await calls(400)
    for (const id of 'abcdef') expect(share(met, id)).toBeGreaterThan(0.05)
    const asked = probed().length
    expect(asked).toBeLessThanOrEqual(6 * 10)
    await calls(100)
    expect(probed()).toHaveLength(asked)
    const warnings = it.events.filter(([event]) => event === 'warning').map(([, error]) => error as Error)
    expect(warnings.map(({ message }) => message)).toEqual([
      expect.stringMatching(
        /^prequal: backend [a-f] of pool default answers a probe, GET \/lb-probe, with 404: nobody there/,
      ),
      expect.stringMatching(/^prequal: backend [a-f] of pool default answers without x-lb-rif/),
    ])
    servers.served = (send) => send.answer(200, '', headersOf(servers, send.to))
    servers.loads = { a: [1, 5] }
    await calls(400)
    expect(share(await calls(500), 'a')).toBeGreaterThan(0.25) // now they say what they know
  })

  test('get their share by weight among others that report', async () => {
    const { servers, calls } = fleet(10)
    const isSilent = (id: string): boolean => 'ab'.includes(id)
    servers.probed = (send) => send.answer(204, '', isSilent(send.to) ? [] : headersOf(servers, send.to))
    servers.served = (send) => send.answer(200, '', isSilent(send.to) ? [] : headersOf(servers, send.to))
    await calls(400)
    const met = await calls(2_000)
    expect(share(met, 'a') + share(met, 'b')).toBeGreaterThan(0.15)
    expect(share(met, 'a') + share(met, 'b')).toBeLessThan(0.25)
  })
})

test('another strategy in its place: it is silent from then on, and nothing stays', async () => {
  const { it, probed, calls } = fleet(8)
  await calls(20)
  it.reconfigure({ strategy: inTurn() }, endpoints(...'abcdefgh'))
  const before = probed().length
  await it.clock.advance(15_000)
  expect([probed().length, it.clock.pending]).toEqual([before, 0])
})

test('a pool that loses everybody asks nobody any more', async () => {
  const { it, probed, calls } = fleet(8)
  await calls(20)
  it.pool.apply([])
  const before = probed().length
  await it.clock.advance(15_000)
  expect([probed().length, it.clock.pending]).toEqual([before, 0])
})
