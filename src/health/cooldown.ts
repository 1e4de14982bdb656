import type { Attempt, Backend, Endpoint, Stop, Watcher } from '../core/contracts.ts'
import type { ClassRule } from '../core/outcome.ts'
import { retryAfterMs } from '../core/retry-after.ts'

export interface CooldownSettings {
  readonly rateLimitMs: number
  readonly credentialMs: number
  readonly maxMs: number
}

/** Cool-downs end up to this share later, so that not everybody returns in the same moment, and nobody too early. */
const JITTER = 0.1
const JITTER_STEPS = 1_000
/** Headers by which a backend's own credential is known. */
const CREDENTIAL = /^((proxy-)?authorization|cookie)$|(^|[-_])(api)?(key|token|secret)s?($|[-_])/i

type By = 'rate-limit' | 'credential'

interface Cooling {
  readonly headers: Endpoint['headers']
  readonly stop: Stop
}

/**
 * Leaves a backend alone that said it had enough: a rate limit, a 503 with Retry-After, a refused credential. If the limit or
 * the credential is the backend's own, the reason is hard: nobody else's request would fare better. Otherwise it may be about
 * one caller only: the reason is soft, so that a single caller cannot take a whole pool out, and credentials are not looked at.
 */
export function cooldown(settings: CooldownSettings): Watcher {
  return {
    name: 'cooldown',
    start(core) {
      const cooling: Readonly<Record<By, Map<Backend, Cooling>>> = { 'rate-limit': new Map(), credential: new Map() }

      let stopped = false

      const end = (backend: Backend, by: By): void => {
        cooling[by].get(backend)?.stop()
        cooling[by].delete(backend)
        core.control.unblock(backend, by)
      }

      const cool = (backend: Backend, by: By, ms: number, detail: string): void => {
        if (ms <= 0 || stopped || backend.removed) return
        const nowMs = core.clock.now()
        const lastsMs = ms * (1 + (JITTER * core.random(JITTER_STEPS)) / JITTER_STEPS)
        const untilMs = nowMs + lastsMs
        // A later word never shortens an earlier one; and what is later by chance alone is no news: in panic it would come often.
        const known = backend.reasons.get(by)?.untilMs
        if (known !== undefined && nowMs + ms <= known) return
        cooling[by].get(backend)?.stop()
        const stop = core.clock.after(lastsMs, () => end(backend, by))
        cooling[by].set(backend, { headers: backend.endpoint.headers, stop })
        core.control.block(backend, { by, hard: hasOwnCredential(backend), untilMs, detail })
      }

      const judge = ({ backend, status, headers, rule, class: kind }: Attempt): void => {
        const { cool: why } = rule as ClassRule
        if (why === 'none') return
        const what = status > 0 ? `status ${status}` : `${kind}` // leases have no status
        if (why === 'credential') {
          if (hasOwnCredential(backend)) cool(backend, 'credential', settings.credentialMs, what)
          return
        }
        const saidMs = headers === undefined ? undefined : retryAfterMs(headers, core.clock)
        const ms =
          saidMs === undefined ? (why === 'rate-limit' ? settings.rateLimitMs : 0) : Math.min(saidMs, settings.maxMs)
        const told = saidMs === undefined ? '' : `, Retry-After ${Math.round(saidMs)} ms`
        cool(backend, 'rate-limit', ms, `${what}${told}`)
      }

      return {
        sink: {
          name: 'cooldown',
          head: judge,
          attempt(attempt) {
            if (!(attempt.headMs >= 0)) judge(attempt) // a class that a user's hook gave to a failure
          },
        },
        members() {
          for (const [by, backends] of Object.entries(cooling) as [By, Map<Backend, Cooling>][]) {
            for (const [backend, { headers }] of backends) {
              // Other headers may bring another credential, and with it other limits.
              if (backend.removed || backend.endpoint.headers !== headers) end(backend, by)
            }
          }
        },
        stop() {
          stopped = true // requests under way still end, and are still told
          for (const by of ['rate-limit', 'credential'] as const) for (const [backend] of cooling[by]) end(backend, by)
        },
      }
    },
  }
}

function hasOwnCredential({ endpoint }: Backend): boolean {
  return endpoint.headers !== undefined && Object.keys(endpoint.headers).some((name) => CREDENTIAL.test(name))
}
