import { readFile } from 'node:fs/promises'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BalancerError } from '../src/core/errors.ts'
import { A, endpoint, expectRows, refused, resolve, setting, verb } from './config-rows.ts'
import { refusedFile } from './support/config-files.ts'

describe('unknown keys', () => {
  test('are refused, with the key that was meant or those there are', () => {
    const unknown = 'an unknown key'
    expectRows([
      [endpoint({ weigth: 1 }), 'backends[0].weigth', 'weight', unknown],
      [endpoint({ MAXINFLIGHT: 1 }), 'backends[0].MAXINFLIGHT', 'maxInflight', unknown],
      [setting({ timeout: {} }), 'timeout', 'timeouts', unknown],
      [setting({ retry: { colour: 1 } }), 'retry.colour', 'one of attempts, status, baseMs', unknown],
      [setting({ retry: { budget: { sahre: 1 } } }), 'retry.budget.sahre', 'share', unknown],
      [setting({ health: { passive: { maxMS: 1 } } }), 'health.passive.maxMS', 'maxMs', unknown],
      [{ pools: { p: setting({ pools: {} }) } }, 'pools.p.pools', 'one of backends', unknown],
    ])
  })

  test('cannot break the line of a log, nor fill it', () => {
    const key = 'x\n\u001b[2J\u202e\u2028\u009b'.repeat(99)
    const [issue] = refused(setting({ [key]: 1, zone: key })).issues!
    expect(issue?.path).toMatch(/^\["x\\n[ -~]{1,300}…"\]$/)
    expect(refused(setting({ name: '', strategy: key })).message.split('\n')).toHaveLength(3)
  })
})

