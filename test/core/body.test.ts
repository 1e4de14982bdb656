import { describe, expect, test } from 'vitest'
import { Body, bodyOf, UNREAD_BYTES } from '../../src/core/body.ts'
import { bodyBench, bytes, Owner, Reader, Source } from '../support/body-bench.ts'
import { textOf } from '../support/scripted.ts'

describe('a body', () => {
  test('delivers what came early first, then what comes, then the end with its trailers', () => {
    const { source, owner, body } = bodyBench()
    source.push('a')
    source.push('b')
    const reader = new Reader().read(body)
    source.push('c')
    source.sink.end(['x', '1'])
    expect(reader.log).toEqual(['a', 'b', 'c', 'end with x 1'])
    expect(owner.log).toEqual(['ended'])
    expect(owner.signs).toBe(3)
  })

  test('that was all there before it was read is delivered in one go', () => {
    const { source, owner, body } = bodyBench()
    source.push('a')
    source.sink.end()
    expect(owner.log).toEqual(['ended']) // the lease ended without a reader
    expect(body.settled).toBe(true)
    expect(new Reader().read(body).log).toEqual(['a', 'end'])
  })

  test('that pushes and ends while it is being consumed is no different', () => {
    const owner = new Owner()
    const body = new Body(owner, bodyOf([bytes('a'), bytes('b')], ['t', '1']))
    expect(owner.log).toEqual(['ended'])
    expect(new Reader().read(body).log).toEqual(['a', 'b', 'end with t 1'])
  })

  test('without a byte only ends', () => {
    const { source, body } = bodyBench()
    source.sink.end()
    expect(new Reader().read(body).log).toEqual(['end'])
  })

  test('ends once, whatever the transport says afterwards', () => {
    const { source, owner, body } = bodyBench()
    const reader = new Reader().read(body)
    source.sink.end()
    source.sink.end()
    source.sink.fail(new Error('late'))
    expect(source.push('late')).toBe(true)
    expect(reader.log).toEqual(['end'])
    expect(owner.log).toEqual(['ended'])
  })

  test('that broke gives the reader what came, and then the error its owner made of it', () => {
    const { source, owner, body } = bodyBench()
    source.push('a')
    const cause = new Error('cut')
    source.sink.fail(cause)
    source.sink.end()
    const reader = new Reader().read(body)
    expect(reader.log).toEqual(['a', 'fail'])
    expect(reader.error).toMatchObject({ message: 'told to the reader', cause })
    expect(owner.log).toEqual(['failed'])
  })

  test('may be consumed or discarded, once', () => {
    const { body } = bodyBench()
    new Reader().read(body)
    expect(() => new Reader().read(body)).toThrow(/consumed or discarded/)
    expect(() => body.discard()).toThrow(/consumed or discarded/)
    const other = bodyBench().body
    other.discard()
    expect(() => other.discard()).toThrow(/consumed or discarded/)
    expect(() => new Reader().read(other)).toThrow(/consumed or discarded/)
  })
})

