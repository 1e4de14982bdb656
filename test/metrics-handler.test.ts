import type { RequestListener } from 'node:http'
import { collect, metricsHandler, type TextSource } from 'evenkeel/prometheus'
import express from 'express'
import fastify from 'fastify'
import { Counter, Registry, type RegistryContentType } from 'prom-client'
import { describe, expect, onTestFinished, test } from 'vitest'
import { balancerBench } from './support/balancer-bench.ts'
import { valuesOf } from './support/exposition.ts'
import { ask, type Upstream, upstream } from './support/upstreams.ts'

/** A registry with a balancer of so many backends, some requests, and a metric of the app's own. */
async function filled(backends = 2): Promise<Registry<RegistryContentType>> {
  const registry = new Registry<RegistryContentType>()
  const { balancer, call } = balancerBench((send) => send.answer(), {
    name: 'a "b" \\',
    backends: Array.from({ length: backends }, (_, i) => ({ id: `b${i}"\\n`, url: `http://b${i}.test` })),
    breaker: {},
  })
  collect(balancer, { registry })
  new Counter({ name: 'mine_total', help: 'Mine.', labelNames: ['kind'], registers: [registry] }).inc({ kind: 'x' }, 3)
  for (let i = 0; i < 2 * backends; i++) await call()
  return registry
}

const FRAMEWORKS: Readonly<Record<string, (registry: TextSource) => Promise<Upstream>>> = {
  'node:http': (registry) => upstream(metricsHandler(registry) as RequestListener),
  async Express(registry) {
    const app = express()
    app.use('/metrics', metricsHandler(registry))
    return upstream(app)
  },
  async Fastify(registry) {
    const app = fastify()
    app.route({ method: ['GET', 'POST'], url: '/metrics', handler: metricsHandler(registry) })
    const url = await app.listen({ port: 0, host: '127.0.0.1' })
    onTestFinished(() => app.close())
    return { url, port: Number(new URL(url).port) }
  },
}

describe.each(Object.entries(FRAMEWORKS))('the handler in %s', (_, serve) => {
  test('answers GET with all the registry holds', async () => {
    const registry = await filled()
    const app = await serve(registry)
    const { status, headers, body } = await ask(app, '/metrics')
    expect([status, headers['content-type']]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8'])
    expect(body.toString()).toBe(await registry.metrics())
    expect(valuesOf(body.toString(), 'evenkeel_calls_total', 'result')).toEqual({ answered: 4, failed: 0, aborted: 0 })
    expect(valuesOf(body.toString(), 'mine_total', 'kind')).toEqual({ x: 3 })
  })

  test('answers HEAD without reading anything', async () => {
    const app = await serve({ contentType: 'text/plain', metrics: () => Promise.reject(new Error('read')) })
    const { status, headers, body } = await ask(app, '/metrics', { method: 'HEAD' })
    expect([status, headers['content-type'], body.length]).toEqual([200, 'text/plain', 0])
  })

  test('takes no other method', async () => {
    const app = await serve(await filled())
    const { status, headers, body } = await ask(app, '/metrics', { method: 'POST' })
    expect([status, headers.allow, body.toString()]).toEqual([405, 'GET, HEAD', 'Method Not Allowed\n'])
  })

  test('hides what went wrong from the client', async () => {
    const registry = await filled()
    new Counter({ name: 'bad_total', help: 'Bad.', registers: [registry], collect: () => fail('secret') })
    const app = await serve(registry)
    const { status, headers, body } = await ask(app, '/metrics')
    expect([status, body.toString()]).toEqual([500, 'Internal Server Error\n'])
    expect(JSON.stringify(headers)).not.toContain('secret')
  })
})

describe('the handler', () => {
  test('tells what went wrong to whoever wants to know', async () => {
    const errors: unknown[] = []
    const source = { contentType: 'text/plain', metrics: () => Promise.reject(new Error('secret')) }
    const app = await upstream(
      metricsHandler(source, { onError: (error) => void errors.push(error) }) as RequestListener,
    )
    expect((await ask(app, '/')).status).toBe(500)
    expect(errors).toEqual([new Error('secret')])
  })

  test.each([
    ['many backends', () => {}],
    [
      'default labels',
      (registry: Registry<RegistryContentType>) => registry.setDefaultLabels({ app: 'x"y', pool: 'z' }),
    ],
    [
      'OpenMetrics',
      (registry: Registry<RegistryContentType>) => registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE),
    ],
  ])('writes letter by letter what the registry would: %s', async (_, prepare) => {
    const registry = await filled(50)
    prepare(registry)
    const app = await upstream(metricsHandler(registry) as RequestListener)
    for (let i = 0; i < 2; i++) {
      const { headers, body } = await ask(app, '/metrics')
      expect(headers['content-type']).toBe(registry.contentType)
      expect(body.toString()).toBe(await registry.metrics())
    }
  })

  test('serves a registry without a balancer, and an empty one', async () => {
    const registry = new Registry()
    const app = await upstream(metricsHandler(registry) as RequestListener)
    expect((await ask(app, '/')).body.toString()).toBe(await registry.metrics())
    new Counter({ name: 'mine_total', help: 'Mine.', registers: [registry] })
    expect((await ask(app, '/')).body.toString()).toBe(
      '# HELP mine_total Mine.\n# TYPE mine_total counter\nmine_total 0\n',
    )
  })

  test('survives a client that leaves before its answer', async () => {
    let begun = (): void => {}
    const asked = new Promise<void>((resolve) => {
      begun = resolve
    })
    let finish = (_: string): void => {}
    const source: TextSource = {
      contentType: 'text/plain',
      metrics: () =>
        new Promise((resolve) => {
          finish = resolve
          begun()
        }),
    }
    const handled: Promise<void>[] = []
    const handler = metricsHandler(source)
    const app = await upstream((request, response) => void handled.push(handler(request, response)))
    const client = ask(app, '/', { signal: AbortSignal.timeout(50) })
    await asked
    await expect(client).rejects.toThrow()
    finish('late')
    await expect(Promise.all(handled)).resolves.toEqual([undefined])
  })
})

function fail(message: string): never {
  throw new Error(message)
}
