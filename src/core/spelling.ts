/** How names and key sources are spelled: configuration, strategies and adapters ask here. */

/** Names of headers and cookies (RFC 9110 5.6.2). */
const TOKEN = "[\\w!#$%&'*+.^`|~-]+"
const WHOLE_TOKEN = new RegExp(`^${TOKEN}$`)
const KEY_SOURCE = new RegExp(`^(call|ip|path)$|^(header|cookie):${TOKEN}$`)

export function isToken(text: string): boolean {
  return WHOLE_TOKEN.test(text)
}

/** Whether a strategy can read its key from there. */
export function isKeySource(value: unknown): boolean {
  return typeof value === 'function' || (typeof value === 'string' && KEY_SOURCE.test(value))
}

export function isPrime(value: number): boolean {
  if (!Number.isSafeInteger(value) || value < 2) return false
  for (let i = 2; i * i <= value; i++) if (value % i === 0) return false
  return true
}
