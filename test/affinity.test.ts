// Clients that stay with a backend by the proxy's cookie, over real sockets.
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { inspect } from 'node:util'
import { type BalancerError, type BalancerOptions, createBalancer } from 'evenkeel'
import { type AffinityOptions, createProxy } from 'evenkeel/node'
import { describe, expect, onTestFinished, test } from 'vitest'
import { CERT, KEY } from './support/tls.ts'
import {
  ask,
  type balance,
  front,
  keeper,
  kept,
  rawClient,
  type Upstream,
  upstream,
  valuesOf,
} from './support/upstreams.ts'

const SECRET = 'a secret of more than thirty-two bytes'
const OTHER = 'another secret of more than 32 bytes, too'

type Backends = readonly { readonly url: string; readonly id: string; readonly priority?: number }[]

/** Backends that say who they are; `down` makes one break its connections. */
async function three(): Promise<{ readonly backends: Backends; readonly down: Set<string> }> {
  const down = new Set<string>()
  const backends = await Promise.all(
    [...'abc'].map(async (id) => {
      const { url } = await upstream((request, response) => {
        if (down.has(id)) request.socket.destroy()
        else response.end(id)
      })
      return { url, id }
    }),
  )
  return { backends, down }
}

interface Scene {
  readonly balancer: ReturnType<typeof balance>
  readonly proxy: Upstream
}

async function scene(
  backends: Backends,
  affinity: Partial<AffinityOptions> = {},
  options: Partial<BalancerOptions> = {},
): Promise<Scene> {
  const balancer = kept(createBalancer({ backends, strategy: 'round-robin', ...options }))
  return { balancer, proxy: await front(balancer, { affinity: { secret: SECRET, ...affinity } }) }
}

interface Visit {
  readonly status: number
  readonly from: string
  readonly set: readonly string[]
}

/** A browser: it keeps the cookies it is given. */
function browser(jar: { cookie?: string } = {}): {
  visit(proxy: Upstream, method?: string): Promise<Visit>
  readonly jar: { cookie?: string }
} {
  return {
    jar,
    async visit(proxy, method = 'GET') {
      const headers = jar.cookie === undefined ? {} : { cookie: jar.cookie }
      const answer = await ask(proxy, '/', { method, headers })
      const set = valuesOf(answer.rawHeaders, 'set-cookie')
      if (set[0] !== undefined) jar.cookie = set[0].slice(0, set[0].indexOf(';'))
      return { status: answer.status, from: answer.body.toString(), set }
    },
  }
}

function tokenOf(id: string, secret = SECRET, pool = 'default'): string {
  const sign = (text: string): string => createHmac('sha256', secret).update(text).digest('base64url')
  return sign(pool).slice(0, 6) + sign(`${pool}\0${id}`)
}

