import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ReplayBody } from '../../src/core/replay.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

/** A source that gives its chunks once, and a log of what was asked of it. */
function once(chunks: readonly string[], failure?: Error): { source: AsyncIterable<Uint8Array>; log: string[] } {
  const log: string[] = []
  async function* generate(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (const chunk of chunks) {
        log.push(chunk)
        yield bytes(chunk)
      }
      if (failure !== undefined) throw failure
      log.push('end')
    } finally {
      log.push('closed')
    }
  }
  return { source: generate(), log }
}

/** A source whose chunks the test hands over one by one. */
function stepped(): {
  source: AsyncIterable<Uint8Array>
  give(text: string): void
  end(): void
  readonly asked: number
} {
  const waiting: ((result: IteratorResult<Uint8Array>) => void)[] = []
  let asked = 0
  return {
    source: {
      [Symbol.asyncIterator]: () => ({
        next() {
          asked++
          return new Promise((resolve) => waiting.push(resolve))
        },
      }),
    },
    give: (text) => waiting.shift()!({ done: false, value: bytes(text) }),
    end: () => waiting.shift()!({ done: true, value: undefined }),
    get asked() {
      return asked
    },
  }
}

async function readAll(opened: AsyncIterable<Uint8Array>, most = Infinity): Promise<string> {
  let text = ''
  let chunks = 0
  if (most === 0) return text
  for await (const chunk of opened) {
    text += Buffer.from(chunk).toString('latin1')
    if (++chunks >= most) break
  }
  return text
}

describe('a replayable body', () => {
  test('can be read again from its start, as often as wanted, and its source is read once', async () => {
    const { source, log } = once(['a', 'b', 'c'])
    const body = new ReplayBody(source, undefined, 100)
    for (let i = 0; i < 3; i++) expect(await readAll(body.open())).toBe('abc')
    expect(log).toEqual(['a', 'b', 'c', 'end', 'closed'])
    expect(body.replayable).toBe(true)
  })

  test('goes on where the source was, after a first reading that stopped half-way', async () => {
    const { source, log } = once(['a', 'b', 'c'])
    const body = new ReplayBody(source, undefined, 100)
    expect(await readAll(body.open(), 2)).toBe('ab')
    expect(log).toEqual(['a', 'b']) // nothing is read ahead
    expect(await readAll(body.open())).toBe('abc')
  })

  test('reads nothing before it is opened', () => {
    const { source, log } = once(['a'])
    new ReplayBody(source, 1, 100).open()
    expect(log).toEqual([])
  })

  test('knows its length if it was told', () => {
    expect(new ReplayBody(once([]).source, 12, 100).length).toBe(12)
    expect(new ReplayBody(once([]).source, undefined, 100).length).toBeUndefined()
  })

  test('ends an earlier reading when it is opened again: a late chunk goes to the latest', async () => {
    const { source, give, end } = stepped()
    const body = new ReplayBody(source, undefined, 100)
    const first = readAll(body.open())
    await Promise.resolve()
    const second = readAll(body.open())
    give('a')
    await first.then((text) => expect(text).toBe(''))
    give('b')
    await new Promise((resolve) => setImmediate(resolve))
    end()
    expect(await second).toBe('ab')
  })

  test('asks its source once for a chunk that two readings wait for', async () => {
    const stepper = stepped()
    const body = new ReplayBody(stepper.source, undefined, 100)
    const readings = [readAll(body.open()), readAll(body.open())]
    await new Promise((resolve) => setImmediate(resolve))
    expect(stepper.asked).toBe(1)
    stepper.end()
    expect(await Promise.all(readings)).toEqual(['', ''])
  })

  test('may hold exactly its limit, and no more', async () => {
    const exact = new ReplayBody(once(['abc', 'de']).source, undefined, 5)
    expect(await readAll(exact.open())).toBe('abcde')
    expect(exact.replayable).toBe(true)
    const over = new ReplayBody(once(['abc', 'def']).source, undefined, 5)
    expect(await readAll(over.open())).toBe('abcdef')
    expect(over.replayable).toBe(false)
  })

  test('is read to its end past the limit, though it keeps nothing from then on', async () => {
    const chunks = Array.from({ length: 50 }, (_, i) => `${i} `)
    const body = new ReplayBody(once(chunks).source, undefined, 20)
    expect(await readAll(body.open())).toBe(chunks.join(''))
    expect(body.replayable).toBe(false)
  })

  test('stays replayable as long as its start is still there, however long it says it is', async () => {
    const body = new ReplayBody(once(['abc', 'def']).source, 1_000_000, 5)
    expect(body.replayable).toBe(true) // nothing is lost yet: a refused connection may still be tried elsewhere
    expect(await readAll(body.open())).toBe('abcdef')
    expect(body.replayable).toBe(false)
  })

  test('with a limit of 0 can be sent once', async () => {
    const body = new ReplayBody(once(['a']).source, undefined, 0)
    expect(await readAll(body.open())).toBe('a')
    expect(body.replayable).toBe(false)
  })
})

