/** What a file says, made safe to work with: plain copies without reserved keys, and with every `${…}` replaced. */
import { type Finding, isPlain, isSecret, type Path } from './issues.ts'
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

export interface Prepared {
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

  const copy = async (value: unknown, path: Path, above: readonly unknown[]): Promise<unknown> => {
    if (typeof value === 'string') return filled(value, path)
    if (!Array.isArray(value) && !isPlain(value)) return value
    if (above.length >= MOST_LEVELS || above.includes(value)) {
      findings.push({ path, expected: `at most ${MOST_LEVELS} levels`, found: 'more' })
      return undefined
    }
    const inner = [...above, value]
    if (Array.isArray(value)) {
      const copies: unknown[] = []
      for (const [index, element] of value.entries()) copies.push(await copy(element, [...path, index], inner))
      return copies
    }
    const entries: [string, unknown][] = []
    for (const key of Object.keys(value)) {
      if (RESERVED_NAMES.includes(key)) {
        findings.push({ path: [...path, key], expected: 'another key', found: 'a reserved one' })
      } else entries.push([key, await copy(value[key], [...path, key], inner)])
    }
    return Object.fromEntries(entries)
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
      if (value === undefined)
        findings.push({ path, expected: `the environment variable ${name} to be set`, found: 'none' })
      return value ?? ''
    }
    if (kind === 'file') {
      return sources.file(name!, path).catch((error: Error) => {
        findings.push({ path, expected: 'a regular file of at most 64 KiB that can be read', found: error.message })
        return ''
      })
    }
    findings.push({ path, expected: FORMS, found: 'another form' })
    return ''
  }

  return { tree: await copy(tree, [], []), findings, warnings, holdsSecrets }
}
