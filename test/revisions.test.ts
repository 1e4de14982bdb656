import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  type BalancerOptions,
  byInflight,
  createBalancer,
  memory,
  p2c,
  type Revision,
  Secret,
  type Source,
  type Watcher,
} from 'evenkeel'
import { manualClock } from 'evenkeel/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { watchConfig } from '../src/config/watch.ts'
import { balancerError } from './support/scripted.ts'
import { keeper, until } from './support/upstreams.ts'
import { folder, replace } from './support/watching.ts'

const A = { url: 'http://a.test', id: 'a' }
const B = { url: 'http://b.test', id: 'b' }

function balance(options: BalancerOptions): ReturnType<typeof createBalancer> {
  const balancer = createBalancer(options)
  onTestFinished(() => balancer.close())
  return balancer
}

/** As `path: from -> to`. */
function changesOf({ changes }: Revision): readonly string[] {
  return changes.map(({ path, from, to }) => `${path}: ${from} -> ${to}`)
}

/** A source that says what it is told to. */
function source(name = 'vault'): Source<BalancerOptions> & {
  next: (options: BalancerOptions) => void
  fail: (error: unknown) => void
  readonly stops: number
} {
  let stops = 0
  const made = {
    name,
    next: (_: BalancerOptions): void => {},
    fail: (_: unknown): void => {},
    get stops() {
      return stops
    },
    subscribe(next: (options: BalancerOptions) => void, fail: (error: unknown) => void) {
      made.next = next
      made.fail = fail
      return () => void stops++
    },
  }
  return made
}

