import { createBalancer } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { checked, reasonsOf } from '../support/checks.ts'
import { keeper, kept, pause, rawUpstream, upstream } from '../support/upstreams.ts'

const MISSES = 'probe: http check: the first 1024 bytes do not hold "ok"'

describe('an HTTP check', () => {
  test('is sent as asked: method, headers in place of its own, a Host too; those of the backend win', async () => {
    const { url, got } = await keeper()
    const headers = { 'User-Agent': 'me', host: 'health.internal', authorization: 'Bearer mine', 'x-mine': '1' }
    const active = { method: 'OPTIONS', path: '/up', headers }
    const balancer = kept(
      createBalancer({ backends: [{ url, headers: { authorization: 'Bearer theirs' } }], health: { active } }),
    )
    await balancer.ready()
    expect(got[0]).toMatchObject({ method: 'OPTIONS', path: '/up' })
    expect(got[0]!.headers).toMatchObject({
      'user-agent': 'me',
      host: 'health.internal',
      authorization: 'Bearer theirs',
      'x-mine': '1',
      accept: '*/*',
    })
    expect(got[0]!.rawHeaders.filter((name) => /^user-agent$/i.test(name))).toHaveLength(1)
  })

  test('never shows the values of its headers', async () => {
    const { url } = await upstream((_, response) => response.writeHead(500).end())
    const balancer = checked([url], { headers: { authorization: 'Bearer secret' } })
    const told: unknown[] = []
    balancer.on('blocked', (...all) => told.push(...all))
    await balancer.ready()
    expect(told).toHaveLength(2)
    expect(JSON.stringify([told, balancer.stats()])).not.toContain('secret')
  })
})

describe('with a match', () => {
  test.each([
    ['of just the text', 'ok', true],
    ['that holds it', 'all is ok here', true],
    ['of nothing', '', false],
    ['in other letters', 'OK', false],
    ['that ends with it as the first KiB does', `${'.'.repeat(1_022)}ok`, true],
    ['that has half of it behind the first KiB', `${'.'.repeat(1_023)}ok`, false],
    ['that begins with it and is long', `ok${'.'.repeat(500_000)}`, true],
    ['that is long and does not hold it', '.'.repeat(500_000), false],
  ])('a body %s', async (_, body, well) => {
    const { url } = await upstream((_, response) => response.end(body))
    const balancer = checked([url], { match: 'ok' })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe(well ? '' : MISSES)
  })

  test('the text may come in pieces, and may be of any language', async () => {
    const bytes = Buffer.from('état: grün ✓')
    const { url } = await upstream(async (_, response) => {
      for (const byte of bytes) {
        response.write(Buffer.of(byte))
        await pause(1)
      }
      response.end()
    })
    const balancer = checked([url], { match: 'grün ✓' })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe('')
  })

  test('a bad status is told, whatever the body says', async () => {
    const { url } = await upstream((_, response) => response.writeHead(503).end('ok'))
    const balancer = checked([url], { match: 'ok' })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe('probe: http check: status 503')
  })

  test('a body that never comes ends by the timeout, and its connection with it', async () => {
    const server = await rawUpstream((wire) => wire.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no'))
    const balancer = checked([server.url], { match: 'ok', timeoutMs: 50 })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe('probe: http check: no answer within 50 ms')
    await (await server.wire()).closed()
  })

  test('a body that breaks off is bad, unless the text was in it', async () => {
    const says = (text: string): Promise<{ url: string }> =>
      rawUpstream(async (wire) => {
        await wire.head()
        wire.write(`HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n${text}`)
        wire.socket.end()
      })
    const balancer = checked([(await says('o')).url, (await says('ok')).url], { match: 'ok', intervalMs: 60_000 })
    await balancer.ready()
    expect(reasonsOf(balancer, 0)).toMatch(/^probe: http check: .*truncated/)
    expect(reasonsOf(balancer, 1)).toBe('')
  })

  test('what was found is not waited for to end, and is cut before the next check', async () => {
    const server = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nok')
    })
    const balancer = checked([server.url], { match: 'ok', intervalMs: 20, timeoutMs: 10_000 })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe('')
    await (await server.wire(0)).closed()
    await (await server.wire(1)).closed()
    expect(reasonsOf(balancer)).toBe('')
  })

  test('a body without an end is read no further', async () => {
    const server = await rawUpstream(async (wire) => {
      await wire.head()
      wire.write('HTTP/1.1 200 OK\r\n\r\n')
      const more = (): unknown =>
        wire.ending === undefined && wire.socket.write('.'.repeat(1_024), () => setImmediate(more))
      more()
    })
    const balancer = checked([server.url], { match: 'ok', intervalMs: 60_000, timeoutMs: 10_000 })
    await balancer.ready()
    expect(reasonsOf(balancer)).toBe(MISSES)
    await (await server.wire()).closed()
  })

  test('short bodies keep their connection', async () => {
    const { url, got, server } = await keeper((_, response) => response.end('ok, and more'))
    let connections = 0
    server.on('connection', () => connections++)
    const balancer = checked([url], { match: 'ok', intervalMs: 5 })
    await balancer.ready()
    while (got.length < 20) await pause(5)
    expect(connections).toBe(1)
    expect(reasonsOf(balancer)).toBe('')
  })
})
