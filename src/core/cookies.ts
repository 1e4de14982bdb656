import type { RequestHeaders } from './contracts.ts'
import { isNamed, latin1 } from './headers.ts'

/** The value of the first cookie of that name; undefined without one. */
export function cookie(headers: RequestHeaders, name: string): string | undefined {
  return cookies(headers, name)[0]
}

/** The values of all cookies of that name, without quotes, as they stand. Whatever else stands there is passed over. */
export function cookies(headers: RequestHeaders, name: string): readonly string[] {
  const values: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    if (!isNamed(headers[i]!, 'cookie')) continue
    for (const pair of latin1(headers[i + 1]!).split(';')) {
      if (isCookie(pair, name)) values.push(unquoted(pair.slice(pair.indexOf('=') + 1).trim()))
    }
  }
  return values
}

/** A Cookie header's value without the cookies of that name, the others byte for byte; '' if there are none. */
export function withoutCookie(value: string, name: string): string {
  const pairs = value.split(';')
  const others = pairs.filter((pair) => !isCookie(pair, name))
  return others.length === pairs.length ? value : others.join(';').trimStart()
}

function isCookie(pair: string, name: string): boolean {
  const end = pair.indexOf('=')
  return end >= 0 && pair.slice(0, end).trim() === name
}

function unquoted(value: string): string {
  return value.length >= 2 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value
}
