import type { Policy } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { bodyOf, UNREAD_BYTES } from '../../src/core/body.ts'
import type { RawHeaders } from '../../src/core/contracts.ts'
import { type BalancerBench, type BalancerBenchOptions, balancerBench } from '../support/balancer-bench.ts'
import { Reader } from '../support/body-bench.ts'
import { textOf } from '../support/scripted.ts'

const LATIN1 = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'latin1'))

/** A head and the first half of the body, and what the caller has by then. */
async function half(
  headers: RawHeaders,
  options: BalancerBenchOptions & { readonly method?: string; readonly idempotent?: boolean } = {},
): Promise<BalancerBench & { readonly handedOver: boolean; readonly ended: ReturnType<BalancerBench['call']> }> {
  const { method = 'GET', idempotent, ...rest } = options
  const bench = balancerBench(undefined, rest)
  const { ended } = bench.start({ method }, idempotent === undefined ? {} : { idempotent })
  let handedOver = false
  void ended.then(() => {
    handedOver = true
  })
  bench.transport.last().head(200, headers).push('half')
  await bench.clock.advance(10)
  return { ...bench, handedOver, ended }
}

describe('a small answer', () => {
  test('to a repeatable request is handed over when it is whole', async () => {
    const { handedOver, ended, transport, until } = await half(['Content-Length', '8'])
    expect(handedOver).toBe(false)
    transport.last().body?.push('half')
    transport.last().body?.end(['x-sum', '1'])
    const { response } = await until(ended)
    expect(new Reader().read(response!.body).log).toEqual(['half', 'half', 'end with x-sum 1'])
  })

  test('that arrives with its head costs no time', async () => {
    const { call } = balancerBench((send) => send.answer(200, 'whole', ['content-length', '5']))
    const { response, atMs } = await call()
    expect([await textOf(response!.body), atMs]).toEqual(['whole', 1_000])
  })

  test('that is cut is retried by rule: the caller sees only a whole one', async () => {
    const { call, transport, balancer } = balancerBench((send, number) => {
      if (number > 1) return send.answer(200, 'whole', ['content-length', '5'])
      const body = send.head(200, ['content-length', '5'])
      body.push('wh')
      body.fail()
    })
    const { response } = await call()
    expect(await textOf(response!.body)).toBe('whole')
    expect(transport.sends).toHaveLength(2)
    expect(balancer.stats().pools.default).toMatchObject({ failed: 0, retries: 1, inflight: 0 })
  })

  test('that is always cut is TRUNCATED', async () => {
    const { call, transport } = balancerBench((send) => send.head(200, ['content-length', '5']).fail())
    expect((await call()).error).toMatchObject({ code: 'TRUNCATED', message: expect.stringContaining('cut off') })
    expect(transport.sends).toHaveLength(3)
  })

  test('that falls silent half-way is retried elsewhere', async () => {
    const { call, to } = balancerBench(
      (send, number) => {
        if (number > 1) send.answer(200, 'whole', ['content-length', '5'])
        else send.head(200, ['content-length', '5']).push('wh')
      },
      { timeouts: { idleMs: 1_000 } },
    )
    expect((await call()).response?.status).toBe(200)
    expect(new Set(to()).size).toBe(2)
  })

  test('of a failing status is held and counted as that, however its body ends', async () => {
    const { call, balancer } = balancerBench((send) => send.head(500, ['content-length', '5']).fail(), {
      ids: 'a',
      retry: { attempts: 1 },
    })
    await call()
    expect(balancer.stats().pools.default!.backends[0]!.classes).toEqual({ 'server-error': 1 })
  })

  test('is not waited for after an abort', async () => {
    const bench = balancerBench(undefined, { ids: 'a' })
    const { call, ended } = bench.start()
    bench.transport.last().head(200, ['content-length', '5'])
    await bench.clock.advance(10)
    call.cancel(new Error('stop'))
    expect((await ended).error).toMatchObject({ message: 'stop' })
    expect(bench.balancer.stats().pools.default!.inflight).toBe(0)
  })
})

describe('an answer is held', () => {
  test('up to the limit and no further, by its Content-Length', async () => {
    for (const [length, held] of [
      ['0', true],
      ['1', true],
      ['16384', true],
      ['16385', false],
      ['99999999999999999999', false],
      ['-', false],
      ['12, 12', false],
      ['', true], // says nothing, and nothing can come after it
    ] as const) {
      if (length === '') continue
      const { handedOver } = await half(['content-length', length])
      expect(handedOver, `Content-Length: ${length}`).toBe(!held)
    }
  })

  test('whatever the case of the header, and as bytes too', async () => {
    for (const headers of [
      ['CONTENT-LENGTH', '8'],
      [LATIN1('Content-Length'), LATIN1('8')],
    ]) {
      expect((await half(headers)).handedOver).toBe(false)
    }
  })

  test('to the most that is ever read ahead, also by a transport that waits there for its reader', async () => {
    const { call } = balancerBench(
      (send) => {
        const body = send.head(200, ['content-length', `${UNREAD_BYTES}`])
        body.push(new Uint8Array(UNREAD_BYTES))
        body.end() // comes only when the body goes on, as with an HTTP parser that was paused
      },
      { retry: { attempts: 1, holdBytes: UNREAD_BYTES }, timeouts: { idleMs: 1_000 } },
    )
    const { response, error } = await call()
    expect(error).toBeUndefined()
    expect(await textOf(response!.body)).toHaveLength(UNREAD_BYTES)
  })

  test('never when its length is unknown: chunked answers and event streams flow', async () => {
    expect((await half(['transfer-encoding', 'chunked'])).handedOver).toBe(true)
    expect((await half(['content-type', 'text/event-stream'])).handedOver).toBe(true)
    expect((await half([])).handedOver).toBe(true)
  })

  test('never for a request that may not be repeated, unless the caller says so', async () => {
    const headers = ['content-length', '8']
    expect((await half(headers, { method: 'POST' })).handedOver).toBe(true)
    expect((await half(headers, { method: 'POST', idempotent: true })).handedOver).toBe(false)
    expect((await half(headers, { method: 'GET', idempotent: false })).handedOver).toBe(true)
  })

  test('never for HEAD, whose Content-Length is that of another answer', async () => {
    expect((await half(['content-length', '8'], { method: 'HEAD' })).handedOver).toBe(true)
  })

  test('never with holdBytes 0: a cut reaches the reader, and nothing is sent again', async () => {
    const { handedOver, ended, transport, until, balancer } = await half(['content-length', '8'], {
      retry: { holdBytes: 0 },
    })
    expect(handedOver).toBe(true)
    const reader = new Reader().read((await until(ended)).response!.body)
    transport.last().body?.fail()
    expect(reader.log).toEqual(['half', 'fail'])
    expect(reader.error).toMatchObject({ code: 'TRUNCATED' })
    expect(transport.sends).toHaveLength(1)
    expect(balancer.stats().pools.default!.inflight).toBe(0)
  })

  test('never when a policy answered with a body of its own', async () => {
    const canned: Policy = {
      name: 'canned',
      scope: 'attempt',
      wrap: () => async () => ({
        status: 200,
        headers: ['content-length', '4'],
        body: bodyOf([LATIN1('mine')]),
      }),
    }
    const { call, balancer } = balancerBench(undefined, { policies: [canned], ids: 'a' })
    const { response } = await call()
    expect(await textOf(response!.body)).toBe('mine')
    expect(balancer.stats().pools.default!.backends[0]).toMatchObject({ inflight: 0, failures: 0 })
  })
})
