import { describe, expect, test } from 'vitest'
import { isDeepEqual } from '../../src/core/equal.ts'
import { deep } from '../support/config-edits.ts'

/** A ring of so many objects, each with two ways to the next. */
function ring(length: number, value = 1): object {
  const all = Array.from({ length }, (): Record<string, unknown> => ({ value, run: Math.max }))
  for (const [place, one] of all.entries()) one.next = one.other = all[(place + 1) % length]
  return all[0]!
}

describe('settings say the same', () => {
  test('or not, by what is in them', () => {
    const make = (): object => ({ a: [1, { b: 'c' }], n: NaN, run: Math.max, none: undefined })
    expect(isDeepEqual(make(), make())).toBe(true)
    for (const other of [{ a: [1, { b: 'd' }] }, { none: null }, { run: Math.min }, { a: { 0: 1, 1: { b: 'c' } } }]) {
      expect(isDeepEqual(make(), { ...make(), ...other })).toBe(false)
    }
    expect(isDeepEqual({ a: undefined }, { b: undefined })).toBe(false)
    expect(isDeepEqual({ at: new Date(0) }, { at: new Date(0) })).toBe(false)
    expect(isDeepEqual([], {})).toBe(false)
    expect(isDeepEqual({}, undefined)).toBe(false)
  })

  test('if one object stands where the other has two that are equal', () => {
    const one = { a: 1 }
    expect(isDeepEqual({ x: one, y: one }, { x: { a: 1 }, y: { a: 1 } })).toBe(true)
    expect(isDeepEqual({ x: one, y: one }, { x: { a: 1 }, y: { a: 2 } })).toBe(false)
  })

  test('or not, when they lead back to themselves', () => {
    expect(isDeepEqual(ring(1), ring(1))).toBe(true)
    expect(isDeepEqual(ring(2), ring(3))).toBe(true)
    expect(isDeepEqual(ring(2), ring(3, 2))).toBe(false)
  })

  test('or not, however deep they are and however often they hold the same', () => {
    const lists = (): unknown => deep(100_000, (inner) => [inner])
    expect(isDeepEqual(lists(), lists())).toBe(true)
    expect(isDeepEqual(lists(), [lists()])).toBe(false)
    const endless = (): unknown => deep(40, (inner) => ({ a: inner, b: inner })) // 2^40 ways
    expect(isDeepEqual(endless(), endless())).toBe(true)
    expect(isDeepEqual(endless(), { a: endless(), b: 1 })).toBe(false)
  })
})
