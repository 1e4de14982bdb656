import { type Duplex, duplexPair } from 'node:stream'
import { manualClock, seededRandom } from 'evenkeel/testing'
import { describe, expect, test } from 'vitest'
import { Frames, GOING_AWAY, GOING_AWAY_MASKED } from '../src/adapters/frames.ts'
import { Tunnel } from '../src/adapters/tunnel.ts'
import { Deadlines } from '../src/core/deadlines.ts'

/** A frame with so many bytes in it (RFC 6455 5.2). */
function frame(opcode: number, length: number, isMasked = false): Buffer {
  const long = Buffer.alloc(length < 126 ? 0 : length < 65_536 ? 2 : 8)
  if (long.length === 2) long.writeUInt16BE(length)
  if (long.length === 8) long.writeBigUInt64BE(BigInt(length))
  const short = long.length === 0 ? length : long.length === 2 ? 126 : 127
  const head = [0x80 | opcode, short | (isMasked ? 0x80 : 0)]
  return Buffer.concat([Buffer.from(head), long, Buffer.alloc(isMasked ? 4 : 0, 0x88), Buffer.alloc(length, 7)])
}

describe('where frames end', () => {
  test.each([0, 1, 125, 126, 127, 65_535, 65_536, 200_000])('a frame of %i bytes ends where it ends', (length) => {
    for (const isMasked of [false, true]) {
      const bytes = frame(2, length, isMasked)
      const frames = new Frames()
      expect(frames.read(bytes.subarray(0, -1))).toBe(0)
      expect(frames.isBetween).toBe(false)
      expect(frames.read(bytes.subarray(-1))).toBe(1)
      expect(frames.isBetween).toBe(true)
    }
  })

  test('however frames are cut, every end is found', () => {
    const random = seededRandom(7)
    const all = Array.from({ length: 400 }, () => {
      return frame([0, 1, 2, 9, 10][random(5)]!, [0, 5, 125, 126, 300, 70_000][random(6)]!, random(2) === 1)
    })
    const whole = Buffer.concat(all)
    let bytes = 0
    const ends = all.map((one) => (bytes += one.length))
    for (const most of [3, 1_000, 100_000]) {
      const frames = new Frames()
      let passed = 0
      for (let at = 0; at < Math.min(whole.length, most * 2_000); ) {
        const chunk = whole.subarray(at, at + 1 + random(most))
        const before = passed
        while (ends[passed]! <= at + chunk.length) passed++
        expect(frames.read(chunk)).toBe(passed === before ? 0 : ends[passed - 1]! - at)
        at += chunk.length
        expect(frames.isBetween).toBe(ends[passed - 1] === at)
      }
      expect(passed).toBeGreaterThan(0)
      expect(frames.isClosed).toBe(false)
    }
  })

  test('a Close frame is seen when it is whole, and nothing is read into what is no frame', () => {
    const frames = new Frames()
    const close = frame(8, 2, true)
    frames.read(close.subarray(0, -1))
    expect(frames.isClosed).toBe(false)
    frames.read(close.subarray(-1))
    expect(frames.isClosed).toBe(true)
    const random = seededRandom(3)
    const garbage = new Frames()
    for (let i = 0; i < 1_000; i++) {
      const bytes = Uint8Array.from({ length: random(100) }, () => random(256))
      expect(garbage.read(bytes)).toBeLessThanOrEqual(bytes.length)
    }
  })
})

/** A tunnel, and who is at its ends. */
function tunnel(times: { readonly idleMs?: number; readonly graceMs?: number } = {}, isFramed = true) {
  const clock = manualClock()
  const [client, atProxy] = duplexPair()
  const [toBackend, backend] = duplexPair()
  const ends = [client, backend].map((end) => {
    const came: Buffer[] = []
    const seen = { end, text: (): string => Buffer.concat(came).toString('latin1') }
    end.on('error', () => {})
    end.on('data', (bytes: Buffer) => came.push(bytes))
    return seen
  })
  const settings = { idleMs: 60_000, graceMs: 5_000, ...times }
  const made = new Tunnel(atProxy, toBackend, [], isFramed, settings, clock, new Deadlines(clock))
  return {
    tunnel: made,
    clock,
    client: ends[0]!,
    backend: ends[1]!,
    sockets: [atProxy, toBackend] as readonly Duplex[],
  }
}

