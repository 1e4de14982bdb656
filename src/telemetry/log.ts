import type { Attempt, Backend, Call, Clock, Reason, Sink } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import type { Logger, LogOptions } from '../core/options.ts'
import type { ConfigChange } from '../core/revisions.ts'
import { Secret } from '../core/secret.ts'
import type { BalancerEvents } from '../events.ts'

/** What writes the lines, and what a line is made from. */
export interface LogParts {
  readonly logger: Logger
  readonly clock: Clock
  /** Takes configured secrets out of a text that others wrote. */
  redact(text: string): string
}

/** Changes of a configuration in one line; of more only the number is told. */
const MOST_CHANGES = 20
/** Longest text in a line, characters: paths and words of others may be of any length. */
const LONGEST = 2_000
/** Reasons by which people take a backend out, which is nothing to warn of. */
const BY_HAND: readonly string[] = ['operator', 'drain']

/**
 * A line for every change of state: to be listened with. Nothing of it happens on the request path. A logger that throws is not heard
 * of: whoever would write that down is the one that throws, and other listeners must not miss an event for it.
 */
export function logEvents({ logger: given, clock, redact }: LogParts): Partial<BalancerEvents> {
  const logger = quiet(given)
  const reasonOf = ({ id }: Backend, { by, hard, untilMs, detail }: Reason): object => {
    const forMs = untilMs === undefined ? undefined : Math.max(0, Math.round(untilMs - clock.now()))
    return said({ backend: id, by, hard, detail: detail === undefined ? undefined : redact(detail), forMs })
  }
  return {
    blocked(backend, reason) {
      const level = BY_HAND.includes(reason.by) ? 'info' : 'warn'
      logger[level](reasonOf(backend, reason), 'backend blocked')
    },
    unblocked: ({ id }, { by }) => logger.info({ backend: id, by }, 'backend unblocked'),
    wouldBlock: (backend, reason) => logger.info(reasonOf(backend, reason), 'backend would be blocked'),
    added: ({ id }) => logger.info({ backend: id }, 'backend added'),
    removed: ({ id }) => logger.info({ backend: id }, 'backend removed'),
    updated: ({ id }) => logger.debug({ backend: id }, 'backend updated'),
    configured({ number, hash, origin, restores, changes }) {
      const told = changes.slice(0, MOST_CHANGES).map(changeText)
      const line = said({ revision: number, hash, origin, restores, changed: changes.length, changes: told })
      logger.info(line, 'configuration in force')
    },
    reloadFailed: (error) => logger.error(errorOf(error, redact), 'reload failed'),
    warning: (error) => logger.warn(errorOf(error, redact), 'a part misbehaved'),
    closed: () => logger.info({}, 'balancer closed'),
  }
}

/** A line for each call that is over, or for those that are asked for. No headers, no bodies, no query strings. */
export function logRequests({ logger, clock, redact }: LogParts, requests: LogOptions['requests']): Sink | undefined {
  if (requests === undefined || requests === false) return undefined
  return {
    name: 'log',
    call(call) {
      if (requests !== true && !requests(call)) return
      const { requestId, pool, method, startMs, attempts, error } = call
      const attempt = tellingOf(call)
      const line = said({
        requestId,
        pool,
        method,
        path: attempt?.request.path.split('?', 1)[0],
        backend: attempt?.backend.id,
        status: attempt === undefined || attempt.status === 0 ? undefined : attempt.status,
        class: attempt?.class,
        attempts: attempts.length,
        ms: Math.round((clock.now() - startMs) * 1000) / 1000,
        ...(error === undefined ? {} : errorOf(error, (text) => redact(redactSent(text, call)))),
      })
      logger[hasFailed(error, attempt) ? 'warn' : 'info'](line, 'request')
    },
  }
}

/** The attempt that decided what became of the call: the losers of a hedge are cancelled. */
function tellingOf({ attempts }: Call): Attempt | undefined {
  return attempts.findLast(({ outcome }) => outcome?.class !== 'cancelled') ?? attempts.at(-1)
}

/** No answer, or one that broke off; a call that its caller gave up has not failed. */
function hasFailed(error: unknown, attempt: Attempt | undefined): boolean {
  if (error !== undefined) return error instanceof BalancerError
  const outcome = attempt?.outcome
  return outcome !== undefined && outcome.phase !== 'done' && outcome.class !== 'cancelled'
}

/** Words only: an error object has its causes with it, and in them whatever others put there. */
function errorOf(error: unknown, redact: LogParts['redact']): object {
  if (!(error instanceof Error)) return { error: typeof error }
  const { code, message, cause, name } = error as Error & { readonly code?: unknown }
  const isNews = cause instanceof Error && !message.includes(cause.message)
  return said({
    error: redact(message),
    code: typeof code === 'string' ? code : name,
    cause: isNews ? redact(cause.message) : undefined,
  })
}

/** Without what its attempts carried: by now no revision and no backend may know these keys any more. */
function redactSent(text: string, { attempts }: Call): string {
  const sent = attempts.flatMap(({ request, backend }) => [
    ...request.headers.filter((part) => part instanceof Secret),
    ...Object.values(backend.endpoint.headers ?? {}).map(Secret.of),
  ])
  return Secret.redacting(sent)(text)
}

function quiet(logger: Logger): Logger {
  const at =
    (level: keyof Logger): Logger[keyof Logger] =>
    (details, message) => {
      try {
        logger[level](details, message)
      } catch {}
    }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

function changeText({ path, from = 'nothing', to = 'nothing' }: ConfigChange): string {
  return `${path}: ${from} -> ${to}`
}

/** Without what is undefined, which not every logger leaves out, and no text too long. */
function said(line: Readonly<Record<string, unknown>>): object {
  const known = Object.entries(line).filter(([, value]) => value !== undefined)
  return Object.fromEntries(known.map(([key, value]) => [key, typeof value === 'string' ? cut(value) : value]))
}

function cut(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text
}