describe('the error', () => {
  test('tells wrong pools apart even where their names are cut', () => {
    const name = `${'x.'.repeat(31)}`
    const pool = { backends: [A], retry: { attempts: 0 } }
    expect(refused({ pools: { [`${name}a`]: pool, [`${name}b`]: pool } }).issues).toHaveLength(2)
  })

  test('lists everything at once, in the order of the document, in plain lines', () => {
    const error = refused({
      retry: { maxMs: 3, attempts: 0, baseMs: 4 },
      backends: [{ weight: -1, url: 'x:y' }, A, 7, A],
      colour: 'red',
      pools: { p: { retry: { atempts: 2 }, timeouts: { attemptMs: 9, totalMs: 8 } } },
      name: '',
    })
    expect(error.message.split('\n')).toEqual([
      '12 things are wrong with the configuration:',
      '  retry.maxMs: expected at least 4, which is retry.baseMs, found 3',
      '  retry.attempts: expected a whole number >= 1 and <= 100, found 0',
      '  backends[0].weight: expected a number >= 0 and <= 1000000000, found -1',
      '  backends[0].url: expected an http: or https: URL, such as http://127.0.0.1:3000, found "x:y"',
      '  backends[2]: expected a URL as a string, or an object with a url, found 7',
      '  backends[3].id: expected an id of its own within the pool, found duplicate id "127.0.0.1:3001" (also backends[1])',
      '  colour: expected one of name, backends, pools, origins, route, strategies, clock, random, revisions, logger, log, strategy, health, classify, classes, retry, hedge, breaker, limits, timeouts, undici, transport, policies, watchers, sinks, found an unknown key',
      '  pools: expected either backends or pools, found both',
      '  pools.p.retry.atempts: expected attempts, found an unknown key',
      '  pools.p.timeouts.attemptMs: expected at most 8, which is pools.p.timeouts.totalMs: no attempt outlasts its call, found 9',
      '  pools.p.backends: expected an array of backends, found undefined',
      '  name: expected a string that is not empty, found ""',
    ])
    expect(error.issues).toHaveLength(12)
    expect(refused({}).message).toMatch(/^1 thing is wrong with the configuration:\n {2}backends: /)
  })

  test('shows no secret', () => {
    const canary = 'C4N4RY-s3cret'
    const secret = `${canary}\n`
    const error = refused({
      backends: [
        { url: `http://me:${canary}@a/`, headers: { authorization: secret, 'x-1': [canary], te: canary } },
        { url: `http://a/?key=${canary}`, headers: canary, apiKey: canary, pwd: canary },
        `https://${canary}@b:99999/`,
        `http://c/#${canary}`,
        `${canary}@d`,
      ],
      undici: { tls: canary },
      pools: {
        apiKey: canary,
        session_token: canary,
        Cookie: canary,
        passwordFile: canary,
        tls: canary,
        headers: canary,
      },
      origins: [`https://u:${canary}@a`],
    })
    expect(error.issues).toHaveLength(20)
    for (const text of [error.message, String(error.stack), JSON.stringify(error), inspect(error, { depth: 20 })]) {
      expect(text).not.toContain('C4N4RY')
    }
  })

  test('names what is no key, and of a key in the place of a name shows a short start and the length', () => {
    const names = ['http2MaxConcurrentStreams', 'ipv4Addresses', 'x509Certificate', 'claude35sonnet20241022']
    names.push('qwen25coder32b', 'i-0abcd1234ef567890', '/healthcheckv1', '10000milliseconds', 'OPENAI_API_KEY2')
    names.push('http://payments01internal.example.com:8080', 'us.meta.llama3-2-90b-instruct-v1:0', 'sk-learn-models')
    for (const name of names) {
      const [byKey, byValue] = refused({ ...(setting({}) as object), [name]: 1, name: '', strategy: name }).issues!
      expect(byKey!.path).toMatch(name)
      expect([byValue!.path, byKey!.path]).not.toContain('…')
      expect(refused(setting({ strategy: name })).issues![0]!.found).toBe(JSON.stringify(name))
    }
    const keys = ['sk-ant-api03-Zq8xK2', 'AIzaSyD3m0K3y000', 'xai-0123456789', 'ghp_0123456789', 'Bearer 0123456789']
    keys.push(
      'hG7dK2mQ9xT4vB6nR1wZ',
      'd41d8cd98f00b204e9800998ecf8427e',
      'kQ7-hG7dK2mQ9xT4vB6n',
      'sk-proj-aaaaaaaaaaaaaa1',
    )
    const { issues, message } = refused(setting(Object.fromEntries(keys.map((key) => [key, 1]))))
    expect(issues).toHaveLength(keys.length)
    expect(issues!.map(({ path }) => path)).toEqual([
      '["…(19)"]',
      '["…(16)"]',
      '["…(14)"]',
      '["…(14)"]',
      '["…(17)"]',
      '["hG7d…(20)"]',
      '["d41d…(32)"]',
      '["kQ7-…(20)"]',
      '["sk-p…(23)"]',
    ])
    for (const key of keys) expect(message).not.toContain(key.slice(0, 5))
  })

  test('hides a key that names a pool, a strategy or a provider in every word of it', async () => {
    const keys = ['sk-ant-api03-Zq8xK2hG7dK2', 'sk-or-v1:0123456789abcdef']
    const backends = [A, A, { url: 'http://127.0.0.1:2', timeouts: { attemptMs: 9 } }]
    for (const key of keys) {
      const own = { backends, retry: { baseMs: 9, maxMs: 3 }, timeouts: { totalMs: 5 }, limits: { queue: {} } }
      const hedged = { hedge: { delayMs: 9 }, retry: { bufferBytes: 0 } }
      const strategies = [
        { name: key, start: verb },
        { name: key, start: verb },
      ]
      const error = refused({ pools: { [key]: own, b: { backends: [A], ...hedged } }, strategies, strategy: 'nope' })
      expect(error.message).toMatch(/which is pools\["sk-.…\(25\)"\]\.retry\.baseMs/)
      expect(error.issues!.length).toBeGreaterThan(4)
      expect(inspect(error, { depth: 20 })).not.toContain(key.slice(0, 6))
      const text = `[pools.${JSON.stringify(key)}]\nbackends = ["http://a", "http://b"]\nretry = { base = "9s", max = "3s" }`
      const { issues, message } = await refusedFile(text)
      expect(issues![0]!.expected).toMatch(/which is pools\["sk-.…\(25\)"\]\.retry\.base$/)
      expect(message).not.toContain(key.slice(0, 6))
    }
  })

  test('still shows what is wrong in a pool that is called like a secret', () => {
    expectRows([[{ pools: { tokens: setting({ retry: { attempts: 0 } }) } }, 'pools.tokens.retry.attempts', '', '0']])
  })

  test('leaves what was handed over as it was', () => {
    const odd = { weight: -1, tags: { a: 1 }, headers: { a: 1 }, meta: new Map() }
    const options = { backends: [odd], policies: new Uint8Array(2), retry: { status: [1] } }
    expect(refused(options).issues).toHaveLength(7)
    expect([options, odd, odd.tags, odd.headers, odd.meta, options.retry.status].some(Object.isFrozen)).toBe(false)
  })

  test('is ours when reading the options throws', () => {
    const cause = new RangeError('no')
    const thrower = {
      get backends(): never {
        throw cause
      },
    }
    const revoked = Proxy.revocable({}, {})
    revoked.revoke()
    expect(refused(thrower)).toMatchObject({ cause, issues: [{ path: 'options', found: 'one that throws' }] })
    expect(refused(setting({ retry: revoked.proxy })).issues).toHaveLength(1)
  })
})

