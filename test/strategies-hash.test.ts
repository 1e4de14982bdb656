import { crc32 } from 'node:zlib'
import type { Strategy } from 'evenkeel'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Crc32, Word, Xxh64 } from '../src/strategies/hash.ts'
import { bucketOf, jump } from '../src/strategies/jump.ts'
import { maglev, tableOf } from '../src/strategies/maglev.ts'
import { rendezvous } from '../src/strategies/rendezvous.ts'
import { pointsOfEnvoy, ringHash } from '../src/strategies/ring-hash.ts'
import {
  addresses,
  hashBench,
  keys,
  moved,
  named,
  orderOf,
  ownersOf,
  pickOf,
  STRATEGIES,
  sharesOf,
  TEN,
} from './support/hashing.ts'

const KEYS = keys(20_000)

function bits({ high, low }: Word): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)
}

function wordOf(value: bigint): Word {
  return new Word().set(Number(value >> 32n) | 0, Number(value & 0xffffffffn) | 0)
}

describe('xxHash64', () => {
  test.each([
    ['', 0, 'ef46db3751d8e999'],
    ['a', 0, 'd24ec4f1a98c6e5b'],
    ['abc', 0, '44bc2cf5ad770999'],
    ['Nobody inspects the spammish repetition', 0, 'fbcea83c8a378bf1'],
    ['xxhash', 20_141_025, 'b559b98d844e0635'],
  ])('of %j with seed %i is as published', (text, seed, hex) => {
    expect(bits(new Xxh64().of(text, seed)).toString(16)).toBe(hex)
  })

  test('is that of the UTF-8 bytes of any text, as arithmetic with BigInt has it', () => {
    const hash = new Xxh64()
    const texts = fc.string({ unit: 'binary', maxLength: 120 })
    fc.assert(
      fc.property(fc.oneof(texts, fc.string({ maxLength: 120 })), fc.nat(), (text, seed) => {
        expect(bits(hash.of(text, seed))).toBe(xxh64Of(new TextEncoder().encode(text), BigInt(seed)))
      }),
      { seed: 1, numRuns: 500 },
    )
  })

  test('takes half a surrogate pair for U+FFFD, and texts longer than its buffer', () => {
    const hash = new Xxh64()
    for (const text of ['\ud83d', 'a\udc00b', '\ud83d\ud83d\ude00', '\u{1f600}'.repeat(500), 'ж'.repeat(1_000)]) {
      expect(bits(hash.of(text))).toBe(xxh64Of(new TextEncoder().encode(text), 0n))
    }
  })

  test('has the remainder of its 64 bits', () => {
    for (const value of [0n, 1n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n, 0x9e3779b185ebca87n]) {
      for (const divisor of [1, 2, 65_537, 5_000_011]) {
        expect(wordOf(value).modulo(divisor)).toBe(Number(value % BigInt(divisor)))
      }
    }
  })
})

test('CRC-32 is the one of zlib, and can be gone on with', () => {
  const crc = new Crc32()
  for (const text of ['', 'a', '123456789', 'grüße 🔑']) {
    expect(crc.reset().add(text).value >>> 0).toBe(crc32(new TextEncoder().encode(text)))
  }
  const half = crc.reset().add('12345').value
  expect(crc.reset(half).add('6789').value >>> 0).toBe(0xcbf43926)
  expect(crc.reset().addWord(0x04030201).value >>> 0).toBe(crc32(Uint8Array.of(1, 2, 3, 4)))
})

