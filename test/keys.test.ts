// Where keys come from, through every face, over real sockets: the same key goes to the same backend.
import http from 'node:http'
import {
  type BalancerError,
  createBalancer,
  failover,
  type KeySource,
  locality,
  maglev,
  type Policy,
  roundRobin,
  subset,
  zoneWeights,
} from 'evenkeel'
import { describe, expect, onTestFinished, test } from 'vitest'
import { cookie, withoutCookie } from '../src/core/cookies.ts'
import { balancerBench } from './support/balancer-bench.ts'
import { ask, type balance, front, kept, rawClient, type Upstream, upstream } from './support/upstreams.ts'

type Balancer = ReturnType<typeof balance>

/** Eight backends that say who they are. */
async function eight(): Promise<readonly { readonly url: string; readonly id: string }[]> {
  const servers = await Promise.all(
    [...'abcdefgh'].map((id) => upstream((_, response) => response.end(id)).then(({ url }) => ({ url, id }))),
  )
  return servers
}

async function keyed(key: KeySource): Promise<{ readonly balancer: Balancer; readonly proxy: Upstream }> {
  const balancer = kept(createBalancer({ backends: await eight(), strategy: { name: 'rendezvous', key } }))
  return { balancer, proxy: await front(balancer) }
}

interface Said {
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
}
type Face = (it: { readonly balancer: Balancer; readonly proxy: Upstream }, said: Said) => Promise<string>

const FACES: Readonly<Record<string, Face>> = {
  fetch: async ({ balancer }, { path = '/', headers = {} }) => (await balancer.fetch(path, { headers })).text(),
  request: async ({ balancer }, { path = '/', headers = {} }) =>
    (await balancer.request(path, { headers })).body.text(),
  proxy: async ({ proxy }, { path = '/', headers = {} }) => (await ask(proxy, path, { headers })).body.toString(),
}

/** Who answers: the ids met, in so many tries. */
async function met(who: () => Promise<string>, tries = 12): Promise<string> {
  const ids = new Set<string>()
  for (let i = 0; i < tries; i++) ids.add(await who())
  return [...ids].sort().join('')
}

describe.each(Object.entries(FACES))('by %s', (_, face) => {
  test('a header is the key, whatever the case of its name', async () => {
    const it = await keyed('header:X-User')
    const owners = new Set<string>()
    for (const user of ['ann', 'bob', 'cyd', 'dan', 'eve', 'fay']) {
      const owner = await met(() => face(it, { path: `/${Math.random()}`, headers: { 'x-USER': user } }))
      expect(owner).toHaveLength(1)
      owners.add(owner)
    }
    expect(owners.size).toBeGreaterThan(2)
    expect((await met(() => face(it, {}), 40)).length).toBeGreaterThan(3) // no header, no key
    expect((await met(() => face(it, { headers: { 'x-user': '' } }), 40)).length).toBeGreaterThan(3)
  })

  test('text beyond ASCII in a header or a cookie is the key that a caller would give', async () => {
    for (const [source, name, prefix] of [
      ['header:x-user', 'x-user', ''],
      ['cookie:sid', 'cookie', 'sid='],
    ] as const) {
      const it = await keyed(source)
      for (const user of ['zoë', '日本', 'ann', 'naïve café']) {
        const owner = await (await it.balancer.request('/', { key: user })).body.text()
        const wire = Buffer.from(prefix + user).toString('latin1') // as UTF-8
        expect(await face(it, { headers: { [name]: wire } }), user).toBe(owner)
      }
      const owner = await (await it.balancer.request('/', { key: 'zoë' })).body.text()
      expect(await face(it, { headers: { [name]: `${prefix}zoë` } })).toBe(owner) // as latin1
    }
  })

  test('a cookie is the key, wherever it stands among the others', async () => {
    const it = await keyed('cookie:sid')
    const owner = await face(it, { headers: { cookie: 'sid=ann' } })
    for (const line of ['a=1; sid=ann; b=2', 'sid="ann"', 'xsid=bob; sid=ann; sid=bob', ';;=;sid=ann']) {
      expect(await met(() => face(it, { headers: { cookie: line } }), 4)).toBe(owner)
    }
    expect((await met(() => face(it, { headers: { cookie: 'SID=ann; other' } }), 40)).length).toBeGreaterThan(3)
  })

  test('the path is the key, without its query', async () => {
    const it = await keyed('path')
    const owner = await face(it, { path: '/a/b?x=1' })
    expect(await met(() => face(it, { path: `/a/b?${Math.random()}` }))).toBe(owner)
    const others = await Promise.all([...'abcdefgh'].map((name) => face(it, { path: `/${name}?x=1` })))
    expect(new Set(others).size).toBeGreaterThan(2)
  })

  test('a function is told the request and the call', async () => {
    const seen: string[] = []
    const it = await keyed(({ method, path }, call) => {
      seen.push(`${method} ${path} ${call.pool} ${call.key}`)
      return path.slice(0, 2)
    })
    const owner = await face(it, { path: '/a1' })
    expect(await met(() => face(it, { path: `/a${Math.random()}` }))).toBe(owner)
    expect(seen).toHaveLength(13) // once a call
    expect(seen[0]).toBe('GET /a1 default undefined')
  })
})

