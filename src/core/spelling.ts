/** How names and key sources are spelled: configuration, strategies and adapters ask here. */

/** Names of headers and cookies (RFC 9110 5.6.2). */
const TOKEN = "[\\w!#$%&'*+.^`|~-]+"
const WHOLE_TOKEN = new RegExp(`^${TOKEN}$`)
/** Not Host: that header is the transport's to write, and no request has it here. */
const KEY_SOURCE = new RegExp(`^(call|ip|path)$|^(header:(?![Hh][Oo][Ss][Tt]$)|cookie:)${TOKEN}$`)
/** Longest part of a name that holds letters and digits all the same, characters: hashes of containers are as long. */
const LONGEST_NAME = 12

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

/**
 * Whether a text may be a key or a token that stands in the wrong place, such as that of a name: one of its parts is long and has
 * letters and digits mixed. Dates, versions and addresses are none.
 */
export function seemsSecret(text: string): boolean {
  return text.split(/[-_.:/#\s]/).some((part) => part.length > LONGEST_NAME && /\d/.test(part) && /\p{L}/u.test(part))
}
