/** What the defaults mean and why they are what they are, in words: `docs/defaults.md` is printed from here and from `defaults.ts`. */

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
  row('strategy', 'name', 'How a backend is chosen.', 'Steers around slow backends by itself.'),
  row(
    'health.active',
    'section',
    'Checks beside the traffic; off unless given, then as below.',
    'Only you know what to ask.',
  ),
  row('health.passive.consecutive', 'failures', 'Failures in a row that eject a backend; 0 = off.', 'Envoy, Finagle.'),
  row(
    'health.passive.consecutiveGateway',
    'failures',
    '502, 503, 504 and failures without an answer in a row; 0 = off.',
    'Envoy.',
  ),
  row(
    'health.passive.consecutiveLocal',
    'failures',
    'Failures without an answer in a row, counted apart; 0 = counted together.',
    'Envoy’s split mode, off.',
  ),
  row('health.passive.successRate.deviations', 'deviations', 'Ejected below the mean by so many.', 'Envoy.'),
  row('health.passive.successRate.minBackends', 'backends', 'With enough requests; fewer are not compared.', 'Envoy.'),
  row('health.passive.successRate.minRequests', 'requests', 'Per interval; fewer are not counted.', 'Envoy.'),
  row(
    'health.passive.failureShare',
    'section',
    'Ejected from a fixed share of failures on; off unless given, then as below.',
    'Envoy.',
  ),
  row(
    'health.passive.intervalMs',
    'ms',
    'How often rates are compared; each time without an ejection forgives one.',
    'Envoy.',
  ),
  row('health.passive.baseMs', 'ms', 'First ejection; the n-th in a row lasts n times as long, ±10 %.', 'Finagle.'),
  row('health.passive.maxMs', 'ms', 'Longest ejection.', 'Envoy, Finagle.'),
  row(
    'health.passive.maxShare',
    '0..1',
    'Most of the pool that may be ejected at once. Unset: 0.5 under ten backends, else 0.1; always at least one.',
    'A tenth is Envoy’s, but a tenth of three backends means nothing.',
  ),
  row(
    'health.passive.jitter',
    '0..1',
    'Ejections are shifted by up to this share.',
    'Many clients must not return at once.',
  ),
  row('health.passive.dryRun', 'flag', 'Only tells `wouldBlock`.', 'Ejecting is the point.'),
  row('health.panicBelow', '0..1', 'Below this share of healthy backends soft reasons are ignored; 0 = off.', 'Envoy.'),
  row(
    'health.slowStart.by',
    'time or success',
    'What the share of a returning or added backend grows with; success: 10, 30, 50, 100 % after 0, 1, 3, 5 in a row.',
    'Ends without traffic, too.',
  ),
  row('health.slowStart.windowMs', 'ms', 'By time: until it has its full share.', 'Caches and connections fill.'),
  row(
    'health.slowStart.aggression',
    'exponent',
    'By time: the share grows as (age / windowMs) ^ (1 / aggression).',
    'Envoy.',
  ),
  row('health.slowStart.minShare', '0..1', 'By time: where it starts.', 'Envoy.'),
  row(
    'health.slowStart.dwellMs',
    'ms',
    'By success: how long each share lasts at least; without a failure five times as long at most, or 1 s.',
    'A burst of good answers is one good answer.',
  ),
  row(
    'health.cooldown.rateLimitMs',
    'ms',
    'After a 429 that does not say how long.',
    'The shortest window of any limit.',
  ),
  row(
    'health.cooldown.credentialMs',
    'ms',
    'After 401 or 402 to a backend’s own credential.',
    'A person has to mend it.',
  ),
  row('health.cooldown.maxMs', 'ms', 'Most that a Retry-After is believed.', 'A mistaken header must not cost a day.'),
  row('classify', 'function', 'Decides the class of an attempt before the table.', 'The table.'),
  row(
    'classes',
    'changes',
    'What the classes mean, cell by cell. A pool’s replaces the balancer’s as a whole.',
    'The table.',
  ),
  row('retry.attempts', 'sends', 'Sends in all, the first included; 1 = no retries.', 'The first and two others.'),
  row(
    'retry.status',
    'statuses',
    'Statuses worth another backend.',
    'Said by whoever stands in front of the work, or before it.',
  ),
  row('retry.baseMs', 'ms', 'The n-th pause is drawn from baseMs · 2^(n-1).', 'Envoy.'),
  row('retry.sameBaseMs', 'ms', 'The same before it goes to the same backend.', 'Whoever just failed needs a moment.'),
  row('retry.maxMs', 'ms', 'Longest pause.', 'No longer than the wait for a connection.'),
  row('retry.jitter', 'name', 'How the pause is drawn.', 'Full jitter spreads a crowd best.'),
  row(
    'retry.waitMs',
    'ms',
    'Longest Retry-After that is waited out when no other backend can be had; 0 = never.',
    'Longer than that nobody waits.',
  ),
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
  row('hedge', 'section', 'A second send when the first is slow; off unless given, then as below.', 'It costs load.'),
  row(
    'breaker',
    'section',
    'A circuit breaker per backend; off unless given, then as below.',
    'Ejection is on already.',
  ),
  row('limits.maxInflight', 'calls', 'Most calls of the pool in flight at once.', 'None.'),
  row(
    'limits.queue',
    'section',
    'Where calls wait for their turn; off unless given, then as below.',
    'Refusing at once is honest.',
  ),
  row(
    'limits.adaptive',
    'section',
    'A limit per backend that follows its latency; off unless given, then as below.',
    'The server owns its limit.',
  ),
  row('timeouts.connectMs', 'ms', 'Until the request has a connection; 0 = off.', 'Envoy.'),
  row('timeouts.headersMs', 'ms', 'From there until the head of the answer; 0 = off.', 'Few callers wait longer.'),
  row('timeouts.firstByteMs', 'ms', 'From the head until the first byte of the body; 0 = off.', 'idleMs bounds it.'),
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
  row('undici.maxHeaderBytes', 'bytes', 'Most bytes of an answer’s header fields; more is a 502.', 'Node’s own.'),
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

