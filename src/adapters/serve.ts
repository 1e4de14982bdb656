/** The way of a request from node:http through a proxy and back. Every adapter over node:http goes it, each in its own manner. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { BalancerError } from '../core/errors.ts'
import type { Answered, Exchange } from './exchange.ts'
import { requestTrailers } from './fields.ts'
import type { Gateway } from './gateway.ts'
import type { Handshake } from './handshake.ts'
import type { Incoming } from './incoming.ts'
import { LetGo } from './let-go.ts'
import { incomingOf, isHttp2 } from './node-wire.ts'
import { CONSUMED, withoutCodings } from './parsed-body.ts'
import { type Reply, refusalReply } from './problem.ts'
import { interimTo, NOTHING, Relay, trailerTo } from './relay.ts'

/** What an adapter does in its own way. */
export interface Manner {
  /** Called in place of a 404 if the path is none of this proxy's. */
  readonly next?: (() => void) | undefined
  /** Called when the body is first wanted. */
  readonly begin?: (() => void) | undefined
  /** The request as the app around sees it; default: as the server read it. */
  readonly incoming?: Incoming
  /** The body, if somebody has read it before; null = it is lost. */
  readonly body?: Uint8Array | null | undefined
  /** Called right before a head is written; again if that fails. */
  readonly head?: () => void
  /** Gets what a call failed with, while nothing was sent, and how the client would be told; false = it is told so. Default: it is. */
  readonly fail?: ((error: unknown, reply: Reply) => boolean) | undefined
}

/** Taken in after an answer that came before its request's end, bytes: with less the connection lives, with more it ends. */
const REST_BYTES = 1_048_576
/** What the app around has set of these stands beside what the answer says; of other fields the answer has the last word. */
const ADDED = ['set-cookie', 'vary'] as const
const PLAIN: Manner = {}

/** `own` is the request as users' functions get it. */
export function serve<Request>(
  gateway: Gateway<Request>,
  request: IncomingMessage,
  response: ServerResponse,
  own: Request,
  manner: Manner = PLAIN,
): void {
  const given = manner.incoming ?? incomingOf(request)
  const incoming = manner.body instanceof Uint8Array ? withoutCodings(given) : given
  const exchange = gateway.open(incoming, own)
  if (exchange.isElsewhere && manner.next !== undefined) return manner.next()
  if (response.destroyed) return // the client has left before it was this proxy's turn
  if (exchange.reply === undefined && exchange.incoming !== incoming) settle(request, exchange)
  const letGo = LetGo.of(response)
  const protocol = letGo && gateway.tunnels.protocolOf(request)
  if (letGo === undefined || protocol === undefined || exchange.reply !== undefined) {
    return serveOpened(exchange, request, response, manner)
  }
  if (!gateway.tunnels.isFull) {
    return serveOpened(exchange, request, response, manner, gateway.tunnels.handshake(protocol, letGo))
  }
  answerReply(exchange.problem(new BalancerError('OVERLOADED', 'too many tunnels are open')), request, response, manner)
}

