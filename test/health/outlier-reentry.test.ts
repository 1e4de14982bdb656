import type { Backend } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import type { BalancerBenchOptions } from '../support/balancer-bench.ts'
import { bad, good, type OutlierBench, outlierBench, passive } from '../support/outlier-bench.ts'
import type { Play } from '../support/plays.ts'
import type { ScriptedSend } from '../support/scripted.ts'

describe('re-entry', () => {
  /** `a` was out and is back, not yet proved; it leaves what comes open. */
  async function returned(options: BalancerBenchOptions = {}): Promise<OutlierBench> {
    const it = outlierBench(options)
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.back('a')
    it.scripts.set('a', () => {})
    return it
  }
  const toA = ({ transport }: OutlierBench): ScriptedSend[] => transport.sends.filter(({ to }) => to === 'a').slice(5)

  test('is by exactly one real request: the others go elsewhere while it is under way', async () => {
    const it = await returned()
    for (let i = 0; i < 30; i++) it.start({}, { prefer: 'a' })
    await it.clock.advance(0)
    expect(toA(it)).toHaveLength(1)
    await it.clock.advance(4_000)
    for (let i = 0; i < 30; i++) it.start({}, { prefer: 'a' })
    expect(toA(it)).toHaveLength(1)
  })

  test('is complete with the first success', async () => {
    const it = await returned()
    const { ended } = it.start({}, { prefer: 'a' })
    toA(it)[0]!.answer()
    await it.until(ended)
    for (let i = 0; i < 10; i++) it.start({}, { prefer: 'a' })
    expect(toA(it)).toHaveLength(11)
  })

  test('needs the whole answer: a head alone proves nothing', async () => {
    const it = await returned({ retry: { attempts: 1, holdBytes: 0 } })
    const { ended } = it.start({}, { prefer: 'a' })
    const body = toA(it)[0]!.head(200)
    await it.until(ended)
    it.start({}, { prefer: 'a' })
    expect(toA(it)).toHaveLength(1)
    body.fail()
    expect(it.state('a')).toBe('blocked')
  })

  test('goes on, one at a time, after an outcome that proves nothing', async () => {
    const it = await returned()
    for (let i = 1; i <= 3; i++) {
      const { call, ended } = it.start({}, { prefer: 'a' })
      it.start({}, { prefer: 'a' })
      expect(toA(it)).toHaveLength(i)
      if (i === 2) call.cancel(new Error('stop'))
      else toA(it).at(-1)!.answer(429)
      await it.until(ended)
      expect(it.state('a')).toBe('up')
    }
  })

  test('fails with the first failure: it is out again at once, for longer', async () => {
    const it = await returned(passive({ baseMs: 1_000 }))
    const { ended } = it.start({}, { prefer: 'a' })
    toA(it)[0]!.refuse()
    await it.until(ended)
    expect(it.state('a')).toBe('blocked')
    expect(Math.abs(it.outFor('a') / 2_000 - 1)).toBeLessThanOrEqual(0.1)
  })

  test('takes five failures in a row again, once it is complete', async () => {
    const it = await returned()
    it.scripts.set('a', good)
    await it.hit('a')
    it.scripts.set('a', bad)
    await it.hit('a', 4)
    expect(it.state('a')).toBe('up')
    await it.hit('a')
    expect(it.state('a')).toBe('blocked')
  })

  test('gives its place back when a later gate refuses the request', async () => {
    let open = false
    const shut = {
      name: 'shut',
      admit: (backend: Backend) => open || backend.id !== 'a',
      release: () => {},
    }
    const it = outlierBench({ watchers: [{ name: 'shut', start: () => ({ gate: shut, stop: () => {} }) }] })
    open = true
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    open = false
    await it.back('a')
    await it.hit('a', 3)
    open = true
    it.scripts.set('a', good)
    await it.hit('a')
    expect(it.transport.last().to).toBe('a')
  })

  test('refuses nobody who has nowhere else to go', async () => {
    const it = await returned({ ids: 'ab' })
    await it.balancer.update({
      backends: [
        { url: 'http://a.test', id: 'a' },
        { url: 'http://b.test', id: 'b', weight: 0 },
      ],
      strategy: 'round-robin',
      transport: it.transport,
      retry: { attempts: 1 },
    })
    for (let i = 0; i < 10; i++) it.start()
    expect(toA(it)).toHaveLength(10)
  })

  test('is not decided by requests from before the ejection, whatever they come to', async () => {
    const it = outlierBench()
    it.scripts.set('a', (send) => send.connect())
    for (let i = 0; i < 16; i++) it.start({}, { prefer: 'a' })
    await it.clock.advance(0)
    const old = [...it.transport.sends]
    const end = async (n: number, how: Play): Promise<void> => {
      for (const send of old.splice(0, n)) how(send, 0)
      await it.clock.advance(0)
    }
    await end(5, bad)
    expect(it.state('a')).toBe('blocked')
    await end(4, bad)
    await it.back('a')
    await end(5, bad) // old news: it was out for that
    expect([it.state('a'), it.events().length]).toEqual(['up', 2])
    await end(1, good)
    const before = it.transport.sends.length
    for (let i = 0; i < 5; i++) it.start({}, { prefer: 'a' })
    expect(it.transport.sends.slice(before).filter(({ to }) => to === 'a')).toHaveLength(1) // still on trial
    await end(1, good)
    it.start({}, { prefer: 'a' })
    expect(it.transport.sends.slice(before).filter(({ to }) => to === 'a')).toHaveLength(1)
  })
})

