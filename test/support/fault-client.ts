import net from 'node:net'
import tls from 'node:tls'
import { type FaultServer, type FaultServerOptions, faultServer } from 'evenkeel/testing'
import { expect, onTestFinished } from 'vitest'
import { CERT, KEY } from './tls.ts'
import { type Ending, pause, until, Wire } from './upstreams.ts'

export type Scheme = 'http' | 'https'

export const GET: string = 'GET / HTTP/1.1\r\nhost: a\r\n\r\n'
export const HEAD: string = 'HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n'
export const BODY: string = 'xxxxxxxxxxxxxxxx'
export const CHUNKED: string = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n'
export const CHUNKS: string = '8\r\nxxxxxxxx\r\n8\r\nxxxxxxxx\r\n0\r\n\r\n'
export const CLOSING: string = 'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n'
/** Long enough to see that nothing more comes; on a slow machine it sees less, and fails nothing. */
export const QUIET_MS: number = 30

export async function started(scheme: Scheme = 'http', options: FaultServerOptions = {}): Promise<FaultServer> {
  const server = await faultServer(scheme === 'https' ? { ...options, tls: { key: KEY, cert: CERT } } : options)
  onTestFinished(() => server.close())
  return server
}

export function connect({ port, url }: FaultServer, secure: boolean = url.startsWith('https')): Wire {
  const socket = secure ? tls.connect({ port, host: '127.0.0.1', ca: CERT }) : net.connect(port, '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  return new Wire(socket)
}

/** One request from one client gets just this, and then this end of its connection; 'open' for none. */
export async function expectSeen(
  server: FaultServer,
  said: string,
  ending: Ending | 'open' = 'open',
  { sent = GET, wire = connect(server) }: { sent?: string; wire?: Wire } = {},
): Promise<void> {
  wire.write(sent)
  if (ending === 'open') {
    await until(() => wire.received.length >= said.length || wire.ending !== undefined, `no answer: ${wire.received}`)
    await pause(QUIET_MS)
  } else {
    await wire.closed()
  }
  expect([wire.received, wire.ending ?? 'open']).toEqual([said, ending])
}

/** What connecting fails with, if it does. */
export async function connectError(port: number): Promise<string | undefined> {
  const socket = net.connect(port, '127.0.0.1')
  try {
    return await new Promise((resolve) => {
      socket.on('connect', () => resolve(undefined))
      socket.on('error', (error) => resolve('code' in error ? String(error.code) : error.message))
    })
  } finally {
    socket.destroy()
  }
}
