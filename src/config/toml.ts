/** TOML as plain data. The only file that imports smol-toml. */
import { parse, TomlError } from 'smol-toml'
import { MOST_LEVELS, type Parsed } from './parsed.ts'

/**
 * What smol-toml says, as far as it is known to hold nothing of the source: its messages go on with the line at fault, and some
 * are those of a parser of dates.
 */
const REASONS: readonly string[] = [
  'control characters are not allowed in strings',
  'document contains excessively nested structures. aborting.',
  'each key-value declaration must be followed by an end-of-line',
  'expected comma or end of structure',
  'expected end of table array declaration',
  'illegal character in key',
  'illegal empty bare key',
  'illegal leading zero',
  'illegal underscore',
  'incomplete key-value: cannot find end of key',
  'integer value cannot be represented losslessly',
  'invalid unicode escape',
  'invalid value',
  'trying to redefine an already defined table or value',
  'trying to redefine an already defined value',
  'unexpected end of key',
  'unfinished array',
  'unfinished numeric value',
  'unfinished string',
  'unfinished table',
  'unrecognised escape sequence',
]

export function parseToml(text: string): Parsed {
  try {
    return { tree: parse(text, { maxDepth: MOST_LEVELS }) }
  } catch (error) {
    const { message } = error as Error
    const found = REASONS.find((it) => message.startsWith(`Invalid TOML document: ${it}\n`)) ?? 'something else'
    const fault = { expected: 'valid TOML', found }
    return { fault: error instanceof TomlError ? { ...fault, at: { line: error.line, column: error.column } } : fault }
  }
}
