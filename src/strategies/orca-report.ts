import type { RawHeaders } from '../core/contracts.ts'
import { header } from '../core/headers.ts'

/** What a backend says of its load (ORCA), as far as it is looked at; 0 = it does not say. */
export interface LoadReport {
  /** What the application says it uses of what it can give, or else its share of CPU; may be above 1. */
  readonly utilization: number
  /** Requests per second. */
  readonly perSecond: number
  /** Errors per second. */
  readonly errorsPerSecond: number
}

type Fields = ReadonlyMap<string, unknown>

/**
 * The report of an answer: text, JSON or protobuf (`BIN `) in `endpoint-load-metrics`, or protobuf in `endpoint-load-metrics-bin`.
 * Undefined without a header; what cannot be read says 0.
 */
export function loadReportOf(headers: RawHeaders): LoadReport | undefined {
  const fields = fieldsOf(headers)
  if (fields === undefined) return undefined
  const read = (name: string): number => Math.max(0, Number(fields.get(name)) || 0)
  return {
    utilization: read('application_utilization') || read('cpu_utilization'),
    perSecond: read('rps_fractional') || read('rps'), // the second is what the first one was once called
    errorsPerSecond: read('eps'),
  }
}

function fieldsOf(headers: RawHeaders): Fields | undefined {
  const text = header(headers, 'endpoint-load-metrics')
  if (text?.startsWith('JSON ')) return readable(jsonFields, text.slice('JSON '.length))
  if (text?.startsWith('BIN ')) return readable(binaryFields, text.slice('BIN '.length))
  if (text !== undefined) return textFields(text)
  const binary = header(headers, 'endpoint-load-metrics-bin')
  return binary === undefined ? undefined : readable(binaryFields, binary)
}

function readable(read: (text: string) => Fields, text: string): Fields {
  try {
    return read(text)
  } catch {
    return new Map()
  }
}

/** `TEXT cpu_utilization=0.3, eps=1`; Envoy writes `cpu_utilization:0.3,eps:1`. */
function textFields(text: string): Fields {
  const pairs = text.replace(/^TEXT /, '').split(',')
  return new Map(pairs.map((pair) => pair.split(/[=:]/, 2).map((part) => part.trim()) as [string, string]))
}

/** `{"cpu_utilization": 0.3}`, by either name of a field that protobuf's JSON allows. */
function jsonFields(text: string): Fields {
  const entries = Object.entries(JSON.parse(text) as object)
  return new Map(
    entries.map(([name, value]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]),
  )
}

const VARINT = 0
const DOUBLE = 1
const BYTES = 2
const FLOAT = 5

/** Fields of xds.data.orca.v3.OrcaLoadReport (cncf/xds) by their tags, number and type: of another type they are unknown. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [1 * 8 + DOUBLE, 'cpu_utilization'],
  [3 * 8 + VARINT, 'rps'],
  [6 * 8 + DOUBLE, 'rps_fractional'],
  [7 * 8 + DOUBLE, 'eps'],
  [9 * 8 + DOUBLE, 'application_utilization'],
])

/** Base64 of the message; the other fields are passed over. Throws if it is none. */
function binaryFields(base64: string): Fields {
  const view = new DataView(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)).buffer)
  const fields = new Map<string, number>()
  let at = 0
  const varint = (): number => {
    let value = 0
    for (let unit = 1; unit < 2 ** 70; unit *= 128) {
      const byte = view.getUint8(at++)
      value += (byte & 127) * unit
      if (byte < 128) return value
    }
    throw new RangeError('more than ten bytes of a number')
  }
  const take = (type: number): number => {
    if (type === VARINT) return varint()
    const start = at
    if (type === DOUBLE) at += 8
    else if (type === FLOAT) at += 4
    else if (type === BYTES) at = varint() + at
    else throw new RangeError(`type ${type} is none`)
    if (at > view.byteLength) throw new RangeError('it ends too early')
    return type === DOUBLE ? view.getFloat64(start, true) : NaN
  }
  while (at < view.byteLength) {
    const tag = varint()
    const value = take(tag % 8)
    const name = NAMES.get(tag)
    if (name !== undefined) fields.set(name, value)
  }
  return fields
}
