/** How names and key sources are spelled: configuration, strategies and adapters ask here. */

/** Names of headers and cookies (RFC 9110 5.6.2). */
const TOKEN = "[\\w!#$%&'*+.^`|~-]+"
const WHOLE_TOKEN = new RegExp(`^${TOKEN}$`)
/** Not Host: that header is the transport's to write, and no request has it here. */
const KEY_SOURCE = new RegExp(`^(call|ip|path)$|^(header:(?![Hh][Oo][Ss][Tt]$)|cookie:)${TOKEN}$`)
/** How keys begin at services that are known, and in headers. Of what follows some is digits. */
const KEY_START = /(?:^|[^A-Za-z0-9])(?:sk-|xai-|gh[ops]_|AIza|Bearer\s)(?=\S*\d)\S{8}/
/** A part of a name is words of one case, and numbers; `http2MaxStreams` has four of them. */
const WORD = /\p{Lu}?\p{Ll}+|\p{Lu}+|\d+|[^\p{Lu}\p{Ll}\d]+/gu
/** Shortest part that may be a key, and the longest mean of its words, characters: chance makes them of about two, people of five. */
const LEAST_KEY = 20
const LONGEST_WORDS = 3
/** The same of one in both cases and with digits. */
const LEAST_MIXED_KEY = 16
const LONGEST_MIXED_WORDS = 2
/** How much is shown of a key that stands in the wrong place, and how much has to be left then, characters. */
const SHOWN = 4
const LEAST_LEFT = 16

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
 * Whether a text is most likely a key or a token that stands in the wrong place, such as that of a name: it begins as keys do, or one of
 * its parts is long and changes between letters, digits and cases all the time. Names of models, hosts and options do not.
 */
export function seemsSecret(text: string): boolean {
  return KEY_START.test(text) || text.split(/[-_.:/#\s]/).some(isScrambled)
}

/** A name as messages show it: of a key that was pasted there a short start and the length, which tell it from others. */
export function nameText(name: string): string {
  if (!seemsSecret(name)) return name
  return `${name.length - SHOWN >= LEAST_LEFT ? name.slice(0, SHOWN) : ''}…(${name.length})`
}

function isScrambled(part: string): boolean {
  if (part.length < LEAST_MIXED_KEY) return false
  const mean = part.length / part.match(WORD)!.length
  if (part.length >= LEAST_KEY) return mean <= LONGEST_WORDS
  return mean <= LONGEST_MIXED_WORDS && [/\p{Lu}/u, /\p{Ll}/u, /\d/].every((kind) => kind.test(part))
}
