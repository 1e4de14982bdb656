import { BalancerError } from './errors.ts'

/** Anything a request target must not hold: controls, space, '"'-less quoting aside; backslash, fragment, bytes above ASCII. */
const FORBIDDEN = /[^\x21-\x7e]|[\\#]/
const DOTS = /%25|%2e|%2f|%5c|\.\./i

/**
 * Refuses a request target that could leave the backend's base path or be read differently by the backend: it must be in
 * origin-form ('*' for OPTIONS), hold no control, space, backslash, '#' or non-ASCII byte, no malformed escape, and no
 * segment that decodes to '..'. What passes is forwarded byte for byte; '//host' stays a path of the chosen backend.
 */
export function checkTarget(target: string, method: string): void {
  if (target === '*' && method === 'OPTIONS') return
  if (target.charCodeAt(0) !== 47) throw refused(target, "it must start with '/'")
  if (FORBIDDEN.test(target))
    throw refused(target, "it holds a control character, a space, '\\', '#' or a non-ASCII byte")
  const query = target.indexOf('?')
  const path = query < 0 ? target : target.slice(0, query)
  if (!path.includes('%') && !path.includes('..')) return
  if (/%(?![0-9a-f]{2})/i.test(path)) throw refused(target, 'it holds a malformed escape')
  if (!DOTS.test(path)) return
  // Decoded until nothing changes, as a lenient backend may do it: the check must see the worst reading.
  let decoded = path
  for (let before = ''; before !== decoded; ) {
    before = decoded
    decoded = decoded.replace(/%(2e|2f|5c|25)/gi, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)))
  }
  if (decoded.split(/[/\\]/).some((segment) => segment === '..')) throw refused(target, "a segment decodes to '..'")
}

function refused(target: string, why: string): BalancerError {
  return new BalancerError('PROTOCOL', `request target of ${target.length} characters refused: ${why}`)
}
