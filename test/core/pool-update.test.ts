import type { Policy, Strategy, Watcher } from 'evenkeel'
import { describe, expect, test } from 'vitest'
import { bench, endpoints, inTurn } from '../support/pool-bench.ts'
import { scripted } from '../support/scripted.ts'

describe('new parts', () => {
  test('are taken over: another strategy, another transport that takes the next request', async () => {
    const { pool, reconfigure, send, transport } = bench(['a', 'b'])
    await send()
    const next = { ...scripted((it) => it.answer(204)), name: 'next' }
    reconfigure({ strategy: { ...inTurn(), name: 'other' }, transport: next }, endpoints('a', 'b'))
    expect([pool.strategy, pool.transport]).toEqual(['other', next])
    expect((await send()).status).toBe(204)
    expect(transport.forgotten).toEqual(['a', 'b'])
  })

  test('leave an attempt to the chooser that picked it: head and end are told to that one', async () => {
    const log: string[] = []
    const hooked = (name: string): Strategy => {
      const { start } = inTurn()
      return {
        name,
        start: (core) => ({
          ...start(core),
          head: () => void log.push(`${name}: head`),
          settle: () => void log.push(`${name}: end`),
        }),
      }
    }
    const { reconfigure, send, transport, clock } = bench(['a'], { strategy: hooked('old'), play: () => {} })
    const response = send()
    await clock.advance(0)
    reconfigure({ strategy: hooked('new') }, endpoints('a'))
    transport.last().answer()
    await response
    expect(log).toEqual(['old: head', 'old: end'])
  })

  test('keep a watcher that stays, stop one that goes and start one that comes', () => {
    const log: string[] = []
    const watcher = (name: string): Watcher => ({
      name,
      start() {
        log.push(`start ${name}`)
        return { stop: () => void log.push(`stop ${name}`) }
      },
    })
    const [stays, goes, comes] = ['stays', 'goes', 'comes'].map(watcher) as [Watcher, Watcher, Watcher]
    const { pool, reconfigure } = bench(['a'], { watchers: [stays, goes] })
    reconfigure({ watchers: [comes, stays] }, endpoints('a'))
    pool.close()
    expect(log).toEqual(['start stays', 'start goes', 'start comes', 'stop goes', 'stop comes', 'stop stays'])
  })

  test('keep the budget while its settings stay, and start a new one when they change', () => {
    const { pool, reconfigure } = bench(['a'])
    const settings = { share: 0.2, perSecond: 10, windowMs: 10_000 }
    const { budget } = pool
    reconfigure({ budget: { ...settings } }, endpoints('a'))
    expect(pool.budget).toBe(budget)
    reconfigure({ budget: { ...settings, share: 0.1 } }, endpoints('a'))
    expect(pool.budget).not.toBe(budget)
  })

  test('wrap in their order: the pool’s around each pick, the attempt’s around each send, outermost first', async () => {
    const log: string[] = []
    const around = (name: string): Policy => ({
      name,
      scope: 'pool',
      wrap: (next) => (call, request) => {
        log.push(name)
        return next(call, request)
      },
    })
    const within = (name: string): Policy => ({
      name,
      scope: 'attempt',
      wrap: (next) => (attempt) => {
        log.push(name)
        return next(attempt)
      },
    })
    const policies = [around('A'), within('x'), around('B'), within('y')]
    const { send } = bench(['a'], { policies })
    await send()
    expect(log).toEqual(['A', 'B', 'x', 'y'])
  })
})
