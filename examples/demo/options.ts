import { parseArgs } from 'node:util'

export interface DemoOptions {
  /** 0 = any free port. */
  readonly port: number
  readonly once: boolean
  readonly help: boolean
}

export const HELP = `npm start -- [options]

A balancer over four little backends, traffic through it, and one backend that dies and comes back.

  --port <number>  where the proxy listens on 127.0.0.1; default 8080, 0 = any free port
  --once           the whole story once, on a free port, in about 15 s; exit code 1 if a request failed
  --help           this text`

/** Throws an Error with a message of one line if the arguments make no sense. */
export function parseOptions(args: readonly string[]): DemoOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      port: { type: 'string' },
      once: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  const { port, once, help } = values
  if (port !== undefined && (!/^\d{1,5}$/.test(port) || Number(port) > 65_535)) {
    throw new Error(`--port takes a number from 0 to 65535, not ${JSON.stringify(port)}`)
  }
  return { port: port === undefined ? (once ? 0 : 8080) : Number(port), once, help }
}
