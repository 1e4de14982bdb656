/** What the check of the options says, in the words of a file: places as the file names them, limits in the unit of the key. */
import { durationText } from './durations.ts'
import { type Finding, type Path, pathText } from './issues.ts'
import { type Origins, snakeOf, timesInFileWords } from './spelling.ts'
import { NO_SETTINGS } from './zod-issues.ts'

/** A path among the options, as in 'pools["my.api"].timeouts.totalMs', or a word. */
const NAME = /[A-Za-z_$][\w$-]*(?:\.[A-Za-z_$][\w$-]*|\["(?:[^"\\]|\\.)*"\]|\[\d+\])*/g

/** No file can hold a function or a part: they are not offered. And what is an object in code is a table here. */
const FORMS: readonly (readonly [options: RegExp, file: string])[] = [
  [/, such a name with settings, or an object with name and start$/, ' or such a name with settings'],
  [/ or a function\b/g, ''],
  [/^(one of name.*), cost\b/, '$1'], // the one setting that can be nothing else
  [/^one of name$/, NO_SETTINGS],
  [/\{\}/g, 'an empty one'],
  [/\ban object\b/g, 'a table'],
]

export function inFileWords({ path, expected, found }: Finding, origins: Origins): Finding {
  const place = origins.of(path)
  const isTime = String(path.at(-1)).endsWith('Ms')
  const writable = FORMS.reduce((rest, [options, file]) => rest.replace(options, file), expected)
  const text = isTime ? inUnit(writable, place) : writable
  return { path: place, expected: named(text, origins), found: found === undefined ? undefined : named(found, origins) }
}

function named(text: string, origins: Origins): string {
  return text.replace(NAME, (name) => {
    const place = /[.[]/.test(name) ? origins.ofText(name) : undefined
    return place === undefined ? spelt(name) : pathText(place)
  })
}

/** The limits of a time that the file says in `place`. */
function inUnit(text: string, place: Path): string {
  const key = String(place.at(-1))
  if (key.endsWith('_ms')) return text
  const isSeconds = key.endsWith('_seconds')
  return text
    .replace(/^(ms|a number)\b/, isSeconds ? 'seconds' : 'a duration')
    .replace(/(at least|at most|[<>]=?) (\d+(?:\.\d+)?)/g, (_, bound: string, ms: string) => {
      if (isSeconds) return `${bound} ${Number(ms) / 1_000}`
      return `${bound} ${ms === '0' ? ms : `"${durationText(Number(ms))}"`}`
    })
}

function spelt(name: string): string {
  return timesInFileWords(name).replace(/\b[a-z]+(?:[A-Z][a-z0-9]*)+\b/g, snakeOf)
}
