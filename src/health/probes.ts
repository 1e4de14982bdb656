import type { Probe } from '../core/contracts.ts'
import { withHeaders } from '../core/headers.ts'
import type { ResolvedSettings } from '../core/resolved.ts'
import type { Secret } from '../core/secret.ts'
import { ask, beginningOf, LOOKED_AT_BYTES, type StatusRange } from './ask.ts'
import { grpcProbe } from './grpc.ts'

/** What an HTTP check asks, and what it takes for well. */
export interface HttpProbeOptions {
  /** Origin-form; the backend's base path is put in front; default '/'. */
  readonly path?: string | undefined
  /** default 'GET'. */
  readonly method?: string | undefined
  /** Sent with each check, beside user-agent and accept, or in their place; the backend's own headers win; default none. */
  readonly headers?: Readonly<Record<string, string | Secret>> | undefined
  /** Default 200 to 399: a redirect is an answer of a working server. */
  readonly status?: readonly StatusRange[] | undefined
  /** Text, as UTF-8, that the first 1024 bytes of the body must hold; default: any body will do. */
  readonly match?: string | undefined
}

const HEADERS = ['user-agent', 'evenkeel-probe', 'accept', '*/*']
const WELL: readonly StatusRange[] = [{ from: 200, to: 399 }]

/** A request: well if the status is one of those expected and the body holds what it should. */
export function httpProbe(options: HttpProbeOptions = {}): Probe {
  const { path = '/', method = 'GET', status = WELL, match } = options
  const request = { method, path, headers: withHeaders(HEADERS, options.headers ?? {}), body: null }
  const holds = (bytes: Uint8Array): boolean => match === undefined || new TextDecoder().decode(bytes).includes(match)
  return {
    name: 'http',
    async check(backend, use) {
      const { status: got, body } = await ask(backend, request, use)
      const isWell = status.some(({ from, to }) => got >= from && got <= to)
      if (match === undefined || !isWell) body.discard()
      if (!isWell) throw new Error(`status ${got}`)
      if (match === undefined || holds((await beginningOf(body, holds)).bytes)) return
      throw new Error(`the first ${LOOKED_AT_BYTES} bytes do not hold ${JSON.stringify(match)}`)
    },
  }
}

/** A connection can be opened, TLS included. */
export function tcpProbe(): Probe {
  return { name: 'tcp', check: (backend, { reach, signal }) => reach(backend, signal) }
}

/** The check that `health.active` asks for; `status` is its list of statuses, read. */
export function probeOf(
  active: Exclude<ResolvedSettings['health']['active'], false>,
  status: readonly StatusRange[],
): Probe {
  const { type, probe, path, method, headers, match, service } = active
  if (probe !== undefined) return probe
  if (type === 'tcp') return tcpProbe()
  if (type === 'grpc') return grpcProbe(service, { headers })
  return httpProbe({ path, method, headers, status, match })
}