describe('revisions', () => {
  test('begin with what the balancer was made with', () => {
    const startMs = Date.now()
    const balancer = balance({ backends: [A] })
    const [first, ...others] = balancer.revisions()
    expect(others).toEqual([])
    expect(first).toMatchObject({ number: 1, origin: 'start', restores: undefined, changes: [] })
    expect(first!.hash).toMatch(/^[0-9a-f]{64}$/)
    expect(first!.timeMs).toBeGreaterThanOrEqual(startMs)
    expect(first!.timeMs).toBeLessThanOrEqual(Date.now())
    expect(Object.isFrozen(first)).toBe(true)
  })

  test('have the time of the clock that was given, if it tells one', async () => {
    const backends = [A]
    expect(balance({ backends, clock: { ...manualClock(), wall: () => 86_400_000 } }).revisions()[0]!.timeMs).toBe(
      86_400_000,
    )
    expect(balance({ backends, clock: manualClock() }).revisions()[0]!.timeMs).toBeUndefined()
  })

  test('say what an update has added, removed and changed, by path', async () => {
    const balancer = balance({
      pools: { api: { backends: [A, B], retry: { attempts: 2 } }, old: { backends: ['http://old.test/v1'] } },
      origins: ['http://x.test'],
    })
    const revision = await balancer.update({
      name: 'other',
      pools: {
        api: {
          backends: [
            { ...A, weight: 3 },
            { url: 'http://c.test', id: 'c', tags: ['gpu'] },
          ],
          breaker: {},
        },
        'new.one': { backends: [{ url: 'http://a.test', meta: { owner: { team: 'x' } } }], retry: { status: [500] } },
      },
    })
    expect(balancer.revisions()).toHaveLength(2)
    expect(revision).toBe(balancer.revisions()[1])
    expect(revision).toMatchObject({ number: 2, origin: 'update' })
    const changes = changesOf(revision)
    expect(changes).toEqual(
      expect.arrayContaining([
        'name: "evenkeel" -> "other"',
        'origins: ["http://x.test"] -> undefined',
        'pools.api.backends.a.weight: undefined -> 3',
        'pools.api.backends.b.url: "http://b.test" -> undefined',
        'pools.api.backends.c.url: undefined -> "http://c.test"',
        'pools.api.backends.c.tags: undefined -> ["gpu"]',
        'pools.api.retry.attempts: 2 -> 3',
        'pools.old.backends["old.test/v1"].url: "http://old.test/v1" -> undefined',
        'pools["new.one"].retry.status: undefined -> [500]',
        'pools["new.one"].backends["a.test"].meta.owner.team: undefined -> "[redacted]"',
      ]),
    )
    const breaker = changes.find((text) => text.startsWith('pools.api.breaker'))
    expect(breaker).toMatch(/^pools\.api\.breaker: false -> \{"trip":"window"/)
    expect(changes.filter((text) => text.startsWith('pools.api'))).toHaveLength(8) // also the ids of b and c
  })

  test('count another order of the backends, which some strategies go by', async () => {
    const balancer = balance({ pools: { x: { backends: [A, B] }, y: { backends: [A] } } })
    const first = balancer.revisions()[0]!
    const second = await balancer.update({ pools: { x: { backends: [B, A] }, y: { backends: [A] } } })
    expect(changesOf(second)).toEqual(['pools.x.backends: a, b -> b, a'])
    const third = await balancer.update({ pools: { y: { backends: [A] }, x: { backends: [B, A] } } })
    expect(changesOf(third)).toEqual(['pools: x, y -> y, x'])
    expect(new Set([first.hash, second.hash, third.hash]).size).toBe(3)
  })

  test('count an order far down a long list, and one of ids that are whole numbers', async () => {
    const orderOf = async (ids: readonly string[]): Promise<Revision> => {
      const backends = ids.map((id) => ({ id, url: `http://b${id}.test` }))
      const balancer = balance({ backends, strategy: 'round-robin' })
      const moved = [...backends.slice(0, -2), backends.at(-1)!, backends.at(-2)!]
      const revision = await balancer.update({ backends: moved, strategy: 'round-robin' })
      expect(balancer.revisions().map(({ number }) => number)).toEqual([1, 2])
      expect(revision.hash).toBe(balance({ backends: moved, strategy: 'round-robin' }).revisions()[0]!.hash)
      expect(revision.hash).not.toBe(balancer.revisions()[0]!.hash)
      return revision
    }
    expect(changesOf(await orderOf(['1', '2']))).toEqual(['pools.default.backends: 1, 2 -> 2, 1'])
    const long = Array.from({ length: 40 }, (_, i) => `backend-${100 + i}`)
    expect(changesOf(await orderOf(long))).toEqual([
      'pools.default.backends: …, backend-138, backend-139 -> …, backend-139, backend-138',
    ])
    const pools = (names: readonly string[]): BalancerOptions => ({
      pools: Object.fromEntries(names.map((name) => [name, { backends: [A] }])),
    })
    const names = Array.from({ length: 30 }, (_, i) => `pool-number-${i}`)
    const balancer = balance(pools(names))
    const moved = await balancer.update(pools([...names.slice(0, 28), names[29]!, names[28]!]))
    expect(changesOf(moved)).toEqual(['pools: …, pool-number-28, pool-number-29 -> …, pool-number-29, pool-number-28'])
  })

  test('are not made by an update that changes nothing, however it is written', async () => {
    const transport = memory({ a: {} })
    const strategy = p2c(byInflight)
    const balancer = balance({ backends: ['http://a.test', B], transport, strategy })
    let told = 0
    balancer.on('configured', () => told++)
    const same: BalancerOptions = {
      pools: { default: { backends: [{ url: 'http://a.test' }, { ...B }], retry: { attempts: 3 } } },
      transport,
      strategy,
      breaker: false,
    }
    expect(await balancer.update(same)).toBe(balancer.revisions()[0])
    expect(balancer.revisions()).toHaveLength(1)
    expect(told).toBe(0)
    // Nobody can see into a part: another object is another part.
    const other = await balancer.update({ ...same, strategy: p2c(byInflight) })
    expect(changesOf(other)).toEqual(['pools.default.strategy: "p2c(byInflight)" -> "p2c(byInflight)"'])
    expect(other.hash).toBe(balancer.revisions()[0]!.hash)
    expect(told).toBe(1)
  })

  test('are not made by an update that fails', async () => {
    const balancer = balance({ backends: [A] })
    const throwing = (): never => {
      throw new Error('broken')
    }
    await expect(balancer.update({ backends: [] })).rejects.toMatchObject({ code: 'CONFIG' })
    await expect(balancer.update({ backends: [B], strategy: { name: 'x', start: throwing } })).rejects.toMatchObject({
      code: 'CONFIG',
      cause: { message: 'broken' },
    })
    expect(balancer.revisions()).toHaveLength(1)
    expect((await balancer.update({ backends: [B] })).number).toBe(2)
  })

  test('show no secret: neither a header nor what is named like one', async () => {
    const keys = ['sk-first-0123456789', 'sk-second-0123456789']
    const optionsOf = (key: string): BalancerOptions => ({
      backends: [
        {
          ...A,
          id: 'auth-service',
          weight: key.length,
          headers: { authorization: `Bearer ${key}`, accept: key },
          meta: {
            apiKey: key,
            deep: { list: [{ token: key }] },
            plain: 'same',
            dsn: `postgres://u:${key}@h/d`,
            x: key,
          },
        },
      ],
      health: { active: { headers: { 'x-check': key } } },
      undici: { tls: { passphrase: key } },
    })
    const balancer = balance(optionsOf(keys[0]!))
    const revision = await balancer.update(optionsOf(keys[1]!))
    expect(changesOf(revision)).toEqual([
      'pools.default.backends.auth-service.weight: 19 -> 20',
      'pools.default.backends.auth-service.headers.authorization: "[redacted]" -> "[redacted]"',
      'pools.default.backends.auth-service.headers.accept: "[redacted]" -> "[redacted]"',
      'pools.default.backends.auth-service.meta.apiKey: "[redacted]" -> "[redacted]"',
      'pools.default.backends.auth-service.meta.deep.list: "[redacted]" -> "[redacted]"',
      'pools.default.backends.auth-service.meta.dsn: "[redacted]" -> "[redacted]"',
      'pools.default.backends.auth-service.meta.x: "[redacted]" -> "[redacted]"',
      'pools.default.health.active.headers.x-check: "[redacted]" -> "[redacted]"',
      'pools.default.undici.tls.passphrase: "[redacted]" -> "[redacted]"',
    ])
    for (const key of keys) expect(JSON.stringify(balancer.revisions())).not.toContain(key)
    // The same key again is no change, be it wrapped or not.
    const [backend] = optionsOf(keys[1]!).backends as [typeof A & { headers: Record<string, string> }]
    const headers = { ...backend.headers, authorization: new Secret(`Bearer ${keys[1]}`) }
    expect(await balancer.update({ ...optionsOf(keys[1]!), backends: [{ ...backend, headers }] })).toBe(revision)
  })

  test('show no key that is called an id, a name or a zone', async () => {
    const key = 'sk-ant-api03-Zq8xK2hG7dK2'
    const spare = { ...B, zone: `zone ${key}` }
    const balancer = balance({ backends: [A, spare] })
    const { changes } = await balancer.update({ name: key, backends: [{ ...A, id: key }, spare] })
    expect(changes.map(({ path }) => path)).toContain('pools.default.backends["sk-a…(25)"].url')
    await balancer.update({ pools: { [key]: { backends: [spare, { ...A, id: key }] } } })
    await balancer.update({
      pools: {
        [key]: {
          backends: [
            { ...A, id: key },
            { ...spare, zone: key },
          ],
        },
      },
    })
    expect(JSON.stringify(balancer.revisions())).not.toContain(key.slice(0, 6))
  })

  test('of the same configuration have the same hash in every process; of others, and other keys, another', async () => {
    const hashOf = (options: BalancerOptions): string => balance(options).revisions()[0]!.hash
    const backends = [{ ...A, headers: { a: '1', b: '2' } }, B]
    expect(hashOf({ backends })).toBe(
      hashOf({ backends: [{ headers: { b: '2', a: '1' }, ...A }, { ...B }], retry: {} }),
    )
    const others: BalancerOptions[] = [
      { backends: [{ ...A, headers: { a: '1', b: '3' } }, B] },
      { backends: [B, backends[0]!] },
      { backends, name: 'x' },
      { backends, retry: { attempts: 2 } },
      { backends, strategy: 'random' },
    ]
    const hashes = [hashOf({ backends }), ...others.map(hashOf)]
    expect(new Set(hashes).size).toBe(hashes.length)
    // A weak secret cannot be read off: it is hashed before it is hashed.
    expect(hashes).not.toContain(createHash('sha256').update('1').digest('hex'))
  })

  test('cope with whatever stands in meta', async () => {
    const round: Record<string, unknown> = {
      big: 1n,
      symbol: Symbol('x'),
      nothing: null,
      when: new Date(0),
      map: new Map(),
    }
    const balancer = balance({ backends: [{ ...A, meta: round }] })
    expect(await balancer.update({ backends: [{ ...A, meta: { ...round } }] })).toBe(balancer.revisions()[0])
    const changed = await balancer.update({
      backends: [{ ...A, meta: { text: 'x'.repeat(1_000), list: Array(1_000).fill(7) } }],
    })
    for (const { from = '', to = '' } of changed.changes) expect(from.length + to.length).toBeLessThan(450)
  })

  test('are not made of meta that is in itself: nothing can be compared with that', async () => {
    const list: unknown[] = []
    list.push(list)
    const round: Record<string, unknown> = {}
    round.self = round
    expect(() => createBalancer({ backends: [{ ...A, meta: { list } }] })).toThrow(
      'pools[0].backends[0].meta.list[0]: expected no value that is in itself',
    )
    const balancer = balance({ backends: [A] })
    const error = await balancerError(balancer.update({ backends: [{ ...A, meta: { round } }] }))
    expect(error.code).toBe('CONFIG')
    expect(balancer.revisions()).toHaveLength(1)
    const twice = { shared: 1 } // the same thing in two places is fine
    await balancer.update({ backends: [{ ...A, meta: { one: twice, two: [twice, twice] } }] })
  })

  test('are kept ten at a time, or as many as asked for', async () => {
    const [ten, two] = [balance({ backends: [A] }), balance({ backends: [A], revisions: 2 })]
    for (let weight = 2; weight <= 15; weight++) {
      for (const balancer of [ten, two]) await balancer.update({ backends: [{ ...A, weight }] })
    }
    expect(ten.revisions().map(({ number }) => number)).toEqual([6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    expect(two.revisions().map(({ number }) => number)).toEqual([14, 15])
    expect(() => balance({ backends: [A], revisions: 0 })).toThrow('revisions: expected a whole number >= 1')
    const error = await balancerError(two.rollback(3))
    expect(error.code).toBe('CONFIG')
    expect(error.message).toBe('no revision 3 is kept; there are: 14, 15')
  })
})

describe('a rollback', () => {
  test('brings an earlier configuration back as a new revision, parts and keys included', async () => {
    const [first, second] = [memory({ a: { body: 'first' } }), memory({ b: { body: 'second' } })]
    const backend = { ...A, headers: { 'x-key': 'sk-0123456789' } }
    const options = { backends: [backend], transport: first }
    const balancer = balance(options)
    await balancer.update({ backends: [B], transport: second })
    options.backends = [] // what a caller does with its own objects afterwards changes nothing
    const told: Revision[] = []
    balancer.on('configured', (revision) => void told.push(revision))
    const revision = await balancer.rollback(1)
    expect(revision).toMatchObject({ number: 3, origin: 'rollback', restores: 1, hash: balancer.revisions()[0]!.hash })
    expect(told).toEqual([revision])
    expect(await (await balancer.fetch('/')).text()).toBe('first')
    expect(first.requests[0]!.headers).toContain('sk-0123456789')
    expect(balancer.stats().pools.default!.backends.map(({ id }) => id)).toEqual(['a'])
    // Somebody asked for it, so it stands in the list, even if it is in force already.
    expect(await balancer.rollback(3)).toMatchObject({ number: 4, restores: 3, changes: [], hash: revision.hash })
    expect((await balancer.rollback(2)).number).toBe(5)
    expect(await (await balancer.fetch('/')).text()).toBe('second')
  })

  test('keeps live records and parts, as any update does', async () => {
    const health = { passive: { consecutive: 1 }, panicBelow: 0 }
    const balancer = balance({
      backends: [A, B],
      transport: memory({ a: {}, b: { status: 500 } }),
      health,
      strategy: 'round-robin',
    })
    const transport = memory({ a: {}, b: { status: 500 } })
    await balancer.update({ backends: [A, B], transport, health, strategy: 'round-robin', retry: { attempts: 2 } })
    for (let i = 0; i < 4; i++) await (await balancer.fetch('/')).text()
    const before = balancer.stats().pools.default!.backends.map(({ id, state, requests }) => ({ id, state, requests }))
    expect(before[1]).toMatchObject({ state: 'blocked' })
    await balancer.rollback(1)
    expect(balancer.stats().pools.default!.backends).toMatchObject(before)
  })

  test('after close rejects', async () => {
    const balancer = balance({ backends: [A] })
    await balancer.close()
    await expect(balancer.rollback(1)).rejects.toMatchObject({ code: 'CLOSED' })
    expect(() => balancer.follow(source())).toThrow('is closed')
  })
})

describe('at the same time', () => {
  test('updates and rollbacks happen one after the other; the last one stands, a failing one leaves nothing', async () => {
    const balancer = balance({ backends: [A] })
    const weighing = (weight: number): BalancerOptions => ({ backends: [{ ...A, weight }] })
    const results = await Promise.allSettled([
      balancer.update(weighing(2)),
      balancer.update(weighing(-1)),
      balancer.rollback(1),
      balancer.rollback(9),
      balancer.update(weighing(4)),
      balancer.update(weighing(5)),
    ])
    expect(results.map(({ status }) => status)).toEqual([
      ...['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled', 'fulfilled'],
    ])
    expect(balancer.revisions().map(({ number, origin }) => `${number} ${origin}`)).toEqual([
      ...['1 start', '2 update', '3 rollback', '4 update', '5 update'],
    ])
    expect(balancer.stats().pools.default!.backends[0]!.weight).toBe(5)
  })

  test('a listener may update again: it meets a whole revision, and its own comes after it', async () => {
    const balancer = balance({ backends: [A] })
    const seen: (readonly [event: number, kept: number])[] = []
    balancer.on('configured', (revision) => {
      seen.push([revision.number, balancer.revisions().length])
      if (revision.number === 2) void balancer.update({ backends: [A, B] })
    })
    await balancer.update({ backends: [B] })
    expect(seen).toEqual([
      [2, 2],
      [3, 3],
    ])
    expect(balancer.revisions().map(({ number }) => number)).toEqual([1, 2, 3])
    expect(balancer.stats().pools.default!.backends.map(({ id }) => id)).toEqual(['a', 'b'])
  })
})

describe('a source that is followed', () => {
  test('brings configurations; its name is their origin', () => {
    const balancer = balance({ backends: [A] })
    const vault = source()
    balancer.follow(vault)
    vault.next({ backends: [B] })
    expect(balancer.revisions().at(-1)).toMatchObject({ number: 2, origin: 'vault' })
    vault.next({ backends: [B] })
    expect(balancer.revisions()).toHaveLength(2)
  })

  test('that brings something wrong, or nothing, changes nothing, and the reason is told', () => {
    const balancer = balance({ backends: [A] })
    const vault = source()
    balancer.follow(vault)
    const told: string[] = []
    balancer.on('reloadFailed', ({ code, message }) => void told.push(`${code} ${message.split('\n').at(-1)}`))
    vault.next({ backends: [{ ...A, weight: -1 }] })
    vault.fail(Object.assign(new Error('ENOENT: no such file'), { code: 'ENOENT', syscall: 'open' }))
    vault.fail(new SyntaxError('Unexpected token: "sk-0123456789" is not JSON'))
    vault.fail('sk-0123456789')
    expect(told).toEqual([
      'CONFIG   backends[0].weight: expected a number >= 0 and <= 1000000000, found -1',
      'CONFIG vault: ENOENT: no such file',
      'CONFIG vault: it threw SyntaxError', // parsers quote what they cannot read
      'CONFIG vault: it threw what is no error',
    ])
    expect(balancer.revisions()).toHaveLength(1)
    expect(balancer.updates).toEqual({ applied: 1, refused: 4 })
  })

  test('is stopped by its own stop, or by close', async () => {
    const balancer = balance({ backends: [A] })
    const [one, two] = [source(), source()]
    const stop = balancer.follow(one)
    balancer.follow(two)
    stop()
    expect([one.stops, two.stops]).toEqual([1, 0])
    await balancer.close()
    expect(two.stops).toBe(1)
    two.next({ backends: [B] }) // a source that does not heed its stop
    expect(balancer.revisions()).toHaveLength(1)
  })
})

describe('a source that misbehaves', () => {
  test('is heard no more after its stop, and leaves nothing behind', async () => {
    const balancer = balance({ backends: [A] })
    const told: string[] = []
    balancer.on('reloadFailed', ({ message }) => void told.push(message))
    const vault = source()
    const stop = balancer.follow(vault)
    stop()
    stop()
    vault.next({ backends: [B] })
    vault.fail(new Error('late'))
    await balancer.close()
    expect(vault.stops).toBe(1)
    expect(balancer.revisions()).toHaveLength(1)
    expect(told).toEqual([])
  })

  test('by throwing when it is subscribed is told as what it is', () => {
    const balancer = balance({ backends: [A] })
    const cause = new Error('no such vault')
    let late: (options: BalancerOptions) => void = () => {}
    const broken: Source<BalancerOptions> = {
      name: 'vault',
      subscribe(next) {
        late = next
        throw cause
      },
    }
    expect(() => balancer.follow(broken)).toThrow(
      expect.objectContaining({ code: 'CONFIG', message: 'subscribe of the source vault threw', cause }),
    )
    late({ backends: [B] })
    expect(balancer.revisions()).toHaveLength(1)
  })

  test('by throwing when it is stopped keeps no balancer open', async () => {
    const transport = memory({ a: {} })
    let closes = 0
    const balancer = balance({
      backends: [A],
      transport: {
        ...transport,
        send: transport.send,
        async close() {
          closes++
        },
      },
    })
    const told: string[] = []
    balancer.on('warning', (error) => void told.push(`${error.message}: ${(error.cause as Error).message}`))
    balancer.on('closed', () => void told.push('closed'))
    const broken = (): never => {
      throw new Error('it hangs')
    }
    const other = source()
    balancer.follow({ name: 'vault', subscribe: () => broken })
    balancer.follow(other)
    await balancer.close()
    expect(told).toEqual(['stop of the source vault threw: it hangs', 'closed'])
    expect(other.stops).toBe(1)
    expect(closes).toBe(1)
  })

  test('by failing with what is no error is told all the same', () => {
    const balancer = balance({ backends: [A] })
    const vault = source()
    balancer.follow(vault)
    const told: string[] = []
    balancer.on('reloadFailed', ({ message }) => void told.push(message))
    for (const reason of [Symbol('x'), Object.create(null), undefined]) vault.fail(reason)
    expect(told).toEqual(Array(3).fill('vault: it threw what is no error'))
  })
})

test('a watcher that throws when it is stopped leaves no update half done, and no balancer open', async () => {
  const broken = (name: string): Watcher => ({
    name,
    start: () => ({
      stop: () => {
        throw new Error(`${name} hangs`)
      },
      members: () => {
        throw new Error(`${name} cannot count`)
      },
    }),
  })
  const failing: Watcher = {
    name: 'failing',
    start: () => {
      throw new Error('will not start')
    },
  }
  const balancer = balance({ backends: [A], watchers: [broken('old')] })
  const told: string[] = []
  balancer.on('warning', ({ message }) => void told.push(message))
  balancer.on('closed', () => void told.push('closed'))
  // What was begun for an update that is refused is stopped as well.
  await expect(balancer.update({ backends: [B], watchers: [broken('new'), failing] })).rejects.toThrow(
    'watcher failing: start failed',
  )
  expect(told).toEqual(['stop of new threw in pool default'])
  const revision = await balancer.update({ name: 'other', backends: [B], watchers: [broken('last')] })
  expect(revision.number).toBe(2)
  expect(balancer.name).toBe('other')
  expect(balancer.stats().pools.default!.backends.map(({ id }) => id)).toEqual(['b'])
  await balancer.close()
  expect(told.slice(1)).toEqual([
    'stop of old threw in pool default',
    'last threw in pool default',
    'stop of last threw in pool default',
    'closed',
  ])
})

test('200 reloads of a file while requests flow: none fails, and unchanged backends keep their connections', async () => {
  const RELOADS = 200
  const open = new Set<unknown>()
  let connections = 0
  const [kept, coming] = await Promise.all([keeper(), keeper()])
  kept.server.on('connection', (socket) => {
    connections++
    open.add(socket)
    socket.on('close', () => open.delete(socket))
  })
  const file = join(await folder(), 'evenkeel.json')
  const textOf = (n: number): string => {
    const backends = [{ id: 'kept', url: kept.url, headers: { 'x-key': 'sk-0123456789' } }]
    const others = n % 2 === 0 ? [{ id: 'coming', url: coming.url, weight: 1 + (n % 5) }] : []
    return JSON.stringify({ backends: [...backends, ...others], retry: { attempts: 2 + (n % 3) } })
  }
  const load = async (path: string): Promise<BalancerOptions> => JSON.parse(await readFile(path, 'utf8'))
  await replace(file, textOf(0))
  const balancer = balance(await load(file))
  balancer.follow(watchConfig(file, { load, debounceMs: 1, pollMs: 50 }))
  const failures: unknown[] = []
  balancer.on('reloadFailed', (error) => void failures.push(error))
  let requests = 0
  let running = true
  onTestFinished(() => {
    running = false
  })
  const clients = Array.from({ length: 8 }, async () => {
    while (running) {
      requests++
      const method = requests % 2 === 0 ? 'GET' : 'POST'
      const response = await balancer.fetch('/', { method }).catch((error: unknown) => error as Error)
      if (response instanceof Error) failures.push(response)
      else if (response.status !== 200 || (await response.text()) !== 'ok') failures.push(response.status)
    }
  })
  await until(() => kept.got.length > 50, 'no request came')
  const atStart = connections
  for (let n = 1; n <= RELOADS; n++) {
    await replace(file, textOf(n))
    await until(() => balancer.revisions().at(-1)!.number === n + 1, `reload ${n} did not come`)
  }
  running = false
  await Promise.all(clients)
  console.log(`reloads: ${RELOADS}, requests: ${requests}, connections: ${atStart} at the start, ${connections} in all`)
  expect(failures).toEqual([])
  expect(requests).toBeGreaterThan(RELOADS)
  expect(kept.got.every(({ headers }) => headers['x-key'] === 'sk-0123456789')).toBe(true)
  // Eight clients never have more than eight requests in flight: no connection was opened twice, none was closed.
  expect(connections).toBeLessThanOrEqual(8)
  expect(open.size).toBe(connections)
  expect(balancer.revisions()).toHaveLength(10)
  expect(balancer.revisions().at(-1)).toMatchObject({ number: RELOADS + 1, origin: 'file' })
}, 120_000) // on a machine that does other things
