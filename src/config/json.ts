import type { Parsed, Position } from './parsed.ts'

/** What a JSON text that is known to be valid consists of; numbers and words are between them. */
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:]/g

/** JSON as plain data. The parser's own message quotes its input, and rarely says where: nothing is taken from it. */
export function parseJson(text: string): Parsed {
  const json = text.replace(/^\uFEFF/, '')
  try {
    const tree: unknown = JSON.parse(json)
    const at = repeatedKey(json)
    if (at === undefined) return { tree }
    return { fault: { expected: 'each key once in its object', found: 'one that was there before', at } }
  } catch {
    return { fault: { expected: 'valid JSON', found: 'something else' } }
  }
}

/** Where a key stands that its object already has: the parser would take the last one without a word. */
function repeatedKey(json: string): Position | undefined {
  const objects: Set<string>[] = []
  let text: RegExpExecArray | undefined
  for (const token of json.matchAll(TOKEN)) {
    const [mark] = token
    if (mark === '{' || mark === '[') objects.push(new Set())
    else if (mark === '}' || mark === ']') objects.pop()
    else if (mark !== ':') text = token
    else {
      const key = JSON.parse(text![0]) as string
      if (objects.at(-1)!.has(key)) return positionOf(text!.index, json)
      objects.at(-1)!.add(key)
    }
  }
  return undefined
}

function positionOf(index: number, text: string): Position {
  const lines = text.slice(0, index).split(/\r?\n/)
  return { line: lines.length, column: lines.at(-1)!.length + 1 }
}
