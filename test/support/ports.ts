import { once } from 'node:events'
import net from 'node:net'

/** Below the ports that systems hand out by themselves, so that nobody is given one by chance. */
const FIRST = 16_000
/** Test files run in processes of their own: each has so many ports to itself. */
const SHARE = 100
const SHARES = 160

let used = 0

/** A port of 127.0.0.1 where nobody listens, and nobody will who does not ask for just this one. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST + (process.pid % SHARES) * SHARE + (used++ % SHARE)
    const server = net.createServer()
    try {
      await once(server.listen(port, '127.0.0.1'), 'listening')
    } catch {
      continue
    }
    await once(server.close(), 'close')
    return port
  }
}