describe('over updates', () => {
  const config = (it: OutlierBench, options: object = {}): object => ({
    backends: [...'abc'].map((id) => ({ url: `http://${id}.test`, id })),
    strategy: 'round-robin',
    transport: it.transport,
    retry: { attempts: 1 },
    ...options,
  })

  test('with the same settings, what is known stays: runs, ejections, trials', async () => {
    const it = outlierBench()
    it.scripts.set('a', bad)
    await it.hit('a', 4)
    await it.balancer.update(config(it))
    await it.hit('a')
    expect(it.state('a')).toBe('blocked')
    await it.balancer.update(config(it))
    expect(it.state('a')).toBe('blocked')
    await it.back('a')
    await it.balancer.update(config(it))
    await it.hit('a')
    expect([it.state('a'), it.events().join()]).toEqual(['blocked', 'a out,a back,a out'])
  })

  test('that turn it off, everybody is let back in, and nobody is put out again', async () => {
    const it = outlierBench()
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.balancer.update(config(it, { health: { passive: false } }))
    expect([it.state('a'), it.events().join()]).toEqual(['up', 'a out,a back'])
    await it.hit('a', 20)
    expect(it.state('a')).toBe('up')
    await it.clock.advance(6_000)
    expect(it.clock.pending).toBe(0)
  })

  test('with other settings, it starts anew', async () => {
    const it = outlierBench()
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.balancer.update(config(it, passive({ consecutive: 2 })))
    expect(it.state('a')).toBe('up')
    await it.hit('a', 2)
    expect(it.state('a')).toBe('blocked')
  })

  test('that remove an ejected backend, it is forgotten: no event, and no timer in the end', async () => {
    const it = outlierBench()
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    const backends = [...'bc'].map((id) => ({ url: `http://${id}.test`, id }))
    await it.balancer.update(config(it, { backends }))
    await it.clock.advance(1_000) // deadlines that are over lapse within half of it
    expect(it.clock.pending).toBe(0)
    await it.clock.advance(400_000)
    expect(it.events()).toEqual(['a out'])
    expect(it.clock.pending).toBe(0)
  })

  test('a close leaves no timer, and requests that fail after it put nobody out', async () => {
    const it = outlierBench(passive({ consecutive: 1 }))
    it.scripts.set('a', bad)
    await it.hit('a')
    it.scripts.set('b', () => {})
    it.start({}, { prefer: 'b' })
    const closed = it.balancer.close({ drainMs: 1_000 })
    await it.clock.advance(0)
    it.transport.last().answer(500)
    await closed
    expect(it.clock.pending).toBe(0)
  })
})
