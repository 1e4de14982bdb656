// Edits that spoil a good configuration, as plain data: whoever finds a fault can shrink and replay them.
import { Secret } from 'evenkeel'
import fc from 'fast-check'
import { Planted } from './config-seeds.ts'

// ---- Texts.

const TOKENS: readonly string[] = [
  ...['"', "'", '"""', "'''", '[', ']', '[[', ']]', '{', '}', '=', ',', '.', '#', ':', '-', '\\', '\\u0000', '\\ud800'],
  ...['\n', '\r', '\r\n', '\t', ' ', '\0', '\x1b', '\x7f', '\uFEFF', '\u2028', '\u202e', '\ud800', 'é', '💥'],
  ...['0', '9', '-1', '1e999', '1e-999', '9007199254740993', 'nan', '-inf', '0x', '1_', 'true', 'null', '2024-02-30'],
  ...[
    '1979-05-27T07:32:00Z',
    '07:32:00',
    '""',
    '[]',
    '{}',
    '"5s"',
    '"-5s"',
    '"1e9h"',
    '"http://["',
    '"http://u:p@h/?q#f"',
  ],
  ...['__proto__', 'constructor', 'prototype', 'toString', 'polluted', '"__proto__".polluted = 1\n', '[__proto__]\n'],
  ...['[settings]\n', '[[backends]]\n', '[users.x]\n', '\n[pools.constructor]\n', 'x'.repeat(5_000), '['.repeat(70)],
  ...['a.'.repeat(70), '{a='.repeat(70), `"${'\\u0041'.repeat(2_000)}"`, '# c\n'.repeat(500), '"a"='.repeat(5)],
]
const TEMPLATE_TOKENS: readonly string[] = [
  ...['$', '$$', `\${`, `$\${`, '}', '{', `\${}`, `\${env}`, `\${env:`, `\${env:}`, `\${file:`, `\${file:}`],
  ...[`\${env:KEY}`, `\${env:EMPTY}`, `\${env:LONG}`, `\${env:NESTED}`, `\${env:__proto__}`, `\${env:toString}`],
  ...[
    `\${file:key}`,
    `\${file:.}`,
    `\${file:../..}`,
    `\${file:/dev/zero}`,
    `\${file:\\u0000}`,
    `\${file:${'x'.repeat(500)}}`,
  ],
  ...[
    `\${ENV:KEY}`,
    `\${env:\${env:KEY}}`,
    `\${vault:KEY}`,
    `\${env:${'A'.repeat(200)}}`,
    `\${`.repeat(50),
    ' ',
    '"',
    '\n',
  ],
]
const KINDS = ['insert', 'replace', 'delete', 'digit', 'cut', 'drop-line', 'twice', 'swap-lines', 'join'] as const

export interface Edit {
  readonly kind: (typeof KINDS)[number]
  /** Share of the text before it. */
  readonly at: number
  readonly token: string
  /** Characters, or lines. */
  readonly length: number
}

function edits(tokens: readonly string[]): fc.Arbitrary<readonly Edit[]> {
  const edit = fc.record({
    kind: fc.constantFrom(...KINDS),
    at: fc.nat(9_999).map((it) => it / 10_000),
    token: fc.constantFrom(...tokens),
    length: fc.constantFrom(1, 1, 2, 5, 20),
  })
  return fc.array(edit, { minLength: 1, maxLength: 2 })
}

export const textEdits: fc.Arbitrary<readonly Edit[]> = edits(TOKENS)
export const templateEdits: fc.Arbitrary<readonly Edit[]> = edits(TEMPLATE_TOKENS)

export function edited(text: string, all: readonly Edit[]): string {
  return all.reduce(applied, text)
}

