// Secrets that are planted, and the search for them in everything that comes out.
import { inspect } from 'node:util'

/** A planted secret, by the way it came in. */
export interface Canary {
  readonly name: string
  readonly value: string
}

type Planted = 'key' | 'env' | 'file' | 'cookie' | 'caller' | 'user'

/** Each has what base64, percent-encoding, JSON and latin1 write in another way, and two halves that are no words. */
export const CANARIES: Readonly<Record<Planted, Canary>> = {
  key: { name: 'the key of a provider', value: 'sk-4f/Qz+9~xK=&7m?Lw%2T"u' },
  env: { name: 'a header from the environment', value: 'eNv+ü/9Zr\\Tq&Xw2~Lm5=="%d4Hk' },
  file: { name: 'a header from a file', value: 'fIl"3\\p@ss/w0rd?Hh7+Gg3ß=Nn' },
  cookie: { name: 'the secret of cookies', value: 'aFf~1ni+ty/Sgn=Kq8&Zx4%Vb6"Mn2\\Pl9-Yt3@?' },
  caller: { name: "the caller's own", value: 'cLr/3r+tk=Ww9~"\\Jd%5&Bv8@' },
  user: { name: "a user's token", value: 'uSr/t0k+En=Hf6&"\\Rg2~%Kp9@' },
}
export const ALL: readonly Canary[] = Object.values(CANARIES)

/** Parts shorter than this may be anywhere by chance, bytes. */
const LEAST_BYTES = 8
const EVERYTHING = { depth: Infinity, showHidden: true, maxArrayLength: null, maxStringLength: null } as const

/** A secret and both of its halves, in every form in which a text may hold them. */
export function formsOf(value: string): ReadonlyMap<string, string> {
  const middle = Math.ceil(value.length / 2)
  const parts = { whole: value, 'first half': value.slice(0, middle), 'second half': value.slice(middle) }
  const forms = new Map<string, string>()
  for (const [part, text] of Object.entries(parts)) {
    if (Buffer.byteLength(text) < LEAST_BYTES) throw new Error(`a canary's ${part} is too short`)
    for (const [form, encoded] of encodings(text)) forms.set(`${part}, ${form}`, encoded)
  }
  return forms
}