/** What streams do in later ticks is done. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
}

const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1')

describe('a tunnel', () => {
  test('that nothing goes through is cut after idleMs, one with a byte now and then is not', async () => {
    const { clock, client, backend, sockets } = tunnel({ idleMs: 60_000 })
    for (let minute = 0; minute < 10; minute++) {
      await clock.advance(59_000)
      const [from] = minute % 2 === 0 ? [client] : [backend]
      from!.end.write(frame(9, 0))
      await settled()
    }
    expect(sockets.map(({ destroyed }) => destroyed)).toEqual([false, false])
    await clock.advance(60_500)
    expect(sockets.map(({ destroyed }) => destroyed)).toEqual([true, true])
  })

  test('without idleMs stays', async () => {
    const { clock, sockets } = tunnel({ idleMs: 0 })
    await clock.advance(10 * 3_600_000)
    await settled()
    expect(sockets.map(({ destroyed }) => destroyed)).toEqual([false, false])
  })

  test.each([0, 3_600_000])(
    'that is half open is cut after 30 s of silence, whatever idleMs is (%i)',
    async (idleMs) => {
      const { clock, client, backend, sockets } = tunnel({ idleMs })
      client.end.end()
      await settled()
      for (let i = 0; i < 4; i++) {
        await clock.advance(29_000)
        backend.end.write('x')
        await settled()
      }
      expect(client.text()).toBe('xxxx')
      expect(sockets[1]!.destroyed).toBe(false)
      await clock.advance(30_500)
      expect(sockets.map(({ destroyed }) => destroyed)).toEqual([true, true])
    },
  )

  test('that is drained between frames says 1001 both ways, to the server masked, and nothing behind it', async () => {
    const { tunnel: made, client, backend } = tunnel()
    client.end.write(frame(1, 3, true))
    backend.end.write(frame(1, 3))
    await settled()
    made.drain()
    made.drain()
    client.end.write(frame(1, 9, true))
    backend.end.write(frame(1, 9))
    await settled()
    expect(client.text()).toBe(latin1(frame(1, 3)) + latin1(GOING_AWAY))
    const masked = frame(1, 3, true).length
    expect(backend.text().slice(masked)).toBe(latin1(GOING_AWAY_MASKED))
  })

  test('that is drained within a frame waits for its end', async () => {
    const { tunnel: made, client, backend } = tunnel()
    const long = frame(2, 1_000)
    backend.end.write(long.subarray(0, 500))
    await settled()
    made.drain()
    await settled()
    expect(client.text()).toBe(latin1(long.subarray(0, 500)))
    expect(backend.text()).toBe(latin1(GOING_AWAY_MASKED))
    backend.end.write(Buffer.concat([long.subarray(500), frame(1, 2), frame(1, 50).subarray(0, 10)]))
    await settled()
    expect(client.text()).toBe(latin1(long) + latin1(frame(1, 2)) + latin1(GOING_AWAY))
  })

  test('that is drained ends as soon as both have said that they close', async () => {
    const { tunnel: made, client, backend, sockets } = tunnel()
    made.drain()
    client.end.write(frame(8, 2, true))
    await settled()
    expect(sockets.some(({ writableEnded }) => writableEnded)).toBe(false)
    backend.end.write(frame(8, 2))
    await settled()
    expect(sockets.map(({ writableEnded }) => writableEnded)).toEqual([true, true])
  })

  test('in the middle of its own closing handshake gets no second Close', async () => {
    const { tunnel: made, client, backend } = tunnel()
    const close = frame(8, 2, true)
    client.end.write(close)
    await settled()
    made.drain()
    backend.end.write(frame(8, 2))
    await settled()
    expect(backend.text()).toBe(latin1(close))
  })

  test('whose ends are deaf is cut after graceMs', async () => {
    const { tunnel: made, clock, sockets } = tunnel({ graceMs: 5_000 })
    made.drain()
    await clock.advance(4_900)
    expect(sockets.map(({ destroyed }) => destroyed)).toEqual([false, false])
    await clock.advance(200)
    expect(sockets.map(({ destroyed }) => destroyed)).toEqual([true, true])
  })

  test('is cut at once with graceMs 0', () => {
    const { tunnel: made, sockets } = tunnel({ graceMs: 0 })
    made.drain()
    expect(sockets.map(({ destroyed }) => destroyed)).toEqual([true, true])
  })

  test('of another protocol is left alone for graceMs', async () => {
    const { tunnel: made, clock, client, backend, sockets } = tunnel({}, false)
    made.drain()
    client.end.write('no frame')
    await settled()
    expect(backend.text()).toBe('no frame')
    expect(client.text()).toBe('')
    await clock.advance(5_100)
    expect(sockets.map(({ destroyed }) => destroyed)).toEqual([true, true])
  })

  test('holds a fast sender back for a slow reader', async () => {
    const { client, backend } = tunnel()
    client.end.pause()
    let written = 0
    while (written < 64 * 1_048_576 && backend.end.write(Buffer.alloc(65_536))) {
      written += 65_536
      await settled()
    }
    expect(written).toBeLessThan(2 * 1_048_576)
    client.end.resume()
    await settled()
    expect(client.text().length).toBeGreaterThanOrEqual(written)
  })

  test('that breaks on one side breaks on the other', async () => {
    for (const side of [0, 1] as const) {
      const { sockets } = tunnel()
      sockets[side]!.destroy(new Error('reset'))
      await settled()
      expect(sockets.map(({ destroyed }) => destroyed)).toEqual([true, true])
    }
  })
})
