import { CONNECTION_DEFAULTS, type ResolvedSettings } from '../core/options.ts'

/** Name of a balancer that was given none. */
export const DEFAULT_NAME = 'evenkeel'
/** Name of the pool made of top-level `backends`. */
export const DEFAULT_POOL = 'default'

/** Where active checks start from, once somebody asks for them. */
export const ACTIVE_DEFAULTS: Exclude<ResolvedSettings['health']['active'], false> = deepFrozen({
  type: 'http', // says more than an open port
  path: '/', // the one path every server has
  status: '200-399', // a redirect is an answer of a working server
  intervalMs: 5_000, // a dead idle backend is found within a quarter of a minute
  jitter: 0.1, // many clients must not ask in step
  timeoutMs: 2_000, // a check that takes longer says enough
  rise: 2, // one good answer may be luck
  fall: 3, // one bad answer may be bad luck
})

/** Every default of a pool's settings. Only what transports of their own start from stands elsewhere, in core; `docs/defaults.md` is printed from here. */
export const DEFAULTS: ResolvedSettings = deepFrozen({
  strategy: 'peak-ewma', // steers around slow backends by itself
  health: {
    passive: {
      consecutive: 5, // one hiccup is no outage; five in a row are
      baseMs: 5_000, // long enough for a restart
      maxMs: 300_000, // a repaired backend is noticed within minutes
      maxShare: undefined, // depends on the size of the pool: 0.5 under ten backends, else 0.1
    },
    panicBelow: 0.5, // when half are out, the detector is more likely wrong than they
    active: false, // only you know what to ask
  },
  retry: {
    attempts: 3, // the first and two others
    status: [502, 503, 504], // said by whoever stands in front of the work
    baseMs: 25, // below what a person notices
    maxMs: 5_000, // a longer pause is a failure to the caller
    bufferBytes: 65_536, // nearly every JSON request
    holdBytes: 16_384, // usually arrives with the head
    budget: {
      share: 0.2, // an outage costs a fifth more, not three times as much
      perSecond: 10, // little traffic may retry too
      windowMs: 10_000, // what was saved up in quiet hours does not fuel a storm
    },
  },
  timeouts: {
    connectMs: 5_000, // survives a lost SYN and its repeats after 1 s and 3 s
    headersMs: 30_000, // nobody waits longer for a first byte
    idleMs: 300_000, // slow streams live
    attemptMs: 0, // only the caller knows
    totalMs: 0, // only the caller knows
    leaseMs: 60_000, // a lease nobody ends must not count for ever
  },
  undici: CONNECTION_DEFAULTS, // one connection a request; under the 5 s after which Node's server hangs up
  transport: undefined, // the built-in one
  policies: [], // nothing of yours
  watchers: [], // nothing of yours
  sinks: [], // nothing of yours
})

export interface DefaultRow {
  /** As in `retry.budget.share`. */
  readonly path: string
  readonly unit: string
  readonly meaning: string
  /** Why this value, or where it comes from. */
  readonly reason: string
}

