/** Findings as the user reads them: with their place in the file, and with no text that may be a secret. */
import { BalancerError, type ConfigIssue } from '../core/errors.ts'
import { durationMs } from './durations.ts'
import {
  clearedText,
  type Finding,
  foundText,
  inOrder,
  lengthText,
  listed,
  type Path,
  pathKey,
  placeText,
  valueAt,
} from './issues.ts'
import type { Position } from './parsed.ts'
import { withoutNames } from './plain.ts'

/** A file that was read, as far as messages need it. */
export interface Told {
  readonly tree: unknown
  /** Of each key; empty if nobody knows. */
  readonly places: ReadonlyMap<string, Position>
}

/** As in `evenkeel.toml:12:3: settings.retry.atempts: expected attempts, found an unknown key`. */
export function issueText({ path, expected, found, line, column }: ConfigIssue, name?: string): string {
  const place = [name, line, column].filter((it) => it !== undefined).join(':')
  return `${place === '' ? '' : `${place}: `}${path}: expected ${expected}, found ${found}`
}

/** In the order of the file, each once. */
export function issuesOf(findings: readonly Finding[], told: Told): readonly ConfigIssue[] {
  const unique = new Map<string, ConfigIssue>()
  for (const { path, expected, found } of inOrder(told.tree, findings)) {
    const issue = {
      path: path.length === 0 ? 'the file' : placeText(path),
      expected: clearedText(expected),
      found: found === undefined ? describe(valueAt(told.tree, path), path) : clearedText(unquoted(found)),
      ...placeOf(path, told.places),
    }
    const key = `${pathKey(path)}\n\n${expected}`
    if (!unique.has(key)) unique.set(key, Object.freeze(issue))
  }
  const issues = [...unique.values()]
  if (told.places.size === 0) return issues
  return issues.sort((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0))
}

/** The one error for everything that is wrong. It has no cause: whoever reads files may quote them. */
export function fileError(
  issues: readonly ConfigIssue[],
  warnings: readonly ConfigIssue[],
  name?: string,
): BalancerError {
  const what = issues.length === 1 ? '1 thing is wrong' : `${issues.length} things are wrong`
  const textOf = (issue: ConfigIssue): string => issueText(issue, name)
  const lines = [`${what} with ${name ?? 'the configuration'}:`, ...listed(issues, textOf)]
  if (warnings.length > 0) {
    lines.push(`${warnings.length === 1 ? 'and 1 warning' : `and ${warnings.length} warnings`}:`)
    lines.push(...listed(warnings, textOf))
  }
  return new BalancerError('CONFIG', lines.join('\n'), { issues, warnings })
}

/** Of the key, or of the closest one around it: what is missing stands nowhere. */
function placeOf(path: Path, places: ReadonlyMap<string, Position>): Partial<Position> {
  if (places.size === 0) return {}
  for (let depth = path.length; depth > 0; depth--) {
    const place = places.get(pathKey(path.slice(0, depth)))
    if (place !== undefined) return place
  }
  return {}
}

/** In a file every string may be a secret that stands in the wrong place: only durations are shown. */
function describe(value: unknown, path: Path): string {
  if (value === undefined) return 'nothing'
  if (typeof value !== 'string') return foundText(value, withoutNames(path))
  return durationMs(value) === undefined ? lengthText('a string', value) : JSON.stringify(value)
}

/** Texts are quoted by nobody else than those who quote what they found. */
function unquoted(text: string): string {
  return text.replace(/"(?:[^"\\]|\\.)*"/g, '…')
}
