/** bench/proxy-child.ts evenkeel|thinnest <origin>...: one proxy in a process of its own; started by bench/http.ts. */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy } from '../src/adapters/node.ts'
import { createBalancer } from '../src/create-balancer.ts'
import { cpuUs, serveParent } from './children.ts'
import { createThinnest } from './thinnest.ts'

const [kind, ...origins] = process.argv.slice(2)

/** evenkeel as it comes: ejection, retry and stats are on by default. */
function listenerOf(): RequestListener {
  return kind === 'thinnest' ? createThinnest(origins) : createProxy(createBalancer({ backends: origins }))
}

const server = createServer(listenerOf())
server.keepAliveTimeout = 120_000 // the load's connections outlast the other proxy's rounds
server.listen(0, '127.0.0.1', () => serveParent((server.address() as AddressInfo).port, cpuUs))