describe('a client', () => {
  test.each(['round-robin', 'auto', 'random'])(
    'stays with its first backend, by %s too, and is told once',
    async (strategy) => {
      const { backends } = await three()
      const { proxy } = await scene(backends, {}, { strategy })
      const clients = Array.from({ length: 6 }, () => browser())
      for (const client of clients) {
        const { from, set } = await client.visit(proxy)
        expect(set).toEqual([`evenkeel=${tokenOf(from)}; Path=/; HttpOnly; SameSite=Lax`])
        for (let i = 0; i < 5; i++) expect(await client.visit(proxy)).toEqual({ status: 200, from, set: [] })
      }
      // Whatever the strategy: clients that come anew go round.
      if (strategy === 'round-robin') {
        const met = await Promise.all(Array.from({ length: 9 }, () => browser().visit(proxy)))
        expect(new Set(met.map(({ from }) => from)).size).toBe(3)
      }
    },
  )

  test('stays over a restart, and in front of another process with the same secret', async () => {
    const { backends } = await three()
    const first = await scene(backends)
    const client = browser()
    const { from } = await client.visit(first.proxy)
    await first.balancer.close()
    for (const order of [backends, backends.toReversed()]) {
      const next = await scene(order)
      for (let i = 0; i < 4; i++) expect(await client.visit(next.proxy)).toEqual({ status: 200, from, set: [] })
    }
  })

  test('with a cookie that is forged, foreign or broken is one like any other, and gets its own', async () => {
    const { backends } = await three()
    const { proxy } = await scene(backends)
    const forged = [
      tokenOf('a', OTHER),
      tokenOf('a', SECRET, 'other'),
      tokenOf('d'),
      'a',
      '',
      '"',
      'x'.repeat(49),
      'ÿ'.repeat(49),
      '.'.repeat(99),
      `${tokenOf('a')}x`,
      Array.from({ length: 40 }, (_, i) => tokenOf('a', SECRET, `${i}`)).join('.'),
    ]
    for (const value of forged) {
      const met = await Promise.all(
        Array.from({ length: 6 }, () => browser({ cookie: `evenkeel=${value}` }).visit(proxy)),
      )
      expect(new Set(met.map(({ from }) => from)).size, value).toBe(3)
      for (const { from, set } of met) expect(set[0]).toContain(tokenOf(from))
    }
    expect(await browser({ cookie: `evenkeel="${tokenOf('b')}"` }).visit(proxy)).toMatchObject({ from: 'b', set: [] })
  })

  test('changes its cookie when the secret is rotated, and keeps its backend', async () => {
    const { backends } = await three()
    const client = browser({ cookie: `evenkeel=${tokenOf('b')}` })
    const both = await scene(backends, { secret: [OTHER, Buffer.from(SECRET)] })
    expect(await client.visit(both.proxy)).toMatchObject({
      from: 'b',
      set: [expect.stringContaining(tokenOf('b', OTHER))],
    })
    expect(await client.visit(both.proxy)).toMatchObject({ from: 'b', set: [] })
    const after = await scene(backends, { secret: OTHER })
    for (let i = 0; i < 3; i++) expect(await client.visit(after.proxy)).toMatchObject({ from: 'b', set: [] })
    expect(await browser({ cookie: `evenkeel=${tokenOf('b')}` }).visit(after.proxy)).toMatchObject({
      set: [expect.stringContaining('evenkeel=')],
    })
  })

  test('goes elsewhere when its backend fails, is bound there, and stays when the first is back', async () => {
    const { backends, down } = await three()
    const { proxy } = await scene(backends, {}, { retry: { baseMs: 0 } })
    const client = browser({ cookie: `evenkeel=${tokenOf('a')}` })
    down.add('a')
    const { from, set } = await client.visit(proxy) // the first attempt broke, the second was elsewhere
    expect(from).not.toBe('a')
    expect(set).toEqual([expect.stringContaining(tokenOf(from))])
    down.delete('a')
    for (let i = 0; i < 3; i++) expect(await client.visit(proxy)).toEqual({ status: 200, from, set: [] })
  })

  test('is bound to the backend whose answer it got, when a hedge was faster', async () => {
    const { url } = await upstream((request, response) => {
      const timer = setTimeout(() => response.end('slow'), 5_000)
      request.on('close', () => clearTimeout(timer))
    })
    const { url: quick } = await upstream((_, response) => response.end('b'))
    const backends = [
      { url, id: 'a' },
      { url: quick, id: 'b' },
    ]
    const { proxy, balancer } = await scene(backends, {}, { hedge: { delayMs: 5, maxShare: 1 } })
    const client = browser({ cookie: `evenkeel=${tokenOf('a')}` })
    expect(await client.visit(proxy)).toMatchObject({ from: 'b', set: [expect.stringContaining(tokenOf('b'))] })
    expect(balancer.stats().pools.default!.hedgesWon).toBe(1)
    expect(await client.visit(proxy)).toMatchObject({ from: 'b', set: [] })
  })

  test('of several pools is bound to a backend of its own', async () => {
    const { backends } = await three()
    const pools = { one: { backends }, two: { backends } }
    const balancer = kept(createBalancer({ pools, strategy: 'round-robin' }))
    const proxy = await front(balancer, {
      affinity: { secret: SECRET },
      call: ({ headers }) => ({ pool: headers['x-pool'] as string }),
    })
    const cookie = `evenkeel=${tokenOf('c', SECRET, 'two')}`
    const inTwo = await ask(proxy, '/', { headers: { cookie, 'x-pool': 'two' } })
    expect([inTwo.body.toString(), inTwo.headers['set-cookie']]).toEqual(['c', undefined])
    const inOne = await ask(proxy, '/', { headers: { cookie, 'x-pool': 'one' } })
    const both = `evenkeel=${tokenOf(inOne.body.toString(), SECRET, 'one')}.${tokenOf('c', SECRET, 'two')}`
    expect(inOne.headers['set-cookie']).toEqual([`${both}; Path=/; HttpOnly; SameSite=Lax`])
    for (const pool of ['one', 'two', 'one', 'two']) {
      const again = await ask(proxy, '/', { headers: { cookie: both, 'x-pool': pool } })
      const owner = pool === 'one' ? inOne.body.toString() : 'c'
      expect([again.body.toString(), again.headers['set-cookie']]).toEqual([owner, undefined])
    }
    // Bound elsewhere in one of them, it keeps what it has in the other.
    const backend = inOne.body.toString()
    await balancer.update({
      pools: { one: { backends: backends.filter(({ id }) => id !== backend) }, two: { backends } },
    })
    const moved = await ask(proxy, '/', { headers: { cookie: both, 'x-pool': 'one' } })
    expect(moved.headers['set-cookie']).toEqual([
      expect.stringContaining(`=${tokenOf(moved.body.toString(), SECRET, 'one')}.${tokenOf('c', SECRET, 'two')};`),
    ])
  })

  test('of very many pools is told of the last nine', async () => {
    const { backends } = await three()
    const others = Array.from({ length: 30 }, (_, i) => tokenOf('a', SECRET, `pool ${i}`))
    const { proxy } = await scene(backends)
    const { set, from } = await browser({ cookie: `evenkeel=${others.join('.')}` }).visit(proxy)
    expect(set[0]).toContain(`=${[tokenOf(from), ...others.slice(0, 8)].join('.')};`)
  })

  test('with several cookies of the name stays with the backend of whichever is good', async () => {
    const { backends } = await three()
    const { proxy } = await scene(backends)
    const good = `evenkeel=${tokenOf('b')}`
    for (const cookie of [`evenkeel=bad; ${good}`, `evenkeel=; a=b; ${good}`, `${good}; evenkeel=${tokenOf('d')}`]) {
      for (let i = 0; i < 3; i++) {
        expect(await browser({ cookie }).visit(proxy), cookie).toEqual({ status: 200, from: 'b', set: [] })
      }
    }
  })

  test('gets no cookie with an answer that is the proxy’s own', async () => {
    const { backends, down } = await three()
    for (const { id } of backends) down.add(id)
    const { proxy } = await scene(backends, {}, { retry: { attempts: 1 } })
    expect(await browser().visit(proxy)).toMatchObject({ status: 502, set: [] })
  })

  test('gets no cookie with an answer that counts as a failure of the backend', async () => {
    const { url } = await upstream(({ url: path }, response) => {
      response.statusCode = Number(path!.slice(1)) || 200
      response.end('a')
    })
    const { proxy } = await scene([{ url, id: 'a' }], {}, { retry: { attempts: 1 }, health: { passive: false } })
    for (const [status, cookies] of [
      [500, 0],
      [503, 0],
      [404, 1],
      [200, 1],
    ] as const) {
      const answer = await ask(proxy, `/${status}`)
      expect([answer.status, valuesOf(answer.rawHeaders, 'set-cookie').length]).toEqual([status, cookies])
    }
  })

  test('is chosen for by the application, where that says `prefer` or `only`, and keeps its cookie', async () => {
    const { backends } = await three()
    const balancer = kept(createBalancer({ backends, strategy: 'round-robin' }))
    for (const said of [{ prefer: 'c' }, { only: 'c' }, { only: 'c', whenOut: 'fail' }] as const) {
      const { whenOut = 'redistribute', ...call } = { whenOut: undefined, ...said }
      const proxy = await front(balancer, { affinity: { secret: SECRET, whenOut }, call: () => call })
      const client = browser({ cookie: `evenkeel=${tokenOf('a')}` })
      expect(await client.visit(proxy)).toMatchObject({ from: 'c', set: [] })
      expect(await browser().visit(proxy)).toMatchObject({ from: 'c', set: [] })
    }
    const silent = await front(balancer, { affinity: { secret: SECRET }, call: () => ({ prefer: undefined }) })
    expect(await browser({ cookie: `evenkeel=${tokenOf('a')}` }).visit(silent)).toMatchObject({ from: 'a', set: [] })
  })
})

