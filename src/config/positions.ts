/** Where the keys of a TOML file stand. The only file that imports toml-eslint-parser. */
import { type AST, parseTOML } from 'toml-eslint-parser'
import { type Path, pathKey } from './issues.ts'
import { MOST_LEVELS, type Position } from './parsed.ts'

/**
 * The place of every key, and of every element of an array, by `pathKey`. A table that is written several times stands where it is
 * written first. Empty if the parser gives up on a text that is valid but absurd, such as a string of a megabyte.
 */
export function positionsOf(text: string): ReadonlyMap<string, Position> {
  const places = new Places()
  try {
    // An order mark takes no column in an editor.
    for (const node of parseTOML(text.replace(/^\uFEFF/, ''), { tomlVersion: '1.1.0' }).body[0].body) {
      if (node.type === 'TOMLKeyValue') places.pair([], node)
      else places.table(node)
    }
  } catch {
    return new Map()
  }
  return places.found
}

class Places {
  readonly found = new Map<string, Position>()

  table({ resolvedKey, key, body }: AST.TOMLTable): void {
    // The resolved key has the index of each array of tables behind its name; the header has names only.
    let named = -1
    resolvedKey.slice(0, MOST_LEVELS).forEach((part, depth) => {
      if (typeof part === 'string') named++
      this.#add(resolvedKey.slice(0, depth + 1), key.keys[named]!)
    })
    for (const pair of body) this.pair(resolvedKey, pair)
  }

  pair(base: Path, { key, value }: AST.TOMLKeyValue): void {
    let path = base
    for (const part of key.keys.slice(0, MOST_LEVELS)) {
      path = [...path, part.type === 'TOMLBare' ? part.name : part.value]
      this.#add(path, part)
    }
    this.#inside(path, value)
  }

  #inside(path: Path, value: AST.TOMLContentNode): void {
    if (value.type === 'TOMLInlineTable') for (const pair of value.body) this.pair(path, pair)
    if (value.type !== 'TOMLArray') return
    value.elements.forEach((element, index) => {
      this.#add([...path, index], element)
      this.#inside([...path, index], element)
    })
  }

  #add(path: Path, { loc: { start } }: AST.TOMLNode): void {
    const key = pathKey(path)
    if (!this.found.has(key)) this.found.set(key, { line: start.line, column: start.column + 1 })
  }
}
