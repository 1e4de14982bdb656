import type {
  Attempt,
  BalancerRequest,
  BalancerResponse,
  RawHeaders,
  ResponseBody,
  Transport,
} from '../../src/core/contracts.ts'
import { LATENCY_HEADER, PROBE_PATH, RIF_HEADER } from '../../src/core/load.ts'
import type { Server } from './server.ts'
import type { VirtualTime } from './virtual-time.ts'

/** A request that knows what it costs. */
export interface Work extends BalancerRequest {
  readonly workMs: number
}

const EMPTY: ResponseBody = {
  consume(sink) {
    sink.end()
    return { resume() {}, cancel() {} }
  },
  discard() {},
}

/**
 * The transport of a simulation: half of `rttMs` there, half of it back. Answers have no body to speak of. From the first probe on
 * they carry the load of their server at the moment they leave it: before, nobody would look at it, and it takes time to compute.
 */
export function network(time: VirtualTime, servers: ReadonlyMap<string, Server>, rttMs: number): Transport {
  let isAsked = false
  return {
    name: 'simulated',
    send(attempt: Attempt): Promise<BalancerResponse> {
      const { workMs = 0, path } = attempt.request as BalancerRequest & Partial<Work>
      const server = servers.get(attempt.backend.id)!
      return new Promise((resolve, reject) => {
        let isGivenUp = false
        attempt.onCancel((cause) => {
          isGivenUp = true
          time.stir()
          reject({ phase: 'head', processed: 'maybe', reused: false, code: '', cause })
        })
        const arrive = (status: number, headers: RawHeaders): void => {
          if (isGivenUp) return
          time.stir()
          if (status > 0) return resolve({ status, headers, body: EMPTY })
          reject({ phase: 'connect', processed: 'no', reused: false, code: 'ECONNREFUSED', cause: undefined })
        }
        time.after(rttMs / 2, () => {
          attempt.sent()
          const reply = (status: number): void => {
            const headers = status > 0 && isAsked ? loadOf(server, time.now()) : []
            time.after(rttMs / 2, () => arrive(status, headers))
          }
          isAsked ||= path === PROBE_PATH
          if (path === PROBE_PATH) server.probed(reply)
          else server.receive(workMs, reply)
        })
      })
    },
  }
}

/** What `loadReport` writes. */
function loadOf({ load }: Server, nowMs: number): RawHeaders {
  const { rif, latencyMs } = load.report(nowMs)
  return [RIF_HEADER, `${rif}`, ...(latencyMs === undefined ? [] : [LATENCY_HEADER, latencyMs.toFixed(2)])]
}