describe('ring hash', () => {
  test.each([
    [
      [1, 1, 1],
      [342, 342, 342],
    ],
    [
      [1, 2],
      [342, 684],
    ],
    [
      [1, 2, 3, 4],
      [103, 206, 309, 412],
    ],
  ])('gives weights %j as many points as Envoy does: %j', (weights, points) => {
    const members = weights.map((weight, i) => ({ id: `${i}`, weight }))
    expect([...pointsOfEnvoy(members, 1_024, 8_388_608)]).toEqual(points)
  })

  test('like Envoy shares out at most maxSize points, and none to weight 0', () => {
    const members = [1, 1_000, 0, 500].map((weight, i) => ({ id: `${i}`, weight }))
    const points = [...pointsOfEnvoy(members, 1_024, 1_024)]
    expect(points.reduce((sum, it) => sum + it, 0)).toBe(1_024)
    expect(points[2]).toBe(0)
    expect(points[1]! / points[3]!).toBeCloseTo(2, 2)
  })

  test('like nginx sends keys where nginx does', () => {
    const picker = hashBench(ringHash({ key: 'call', like: 'nginx' })).build(
      named(['127.0.0.1:7777', '127.0.0.1:7778']),
    )
    const paths = ['/some/path', '/some/longer/path', '/sad/zaidoon', '/g']
    expect(ownersOf(picker, paths).map((id) => id.slice(-4))).toEqual(['7778', '7777', '7778', '7777'])
  })

  test('sends a key to the first point at or after its hash', () => {
    const points = TEN.flatMap((id) =>
      Array.from({ length: 160 }, (_, i) => ({ id, at: bits(new Xxh64().of(`${id}_${i}`)) })),
    )
    points.sort((a, b) => (a.at < b.at ? -1 : 1))
    const hash = new Xxh64()
    const ownerOf = (key: string): string => (points.find(({ at }) => at >= bits(hash.of(key))) ?? points[0]!).id
    const sample = KEYS.slice(0, 3_000)
    expect(ownersOf(hashBench(ringHash({ key: 'call' })).build(named(TEN)), sample)).toEqual(sample.map(ownerOf))
  })

  test.each([
    [10, 0.316],
    [100, 0.099],
    [160, 0.0792],
    [500, 0.0462],
  ])(
    'with %i points each has shares with a relative standard deviation of 1 / sqrt(points), %f',
    (points, expected) => {
      const ids = addresses(100)
      const owners = ownersOf(hashBench(ringHash({ key: 'call', points })).build(named(ids)), keys(200_000))
      const deviation = Math.sqrt(sharesOf(owners, ids).reduce((sum, share) => sum + (share * 100 - 1) ** 2, 0) / 100)
      // The law's own error with 100 backends is 7 %, that of 2 000 keys for each is sqrt(1 / 2 000) of the share.
      expect(deviation).toBeGreaterThan(expected * 0.75)
      expect(deviation).toBeLessThan(Math.hypot(expected, 0.022) * 1.25)
    },
  )
})