/** The same close to a placeholder. */
export function editedInside(text: string, all: readonly Edit[]): string {
  return all.reduce((now, edit) => {
    const starts = [...now.matchAll(/\$\{/g)].map(({ index }) => index)
    if (starts.length === 0) return applied(now, edit)
    const from = starts[Math.floor(edit.at * starts.length)]!
    const place = from + Math.floor((edit.at * 7_919) % 14) - 1 // from just before it to behind most of them
    return applied(now, { ...edit, at: Math.max(0, place) / (now.length + 14) })
  }, text)
}

function applied(text: string, { kind, at, token, length }: Edit): string {
  const index = Math.round(at * text.length)
  const [before, after] = [text.slice(0, index), text.slice(index)]
  switch (kind) {
    case 'insert':
      return before + token + after
    case 'replace':
      return before + token + after.slice(length)
    case 'delete':
      return before + after.slice(length)
    case 'digit':
      return before + after.replace(/\d/, String(length))
    case 'cut':
      return before
    default:
      return ofLines(text.split('\n'), kind, Math.floor(at * text.split('\n').length), length).join('\n')
  }
}

function ofLines(lines: readonly string[], kind: Edit['kind'], at: number, length: number): readonly string[] {
  const line = lines[at]!
  if (kind === 'drop-line') return lines.toSpliced(at, 1)
  if (kind === 'twice') return lines.toSpliced(at, 0, line)
  const other = (at + length) % lines.length
  if (kind === 'join') return lines.with(at, line + lines[other]!)
  return lines.with(at, lines[other]!).with(other, line)
}

// ---- Trees.

const unread = (): never => {
  throw new Planted('nobody may read this')
}
const trap: ProxyHandler<object> = { get: unread, ownKeys: unread, has: unread, getPrototypeOf: unread }

/** `wrap` of `wrap` of … */
export function deep(levels: number, wrap: (inner: unknown) => unknown): unknown {
  let value: unknown = 1
  for (let depth = 0; depth < levels; depth++) value = wrap(value)
  return value
}

/** By name, and made anew for every use: they are changed in turn. */
const VALUES: Readonly<Record<string, () => unknown>> = {
  ...Object.fromEntries(
    [NaN, Infinity, -Infinity, -1, -0, 0, 1, 0.5, 5e-324, 1e308, 2 ** 31, 2 ** 53, true, false, null, undefined].map(
      (value) => [Object.is(value, -0) ? '-0' : String(value), () => value],
    ),
  ),
  ...Object.fromEntries(
    [
      '',
      ' ',
      'x',
      '5s',
      '0s',
      '999999999999999h',
      '\0',
      '\ud800',
      'é',
      '\n',
      'http://a.test',
      'http://u:p@h/?q',
      'false',
    ].map((text) => [JSON.stringify(text), () => text]),
  ),
  long: () => 'x'.repeat(20_000),
  hour: () => new Date(0),
  'no hour': () => new Date(NaN),
  '10n': () => 10n,
  symbol: () => Symbol('s'),
  'a function': () => () => 1,
  'a throwing function': () => unread,
  '[]': () => [],
  '{}': () => ({}),
  holes: () => new Array(3),
  bare: () => Object.assign(Object.create(null), { a: 1 }),
  'a __proto__': () => JSON.parse('{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}}'),
  map: () => new Map([['polluted', 1]]),
  set: () => new Set([1]),
  bytes: () => new Uint8Array(3),
  url: () => new URL('http://a.test'),
  error: () => new Error('mine'),
  pattern: () => /x/,
  secret: () => new Secret('shown by nobody'),
  instance: () =>
    new (class Mine {
      readonly own = 1
    })(),
  'a getter that throws': () => Object.defineProperty({ a: 1 }, 'a', { get: unread, enumerable: true }),
  'an element that throws': () => Object.defineProperty([1], 0, { get: unread, enumerable: true }),
  'a tag that throws': () => Object.defineProperty({}, Symbol.toStringTag, { get: unread }),
  'a text that throws': () => ({ toString: unread, valueOf: unread, toJSON: unread }),
  'a false tag': () => Object.defineProperty(new Map(), Symbol.toStringTag, { value: 'Object' }),
  trap: () => new Proxy({}, trap),
  'trapped list': () => new Proxy([], trap),
  revoked: () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    return proxy
  },
  frozen: () => Object.freeze({ a: Object.freeze([1]) }),
  'deep lists': () => deep(10_000, (inner) => [inner]),
  'deep tables': () => deep(10_000, (inner) => ({ a: inner })),
  'rather deep': () => deep(70, (inner) => ({ a: [inner] })),
}
const KEYS: readonly string[] = [
  ...['__proto__', 'constructor', 'prototype', 'toString', 'valueOf', 'hasOwnProperty', 'length', 'then', 'toJSON'],
  ...['', ' ', '0', 'é', '\n', '\u202e', '\ud800', 'x'.repeat(10_000), 'a.b', 'a"b', 'url', 'name', 'start', 'headers'],
  ...['weight', 'backends', 'pools', 'models', 'settings', 'strategy', 'enabled', 'tls', 'meta', 'timeouts', 'retry'],
]
const CHANGES = ['drop', 'put', 'rename', 'twin', 'swap', 'wrap', 'bare', 'getter', 'add', 'fill'] as const
/** A list of many takes its time. */
const OFTEN = [...CHANGES, ...CHANGES.slice(0, 3), ...CHANGES.slice(0, -1), 'put', 'put'] as const

