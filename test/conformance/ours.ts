import type { AddressInfo } from 'node:net'
import type { Balancer } from 'evenkeel'
import { expressProxy } from 'evenkeel/express'
import { type ForwardOptions, fastifyProxy } from 'evenkeel/fastify'
import { createProxy } from 'evenkeel/node'
import { createHandler, type ProxyOptions as WebProxyOptions } from 'evenkeel/web'
import express from 'express'
// @ts-expect-error The types of 5 do for what is used of it here.
import express4 from 'express4'
import fastify from 'fastify'
import { onTestFinished } from 'vitest'
import { balance, type Upstream, upstream } from '../support/upstreams.ts'
import { webServer } from '../support/web-server.ts'
import type { Front, FrontOptions, Subject } from './row.ts'

/** Fastify routes others only if an app asks for them. */
const OTHER_METHODS = ['PROPFIND', 'M-SEARCH']

/** This project's adapters; each mounted as its users mount it. Errors are told by the proxy, so that one list fits all. */
export const OURS: readonly Subject[] = [
  ours('node', async (balancer, { proxy }) => {
    const handler = createProxy(balancer, proxy)
    const made = await upstream(handler)
    handler.attach(made.server)
    return made
  }),
  ours('express', (balancer, options) => expressServer(express(), balancer, options)),
  ours('express4', (balancer, options) => expressServer((express4 as typeof express)(), balancer, options)),
  ours('fastify', async (balancer, { proxy }) => {
    const app = fastify({ forceCloseConnections: true })
    for (const method of OTHER_METHODS) app.addHttpMethod(method, { hasBody: true })
    // Functions of the rows read of the request what Fastify's has as well.
    const options = proxy as unknown as ForwardOptions | undefined
    app.register(fastifyProxy, { ...options, balancer, close: false, errors: 'proxy', websocket: true })
    await app.listen({ host: '127.0.0.1', port: 0 })
    onTestFinished(() => app.close())
    const { port } = app.server.address() as AddressInfo
    return { url: `http://127.0.0.1:${port}`, port }
  }),
  ours('web', (balancer, { proxy }) =>
    webServer(createHandler(balancer, proxy as unknown as WebProxyOptions<Request> | undefined)),
  ),
]

async function expressServer(
  app: ReturnType<typeof express>,
  balancer: Balancer,
  { proxy }: FrontOptions,
): Promise<Upstream> {
  const handler = expressProxy(balancer, { ...proxy, errors: 'proxy' })
  app.disable('x-powered-by')
  app.use(handler)
  const made = await upstream(app)
  handler.attach(made.server)
  return made
}

function ours(name: string, mount: (balancer: Balancer, options: FrontOptions) => Promise<Upstream>): Subject {
  const front: Front = async (backends, options = {}) => {
    const balancer = balance(backends, options.balancer)
    return { ...(await mount(balancer, options)), balancer }
  }
  return { name, isOurs: true, front }
}