describe('maglev', () => {
  test.each([100, 1_000])('gives %i equals the same number of slots, or one more', (n) => {
    const { held } = orderOf(
      (members) => tableOf(members, 65_537),
      addresses(n).map((id) => ({ id, weight: 1 })),
    )
    expect(Math.max(...held) - Math.min(...held)).toBeLessThanOrEqual(1)
    expect(held.reduce((sum, slots) => sum + slots, 0)).toBe(65_537)
  })

  test('gives weights 1 and 2 as many slots as Envoy does: 21 846 and 43 691', () => {
    const members = [1, 2].map((weight, i) => ({ id: `10.0.0.${i}:80`, weight }))
    expect([...orderOf((it) => tableOf(it, 65_537), members).held]).toEqual([21_846, 43_691])
  })

  test('makes the same table in whatever order the backends are configured', () => {
    const sample = KEYS.slice(0, 2_000)
    const owners = ownersOf(hashBench(maglev({ key: 'call' })).build(named(TEN)), sample)
    expect(ownersOf(hashBench(maglev({ key: 'call' })).build(named([...TEN].reverse())), sample)).toEqual(owners)
  })

  test.each([
    [10, 65_537, 1, 0.0028],
    [100, 65_537, 1, 0.0057],
    [100, 65_537, 10, 0.0102],
    [1_000, 65_537, 10, 0.0236],
    [100, 5_003, 10, 0.0413],
    [100, 5_003, 1, 0.0259],
    [1_000, 65_537, 1, 0.0056],
    [1_000, 65_537, 100, 0.0352],
    [100, 655_373, 10, 0.0031],
  ])(
    '%i backends, %i slots: when %i leave, less than twice %f of the slots change hands beside theirs',
    (n, size, gone, law) => {
      const members = addresses(n).map((id) => ({ id, weight: 1 }))
      const slotsOf = (list: typeof members): string[] => {
        const order = orderOf((it) => tableOf(it, size), list)
        const first = order.first('from here')
        return [first, ...Array.from({ length: size - 1 }, () => order.next())].map((i) => list[i]!.id)
      }
      const left = members.filter((_, i) => i % (n / gone) !== 3)
      const stayed = new Set(left.map(({ id }) => id))
      const lost = new Set(members.filter(({ id }) => !stayed.has(id)).map(({ id }) => id))
      expect(lost.size).toBe(gone)
      expect(moved(slotsOf(members), slotsOf(left), lost).foreign / size).toBeLessThan(2 * law)
    },
  )

  test('warns of a table with fewer slots than backends', () => {
    const bench = hashBench(maglev({ key: 'call', size: 7 }))
    const list = named(addresses(8))
    const picker = bench.build(list)
    expect(bench.told).toMatchObject([
      ['warning', { code: 'CONFIG', message: expect.stringContaining('too small for 8') }],
    ])
    expect(new Set(ownersOf(picker, KEYS)).size).toBe(7)
    const [slotless] = list.filter(({ id }) => !ownersOf(picker, KEYS).includes(id))
    expect(pickOf(bench.build(list, [slotless!, slotless!]), 'a key')).toBe(slotless)
  })
})

describe('rendezvous', () => {
  const ids = addresses(10)
  const sample = keys(200_000)
  const heavy = [1, 1, 1, 1, 1, 1, 1, 1, 1, 3]

  test('keeps to the weights: 3 of 12 is a quarter of the keys', () => {
    const shares = sharesOf(ownersOf(hashBench(rendezvous({ key: 'call' })).build(named(ids, heavy)), sample), ids)
    expect(shares[9]).toBeCloseTo(0.25, 2)
    for (const share of shares.slice(0, 9)) expect(share).toBeCloseTo(1 / 12, 2)
  })

  test('moves keys to a backend that gets heavier, 2/13 - 1/12 of all, and no others', () => {
    const before = ownersOf(hashBench(rendezvous({ key: 'call' })).build(named(ids, heavy)), sample)
    const after = ownersOf(hashBench(rendezvous({ key: 'call' })).build(named(ids, [2, ...heavy.slice(1)])), sample)
    const gone = before.flatMap((owner, i) => (owner === after[i] ? [] : [after[i]]))
    expect(new Set(gone)).toEqual(new Set([ids[0]]))
    expect(gone.length / sample.length).toBeCloseTo(2 / 13 - 1 / 12, 2)
  })
})

describe('jump', () => {
  test.each([
    [1n, 1, 0],
    [42n, 57, 43],
    [0xdead10ccn, 666, 361],
    [256n, 1_024, 520],
    [10_863_919_174_838_991n, 11, 6],
    [2_016_238_256_797_177_309n, 11, 3],
    [1_673_758_223_894_951_030n, 11, 5],
  ])('has key %i in bucket of %i: %i', (key, n, bucket) => {
    expect(bucketOf(wordOf(key), n)).toBe(bucket)
  })

  test('moves 1 in 101 keys to a new bucket at the end, and no others', () => {
    const ids = addresses(101)
    const sample = keys(100_000)
    const before = ownersOf(hashBench(jump({ key: 'call' })).build(named(ids.slice(0, 100))), sample)
    const after = ownersOf(hashBench(jump({ key: 'call' })).build(named(ids)), sample)
    const { share, foreign } = moved(before, after, new Set([ids[100]!]))
    expect(foreign).toBe(0)
    expect(share).toBeCloseTo(1 / 101, 2)
  })
})

