/** What a file says, made safe to work with: plain copies without reserved keys, and with every `${…}` replaced. */
import { Secret } from '../core/secret.ts'
import { nameText } from '../core/spelling.ts'
import { type Finding, isPlain, isSecret, type Path, quoted } from './issues.ts'
import { MOST_LEVELS } from './parsed.ts'
import { withoutNames } from './plain.ts'
import { RESERVED_NAMES } from './rules.ts'

/** Where `${…}` comes from. */
export interface Sources {
  env(name: string): string | undefined
  /** The text of a file; rejects if it cannot be used, with a message that says why. */
  file(path: string, place: Path): Promise<string>
}

/** What is escaped stands alone: the next `$` may start something. */
const PLACEHOLDER = /\$\$\{|\$\{([^{}]*\}?)/g
const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/
/** As variables are called, and keys are not. */
const PLAIN_ENV_NAME = /^[A-Z0-9_]+$/
const FORMS = `\${env:NAME} or \${file:path}, and $\${ where \${ itself is meant`

/** One table may stand in many places, and in each of them again: what is written as a page can be more than memory holds. */
const MOST_REPEATED = 1_000_000
/** A list can be as long as this without holding anything. */
const MOST_ELEMENTS = 1_000_000
const NOTHING: readonly [unknown] = [undefined]

export interface Prepared {
  /** Undefined if it repeats too many values. */
  readonly tree: unknown
  readonly findings: readonly Finding[]
  readonly warnings: readonly Finding[]
  /** Whether a key or a token is written out in it. */
  readonly holdsSecrets: boolean
}

/** `tree` may be anything, from a parser or made by hand. */
export async function prepare(tree: unknown, sources: Sources): Promise<Prepared> {
  const findings: Finding[] = []
  const warnings: Finding[] = []
  let holdsSecrets = false
  const known = new Set<unknown>()
  let repeated = 0

  /** In a box: a table with a function named `then` would be taken for a promise. */
  const copy = async (
    value: unknown,
    path: Path,
    above: readonly unknown[],
    isWithin: boolean,
  ): Promise<readonly [unknown]> => {
    if (isWithin && ++repeated > MOST_REPEATED) return NOTHING
    if (typeof value === 'string') return [await filled(value, path)]
    const held = heldBy(value)
    if (held === undefined) return [value]
    if (held === 'unreadable') {
      findings.push({ path, expected: 'a value that can be read', found: 'one that throws' })
      return NOTHING
    }
    if (above.length >= MOST_LEVELS || above.includes(value)) {
      findings.push({ path, expected: `at most ${MOST_LEVELS} levels`, found: 'more' })
      return NOTHING
    }
    if (held === 'endless') {
      findings.push({ path, expected: `at most ${MOST_ELEMENTS} elements`, found: 'more' })
      return [[]]
    }
    const inner = [...above, value]
    const isAgain = isWithin || known.has(value)
    known.add(value)
    const entries: [PropertyKey, unknown][] = []
    for (const [key, element] of held) {
      if (RESERVED_NAMES.includes(String(key))) {
        findings.push({ path: [...path, key], expected: 'another key', found: 'a reserved one' })
        continue
      }
      const [own] = await copy(element, [...path, key], inner, isAgain)
      entries.push([key, own])
    }
    return [Array.isArray(value) ? entries.map(([, element]) => element) : Object.fromEntries(entries)]
  }

  const filled = async (text: string, path: Path): Promise<string> => {
    const secret = isSecret(withoutNames(path))
    if (text !== '' && secret && !text.includes('${')) holdsSecrets = true
    // An empty `api_key` is judged by the rules of its table.
    const wanted = secret && path.at(-1) !== 'api_key'
    let result = ''
    let from = 0
    for (const match of text.matchAll(PLACEHOLDER)) {
      const [all, inner] = match
      const value = inner === undefined ? '${' : await resolved(inner, path)
      if (value === '' && wanted) warnings.push({ path, expected: 'a secret that is not empty', found: 'an empty one' })
      result += text.slice(from, match.index) + value
      from = match.index + all.length
    }
    return result + text.slice(from)
  }

  /** Of what stands behind `${`, the closing brace included. */
  const resolved = async (text: string, path: Path): Promise<string> => {
    const [, kind, name] = /^(env|file):(.+)\}$/s.exec(text) ?? []
    if (kind === 'env' && ENV_NAME.test(name!)) {
      const value = sources.env(name!)
      const variable = PLAIN_ENV_NAME.test(name!) ? name! : nameText(name!)
      if (value === undefined) {
        findings.push({ path, expected: `the environment variable ${variable} to be set`, found: 'none' })
      }
      return value ?? ''
    }
    if (kind === 'file') {
      return sources.file(name!, path).catch((error: Error) => {
        findings.push({
          path,
          expected: `the file ${fileText(name!)} to be a regular one of at most 64 KiB that can be read`,
          found: error.message,
        })
        return ''
      })
    }
    findings.push({ path, expected: FORMS, found: 'another form' })
    return ''
  }

  const [copied] = await copy(tree, [], [], false)
  if (repeated <= MOST_REPEATED) return { tree: copied, findings, warnings, holdsSecrets }
  const tooMany = { path: [], expected: `at most ${MOST_REPEATED} values that stand in several places`, found: 'more' }
  return { tree: undefined, findings: [tooMany], warnings: [], holdsSecrets }
}

/** Its folders are no secret; what was pasted as the name of the file may be. */
function fileText(path: string): string {
  const name = path.lastIndexOf('/') + 1
  return quoted(path.slice(0, name) + nameText(path.slice(name))).slice(1, -1)
}

/** What a list or a table holds by index or key; undefined for what is neither. Data made by hand may throw when it is looked at. */
function heldBy(
  value: unknown,
): readonly (readonly [key: string | number, held: unknown])[] | 'unreadable' | 'endless' | undefined {
  try {
    if (Array.isArray(value)) return value.length > MOST_ELEMENTS ? 'endless' : [...value.entries()]
    return isPlain(value) && !(value instanceof Secret) ? Object.entries(value) : undefined
  } catch {
    return 'unreadable'
  }
}
