import { once } from 'node:events'
import type net from 'node:net'
import type { AddressInfo } from 'node:net'
import {
  type ActiveHealthOptions,
  type Backend,
  type Balancer,
  type BalancerOptions,
  createBalancer,
  type MemoryAnswer,
  type MemoryBackend,
  type MemoryTransport,
  memory,
  type Probe,
  type Watcher,
} from 'evenkeel'
import { type ManualClock, manualClock, seededRandom } from 'evenkeel/testing'
import { onTestFinished } from 'vitest'
import { WHEN_GIVEN } from '../../src/config/defaults.ts'
import { type MonitorSettings, monitor } from '../../src/health/monitor.ts'
import { balance } from './upstreams.ts'

export interface Scene {
  readonly balancer: Balancer
  readonly clock: ManualClock
  readonly transport: MemoryTransport
  readonly options: BalancerOptions
  /** 'blocked a probe: detail', in order. */
  readonly log: string[]
  /** Clock times at which a backend was checked. */
  times(id: string): readonly number[]
  reasons(id: string): readonly string[]
}

export const endpoint: (id: string) => { url: string; id: string } = (id) => ({ url: `http://${id}.test`, id })
export const failing: MemoryAnswer = { status: 500 }
export const silent: MemoryAnswer = { headMs: 1e9 }

/** A manual clock that lets what was just begun run to where it waits before it moves. */
export function patientClock(): ManualClock {
  const clock = manualClock()
  const { advance } = clock
  clock.advance = async (ms) => {
    await advance(0)
    await advance(ms)
  }
  return clock
}

/** Checks every second without jitter, so that times can be told; panic is off, so that a blocked backend gets nothing. */
export function scene(
  backends: Readonly<Record<string, MemoryBackend>>,
  active: ActiveHealthOptions | false = {},
  more: Partial<BalancerOptions> = {},
): Scene {
  const clock = patientClock()
  const at = new Map<string, number[]>()
  const inner = memory(backends, { clock })
  const transport: MemoryTransport = {
    ...inner,
    send(attempt) {
      if (attempt.request.path !== '/real') {
        const { id } = attempt.backend
        at.set(id, [...(at.get(id) ?? []), clock.now() - 1_000])
      }
      return inner.send(attempt)
    },
  }
  const options: BalancerOptions = {
    backends: Object.keys(backends).map(endpoint),
    health: { active: active && { intervalMs: 1_000, jitter: 0, timeoutMs: 200, ...active }, panicBelow: 0 },
    transport,
    clock,
    random: seededRandom(1),
    ...more,
  }
  const balancer = createBalancer(options)
  onTestFinished(() => balancer.close())
  const log: string[] = []
  const line = ({ id }: Backend, { by, detail }: { by: string; detail?: string }): string => `${id} ${by}: ${detail}`
  balancer.on('blocked', (backend, reason) => log.push(`blocked ${line(backend, reason)}`))
  balancer.on('unblocked', (backend, reason) => log.push(`unblocked ${line(backend, reason)}`))
  const reasons = (id: string): readonly string[] =>
    Object.values(balancer.stats().pools)
      .flatMap((pool) => pool.backends)
      .find((backend) => backend.id === id)!.reasons
  return { balancer, clock, transport, options, log, times: (id) => at.get(id) ?? [], reasons }
}

/** A watcher of checks that answer as the test says. */
export function checks(probe: Probe['check'], settings: Partial<MonitorSettings> = {}): Watcher {
  const active = WHEN_GIVEN.health.active
  const all = { ...active, intervalMs: 1_000, jitter: 0, timeoutMs: 200, rise: 2, fall: 3, ...settings }
  return monitor(all, { name: 'own', check: probe })
}

/** What a promise has come to by now. */
export async function stateOf(
  promise: Promise<unknown>,
  clock: ManualClock,
): Promise<'pending' | 'resolved' | 'rejected'> {
  let state: 'pending' | 'resolved' | 'rejected' = 'pending'
  promise.then(
    () => (state = 'resolved'),
    () => (state = 'rejected'),
  )
  await clock.advance(0)
  return state
}

const QUICK: ActiveHealthOptions = { intervalMs: 30, timeoutMs: 5_000, rise: 2, fall: 2 }

/** Checks of real backends; whoever they take out gets nothing. */
export function checked(
  urls: readonly string[],
  active: ActiveHealthOptions,
  more: Partial<BalancerOptions> = {},
): Balancer {
  return balance(urls, { ...more, health: { active: { ...QUICK, ...active }, panicBelow: 0, passive: false } })
}

export function reasonsOf(balancer: Balancer, backend = 0): string {
  return balancer.stats().pools.default!.backends[backend]!.reasons.join()
}

export async function listening(server: net.Server, port = 0, host = '127.0.0.1'): Promise<number> {
  server.listen(port, host)
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}
