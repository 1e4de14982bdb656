/** zod's issues: how checks of our own raise them, and what becomes of any of them. */
import type { z } from 'zod'
import type { Complaint } from './fields.ts'
import { type Finding, nearest, type Path } from './issues.ts'

/** Said of a key beside a name that stands alone. */
export const NO_SETTINGS = 'nothing beside name: this one has no settings'

/** The issue by which `findingsOf` sees that a branch of a union was not meant at all. */
export function wrongKind(input: unknown, message: string): z.core.$ZodRawIssue {
  return { code: 'invalid_type', expected: 'object', input, message }
}

export function complained(input: unknown, path: string[], { expected, found }: Complaint): z.core.$ZodRawIssue {
  return { code: 'custom', input, path, message: expected, params: { found } }
}

/** zod's issues in our words. `base` is where the schema that told them stands. */
export function findingsOf(issue: z.core.$ZodIssue, base: Path): readonly Finding[] {
  const path = [...base, ...issue.path]
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = issue.message.split(' ')
      return issue.keys.map((key) => ({
        path: [...path, key],
        expected: nearest(key, known) ?? (known.join() === 'name' ? NO_SETTINGS : `one of ${known.join(', ')}`),
        found: 'an unknown key',
      }))
    }
    case 'invalid_union': {
      const meant = issue.errors.find((branch) => !branch.some(isWrongKind))
      return meant?.flatMap((inner) => findingsOf(inner, path)) ?? [{ path, expected: issue.message }]
    }
    case 'invalid_key':
      return [{ path, expected: 'a string as the key', found: 'another key' }]
    case 'custom':
      return [{ path, expected: issue.message, found: issue.params?.found as string | undefined }]
    default:
      return [{ path, expected: issue.message }]
  }
}

function isWrongKind({ code, path }: z.core.$ZodIssue): boolean {
  return path.length === 0 && (code === 'invalid_type' || code === 'invalid_value')
}
