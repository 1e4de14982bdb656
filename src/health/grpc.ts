import type { Probe, RawHeaders } from '../core/contracts.ts'
import { header, withHeaders } from '../core/headers.ts'
import type { Secret } from '../core/secret.ts'
import { ask, beginningOf } from './ask.ts'

export interface GrpcProbeOptions {
  /** Metadata sent with each check; the backend's own headers win; default none. */
  readonly headers?: Readonly<Record<string, string | Secret>> | undefined
}

const HEADERS = ['content-type', 'application/grpc+proto', 'te', 'trailers', 'user-agent', 'evenkeel-probe']
/** Compressed or not, and four bytes of length, before each message. */
const PREFIX_BYTES = 5
/** Protobuf's tag of a first field that has a length, and of one that is a number. */
const TEXT_FIELD = 0x0a
const NUMBER_FIELD = 0x08
/** HealthCheckResponse.ServingStatus, by number. */
const SERVING = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN']
/** gRPC's status codes, by number. */
const CODES = [
  'OK',
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
]

const UNIMPLEMENTED = '12'

/**
 * Asks grpc.health.v1.Health/Check for a service, '' being the server as a whole: SERVING is well, all else is not. It takes
 * HTTP/2: over the built-in transport an https: backend and `undici: { allowH2: true }`.
 */
export function grpcProbe(service = '', options: GrpcProbeOptions = {}): Probe {
  const request = {
    method: 'POST',
    path: '/grpc.health.v1.Health/Check',
    headers: withHeaders(HEADERS, options.headers ?? {}),
    body: requestFor(service),
  }
  return {
    name: 'grpc',
    async check(backend, use) {
      const { status, headers, body } = await ask(backend, request, use)
      const { bytes, trailers } = await beginningOf(body)
      const complaint = callComplaint(status, headers, trailers) ?? servingComplaint(bytes)
      if (complaint !== undefined) throw new Error(complaint)
    },
  }
}

/** How the call went: told in the trailers, or among the headers if there is nothing else. */
function callComplaint(status: number, headers: RawHeaders, trailers: RawHeaders = []): string | undefined {
  const said = header(trailers, 'grpc-status') === undefined ? headers : trailers
  const code = header(said, 'grpc-status')
  if (code === undefined) return `status ${status} without a grpc-status: is it gRPC, and is it reached over HTTP/2?`
  if (code === '0') return undefined
  const message = header(said, 'grpc-message')
  const detail = code === UNIMPLEMENTED ? 'it does not know grpc.health.v1' : (message ?? 'it does not say why')
  return `grpc-status ${code} (${CODES[Number(code)] ?? 'no known code'}): ${detail}`
}

/** What HealthCheckResponse says; a number that is 0 is not written at all. */
function servingComplaint(bytes: Uint8Array): string | undefined {
  const [compressed, ...length] = bytes.subarray(0, PREFIX_BYTES)
  const end = PREFIX_BYTES + length.reduce((sum, byte) => sum * 256 + byte, 0)
  if (compressed !== 0 || bytes.length < end) return 'its answer is no HealthCheckResponse'
  const [tag, value = 0] = bytes.subarray(PREFIX_BYTES, end)
  const serving = tag === NUMBER_FIELD ? value : 0
  return SERVING[serving] === 'SERVING' ? undefined : (SERVING[serving] ?? `serving status ${serving}`)
}

/** HealthCheckRequest { string service = 1 }, as one gRPC message. */
function requestFor(service: string): Uint8Array {
  const text = new TextEncoder().encode(service)
  const message = text.length === 0 ? [] : [TEXT_FIELD, ...varint(text.length), ...text]
  const out = new Uint8Array(PREFIX_BYTES + message.length)
  new DataView(out.buffer).setUint32(1, message.length)
  out.set(message, PREFIX_BYTES)
  return out
}

/** Seven bits a byte, the lowest first; all but the last have the eighth set. */
function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))]
}
