import { spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'

/** One connection to a raw server: every byte it got, and the socket to play with. */
export interface RawConnection {
  readonly socket: net.Socket
  /** Latin1 text of what was received, its first 64 Ki characters at least. */
  received: string
  closed: boolean
}

export interface RawServer {
  readonly url: string
  readonly port: number
  readonly connections: readonly RawConnection[]
  close(): Promise<void>
}

/** Most that is remembered of a connection, characters. */
const KEPT = 65_536

/** A TCP server on a free loopback port that calls `onRequest` for each complete request head, and at each byte otherwise `onData`. */
export async function rawServer(
  onRequest: (connection: RawConnection, head: string, number: number) => void,
  options: { readonly paused?: boolean } = {},
): Promise<RawServer> {
  const connections: RawConnection[] = []
  let requests = 0
  const server = net.createServer({ pauseOnConnect: options.paused === true }, (socket) => {
    const connection: RawConnection = { socket, received: '', closed: false }
    connections.push(connection)
    let rest = ''
    socket.on('error', () => {})
    socket.on('close', () => {
      connection.closed = true
    })
    socket.on('data', (data) => {
      const text = data.toString('latin1')
      if (connection.received.length < KEPT) connection.received += text
      rest += text
      for (let end = rest.indexOf('\r\n\r\n'); end >= 0; end = rest.indexOf('\r\n\r\n')) {
        const head = rest.slice(0, end)
        rest = rest.slice(end + 4)
        if (!/^[A-Z]+ \S+ HTTP\/1\.1\r\n/.test(`${head}\r\n`)) continue // part of a body
        onRequest(connection, head, ++requests)
      }
      if (rest.length > KEPT) rest = rest.slice(-3) // far beyond any head: the bytes of a body
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    connections,
    async close() {
      for (const { socket } of connections) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** A port where connecting never ends: a process that listens, then sleeps for ever, with its queue of connections filled. */
export async function blackHole(): Promise<{ readonly url: string; close(): Promise<void> }> {
  const script = `
    const server = require('node:net').createServer()
    server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
      require('node:fs').writeSync(1, String(server.address().port) + '\\n')
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
    })`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const port = Number(String(line).trim())
  const fillers: net.Socket[] = []
  // The kernel completes backlog + 1 handshakes by itself; from then on a SYN gets no answer.
  for (let connected = true; connected; ) {
    const socket = net.connect(port, '127.0.0.1').on('error', () => {})
    fillers.push(socket)
    connected = await Promise.race([
      once(socket, 'connect').then(() => true),
      new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 300)),
    ])
  }
  return {
    url: `http://127.0.0.1:${port}`,
    async close() {
      for (const socket of fillers) socket.destroy()
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  }
}
