import type { HedgeOptions } from 'evenkeel'
import { expect } from 'vitest'
import { type BalancerBench, type BalancerBenchOptions, balancerBench } from './balancer-bench.ts'
import type { Play } from './plays.ts'
import type { ScriptedSend } from './scripted.ts'

export interface HedgeBench extends BalancerBench {
  readonly told: readonly string[]
  send(number: number): ScriptedSend
  inflight(): number
  totals(): { readonly hedges: number; readonly hedgesWon: number; readonly failed: number }
}

/** The second send goes out after 50 ms. */
export function hedging(
  play?: Play,
  { hedge, ...options }: BalancerBenchOptions & { hedge?: HedgeOptions } = {},
): HedgeBench {
  const bench = balancerBench(play, {
    retry: { attempts: 1 },
    ids: 'ab',
    ...options,
    hedge: { delayMs: 50, ...hedge },
    health: { slowStart: false, ...options.health },
  })
  const told: string[] = []
  const { balancer } = bench
  balancer.on('hedge', (_, { number }, ms) => void told.push(`attempt ${number} slow after ${ms} ms`))
  balancer.on('hedgeWon', (_, { number }) => void told.push(`attempt ${number} won`))
  return {
    ...bench,
    told,
    send: (number) => bench.transport.sends[number - 1]!,
    inflight: () => balancer.stats().pools.default!.inflight,
    totals: () => balancer.stats().pools.default!,
  }
}

/** Answers after so many ms, by number; undefined = never. */
export function inTime(bench: () => BalancerBench, ...times: readonly (number | undefined)[]): Play {
  return (send, number) => {
    const ms = times[number - 1]
    if (ms !== undefined) bench().clock.after(ms, () => send.answer(200, `from ${number}`))
  }
}

/** Nothing is in flight and, once failures are forgiven, no timer is left. */
export async function expectQuiet(it: HedgeBench): Promise<void> {
  expect(it.inflight()).toBe(0)
  await it.clock.advance(6_000)
  expect(it.clock.pending).toBe(0)
}
