/** A request's body that a parser has read before the proxy could, written anew. */
import type { IncomingMessage } from 'node:http'
import type { Refusal } from './guard.ts'
import type { Incoming } from './incoming.ts'

/** Nobody can tell what the body was. */
export const CONSUMED: Refusal = {
  status: 500,
  code: 'BODY_CONSUMED',
  detail:
    'something read the body before the proxy and left nothing that can be sent: mount the proxy in front of it ' +
    '(what json, urlencoded, text and raw parsers leave in UTF-8 is sent)',
  close: false,
}

/** Said of the bytes that came, which are others now: parsers undo codings, and nobody keeps the spaces of JSON. */
const OF_BYTES: ReadonlySet<string> = new Set([
  'content-digest',
  'content-encoding',
  'content-md5',
  'digest',
  'repr-digest',
])
const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json$/
const FORM_TYPE = 'application/x-www-form-urlencoded'
const CHARSET = /;\s*charset\s*=\s*"?([\w.:-]+)/i
const NOTHING = new Uint8Array(0)

/** What is left to send of a request's body: undefined = all of it is to come, null = nobody knows what it was. */
export function bodyLeft(request: IncomingMessage, parsed: unknown): Uint8Array | null | undefined {
  if (!request.readableDidRead) return request.readableEnded ? NOTHING : undefined
  try {
    return writtenAgain(request, parsed)
  } catch {
    return null // has a circle in it, or what JSON cannot say
  }
}

/** The request with what holds for a body that was written again. */
export function withoutCodings(incoming: Incoming): Incoming {
  const { rawHeaders } = incoming
  const kept = rawHeaders.filter((_, i) => !OF_BYTES.has(rawHeaders[i - (i % 2)]!.toLowerCase()))
  return { ...incoming, rawHeaders: kept }
}

function writtenAgain({ headers }: IncomingMessage, body: unknown): Uint8Array | null {
  if (body instanceof Uint8Array) return body
  const contentType = headers['content-type'] ?? ''
  const [, charset = 'utf-8'] = CHARSET.exec(contentType) ?? []
  if (!/^utf-?8$/i.test(charset)) return null
  const type = contentType.split(';', 1)[0]!.trim().toLowerCase()
  const isJson = JSON_TYPE.test(type)
  if (typeof body === 'string') {
    // A text of JSON, or a JSON of a text: the length tells.
    const length = headers['content-encoding'] === undefined ? Number(headers['content-length']) : Number.NaN
    const texts = isJson ? [body, JSON.stringify(body)].filter((text) => Buffer.byteLength(text) === length) : [body]
    return texts[0] === undefined ? null : Buffer.from(texts[0])
  }
  if (isJson && body !== undefined) return Buffer.from(JSON.stringify(body))
  return type === FORM_TYPE && isObject(body) ? Buffer.from(formOf(body)) : null
}

/** As Express reads forms: repeats of a name make a list, `a[b]` is within an object. */
function formOf(fields: object): string {
  const pairs: string[] = []
  const add = (name: string, value: unknown): void => {
    if (!isObject(value)) pairs.push(`${encodeURIComponent(name)}=${encodeURIComponent(String(value ?? ''))}`)
    else {
      for (const [key, one] of Object.entries(value)) {
        add(Array.isArray(value) && !isObject(one) ? name : `${name}[${key}]`, one)
      }
    }
  }
  for (const [name, value] of Object.entries(fields)) add(name, value)
  return pairs.join('&')
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}