describe('a reader that pauses', () => {
  test('pauses the transport, and resumes it', () => {
    const { source, body } = bodyBench()
    const reader = new Reader(() => false).read(body)
    expect(source.push('a')).toBe(false)
    expect(body.blocked).toBe(true)
    expect(source.resumes).toBe(0)
    reader.control?.resume()
    expect(source.resumes).toBe(1)
    expect(body.blocked).toBe(false)
    source.push('b')
    reader.control?.resume()
    source.sink.end()
    expect(reader.log).toEqual(['a', 'b', 'end'])
  })

  test('among early chunks gets the next one on resume, one at a time', () => {
    const { source, body } = bodyBench()
    for (const text of ['a', 'b', 'c']) source.push(text)
    source.sink.end()
    const reader = new Reader(() => false).read(body)
    expect(reader.log).toEqual(['a'])
    reader.control?.resume()
    expect(reader.log).toEqual(['a', 'b'])
    reader.control?.resume()
    expect(reader.log).toEqual(['a', 'b', 'c'])
    reader.control?.resume()
    expect(reader.log).toEqual(['a', 'b', 'c', 'end'])
  })

  test('hears of an end that is already in when it resumes, not before, and once', () => {
    const { source, owner, body } = bodyBench()
    const reader = new Reader(() => false).read(body)
    source.push('a')
    source.sink.end()
    expect(owner.log).toEqual(['ended']) // the lease does not wait for a slow reader
    expect(reader.log).toEqual(['a'])
    reader.control?.resume()
    reader.control?.resume()
    expect(reader.log).toEqual(['a', 'end'])
  })

  test('hears of a failure that is already in when it resumes, after what came before', () => {
    const { source, body } = bodyBench()
    source.push('a')
    source.push('b')
    const reader = new Reader(() => false).read(body)
    source.sink.fail(new Error('cut'))
    expect(reader.log).toEqual(['a'])
    reader.control?.resume()
    reader.control?.resume()
    expect(reader.log).toEqual(['a', 'b', 'fail'])
  })

  test('may resume within chunk: nothing stops, nothing is told twice', () => {
    const { source, body } = bodyBench()
    const reader = new Reader((it) => {
      it.control?.resume()
      return false
    }).read(body)
    expect(source.push('a')).toBe(true)
    expect(source.push('b')).toBe(true)
    source.sink.end()
    expect(reader.log).toEqual(['a', 'b', 'end'])
  })

  test('is given what a transport pushes on although it was asked to wait, later and in order', () => {
    const { source, body } = bodyBench()
    const reader = new Reader((_, text) => text !== 'a').read(body)
    source.push('a')
    expect(source.push('b')).toBe(false)
    expect(source.push('c')).toBe(false)
    expect(reader.log).toEqual(['a'])
    reader.control?.resume()
    expect(reader.log).toEqual(['a', 'b', 'c'])
    expect(source.waiting).toBe(false)
  })

  test('resuming without having paused does nothing', () => {
    const { source, body } = bodyBench()
    const reader = new Reader().read(body)
    reader.control?.resume()
    source.push('a')
    expect(source.resumes).toBe(0)
    expect(reader.log).toEqual(['a'])
  })

  test('may read from a transport that pushes within resume', () => {
    const source = new Source()
    const body = new Body(new Owner(), {
      consume(sink) {
        source.consume(sink)
        let n = 0
        const flow = (): void => {
          while (n < 50) if (!source.push(`${n++}`)) return
          sink.end()
        }
        return { resume: flow, cancel: () => {} }
      },
      discard: () => {},
    })
    let paused = 0
    const reader = new Reader((_, text) => {
      if (Number(text) % 3 > 0) return true
      paused++
      return false
    }).read(body)
    source.push('go')
    for (let i = 0; i < 100; i++) reader.control?.resume()
    expect(reader.log).toEqual(['go', ...Array.from({ length: 50 }, (_, i) => `${i}`), 'end'])
    expect(paused).toBe(18)
  })
})

describe('a body nobody reads', () => {
  test(`pauses its transport beyond ${UNREAD_BYTES} bytes, and goes on when somebody does`, () => {
    const { source, body } = bodyBench()
    expect(source.push(new Uint8Array(UNREAD_BYTES - 1))).toBe(true)
    expect(source.push(new Uint8Array(1))).toBe(true) // an answer of just this size still ends by itself
    expect(body.blocked).toBe(false)
    expect(source.push(new Uint8Array(10))).toBe(false)
    expect(body.blocked).toBe(true)
    const reader = new Reader().read(body)
    expect(reader.log).toHaveLength(3)
    expect(source.waiting).toBe(false)
    expect(body.blocked).toBe(false)
  })

  test('counts anew what comes after it was read', () => {
    const { source, body } = bodyBench()
    source.push(new Uint8Array(UNREAD_BYTES - 1))
    const reader = new Reader().read(body)
    for (let i = 0; i < 4; i++) expect(source.push(new Uint8Array(UNREAD_BYTES))).toBe(true)
    expect(reader.log).toHaveLength(5)
  })

  test('is read to its end when it is discarded and small: the connection lives', () => {
    const { source, owner, body } = bodyBench()
    source.push('a')
    body.discard()
    source.push('b')
    source.sink.end()
    expect(owner.log).toEqual(['ended'])
    expect(source.canceledWith).toBeUndefined()
  })

  test('goes on when it is discarded while its transport waits', () => {
    const { source, owner, body } = bodyBench()
    expect(source.push(new Uint8Array(UNREAD_BYTES + 1))).toBe(false)
    body.discard()
    expect(source.waiting).toBe(false)
    source.sink.end()
    expect(owner.log).toEqual(['ended'])
  })

  test('is cut when it is discarded and large, once', () => {
    const { source, owner, body } = bodyBench()
    source.push('a')
    body.discard()
    source.push(new Uint8Array(UNREAD_BYTES))
    expect(owner.log).toEqual(['canceled: discarded'])
    expect(source.canceledWith).toMatchObject({ message: 'discarded' })
    source.push(new Uint8Array(UNREAD_BYTES))
    source.sink.end()
    expect(owner.log).toHaveLength(1)
  })

  test('that broke or ended may still be discarded', () => {
    for (const finish of ['end', 'fail'] as const) {
      const { source, owner, body } = bodyBench()
      source.sink[finish](undefined)
      body.discard()
      expect(owner.log).toHaveLength(1)
      expect(source.canceledWith).toBeUndefined()
    }
  })

  test('tells nobody of a failure after it was discarded, but its owner', () => {
    const { source, owner, body } = bodyBench()
    body.discard()
    source.sink.fail(new Error('cut'))
    expect(owner.log).toEqual(['failed'])
  })
})

