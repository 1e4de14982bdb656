const REDACTED = '[redacted]'
/** Parts of a secret shorter than this are words like 'Bearer': taking them out of texts would only garble these. */
const LEAST_LENGTH = 8
/** What no encoding of texts changes: neither percent-encoding, nor that of forms, nor JSON, nor UTF-8. */
const PLAIN = /^[\w.*-]+$/

/** Copies by `structuredClone` or a message would be empty objects that pass for secrets: of a proxy it makes none, but throws. */
class Uncloneable {
  constructor() {
    // biome-ignore lint/correctness/noConstructorReturn: private fields of what extends this stand on the proxy
    return new Proxy(this, {})
  }
}

/** What a hash function makes of a secret's value. No method: whoever has a secret could ask it for the value itself. */
export let digestOf: (secret: Secret, hash: (text: string) => string) => string

/**
 * A key, a token, the value of a configured header: everything but `reveal` shows `[redacted]`, be it printed, logged, put into a
 * template or into JSON; `structuredClone` of it throws. Wrap early, reveal only where it goes onto the wire.
 *
 * @example
 * const key = new Secret('sk-123')
 * `${key}` // '[redacted]'
 */
export class Secret extends Uncloneable {
  readonly #value: string
  /** Both made when they are first asked for; the forms may be those of another one that has the same value. */
  #forms: readonly string[] | undefined
  #redact: ((text: string) => string) | undefined

  static {
    digestOf = (secret, hash) => hash(secret.#value)
    // Where `util.inspect`, and with it `console.log`, asks how to show an object.
    Object.defineProperty(Secret.prototype, Symbol.for('nodejs.util.inspect.custom'), { value: () => REDACTED })
  }

  constructor(value: string) {
    super()
    this.#value = value
    Object.freeze(this)
  }

  static of(value: string | Secret): Secret {
    return value instanceof Secret ? value : new Secret(value)
  }

  /** The one way to the value. */
  reveal(): string {
    return this.#value
  }

  equals(other: Secret): boolean {
    return this.#value === other.#value
  }

  /** Whether the value is as a pattern wants it: enough to check a configuration. */
  matches(pattern: RegExp): boolean {
    return pattern.test(this.#value)
  }

  /** Takes many of them out of a text at once: what that costs goes by the length of the text, not by how many they are. */
  static redacting(secrets: Iterable<Secret>): (text: string) => string {
    const forms = new Set(Secret.#formsOfAll([...secrets]).flat())
    const byStart = Map.groupBy(forms, (form) => form.slice(0, LEAST_LENGTH))
    // The longest first: one may be in the other.
    for (const known of byStart.values()) known.sort((a, b) => b.length - a.length)
    return (text) => without(text, byStart)
  }

  /**
   * Made once for each value and shared by all that have it: every revision of a configuration has secrets of its own, and most of
   * them say the same.
   */
  static #formsOfAll(secrets: readonly Secret[]): readonly (readonly string[])[] {
    const made = secrets.flatMap((secret) =>
      secret.#forms === undefined ? [] : [[secret.#value, secret.#forms] as const],
    )
    const known = new Map(made)
    for (const secret of secrets) {
      secret.#forms = known.get(secret.#value) ?? formsOf(secret.#value)
      known.set(secret.#value, secret.#forms)
    }
    return [...known.values()]
  }

  /**
   * A text that others wrote, without the value: neither as it is, nor each of its words of at least 8 characters, nor in base64,
   * hex, percent-encoded or as JSON writes it.
   */
  redactIn(text: string): string {
    this.#redact ??= Secret.redacting([this])
    return this.#redact(text)
  }

  override toString(): string {
    return REDACTED
  }

  toJSON(): string {
    return REDACTED
  }

  override valueOf(): string {
    return REDACTED
  }

  [Symbol.toPrimitive](): string {
    return REDACTED
  }
}

/** A value and its words, in every form in which they may come back. */
function formsOf(value: string): readonly string[] {
  const words = new Set([value, ...value.split(' '), ...value.split(/[\s;,=]/)])
  const forms = [...words].filter((word) => word.length >= LEAST_LENGTH).flatMap(encodingsOf)
  return [...new Set(forms)]
}

function encodingsOf(word: string): readonly string[] {
  if (PLAIN.test(word)) return [word, ...base64Of(word), ...hexOf(word)]
  const percent = encodeURIComponent(word.toWellFormed())
  const lower = percent.replaceAll(/%../g, (code) => code.toLowerCase())
  const form = new URLSearchParams([['', word]]).toString().slice(1)
  const utf8 = Array.from(new TextEncoder().encode(word), (byte) => String.fromCharCode(byte)).join('')
  const isLatin1 = [...word].every((char) => char <= '\xff')
  const inBytes = (isLatin1 && utf8 !== word ? [utf8, word] : [utf8]).flatMap((bytes) => [
    ...base64Of(bytes),
    ...hexOf(bytes),
  ])
  return [
    word,
    percent,
    lower,
    encodeURI(word.toWellFormed()),
    form,
    JSON.stringify(word).slice(1, -1),
    utf8,
    ...inBytes,
  ]
}

/** With and without padding; and what it is as a part of something else, such as the password behind the name of a user. */
function base64Of(bytes: string): readonly string[] {
  const padded = btoa(bytes)
  const inner = [0, 1, 2].map((before) => {
    const encoded = btoa('\0'.repeat(before) + bytes)
    // The characters that have no bits of anything else.
    return encoded.slice(Math.ceil((before * 8) / 6), Math.floor(((before + bytes.length) * 8) / 6))
  })
  const all = [padded, padded.replace(/=+$/, ''), ...inner]
  return [...all, ...all.map((text) => text.replaceAll('+', '-').replaceAll('/', '_'))]
}

function hexOf(bytes: string): readonly string[] {
  const digits = Array.from(bytes, (byte) => byte.charCodeAt(0).toString(16).padStart(2, '0'))
  const all = [digits.join(''), digits.map((two) => `%${two}`).join('')]
  return [...all, ...all.map((text) => text.toUpperCase())]
}

function without(text: string, byStart: ReadonlyMap<string, readonly string[]>): string {
  let redacted = ''
  let from = 0
  for (let at = 0; at + LEAST_LENGTH <= text.length; at++) {
    const form = byStart.get(text.slice(at, at + LEAST_LENGTH))?.find((known) => text.startsWith(known, at))
    if (form === undefined) continue
    redacted += text.slice(from, at) + REDACTED
    from = at + form.length
    at = from - 1
  }
  return redacted + text.slice(from)
}