export interface Change {
  readonly kind: (typeof CHANGES)[number]
  /** Which of all places in the tree, from 0 to 1. */
  readonly at: number
  readonly to: number
  readonly key: string
  /** Name of a value. */
  readonly value: string
}

const place = fc.nat(9_999).map((it) => it / 10_000)
export const changes: fc.Arbitrary<readonly Change[]> = fc.array(
  fc.record({
    kind: fc.constantFrom(...OFTEN),
    at: place,
    to: place,
    key: fc.constantFrom(...KEYS),
    value: fc.constantFrom(...Object.keys(VALUES)),
  }),
  { minLength: 1, maxLength: 3 },
)

type Container = Record<PropertyKey, unknown>

/** A tree of one's own to change: what is no plain data stays what it is. */
export function copied(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copied)
  if (!isOpen(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, copied(inner)]))
}

/** `tree` is changed in place. */
export function changed(tree: object, all: readonly Change[]): object {
  for (const change of all) {
    const places = placesIn(tree)
    if (places.length === 0) return tree
    spoil(places[Math.floor(change.at * places.length)]!, places[Math.floor(change.to * places.length)]!, change)
  }
  return tree
}

type Place = readonly [container: Container, key: string]

function spoil([container, key]: Place, [otherContainer, otherKey]: Place, change: Change): void {
  const value = valueIn(container, key)
  const given = VALUES[change.value]!()
  switch (change.kind) {
    case 'drop':
      Reflect.deleteProperty(container, key) // from a list too: a hole is one more thing to get wrong
      return
    case 'put':
      return put(container, key, given)
    case 'rename':
      Reflect.deleteProperty(container, key)
      return put(container, change.key, value)
    case 'twin':
      return put(container, `${key}${['_ms', '_seconds', 'Ms', 's'][change.key.length % 4]}`, value)
    case 'swap': // one within the other makes a circle
      put(container, key, valueIn(otherContainer, otherKey))
      return put(otherContainer, otherKey, value)
    case 'wrap':
      return put(container, key, change.key.length % 2 === 0 ? [value] : { [change.key]: value })
    case 'bare':
      return put(container, key, isOpen(value) ? bare(value) : value)
    case 'getter':
      Reflect.defineProperty(container, key, { get: unread, enumerable: true, configurable: true })
      return
    case 'add':
      return put(container, change.key, given)
    case 'fill':
      if (Array.isArray(container)) container.push(...Array.from({ length: 150 }, () => given))
      else for (let n = 0; n < 150; n++) put(container, `${change.key}${n}`, given)
  }
}

/** Without a prototype. What throws when it is read still does. */
function bare(value: Container): unknown {
  return Object.create(null, Object.getOwnPropertyDescriptors(value))
}

/** As an own property, whatever the key; but the length of a list stays. */
function put(container: Container, key: string, value: unknown): void {
  if (Array.isArray(container) && key === 'length') return
  Reflect.defineProperty(container, key, { value, enumerable: true, writable: true, configurable: true })
}

function valueIn(container: Container, key: string): unknown {
  return Object.getOwnPropertyDescriptor(container, key)?.value
}

/** Where something stands, a few thousand at most; nothing of it is asked. */
function placesIn(tree: object): readonly Place[] {
  const seen = new Set<object>([tree])
  const places: Place[] = []
  for (const container of seen) {
    if (places.length > 2_000) break
    for (const key of Object.keys(container)) {
      places.push([container as Container, key])
      const value = valueIn(container as Container, key)
      if (isOpen(value) && Object.isExtensible(value)) seen.add(value)
    }
  }
  return places
}

/** What was written as `{}` or `[]`. */
function isOpen(value: unknown): value is Container {
  if (typeof value !== 'object' || value === null) return false
  try {
    return [null, Object.prototype, Array.prototype].includes(Object.getPrototypeOf(value))
  } catch {
    return false // a trap
  }
}
