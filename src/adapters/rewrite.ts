/** Paths and names as they are outside the proxy, and as they are on a backend. */
import type { Backend } from '../core/contracts.ts'

export interface PathOptions {
  /** Taken off the front of every path, segment by segment: '/api' of '/api/users' and '/api', not of '/apis'. */
  readonly strip?: string
  /** Put in front of what is left, behind the path of the backend's URL. */
  readonly add?: string
}

export interface CookieOptions {
  /** For cookies that have one: another `Domain`, or false = none, which ties them to this host. */
  readonly domain?: string | false
  /** Whether `Path` is turned back as `path` and the URL of the backend turned the request's; default false. */
  readonly path?: boolean
}

/** Anything that browsers may read as something else than a path. */
const PLAIN = /^[\x21-\x5b\x5d-\x7e]*$/
const ABSOLUTE = /^https?:\/\/[^/?#\\]*/i
const URL_NAME = /^url[\t ]*=[\t ]*/i

/** How paths are mapped, both ways; made once. */
export class Paths {
  readonly #strip: string
  readonly #add: string

  constructor({ strip = '', add = '' }: PathOptions) {
    this.#strip = withoutSlash(strip)
    this.#add = withoutSlash(add)
  }

  /** What the backend is asked for; undefined if the prefix is not there. */
  inward(target: string): string | undefined {
    const rest = behind(this.#strip, target)
    return rest === undefined ? undefined : this.#add + rest
  }

  /** A path of the backend's as its clients see it; undefined if they cannot reach it. */
  outward(target: string, { basePath }: Backend): string | undefined {
    const rest = behind(basePath + this.#add, target)
    if (rest === undefined) return undefined
    const path = this.#strip + rest
    // '//host' would be another host.
    return path.startsWith('//') ? `/.${path}` : path
  }

  /** A URL in an answer: one that means the backend it came from means this proxy instead, any other is left alone. */
  location(url: string, backend: Backend): string {
    if (!PLAIN.test(url)) return url
    const [authority = ''] = ABSOLUTE.exec(url) ?? []
    if (authority === '' ? !/^\/(?!\/)/.test(url) : originOf(authority) !== backend.origin) return url
    const path = url.slice(authority.length)
    return this.outward(path.startsWith('/') ? path : `/${path}`, backend) ?? url
  }

  /** The same in a Refresh field, as in '5; url=/next'. */
  refresh(value: string, backend: Backend): string {
    const start = value.search(/[;,]/) + 1
    const rest = value.slice(start).trim()
    const [name = ''] = URL_NAME.exec(rest) ?? []
    const named = rest.slice(name.length)
    const quote = named.startsWith('"') || named.startsWith("'") ? named[0]! : ''
    const url = quote !== '' && named.endsWith(quote) ? named.slice(1, -1) : named
    const known = this.location(url, backend)
    return start === 0 || url === known ? value : `${value.slice(0, start)} ${name}${quote}${known}${quote}`
  }

  /** A Set-Cookie line. */
  cookie(line: string, { domain, path = false }: CookieOptions, backend: Backend): string {
    const [pair = '', ...attributes] = line.split(';')
    const kept = attributes.flatMap((attribute) => {
      const equals = attribute.indexOf('=')
      const name = attribute.slice(0, equals).trim().toLowerCase()
      const value = attribute.slice(equals + 1).trim()
      if (name === 'domain' && domain !== undefined) return domain === false ? [] : [` Domain=${domain}`]
      if (name === 'path' && path && value.startsWith('/')) return [` Path=${this.#cookiePath(value, backend)}`]
      return [attribute]
    })
    return [pair, ...kept].join(';')
  }

  /** A cookie for more than what is behind this proxy is one for all of it. */
  #cookiePath(path: string, backend: Backend): string {
    const known = this.outward(path, backend)
    // The prefix itself is a path of this proxy too, which '/api/' would leave out (RFC 6265 5.1.4).
    if (known === `${this.#strip}/`) return this.#strip || '/'
    if (known !== undefined) return known
    return behind(withoutSlash(path), backend.basePath + this.#add) === undefined ? path : this.#strip || '/'
  }
}

/** What follows a prefix, from its '/' on; undefined if it is not there, or ends within a segment. */
function behind(prefix: string, target: string): string | undefined {
  if (!target.startsWith(prefix)) return undefined
  const rest = target.slice(prefix.length)
  if (rest.startsWith('/')) return rest
  return rest === '' || rest.startsWith('?') || rest.startsWith('#') ? `/${rest}` : undefined
}

function withoutSlash(path: string): string {
  return path.endsWith('/') ? path.slice(0, -1) : path
}

function originOf(url: string): string | undefined {
  const { origin, username, password } = URL.canParse(url) ? new URL(url) : NOWHERE
  return username === '' && password === '' ? origin : undefined
}

const NOWHERE = { origin: undefined, username: '', password: '' }
