import { BalancerError } from '../core/errors.ts'
import type { Reply } from './problem.ts'

/**
 * What the error handler of an app gets. Its message may be shown to anybody, as Express and Fastify do: what went wrong, in full, is its
 * `cause`.
 */
export interface AppError extends BalancerError {
  readonly status: number
  readonly statusCode: number
  /** For the answer. */
  readonly headers: Readonly<Record<string, string>>
}

/** Headers of a problem that hold for whatever the app makes of it. */
const KEPT: ReadonlySet<string> = new Set(['retry-after', 'x-request-id'])

/** From what a call failed with, and from how the proxy itself would tell it. */
export function appError(error: unknown, reply: Reply): AppError {
  const known = error instanceof BalancerError ? error : undefined
  const { title, detail = title } = JSON.parse(reply.body) as { readonly title: string; readonly detail?: string }
  const headers: Record<string, string> = {}
  for (let i = 0; i < reply.headers.length; i += 2) {
    if (KEPT.has(reply.headers[i]!)) headers[reply.headers[i]!] = reply.headers[i + 1]!
  }
  if (reply.close) headers.connection = 'close'
  const made = new BalancerError(known?.code ?? 'CONFIG', detail, {
    cause: error,
    ...(known?.backend !== undefined && { backend: known.backend }),
    ...(known?.retryAfterMs !== undefined && { retryAfterMs: known.retryAfterMs }),
  })
  return Object.assign(made, { status: reply.status, statusCode: reply.status, headers })
}
