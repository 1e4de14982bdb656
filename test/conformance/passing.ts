/** Bytes through a proxy, seen from both of its sides. */
import { OK, rawClient, rawUpstream, type Wire } from '../support/upstreams.ts'
import type { Front, FrontOptions } from './row.ts'

/** For `not`: what a proxy cannot see behind a server that hands requests over as `Request`s. */
export const NOT_BY_WEB: { readonly web: string } = { web: 'URL, Host and framing of a Request are its server’s' }

/** The fields of a head, names in lower case. */
export function fieldsOf(head: string): [name: string, value: string][] {
  const [lines = ''] = head.split('\r\n\r\n')
  return lines
    .split('\r\n')
    .slice(1)
    .map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()])
}

export function values(head: string, name: string): string[] {
  return fieldsOf(head)
    .filter(([field]) => field === name)
    .map(([, value]) => value)
}

/** Whether an answer is there as a whole, by its own framing. */
export function isWhole(received: string): boolean {
  const end = received.indexOf('\r\n\r\n')
  if (end < 0) return false
  const [length] = values(received, 'content-length')
  if (length !== undefined) return received.length >= end + 4 + Number(length)
  return values(received, 'transfer-encoding').includes('chunked')
    ? /\r\n0\r\n([^\r\n]+\r\n)*\r\n$/.test(received)
    : / (204|304) /.test(received.slice(0, 13))
}

export function statusOf(received: string): number {
  return Number(received.slice(9, 12))
}

/** A request's head for raw clients. */
export function get(path: string, ...fields: readonly string[]): string {
  return [`GET ${path} HTTP/1.1`, 'Host: front.test', ...fields, '', ''].join('\r\n')
}

/** What a backend got of a request, and its client of the answer. */
export async function passed(
  front: Front,
  request: string,
  answer: string = OK,
  options: FrontOptions & { readonly bodyEnd?: string | RegExp; readonly basePath?: string } = {},
): Promise<{ readonly sent: string; readonly got: string; readonly client: Wire }> {
  const { bodyEnd = '\r\n\r\n', basePath = '', ...more } = options
  const backend = await rawUpstream(async (wire) => {
    await wire.until((received) => (typeof bodyEnd === 'string' ? received.includes(bodyEnd) : bodyEnd.test(received)))
    wire.write(answer)
  })
  const client = await rawClient(await front([backend.url + basePath], more))
  client.write(request)
  const got = await client.until(isWhole)
  if (backend.wires.length === 0) throw new Error(`no backend was asked; its client got ${got}`)
  return { sent: (await backend.wire()).received, got, client }
}

/** The answer to a request that reaches no backend, with how its connection ended if it did by then. */
export async function refused(front: Front, request: string, options?: FrontOptions): Promise<string> {
  const backend = await rawUpstream(async (wire) => {
    await wire.until('\r\n\r\n')
    wire.write(OK)
  })
  const client = await rawClient(await front([backend], options))
  client.write(request)
  // A server that takes a request for none says so without a length, and closes.
  const got = await client.until(isWhole).catch(() => client.received)
  if (backend.wires.length > 0) throw new Error(`a backend was asked: ${backend.wires[0]!.received}`)
  return got
}