describe('a body that is kept whole', () => {
  test('is complete once its end was read, and not before', async () => {
    const { source, give, end } = stepped()
    const body = new ReplayBody(source, undefined, 100)
    expect(body.complete).toBe(false)
    const reading = readAll(body.open())
    await Promise.resolve()
    give('a')
    await new Promise((resolve) => setImmediate(resolve))
    expect(body.complete).toBe(false)
    end()
    expect(await reading).toBe('a')
    expect(body.complete).toBe(true)
  })

  test('can be read by two at the same time, each from its start: opening it again ends nobody', async () => {
    const body = new ReplayBody(once(['a', 'b', 'c']).source, undefined, 100)
    await readAll(body.open())
    const first = body.open()[Symbol.asyncIterator]()
    const texts: string[] = []
    const step = async (reading: AsyncIterator<Uint8Array>): Promise<void> => {
      const { value, done } = await reading.next()
      texts.push(done === true ? 'end' : Buffer.from(value).toString())
    }
    await step(first)
    const second = body.open()[Symbol.asyncIterator]()
    await step(second)
    for (let i = 0; i < 3; i++) await step(first)
    for (let i = 0; i < 3; i++) await step(second)
    expect(texts).toEqual(['a', 'a', 'b', 'c', 'end', 'b', 'c', 'end'])
  })

  test('and is empty is complete as well', async () => {
    const body = new ReplayBody(once([]).source, 0, 0)
    expect(await readAll(body.open())).toBe('')
    expect(body.complete).toBe(true)
    expect(await readAll(body.open())).toBe('')
  })

  test('is complete at exactly its limit, and never past it', async () => {
    for (const [limit, complete] of [
      [5, true],
      [4, false],
    ] as const) {
      const body = new ReplayBody(once(['abc', 'de']).source, undefined, limit)
      await readAll(body.open())
      expect([body.complete, body.replayable]).toEqual([complete, complete])
    }
  })

  test('is not what a broken source leaves, nor what is left after closing', async () => {
    const broken = new ReplayBody(once(['a'], new Error('broken')).source, undefined, 100)
    await readAll(broken.open()).catch(() => {})
    expect(broken.complete).toBe(false)
    for (const reads of [0, 1, Infinity]) {
      const closed = new ReplayBody(once(['a', 'b']).source, undefined, 100)
      await readAll(closed.open(), reads)
      const late = closed.open()
      closed.close()
      expect(closed.complete).toBe(false)
      expect(await readAll(late)).toBe('')
    }
  })
})

describe('a source that fails', () => {
  test('fails the reading at that place', async () => {
    const body = new ReplayBody(once(['a'], new Error('broken')).source, undefined, 100)
    await expect(readAll(body.open())).rejects.toThrow('broken')
  })

  test('fails every later reading too: half a body must never look like a whole one', async () => {
    const body = new ReplayBody(once(['a'], new Error('broken')).source, undefined, 100)
    await expect(readAll(body.open())).rejects.toThrow('broken')
    const again = body.open()[Symbol.asyncIterator]()
    expect(Buffer.from((await again.next()).value).toString()).toBe('a')
    await expect(again.next()).rejects.toThrow('broken')
  })
})

describe('closing', () => {
  test('lets a source go that was not read to its end, once', async () => {
    const { source, log } = once(['a', 'b'])
    const body = new ReplayBody(source, undefined, 100)
    await readAll(body.open(), 1)
    body.close()
    body.close()
    await new Promise((resolve) => setImmediate(resolve))
    expect(log).toEqual(['a', 'closed'])
  })

  test('leaves a source alone that has ended', async () => {
    const { source, log } = once(['a'])
    const body = new ReplayBody(source, undefined, 100)
    await readAll(body.open())
    body.close()
    expect(log).toEqual(['a', 'end', 'closed'])
  })

  test('needs no return of the source, and survives one that rejects', async () => {
    new ReplayBody(stepped().source, undefined, 100).close()
    const rejecting = {
      next: () => new Promise<IteratorResult<Uint8Array>>(() => {}),
      return: () => Promise.reject(new Error('no')),
    }
    new ReplayBody({ [Symbol.asyncIterator]: () => rejecting }, undefined, 100).close()
    await new Promise((resolve) => setImmediate(resolve)) // an unhandled rejection would fail the run
  })

  test('ends the reading that is under way', async () => {
    const { source, give } = stepped()
    const body = new ReplayBody(source, undefined, 100)
    const reading = readAll(body.open())
    await Promise.resolve()
    body.close()
    give('late')
    expect(await reading).toBe('')
  })
})

describe('any readings', () => {
  test('get the same bytes as long as it is replayable, and the last one all of them', async () => {
    const chunks = fc.array(fc.string({ unit: fc.constantFrom('x', 'y'), minLength: 1, maxLength: 9 }), {
      maxLength: 8,
    })
    await fc.assert(
      fc.asyncProperty(
        chunks,
        fc.array(fc.nat({ max: 9 }), { maxLength: 4 }),
        fc.nat({ max: 80 }),
        async (texts, stops, limit) => {
          const body = new ReplayBody(once(texts).source, undefined, limit)
          for (const stop of stops) {
            if (!body.replayable) return
            expect(await readAll(body.open(), stop)).toBe(texts.slice(0, stop).join(''))
          }
          if (body.replayable) expect(await readAll(body.open())).toBe(texts.join(''))
        },
      ),
      { numRuns: 500, seed: 2 },
    )
  })
})
