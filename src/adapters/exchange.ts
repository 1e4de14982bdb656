import { answeredBy, CALL } from '../core/call.ts'
import type { Backend, BalancerRequest, BalancerResponse, Call, RawHeaders, ResponseBody } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { isNamed, latin1 } from '../core/headers.ts'
import { ReplayBody } from '../core/replay.ts'
import { checkTarget } from '../core/target.ts'
import type { Tie } from './affinity.ts'
import { HOP_BY_HOP, nominations, responseHeaders } from './fields.ts'
import type { Client } from './forwarded.ts'
import type { Gateway } from './gateway.ts'
import { BODILESS, guard, NOT_HERE, type Refusal } from './guard.ts'
import { HeaderList } from './header-list.ts'
import { type Incoming, isOwn, Reading } from './incoming.ts'
import { Intake } from './intake.ts'
import { BytesBody, INTERCEPT_BYTES, loosen, whole } from './intercept.ts'
import { emptyReply, errorReply, type Reply, refusalReply } from './problem.ts'
import type { BodyInterception, ProxyAnswer } from './proxy-options.ts'

/** An answer of a backend as a client gets it. */
export interface Answered {
  readonly status: number
  /** name, value, name, value, ... */
  readonly headers: string[]
  readonly body: ResponseBody
  /** Of a 101. */
  readonly socket: unknown
  /** No request is to follow on the client's connection. */
  readonly close: boolean
}

/** What an adapter may add to a request. */
export interface Extra {
  /** Of the backend, beside the request itself. */
  readonly asked?: Pick<BalancerRequest, 'informational' | 'trailers' | 'upgrade'> | undefined
  /** Called when somebody first wants the body: the moment for '100 Continue'. */
  readonly begin?: (() => void) | undefined
  /** Gets the call, for `balancer.explain`. */
  readonly carrier?: object
}

type SentBody = null | Uint8Array | ReplayBody
type RawRequestHeaders = BalancerRequest['headers'][number][]

const NO_EXTRA: Extra = {}
const REQUEST_ID = /^[A-Za-z0-9._-]{1,128}$/
/** Statuses without a body. */
const EMPTY: ReadonlySet<number> = new Set([101, 204, 304])
/** What would get an answer that cannot be changed as a whole. */
const UNINTERCEPTED: readonly string[] = ['accept-encoding', 'range', 'if-range']
const LOCATIONS: readonly string[] = ['location', 'content-location', 'refresh']

/** One request on its way through a proxy. First `reply`; without one `send`, then `answer`; `problem` for whatever fails. */
export class Exchange<Request> {
  /** Undefined: this proxy gives none. */
  readonly id: string | undefined
  readonly incoming: Incoming
  readonly client: Client
  /** Set = nobody behind the proxy is asked. */
  readonly reply: Reply | undefined
  /** The path is none of this proxy's: another handler may serve it. */
  readonly isElsewhere: boolean
  readonly #gateway: Gateway<Request>
  readonly #request: Request
  readonly #fields: Reading
  readonly #path: string
  #intake: Intake | undefined
  #call: Call | undefined
  #tie: Tie | undefined
  /** Of an answer, while nobody reads it. */
  #unread: ResponseBody | undefined
  #canceled: { readonly reason: unknown } | undefined

  /** `incoming` is in origin-form; made by `Gateway.open`. */
  constructor(gateway: Gateway<Request>, incoming: Incoming, request: Request) {
    this.#gateway = gateway
    this.#request = request
    this.incoming = incoming
    const fields = new Reading(incoming.rawHeaders)
    this.#fields = fields
    this.client = gateway.clients.of(incoming, fields)
    this.id = this.#idOf(fields.requestId)
    const { method, target } = incoming
    const path = gateway.paths.inward(target)
    this.isElsewhere = path === undefined && target.startsWith('/')
    this.#path = path ?? target
    const refusal = guard(incoming, fields, gateway.rules)
    if (refusal !== undefined) this.reply = this.#refuse(refusal)
    // About the server as a whole, or meant to come no further: behind a base path '*' would be another path.
    else if (method === 'OPTIONS' && (target === '*' || Number(fields.maxForwards) === 0)) {
      this.reply = emptyReply(204, ['allow', gateway.rules.method.allow!])
    } else if (this.isElsewhere) this.reply = this.#refuse(NOT_HERE)
  }

  /** Whether HTTP/1.x says that a body follows. */
  get hasBody(): boolean {
    return this.#fields.hasBody
  }

  /** Of the request itself, whatever proxies say. */
  get host(): string | undefined {
    return this.#fields.host ?? this.#fields.authority
  }