describe("with whenOut 'fail'", () => {
  test('a client waits for its backend with 503, and others do not', async () => {
    const { backends } = await three()
    const { proxy, balancer } = await scene(backends, { whenOut: 'fail' })
    const client = browser({ cookie: `evenkeel=${tokenOf('a')}` })
    expect(await client.visit(proxy)).toMatchObject({ from: 'a', set: [] })
    balancer.disable('a')
    const answer = await ask(proxy, '/', { headers: { cookie: client.jar.cookie! } })
    expect([answer.status, answer.headers['set-cookie'], answer.headers['retry-after']]).toEqual([503, undefined, '1'])
    expect(answer.body.toString()).not.toMatch(/\ba\b|127/)
    expect(await browser().visit(proxy)).toMatchObject({ status: 200, from: expect.stringMatching(/[bc]/) })
    balancer.enable('a')
    for (let i = 0; i < 3; i++) expect(await client.visit(proxy)).toMatchObject({ from: 'a', set: [] })
  })

  test('a client bound to a spare stays with it when the first priority is back', async () => {
    const { backends } = await three()
    const [a, b] = backends
    const { proxy, balancer } = await scene([a!, { ...b!, priority: 1 }], { whenOut: 'fail' })
    balancer.disable('a')
    const client = browser()
    expect(await client.visit(proxy)).toMatchObject({ status: 200, from: 'b' })
    balancer.enable('a')
    for (let i = 0; i < 3; i++) expect(await client.visit(proxy)).toEqual({ status: 200, from: 'b', set: [] })
    expect(await browser().visit(proxy)).toMatchObject({ from: 'a' })
    balancer.disable('b')
    expect(await client.visit(proxy)).toMatchObject({ status: 503, set: [] })
  })

  test('its retries stay with its backend', async () => {
    const { backends, down } = await three()
    const { proxy, balancer } = await scene(backends, { whenOut: 'fail' }, { retry: { baseMs: 0, attempts: 3 } })
    down.add('b')
    const client = browser({ cookie: `evenkeel=${tokenOf('b')}` })
    expect(await client.visit(proxy)).toMatchObject({ status: 502, set: [] })
    expect(balancer.stats().pools.default!.backends.map(({ requests }) => requests)).toEqual([0, 3, 0])
  })

  test('a backend that the pool no longer has binds nobody', async () => {
    const { backends } = await three()
    const { proxy, balancer } = await scene(backends, { whenOut: 'fail' })
    const client = browser({ cookie: `evenkeel=${tokenOf('c')}` })
    expect(await client.visit(proxy)).toMatchObject({ from: 'c' })
    await balancer.update({ backends: backends.slice(0, 2), strategy: 'round-robin' })
    const { from, set, status } = await client.visit(proxy)
    expect([status, set]).toEqual([200, [expect.stringContaining(tokenOf(from))]])
    expect(await client.visit(proxy)).toEqual({ status: 200, from, set: [] })
  })
})

