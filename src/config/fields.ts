/** Checks of single fields that need more than a comparison. They know nothing of zod. */
import { Secret } from '../core/secret.ts'
import { type Finding, isPlain, lengthText } from './issues.ts'

/** What is wrong with a value, before it is known where it stands. */
export type Complaint = Pick<Finding, 'expected' | 'found'>

const URL_TEXT = 'an http: or https: URL, such as http://127.0.0.1:3000'
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/
/** These belong to the connection or frame the message: setting one by hand opens the door to request smuggling. */
const TRANSPORT_HEADERS =
  /^(connection|transfer-encoding|content-length|keep-alive|upgrade|expect|te|trailer|proxy-connection)$/i

export const PATH_TEXT = "a path that starts with '/', in ASCII without spaces and '#'"

/** Origin-form, as a request line takes it. */
export function isPath(value: string): boolean {
  return /^\/[\x21-\x7e]*$/.test(value) && !value.includes('#')
}

/** A method as RFC 9110 9.1 has it, in capitals; CONNECT makes no request. */
export function isMethod(value: string): boolean {
  return /^[A-Z]{1,32}$/.test(value) && value !== 'CONNECT'
}

/** A text to look for in as much of a body as is read of it, bytes. */
export function isMatch(value: string): boolean {
  return value !== '' && new TextEncoder().encode(value).length <= 1024
}

export function urlComplaint(value: string): Complaint | undefined {
  const parsed = URL.parse(value)
  if (parsed === null || !/^https?:$/.test(parsed.protocol)) return { expected: URL_TEXT }
  if (parsed.username !== '' || parsed.password !== '') {
    return { expected: 'a URL without credentials (put an authorization header under headers)' }
  }
  // Not `parsed.search`: in `http://a/?` it is empty as well. Neither part is shown: tokens travel in both.
  const [before = '', ...fragment] = value.split('#')
  const [, ...query] = before.split('?')
  if (query.length > 0) return { expected: 'a URL without a query', found: lengthText('a query', query.join('?')) }
  if (fragment.length === 0) return undefined
  return { expected: 'a URL without a fragment', found: lengthText('a fragment', fragment.join('#')) }
}

export function isOrigin(value: string): boolean {
  return urlComplaint(value) === undefined && new URL(value).pathname === '/'
}

export function headerComplaint(name: string, value: unknown): Complaint | undefined {
  if (!HEADER_NAME.test(name)) return { expected: 'a valid header name', found: 'another name' }
  if (TRANSPORT_HEADERS.test(name)) return { expected: 'no such header: the transport sets it' }
  if ((typeof value === 'string' || value instanceof Secret) && Secret.of(value).matches(HEADER_VALUE)) return undefined
  return { expected: 'a string of latin1 characters without line breaks or other controls' }
}

export function isId(value: string): boolean {
  return /^[\x21-\x7e]{1,256}$/.test(value)
}

/** '"a", "b" or "c"'. */
export function wordsText(words: readonly string[]): string {
  const all = words.map((word) => `"${word}"`).join(', ')
  return all.replace(/, ([^,]+)$/, ' or $1')
}

/** What a member of a part has to be. */
export interface Need {
  readonly expected: string
  test(value: unknown): boolean
}

export const NAME: Need = { expected: 'a string that is not empty', test: (it) => typeof it === 'string' && it !== '' }
export const VERB: Need = { expected: 'a function', test: isFunction }
export const MAYBE_VERB: Need = { expected: 'a function', test: (it) => it === undefined || isFunction(it) }
export const SCOPE: Need = {
  expected: wordsText(['balancer', 'pool', 'attempt']),
  test: (it) => it === 'balancer' || it === 'pool' || it === 'attempt',
}

export function isFunction(value: unknown): boolean {
  return typeof value === 'function'
}

export function isFlagOrFunction(value: unknown): boolean {
  return typeof value === 'boolean' || isFunction(value)
}

/** True for what may have a part's members: plain objects and instances of classes, no arrays. */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The wrong entries of a record; undefined if it is no record at all. */
export function recordComplaints(
  value: unknown,
  check: (key: string, value: unknown) => Complaint | undefined,
): readonly (readonly [key: string, complaint: Complaint])[] | undefined {
  if (!isPlain(value)) return undefined
  return Object.entries(value).flatMap(([key, inner]) => {
    const complaint = key === '__proto__' ? { expected: 'another key', found: 'a reserved one' } : check(key, inner)
    return complaint === undefined ? [] : [[key, complaint] as const]
  })
}