test('strategies around a hash strategy read its key', async () => {
  const inner = maglev({ key: 'header:x' })
  const backends = (await eight()).map((one, i) => ({ ...one, zone: i < 4 ? 'here' : 'there' }))
  for (const strategy of [
    { name: 'failover', strategy: { name: 'maglev', key: 'header:x' } } as const,
    failover(inner),
    locality(inner, { zone: 'here' }),
    zoneWeights(inner, { weights: { here: 2 } }),
    subset(inner, { size: 6 }),
    failover(locality(subset(inner, { size: 4 }), { zone: 'there' })),
  ]) {
    const balancer = kept(createBalancer({ backends, strategy }))
    const who = async (x: string): Promise<string> => (await balancer.request('/', { headers: { x } })).body.text()
    const owners = await Promise.all([...'abcdefghij'].map((x) => met(() => who(x), 5)))
    expect(owners.filter((owner) => owner.length !== 1)).toEqual([])
    expect(new Set(owners).size).toBeGreaterThan(1)
  }
  expect('keyOf' in failover(roundRobin())).toBe(false)
})

test('repeated headers are one value, as HTTP has it', async () => {
  const it = await keyed('header:x-user')
  const joined = await FACES.proxy!(it, { headers: { 'x-user': 'a, b' } })
  const client = await rawClient(it.proxy)
  client.write('GET / HTTP/1.1\r\nHost: a\r\nX-User: a\r\nx-user: b\r\n\r\n')
  await client.until((received) => received.endsWith(joined) && received.includes('\r\n\r\n'))
  const { body } = await it.balancer.request('/', { headers: { 'x-user': ['a', 'b'] } })
  expect(await body.text()).toBe(joined)
})

describe('the address of the client', () => {
  async function from(localAddress: string, proxy: Upstream, headers = {}): Promise<string> {
    return (await ask(proxy, '/', { localAddress, headers })).body.toString()
  }

  test('is the proxy’s socket’s: what the client says of itself does not count', async () => {
    const it = await keyed('ip')
    const clients = Array.from({ length: 8 }, (_, i) => `127.0.0.${i + 1}`)
    const owners = await Promise.all(clients.map((address) => from(address, it.proxy)))
    expect(new Set(owners).size).toBeGreaterThan(2)
    for (const [i, address] of clients.entries()) {
      const spoofed = { 'x-forwarded-for': `10.0.0.${i}`, forwarded: 'for=10.0.0.1', 'x-real-ip': '10.0.0.1' }
      expect(await met(() => from(address, it.proxy, spoofed), 3)).toBe(owners[i])
      const said = await it.balancer.fetch('/', { balancer: { address } })
      expect(await said.text()).toBe(owners[i])
    }
    expect((await met(async () => (await it.balancer.fetch('/')).text(), 40)).length).toBeGreaterThan(3)
  })

  test('is the same by IPv4 and by IPv4 within IPv6, and an application may say another', async () => {
    const { balancer, proxy } = await keyed('ip')
    const { createProxy } = await import('evenkeel/node')
    const dual = http.createServer(createProxy(balancer))
    onTestFinished(() => void dual.close())
    await new Promise<void>((resolve) => dual.listen(0, '::', resolve))
    const { port } = dual.address() as { port: number }
    const mapped = await ask({ url: `http://127.0.0.1:${port}`, port }, '/')
    expect(mapped.body.toString()).toBe(await from('127.0.0.1', proxy))
    const trusting = await front(balancer, { call: ({ headers }) => ({ address: headers['x-real-ip'] as string }) })
    const named = await from('127.0.0.1', trusting, { 'x-real-ip': '10.1.2.3' })
    expect(await (await balancer.fetch('/', { balancer: { address: '10.1.2.3' } })).text()).toBe(named)
  })
})

