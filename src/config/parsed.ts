/** Nobody nests a configuration this deep. */
export const MOST_LEVELS = 64

/** A place in a file, both from 1. */
export interface Position {
  readonly line: number
  readonly column: number
}

/** A text that was read as plain data, or why it was not: never with a word of the text. */
export type Parsed =
  | { readonly tree: unknown; readonly fault?: undefined }
  | {
      readonly tree?: undefined
      readonly fault: { readonly expected: string; readonly found: string; readonly at?: Position }
    }
