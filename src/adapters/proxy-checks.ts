/** Whether the options of a proxy are what they say: every fault is told at once, when it is made. */
import { MAX_DELAY_MS } from '../core/clock.ts'
import { BalancerError, type ConfigIssue } from '../core/errors.ts'
import { Secret } from '../core/secret.ts'
import { isToken } from '../core/spelling.ts'
import { checkTarget, isAuthority } from '../core/target.ts'
import { type AffinityOptions, issuesOf } from './affinity.ts'
import { HOP_BY_HOP } from './fields.ts'
import { isNetwork } from './forwarded.ts'
import { isHeaderValue } from './header-list.ts'
import { isOwn } from './incoming.ts'
import type { ProxyOptions } from './proxy-options.ts'

/** Notes what is wrong with a value that stands at a path. */
type Check = (value: unknown, path: string, issues: ConfigIssue[]) => void
type Checks = Readonly<Record<string, Check>>

function value(expected: string, holds: (value: unknown) => boolean): Check {
  return (found, path, issues) => {
    if (!holds(found)) issues.push({ path, expected, found: textOf(found) })
  }
}

function oneOf(...words: readonly unknown[]): Check {
  return value(words.map((word) => JSON.stringify(word)).join(' or '), (found) => words.includes(found))
}

function listOf(check: Check): Check {
  return (found, path, issues) => {
    if (!Array.isArray(found)) return void issues.push({ path, expected: 'a list', found: textOf(found) })
    for (const [i, one] of found.entries()) check(one, `${path}[${i}]`, issues)
  }
}

/** An object with these keys and no other; what is not said is not asked about, unless it is needed. */
function shape(checks: Checks, needed: readonly string[] = []): Check {
  return (found, path, issues) => {
    if (!isObject(found)) return void issues.push({ path, expected: 'an object', found: textOf(found) })
    const prefix = path === '' ? '' : `${path}.`
    for (const key of new Set([...needed, ...Object.keys(found)])) {
      const check = Object.hasOwn(checks, key) ? checks[key]! : undefined
      if (check === undefined) {
        const expected = `one of ${Object.keys(checks).join(', ')}`
        issues.push({ path: prefix + key, expected, found: 'an unknown key' })
      } else if (found[key] !== undefined || needed.includes(key)) check(found[key], prefix + key, issues)
    }
  }
}

/** Header values may be secrets: only their type is told. */
function headers(isTaken: (name: string) => boolean): Check {
  const name = value('the name of a header that the proxy does not write itself', (found) => {
    return typeof found === 'string' && isToken(found) && !isTaken(found.toLowerCase())
  })
  const values: Check = (found, path, issues) => {
    if (!isObject(found)) return void issues.push({ path, expected: 'an object', found: textOf(found) })
    for (const [key, text] of Object.entries(found)) {
      name(key, `${path}.${key}`, issues)
      if ((typeof text === 'string' || text instanceof Secret) && isHeaderValue(text)) continue
      const kind = typeof text === 'string' ? 'a text with other characters' : `a value of type ${typeof text}`
      issues.push({ path: `${path}.${key}`, expected: 'a text without controls and within latin1', found: kind })
    }
  }
  return shape({ set: values, add: values, remove: listOf(name) })
}

const CALLED = value('a function', (found) => typeof found === 'function')
const SWITCH = oneOf(true, false)
const COUNT = value('a whole number >= 1', (found) => Number.isSafeInteger(found) && Number(found) >= 1)
const BYTES = value('a whole number >= 0', (found) => Number.isSafeInteger(found) && Number(found) >= 0)
const DELAY = value(`ms from 0 to ${MAX_DELAY_MS}`, (found) => {
  return typeof found === 'number' && found >= 0 && found <= MAX_DELAY_MS
})
const TOKEN = value("a word of letters, digits and !#$%&'*+-.^_`|~", (found) => {
  return typeof found === 'string' && isToken(found)
})
const METHOD = value('a method, but not CONNECT', (found) => {
  return typeof found === 'string' && isToken(found) && found !== 'CONNECT'
})
const PATH = value("a path that starts with '/', without '..', '%', '?', '#' and '\\'", isPrefix)
const HOST = value("'target', 'preserve' or a host with or without a port", (found) => {
  return typeof found === 'string' && isAuthority(found)
})
const DOMAIN = value('a host name or false', (found) => {
  return found === false || (typeof found === 'string' && /^\.?[\w-]+(\.[\w-]+)*$/.test(found))
})

const OPTIONS: Readonly<Record<keyof ProxyOptions, Check>> = {
  affinity: (found, _, issues) => void issues.push(...issuesOf(found as AffinityOptions)),
  bufferBytes: BYTES,
  call: CALLED,
  clientIdleMs: DELAY,
  cookies: shape({ domain: DOMAIN, path: SWITCH }),
  exposeErrors: SWITCH,
  forwarded: oneOf(true, false, 'trusted'),
  host: HOST,
  interceptBody: shape({ when: CALLED, limitBytes: COUNT, change: CALLED }, ['change']),
  limits: shape({ targetBytes: COUNT, headerCount: COUNT, headerBytes: COUNT, bodyBytes: BYTES, tunnels: BYTES }),
  locations: SWITCH,
  methods: listOf(METHOD),
  onRequest: CALLED,
  onResponse: CALLED,
  path: shape({ strip: PATH, add: PATH }),
  requestHeaders: headers(isOwn),
  requestId: oneOf('keep', 'trusted', 'new', false),
  responseHeaders: headers((name) => HOP_BY_HOP.has(name) || name === 'content-length'),
  strayBodies: oneOf('forward', 'reject'),
  tunnelGraceMs: DELAY,
  tunnelIdleMs: DELAY,
  trustedProxies: listOf(value("an address or a network, as in '10.0.0.0/8'", isNetwork)),
  upgrades: listOf(TOKEN),
  via: TOKEN,
}

/** Throws one CONFIG that tells everything that is wrong. */
export function checkOptions<Request>(options: ProxyOptions<Request>): void {
  const issues: ConfigIssue[] = []
  shape(OPTIONS)(options, '', issues)
  if (issues.length === 0) return
  const lines = issues.map(
    ({ path, expected, found }) => `  ${path || 'options'}: expected ${expected}, found ${found}`,
  )
  throw new BalancerError('CONFIG', ['the options of the proxy are wrong:', ...lines].join('\n'), { issues })
}

function isPrefix(found: unknown): boolean {
  if (typeof found !== 'string' || /[%?]/.test(found)) return false
  try {
    checkTarget(found, 'GET')
    return true
  } catch {
    return false
  }
}

function isObject(found: unknown): found is Readonly<Record<string, unknown>> {
  return typeof found === 'object' && found !== null && !Array.isArray(found)
}

/** What was found, if it is short enough to be no secret in the wrong place. */
function textOf(found: unknown): string {
  if (typeof found === 'number' || typeof found === 'boolean') return String(found)
  if (typeof found === 'string' && found.length <= 40) return JSON.stringify(found)
  return found === null ? 'null' : Array.isArray(found) ? 'a list' : `a value of type ${typeof found}`
}