describe('a call’s own key', () => {
  test('wins over every source, and the source is not asked', async () => {
    let asked = 0
    for (const source of ['call', 'ip', 'path', 'header:x', 'cookie:x', () => `${asked++}`] as const) {
      const { balancer } = await keyed(source)
      const { balancer: plain } = await keyed('call')
      for (const key of ['ann', 'bob']) {
        const options = { key, address: '1.2.3.4', headers: { x: 'y', cookie: 'x=y' } }
        const who = async (of: Balancer): Promise<string> => (await of.request('/p', options)).body.text()
        expect(await met(() => who(balancer), 3)).toBe(await who(plain))
      }
    }
    expect(asked).toBe(0)
  })

  test('may be missing, null or empty: then the source is asked', async () => {
    const { balancer } = await keyed('header:x')
    const { balancer: plain } = await keyed('call')
    for (const key of ['', null, undefined]) {
      const who = async (of: Balancer): Promise<string> =>
        (await of.request('/', { key, headers: { x: 'ann' } })).body.text()
      const owner = await (await plain.request('/', { key: 'ann' })).body.text()
      expect(await met(() => who(balancer), 3)).toBe(owner)
      expect((await met(() => who(plain), 40)).length).toBeGreaterThan(3)
    }
  })

  test('that is no text fails the call with CONFIG', async () => {
    const { balancer } = await keyed('call')
    for (const key of [5, {}, true] as never[]) {
      const expected = { code: 'CONFIG', message: expect.stringMatching(/^the key of a call: expected a string/) }
      await expect(balancer.request('/', { key })).rejects.toMatchObject(expected)
      await expect(balancer.fetch('/', { balancer: { key } })).rejects.toMatchObject(expected)
      expect(() => balancer.acquire({ key })).toThrow(expect.objectContaining(expected))
    }
    expect(balancer.stats().pools.default).toMatchObject({ attempts: 0, inflight: 0 })
  })

  test('is all that a lease has, beside what a function or the address says', async () => {
    const lease = async (source: KeySource, options = {}): Promise<string> => {
      const { balancer } = await keyed(source)
      return met(async () => {
        using held = balancer.acquire(options)
        return held.backend.id
      }, 40)
    }
    expect(await lease('call', { key: 'ann' })).toHaveLength(1)
    expect(await lease(() => 'ann')).toBe(await lease('call', { key: 'ann' }))
    expect(await lease('ip', { address: 'ann' })).toBe(await lease('call', { key: 'ann' }))
    for (const source of ['call', 'path', 'header:x', 'cookie:x', 'ip'] as const) {
      expect((await lease(source)).length, source).toBeGreaterThan(3)
    }
  })
})

describe('a key is read at each pick', () => {
  test('from the request that policies have made', async () => {
    for (const scope of ['balancer', 'pool'] as const) {
      const named: Policy = {
        name: 'named',
        scope,
        wrap: (next) => (call, request) => next(call, { ...request, headers: [...request.headers, 'x-user', 'ann'] }),
      }
      const strategy = { name: 'rendezvous', key: 'header:x-user' } as const
      const it = balancerBench((send) => send.answer(), { policies: [named], strategy, ids: 'abcdefgh' })
      for (let i = 0; i < 12; i++) await it.call()
      expect(new Set(it.to()).size, scope).toBe(1)
      await it.balancer.close()
    }
  })

  test('by the strategy of that moment, for calls that wait through an update as well', async () => {
    const rest = { limits: { maxInflight: 1, queue: { size: 20, timeoutMs: 60_000 } } } as const
    const it = balancerBench(undefined, { ...rest, strategy: 'round-robin', ids: 'abcdefgh' })
    const calls = Array.from({ length: 8 }, () => it.start({ headers: ['x-user', 'ann', 'x-other', 'bob'] }))
    const update = (key: KeySource): Promise<unknown> =>
      it.balancer.update({
        ...rest,
        backends: [...'abcdefgh'].map((id) => ({ url: `http://${id}.test`, id })),
        strategy: { name: 'rendezvous', key },
        transport: it.transport,
        clock: it.clock,
      })
    const next = async (i: number): Promise<void> => {
      it.transport.sends[i]!.answer()
      await it.until(calls[i]!.ended)
    }
    await update('header:x-user')
    for (let i = 0; i < 4; i++) await next(i)
    expect(calls[3]!.call.key).toBe('ann')
    await update('header:x-other')
    for (let i = 4; i < 8; i++) await next(i)
    expect(calls.map(({ call }) => call.key)).toEqual([undefined, 'ann', 'ann', 'ann', 'ann', 'bob', 'bob', 'bob'])
    expect([new Set(it.to().slice(1, 5)).size, new Set(it.to().slice(5)).size]).toEqual([1, 1])
    await it.balancer.close()
  })

  test('for a retry once more', async () => {
    let asked = 0
    const it = balancerBench((send) => send.answer(503), {
      strategy: { name: 'rendezvous', key: () => `${asked++}` },
      health: { passive: false },
    })
    const { call, ended } = it.start()
    await it.until(ended)
    expect([it.to().length, asked, call.key]).toEqual([3, 3, '2'])
    await it.balancer.close()
  })

  test('unless a function says that there is none', async () => {
    const { balancer } = await keyed((() => null) as never)
    expect((await met(async () => (await balancer.fetch('/')).text(), 40)).length).toBeGreaterThan(3)
  })
})

