import type { Balancer, PoolStats } from 'evenkeel'
import type { Traffic } from './traffic.ts'

/** Prints what happens: one block of lines a second, and one line per event. */
export interface Report {
  /** A line of its own, with the time. */
  event(text: string): void
  stop(): void
}

export function startReport(balancer: Balancer, traffic: Traffic): Report {
  const startMs = performance.now()
  const time = (): string => `${((performance.now() - startMs) / 1000).toFixed(1).padStart(6)} s`
  const event = (text: string): void => console.log(`${time()}  * ${text}`)

  balancer.on('blocked', ({ id }, { untilMs, detail }) => {
    const seconds = untilMs === undefined ? '' : ` for ${((untilMs - performance.now()) / 1000).toFixed(1)} s`
    event(`${id} is ejected${seconds}: ${detail}`)
  })
  balancer.on('unblocked', ({ id }) => event(`${id} gets one request to show that it is well`))
  balancer.on('warning', (error) => event(`warning: ${error.message}`))

  let before = { ms: startMs, requests: 0, backends: new Map<string, number>() }
  const second = (): void => {
    const pool = poolOf(balancer)
    const seconds = (performance.now() - before.ms) / 1000
    const rate = (now: number, then: number): string => ((now - then) / seconds).toFixed(0).padStart(4)
    const total = `${rate(traffic.requests, before.requests)} requests/s, ${traffic.failed} failed`
    console.log(`${time()}  traffic ${total}, ${pool.retries} sent again`)
    for (const backend of pool.backends) {
      const { id, state, reasons, inflight, requests, failures, p50Ms, p99Ms } = backend
      const columns = [
        `          ${id.padEnd(6)} ${state.padEnd(7)}`,
        `${String(inflight).padStart(2)} in flight`,
        `${String(requests).padStart(6)} requests ${rate(requests, before.backends.get(id) ?? 0)}/s`,
        `${String(failures).padStart(3)} errors`,
        `p50 ${ms(p50Ms)}`,
        `p99 ${ms(p99Ms)} ms`,
        reasons.join(', '),
      ]
      console.log(columns.join('  ').trimEnd())
    }
    before = {
      ms: performance.now(),
      requests: traffic.requests,
      backends: new Map(pool.backends.map(({ id, requests }) => [id, requests])),
    }
  }

  const timer = setInterval(second, 1_000)
  return { event, stop: () => clearInterval(timer) }
}

/** The few lines that remain at the end. */
export function summary(balancer: Balancer, traffic: Traffic): string {
  const { retries, attempts, backends } = poolOf(balancer)
  const shares = backends.map(({ id, requests }) => `${id} ${((100 * requests) / Math.max(attempts, 1)).toFixed(1)} %`)
  return [
    `requests  ${traffic.requests}`,
    `failed    ${traffic.failed}${traffic.firstFailure === undefined ? '' : ` (first: ${traffic.firstFailure})`}`,
    `retries   ${retries}`,
    `shares    ${shares.join(', ')}`,
  ].join('\n')
}

function poolOf(balancer: Balancer): PoolStats {
  return balancer.stats().pools.default!
}

function ms(value: number): string {
  return (Number.isNaN(value) ? '-' : value.toFixed(1)).padStart(5)
}
