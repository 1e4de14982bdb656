/** bench/tail-child.ts <ms>...: a server for each, which answers with 1 KiB after so long; started by bench/tail.ts. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serveParent } from './children.ts'

const BODY = Buffer.alloc(1024, 'evenkeel')

const origins = await Promise.all(
  process.argv.slice(2).map(async (ms) => {
    const server = createServer((_request, response) => {
      setTimeout(() => {
        response.setHeader('content-length', BODY.length)
        response.end(BODY)
      }, Number(ms))
    })
    server.keepAliveTimeout = 120_000 // no round may meet a connection that died of old age
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }),
)
serveParent(origins.join(' '))
