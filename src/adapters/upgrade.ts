import { EventEmitter } from 'node:events'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Stop } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import type { Gateway } from './gateway.ts'
import type { Refusal } from './guard.ts'
import { inOriginForm, Reading } from './incoming.ts'
import { LetGo } from './let-go.ts'
import { endWith, incomingOf, whenWritten } from './node-wire.ts'
import { refusalReply } from './problem.ts'
import { Paths } from './rewrite.ts'
import { serve } from './serve.ts'

/** For `server.on('upgrade', …)`. */
export type UpgradeListener = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

/** Its server does not read it any more, and where it ends is in doubt: what follows may be of the protocol that was asked for. */
const BODY: Refusal = {
  status: 400,
  code: 'PROTOCOL',
  detail: 'a request that asks for another protocol cannot have a body',
  close: true,
}
/** On listeners of ours: the proxies of one that serves a whole server; undefined on one of a single proxy. */
const MOUNTS: unique symbol = Symbol('evenkeel.mounts')

/** Of a proxy, what an upgrade needs before it is served. */
type Door = Pick<Gateway<never>, 'newId' | 'paths' | 'tunnels'>

/** On sockets that one of our listeners has taken: no other one is to. */
const TAKEN: unique symbol = Symbol('evenkeel.taken')

interface Mount {
  readonly door: Door
  readonly paths: Paths
}

type OurListener = UpgradeListener & { readonly [MOUNTS]: Mount[] | undefined }

/**
 * Requests for another protocol go where the server's other requests go: through the app around and its checks, to whichever proxy it
 * has there. A server has one listener for that, however many proxies are attached. Where others listen too, it takes what is under a
 * `path` of these proxies, or without one what has their prefix, and leaves the rest to them.
 */
export function attachUpgrades(server: Server, door: Door, path?: string): Stop {
  if (path && !path.startsWith('/')) {
    throw new BalancerError('CONFIG', `path: expected one that starts with '/', found ${JSON.stringify(path)}`)
  }
  if (!door.tunnels.isUsed) return () => {}
  const mount: Mount = { door, paths: path === undefined ? door.paths : new Paths({ strip: path }) }
  const known = server.listeners('upgrade').find((one) => isOurs(one) && one[MOUNTS] !== undefined)
  const listener = (known as OurListener | undefined) ?? listenerFor(server)
  const mounts = listener[MOUNTS]!
  mounts.push(mount)
  return () => {
    const at = mounts.indexOf(mount)
    if (at >= 0) mounts.splice(at, 1)
    if (mounts.length === 0) server.off('upgrade', listener)
  }
}

function listenerFor(server: Server): OurListener {
  const mounts: Mount[] = []
  const take: UpgradeListener = (request, socket, head) => {
    if (TAKEN in socket || (hasOthers(server) && !mounts.some(({ paths }) => isUnder(paths, request)))) return
    letGo(mounts[0]!.door, request, socket, head, (response) => server.emit('request', request, response))
  }
  const listener = Object.assign(take, { [MOUNTS]: mounts })
  server.on('upgrade', listener)
  return listener
}

/** Upgrades that go to one proxy and nowhere else. */
export function upgradeListener(gateway: Gateway<IncomingMessage>): UpgradeListener {
  const take = function (this: unknown, ...[request, socket, head]: Parameters<UpgradeListener>): void {
    if (TAKEN in socket) return
    const server = this instanceof EventEmitter ? this : undefined
    if (server !== undefined && !isUnder(gateway.paths, request)) {
      // The last of ours says that nobody serves it.
      if (hasOthers(server) || server.listeners('upgrade').at(-1) !== listener) return
    }
    letGo(gateway, request, socket, head, (response) => serve(gateway, request, response, request))
  }
  const listener: OurListener = Object.assign(take, { [MOUNTS]: undefined })
  return listener
}

/** Takes the connection over from its server, as soon as what it still writes there is written; then the request can be answered. */
function letGo(
  door: Door,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  serve: (response: ServerResponse) => void,
): void {
  Object.assign(socket, { [TAKEN]: true })
  whenWritten(socket, () => {
    if (!new Reading(request.rawHeaders).hasBody) return serve(new LetGo(request, socket, head).response)
    endWith(socket, refusalReply(BODY, { id: door.newId(), redact: undefined, close: true }))
  })
}

function isOurs(listener: object): listener is OurListener {
  return MOUNTS in listener
}

function hasOthers(server: EventEmitter): boolean {
  return server.listeners('upgrade').some((listener) => !isOurs(listener))
}

function isUnder(paths: Paths, request: IncomingMessage): boolean {
  return paths.inward(inOriginForm(incomingOf(request)).target) !== undefined
}
