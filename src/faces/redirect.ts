import type { Attempt, BalancerRequest, BalancerResponse, Call } from '../core/contracts.ts'
import { BalancerError } from '../core/errors.ts'
import { header, isNamed } from '../core/headers.ts'
import { isReplayable, ReplayBody } from '../core/replay.ts'
import { checkTarget } from '../core/target.ts'
import { originOf } from './outgoing.ts'

/** Most in a row (Fetch, "HTTP-redirect fetch"). */
const MOST_REDIRECTS = 20

const STATUSES: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])
/** What a request says of a body it no longer has (Fetch, "request-body-header name"). */
const OF_THE_BODY = ['content-encoding', 'content-language', 'content-location', 'content-type', 'content-length']

/** How a fetch treats redirects, how many it has followed, and what it was asked for. */
interface Way {
  readonly redirect: NonNullable<RequestInit['redirect']>
  readonly redirects: number
  readonly from: string | URL
}

/**
 * The next request of a fetch whose answer is a redirect to follow; the answer and its call are done with then. Undefined for any
 * other answer, and for a redirect that must not or cannot be followed: Location names no URL, or an origin that is neither the
 * answering backend's nor the one asked for, or a path outside the backend's base path, or the body is gone.
 */
export function followed(
  request: BalancerRequest,
  answer: BalancerResponse,
  call: Call,
  by: Attempt | undefined,
  { redirect, redirects, from }: Way,
): BalancerRequest | undefined {
  const { status } = answer
  if (redirect === 'manual' || !STATUSES.has(status)) return undefined
  const next = redirect === 'error' ? undefined : nextRequest(request, answer, by, originOf(from))
  if (redirect === 'follow' && next === undefined) return undefined
  // Somebody may still be sending it: half of it must not look like a whole.
  if (request.body instanceof ReplayBody && !request.body.complete) call.cancel(new Error('redirected'))
  answer.body.discard()
  if (redirect === 'error') throw new BalancerError('PROTOCOL', `unexpected redirect: status ${status}`)
  if (redirects === MOST_REDIRECTS) throw new BalancerError('PROTOCOL', `more than ${MOST_REDIRECTS} redirects`)
  return next
}

function nextRequest(
  request: BalancerRequest,
  { status, headers }: BalancerResponse,
  by: Attempt | undefined,
  asked: string | undefined,
): BalancerRequest | undefined {
  const location = header(headers, 'location')
  const path = location === undefined || by === undefined ? undefined : pathOf(location, by, asked)
  if (path === undefined) return undefined
  const { method, body } = request
  const isGet = status === 303 ? method !== 'GET' && method !== 'HEAD' : status < 303 && method === 'POST'
  if (!isGet) return isReplayable(body) ? { ...request, path } : undefined
  const kept = request.headers.filter((_, i, all) => !OF_THE_BODY.some((name) => isNamed(all[i - (i % 2)]!, name)))
  return { ...request, method: 'GET', path, headers: kept, body: null }
}

/** As a caller of the balancer would write it: without the base path that each backend has of its own. */
function pathOf(location: string, { backend, request }: Attempt, asked: string | undefined): string | undefined {
  try {
    const url = new URL(location, backend.origin + request.path)
    const { basePath } = backend
    const isOwn = url.origin === backend.origin
    if ((!isOwn && url.origin !== asked) || url.username !== '' || url.password !== '') return undefined
    if (isOwn && basePath !== '' && !`${url.pathname}/`.startsWith(`${basePath}/`)) return undefined
    const path = (isOwn ? url.pathname.slice(basePath.length) || '/' : url.pathname) + url.search
    checkTarget(path, 'GET')
    return path
  } catch {
    return undefined // no URL, or one that no backend is to see
  }
}
