/** A backend in a process of its own: answers everything with 1 KiB in one `end`, and keeps connections alive. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serveParent } from './children.ts'

const BODY = Buffer.alloc(1024, 'evenkeel')

const server = createServer((_request, response) => {
  response.setHeader('content-type', 'text/plain')
  response.setHeader('content-length', BODY.length)
  response.end(BODY)
})
server.keepAliveTimeout = 120_000 // no round may meet a connection that died of old age
server.listen(0, '127.0.0.1', () => serveParent(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
