import type { Attempt, BalancerRequest, BalancerResponse, ResponseBody, Transport } from '../../src/core/contracts.ts'
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

/** The transport of a simulation: half of `rttMs` there, half of it back. Answers have no body to speak of. */
export function network(time: VirtualTime, servers: ReadonlyMap<string, Server>, rttMs: number): Transport {
  return {
    name: 'simulated',
    send(attempt: Attempt): Promise<BalancerResponse> {
      const { workMs = 0 } = attempt.request as Partial<Work> // a probe costs nothing
      const server = servers.get(attempt.backend.id)!
      return new Promise((resolve, reject) => {
        let isGivenUp = false
        attempt.onCancel((cause) => {
          isGivenUp = true
          time.stir()
          reject({ phase: 'head', processed: 'maybe', reused: false, code: '', cause })
        })
        const arrive = (status: number): void => {
          if (isGivenUp) return
          time.stir()
          if (status > 0) return resolve({ status, headers: [], body: EMPTY })
          reject({ phase: 'connect', processed: 'no', reused: false, code: 'ECONNREFUSED', cause: undefined })
        }
        time.after(rttMs / 2, () => {
          attempt.sent()
          server.receive(workMs, (status) => void time.after(rttMs / 2, () => arrive(status)))
        })
      })
    },
  }
}