  /** Starts the call. What it rejects with is for `problem`. */
  send(body: AsyncIterable<Uint8Array> | Uint8Array | null, extra: Extra = NO_EXTRA): Promise<BalancerResponse> {
    try {
      const { changeRequest, options } = this.#gateway
      const sent = this.#bodyOf(body, extra.begin)
      const { onRequest } = options
      if (changeRequest === undefined && onRequest === undefined) {
        return this.#start(this.#path, this.#passed(), sent, extra)
      }
      const headers = new HeaderList(this.#passed(), isOwn)
      changeRequest?.(headers)
      const { method } = this.incoming
      const shown = { method, path: this.#path, headers }
      const start = (): Promise<BalancerResponse> => {
        if (shown.path !== this.#path) hooked('onRequest', () => checkTarget(shown.path, method))
        return this.#start(shown.path, [...headers.raw], sent, extra)
      }
      const pending = onRequest && hooked('onRequest', () => onRequest(shown, this.#request))
      return pending instanceof Promise ? pending.then(start) : start()
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** What an answer is passed on as. Throws or rejects, with the answer discarded, if that cannot be: for `problem`. */
  answer(answer: BalancerResponse): Answered | Promise<Answered> {
    this.#unread = answer.body
    try {
      const made = this.#answer(answer)
      return made instanceof Promise ? made.catch((error: unknown) => this.#giveBack(error)) : made
    } catch (error) {
      return this.#giveBack(error)
    }
  }

  #giveBack(error: unknown): never {
    this.#unread?.discard()
    throw error
  }

  /** The client is gone, or wants no more. */
  cancel(reason: unknown): void {
    this.#canceled ??= { reason }
    this.#call?.cancel(reason)
  }

  /** What a client is told when it cannot be served. */
  problem(error: unknown): Reply {
    const failure = this.#intake?.failure
    if (failure !== undefined) return this.#refuse(failure)
    const { redact, host } = this.#gateway
    return errorReply(error, { id: this.id, redact, close: host.closing === true })
  }

  #refuse(refusal: Refusal): Reply {
    return refusalReply(refusal, { id: this.id, redact: undefined, close: this.#gateway.host.closing === true })
  }

  #idOf(given: string | undefined): string | undefined {
    const { keepsId, newId } = this.#gateway
    if (keepsId === false) return undefined
    const isKept = keepsId === 'keep' || (keepsId === 'trusted' && this.client.isTrusted)
    return isKept && given !== undefined && REQUEST_ID.test(given) ? given : newId()
  }

  #bodyOf(body: AsyncIterable<Uint8Array> | Uint8Array | null, begin: (() => void) | undefined): SentBody {
    if (body === null || body instanceof Uint8Array) return body
    const { length } = this.#fields
    this.#intake = new Intake(body, this.#gateway.intake, begin)
    return new ReplayBody(this.#intake, length === undefined ? undefined : Number(length), this.#gateway.bufferBytes)
  }

  /** The client's own fields, without what was between it and this proxy. */
  #passed(): RawRequestHeaders {
    const { passed, connection } = this.#fields
    const { affinity } = this.#gateway
    const nominated = nominations(connection)
    if (nominated === undefined && affinity === undefined) return passed
    const kept: string[] = []
    for (let i = 0; i < passed.length; i += 2) {
      const name = passed[i]!
      const value = passed[i + 1]!
      if (nominated?.has(name.toLowerCase()) === true) continue
      const left = affinity !== undefined && isNamed(name, 'cookie') ? affinity.strip(value) : value
      if (left !== undefined) kept.push(name, left)
    }
    return kept
  }

  #start(path: string, headers: RawRequestHeaders, body: SentBody, extra: Extra): Promise<BalancerResponse> {
    if (this.#canceled !== undefined) return Promise.reject(this.#canceled.reason)
    const { host, options, affinity } = this.#gateway
    const said = options.call?.(this.#request)
    // Who says it is sent there on its account, not the client's.
    if (said?.prefer === undefined && said?.only === undefined) this.#tie = affinity?.tie(this.incoming)
    this.#addOwn(headers, body)
    const { call, response } = host.send(
      { method: this.incoming.method, path, headers, body, ...extra.asked },
      { ...said, address: said?.address ?? this.client.address, prefer: said?.prefer ?? this.#tie?.prefer },
    )
    this.#call = call
    if (extra.carrier !== undefined) (extra.carrier as { [CALL]?: Call })[CALL] = call
    if (body instanceof ReplayBody) call.onEnd(() => body.close())
    return response
  }

  /** What the proxy says itself, after everything that others say. */
  #addOwn(headers: RawRequestHeaders, body: SentBody): void {
    const { options, via } = this.#gateway
    const { te, length, maxForwards, requestId, via: before } = this.#fields
    const id = this.id ?? requestId
    const { chain, host, proto, port, forwarded } = this.client
    const { method } = this.incoming
    if (body instanceof Uint8Array) headers.push('content-length', String(body.length))
    else if (body !== null && length !== undefined) headers.push('content-length', length)
    // A backend that does not see where such a body ends must not get another request behind it.
    if (body !== null && BODILESS.has(method)) headers.push('connection', 'close')
    if (te?.split(',').some((member) => member.trim().toLowerCase() === 'trailers')) headers.push('te', 'trailers')
    if (options.host === 'preserve') {
      if (this.host !== undefined) headers.push('host', this.host)
    } else if (options.host !== undefined && options.host !== 'target') headers.push('host', options.host)
    if (options.interceptBody !== undefined) {
      for (const name of UNINTERCEPTED) remove(headers, name)
      headers.push('accept-encoding', 'identity')
    }
    if (chain !== undefined) headers.push('x-forwarded-for', chain)
    if (host !== undefined) headers.push('x-forwarded-host', host)
    headers.push('x-forwarded-proto', proto)
    if (port !== undefined) headers.push('x-forwarded-port', port)
    if (forwarded !== undefined) headers.push('forwarded', forwarded)
    if (maxForwards !== undefined) headers.push('max-forwards', counted(maxForwards, method))
    if (id !== undefined) headers.push('x-request-id', id)
    headers.push('via', before === undefined ? `1.1 ${via}` : `${before}, 1.1 ${via}`)
  }

  #answer(answer: BalancerResponse): Answered | Promise<Answered> {
    const { options, changeAnswer, host, via } = this.#gateway
    const { onResponse, interceptBody, locations, cookies } = options
    const { status, body, socket } = answer
    const asks = onResponse !== undefined || interceptBody !== undefined || locations === true || cookies !== undefined
    const backend = asks ? answeredBy(this.#call!, answer)?.backend : undefined
    const said = backend === undefined ? answer.headers : this.#outward(answer.headers, backend)
    const setCookie = this.#tie?.setCookie(this.#call!, answer)
    const told = said === answer.headers ? answer : { status, headers: said, body }
    const headers = responseHeaders(told, setCookie, this.id, via)
    const close = host.closing === true || this.incoming.version === '1.0'
    if (changeAnswer === undefined && onResponse === undefined && interceptBody === undefined) {
      return { status, headers, body, socket, close }
    }
    const list = new HeaderList(headers, (name) => HOP_BY_HOP.has(name) || name === 'content-length')
    changeAnswer?.(list)
    const shown = { status, headers: list, backend: backend?.id }
    const end = async (): Promise<Answered> => {
      const bytes = interceptBody && (await this.#intercept(shown, body, interceptBody))
      const headers = list.raw.map(latin1)
      if (bytes !== undefined) headers.push('content-length', String(bytes.length))
      return { status, headers, body: bytes ?? body, socket, close }
    }
    const pending = onResponse && hooked('onResponse', () => onResponse(shown, this.#request))
    if (pending instanceof Promise) return pending.then(end)
    return interceptBody === undefined ? { status, headers: list.raw.map(latin1), body, socket, close } : end()
  }

  /** The body in place of the backend's; undefined: that one. */
  async #intercept(
    answer: ProxyAnswer,
    body: ResponseBody,
    { when, limitBytes = INTERCEPT_BYTES, change }: BodyInterception<Request>,
  ): Promise<BytesBody | undefined> {
    const { status, headers } = answer
    if (when !== undefined && !hooked('interceptBody.when', () => when(answer, this.#request))) return undefined
    loosen(headers)
    if (EMPTY.has(status) || this.incoming.method === 'HEAD') {
      headers.remove('content-length')
      return undefined
    }
    const coding = headers.get('content-encoding')
    if (coding !== undefined && coding !== 'identity') {
      throw new BalancerError('PROTOCOL', `an answer coded as ${coding} cannot be intercepted`)
    }
    this.#unread = undefined
    const bytes = await whole(body, limitBytes)
    const made = await hooked('interceptBody.change', () => change(bytes, answer, this.#request))
    if (typeof made !== 'string' && !(made instanceof Uint8Array)) {
      throw new BalancerError('CONFIG', `interceptBody.change: expected a string or bytes, got ${typeof made}`)
    }
    headers.remove('content-length')
    return new BytesBody(typeof made === 'string' ? Buffer.from(made) : made)
  }

  /** An answer's headers with what names the backend turned into what clients see. */
  #outward(headers: RawHeaders, backend: Backend): RawHeaders {
    const { options, paths } = this.#gateway
    const { locations = false, cookies } = options
    if (!locations && cookies === undefined) return headers
    return headers.map((text, i) => {
      const name = headers[i - 1]
      if (i % 2 === 0 || name === undefined) return text
      if (cookies !== undefined && isNamed(name, 'set-cookie')) return paths.cookie(latin1(text), cookies, backend)
      if (!locations || !LOCATIONS.some((one) => isNamed(name, one))) return text
      return isNamed(name, 'refresh') ? paths.refresh(latin1(text), backend) : paths.location(latin1(text), backend)
    })
  }
}

/** Max-Forwards counts for two methods, and is nobody's business for others (RFC 9110 7.6.2). */
function counted(maxForwards: string, method: string): string {
  return method === 'OPTIONS' || method === 'TRACE' ? String(Number(maxForwards) - 1) : maxForwards
}

function remove(headers: RawRequestHeaders, name: string): void {
  for (let i = headers.length - 2; i >= 0; i -= 2) if (isNamed(headers[i]!, name)) headers.splice(i, 2)
}

/** What a function of the user's throws, now or later, is a fault of the configuration. */
function hooked<Made>(name: string, run: () => Made): Made {
  const fail = (cause: unknown): never => {
    throw new BalancerError('CONFIG', `${name} failed`, { cause })
  }
  try {
    const made = run()
    return made instanceof Promise ? (made.catch(fail) as Made) : made
  } catch (cause) {
    return fail(cause)
  }
}
