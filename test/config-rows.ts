// What the tests of the configuration share.
import { inspect } from 'node:util'
import { expect } from 'vitest'
import { resolveOptions } from '../src/config/schema.ts'
import { systemClock } from '../src/core/clock.ts'
import { BalancerError } from '../src/core/errors.ts'
import type { ResolvedOptions } from '../src/core/resolved.ts'

/** An input and parts of the only issue it makes. */
export type Row = readonly [input: unknown, path: string, expected: string, found: string]

export const A = 'http://127.0.0.1:3001'

export function resolve(options: unknown): ResolvedOptions {
  return resolveOptions(options, { clock: systemClock, random: () => () => 0 })
}

export function refused(options: unknown): BalancerError {
  try {
    resolve(options)
  } catch (error) {
    if (error instanceof BalancerError && error.code === 'CONFIG') return error
    throw error
  }
  throw new Error(`accepted: ${inspect(options)}`)
}

export function expectRows(rows: readonly Row[], wrap: (input: unknown) => unknown = (input) => input): void {
  for (const [input, path, expected, found] of rows) {
    const options = wrap(input)
    expect(refused(options).issues, inspect(options, { depth: 9 })).toEqual([
      { path, expected: expect.stringContaining(expected), found: expect.stringContaining(found) },
    ])
  }
}

export function one(backend: unknown): unknown {
  return { backends: [backend] }
}

export function endpoint(rest: unknown): unknown {
  return one({ url: A, ...(rest as object) })
}

export function setting(rest: unknown): unknown {
  return { backends: [A], ...(rest as object) }
}

export const verb = (): undefined => undefined

/** `{ a: { b: value } }` of 'a.b'. */
export function nested(path: string, value: unknown): object {
  return path.split('.').reduceRight((inner, key) => ({ [key]: inner }), value) as object
}

/** The leaves of sections, as in 'a.b'. */
export function leaves(value: unknown, path: readonly string[] = []): readonly string[] {
  const plain = typeof value === 'object' && value !== null && !Array.isArray(value)
  if (!plain || Object.keys(value).length === 0) return [path.join('.')]
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]))
}

/** What is wrong, one line each: 'path: expected, found'; nothing if all is well. */
export function complaints(options: unknown): readonly string[] {
  try {
    resolve(options)
    return []
  } catch (error) {
    if (!(error instanceof BalancerError)) throw error
    return error.issues!.map(({ path, expected, found }) => `${path}: ${expected}, found ${found}`)
  }
}