describe.each(STRATEGIES)('%s', (name, make) => {
  test('moves only the keys of backends that go down, and they come back', () => {
    const list = named(TEN)
    const bench = hashBench(make())
    const before = ownersOf(bench.build(list), KEYS)
    fc.assert(
      fc.property(fc.subarray(TEN, { minLength: 1, maxLength: 9 }), (down) => {
        const lost = new Set(down)
        const up = bench.build(
          list,
          list.filter(({ id }) => !lost.has(id)),
        )
        const sample = KEYS.slice(0, 2_000)
        const after = ownersOf(up, sample)
        for (const [i, owner] of after.entries()) {
          if (lost.has(before[i]!)) expect(lost.has(owner)).toBe(false)
          else expect(owner).toBe(before[i])
        }
      }),
      { seed: 7, numRuns: 30 },
    )
    expect(ownersOf(bench.build(list), KEYS)).toEqual(before)
  })

  test('spreads the keys of one that is down over all the others', () => {
    const list = named(TEN)
    const bench = hashBench(make())
    const before = ownersOf(bench.build(list), KEYS)
    const after = ownersOf(bench.build(list, list.slice(1)), KEYS)
    const heirs = after.filter((_, i) => before[i] === TEN[0])
    for (const share of sharesOf(heirs, TEN.slice(1))) expect(share).toBeGreaterThan(0.03)
  })

  test('begins with the owner of a key, goes on with each pick, and begins again after the last', () => {
    const bench = hashBench(make())
    const list = named(TEN)
    const up = list.filter((_, i) => i !== 4)
    const picker = bench.build(list, up)
    for (const key of KEYS.slice(0, 200)) {
      const order = up.map((_, picks) => pickOf(picker, key, picks))
      expect(new Set(order)).toEqual(new Set(up))
      expect(up.map((_, picks) => pickOf(picker, key, picks + up.length))).toEqual(order)
      const without = bench.build(
        list,
        up.filter((it) => it !== order[0]),
      )
      if (name !== 'jump') expect(pickOf(without, key)).toBe(order[1])
    }
  })

  test('serves calls without a key by anyone eligible, in proportion to the weights', () => {
    const list = named(['a', 'b', 'c', 'down'], [1, 2, 3, 10])
    const picker = hashBench(make()).build(list, list.slice(0, 3))
    const owners = Array.from({ length: 60_000 }, () => pickOf(picker, undefined).id)
    for (const [i, share] of sharesOf(owners, ['a', 'b', 'c']).entries()) expect(share).toBeCloseTo((i + 1) / 6, 1)
  })

  test('sends the key of a backend under another URL to that one', () => {
    const list = named(TEN)
    const bench = hashBench(make())
    bench.build(list)
    const [moved] = named([TEN[3]!])
    const picker = bench.build([...list.slice(0, 3), moved!, ...list.slice(4)])
    const picked = new Set(KEYS.map((key) => pickOf(picker, key)))
    expect(picked.has(moved!)).toBe(true)
    expect(picked.has(list[3]!)).toBe(false)
  })

  test.each([1, 0.5, -2, Number.NaN, Infinity])('refuses a bound of %d', (bound) => {
    expect(() => make({ bound })).toThrow(
      expect.objectContaining({
        code: 'CONFIG',
        message: expect.stringMatching(/^(ring-hash|maglev|rendezvous|jump): bound: /),
      }),
    )
  })
})

describe.each(STRATEGIES.filter(([name]) => name !== 'ring hash like Envoy'))('%s', (name, make) => {
  test('moves at most 12 % of the keys when 1 of 10 leaves', () => {
    const list = named(TEN)
    // The places of jump's backends are what counts: they leave at the end.
    const gone = name === 'jump' ? 9 : 3
    const before = ownersOf(hashBench(make()).build(list), KEYS)
    const after = ownersOf(hashBench(make()).build(list.filter((_, i) => i !== gone)), KEYS)
    const { share, foreign } = moved(before, after, new Set([TEN[gone]!]))
    expect(share).toBeLessThanOrEqual(0.12)
    if (name !== 'maglev') expect(foreign).toBe(0)
  })
})

