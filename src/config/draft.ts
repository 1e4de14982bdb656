import { isPlain, type Path, valueAt } from './issues.ts'
import type { Table } from './plain.ts'
import type { Origins } from './spelling.ts'

type Section = Record<string, unknown>

/** The settings of the balancer or of a pool while they are put together, and where each of them comes from. */
export class Draft {
  readonly #settings: Section
  readonly #place: Path
  readonly #origins: Origins

  /** `place` is where they stand among the options. What was read from the file is not changed. */
  constructor(settings: Table, place: Path, origins: Origins) {
    this.#settings = { ...settings }
    this.#place = place
    this.#origins = origins
  }

  get settings(): Table {
    return this.#settings
  }

  /** Whether a setting is said, or a section around it is switched off. */
  says(path: readonly string[]): boolean {
    return path.some((_, depth) => {
      const value = valueAt(this.#settings, path.slice(0, depth + 1))
      return value !== undefined && (depth === path.length - 1 || !isPlain(value))
    })
  }

  /** `origin` is what in the file means this; absent: nobody wrote it. */
  put(path: readonly string[], value: unknown, origin?: Path): void {
    let section = this.#settings
    for (const key of path.slice(0, -1)) {
      const copy = { ...(section[key] as Table | undefined) }
      section[key] = copy
      section = copy
    }
    section[path.at(-1)!] = value
    if (origin !== undefined) this.#origins.set([...this.#place, ...path], origin)
  }

  /** Where in the file a setting, or the section it is in, is said. */
  originOf(path: readonly string[]): Path {
    const known = path
      .map((_, depth) => path.slice(0, depth + 1))
      .findLast((it) => this.#origins.has([...this.#place, ...it]))
    return this.#origins.of([...this.#place, ...(known ?? path)])
  }
}
