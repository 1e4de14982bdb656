// The strategies and the transport as they are printed in the docs, written from the docs alone, keep the contracts.
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Backend, createBalancer, type Strategy, type Transport } from 'evenkeel'
import { seededRandom, strategyContract, transportContract } from 'evenkeel/testing'
import { afterAll, describe, expect, test } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'evenkeel-third-party-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** The module that a page prints under that name. */
async function printed<Module>(page: string, file: string): Promise<Module> {
  const text = readFileSync(new URL(`../docs/${page}.md`, import.meta.url), 'utf8')
  const code = text.split(`\`\`\`ts file=${file}\n`)[1]?.split('\n```\n')[0]
  expect(code, `${file} in ${page}.md`).toBeDefined()
  expect(code).not.toMatch(/from '\.|evenkeel\//) // the public face alone
  const path = join(folder, file)
  writeFileSync(path, code!)
  return import(path) as Promise<Module>
}

interface Strategies {
  readonly fewestFailures: () => Strategy
  readonly byKey: () => Strategy
}

const { fewestFailures } = await printed<Strategies>('writing-a-strategy', 'fewest-failures.ts')
const { byKey } = await printed<Strategies>('writing-a-strategy', 'by-key.ts')
const { nodeHttp } = await printed<{
  readonly nodeHttp: (options: { readonly connections?: number }) => Transport
}>('writing-a-transport', 'node-http.ts')

describe('strategies printed in the docs keep the contract', () => {
  for (const make of [fewestFailures, byKey]) for (const { name, run } of strategyContract(make)) test(name, run)
})

describe('the transport printed in the docs keeps the contract', () => {
  for (const { name, run } of transportContract(({ connections }) => nodeHttp({ connections }), {
    strict: false,
    upgrade: false,
  })) {
    test(name, run)
  }
})

describe('what the kit does not ask of it', () => {
  test('a connection that died of old age costs no request and no blame', async () => {
    // Each connection answers once and dies of the second request.
    const asked = new WeakMap<object, number>()
    const backend = http.createServer((request, response) => {
      const number = (asked.get(request.socket) ?? 0) + 1
      asked.set(request.socket, number)
      if (number > 1) request.socket.destroy()
      else response.end('ok')
    })
    backend.listen(0, '127.0.0.1')
    await once(backend, 'listening')
    const balancer = createBalancer({
      backends: [`http://127.0.0.1:${(backend.address() as AddressInfo).port}`],
      transport: nodeHttp({}),
    })
    for (let i = 0; i < 5; i++) {
      const response = await balancer.fetch('/')
      expect(await response.text()).toBe('ok')
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    expect(balancer.stats().pools.default!.backends[0]).toMatchObject({ failures: 0, classes: { ok: 5, stale: 4 } })
    await balancer.close()
    backend.close()
  })

  test('a header nobody can send is the fault of the request, and closing ends what waits', async () => {
    const silent = http.createServer(() => {})
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const transport = nodeHttp({ connections: 1 })
    const balancer = createBalancer({
      backends: [`http://127.0.0.1:${(silent.address() as AddressInfo).port}`],
      transport,
      retry: { attempts: 1 },
    })
    await expect(balancer.request('/', { headers: { 'x-bad': 'a\nb' } })).rejects.toMatchObject({ code: 'PROTOCOL' })
    expect(balancer.stats().pools.default!.backends[0]).toMatchObject({ failures: 0, classes: { request: 1 } })

    const two = [balancer.request('/'), balancer.request('/')].map((sent) => sent.catch((error: unknown) => error))
    await new Promise((resolve) => setTimeout(resolve, 50))
    await transport.close!()
    for (const error of await Promise.all(two)) expect(error).toMatchObject({ name: 'BalancerError' })
    expect(balancer.stats().pools.default!.inflight).toBe(0)
    await balancer.close()
    silent.closeAllConnections()
    silent.close()
  })

  test('it reaches, and says when it cannot', async () => {
    const backend = http.createServer()
    backend.listen(0, '127.0.0.1')
    await once(backend, 'listening')
    const { port } = backend.address() as AddressInfo
    const balancer = createBalancer({
      backends: [
        { id: 'well', url: `http://127.0.0.1:${port}` },
        { id: 'nobody', url: 'http://127.0.0.1:1' },
      ],
      transport: nodeHttp({}),
      random: seededRandom(1),
      health: { active: { type: 'tcp' } },
    })
    const blocked: string[] = []
    balancer.on('blocked', ({ id }: Backend) => blocked.push(id))
    await balancer.ready()
    expect(blocked).toEqual(['nobody'])
    await balancer.close()
    backend.close()
  })
})
