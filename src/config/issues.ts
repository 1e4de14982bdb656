import { BalancerError, type ConfigIssue } from '../core/errors.ts'
import { nameText, seemsSecret } from '../core/spelling.ts'

export type Path = readonly PropertyKey[]

/** Something wrong, before it is put into words for the user. */
export interface Finding {
  readonly path: Path
  readonly expected: string
  /** Absent: the value at `path` is described. */
  readonly found?: string | undefined
}

/** What is said of what throws when it is looked at, as a getter may. */
export const UNREADABLE: Finding = { path: [], expected: 'an object that can be read', found: 'one that throws' }
/** A message is for people: `issues` has them all. */
const MOST_LISTED = 100
const LONGEST = 60
/** Nobody mistypes a longer word, nor one of more. */
const LONGEST_WORD = 64
const MOST_WORDS = 256
/** Keys whose values are never shown. The first two hold nothing but such values. */
const SECRET_SECTIONS: readonly PropertyKey[] = ['headers', 'tls']
const SECRET_KEY = /key|token|secret|pass(?!ive)|pwd|bearer|credential|auth|cookie/i
/** How long headers may take, and how long a refused credential is left alone, as options and files have it. */
const TIMES = /^(timeouts\.headers|cooldown\.credential(Ms|_ms|_seconds)?)$/
/** Characters that would let a value move the cursor or break the line of a log. */
const CONTROL = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

/** As in `backends[2].weight`; names that are no words are quoted: `pools["my.api"]`. The root is `options`. */
export function pathText(path: Path): string {
  const parts = path.map((key, depth) => {
    if (typeof key === 'number') return `[${key}]`
    if (/^[A-Za-z_$][\w$-]{0,63}$/.test(String(key))) return depth === 0 ? String(key) : `.${String(key)}`
    return `[${quoted(String(key))}]`
  })
  return parts.join('') || 'options'
}

/** As `pathText`, for messages: a key that was pasted where a name belongs does not show. */
export function placeText(path: Path): string {
  return pathText(path.map((key) => (typeof key === 'string' ? nameText(key) : key)))
}

/** Words of ours, with names that users gave in quotes or as parts of paths: a key among those does not show. */
export function clearedText(text: string): string {
  return text.replace(/"((?:[^"\\]|\\.)*)"|\.([A-Za-z_$][\w$-]*)/g, (all: string, quote?: string, part?: string) => {
    const name = quote ?? part!
    if (!seemsSecret(name)) return all
    return quote === undefined ? `["${nameText(name)}"]` : `"${nameText(name)}"`
  })
}

/** Tells paths apart; `pathText` does not where it cuts long names. */
export function pathKey(path: Path): string {
  return path.map(String).join('\n')
}

/** Knows the paths that were found wrong, and all within them. */
export function badPaths(findings: readonly Finding[]): (path: Path) => boolean {
  if (findings.length === 0) return () => false
  const bad = new Set(findings.map(({ path }) => pathKey(path)))
  return (path) => {
    let key = ''
    return path.some((part, depth) => {
      key = depth === 0 ? String(part) : `${key}\n${String(part)}`
      return bad.has(key)
    })
  }
}

/** The value at a path, or undefined where the path leads nowhere. */
export function valueAt(root: unknown, path: Path): unknown {
  let value = root
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return undefined
    value = (value as Record<PropertyKey, unknown>)[key]
  }
  return value
}

/** A short description that never shows a secret: of those only type and length. */
export function foundText(value: unknown, path: Path): string {
  switch (typeof value) {
    case 'string':
      return isSecret(path) || isSecretUrl(value) || seemsSecret(value) ? lengthText('a string', value) : quoted(value)
    case 'number':
      if (isSecret(path)) return 'a number'
      return Object.is(value, -0) ? '-0' : String(value)
    case 'boolean':
      return isSecret(path) ? 'a boolean' : String(value)
    case 'undefined':
      return 'undefined'
    case 'object':
      return value === null ? 'null' : objectText(value)
    default:
      return `a ${typeof value}`
  }
}

/** `what of n characters`. */
export function lengthText(what: string, text: string): string {
  return `${what} of ${text.length} ${text.length === 1 ? 'character' : 'characters'}`
}

/** What was probably meant by an unknown word, if anything known is close. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  if (word.length > LONGEST_WORD || known.length > MOST_WORDS) return undefined
  let best: string | undefined
  let least = Math.min(3, Math.max(1, Math.floor(word.length / 3))) + 1
  for (const candidate of known) {
    // The difference in length bounds the distance from below.
    if (Math.abs(candidate.length - word.length) >= least) continue
    const edits = distance(word.toLowerCase(), candidate.toLowerCase())
    if (edits >= least) continue
    best = candidate
    least = edits
  }
  return best
}

/** True for what a configuration is made of: not an array, Map, Date, URL, Promise, ... */
export function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && /^(Object|Module)$/.test(tagOf(value))
}

