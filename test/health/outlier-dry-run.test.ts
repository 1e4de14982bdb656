import { describe, expect, test } from 'vitest'
import { bad, good, outlierBench, passive } from '../support/outlier-bench.ts'

const dry = passive({ dryRun: true, jitter: 0 })

describe('a dry run', () => {
  test('tells once who would be out, why and how long, and blocks nobody', async () => {
    const it = outlierBench(dry)
    it.scripts.set('a', bad)
    await it.hit('a', 30)
    expect(it.events()).toEqual(['a would be out'])
    expect([it.detail('a'), it.outFor('a'), it.out()]).toEqual(['5 failures in a row', 5_000, ''])
    expect(it.transport.sends.filter(({ to }) => to === 'a')).toHaveLength(30)
  })

  test('tells the next one when it would be back and fails again, for longer', async () => {
    const it = outlierBench(dry)
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    for (const seconds of [10, 15, 20]) {
      await it.back('a')
      await it.hit('a', 20)
      expect([it.detail('a'), it.outFor('a')]).toEqual(['failed the request that was to prove it', seconds * 1_000])
    }
    expect(it.events()).toHaveLength(4)
  })

  test('holds nothing back after that time: the trial takes no place', async () => {
    const it = outlierBench(dry)
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.back('a')
    it.scripts.set('a', () => {})
    const before = it.transport.sends.length
    for (let i = 0; i < 20; i++) it.start({}, { prefer: 'a' })
    expect(it.transport.sends.slice(before).every(({ to }) => to === 'a')).toBe(true)
  })

  test('needs five in a row again after a success', async () => {
    const it = outlierBench(dry)
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    await it.back('a')
    it.scripts.set('a', good)
    await it.hit('a')
    it.scripts.set('a', bad)
    await it.hit('a', 4)
    expect(it.events()).toHaveLength(1)
    await it.hit('a')
    expect(it.events()).toHaveLength(2)
  })

  test('keeps to the caps, as if those told were out', async () => {
    const it = outlierBench({ ids: 'abcd', ...dry })
    for (const id of 'abcd') {
      it.scripts.set(id, bad)
      await it.hit(id, 10)
    }
    expect(it.events()).toEqual(['a would be out', 'b would be out'])
    const all = outlierBench({ ids: 'abc', ...passive({ dryRun: true, maxShare: 1 }) })
    for (const id of 'abc') {
      all.scripts.set(id, bad)
      await all.hit(id, 10)
    }
    expect(all.events()).toEqual(['a would be out', 'b would be out']) // the last healthy one
  })

  test('judges the rates of an interval as well', async () => {
    const it = outlierBench({
      ids: 'abcde',
      ...passive({ dryRun: true, consecutive: 99, successRate: { minRequests: 10 } }),
    })
    for (const id of 'abcde') await it.serve(id, 10, id === 'c' ? 3 : 0)
    await it.clock.advance(10_000)
    expect(it.events()).toEqual(['c would be out'])
    expect(it.detail('c')).toMatch(/^success rate 70\.0 % is below/)
  })

  test('becomes earnest by an update, and leaves nothing behind', async () => {
    const it = outlierBench(dry)
    it.scripts.set('a', bad)
    await it.hit('a', 5)
    const backends = [...'abc'].map((id) => ({ url: `http://${id}.test`, id }))
    const rest = { backends, strategy: 'round-robin', transport: it.transport, retry: { attempts: 1 } } as const
    await it.balancer.update(rest)
    await it.hit('a', 4)
    expect(it.out()).toBe('')
    await it.hit('a')
    expect(it.events()).toEqual(['a would be out', 'a out'])
    await it.balancer.update({ ...rest, ...dry })
    expect(it.events()).toEqual(['a would be out', 'a out', 'a back'])
    await it.balancer.close()
    expect(it.clock.pending).toBe(0)
  })
})