describe('a reader that gives up', () => {
  test('hears no more, and the transport lets go', () => {
    const { source, owner, body } = bodyBench()
    const reader = new Reader().read(body)
    source.push('a')
    reader.control?.cancel(new Error('enough'))
    source.push('b')
    source.sink.end()
    expect(reader.log).toEqual(['a'])
    expect(owner.log).toEqual(['canceled: enough'])
    expect(source.canceledWith).toMatchObject({ message: 'enough' })
  })

  test('within a chunk hears no more, whether the chunk came early or not', () => {
    for (const early of [true, false]) {
      const { source, owner, body } = bodyBench()
      const reader = new Reader((it, text) => {
        if (text === 'b') it.control?.cancel(new Error('enough'))
        return true
      })
      if (early) {
        // Its first chunk pauses, so that it has its control when the early ones come.
        const paused = new Reader((it, text) => {
          reader.log.push(text)
          if (text === 'b') it.control?.cancel(new Error('enough'))
          return text !== 'a'
        })
        for (const text of ['a', 'b', 'c']) source.push(text)
        paused.read(body).control?.resume()
        expect(paused.log).toEqual(['a', 'b'])
      } else {
        reader.read(body)
        for (const text of ['a', 'b', 'c']) source.push(text)
      }
      source.sink.end()
      expect(reader.log).toEqual(['a', 'b'])
      expect(owner.log).toEqual(['canceled: enough'])
    }
  })

  test('by throwing is let go like any other, and its transport hears nothing of it', () => {
    for (const early of [true, false]) {
      const { source, owner, body } = bodyBench()
      const reader = new Reader(() => {
        throw new Error('a bug of the reader')
      })
      if (early) source.push('a')
      reader.read(body)
      if (!early) source.push('a')
      source.push('b')
      source.sink.end()
      expect(reader.log).toEqual(['a'])
      expect(owner.log).toEqual(['canceled: a bug of the reader'])
    }
  })

  test('after the end costs no connection, and hears nothing of what was waiting', () => {
    const { source, owner, body } = bodyBench()
    source.push('a')
    source.push('b')
    const reader = new Reader(() => false).read(body)
    source.sink.end()
    reader.control?.cancel(new Error('enough'))
    reader.control?.resume()
    expect(reader.log).toEqual(['a'])
    expect(owner.log).toEqual(['ended'])
    expect(source.canceledWith).toBeUndefined()
  })
})

describe('an abort', () => {
  test('reaches the transport and the reader in this tick, ahead of what was waiting', () => {
    const { source, owner, body } = bodyBench()
    for (const text of ['a', 'b', 'c']) source.push(text)
    const reader = new Reader(() => false).read(body)
    const reason = new Error('stop')
    owner.cancel(reason)
    expect(reader.log).toEqual(['a', 'fail'])
    expect(reader.error).toBe(reason)
    expect(source.canceledWith).toBe(reason)
  })

  test('before anybody reads is told to whoever reads later', () => {
    const { source, owner, body } = bodyBench()
    source.push('a')
    owner.cancel(new Error('stop'))
    expect(new Reader().read(body).log).toEqual(['fail'])
  })

  test('after the end changes nothing', () => {
    const { source, body } = bodyBench()
    source.push('a')
    source.sink.end()
    expect(body.abort(new Error('late'), new Error('late'))).toBe(false)
    expect(new Reader().read(body).log).toEqual(['a', 'end'])
  })

  test('within a chunk is told to that reader too, in this tick, whatever it answers to the chunk', () => {
    for (const answer of [true, false]) {
      for (const early of [true, false]) {
        const { source, owner, body } = bodyBench()
        const reader = new Reader(() => {
          owner.cancel(new Error('stop'))
          return answer
        })
        if (early) source.push('a')
        reader.read(body)
        if (!early) source.push('a')
        expect(reader.log, `answered ${answer}, ${early ? 'early' : 'late'}`).toEqual(['a', 'fail'])
        expect(owner.log).toEqual(['canceled: stop'])
      }
    }
  })
})

describe('waiting for the whole body', () => {
  test('is over at once when it is in', () => {
    const { source, body } = bodyBench()
    source.push('a')
    source.sink.end()
    expect(body.whole()).toBeUndefined()
  })

  test('resolves with the end, and the body can then be read', async () => {
    const { source, owner, body } = bodyBench()
    const whole = body.whole()
    source.push('a')
    source.sink.end()
    await whole
    expect(owner.log).toEqual(['ended'])
    expect(await textOf(body)).toBe('a')
  })

  test('rejects with the error of the owner, broken before or later, or with that of an abort', async () => {
    const before = bodyBench()
    before.source.sink.fail(new Error('cut'))
    await expect(before.body.whole()).rejects.toThrow('told to the reader')
    const later = bodyBench()
    const whole = later.body.whole()
    later.source.sink.fail(new Error('cut'))
    await expect(whole).rejects.toThrow('told to the reader')
    const aborted = bodyBench()
    const stopped = aborted.body.whole()
    aborted.owner.cancel(new Error('stop'))
    await expect(stopped).rejects.toThrow('stop')
  })
})
