/** What the schema is built of. The message of every check is what was expected, in words. */
import { z } from 'zod'
import { MAX_DELAY_MS } from '../core/clock.ts'
import * as fields from './fields.ts'
import { isPlain } from './issues.ts'
import { complained, wrongKind } from './zod-issues.ts'

export type Known = Readonly<Record<string, z.ZodType>>
type Settled<T> = { readonly [Key in keyof T]: Exclude<T[Key], undefined> }

type Keys<Fields extends Known, Required extends Known> = Required & {
  [Key in keyof Fields]: z.ZodOptional<Fields[Key]>
}
/** Spelled as `z.strictObject` infers it: to the compiler any other spelling is another type. */
type Whole<Fields extends Known, Required extends Known> = z.ZodObject<
  { -readonly [Key in keyof Keys<Fields, Required>]: Keys<Fields, Required>[Key] },
  z.core.$strict
>
type Shape<Fields extends Known, Required extends Known = Record<never, never>> = z.ZodType<
  Settled<z.output<Whole<Fields, Required>>>,
  z.input<Whole<Fields, Required>>
>

/** Frozen, and without the keys that were spelled out as undefined. */
function settled<T extends object>(value: T): Settled<T> {
  const given = Object.entries(value).filter(([, inner]) => inner !== undefined)
  return Object.freeze(Object.fromEntries(given)) as Settled<T>
}

/** An object with these keys and no others; all may be left out but the required ones. */
export function shape<Fields extends Known, Required extends Known = Record<never, never>>(
  fields: Fields,
  required: Required = {} as Required,
): Shape<Fields, Required> {
  const known = { ...required, ...optional(fields) }
  const object = z.strictObject(known, {
    // zod puts all unknown keys of an object into one issue: its message carries the known ones to `findingsOf`.
    error: (issue) => (issue.code === 'unrecognized_keys' ? Object.keys(known).join(' ') : 'an object'),
  })
  // zod takes a Map or a URL for an object that has none of the keys.
  const plain = z.custom<z.input<typeof object>>().check(({ value, issues }) => {
    if (!isPlain(value)) issues.push(wrongKind(value, 'an object'))
  })
  return plain.pipe(object).transform(settled)
}

function optional<Fields extends Known>(fields: Fields): { [Key in keyof Fields]: z.ZodOptional<Fields[Key]> } {
  const all = Object.entries(fields).map(([key, field]) => [key, z.optional(field)])
  return Object.fromEntries(all)
}

/** A section that `false` switches off. */
export function section<Fields extends Known>(
  fields: Fields,
): z.ZodType<false | z.output<Shape<Fields>>, false | z.input<Shape<Fields>>> {
  return z.union([z.literal(false), shape(fields)], 'an object ({} = the defaults), or false')
}

/** A record of the user's own keys; its values are passed on as they are. */
export function record<T>(
  expected: string,
  check: (key: string, value: unknown) => fields.Complaint | undefined,
): z.ZodType<Readonly<Record<string, T>>, Readonly<Record<string, T>>> {
  return z
    .custom<Readonly<Record<string, T>>>()
    .check(({ value, issues }) => {
      const complaints = fields.recordComplaints(value, check)
      if (complaints === undefined) issues.push(wrongKind(value, expected))
      else for (const [key, complaint] of complaints) issues.push(complained(value, [key], complaint))
    })
    .meta({ type: 'object' })
    .transform((value): Readonly<Record<string, T>> => Object.freeze({ ...value }))
}

/** Not `z.readonly()`: that freezes the caller's own value when it is no array. */
export function list<Element extends z.ZodType>(
  element: Element,
  expected: string,
  least = 0,
): z.ZodType<readonly z.output<Element>[], readonly z.input<Element>[]> {
  const array = z.array(element, expected).refine((value) => value.length >= least, `at least ${least} of them`)
  return array.transform((value) => Object.freeze(value))
}

/** A live object: looked at, and handed on as it is. */
export function part<T extends object>(what: string, needs: Readonly<Record<string, fields.Need>>): z.ZodCustom<T, T> {
  const required = Object.keys(needs).filter((key) => needs[key] !== fields.MAYBE_VERB)
  return z.custom<T>().check(({ value, issues }) => {
    if (!fields.isObject(value)) {
      issues.push(wrongKind(value, `${what}: an object with ${required.join(', ')}`))
      return
    }
    for (const [key, need] of Object.entries(needs)) {
      if (!need.test(value[key])) issues.push(complained(value, [key], need))
    }
  })
}

export function number(expected: string, test: (value: number) => boolean): z.ZodNumber {
  return z.number(expected).refine(test, expected).describe(expected)
}

export function atLeast(least: number, most: number = Number.MAX_VALUE): z.ZodNumber {
  const limit = most === Number.MAX_VALUE ? '' : ` and <= ${most}`
  return number(`a number >= ${least}${limit}`, (value) => value >= least && value <= most)
}

export function above0(most: number = Number.MAX_VALUE): z.ZodNumber {
  const limit = most === Number.MAX_VALUE ? '' : ` and <= ${most}`
  return number(`a number > 0${limit}`, (value) => value > 0 && value <= most)
}

export function whole(least: number, most: number = Number.MAX_SAFE_INTEGER, why = ''): z.ZodNumber {
  const limit = most === Number.MAX_SAFE_INTEGER ? '' : ` and <= ${most}`
  const expected = `a whole number >= ${least}${limit}${why}`
  return number(expected, (value) => Number.isSafeInteger(value) && value >= least && value <= most)
}

function timeUpTo(most: number): z.ZodNumber {
  return number(`ms >= 0 and <= ${most}`, (value) => value >= 0 && value <= most)
}

export function text(expected: string, test: (value: string) => boolean): z.ZodString {
  return z.string(expected).refine(test, expected).describe(expected)
}

export function oneOf<const Word extends string>(words: readonly Word[]): z.ZodType<Word, Word> {
  return z.enum(words, fields.wordsText(words))
}

export const share: z.ZodNumber = number('a number from 0 to 1', (value) => value >= 0 && value <= 1)
export const someShare: z.ZodNumber = number('a number > 0 and <= 1', (value) => value > 0 && value <= 1)
export const partShare: z.ZodNumber = number('a number > 0 and < 1', (value) => value > 0 && value < 1)
export const time: z.ZodNumber = timeUpTo(MAX_DELAY_MS)
/** A time that cannot be switched off. */
export const span: z.ZodNumber = above0(MAX_DELAY_MS)
/** Times that end up to a tenth later, and are delays even then. */
const MAX_SHIFTED_MS = Math.floor(MAX_DELAY_MS / 1.1)
export const shiftedSpan: z.ZodNumber = above0(MAX_SHIFTED_MS)
export const shiftedTime: z.ZodNumber = timeUpTo(MAX_SHIFTED_MS)
export const flag: z.ZodBoolean = z.boolean('true or false')
export const word: z.ZodString = text('a string that is not empty', (value) => value !== '')