/** One row for each leaf of `DEFAULTS`, in its order. The values are read from there. */
export const DEFAULT_ROWS: readonly DefaultRow[] = [
  row('strategy', 'name', 'How a backend is chosen.', 'As in Linkerd; steers around slow backends by itself.'),
  row('health.passive.consecutive', 'failures', 'Failures in a row that eject a backend; 0 = off.', 'Envoy, Finagle.'),
  row('health.passive.baseMs', 'ms', 'First ejection; the n-th in a row lasts n times as long, ±10 %.', 'Finagle.'),
  row('health.passive.maxMs', 'ms', 'Longest ejection.', 'Envoy, Finagle.'),
  row(
    'health.passive.maxShare',
    '0..1',
    'Most of the pool that may be ejected at once. Unset: 0.5 under ten backends, else 0.1; always at least one.',
    'A tenth is Envoy’s, but a tenth of three backends means nothing.',
  ),
  row('health.panicBelow', '0..1', 'Below this share of healthy backends soft reasons are ignored; 0 = off.', 'Envoy.'),
  row(
    'health.active',
    'section',
    'Checks beside the traffic; off unless given, then as below.',
    'Only you know what to ask.',
  ),
  row('retry.attempts', 'sends', 'Sends in all, the first included; 1 = no retries.', 'The first and two others.'),
  row('retry.status', 'statuses', 'Statuses worth another backend.', 'Envoy’s `gateway-error`.'),
  row('retry.baseMs', 'ms', 'The n-th pause is a random part of baseMs · 2^(n-1).', 'Envoy.'),
  row('retry.maxMs', 'ms', 'Longest pause.', 'No longer than the wait for a connection.'),
  row('retry.bufferBytes', 'bytes', 'Most of a request body that is kept for a repeat.', 'Linkerd.'),
  row(
    'retry.holdBytes',
    'bytes',
    'Answers to repeatable requests up to this Content-Length are handed over whole; 0 = off.',
    'One TLS record: it usually arrives with the head.',
  ),
  row('retry.budget.share', '0..1', 'Retries per call.', 'Finagle.'),
  row('retry.budget.perSecond', 'retries', 'Retries per second on top.', 'Finagle.'),
  row('retry.budget.windowMs', 'ms', 'How long a call counts.', 'Finagle.'),
  row('timeouts.connectMs', 'ms', 'Until the request has a connection; 0 = off.', 'Envoy.'),
  row('timeouts.headersMs', 'ms', 'From there until the head of the answer; 0 = off.', 'Few callers wait longer.'),
  row('timeouts.idleMs', 'ms', 'Longest silence within the body; 0 = off.', 'Envoy, undici.'),
  row('timeouts.attemptMs', 'ms', 'One attempt, until its head; 0 = off.', 'Only the caller knows.'),
  row('timeouts.totalMs', 'ms', 'The whole call, body included; 0 = off.', 'Only the caller knows.'),
  row('timeouts.leaseMs', 'ms', 'A lease of `acquire` that nobody ends; 0 = off.', 'It must not count for ever.'),
  row('undici.connections', 'connections', 'Most connections per backend.', 'A bound, far above everyday use.'),
  row(
    'undici.pipelining',
    'requests',
    'Requests per HTTP/1.1 connection at once.',
    'One slow answer holds up no other.',
  ),
  row(
    'undici.keepAliveMs',
    'ms',
    'Idle connections are closed after this; a backend’s Keep-Alive header wins.',
    'undici; just under the 5 s of Node’s server.',
  ),
  row('undici.allowH2', 'flag', 'Offer HTTP/2 to https: backends.', 'One connection per request is easier to balance.'),
  row('undici.tls', 'options', 'What `tls.connect` takes. A pool’s replaces the balancer’s as a whole.', 'Node’s own.'),
  row(
    'transport',
    'part',
    'What carries attempts. Unset: the built-in undici transport.',
    'What Node’s own fetch rests on.',
  ),
  row('policies', 'parts', 'Your own policies, outermost first.', 'Retry, timeouts and hold are built in.'),
  row('watchers', 'parts', 'Your own watchers.', 'The outlier detector is built in.'),
  row('sinks', 'parts', 'Your own sinks.', 'Plain counters are built in.'),
]

/** The same for `ACTIVE_DEFAULTS`. */
export const ACTIVE_ROWS: readonly DefaultRow[] = [
  row('health.active.type', 'http or tcp', 'A GET, or a connection with TLS.', 'Says more than an open port.'),
  row('health.active.path', 'path', 'What is asked for, behind the base path.', 'The one path every server has.'),
  row('health.active.status', 'statuses', 'What means well.', 'A redirect is an answer of a working server.'),
  row(
    'health.active.intervalMs',
    'ms',
    'From the end of a check to the next one.',
    'Envoy’s examples, HAProxy: 2 to 5 s.',
  ),
  row(
    'health.active.jitter',
    '0..1',
    'The interval is shifted by up to this share.',
    'Many clients must not ask in step.',
  ),
  row('health.active.timeoutMs', 'ms', 'One check.', 'A check that takes longer says enough.'),
  row('health.active.rise', 'checks', 'Good ones in a row that bring a backend back.', 'HAProxy.'),
  row('health.active.fall', 'checks', 'Bad ones in a row that take it out; the first one decides alone.', 'HAProxy.'),
]

function row(path: string, unit: string, meaning: string, reason: string): DefaultRow {
  return { path, unit, meaning, reason }
}

function deepFrozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  for (const inner of Object.values(value)) deepFrozen(inner)
  return Object.freeze(value)
}
