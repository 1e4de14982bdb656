import { BalancerError } from './errors.ts'

/** Anything a request target must not hold: controls, space, '"'-less quoting aside; backslash, fragment, bytes above ASCII. */
const FORBIDDEN = /[^\x21-\x7e]|[\\#]/

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
  if (
    decoded(path)
      .split(/[/\\]/)
      .some((segment) => segment.split(';', 1)[0] === '..')
  )
    throw refused(target, "a segment decodes to '..'")
}

/** `uri-host [ ":" port ]` (RFC 9110 7.2) of HTTP: not empty, and without ',', which would be read as two. */
const AUTHORITY = /^(?:\[[0-9a-f:.]{2,45}\]|(?:[\w.~!$&'()*+;=-]|%[0-9a-f]{2})+)(?::\d{0,5})?$/i

/** Whether it may stand in Host. */
export function isAuthority(text: string): boolean {
  return AUTHORITY.test(text)
}

/** With every escape decoded, those that decoding brings forth too: the check must see the most lenient reading. One pass. */
function decoded(path: string): string {
  const out: string[] = []
  for (const char of path) {
    out.push(char)
    for (let code = escapeAt(out); code >= 0; code = escapeAt(out)) out.splice(-3, 3, String.fromCharCode(code))
  }
  return out.join('')
}

/** The code of the escape the characters end in, -1 if they end in none. */
function escapeAt(out: readonly string[]): number {
  const n = out.length
  if (n < 3 || out[n - 3] !== '%') return -1
  const pair = out[n - 2]! + out[n - 1]!
  return /^[0-9a-f]{2}$/i.test(pair) ? Number.parseInt(pair, 16) : -1
}

function refused(target: string, why: string): BalancerError {
  return new BalancerError('PROTOCOL', `request target of ${target.length} characters refused: ${why}`)
}
