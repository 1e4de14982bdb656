import type { RequestHeaders } from '../core/contracts.ts'
import { isNamed, latin1 } from '../core/headers.ts'
import { Secret } from '../core/secret.ts'
import { isToken } from '../core/spelling.ts'

/** Names and values to be changed. Names have no case. */
export interface HeaderChanges<Value = string> {
  /** Instead of what is there. */
  readonly set?: Readonly<Record<string, Value>>
  /** In addition to what is there. */
  readonly add?: Readonly<Record<string, Value>>
  readonly remove?: readonly string[]
}

/** No control but tab, nothing beyond latin1 (RFC 9110 5.5). */
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/

export function isHeaderValue(value: string | Secret): boolean {
  return value instanceof Secret ? value.matches(VALUE) : VALUE.test(value)
}

/** The header fields of a message, in order and with their repeats, for hooks to change. Names have no case. */
export class HeaderList implements Iterable<[name: string, value: string]> {
  #raw: (string | Uint8Array | Secret)[]
  readonly #isOwn: (name: string) => boolean

  /** `isOwn` = fields that the proxy writes itself, by name in lower case. */
  constructor(raw: RequestHeaders, isOwn: (name: string) => boolean) {
    this.#raw = [...raw]
    this.#isOwn = isOwn
  }

  /** name, value, name, value, ... */
  get raw(): RequestHeaders {
    return this.#raw
  }

  /** The values as one, joined by ', '; undefined without any. */
  get(name: string): string | undefined {
    const values = this.all(name)
    return values.length === 0 ? undefined : values.join(', ')
  }

  /** Every value, as for Set-Cookie. */
  all(name: string): readonly string[] {
    const lower = name.toLowerCase()
    return [...this].filter(([other]) => isNamed(other, lower)).map(([, value]) => value)
  }

  has(name: string): boolean {
    return this.all(name).length > 0
  }

  /** In place of every value that is there. Throws for what is no header, and for fields that the proxy itself writes. */
  set(name: string, value: string | Secret): void {
    this.#check(name, value)
    this.remove(name)
    this.#raw.push(name, value)
  }

  /** Beside what is there. Throws as `set` does. */
  add(name: string, value: string | Secret): void {
    this.#check(name, value)
    this.#raw.push(name, value)
  }

  remove(name: string): void {
    const lower = name.toLowerCase()
    this.#raw = this.#raw.filter((_, i) => !isNamed(this.#raw[i - (i % 2)]!, lower))
  }

  *[Symbol.iterator](): Generator<[name: string, value: string], void, undefined> {
    for (let i = 0; i < this.#raw.length; i += 2) yield [latin1(this.#raw[i]!), latin1(this.#raw[i + 1]!)]
  }

  #check(name: string, value: string | Secret): void {
    if (!isToken(name)) throw new TypeError(`${JSON.stringify(name)} is no name of a header`)
    if (this.#isOwn(name.toLowerCase())) throw new TypeError(`${name} is written by the proxy itself`)
    if (!isHeaderValue(value)) throw new TypeError(`the value of ${name} holds what no header may hold`)
  }
}

/** Changes as a function, made once. */
export function changer(changes: HeaderChanges<string | Secret>): (headers: HeaderList) => void {
  const { set = {}, add = {}, remove = [] } = changes
  const setting = Object.entries(set)
  const adding = Object.entries(add)
  return (headers) => {
    for (const name of remove) headers.remove(name)
    for (const [name, value] of setting) headers.set(name, value)
    for (const [name, value] of adding) headers.add(name, value)
  }
}

/** The same changes with secrets for values: nothing but the wire shows them. */
export function inSecret({ set = {}, add = {}, remove = [] }: HeaderChanges<string | Secret>): HeaderChanges<Secret> {
  return { set: secrets(set), add: secrets(add), remove }
}

function secrets(values: Readonly<Record<string, string | Secret>>): Record<string, Secret> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Secret.of(value)]))
}