describe('hostile input', () => {
  test('pollutes no prototype', () => {
    const evil = '"__proto__":{"weight":666,"polluted":true}'
    const url = `"url":"${A}"`
    for (const [json, path] of [
      [`{"backends":["${A}"],${evil}}`, '__proto__'],
      [`{"backends":[{${url},${evil}}]}`, 'backends[0].__proto__'],
      [`{"backends":[{${url},"meta":{${evil}}}]}`, 'backends[0].meta.__proto__'],
      [`{"backends":[{${url},"headers":{"__proto__":"x"}}]}`, 'backends[0].headers.__proto__'],
      [`{"backends":["${A}"],"undici":{"tls":{${evil}}}}`, 'undici.tls.__proto__'],
      [`{"backends":["${A}"],"retry":{"constructor":{}}}`, 'retry.constructor'],
    ] as const) {
      expect(refused(JSON.parse(json)).issues).toEqual([expect.objectContaining({ path })])
    }
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  })

  test('of any form is accepted or refused, and never does anything else', () => {
    const keys =
      'name backends pools origins clock random strategy strategies health classes retry hedge breaker limits timeouts undici transport policies'
    const inner =
      'url id weight tags headers meta passive baseMs maxMs status budget totalMs attemptMs tls active type probe match delayMs bufferBytes queue adaptive min max initial maxInflight timeout key whenOut bound like start __proto__ a'
    const scalar = fc.oneof(
      fc.constantFrom<unknown>(
        A,
        'p2c',
        'maglev',
        'failover',
        0,
        1,
        -1,
        Number.NaN,
        1e9,
        null,
        undefined,
        false,
        verb,
        'http://u:p@h/?x',
      ),
      fc.anything({ withBigInt: true, withDate: true, withMap: true, withSet: true, withTypedArray: true }),
    )
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof({ maxDepth: 4 }, scalar, fc.array(tie('tree'), { maxLength: 3 }), tie('object')),
      object: fc.dictionary(fc.constantFrom(...`${keys} ${inner}`.split(' ')), tie('tree'), { maxKeys: 4 }),
    }))
    const topLevel = fc.dictionary(fc.constantFrom(...keys.split(' ')), tree)
    const valid = fc.record({ backends: fc.constant([A]) })
    const options = fc.oneof(
      tree,
      topLevel,
      fc.tuple(topLevel, valid).map(([a, b]) => ({ ...a, ...b })),
    )
    let accepted = 0
    fc.assert(
      fc.property(options, (input) => {
        try {
          expect(Object.isFrozen(resolve(input))).toBe(true)
          accepted++
        } catch (error) {
          if (!(error instanceof BalancerError)) throw error
          expect(error.code).toBe('CONFIG')
          expect(error.issues?.length).toBeGreaterThan(0)
          expect(error.message.split('\n')).toHaveLength(error.issues!.length + 1)
          expect(error.cause).toBeUndefined()
        }
      }),
      { numRuns: 4_000, seed: 20_260_101 },
    )
    expect(accepted).toBeGreaterThan(50) // both ways are taken
  })
})

test('the message the README shows is the one that is thrown', async () => {
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8')
  const backends = ['http://127.0.0.1:3001', { url: 'http://127.0.0.1:3002', weight: -1 }]
  expect(readme).toContain(String(refused({ backends, strategy: 'peak-emwa' })))
})