describe('a key function that fails', () => {
  const wrong: readonly (readonly [what: string, source: () => unknown, message: RegExp, cause: unknown])[] = [
    [
      'throws',
      () => {
        throw new Error('C4N4RY')
      },
      /^the key function of strategy rendezvous in pool default failed$/,
      expect.objectContaining({ message: 'C4N4RY' }),
    ],
    ['gives a number', () => 7, /: expected a string or undefined, got a value of type number$/, undefined],
    ['is async', async () => 'C4N4RY', /: expected a string or undefined, got a value of type object$/, undefined],
  ]

  test.each(wrong)('as it %s fails the call with CONFIG, and nothing is sent', async (_, source, message, cause) => {
    const { balancer, proxy } = await keyed(source as never)
    for (const call of [balancer.fetch('/'), balancer.request('/')]) {
      const error = (await call.catch((reason: unknown) => reason)) as BalancerError
      expect([error.code, error.cause]).toEqual(['CONFIG', cause])
      expect(error.message).toMatch(message)
    }
    expect(() => balancer.acquire()).toThrow(message)
    const answer = await ask(proxy, '/')
    expect([answer.status, answer.body.toString()]).toEqual([500, expect.not.stringContaining('C4N4RY')])
    const { attempts, failed, inflight } = balancer.stats().pools.default!
    expect([attempts, failed, inflight]).toEqual([0, 4, 0])
  })
})

test('cookies are read from whatever comes, and nothing but one of them is ever taken out', () => {
  const read = (...lines: readonly string[]): string | undefined =>
    cookie(
      lines.flatMap((line) => ['Cookie', line]),
      'sid',
    )
  expect(read('sid=1')).toBe('1')
  expect(read('a=b', 'x=y; sid=2')).toBe('2')
  expect(read('sid==a=b')).toBe('=a=b')
  expect(read('sid="')).toBe('"')
  expect(read('sid=')).toBe('')
  expect(read(' sid = 3 ')).toBe('3')
  for (const junk of ['', ';', '=', 'sid', 'Sid=1', 'asid=1', '; ;=;', '\u0000sid', '%73id=1', 'sid'.repeat(9_999)]) {
    expect(read(junk)).toBeUndefined()
  }
  expect(cookie(['COOKIE', new TextEncoder().encode('sid=bytes')], 'sid')).toBe('bytes')
  const started = performance.now()
  read('; '.repeat(500_000))
  expect(performance.now() - started).toBeLessThan(1_000)

  const kept: readonly (readonly [before: string, after: string])[] = [
    ['a=1;b=2', 'a=1;b=2'],
    ['sid=x', ''],
    ['a=1; sid=x; b=2', 'a=1; b=2'],
    ['sid=x; a=1', 'a=1'],
    ['a=1; sid=x', 'a=1'],
    ['a=1;sid=x;  b="2;', 'a=1;  b="2;'],
    ['sid=x; sid=y;a', 'a'],
    [' a ; sidx=1', ' a ; sidx=1'],
    ['\u00e9=\u00ff; sid=x', '\u00e9=\u00ff'],
  ]
  for (const [before, after] of kept) expect(withoutCookie(before, 'sid')).toBe(after)
})