/** One error for everything that is wrong, in the order of the document. */
export function configError(root: unknown, findings: readonly Finding[], cause?: unknown): BalancerError {
  const unique = new Map<string, ConfigIssue>()
  for (const { path, expected, found } of inOrder(root, findings)) {
    const issue = {
      path: placeText(path),
      expected: clearedText(expected),
      found: found === undefined ? foundText(valueAt(root, path), path) : clearedText(found),
    }
    // What is said of the balancer may clash in several pools.
    unique.set(`${pathKey(path)}\n\n${expected}`, issue)
  }
  const issues = [...unique.values()]
  const title = issues.length === 1 ? '1 thing is wrong' : `${issues.length} things are wrong`
  const lines = listed(issues, ({ path, expected, found }) => `${path}: expected ${expected}, found ${found}`)
  return new BalancerError('CONFIG', [`${title} with the configuration:`, ...lines].join('\n'), { issues, cause })
}

/** The lines of a message. */
export function listed(issues: readonly ConfigIssue[], textOf: (issue: ConfigIssue) => string): readonly string[] {
  const lines = issues.slice(0, MOST_LISTED).map((issue) => `  ${textOf(issue)}`)
  return issues.length > MOST_LISTED ? [...lines, `  and ${issues.length - MOST_LISTED} more`] : lines
}

export function quoted(text: string): string {
  const short = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text
  return JSON.stringify(short).replace(CONTROL, (char) => `\\u{${char.codePointAt(0)!.toString(16)}}`)
}

export function isSecret(path: Path): boolean {
  // A pool may well be called "tokens": its name says nothing about what is in it.
  const keys = path[0] === 'pools' && path.length > 2 ? path.slice(2) : path
  // Nothing but our own words: one of the classes is 'auth', and a strategy's 'key' says where keys come from.
  if (keys[0] === 'classes' || keys[0] === 'strategy' || keys[0] === 'strategies') return false
  return keys.some((key, at) => {
    if (TIMES.test(`${String(keys[at - 1])}.${String(key)}`)) return false
    return SECRET_SECTIONS.includes(key) || SECRET_KEY.test(String(key))
  })
}

/** User information, or a query that may carry a token. It need not parse: broken URLs and paths hold secrets too. */
export function isSecretUrl(text: string): boolean {
  return text.includes('@') || (/^\/|:\/\//.test(text) && /[?#]/.test(text))
}

function objectText(value: object): string {
  if (Array.isArray(value)) return `an array of ${value.length}`
  const tag = tagOf(value)
  if (tag === 'Object' || !/^[A-Za-z]\w{0,30}$/.test(tag)) return 'an object'
  return `${/^[AEIO]/i.test(tag) ? 'an' : 'a'} ${tag}`
}

function tagOf(value: object): string {
  return Object.prototype.toString.call(value).slice('[object '.length, -1)
}

/** By place in the document; what is missing from it comes after what is there, a part before what is in it. */
export function inOrder(root: unknown, findings: readonly Finding[]): readonly Finding[] {
  const places = new Map<unknown, Map<PropertyKey, number>>()
  const placeOf = (container: unknown, key: PropertyKey): number => {
    if (typeof key === 'number') return key
    if (typeof container !== 'object' || container === null) return Infinity
    const known = places.get(container) ?? new Map(Reflect.ownKeys(container).map((own, place) => [own, place]))
    places.set(container, known)
    return known.get(key) ?? Infinity
  }
  const placed = findings.map((finding) => ({
    finding,
    place: finding.path.map((key, depth) => placeOf(valueAt(root, finding.path.slice(0, depth)), key)),
  }))
  return placed.sort((a, b) => compare(a.place, b.place)).map(({ finding }) => finding)
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (let depth = 0; depth < Math.min(a.length, b.length); depth++) {
    if (a[depth]! !== b[depth]!) return a[depth]! < b[depth]! ? -1 : 1
  }
  return a.length - b.length
}

/** Edits that turn one word into the other, a swap of neighbours being one (optimal string alignment). */
function distance(a: string, b: string): number {
  let before: number[] = []
  let above = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      let edits = Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + same)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) edits = Math.min(edits, before[j - 2]! + 1)
      row.push(edits)
    }
    before = above
    above = row
  }
  return above[b.length]!
}
