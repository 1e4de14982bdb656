import { randomBytes } from 'node:crypto'
import type { FaceHost } from '../core/call.ts'
import { Secret } from '../core/secret.ts'
import { Affinity } from './affinity.ts'
import { Exchange } from './exchange.ts'
import { Clients } from './forwarded.ts'
import { limitsOf, notServed, type Rules } from './guard.ts'
import { changer, type HeaderList, inSecret } from './header-list.ts'
import { type Incoming, inOriginForm } from './incoming.ts'
import type { IntakeLimits } from './intake.ts'
import { checkOptions } from './proxy-checks.ts'
import type { ProxyOptions } from './proxy-options.ts'
import { Paths } from './rewrite.ts'
import { Tunnels } from './tunnels.ts'

/** What a proxy needs of a balancer. */
export interface ProxyHost extends Pick<FaceHost, 'send'> {
  /** True from the beginning of its end: clients are told to take their next requests elsewhere. */
  readonly closing?: boolean
  redact?(text: string): string
}

const USUAL_METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

/**
 * The proxy without a server: its options, checked and put together once. Adapters make an `Incoming`, `open` it, and write either the
 * exchange's own reply or what became of `send` and `answer`.
 */
export class Gateway<Request> {
  readonly host: ProxyHost
  readonly options: ProxyOptions<Request>
  readonly via: string
  readonly rules: Rules
  readonly intake: IntakeLimits
  readonly bufferBytes: number
  readonly clients: Clients
  readonly paths: Paths
  readonly tunnels: Tunnels
  readonly affinity: Affinity | undefined
  readonly newId: () => string
  readonly keepsId: 'keep' | 'trusted' | 'new' | false
  readonly changeRequest: ((headers: HeaderList) => void) | undefined
  readonly changeAnswer: ((headers: HeaderList) => void) | undefined
  /** Set if problem bodies may tell what went wrong. */
  readonly redact: ((text: string) => string) | undefined

  constructor(host: ProxyHost, options: ProxyOptions<Request>) {
    checkOptions(options)
    const { via = 'evenkeel', affinity, trustedProxies, methods, limits, requestHeaders, responseHeaders } = options
    this.host = host
    this.options = options
    this.via = via
    this.rules = {
      limits: limitsOf(limits ?? {}),
      methods: methods && new Set(methods),
      method: notServed((methods ?? USUAL_METHODS).join(', ')),
      refusesStray: options.strayBodies === 'reject',
      via,
    }
    this.intake = { bodyBytes: this.rules.limits.bodyBytes, idleMs: options.clientIdleMs ?? 60_000 }
    this.bufferBytes = options.bufferBytes ?? 65_536
    this.clients = new Clients(trustedProxies ?? [], options.forwarded ?? false)
    this.paths = new Paths(options.path ?? {})
    this.tunnels = new Tunnels(options)
    this.affinity = affinity && new Affinity(affinity)
    this.newId = requestIds()
    this.keepsId = options.requestId ?? (trustedProxies === undefined ? 'keep' : 'trusted')
    this.changeRequest = requestHeaders && changer(inSecret(requestHeaders))
    this.changeAnswer = responseHeaders && changer(responseHeaders)
    if (options.exposeErrors === true) {
      const { set = {}, add = {} } = requestHeaders ?? {}
      const withoutOwn = Secret.redacting([...Object.values(set), ...Object.values(add)].map(Secret.of))
      this.redact = (text) => withoutOwn(host.redact?.(text) ?? text)
    }
  }

  open(incoming: Incoming, request: Request): Exchange<Request> {
    return new Exchange(this, inOriginForm(incoming), request)
  }
}

/** Unique ids at the price of a counter: a random prefix per proxy. */
function requestIds(): () => string {
  const prefix = randomBytes(9).toString('base64url')
  let count = 0
  return () => `${prefix}-${(count++).toString(36)}`
}
