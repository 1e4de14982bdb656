import type { Backend } from '../core/contracts.ts'
import { expected } from './expected.ts'

/** What a call to a backend costs, >= 0, in any unit; asked at every change of members, never on the request path. */
export type Cost = (backend: Backend) => number

export function costsOf(backends: readonly Backend[], cost: Cost, strategy: string): Float64Array {
  return Float64Array.from(backends, (backend) => {
    const one = cost(backend)
    expected(one >= 0 && one < Infinity, `${strategy}: cost of backend ${backend.id}`, 'a number >= 0', one)
    return one
  })
}
