/** What one pool ends up with: its own words, the balancer's, the defaults. */
import { DEFAULTS, WHEN_GIVEN } from './defaults.ts'
import { type Path, pathText, valueAt } from './issues.ts'

export interface Said {
  /** Undefined if it is wrong by itself, or within a section that is off. */
  readonly value: unknown
  /** Where it is said; undefined for a default. */
  readonly path: Path | undefined
  /** 0 is the closest: a pool's own word, or the balancer's if it has no named pools. */
  readonly level: number
}

/** A setting as in 'retry.budget.share'. */
export type Say = (setting: string) => Said

/** `place` is where the pool stands; `bad` knows what is already found wrong. */
export function sayOf(options: unknown, place: Path, bad: (path: Path) => boolean): Say {
  const levels = place.length === 0 ? [place] : [place, []]
  const look = (keys: Path): Said => {
    for (const [level, start] of levels.entries()) {
      const path = [...start, ...keys]
      const wrong = bad(path)
      const value = wrong ? undefined : valueAt(options, path)
      if (wrong || value !== undefined) return { value, path, level }
    }
    return { value: valueAt(DEFAULTS, keys) ?? valueAt(WHEN_GIVEN, keys), path: undefined, level: Infinity }
  }
  return (setting) => {
    const keys = setting.split('.')
    const off = keys.some((_, depth) => depth > 0 && look(keys.slice(0, depth)).value === false)
    return off ? { value: undefined, path: undefined, level: Infinity } : look(keys)
  }
}

export function isOn({ value }: Said): boolean {
  return value !== undefined && value !== false
}

export function isAbove(a: Said, b: Said): boolean {
  return typeof a.value === 'number' && typeof b.value === 'number' && a.value > b.value
}

/** Where it is said, or that nobody did. */
export function whose({ path }: Said, setting: string): string {
  return path === undefined ? `the default of ${setting.split('.').at(-1)}` : pathText(path)
}
