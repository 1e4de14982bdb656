import type { Spread } from './rounds.ts'

/** Prints columns: the first to the left, numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map((cells) => cells[at]!.length)))
  for (const cells of [head, ...rows]) {
    const line = cells.map((cell, at) => (at === 0 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!)))
    console.log(`  ${line.join('  ')}`)
  }
}

/** Two cells: the median, and how far apart the rounds were. */
export function row({ median, min, max }: Spread, format: (value: number) => string): readonly [string, string] {
  return [format(median), `${format(min)}..${format(max)}`]
}

export function integer(value: number): string {
  return Math.round(value).toLocaleString('en').replaceAll(',', ' ')
}

export function ratio(value: number): string {
  return value.toFixed(2)
}
