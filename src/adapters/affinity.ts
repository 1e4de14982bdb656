import { createHmac } from 'node:crypto'
import { answeredBy } from '../core/call.ts'
import type { Backend, BalancerResponse, Call, Wanted } from '../core/contracts.ts'
import { cookies, withoutCookie } from '../core/cookies.ts'
import type { ConfigIssue } from '../core/errors.ts'
import { isToken, nameText } from '../core/spelling.ts'
import type { Incoming } from './incoming.ts'

export interface AffinityOptions {
  /** Name of the cookie; default 'evenkeel'. */
  readonly cookie?: string
  /**
   * What cookies are signed with, at least 32 bytes (text counts as UTF-8); the same in every process in front of the same
   * backends. A list for rotation: the first signs, all verify, and who comes with another one's cookie gets a new one.
   */
  readonly secret: string | Uint8Array | readonly (string | Uint8Array)[]
  /**
   * When the client's backend may not be picked: 'redistribute' = another one serves it, and it stays there; 'fail' = 503, until
   * the backend is back, or the pool no longer has it. Default 'redistribute'.
   */
  readonly whenOut?: 'redistribute' | 'fail'
  /** How long the client keeps it from when it was issued, s; default: until it ends its session. */
  readonly maxAgeS?: number
  /** default '/'. */
  readonly path?: string
  /** default 'lax'. 'none' demands `secure: true`. */
  readonly sameSite?: 'lax' | 'strict' | 'none'
  /** 'auto': if the client's connection to this proxy is TLS; true: where something in front of it ends TLS. Default 'auto'. */
  readonly secure?: 'auto' | boolean
}

/** Of the pool, then of the backend: 36 and 256 bits. The cookie has one for each pool, and dots between them. */
const TOKEN = /^[\w-]{49}$/
const MARK_LENGTH = 6
/** Most pools a cookie can tell of: with 450 bytes it is no burden to requests. */
const MOST_TOKENS = 9
/** What a Set-Cookie line takes as a path: no ';', no space, no control. */
const PATH = /^\/[\x21-\x3a\x3c-\x7e]*$/
const LEAST_BYTES = 32
const SAME_SITE = { lax: 'Lax', strict: 'Strict', none: 'None' } as const
const KEYS = ['cookie', 'secret', 'whenOut', 'maxAgeS', 'path', 'sameSite', 'secure']

/** One request's tie to a backend. */
export interface Tie {
  /** For the call. */
  readonly prefer: Wanted | undefined
  /** The Set-Cookie line for an answer; undefined if the client has that cookie, or no backend answered, or one failed. */
  setCookie(call: Call, answer: BalancerResponse): string | undefined
}

/** What the secrets make of one pool. A token begins with the mark of its pool. */
interface Signed {
  readonly marks: readonly string[]
  /** Of each live record, one for each secret. */
  readonly tokens: WeakMap<Backend, readonly string[]>
}

/**
 * Ties clients to backends by a cookie that names one for each pool and says nothing about it: HMAC-SHA256 of pool and id. Nothing
 * is stored, so restarts and other processes with the same secret know it too.
 */
export class Affinity {
  readonly #cookie: string
  readonly #secrets: readonly Uint8Array[]
  readonly #fails: boolean
  readonly #attributes: string
  readonly #secure: 'auto' | boolean
  readonly #pools = new Map<string, Signed>()

  /** The options must be without `issuesOf`. */
  constructor(options: AffinityOptions) {
    const { cookie = 'evenkeel', whenOut, maxAgeS, path = '/', sameSite = 'lax', secure = 'auto' } = options
    this.#cookie = cookie
    this.#secrets = secretsOf(options.secret).map(bytesOf)
    this.#fails = whenOut === 'fail'
    const age = maxAgeS === undefined ? '' : `; Max-Age=${maxAgeS}`
    this.#attributes = `; Path=${path}${age}; HttpOnly; SameSite=${SAME_SITE[sameSite]}`
    this.#secure = secure
  }