describe('the cookie', () => {
  test('is the proxy’s: no backend sees it, and the others come as they were sent', async () => {
    const backend = await keeper()
    const { proxy } = await scene([{ url: backend.url, id: 'a' }])
    const own = `evenkeel=${tokenOf('a')}`
    const lines: readonly (readonly [sent: string, got: string | undefined])[] = [
      [own, undefined],
      [`${own}; a=1`, 'a=1'],
      [`a=1; ${own};  b="x y"; c`, 'a=1;  b="x y"; c'],
      [`a=1;${own}`, 'a=1'],
      ['evenkeel=forged; a=1', 'a=1'],
      ['evenkeels=1; a=é;;', 'evenkeels=1; a=é;;'],
      ['', ''],
    ]
    const client = await rawClient(proxy)
    for (const [sent] of lines) {
      client.write(`GET / HTTP/1.1\r\nHost: a\r\nCookie: ${sent}\r\n\r\n`)
      const answers = backend.got.length + 1
      await client.until((received) => received.split('HTTP/1.1 200').length > answers)
    }
    const got = backend.got.map(({ rawHeaders }) => valuesOf(rawHeaders, 'cookie')[0])
    expect(got).toEqual(lines.map(([, line]) => line))
    client.write(`GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\ncookie: ${own}\r\nCOOKIE: b=2\r\n\r\n`)
    await client.until((received) => received.split('HTTP/1.1 200').length > lines.length + 1)
    expect(valuesOf(backend.got.at(-1)!.rawHeaders, 'cookie').join('; ')).toBe('a=1; b=2')
  })

  test('stands beside those of the backend, and keeps to what was asked for', async () => {
    const { url } = await upstream((_, response) => {
      response.writeHead(404, ['Set-Cookie', 'x=1; Path=/x', 'set-cookie', 'y=2'])
      response.end()
    })
    const { proxy } = await scene([{ url, id: 'a' }], {
      cookie: '__Host-lb',
      secure: true,
      sameSite: 'none',
      maxAgeS: 3_600,
    })
    expect((await browser().visit(proxy)).set).toEqual([
      'x=1; Path=/x',
      'y=2',
      `__Host-lb=${tokenOf('a')}; Path=/; Max-Age=3600; HttpOnly; SameSite=None; Secure`,
    ])
    const strict = await scene([{ url, id: 'a' }], { sameSite: 'strict', path: '/app' })
    expect((await browser().visit(strict.proxy)).set.at(-1)).toBe(
      `evenkeel=${tokenOf('a')}; Path=/app; HttpOnly; SameSite=Strict`,
    )
  })

  test('is Secure where the client came by TLS, unless said otherwise', async () => {
    const { backends } = await three()
    const balancer = kept(createBalancer({ backends }))
    for (const [secure, expected] of [
      ['auto', true],
      [true, true],
      [false, false],
    ] as const) {
      const server = https.createServer(
        { cert: CERT, key: KEY },
        createProxy(balancer, { affinity: { secret: SECRET, secure } }),
      )
      onTestFinished(() => void server.close())
      await once(server.listen(0, '127.0.0.1'), 'listening')
      const { port } = server.address() as AddressInfo
      const request = https.get({ port, host: '127.0.0.1', ca: CERT, agent: false })
      const [response] = await once(request, 'response')
      response.resume()
      expect(response.headers['set-cookie'][0].endsWith('; Secure')).toBe(expected)
    }
  })

  test('says nothing of the secret, nor does anything else', async () => {
    const { backends } = await three()
    const { proxy, balancer } = await scene(backends)
    const client = browser()
    await client.visit(proxy)
    const handler = createProxy(balancer, { affinity: { secret: SECRET } })
    for (const text of [
      client.jar.cookie!,
      inspect(handler, { depth: 9, showHidden: true }),
      JSON.stringify(balancer.stats()),
    ]) {
      expect(text).not.toContain(SECRET)
    }
    expect(client.jar.cookie).toMatch(/^evenkeel=[\w-]{49}$/)
  })
})

