import { isPlain, type Path } from './issues.ts'

/** A table of a file that nobody has checked yet. */
export type Table = Readonly<Record<string, unknown>>

/** The table of that name in a table; an empty one if there is none. */
export function tableAt(table: Table, key: string): Table {
  const value = Object.hasOwn(table, key) ? table[key] : undefined
  return isPlain(value) ? value : {}
}

/** What should be a text; what is none was told already, and may not even be made one: `{ toString = 1 }`. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/**
 * What a path of a file says about its value: where the value is a setting, its section and the names that users gave say nothing. A
 * model may well be called "authors".
 */
export function withoutNames(path: Path): Path {
  if (path[0] === 'settings') return path.slice(1)
  return NAMED.includes(path[0]) && path.length > 2 ? path.slice(2) : path
}

const NAMED: readonly (PropertyKey | undefined)[] = ['pools', 'providers', 'models', 'users']
