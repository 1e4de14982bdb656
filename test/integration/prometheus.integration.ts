// A real Prometheus (Debian's package `prometheus`, with promtool) reads a running balancer.
import { readFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { fileURLToPath } from 'node:url'
import { type Balancer, createBalancer } from 'evenkeel'
import { collect, metricsHandler } from 'evenkeel/prometheus'
import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { prometheus, run } from '../support/prometheus-process.ts'
import { ask, idle, keeper, kept, type Upstream, upstream } from '../support/upstreams.ts'

const ALERTS = fileURLToPath(new URL('../../docs/prometheus/alerts.yml', import.meta.url))
const DASHBOARD = fileURLToPath(new URL('../../docs/prometheus/dashboard.json', import.meta.url))

/** Many times what a scrape takes. */
const SOON = { timeout: 20_000, interval: 50 }

/** A balancer in full dress over backends that answer with the status they are asked for, and its metrics on a port. */
async function running(): Promise<{
  readonly balancer: Balancer
  readonly target: Upstream
  readonly urls: readonly string[]
}> {
  const backends = await Promise.all(
    ['a', 'b', 'c'].map(() =>
      keeper((request, response) => {
        response.statusCode = Number(request.url!.slice(1))
        response.end('x')
      }),
    ),
  )
  const urls = backends.map(({ url }) => url)
  const registry = new Registry()
  const balancer = kept(createBalancer(optionsOf(urls)))
  collect(balancer, { registry })
  const target = await upstream(metricsHandler(registry) as RequestListener)
  return { balancer, target, urls }
}

function optionsOf(urls: readonly string[]): Parameters<typeof createBalancer>[0] {
  return {
    backends: urls.map((url, i) => ({ id: `${'abc'[i]}"\\n`, url })),
    strategy: 'round-robin',
    retry: { attempts: 2, baseMs: 0, budget: { perSecond: 100 } },
    breaker: {},
    limits: { maxInflight: 100, queue: {}, adaptive: {} },
    health: { passive: false, active: { path: '/200', intervalMs: 200 } },
  }
}

async function send(balancer: Balancer, status: number, times: number): Promise<void> {
  for (let i = 0; i < times; i++) await (await balancer.fetch(`/${status}`)).text()
  await idle(balancer)
}

describe('promtool', () => {
  test('finds nothing wrong with the metrics', async () => {
    const { balancer, target } = await running()
    await balancer.ready()
    for (const status of [200, 404, 503, 429]) await send(balancer, status, 6)
    balancer.disable('a"\\n')
    const { body } = await ask(target, '/metrics')
    expect(await run('promtool', ['check', 'metrics'], body.toString())).toEqual({ stdout: '', stderr: '', code: 0 })
  })

  test('finds nothing wrong with the alert rules', async () => {
    const told = await run('promtool', ['check', 'rules', ALERTS])
    expect(told).toMatchObject({ stderr: '', code: 0 })
    expect(told.stdout).toContain('SUCCESS: 13 rules found')
  })
})

describe('Prometheus', () => {
  test('scrapes a running balancer, and its queries tell what was sent', async () => {
    const { balancer, target, urls } = await running()
    const { query, values, rules } = await prometheus(`127.0.0.1:${target.port}`, ALERTS)
    /** Waits until it has scraped what is true by now. */
    const becomes = async (expr: string, label: string, expected: Readonly<Record<string, number>>): Promise<void> =>
      expect.poll(() => values(expr, label), { ...SOON, message: expr }).toEqual(expected)
    await becomes('up', 'job', { evenkeel: 1 })
    await send(balancer, 200, 30)
    await send(balancer, 404, 6)
    await send(balancer, 503, 6) // each is tried twice
    await becomes('sum by (class) (evenkeel_requests_total) > 0', 'class', {
      ok: 30,
      'client-error': 6,
      'server-error': 12,
    })
    await becomes('sum by (result) (evenkeel_calls_total)', 'result', { answered: 42, failed: 0, aborted: 0 })
    await becomes('sum by (class) (evenkeel_retries_total) > 0', 'class', { 'server-error': 6 })
    await becomes('sum by (backend) (evenkeel_backend_requests_total{class="ok"})', 'backend', {
      'a"\\n': 10,
      'b"\\n': 10,
      'c"\\n': 10,
    })
    await becomes('sum(evenkeel_backend_requests_total) - sum(evenkeel_requests_total)', '', { none: 0 })
    await becomes(
      'evenkeel_request_duration_seconds_count - sum(evenkeel_backend_request_duration_seconds_count)',
      '',
      {},
    )
    await becomes('sum(evenkeel_backend_request_first_byte_seconds_count)', '', { none: 48 })
    await becomes('evenkeel_backends', 'state', { up: 3, blocked: 0, drained: 0 })
    await becomes('evenkeel_queue_length + evenkeel_requests_in_flight', '', { none: 0 })
    await becomes('evenkeel_backend_breaker_state == 1', 'state', { closed: 1 })
    const { none: p99 } = await values(
      'histogram_quantile(0.99, sum by (le) (evenkeel_call_duration_seconds_bucket))',
      '',
    )
    expect(p99).toBeGreaterThan(0)
    expect(p99).toBeLessThanOrEqual(300)
    const checks = async (): Promise<number | undefined> => (await values('min(evenkeel_backend_checks_total)')).none
    await expect.poll(checks, SOON).toBeGreaterThanOrEqual(3)

    balancer.disable('a"\\n')
    await becomes('evenkeel_backend_blocked == 1', 'backend', { 'a"\\n': 1 })
    await becomes('evenkeel_backend_up', 'backend', { 'a"\\n': 0, 'b"\\n': 1, 'c"\\n': 1 })

    await balancer.update({ ...optionsOf(urls.slice(1)), backends: [{ id: 'b"\\n', url: urls[1]! }] })
    await becomes('evenkeel_backend_up', 'backend', { 'b"\\n': 1 })
    await becomes('sum(evenkeel_requests_total)', '', { none: 48 })
    await becomes('evenkeel_config_revision', 'balancer', { evenkeel: 2 })

    await expect(balancer.update({ backends: ['nonsense'] })).rejects.toThrow()
    balancer.disable('b"\\n')
    const states = async (): Promise<Readonly<Record<string, string>>> =>
      Object.fromEntries((await rules()).map(({ name, state }) => [name, state]))
    await expect.poll(states, SOON).toMatchObject({ EvenkeelReloadFails: 'firing', EvenkeelNoBackendUp: 'pending' })
    expect(Object.values(await states()).filter((state) => state === 'firing')).toHaveLength(1)
    const all = await rules()
    expect(all.filter(({ health }) => health !== 'ok')).toEqual([])

    const { panels } = JSON.parse(readFileSync(DASHBOARD, 'utf8')) as {
      readonly panels: readonly { readonly title: string; readonly targets?: readonly { readonly expr: string }[] }[]
    }
    const empty = async (): Promise<readonly string[]> => {
      const titles: string[] = []
      for (const { title, targets = [] } of panels) {
        for (const { expr } of targets) {
          const asked = expr.replaceAll('$__rate_interval', '1m').replaceAll(/\$\w+/g, '.*')
          if ((await query(asked)).length === 0) titles.push(title)
        }
      }
      return titles
    }
    // Only what is not so at this moment has nothing to show, once there are two values of everything else.
    await expect.poll(empty, SOON).toEqual(['Out for so long yet'])
  })
})