test('options that are wrong are refused, all at once, with nothing told of secrets', () => {
  const refused = (affinity: unknown): readonly string[] => {
    try {
      createProxy(createBalancer({ backends: ['http://a'] }), { affinity: affinity as AffinityOptions })
      return []
    } catch (error) {
      expect(error).toMatchObject({ name: 'BalancerError', code: 'CONFIG' })
      const { issues, message } = error as BalancerError
      expect(message.split('\n')).toHaveLength(issues!.length + 1)
      expect(inspect(error)).not.toContain('C4N4RY')
      return issues!.map(({ path, expected, found }) => `${path}: ${expected}, found ${found}`)
    }
  }
  const secret = SECRET
  expect(refused({ secret })).toEqual([])
  expect(
    refused({ secret: [SECRET, new Uint8Array(32)], cookie: "a!#$%&'*+-.^_`|~1", path: '/a,b', maxAgeS: 1 }),
  ).toEqual([])
  expect(refused({ secret: 'é'.repeat(16) })).toEqual([]) // 32 bytes
  for (const wrong of [
    undefined,
    null,
    7,
    {},
    '',
    'C4N4RY',
    'x'.repeat(31),
    new Uint8Array(31),
    [],
    [SECRET, 'C4N4RY'],
  ]) {
    expect(refused({ secret: wrong }), inspect(wrong)).toEqual([expect.stringMatching(/^affinity\.secret/)])
  }
  expect(refused({ secret: [SECRET, 'C4N4RY'] })).toEqual(['affinity.secret[1]: 32 bytes at least, found 6 bytes'])
  for (const cookie of ['', 'a b', 'a=b', 'a;b', 'é', 'a\r\nb', 7]) {
    expect(refused({ secret, cookie })).toEqual([expect.stringMatching(/^affinity\.cookie: a name/)])
  }
  for (const [options, complaint] of [
    [{ whenOut: 'wait' }, 'affinity.whenOut: "redistribute" or "fail", found "wait"'],
    [{ maxAgeS: 0 }, 'affinity.maxAgeS: a whole number >= 1, found 0'],
    [{ maxAgeS: Number.NaN }, 'affinity.maxAgeS: a whole number >= 1, found NaN'],
    [{ maxAgeS: Infinity }, 'affinity.maxAgeS: a whole number >= 1, found Infinity'],
    [{ maxAgeS: 1.5 }, 'affinity.maxAgeS: a whole number >= 1, found 1.5'],
    [{ path: 'a' }, `affinity.path: a path that starts with '/', without ';' and spaces, found "a"`],
    [{ path: '/;x' }, `affinity.path: a path that starts with '/', without ';' and spaces, found "/;x"`],
    [{ sameSite: 'Lax' }, 'affinity.sameSite: "lax", "strict" or "none", found "Lax"'],
    [{ secure: 'yes' }, 'affinity.secure: "auto", true or false, found "yes"'],
    [{ sameSite: 'none', secure: false }, 'affinity.secure: true with sameSite "none", found false'],
    [{ sameSite: 'none' }, 'affinity.secure: true with sameSite "none", found "auto"'],
    [{ cookie: '__Secure-x' }, 'affinity.secure: true for a cookie named __Secure-x, found "auto"'],
    [{ cookie: '__Host-x', secure: true, path: '/a' }, `affinity.path: '/' for a cookie named __Host-x, found "/a"`],
    [{ maxAge: 5 }, expect.stringMatching(/^affinity\.maxAge: one of cookie, secret, .*, found an unknown key$/)],
  ] as const) {
    expect(refused({ secret, ...options })).toEqual([complaint])
  }
  expect(refused({ secret: 'C4N4RY', cookie: '', maxAgeS: -1 })).toHaveLength(3)
  for (const affinity of [null, 7, 'C4N4RY']) expect(refused(affinity)).toHaveLength(1)
})
