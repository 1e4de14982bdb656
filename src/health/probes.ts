import type { Probe } from '../core/contracts.ts'

/** Statuses from..to, both included. */
export interface StatusRange {
  readonly from: number
  readonly to: number
}

/** GET of a path: well if the status is one of those expected, whatever the body. */
export function httpProbe(path: string, status: readonly StatusRange[]): Probe {
  const headers = ['user-agent', 'evenkeel-probe', 'accept', '*/*']
  return {
    name: 'http',
    async check(backend, { send, signal }) {
      const { call, response } = send(backend, { method: 'GET', path, headers, body: null })
      signal.addEventListener('abort', () => call.cancel(signal.reason), { once: true })
      const { status: got, body } = await response
      body.discard()
      if (!status.some(({ from, to }) => got >= from && got <= to)) throw new Error(`status ${got}`)
    },
  }
}

/** A connection can be opened, TLS included. */
export function tcpProbe(): Probe {
  return { name: 'tcp', check: (backend, { reach, signal }) => reach(backend, signal) }
}
