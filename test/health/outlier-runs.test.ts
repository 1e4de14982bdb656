import { describe, expect, test } from 'vitest'
import { bad, good, type OutlierBench, outlierBench, passive } from '../support/outlier-bench.ts'
import { type Play, refuse, reset, status } from '../support/plays.ts'

/** What `a` answers, one after the other; who is out in the end, and why. */
async function met(it: OutlierBench, ...plays: readonly Play[]): Promise<string | undefined> {
  for (const play of plays) {
    it.scripts.set('a', play)
    await it.hit('a')
  }
  return it.out() === 'a' ? it.detail('a') : undefined
}

const truncated: Play = (send) => send.head(200).fail()
const mute: Play = (send) => {
  send.connect()
  send.attempt.call.cancel(new Error('stop'))
}

describe('gateway failures in a row', () => {
  const gateway = passive({ consecutive: 99, consecutiveGateway: 3, successRate: false })

  test('are 502, 503, 504 and no answer at all', async () => {
    const it = outlierBench(gateway)
    expect(await met(it, status(502), status(504))).toBeUndefined()
    expect(await met(it, status(503))).toBe('3 gateway failures in a row')
    expect(await met(outlierBench(gateway), refuse, reset, status(503))).toBe('3 gateway failures in a row')
  })

  test('are broken by a failure that the backend itself answered, and by a success', async () => {
    for (const other of [bad, status(501), truncated, good, status(404)]) {
      expect(await met(outlierBench(gateway), refuse, refuse, other, refuse, refuse)).toBeUndefined()
    }
  })

  test('are not broken by what says nothing', async () => {
    expect(await met(outlierBench(gateway), refuse, status(429), refuse, mute, refuse)).toBe(
      '3 gateway failures in a row',
    )
  })

  test('are asked for beside the others, which eject too', async () => {
    const both = passive({ consecutive: 5, consecutiveGateway: 2 })
    expect(await met(outlierBench(both), bad, bad, refuse, refuse)).toBe('2 gateway failures in a row')
    expect(await met(outlierBench(both), bad, bad, bad, refuse, bad)).toBe('5 failures in a row')
  })
})

describe('failures without an answer, counted apart', () => {
  const apart = passive({ consecutive: 3, consecutiveLocal: 5, consecutiveGateway: 0 })

  test('eject by their own number', async () => {
    const it = outlierBench(apart)
    expect(await met(it, refuse, reset, refuse, reset)).toBeUndefined()
    expect(await met(it, refuse)).toBe('5 failures in a row without an answer')
  })

  test('neither count as failures of answers nor break their row', async () => {
    const it = outlierBench(apart)
    expect(await met(it, refuse, refuse, bad, refuse, bad, refuse)).toBeUndefined()
    expect(await met(it, bad)).toBe('3 failures in a row')
  })

  test('are no gateway failures either', async () => {
    const it = outlierBench(passive({ consecutive: 99, consecutiveLocal: 9, consecutiveGateway: 2 }))
    expect(await met(it, refuse, refuse, status(503), refuse)).toBeUndefined()
    expect(await met(it, status(503))).toBe('2 gateway failures in a row')
  })

  test('are broken by any answer: it was reached', async () => {
    for (const answer of [good, bad, truncated]) {
      const it = outlierBench(apart)
      expect(await met(it, refuse, refuse, refuse, refuse, answer, refuse, refuse, refuse, refuse)).toBeUndefined()
    }
  })

  test('are broken by a success, as the others are', async () => {
    const it = outlierBench(apart)
    expect(await met(it, bad, bad, refuse, refuse, refuse, refuse, good, bad, bad, refuse, refuse)).toBeUndefined()
  })
})

test('what counts as a failure is as the pool’s classes say', async () => {
  const it = outlierBench({ classes: { forbidden: { health: 'failure' }, 'server-error': { health: 'success' } } })
  await met(it, bad, bad, bad, bad, bad, bad)
  expect(it.out()).toBe('')
  expect(await met(it, ...Array<Play>(5).fill(status(403)))).toBe('5 failures in a row')
})
