import fc from 'fast-check'
import { parse } from 'smol-toml'
import { describe, expect, test } from 'vitest'
import { type Path, pathKey, valueAt } from '../src/config/issues.ts'
import { positionsOf } from '../src/config/positions.ts'

/** Every path of a tree, those of its tables and arrays included. */
function pathsIn(value: unknown, path: Path = []): readonly Path[] {
  if (typeof value !== 'object' || value === null || value instanceof Date) return [path]
  const keys: readonly PropertyKey[] = Array.isArray(value) ? [...value.keys()] : Object.keys(value)
  return [
    ...(path.length === 0 ? [] : [path]),
    ...keys.flatMap((key) => pathsIn(valueAt(value, [key]), [...path, key])),
  ]
}

/** Expects that every path has a place, and that the text there is its key. */
function expectPlaced(text: string): void {
  const tree = parse(text)
  const places = positionsOf(text)
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/)
  for (const path of pathsIn(tree).filter(({ length }) => length > 0)) {
    const place = places.get(pathKey(path))
    expect(place, `${path.map(String).join(' > ')} in\n${text}`).toBeDefined()
    const rest = lines[place!.line - 1]!.slice(place!.column - 1)
    const key = path.at(-1)
    if (typeof key === 'number') expect(rest).not.toBe('')
    else expect(keyAt(rest)).toBe(key)
  }
}

/** The key that a text starts with. */
function keyAt(text: string): string | undefined {
  const match = /^([A-Za-z0-9_-]+|'[^']*'|"(?:[^"\\]|\\.)*")/.exec(text)?.[0] ?? ''
  return Object.keys(parse(`${match} = 1`))[0]
}

const bare = fc.stringMatching(/^[A-Za-z0-9_-]{1,8}$/)
const literal = fc
  .stringMatching(/^[^'\n\r\t]{0,8}$/)
  .filter((it) => !/[\p{Cc}\p{Cs}]/u.test(it))
  .map((it) => `'${it}'`)
const basic = fc.string({ maxLength: 8 }).map((it) => JSON.stringify(it).replaceAll('\u007f', '\\u007f'))
const key = fc.oneof({ weight: 4, arbitrary: bare }, literal, basic)
const dotted = fc.array(key, { minLength: 1, maxLength: 3 }).map((keys) => keys.join(' . '))
const scalar = fc.oneof(
  basic,
  literal,
  fc.integer().map(String),
  fc.constantFrom(
    'true',
    'inf',
    '1e3',
    '0xff',
    '1979-05-27',
    '07:32:00',
    '"""a = 1\n[b]\n"""',
    "'''\n[c]\nd = 2'''",
    '"# no comment"',
  ),
)
const { value } = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { weight: 4, arbitrary: scalar },
    fc.array(tie('value'), { maxLength: 3 }).map((all) => `[ ${all.join(' , # c\n ')} ]`),
    fc
      .array(fc.tuple(key, tie('value')), { maxLength: 3 })
      .map((all) => `{ ${all.map((it) => it.join(' = ')).join(', ')} }`),
  ),
}))
const line = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(dotted, value).map(([left, right]) => `${left} = ${right}`) },
  { weight: 2, arbitrary: dotted.map((it) => `[ ${it} ] # c`) },
  { weight: 2, arbitrary: dotted.map((it) => `\t[[${it}]]`) },
  fc.constantFrom('', '# a = 1', '   '),
)

describe('every key of a TOML file has its place', () => {
  test('whatever is written, as far as smol-toml reads it', () => {
    let read = 0
    fc.assert(
      fc.property(fc.array(line, { maxLength: 8 }), fc.constantFrom('\n', '\r\n'), (lines, end) => {
        const text = lines.join(end)
        try {
          parse(text)
        } catch {
          return
        }
        read++
        expectPlaced(text)
      }),
      { numRuns: 1_000, seed: 5 },
    )
    expect(read).toBeGreaterThan(300)
  })

  test.each([
    ['[[a]]\nb = 1\n[a.c]\nd = 2\n[[a]]\n[a.c]\nd = 3\n[[a.e]]\nf = 4\n[[a.e]]\nf = 5', 'a.1.e.1.f', '11:1'],
    ['[a]\nb.c.d = { e = [ { f = 1 }, { f = 2 } ] }', 'a.b.c.d.e.1.f', '2:30'],
    ['a = """\nb = 1\n"""\nb = 2', 'b', '4:1'],
    ['a = [\n  # "x"\n  "y",\n\n  "z" ]', 'a.1', '5:3'],
    ['[a."b.c"]\n\'d e\' = 1', 'a.b.c.d e', '2:1'],
    ['\uFEFFa = 1', 'a', '1:1'],
    ['a = 1\r\nb = 2\r\n', 'b', '2:1'],
    ['ä."ö" = 1', undefined, ''],
    ['"ä".ö = 1', undefined, ''],
    ['"ä"."ö" = 1', 'ä.ö', '1:5'],
    ['[x.y.z]\n[x]\na = 1', 'x', '1:2'],
  ])('%j', (text, path, place) => {
    if (path === undefined) {
      expect(() => parse(text)).toThrow()
      return
    }
    expectPlaced(text)
    const found = [...positionsOf(text)].find(([it]) => it.split('\n').join('.') === path)
    expect(found?.[1] && `${found[1].line}:${found[1].column}`).toBe(place)
  })

  test('but for absurd ones, which have none rather than wrong ones', () => {
    const text = `a = "${'x'.repeat(900_000)}"\nb = 1`
    expect(parse(text)).toHaveProperty('b')
    expect(positionsOf(text).size).toBe(0)
  })
})