/** The same for `WHEN_GIVEN`, section by section. */
export const WHEN_GIVEN_ROWS: readonly (readonly [section: string, rows: readonly DefaultRow[]])[] = [
  [
    'health.active',
    [
      row(
        'health.active.type',
        'http, tcp or grpc',
        'A request, a connection with TLS, or grpc.health.v1.',
        'Says more than an open port.',
      ),
      row('health.active.probe', 'part', 'Your own check instead of type.', 'A built-in one.'),
      row('health.active.path', 'path', 'What is asked for, behind the base path.', 'The one path every server has.'),
      row('health.active.method', 'method', 'Of the request.', 'What every server answers.'),
      row('health.active.headers', 'headers', 'Sent with each check.', 'None but the check’s own.'),
      row('health.active.match', 'text', 'The first KiB of the body must hold it.', 'Any body will do.'),
      row('health.active.service', 'name', 'What a grpc check asks for.', 'The server as a whole.'),
      row('health.active.status', 'statuses', 'What means well.', 'A redirect is an answer of a working server.'),
      row(
        'health.active.intervalMs',
        'ms',
        'From the end of a check to the next one.',
        'Envoy’s examples, HAProxy: 2 to 5 s.',
      ),
      row(
        'health.active.fastIntervalMs',
        'ms',
        'While checks disagree with the verdict; never longer than intervalMs.',
        'HAProxy’s fastinter.',
      ),
      row(
        'health.active.idleIntervalMs',
        'ms',
        'While the pool has no traffic. Unset: as intervalMs.',
        'Envoy’s no_traffic_interval.',
      ),
      row(
        'health.active.initial',
        'up, down or probe',
        'Before the first verdict; probe: the first check decides alone.',
        'A restart must not wait for checks.',
      ),
      row(
        'health.active.jitter',
        '0..1',
        'The interval is shifted by up to this share.',
        'Many clients must not ask in step.',
      ),
      row('health.active.timeoutMs', 'ms', 'One check.', 'A check that takes longer says enough.'),
      row('health.active.rise', 'checks', 'Good ones in a row that bring a backend back.', 'HAProxy.'),
      row('health.active.fall', 'checks', 'Bad ones in a row that take it out.', 'HAProxy.'),
    ],
  ],
  [
    'health.passive.failureShare',
    [
      row('health.passive.failureShare.share', '0..1', 'Ejected from this share of failures on.', 'Envoy.'),
      row(
        'health.passive.failureShare.minBackends',
        'backends',
        'With enough requests; fewer are not judged.',
        'Envoy.',
      ),
      row('health.passive.failureShare.minRequests', 'requests', 'Per interval; fewer are not counted.', 'Envoy.'),
    ],
  ],
  [
    'hedge',
    [
      row('hedge.delayMs', 'ms', 'Wait before the second send. Unset: by percentile.', 'Latencies differ.'),
      row(
        'hedge.percentile',
        '0..1',
        'The wait is this quantile of recent latencies.',
        'One call in twenty is sent twice.',
      ),
      row('hedge.minDelayMs', 'ms', 'The wait is at least this.', 'Below, a second send is never the faster one.'),
      row('hedge.warmUp', 'answers', 'Before a quantile says anything.', 'A quantile of fewer is noise.'),
      row('hedge.maxShare', '0..1', 'When more calls than this would be hedged, none is.', 'Slowness is then general.'),
    ],
  ],
  [
    'breaker',
    [
      row(
        'breaker.trip',
        'name',
        'What trips it: consecutive, count or window.',
        'Judges the share, not the luck of a row.',
      ),
      row('breaker.consecutive', 'failures', 'In a row, for consecutive.', 'As the outlier detector.'),
      row('breaker.threshold', '0..1', 'Trips above this share of failures, for count and window.', 'Half of them.'),
      row('breaker.size', 'calls', 'The last so many, for count.', 'Cockatiel’s shape.'),
      row('breaker.windowMs', 'ms', 'The last so long, for window.', 'Polly.'),
      row('breaker.minRequests', 'requests', 'Fewer in the window say nothing.', 'Hystrix.'),
      row('breaker.openMs', 'ms', 'First time open; doubles each time the trials fail.', 'Long enough for a restart.'),
      row('breaker.maxOpenMs', 'ms', 'Longest time open.', 'A repaired backend is noticed within a minute.'),
      row('breaker.jitter', '0..1', 'Times are shifted by up to this share.', 'Many clients must not return at once.'),
      row('breaker.trials', 'requests', 'Let through half-open; all must succeed.', 'One good answer may be luck.'),
    ],
  ],
  [
    'limits.queue',
    [
      row('limits.queue.size', 'calls', 'That may wait.', 'A burst, not a backlog.'),
      row('limits.queue.timeoutMs', 'ms', 'Longest wait.', 'Who waits longer is better told.'),
      row(
        'limits.queue.order',
        'fifo, lifo or adaptive',
        'Who is first; adaptive: fifo, lifo under overload.',
        'Under overload only the newest still wait.',
      ),
      row('limits.queue.overloadMs', 'ms', 'Overload: not empty for so long.', 'CoDel’s interval.'),
    ],
  ],
  [
    'limits.adaptive',
    [
      row('limits.adaptive.algorithm', 'name', 'gradient2, aimd or vegas.', 'Follows latency alone.'),
      row('limits.adaptive.initial', 'requests', 'Where it starts; the default keeps within min and max.', 'Netflix.'),
      row('limits.adaptive.min', 'requests', 'Never below.', 'Somebody must measure.'),
      row('limits.adaptive.max', 'requests', 'Never above.', 'Netflix.'),
    ],
  ],
]

function row(path: string, unit: string, meaning: string, reason: string): DefaultRow {
  return { path, unit, meaning, reason }
}
