import { describe, expect, test } from 'vitest'
import { header, isNamed, latin1, wireHeaders, withHeaders } from '../../src/core/headers.ts'

const bytes = (...codes: number[]): Uint8Array => Uint8Array.from(codes)
const raw = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0))

describe('the text of a header', () => {
  test('is a string as it is, or bytes as latin1: every byte its own character', () => {
    expect(latin1('ü')).toBe('ü')
    expect(latin1(bytes(0x66, 0xfc, 0x72))).toBe('für')
    const all = bytes(...Array.from({ length: 256 }, (_, i) => i))
    expect(latin1(all)).toBe(Buffer.from(all).toString('latin1'))
    expect(latin1(bytes())).toBe('')
  })
})

describe('a header', () => {
  test('is found whatever its case, as bytes or as text, the first of several', () => {
    const headers = ['Accept', '*/*', raw('CONTENT-Length'), raw('12'), 'content-length', '13']
    expect(header(headers, 'content-length')).toBe('12')
    expect(header(headers, 'accept')).toBe('*/*')
  })

  test('is undefined without one, and values are not mistaken for names', () => {
    expect(header(['a', 'b'], 'b')).toBeUndefined()
    expect(header([], 'a')).toBeUndefined()
  })
})

describe('a name', () => {
  test('is compared by ASCII letters alone', () => {
    for (const [given, name, same] of [
      ['X-Id', 'x-id', true],
      ['x-id', 'x-id', true],
      ['x-ida', 'x-id', false],
      ['', '', true],
      ['x\rid', 'x-id', false], // '\r' | 32 is '-'
      ['@', '`', false], // just beside A and a
      ['[', '{', false], // just beside Z and z
      ['\u212a', 'k', false], // the Kelvin sign, which toLowerCase() makes a k
    ] as const) {
      expect(isNamed(given, name), JSON.stringify(given)).toBe(same)
      if (given !== '\u212a') expect(isNamed(raw(given), name)).toBe(same)
    }
  })
})

describe('setting headers', () => {
  test('replaces every repeat, whatever its case, and keeps the order of the rest', () => {
    const before = ['A', '1', 'x-key', 'mine', 'B', '2', raw('X-KEY'), raw('mine too'), 'A', '3']
    expect(wireHeaders(withHeaders(before, { 'X-Key': 'theirs', c: '4' }))).toEqual([
      ...['A', '1', 'B', '2', 'A', '3'],
      ...['X-Key', 'theirs', 'c', '4'],
    ])
  })

  test('changes nothing when there is nothing to set, and never its argument', () => {
    const before = Object.freeze(['a', '1'])
    expect(withHeaders(before, {})).toEqual(before)
    expect(wireHeaders(withHeaders(before, { a: '2' }))).toEqual(['a', '2'])
    expect(before).toEqual(['a', '1'])
  })
})