function encodings(text: string): readonly (readonly [form: string, encoded: string])[] {
  const escaped = JSON.stringify(text).slice(1, -1)
  const ascii = escaped.replace(/[^\0-\x7f]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
  const form = new URLSearchParams([['', text]]).toString().slice(1)
  const percent = encodeURIComponent(text)
  return [
    ['raw', text],
    ['in JSON', escaped],
    ['in JSON of ASCII', ascii],
    ['as a program has it', inspect(text).slice(1, -1)],
    ['percent-encoded', percent],
    ['percent-encoded in lower case', lowered(percent)],
    ['percent-encoded for a path', encodeURI(text)],
    ['form-encoded', form],
    ...(['utf8', 'latin1'] as const).flatMap((charset) => {
      const bytes = Buffer.from(text, charset)
      const all = bytes.toString('hex').replace(/../g, '%$&')
      return [
        [`bytes of ${charset}`, bytes.toString('latin1')] as const,
        [`hex of ${charset}`, bytes.toString('hex')] as const,
        [`HEX of ${charset}`, bytes.toString('hex').toUpperCase()] as const,
        [`every byte of ${charset} percent-encoded`, all] as const,
        [`every byte of ${charset} percent-encoded in upper case`, all.toUpperCase()] as const,
        ...[0, 1, 2].flatMap((before) => {
          const core = base64Core(bytes, before)
          const url = core.replaceAll('+', '-').replaceAll('/', '_')
          const what = `of ${charset} behind ${before} bytes`
          return [[`base64 ${what}`, core] as const, [`base64url ${what}`, url] as const]
        }),
      ]
    }),
  ]
}

/** The characters that are the same whatever stands around the bytes: padding or not is all one then. */
function base64Core(bytes: Buffer, before: number): string {
  const encoded = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64')
  return encoded.slice(Math.ceil((before * 8) / 6), Math.floor(((before + bytes.length) * 8) / 6))
}

function lowered(percent: string): string {
  return percent.replace(/%../g, (code) => code.toLowerCase())
}

/** Everything that came out, seen in every way. */
export class Outputs {
  readonly #where = new Map<string, string>()
  /** What is alive, and is looked at once more at the end. */
  readonly #kept = new Map<string, unknown[]>()

  /** How many texts, and how long they are together. */
  get size(): { readonly texts: number; readonly characters: number } {
    const characters = [...this.#where.keys()].reduce((sum, text) => sum + text.length, 0)
    return { texts: this.#where.size, characters }
  }

  /** Places, in the order in which they were first heard of. */
  get places(): readonly string[] {
    return [...new Set(this.#where.values())]
  }

  text(where: string, text: string): void {
    if (!this.#where.has(text)) this.#where.set(text, where)
  }

  add(where: string, thing: unknown): void {
    for (const text of viewsOf(thing)) this.text(where, text)
  }

  /**
   * What lives on and hangs together with everything else, such as an attempt: seen in every way when something like it comes for the
   * first time, and in its parts at the end.
   */
  keep(where: string, thing: unknown): void {
    const others = this.#kept.get(where)
    if (others !== undefined) return void others.push(thing)
    this.#kept.set(where, [thing])
    this.add(where, thing)
  }

  /** Whether a text came out. */
  includes(text: string): boolean {
    return [...this.#where.keys()].some((known) => known.includes(text))
  }

  /** Which secret came out where, each once, and the form in which it was found first. */
  leaks(canaries: readonly Canary[]): readonly string[] {
    const seen = new Set<unknown>()
    for (const [where, things] of this.#kept) this.text(where, things.map((thing) => partsOf(thing, seen)).join(''))
    return canaries.flatMap(({ name, value }) => {
      const forms = leastOf([...formsOf(value)])
      const found = new Map<string, string>()
      for (const [text, where] of this.#where) {
        const form = found.get(where) ?? forms.find(([, encoded]) => text.includes(encoded))?.[0]
        if (form !== undefined) found.set(where, form)
      }
      return [...found].map(([where, form]) => `${name} (${form}) in ${where}`)
    })
  }
}

/** Without those that hold another one: where they are, that one is found. */
function leastOf(forms: readonly (readonly [form: string, encoded: string])[]): typeof forms {
  const all = new Set(forms.map(([, encoded]) => encoded))
  return forms.filter(([, encoded], at) => {
    const isFirst = forms.findIndex(([, other]) => other === encoded) === at
    return isFirst && [...all].every((other) => other === encoded || !encoded.includes(other))
  })
}

/** Every way of looking at something without asking it by name for what it keeps. */
function viewsOf(thing: unknown): readonly string[] {
  const views = [inspect(thing, EVERYTHING), inspect(thing), String(thing), jsonOf(thing), partsOf(thing, new Set())]
  try {
    views.push(inspect(structuredClone(thing), EVERYTHING))
  } catch (error) {
    views.push(inspect(error, EVERYTHING))
  }
  return views
}

/** As `JSON.stringify` has it, but what leads back to itself is left out instead of refused. */
function jsonOf(thing: unknown): string {
  const seen = new Set<object>()
  const text = JSON.stringify(thing, (_, value: unknown) => {
    if (typeof value === 'bigint') return String(value)
    if (typeof value !== 'object' || value === null) return value
    if (seen.has(value)) return '[seen]'
    seen.add(value)
    return value
  })
  return text ?? ''
}

/** Every own property, whatever an object says of itself: what a serializer of errors would write. */
function partsOf(thing: unknown, seen: Set<unknown>): string {
  if (typeof thing === 'string') return `${thing}\n`
  if ((typeof thing !== 'object' && typeof thing !== 'function') || thing === null || seen.has(thing)) return ''
  seen.add(thing)
  if (ArrayBuffer.isView(thing)) {
    return `${Buffer.from(thing.buffer, thing.byteOffset, thing.byteLength).toString('latin1')}\n`
  }
  let text = ''
  if (thing instanceof Map) for (const entry of thing) text += partsOf(entry, seen)
  if (thing instanceof Set) for (const member of thing) text += partsOf(member, seen)
  for (const key of Reflect.ownKeys(thing)) {
    text += `${String(key)}\n`
    // Not through getters, but for the stack of an error, which is one.
    const { value } = Object.getOwnPropertyDescriptor(thing, key) ?? {}
    text += partsOf(key === 'stack' ? (thing as Error).stack : value, seen)
  }
  return text
}
