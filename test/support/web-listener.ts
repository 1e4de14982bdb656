/** A function of Fetch behind node:http, as Hono's server is: no more than the platform gives. For processes without vitest, too. */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ReadableStream as NodeStream } from 'node:stream/web'
import type { WebHandler } from '../../src/adapters/web.ts'

export function webListener(handler: WebHandler): RequestListener {
  return async (incoming, outgoing) => {
    let request: Request
    try {
      request = requestOf(incoming, outgoing)
    } catch {
      return void outgoing.writeHead(400).end() // no Request can say this
    }
    const response = await handler(request, { address: incoming.socket.remoteAddress })
    outgoing.on('finish', () => void incoming.resume())
    outgoing.writeHead(response.status, [...response.headers].flat())
    if (response.body === null) return void outgoing.end()
    outgoing.write('', 'latin1') // flushHeaders would write UTF-8
    // What breaks off breaks the client's connection: `pipeline` destroys it.
    await pipeline(Readable.fromWeb(response.body as NodeStream), outgoing).catch(() => {})
  }
}

function requestOf(incoming: IncomingMessage, outgoing: ServerResponse): Request {
  const { method = 'GET', url = '/', rawHeaders } = incoming
  const headers = new Headers()
  for (let i = 0; i < rawHeaders.length; i += 2) headers.append(rawHeaders[i]!, rawHeaders[i + 1]!)
  const gone = new AbortController()
  outgoing.on('close', () => {
    if (!outgoing.writableFinished) gone.abort()
  })
  const hasBody = headers.has('transfer-encoding') || Number(headers.get('content-length') ?? 0) > 0
  const isTaken = hasBody && method !== 'GET' && method !== 'HEAD'
  return new Request(`http://${headers.get('host') ?? 'localhost'}${url}`, {
    method,
    headers,
    signal: gone.signal,
    ...(isTaken && { body: Readable.toWeb(incoming), duplex: 'half' }),
  })
}
