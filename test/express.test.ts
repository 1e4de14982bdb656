import { randomFillSync } from 'node:crypto'
import { createProxy } from 'evenkeel/node'
import express, { type Express } from 'express'
import { describe, expect, test } from 'vitest'
import {
  ask,
  balance,
  idle,
  inflight,
  keeper,
  MIB,
  nobody,
  rawClient,
  rawUpstream,
  sha256,
  type Upstream,
  upstream,
  valuesOf,
} from './support/upstreams.ts'

/** Express 5 with the proxy under /api, a body parser after it, and routes of its own. */
async function appOver(
  backend: Upstream | string,
): Promise<{ readonly app: Upstream; readonly balancer: ReturnType<typeof balance> }> {
  const balancer = balance([backend], { retry: { attempts: 2, baseMs: 0 } })
  const app: Express = express()
  app.use('/api', createProxy(balancer))
  app.use(express.json())
  app.get('/about', (_, response) => void response.json({ mine: true }))
  app.post('/echo', (request, response) => void response.json({ got: request.body as unknown }))
  return { app: await upstream(app), balancer }
}

describe('mounted in Express 5', () => {
  test('the backend gets paths without the mount path', async () => {
    const backend = await keeper()
    const { app } = await appOver(`${backend.url}/v1`)
    for (const path of ['/api', '/api/', '/api/users/1?x=1&x=', '/api?x=1', '/api//evil.test/x', '/API/a']) {
      expect((await ask(app, path)).status).toBe(200)
    }
    expect(backend.got.map(({ path }) => path)).toEqual([
      '/v1/',
      '/v1/',
      '/v1/users/1?x=1&x=',
      '/v1/?x=1',
      '/v1//evil.test/x',
      '/v1/a',
    ])
  })

  test('other routes are the app’s own', async () => {
    const backend = await keeper()
    const { app } = await appOver(backend)
    expect((await ask(app, '/about')).body.toString()).toBe('{"mine":true}')
    expect((await ask(app, '/apiary')).status).toBe(404)
    expect((await ask(app, '/')).status).toBe(404)
    expect(backend.got).toEqual([])
  })

  test('a body parser mounted after it takes nothing away from the proxy, nor the proxy from it', async () => {
    const backend = await keeper((_, response) => response.writeHead(201, { 'content-type': 'a/b' }).end('made'))
    const { app } = await appOver(backend)
    const options = { method: 'POST', body: '{"a":1}', headers: { 'content-type': 'application/json' } }
    const proxied = await ask(app, '/api/things', options)
    expect([proxied.status, proxied.headers['content-type'], proxied.body.toString()]).toEqual([201, 'a/b', 'made'])
    expect(backend.got.map(({ path, body }) => [path, body.toString()])).toEqual([['/things', '{"a":1}']])
    expect((await ask(app, '/echo', options)).body.toString()).toBe('{"got":{"a":1}}')
    expect(backend.got).toHaveLength(1)
  })

  test('repeated fields and streams come through as they do without it', async () => {
    const bytes = randomFillSync(Buffer.alloc(8 * MIB))
    const backend = await upstream((request, response) => {
      response.writeHead(200, [
        'Set-Cookie',
        'a=1',
        'set-cookie',
        'b=2',
        'X-Powered-By',
        'me',
        'Link',
        '</a>',
        'Link',
        '</b>',
      ])
      request.pipe(response)
    })
    const { app } = await appOver(backend)
    const answer = await ask(app, '/api/', { method: 'PUT', body: bytes })
    expect(sha256(answer.body)).toBe(sha256(bytes))
    expect(valuesOf(answer.rawHeaders, 'set-cookie')).toEqual(['a=1', 'b=2'])
    expect(valuesOf(answer.rawHeaders, 'link')).toEqual(['</a>', '</b>'])
    expect(valuesOf(answer.rawHeaders, 'x-powered-by')).toEqual(['me'])
  })

  test('the proxy answers its errors itself', async () => {
    const { app } = await appOver(await nobody())
    const answer = await ask(app, '/api/x')
    expect([answer.status, answer.headers['content-type']]).toEqual([502, 'application/problem+json'])
    expect((await ask(app, '/api/%zz')).status).toBe(400)
    expect((await ask(app, '/api/..%2fabout')).status).toBe(400)
    expect((await ask(app, '/about')).status).toBe(200)
  })

  test('a client that goes away takes its backend request along', async () => {
    const backend = await rawUpstream(() => {})
    const { app, balancer } = await appOver(backend)
    const client = await rawClient(app)
    client.write('GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n')
    const wire = await backend.wire()
    await wire.until('\r\n\r\n')
    expect(inflight(balancer)).toBe(1)
    client.socket.destroy()
    await wire.closed()
    await idle(balancer)
  })
})
