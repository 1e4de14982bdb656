import { BalancerError, type CallOptions } from 'evenkeel'
import type { LiveCall } from '../../src/core/call.ts'
import type { Criticality, Endpoint } from '../../src/core/contracts.ts'
import { type LimitSettings, limit, type QueueSettings } from '../../src/policies/limit.ts'
import { deadline } from '../../src/policies/timeout.ts'
import { type BenchOptions, bench, type PoolBench } from './pool-bench.ts'

export const QUEUE: QueueSettings = { size: 10, timeoutMs: 1_000, order: 'fifo', overloadMs: 100 }

export interface Started {
  readonly call: LiveCall
  /** 'waits', 'sent', or how it ended: a status, an error's code, a reason. */
  readonly now: () => string
  /** What it failed with. */
  readonly error: () => unknown
}

export interface LimitBench extends PoolBench {
  readonly start: (options?: CallOptions, timeoutMs?: number) => Started
  /** Answers the send of a call. */
  readonly answer: (started: Started) => Promise<void>
  readonly settle: () => Promise<void>
}

export function limitBench(
  settings: Partial<LimitSettings>,
  given: readonly (string | Endpoint)[] = ['a'],
  options: BenchOptions = {},
): LimitBench {
  const { policy, watcher } = limit({ maxInflight: undefined, queue: false, ...settings })
  const it = bench(given, {
    play: () => {},
    ...options,
    policies: [deadline(), policy, ...(options.policies ?? [])],
    watchers: [...(options.watchers ?? []), watcher],
  })
  const settle = (): Promise<void> => it.clock.advance(0)
  const start: LimitBench['start'] = (callOptions, timeoutMs = 0) => {
    const call = it.callOf(callOptions).route('default', timeoutMs)
    let ended: string | undefined
    let error: unknown
    it.send({}, call).then(
      (response) => {
        ended = String(response.status)
      },
      (reason: unknown) => {
        error = reason
        ended = reason instanceof BalancerError ? reason.code : (reason as Error).message
      },
    )
    return { call, now: () => ended ?? (call.attempts.length > 0 ? 'sent' : 'waits'), error: () => error }
  }
  return {
    ...it,
    start,
    settle,
    async answer({ call }) {
      it.transport.sends.find(({ attempt }) => attempt === call.attempts.at(-1))!.answer()
      await settle()
    },
  }
}

export function states(...all: readonly Started[]): string {
  return all.map(({ now }) => now()).join(' ')
}

/** Starts one call after the other, a millisecond apart. */
export async function line(it: LimitBench, ...classes: readonly Criticality[]): Promise<Started[]> {
  const all: Started[] = []
  for (const criticality of classes) {
    all.push(it.start({ criticality }))
    await it.clock.advance(1)
  }
  return all
}
