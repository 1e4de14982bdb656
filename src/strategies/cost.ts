import type { Backend } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import type { Cost } from '../core/strategy-options.ts'
import { expected } from './expected.ts'

export function costsOf(backends: readonly Backend[], cost: Cost, strategy: string): Float64Array {
  return Float64Array.from(backends, (backend) => {
    const what = `${strategy}: cost of backend ${backend.id}`
    const one = said(cost, backend, what)
    expected(one >= 0 && one < Infinity, what, 'a number >= 0', one)
    return one
  })
}

/** What a user's function says of a backend; what it throws is told by whose it is. */
export function said<T>(of: (backend: Backend) => T, backend: Backend, what: string): T {
  try {
    return of(backend)
  } catch (cause) {
    throw new BalancerError('CONFIG', `${what} failed`, { cause })
  }
}
