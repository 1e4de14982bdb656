/** What a file says, made safe to work with: plain copies without reserved keys, and with every `${…}` replaced. */
import { Secret } from '../core/secret.ts'
import { seemsSecret } from '../core/spelling.ts'
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
const FORMS = `\${env:NAME} or \${file:path}, and $\${ where \${ itself is meant`

/** One table may stand in many places, and in each of them again: what is written as a page can be more than memory holds. */
const MOST_VALUES = 200_000
const NOTHING: readonly [unknown] = [undefined]

export interface Prepared {
  /** Undefined if it has too many values. */
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
  let values = 0

  /** In a box: a table with a function named `then` would be taken for a promise. */
  const copy = async (value: unknown, path: Path, above: readonly unknown[]): Promise<readonly [unknown]> => {
    if (++values > MOST_VALUES) return NOTHING
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
    const inner = [...above, value]
    const entries: [PropertyKey, unknown][] = []
    for (const [key, element] of held) {
      if (RESERVED_NAMES.includes(String(key))) {
        findings.push({ path: [...path, key], expected: 'another key', found: 'a reserved one' })
        continue
      }
      const [own] = await copy(element, [...path, key], inner)
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
      const variable = seemsSecret(name!) ? 'an environment variable' : `the environment variable ${name}`
      if (value === undefined) findings.push({ path, expected: `${variable} to be set`, found: 'none' })
      return value ?? ''
    }
    if (kind === 'file') {
      return sources.file(name!, path).catch((error: Error) => {
        const file = seemsSecret(name!) ? 'a file' : `the file ${quoted(name!)}`
        findings.push({
          path,
          expected: `${file} to be a regular one of at most 64 KiB that can be read`,
          found: error.message,
        })
        return ''
      })
    }
    findings.push({ path, expected: FORMS, found: 'another form' })
    return ''
  }

  const [copied] = await copy(tree, [], [])
  if (values <= MOST_VALUES) return { tree: copied, findings, warnings, holdsSecrets }
  const tooMany = { path: [], expected: `at most ${MOST_VALUES} values`, found: 'more' }
  return { tree: undefined, findings: [tooMany], warnings: [], holdsSecrets }
}

/** What a list or a table holds by index or key; undefined for what is neither. Data made by hand may throw when it is looked at. */
function heldBy(
  value: unknown,
): readonly (readonly [key: string | number, held: unknown])[] | 'unreadable' | undefined {
  try {
    // Longer than can be looked at is as good as endless.
    if (Array.isArray(value)) return [...value.slice(0, MOST_VALUES + 1).entries()]
    return isPlain(value) && !(value instanceof Secret) ? Object.entries(value) : undefined
  } catch {
    return 'unreadable'
  }
}