  tie({ rawHeaders, isEncrypted }: Incoming): Tie {
    const values = cookies(rawHeaders, this.#cookie)
    // Looked up by hash: how long that takes tells nobody how much of a guess is right, and 256 bits are not guessed otherwise.
    const given = new Set(values.flatMap((value) => value.split('.')).filter((token) => TOKEN.test(token)))
    return {
      prefer: given.size === 0 ? undefined : (backend, call) => this.#isMeant(given, backend, call),
      setCookie: (call, answer) => {
        const attempt = answeredBy(call, answer)
        if (attempt === undefined || attempt.rule?.health === 'failure') return undefined
        const [token] = this.#tokensOf(attempt.backend, call.pool)
        if (given.has(token!)) return undefined
        const { marks } = this.#signed(call.pool)
        const others = [...given].filter((other) => !marks.includes(other.slice(0, MARK_LENGTH)))
        const value = [token, ...others].slice(0, MOST_TOKENS).join('.')
        const isSecure = this.#secure === 'auto' ? isEncrypted : this.#secure
        return `${this.#cookie}=${value}${this.#attributes}${isSecure ? '; Secure' : ''}`
      },
    }
  }

  /** A Cookie header's value as the backend gets it; undefined = not at all. */
  strip(value: string): string | undefined {
    const left = withoutCookie(value, this.#cookie)
    return left === '' && value !== '' ? undefined : left
  }

  #isMeant(given: ReadonlySet<string>, backend: Backend, call: Call): boolean {
    if (!this.#tokensOf(backend, call.pool).some((token) => given.has(token))) return false
    if (this.#fails) call.sole = backend
    return true
  }

  #tokensOf(backend: Backend, pool: string): readonly string[] {
    const { marks, tokens } = this.#signed(pool)
    const known = tokens.get(backend)
    if (known !== undefined) return known
    const made = this.#sign(`${pool}\0${backend.id}`).map((digest, i) => marks[i]! + digest)
    tokens.set(backend, made)
    return made
  }

  #signed(pool: string): Signed {
    const known = this.#pools.get(pool)
    if (known !== undefined) return known
    const marks = this.#sign(pool).map((digest) => digest.slice(0, MARK_LENGTH))
    const signed = { marks, tokens: new WeakMap<Backend, readonly string[]>() }
    this.#pools.set(pool, signed)
    return signed
  }

  /** By each secret. */
  #sign(text: string): readonly string[] {
    return this.#secrets.map((secret) => createHmac('sha256', secret).update(text).digest('base64url'))
  }
}

function secretsOf(secret: AffinityOptions['secret']): readonly (string | Uint8Array)[] {
  return typeof secret === 'string' || secret instanceof Uint8Array ? [secret] : secret
}

/** A copy: what its owner does to the bytes later changes no cookie. */
function bytesOf(secret: string | Uint8Array): Uint8Array {
  return typeof secret === 'string' ? Buffer.from(secret) : Uint8Array.from(secret)
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (Array.isArray(value)) return `a list of ${value.length}`
  return value === null ? 'null' : `a value of type ${typeof value}`
}

/** What was found, if it is short enough to be no secret in the wrong place. */
function textOf(value: unknown): string {
  const isShort = typeof value === 'string' && value.length < LEAST_BYTES / 2
  return isShort || typeof value === 'boolean'
    ? JSON.stringify(value)
    : typeof value === 'number'
      ? String(value)
      : kindOf(value)
}

/** Everything that is wrong. Of secrets only the length is told. */
export function issuesOf(options: AffinityOptions): readonly ConfigIssue[] {
  const issues: ConfigIssue[] = []
  const expect = (holds: boolean, key: string, expected: string, found: unknown): void => {
    if (!holds) issues.push({ path: `affinity${key}`, expected, found: textOf(found) })
  }
  if (typeof options !== 'object' || options === null) {
    return [{ path: 'affinity', expected: 'an object with a secret', found: kindOf(options) }]
  }
  const { cookie: name = 'evenkeel', secret, whenOut, maxAgeS, path, sameSite, secure = 'auto' } = options
  for (const key of Object.keys(options)) {
    if (KEYS.includes(key)) continue
    const path = `affinity.${nameText(key)}`
    issues.push({ path, expected: `one of ${KEYS.join(', ')}`, found: 'an unknown key' })
  }
  const isName = typeof name === 'string' && isToken(name)
  expect(isName, '.cookie', "a name of letters, digits and -_.~!#$%&'*+^`|", name)
  const secrets: readonly unknown[] = Array.isArray(secret) ? secret : [secret]
  expect(secrets.length > 0, '.secret', 'a secret, or a list of at least one', secret)
  secrets.forEach((one, i) => {
    const bytes = typeof one === 'string' || one instanceof Uint8Array ? bytesOf(one).length : undefined
    if (bytes !== undefined && bytes >= LEAST_BYTES) return
    const path = `affinity.secret${Array.isArray(secret) ? `[${i}]` : ''}`
    issues.push({
      path,
      expected: `${LEAST_BYTES} bytes at least`,
      found: bytes === undefined ? kindOf(one) : `${bytes} bytes`,
    })
  })
  const known = whenOut === undefined || whenOut === 'redistribute' || whenOut === 'fail'
  expect(known, '.whenOut', '"redistribute" or "fail"', whenOut)
  const isAge = maxAgeS === undefined || (Number.isSafeInteger(maxAgeS) && maxAgeS >= 1)
  expect(isAge, '.maxAgeS', 'a whole number >= 1', maxAgeS)
  const isPath = path === undefined || (typeof path === 'string' && PATH.test(path))
  expect(isPath, '.path', "a path that starts with '/', without ';' and spaces", path)
  const isSite = sameSite === undefined || Object.hasOwn(SAME_SITE, sameSite)
  expect(isSite, '.sameSite', '"lax", "strict" or "none"', sameSite)
  expect(secure === 'auto' || typeof secure === 'boolean', '.secure', '"auto", true or false', secure)
  expect(sameSite !== 'none' || secure === true, '.secure', 'true with sameSite "none"', secure)
  const isPrefixed = isName && /^__(secure|host)-/i.test(name)
  const isHost = isName && /^__host-/i.test(name)
  expect(!isHost || path === undefined || path === '/', '.path', `'/' for a cookie named ${name}`, path)
  expect(!isPrefixed || secure === true, '.secure', `true for a cookie named ${name}`, secure)
  return issues
}