/** An exchange that is this proxy's to answer. */
function serveOpened<Request>(
  exchange: Exchange<Request>,
  request: IncomingMessage,
  response: ServerResponse,
  manner: Manner,
  upgrade?: Handshake,
): void {
  if (hasBody(request, exchange)) response.on('finish', () => drain(request))
  if (exchange.reply !== undefined) return answerReply(exchange.reply, request, response, manner)
  const tell = (error: unknown, reply: Reply): void => {
    // What is the client's fault is between it and the proxy.
    const isTaken = reply.status >= 500 && isOpen(response) && manner.fail?.(error, reply) === true
    if (!isTaken) answerReply(reply, request, response, manner)
  }
  const fail = (error: unknown): void => tell(error, exchange.problem(error))
  if (manner.body === null && hasBody(request, exchange)) {
    const lost = refusalReply(CONSUMED, { id: exchange.id, redact: undefined, close: false })
    return tell(new BalancerError('CONFIG', CONSUMED.detail), lost)
  }
  let isAnswered = false
  const relay = (answered: Answered): void => {
    if (!isOpen(response)) return answered.body.consume(NOTHING).cancel(new Error('nobody waits for it'))
    const isTunnel = upgrade !== undefined && answered.socket !== undefined
    isAnswered = true
    try {
      writeHead(isTunnel ? upgrade.agreed(answered) : answered, request, response, manner)
    } catch (cause) {
      answered.body.discard()
      return fail(new BalancerError('PROTOCOL', 'the answer is no HTTP', { cause }))
    }
    if (isTunnel) return upgrade.start(answered)
    const sink = new Relay(response)
    sink.start(answered.body.consume(sink))
  }
  response.on('close', () => {
    // The app around may have answered meanwhile: after a time of its own, say.
    if (!response.writableFinished || !isAnswered) exchange.cancel(new Error('the client closed its connection'))
  })
  // The request outlives the iteration: a client that gets an answer early keeps its connection.
  const body = hasBody(request, exchange) ? (manner.body ?? request.iterator({ destroyOnReturn: false })) : null
  // Through a request for another protocol no 1xx is passed on but 101: a tunnel is not to hold on to what it came from.
  const informational = upgrade === undefined ? interimTo(request, response) : undefined
  const asked = {
    ...(informational !== undefined && { informational }),
    ...(body !== null && { trailers: () => requestTrailers(request.rawTrailers) }),
    ...(upgrade !== undefined && { upgrade: upgrade.protocol }),
  }
  exchange
    .send(body, { carrier: response, begin: manner.begin, asked })
    .then((answer) => {
      let answered: Answered | Promise<Answered>
      try {
        answered = exchange.answer(answer)
      } catch (error) {
        return fail(error)
      }
      const announce = (made: Answered): void => {
        const trailer = made.body === answer.body ? trailerTo(request, made.status, answer.headers) : undefined
        if (trailer !== undefined) made.headers.push('trailer', trailer)
        relay(made)
      }
      if (answered instanceof Promise) return answered.then(announce, fail)
      announce(answered)
    }, fail)
    .catch(() => response.destroy()) // not even the app around can tell what failed
}

/** A reply of the proxy's own. */
export function answerReply(
  reply: Reply,
  request: IncomingMessage,
  response: ServerResponse,
  manner: Manner = PLAIN,
): void {
  if (!isOpen(response)) return
  try {
    writeHead(reply, request, response, manner)
    response.end(reply.body)
  } catch {
    response.destroy() // what the app around has set is no HTTP
  }
}

function writeHead(
  { status, headers, close }: Pick<Reply, 'status' | 'headers' | 'close'>,
  request: IncomingMessage,
  response: ServerResponse,
  { head }: Manner,
): void {
  head?.()
  for (const name of ADDED) {
    const before = response.getHeader(name)
    if (before !== undefined) for (const value of [before].flat()) headers.push(name, String(value))
  }
  if (close && !isHttp2(request)) headers.push('connection', 'close')
  response.writeHead(status, headers)
}

/** False: the client is gone, or somebody else has answered it. */
function isOpen(response: ServerResponse): boolean {
  return !response.destroyed && !response.headersSent
}

/** To users' functions, a request in absolute-form is what it is to everybody else (RFC 9112 3.2.2). */
function settle<Request>(request: IncomingMessage, { incoming, host }: Exchange<Request>): void {
  request.url = incoming.target
  if (host !== undefined) request.headers.host = host
}

function hasBody<Request>(request: IncomingMessage, exchange: Exchange<Request>): boolean {
  if (!isHttp2(request)) return exchange.hasBody
  return !(request as IncomingMessage & { readonly stream: { readonly endAfterHeaders: boolean } }).stream
    .endAfterHeaders
}

/** An answer came before the upload's end: a little of the rest is taken in, so that the connection lives. */
function drain(request: IncomingMessage): void {
  if (request.complete || request.readableEnded) return
  let left = REST_BYTES
  request.on('data', (chunk: Buffer) => {
    left -= chunk.length
    if (left < 0) request.destroy()
  })
}
