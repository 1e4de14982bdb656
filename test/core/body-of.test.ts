import { describe, expect, test } from 'vitest'
import { bodyOf } from '../../src/core/body.ts'
import { bytes, Reader } from '../support/body-bench.ts'

describe('a body made of what is there', () => {
  test('is pushed at once, pauses and resumes, and ends once with its trailers', () => {
    const all = new Reader().read(bodyOf([bytes('a'), bytes('b')], ['t', '1']))
    expect(all.log).toEqual(['a', 'b', 'end with t 1'])
    const slow = new Reader(() => false).read(bodyOf([bytes('a'), bytes('b')]))
    expect(slow.log).toEqual(['a'])
    slow.control?.resume()
    expect(slow.log).toEqual(['a', 'b'])
    slow.control?.resume()
    slow.control?.resume()
    expect(slow.log).toEqual(['a', 'b', 'end'])
  })

  test('says no more after a cancel', () => {
    const reader = new Reader(() => false).read(bodyOf([bytes('a'), bytes('b')]))
    reader.control?.cancel(new Error('enough'))
    reader.control?.resume()
    expect(reader.log).toEqual(['a'])
  })

  test('may be empty, and may be discarded', () => {
    expect(new Reader().read(bodyOf()).log).toEqual(['end'])
    bodyOf([bytes('a')]).discard()
  })
})
