import type { BalancerRequest, KeySource, RequestHeaders, Strategy } from '../core/contracts.ts'
import { cookie } from '../core/cookies.ts'
import { isNamed, latin1 } from '../core/headers.ts'
import { isKeySource } from '../core/spelling.ts'
import { expected } from './expected.ts'

const TEXT = "what to hash: 'call', 'ip', 'path', 'header:NAME' (any but host), 'cookie:NAME' or a function"

/** How to read the key of a call that brings none; undefined: there is nothing to read. */
export function keyOf(strategy: string, source: KeySource | undefined): Strategy['keyOf'] {
  expected(isKeySource(source), `${strategy}: key`, TEXT, source)
  if (typeof source === 'function') return source
  if (source === 'call') return undefined
  if (source === 'ip') return (_, { address }) => address
  if (source === 'path') return ({ path }) => withoutQuery(path)
  const name = source!.slice('header:'.length) // 'cookie:' is as long
  if (source!.startsWith('cookie:')) return ({ headers }) => decoded(cookie(headers, name))
  const lower = name.toLowerCase()
  return ({ headers }) => decoded(joined(headers, lower))
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Header bytes come as latin1. Most senders mean UTF-8, and then the key is the text that a caller's own `key` would be. */
function decoded(value: string | undefined): string | undefined {
  if (value === undefined || !/[\x80-\xff]/.test(value) || /[\u0100-\uffff]/.test(value)) return value
  try {
    return UTF8.decode(Uint8Array.from(value, (byte) => byte.charCodeAt(0)))
  } catch {
    return value
  }
}

/** What strategies that choose by another one have of its key. */
export function keyWithin(inner: Strategy): Pick<Strategy, 'keyOf'> {
  return inner.keyOf === undefined ? {} : { keyOf: (request, call) => inner.keyOf!(request, call) }
}

function withoutQuery(path: BalancerRequest['path']): string {
  const end = path.indexOf('?')
  return end < 0 ? path : path.slice(0, end)
}

/** A header's values as one (RFC 9110 5.3). */
function joined(headers: RequestHeaders, name: string): string | undefined {
  let value: string | undefined
  for (let i = 0; i < headers.length; i += 2) {
    if (!isNamed(headers[i]!, name)) continue
    const next = latin1(headers[i + 1]!)
    value = value === undefined ? next : `${value}, ${next}`
  }
  return value
}