describe('options', () => {
  const refused = (make: () => Strategy, message: RegExp): void =>
    expect(make).toThrow(
      expect.objectContaining({ name: 'BalancerError', code: 'CONFIG', message: expect.stringMatching(message) }),
    )

  test('a table whose size is no prime is refused', () => {
    for (const size of [0, 1, -7, 65_536, 65_535, 2.5, Number.NaN, 5_000_021]) {
      refused(() => maglev({ key: 'call', size }), /^maglev: size: expected a prime up to 5000011, got /)
    }
    for (const size of [2, 3, 7, 5_000_011]) expect(maglev({ key: 'call', size }).name).toBe('maglev')
  })

  test('a ring without points, too large or of an unknown kind is refused', () => {
    refused(() => ringHash({ key: 'call', points: 0 }), /^ring-hash: points: /)
    refused(() => ringHash({ key: 'call', maxSize: 8_388_609 }), /^ring-hash: maxSize: /)
    refused(() => ringHash({ key: 'call', like: 'envoy', minSize: 0 }), /^ring-hash: minSize: /)
    refused(
      () => ringHash({ key: 'call', like: 'envoy', minSize: 5_000, maxSize: 4_096 }),
      /^ring-hash: minSize: expected at most maxSize, 4096/,
    )
    refused(() => ringHash({ key: 'call', like: 'haproxy' as 'nginx' }), /^ring-hash: like: /)
  })
})

const MASK = 2n ** 64n - 1n
const P1 = 0x9e3779b185ebca87n
const P2 = 0xc2b2ae3d27d4eb4fn
const P3 = 0x165667b19e3779f9n
const P4 = 0x85ebca77c2b2ae63n
const P5 = 0x27d4eb2f165667c5n

/** The specification of XXH64, word for word. */
function xxh64Of(bytes: Uint8Array, seed: bigint): bigint {
  const rotate = (value: bigint, by: bigint): bigint => ((value << by) | (value >> (64n - by))) & MASK
  const round = (lane: bigint, input: bigint): bigint => (rotate((lane + input * P2) & MASK, 31n) * P1) & MASK
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  let sum = (seed + P5) & MASK
  if (bytes.length >= 32) {
    let lanes = [seed + P1 + P2, seed + P2, seed, seed - P1].map((lane) => lane & MASK)
    for (; at + 32 <= bytes.length; at += 32) {
      lanes = lanes.map((lane, i) => round(lane, view.getBigUint64(at + 8 * i, true)))
    }
    sum = [1n, 7n, 12n, 18n].reduce((total, by, i) => total + rotate(lanes[i]!, by), 0n) & MASK
    for (const lane of lanes) sum = ((sum ^ round(0n, lane)) * P1 + P4) & MASK
  }
  sum = (sum + BigInt(bytes.length)) & MASK
  for (; at + 8 <= bytes.length; at += 8)
    sum = (rotate(sum ^ round(0n, view.getBigUint64(at, true)), 27n) * P1 + P4) & MASK
  if (at + 4 <= bytes.length) {
    sum = (rotate(sum ^ ((BigInt(view.getUint32(at, true)) * P1) & MASK), 23n) * P2 + P3) & MASK
    at += 4
  }
  for (; at < bytes.length; at++) sum = (rotate(sum ^ ((BigInt(bytes[at]!) * P5) & MASK), 11n) * P1) & MASK
  sum = ((sum ^ (sum >> 33n)) * P2) & MASK
  sum = ((sum ^ (sum >> 29n)) * P3) & MASK
  return sum ^ (sum >> 32n)
}
