import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { UNREAD_BYTES } from '../../src/core/body.ts'
import type { BodyControl, BodySink } from '../../src/core/contracts.ts'
import { bodyBench } from '../support/body-bench.ts'

describe('any interleaving of transport, owner and reader', () => {
  const size = fc.constantFrom(1, 1, 1, 1_000, 30_000, UNREAD_BYTES, UNREAD_BYTES + 1)
  const step = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({ do: fc.constant('push' as const), size, rude: fc.constantFrom(false, false, true) }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('end' as const, 'fail' as const) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('consume' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constantFrom('discard' as const, 'cancel' as const, 'abort' as const) }),
    },
    { weight: 5, arbitrary: fc.record({ do: fc.constant('resume' as const) }) },
  )
  /** What the reader does with each chunk, in turn; then it takes everything. */
  const take = fc.constantFrom('go on', 'go on', 'pause', 'pause', 'resume within', 'cancel within', 'abort within')

  test('delivers in order, stops where it should, and ends once: 5 000 of them', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), fc.array(take, { maxLength: 20 }), (steps, takes) => {
        const { source, owner, body } = bodyBench()
        // The model.
        let sent = 0
        let got = 0
        let early = 0
        let end: 'open' | 'ended' | 'failed' | 'aborted' = 'open'
        let mode: 'unread' | 'reading' | 'discarded' | 'left' = 'unread'
        let paused = false
        let told: string | undefined
        let toldWhenLeft: string | undefined
        let turn = 0
        const abort = (mayTell: boolean): void => {
          if (end === 'open') end = 'aborted'
          if (mayTell) return
          mode = 'left'
          toldWhenLeft = told
        }
        const reader: BodySink = {
          chunk(data) {
            expect(told, 'a chunk after the end').toBeUndefined()
            expect(paused, 'a chunk while paused').toBe(false)
            expect(mode).toBe('reading')
            expect(data[0]).toBe(got % 251) // in order, none twice, none lost
            got++
            const how = takes[turn++] ?? 'go on'
            if (how === 'cancel within' && control !== undefined) {
              abort(false)
              control.cancel(new Error('enough'))
            }
            if (how === 'abort within') {
              abort(true)
              owner.cancel(new Error('stop'))
            }
            if (how === 'resume within') control?.resume()
            paused = how === 'pause' || (how === 'resume within' && control === undefined)
            if (how === 'resume within') return false
            return !paused
          },
          end() {
            expect(told).toBeUndefined()
            told = 'end'
          },
          fail() {
            expect(told).toBeUndefined()
            told = 'fail'
          },
        }
        let control: BodyControl | undefined
        for (const it of steps) {
          if (it.do === 'push') {
            if (source.waiting && !it.rude) continue
            const data = new Uint8Array(it.size).fill(sent % 251)
            if (end === 'open') {
              sent++
              early = mode === 'discarded' || mode === 'unread' ? early + it.size : 0
              // More than this is not read for nobody.
              if (mode === 'discarded' && early > UNREAD_BYTES) end = 'aborted'
            }
            source.push(data)
          } else if (it.do === 'end') {
            if (end === 'open') end = 'ended'
            source.sink.end()
          } else if (it.do === 'fail') {
            if (end === 'open') end = 'failed'
            source.sink.fail(new Error('cut'))
          } else if (it.do === 'abort') {
            abort(true)
            owner.cancel(new Error('stop'))
          } else if (it.do === 'consume' && mode === 'unread') {
            mode = 'reading'
            control = body.consume(reader)
          } else if (it.do === 'discard' && mode === 'unread') {
            mode = 'discarded'
            body.discard()
          } else if (it.do === 'resume' && control !== undefined) {
            paused = false
            control.resume()
          } else if (it.do === 'cancel' && control !== undefined && mode === 'reading') {
            abort(false)
            control.cancel(new Error('enough'))
          }
          // The owner hears of exactly one end, when there is one; the transport of exactly the aborts.
          expect(owner.log).toHaveLength(end === 'open' ? 0 : 1)
          expect(body.settled).toBe(end !== 'open')
          expect(source.canceledWith !== undefined).toBe(end === 'aborted')
          if (mode === 'reading') {
            const all = end === 'aborted' || got === sent
            if (end === 'aborted') expect(told).toBe('fail')
            else if (!paused) {
              expect(all, 'something is held back from a reader that waits for it').toBe(true)
              expect(told).toBe(end === 'open' ? undefined : end === 'ended' ? 'end' : 'fail')
              if (end === 'open') expect(source.waiting).toBe(false)
            }
          } else {
            expect(told).toBe(toldWhenLeft)
            if (mode === 'unread' && end === 'open') expect(source.waiting).toBe(early > UNREAD_BYTES)
          }
          if (end === 'open') expect(body.blocked).toBe(source.waiting)
        }
      }),
      { numRuns: 5_000, seed: 3 },
    )
  })
})
