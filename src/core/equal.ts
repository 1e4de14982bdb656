import { Secret } from './secret.ts'

/**
 * Whether two settings say the same. Plain objects, arrays and secrets are compared by what is in them; functions and every
 * other object only by identity, since nobody can see into them. No depth is too much, and what leads back to itself comes to an
 * end: what a user's part holds may be anything.
 */
export function isDeepEqual(a: unknown, b: unknown): boolean {
  if (!isPlain(a) || !isPlain(b)) return isSame(a, b)
  const met = new Map<object, Set<object>>()
  const pairs: [Plain, Plain][] = [[a, b]]
  for (let pair = pairs.pop(); pair !== undefined; pair = pairs.pop()) {
    const [one, other] = pair
    if (Object.is(one, other)) continue
    const keys = Object.keys(one)
    if (Array.isArray(one) !== Array.isArray(other) || keys.length !== Object.keys(other).length) return false
    const others = met.get(one) ?? new Set()
    if (others.has(other)) continue // it was seen to, or is being seen to
    met.set(one, others.add(other))
    for (const key of keys) {
      if (!Object.hasOwn(other, key)) return false
      const [inner, otherInner] = [one[key], other[key]]
      if (isPlain(inner) && isPlain(otherInner)) pairs.push([inner, otherInner])
      else if (!isSame(inner, otherInner)) return false
    }
  }
  return true
}

type Plain = Readonly<Record<string, unknown>>

function isSame(a: unknown, b: unknown): boolean {
  return Object.is(a, b) || (a instanceof Secret && b instanceof Secret && a.equals(b))
}

/** Objects made by a literal, and arrays. */
export function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype || Array.isArray(value)
}
