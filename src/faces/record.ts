import type { RawHeaders } from '../core/contracts.ts'
import { latin1 } from '../core/headers.ts'

/** Headers by name, in lower case; a name that came more than once has a list. */
export type HeaderRecord = Readonly<Record<string, string | readonly string[]>>

export function recordOf(raw: RawHeaders): HeaderRecord {
  const record: Record<string, string | string[]> = Object.create(null)
  for (let i = 0; i < raw.length; i += 2) {
    const name = latin1(raw[i]!).toLowerCase()
    const value = latin1(raw[i + 1]!)
    const before = record[name]
    if (before === undefined) record[name] = value
    else if (typeof before === 'string') record[name] = [before, value]
    else before.push(value)
  }
  return record
}
